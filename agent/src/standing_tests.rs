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
