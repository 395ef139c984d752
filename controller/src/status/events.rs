//! Events (events.k8s.io/v1) about objects that are rejected, where `kubectl describe` shows them.

use super::reports::Report;
use crate::ca::rotation::Alarm;
use crate::kubernetes::{CallError, Cluster, shorten};
use crate::source::kubernetes::Rejection;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};

const CONTROLLER: &str = "warren.dev/controller";
/// Of cluster-scoped objects' events.
const DEFAULT_NAMESPACE: &str = "default";
/// Kubernetes takes 1024 bytes; a character has up to four.
const LONGEST_NOTE: usize = 250;
/// So that name and hash fit into 253 bytes.
const LONGEST_NAME: usize = 200;

/// Writes one event, or counts up the one that is there.
pub(super) async fn write(cluster: &Cluster, report: &Report) -> Result<(), CallError> {
    put(cluster, event(report, cluster.instance(), Timestamp::now()), report.count).await
}

/// The same about a CA that ends soon.
pub(super) async fn write_alarm(cluster: &Cluster, alarm: &Alarm, count: i32) -> Result<(), CallError> {
    put(cluster, alarm_event(alarm, cluster.namespace(), cluster.instance(), Timestamp::now()), count).await
}

async fn put(cluster: &Cluster, event: Event, count: i32) -> Result<(), CallError> {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    match cluster.create(Some(&namespace), &event).await {
        Ok(_) => Ok(()),
        Err(CallError::Conflict) => {
            let name = event.metadata.name.unwrap_or_default();
            let last = event.event_time;
            let series = serde_json::json!({
                "series": {"count": count.max(2), "lastObservedTime": last},
            });
            cluster.patch::<Event>(&namespace, &name, series).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

fn alarm_event(alarm: &Alarm, namespace: &str, instance: &str, now: Timestamp) -> Event {
    let hash: String = Sha256::digest(alarm.what).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("warren-ca-root.{hash}")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Rotate".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(shorten(&format!("{}: {}", alarm.text, alarm.todo), LONGEST_NOTE)),
        reason: Some("CertificateExpires".to_owned()),
        // What everybody may look at, unlike the Secret.
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some("warren-ca-root".to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(shorten(instance, 128)),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

fn event(report: &Report, instance: &str, now: Timestamp) -> Event {
    let Rejection { api_version, kind, rejected } = &report.rejection;
    let namespace = Some(&*rejected.name.namespace).filter(|namespace| !namespace.is_empty());
    let note = shorten(&format!("warren does not use this object: {}", rejected.reason), LONGEST_NOTE);
    Event {
        metadata: ObjectMeta {
            name: Some(name(&report.rejection)),
            namespace: Some(namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Read".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(note),
        reason: Some("Rejected".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version.clone()),
            kind: Some(kind.as_str().to_owned()),
            namespace: namespace.map(str::to_owned),
            name: Some(rejected.name.name.to_string()),
            uid: Some(rejected.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(shorten(instance, 128)),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// The same for the same object and reason, so that the next leader counts up instead of repeating.
fn name(rejection: &Rejection) -> String {
    let rejected = &rejection.rejected;
    let mut hash = Sha256::new();
    for part in [rejection.kind.as_str(), &rejected.uid, &rejected.reason] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name: String = rejected.name.name.chars().take(LONGEST_NAME).collect();
    // A name may not have a dot before a dot.
    format!("{}.{hash}", name.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::rotation::{Validity, alarm};
    use crate::objects::{Kind, Name};
    use crate::source::kubernetes::Rejected;

    fn rejection(namespace: &str, name: &str, reason: &str) -> Rejection {
        let rejected = Rejected { name: Name::new(namespace, name), uid: "u".into(), reason: reason.into() };
        Rejection { api_version: "v1".into(), kind: Kind::Service, rejected }
    }

    #[test]
    fn an_event_is_where_its_object_is() {
        for (namespace, expected) in [("shop", "shop"), ("", "default")] {
            let report = Report { rejection: rejection(namespace, "web", "r"), count: 1 };
            let event = event(&report, "pod-1", Timestamp::UNIX_EPOCH);
            assert_eq!(event.metadata.namespace.as_deref(), Some(expected));
            assert_eq!(event.regarding.unwrap().namespace.unwrap_or_default(), namespace);
        }
    }

    #[test]
    fn names_are_valid_and_tell_reasons_apart() {
        let long = format!("{}.{}", "a".repeat(199), "b".repeat(53));
        for object in ["web", long.as_str()] {
            let first = name(&rejection("n", object, "x"));
            assert_eq!(first, name(&rejection("n", object, "x")));
            assert_ne!(first, name(&rejection("n", object, "y")));
            assert!(first.len() <= 253 && !first.contains(".."), "{first}");
        }
    }

    #[test]
    fn a_ca_that_ends_is_one_event_however_long_it_has() {
        let alarm = |left| {
            let validity = Validity { from: 0, to: 86_400 * 365 };
            alarm("the root", validity, true, validity.to - left).unwrap()
        };
        let event = |left| alarm_event(&alarm(left), "warren-system", "pod-1", Timestamp::UNIX_EPOCH);
        let (first, second) = (event(86_400 * 5), event(3000));
        assert_eq!(first.metadata.name, second.metadata.name);
        assert!(first.note.clone().unwrap().starts_with("the root ends in 5 days: "), "{first:?}");
        assert_ne!(first.note, second.note);
    }

    #[test]
    fn notes_fit() {
        let report = Report { rejection: rejection("n", "o", &"ä".repeat(100_000)), count: 1 };
        let event = event(&report, "pod-1", Timestamp::UNIX_EPOCH);
        assert!(event.note.unwrap().len() <= 1024);
    }
}
