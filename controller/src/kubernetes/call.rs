//! One request to the API server, and what can come of it. Nothing of a body is ever logged: bodies hold keys
//! and tokens, and the client library's own typed calls log what they can't decode.

use super::Cluster;
use futures_util::io::AsyncBufRead;
use kube::Resource;
use kube::core::params::{GetParams, Patch, PatchParams, PostParams};
use kube::core::{Request, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::pin::Pin;
use std::time::Duration;

/// A call takes this long at most; the API server's own limit is 60 s.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest text of the API server that is passed on (characters).
const LONGEST_MESSAGE: usize = 400;

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such object, or no such kind.
    #[error("not found")]
    NotFound,
    /// It exists already, or somebody was faster.
    #[error("somebody else changed it first")]
    Conflict,
    /// A version that is too old to go on from.
    #[error("what was known is too old to go on from")]
    Expired,
    /// RBAC; the text names the verb, the resource and the account.
    #[error("{0}; grant that to the controller (deploy/ has the roles it needs)")]
    Forbidden(String),
    /// The API server does not want it.
    #[error("the API server refuses ({code}): {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// In its own words, shortened.
        message: String,
    },
    /// No answer, or one that says "later".
    #[error("the API server can't be reached: {0}")]
    Unavailable(String),
    /// An answer that can't be understood.
    #[error("the API server's answer can't be read: {0}")]
    Malformed(String),
}

impl CallError {
    /// What a `Status` object of the API server means.
    pub(crate) fn of_status(status: &Status) -> Self {
        let message = shorten(&status.message, LONGEST_MESSAGE);
        match status.code {
            403 => Self::Forbidden(message),
            404 => Self::NotFound,
            409 => Self::Conflict,
            410 => Self::Expired,
            429 | 502..=504 => Self::Unavailable(message),
            code => Self::Refused { code, message },
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        if let kube::Error::Api(status) = &error {
            return Self::of_status(status);
        }
        // The interesting part ("connection refused") is at the end of the chain.
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self::Unavailable(shorten(&text, LONGEST_MESSAGE))
    }
}

/// The body of an answer as it arrives.
pub(crate) type Body = Pin<Box<dyn AsyncBufRead + Send>>;

/// A request that is not sent yet.
pub(crate) type Prepared = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

impl Cluster {
    /// Reads one object of a namespace.
    pub(crate) async fn get<K>(&self, namespace: &str, name: &str) -> Result<K, CallError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        self.call(collection::<K>(Some(namespace)).get(name, &GetParams::default())).await
    }

    /// Reads one object of a collection.
    pub(crate) async fn get_at(&self, collection: &str, name: &str) -> Result<serde_json::Value, CallError> {
        self.call(Request::new(collection).get(name, &GetParams::default())).await
    }

    /// Merges members into the status of an object of a collection, provided that it still has the version they say.
    pub(crate) async fn patch_status(
        &self,
        collection: &str,
        name: &str,
        members: serde_json::Value,
    ) -> Result<(), CallError> {
        let (patch, params) = (Patch::Merge(members), PatchParams::default());
        let request = Request::new(collection).patch_subresource("status", name, &params, &patch);
        self.call::<serde::de::IgnoredAny>(request).await.map(drop)
    }

    /// Makes an object; of a namespaced kind in `namespace`.
    pub(crate) async fn create<K>(&self, namespace: Option<&str>, object: &K) -> Result<K, CallError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        self.call(collection::<K>(namespace).create(&PostParams::default(), encode(object)?)).await
    }

    /// Replaces an object, provided that it still has the version that `object` says.
    pub(crate) async fn replace<K>(&self, namespace: &str, name: &str, object: &K) -> Result<K, CallError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let request = collection::<K>(Some(namespace)).replace(name, &PostParams::default(), encode(object)?);
        self.call(request).await
    }

    /// Merges members into an object (RFC 7386).
    pub(crate) async fn patch<K>(
        &self,
        namespace: &str,
        name: &str,
        members: serde_json::Value,
    ) -> Result<K, CallError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let patch = Patch::Merge(members);
        self.call(collection::<K>(Some(namespace)).patch(name, &PatchParams::default(), &patch)).await
    }

    /// Sends a request and decodes the answer.
    async fn call<T: DeserializeOwned>(&self, request: Prepared) -> Result<T, CallError> {
        let request = request.map_err(|error| CallError::Malformed(error.to_string()))?;
        let answer = tokio::time::timeout(DEADLINE, self.client.request_text(request)).await;
        let text = answer.map_err(|_| CallError::Unavailable(format!("no answer within {DEADLINE:?}")))??;
        // Only the place: serde quotes values in its messages.
        serde_json::from_str(&text).map_err(|error| {
            CallError::Malformed(format!("line {}, column {}", error.line(), error.column()))
        })
    }

    /// Sends a request whose answer is read as it arrives.
    pub(crate) async fn stream(&self, request: Prepared) -> Result<Body, CallError> {
        let request = request.map_err(|error| CallError::Malformed(error.to_string()))?;
        let answer = tokio::time::timeout(DEADLINE, self.client.request_stream(request)).await;
        let body = answer.map_err(|_| CallError::Unavailable(format!("no answer within {DEADLINE:?}")))??;
        Ok(Box::pin(body))
    }
}

/// Requests about a kind, in one namespace or in all.
fn collection<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> Request {
    Request::new(K::url_path(&(), namespace))
}

fn encode(object: &impl Serialize) -> Result<Vec<u8>, CallError> {
    serde_json::to_vec(object).map_err(|error| CallError::Malformed(error.to_string()))
}

/// The beginning of a text that somebody else wrote, on one line.
pub(crate) fn shorten(text: &str, longest: usize) -> String {
    let mut characters = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    let mut short: String = characters.by_ref().take(longest).collect();
    if characters.next().is_some() {
        short.push_str(&format!("... ({} bytes)", text.len()));
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        for (code, expected) in [
            (403, CallError::Forbidden("m".into())),
            (404, CallError::NotFound),
            (409, CallError::Conflict),
            (410, CallError::Expired),
            (429, CallError::Unavailable("m".into())),
            (503, CallError::Unavailable("m".into())),
            (422, CallError::Refused { code: 422, message: "m".into() }),
        ] {
            assert_eq!(CallError::of_status(&Status::failure("m", "").with_code(code)), expected);
        }
    }

    #[test]
    fn texts_of_others_are_shortened() {
        assert_eq!(shorten("a\nb", 10), "a b");
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten(&"x".repeat(1 << 20), 3), "xxx... (1048576 bytes)");
    }
}
