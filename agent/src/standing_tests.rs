use super::*;
use crate::pods::testing::{enrolled_pod, pod};

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_is_not_the_same_pod() {
    let now = pod("web-0", "second", &[], true);
    let pods = PodRegistry::default();
    let known = |_: &WorkloadUid| Some(Arc::clone(&now));
    let why = enrolled(&pods, &now.uid, "second", known).await.unwrap_err();
    assert!(why.contains("is not enrolled"), "{why}");
    enrolled_pod(&pods, &now);
    for uid in ["second", ""] {
        assert_eq!(enrolled(&pods, &now.uid, uid, known).await.unwrap().workload, now, "{uid}");
    }
    let why = enrolled(&pods, &now.uid, "first", known).await.unwrap_err();
    assert!(why.contains("another than the one"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_stands_no_longer_than_it_may() {
    let (bytes, began) = (ByteCounters::default(), Instant::now());
    let hour = Duration::from_secs(3600);
    let ms = |ms| Some(Duration::from_millis(ms));
    assert!(
        tokio::time::timeout(hour, Span::default().over(&bytes)).await.is_err(),
        "without a limit for ever"
    );
    assert_eq!(began.elapsed(), hour);
    for (idle, lasts, flag, took) in [
        (ms(8000), None, FlowFlag::Idle, 8),
        (None, ms(5000), FlowFlag::Expired, 5),
        (ms(8000), ms(5000), FlowFlag::Expired, 5),
        (ms(4000), ms(5000), FlowFlag::Idle, 4),
    ] {
        let began = Instant::now();
        // As it is, or as a successor gets it.
        let span = Span::from(Span::from_now(idle, lasts).left());
        assert_eq!(span.over(&bytes).await.flag(), flag, "{span:?}");
        assert_eq!(began.elapsed().as_secs(), took, "{span:?}");
    }
}
