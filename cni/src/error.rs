//! Errors as the container runtime reads them: JSON on standard output (CNI specification, "Error").

use serde::Serialize;

/// What went wrong, by the specification's codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CniError {
    #[error("the configuration's cniVersion {0:?} is not supported; supported are {supported}", supported = crate::config::SUPPORTED.join(", "))]
    Version(String),
    #[error("the environment variable {0} is missing or not valid; a container runtime sets it")]
    Environment(&'static str),
    #[error("cannot read the configuration from standard input: {0}")]
    Io(String),
    #[error("the configuration is not valid JSON: {0}")]
    Decode(String),
    #[error("the configuration {0}")]
    Config(String),
    /// The kubelet tries again.
    #[error("{0}")]
    TryAgain(String),
}

impl CniError {
    /// The specification's code.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment(_) => 4,
            Self::Io(_) => 5,
            Self::Decode(_) => 6,
            Self::Config(_) => 7,
            Self::TryAgain(_) => 11,
        }
    }

    /// The error as it is printed; `version` is the configuration's.
    pub(crate) fn to_json(&self, version: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Printed<'a> {
            cni_version: &'a str,
            code: u32,
            msg: String,
            details: &'a str,
        }
        // Runtimes show both, and the kubelet makes an event of them.
        let details = match self {
            Self::TryAgain(_) => "the kubelet tries again by itself",
            _ => "",
        };
        let printed =
            Printed { cni_version: version, code: self.code(), msg: format!("warren: {self}"), details };
        // Text and numbers always have a form in JSON.
        serde_json::to_string(&printed).unwrap_or_default()
    }
}
