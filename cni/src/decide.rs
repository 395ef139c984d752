//! Whether a pod may start. Pure.

use crate::error::CniError;
use std::io;
use warren_common::model::cni::{Answer, Offline, PodName};

/// What the file for the time without an agent says.
#[derive(Debug)]
pub(crate) enum Saved {
    /// No agent has ever known anything on this node.
    Nothing,
    /// This.
    Offline(Offline),
    /// It cannot be read.
    Damaged(String),
}

impl Saved {
    /// Reads the file's content.
    pub(crate) fn of(content: io::Result<Vec<u8>>) -> Self {
        match content.map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(offline)) => Self::Offline(offline),
            Ok(Err(error)) => Self::Damaged(error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Nothing,
            Err(error) => Self::Damaged(error.to_string()),
        }
    }

    /// Whether a pod of the namespace must not start without an agent.
    pub(crate) fn holds(&self, namespace: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Offline(offline) => !offline.fail_open && offline.enrolled_namespaces.contains(namespace),
            // It is not known who is in the mesh. The system's own pods never are, as long as nobody knows better.
            Self::Damaged(_) => namespace != "kube-system",
        }
    }
}

/// The agent's answer is the answer; without one the file decides, and what is in the mesh waits.
pub(crate) fn decide(asked: &io::Result<Answer>, saved: &Saved, pod: &PodName) -> Result<(), CniError> {
    let PodName { namespace, name, .. } = pod;
    match asked {
        Ok(Answer::Done | Answer::NotInMesh) => Ok(()),
        Ok(Answer::NotYet(reason)) => {
            Err(CniError::TryAgain(format!("pod {namespace}/{name} waits for the mesh: {reason}")))
        }
        Err(_) if !saved.holds(namespace) => Ok(()),
        Err(error) => {
            let why = match saved {
                Saved::Damaged(problem) => format!("which namespaces are enrolled is not known ({problem})"),
                _ => format!("namespace {namespace} is enrolled"),
            };
            Err(CniError::TryAgain(format!(
                "pod {namespace}/{name} waits: {why}, and this node's warren agent does not answer ({error}); \
                 see the pods of the DaemonSet warren-agent"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline(namespaces: &[&str], fail_open: bool) -> Saved {
        let enrolled_namespaces = namespaces.iter().map(ToString::to_string).collect();
        Saved::Offline(Offline { enrolled_namespaces, fail_open })
    }

    fn pod(namespace: &str) -> PodName {
        PodName { namespace: namespace.into(), name: "web".into(), uid: "u".into() }
    }

    #[test]
    fn without_an_agent_only_the_mesh_waits() {
        let away = || Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        for (shows, asked, saved, namespace, passes) in [
            ("captured", Ok(Answer::Done), offline(&["shop"], false), "shop", true),
            ("not in the mesh", Ok(Answer::NotInMesh), offline(&["shop"], false), "shop", true),
            ("not ready", Ok(Answer::NotYet("x".into())), Saved::Nothing, "shop", false),
            ("away, enrolled", away(), offline(&["shop"], false), "shop", false),
            ("away, fail-open", away(), offline(&["shop"], true), "shop", true),
            ("away, other namespace", away(), offline(&["shop"], false), "other", true),
            ("away, system", away(), offline(&["shop"], false), "kube-system", true),
            ("away, enrolled system", away(), offline(&["kube-system"], false), "kube-system", false),
            ("away, nothing known", away(), Saved::Nothing, "shop", true),
            ("away, damaged", away(), Saved::Damaged("x".into()), "shop", false),
            ("away, damaged, system", away(), Saved::Damaged("x".into()), "kube-system", true),
        ] {
            assert_eq!(decide(&asked, &saved, &pod(namespace)).is_ok(), passes, "{shows}");
        }
    }

    #[test]
    fn the_event_tells_what_to_do() {
        let away = Err(io::Error::from(io::ErrorKind::NotFound));
        let error = decide(&away, &offline(&["shop"], false), &pod("shop")).unwrap_err();
        assert_eq!(
            error.to_json("1.0.0"),
            "{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"warren: pod shop/web waits: namespace shop is enrolled, \
             and this node's warren agent does not answer (entity not found); see the pods of the DaemonSet \
             warren-agent\",\"details\":\"the kubelet tries again by itself\"}"
        );
    }

    #[test]
    fn files_are_read_as_they_are() {
        assert!(matches!(Saved::of(Err(io::ErrorKind::NotFound.into())), Saved::Nothing));
        assert!(matches!(Saved::of(Err(io::ErrorKind::PermissionDenied.into())), Saved::Damaged(_)));
        assert!(matches!(Saved::of(Ok(b"{".to_vec())), Saved::Damaged(_)));
        let text = br#"{"enrolledNamespaces":["shop"],"failOpen":false}"#.to_vec();
        assert!(Saved::of(Ok(text)).holds("shop"));
    }
}
