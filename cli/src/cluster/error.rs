//! What the API server said, and what to do about it.

use std::error::Error;

/// Why a question to the cluster has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// No kubeconfig, or none that can be used.
    #[error("no cluster to ask: {0}\n  give --kubeconfig or --context, or set KUBECONFIG")]
    Config(String),
    /// The API server answered, and not as hoped.
    #[error("{what}: {}", explain(error))]
    Api {
        /// What was being done.
        what: String,
        /// What came back; told whole above, so not a source.
        error: Box<kube::Error>,
    },
    /// Nothing there has that name, or what it has is of no use.
    #[error("{0}")]
    NotFound(String),
}

impl ClusterError {
    /// Says what was being done when the API server refused.
    pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |error| Self::Api { what, error: Box::new(error) }
    }
}

/// What the API server said, in words, with the next step where one is known.
pub(crate) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => format!("{}: the kubeconfig's credentials are not accepted (expired?)", status.message),
            403 => format!(
                "{}\n  this needs rights that the kubeconfig's user does not have; `kubectl auth can-i --list` shows them",
                status.message
            ),
            _ if status.message.is_empty() => format!("the API server answered {}", status.code),
            _ => status.message.clone(),
        },
        error => {
            let mut words = Vec::new();
            let mut cause: Option<&dyn Error> = Some(error);
            while let Some(error) = cause {
                words.push(error.to_string());
                cause = error.source();
            }
            // The outer ones repeat the inner ones.
            let last = words.pop().unwrap_or_default();
            format!("the API server cannot be reached: {last}\n  is it up, and is this the right --context?")
        }
    }
}

/// Whether the API server says that there is no such object.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn refusals_say_what_to_do() {
        for (code, message, expected) in [
            (401, "Unauthorized", "credentials are not accepted"),
            (403, "pods is forbidden", "auth can-i"),
            (404, "", "answered 404"),
            (409, "conflict with kubectl", "conflict with kubectl"),
        ] {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            let said = explain(&kube::Error::Api(Box::new(status)));
            assert!(said.contains(expected), "{said}");
        }
    }
}
