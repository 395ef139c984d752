//! Tokens verified by Kubernetes (TokenReview, authentication.k8s.io/v1).
//!
//! ```text
//!   token --> known lately? --no--> TokenReview --> whose is it --> remembered for a while, by its hash
//!               | yes                  | nobody answers
//!               v                      v
//!             that               good within minutes: still good; otherwise UNAVAILABLE
//! ```

use super::authenticate::{AuthenticateError, Caller};
use super::review_cache::{Cache, Digest, Now, Verdict};
use crate::index::Index;
use crate::kubernetes::{Cluster, shorten};
use crate::objects::Name;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Reviews at the same time. Requests with the same token wait for one review.
const LANES: usize = 32;
/// Longest reason (characters).
const LONGEST_REASON: usize = 200;
const ACCOUNT: &str = "system:serviceaccount:";
/// Kubernetes 1.30 and newer.
const NODE: &str = "authentication.kubernetes.io/node-name";
const POD: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Verifies tokens by asking Kubernetes.
#[derive(Debug)]
pub struct TokenReviews {
    cluster: Cluster,
    audience: String,
    /// Who runs where, for tokens that name their pod only.
    index: Arc<RwLock<Index>>,
    cache: Mutex<Cache>,
    lanes: Vec<tokio::sync::Mutex<()>>,
}

impl TokenReviews {
    /// Accepts tokens for `audience`.
    pub fn new(cluster: Cluster, audience: String, index: Arc<RwLock<Index>>) -> Self {
        let lanes = (0..LANES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { cluster, audience, index, cache: Mutex::default(), lanes }
    }

    /// Whose token it is.
    pub(super) async fn verify(&self, token: &str) -> Result<Caller, AuthenticateError> {
        let digest: Digest = Sha256::digest(token).into();
        if let Some(answer) = self.fresh(&digest) {
            return answer;
        }
        let lane = self.lanes.get(usize::from(digest[0]) % LANES);
        let _lane = match lane {
            Some(lane) => Some(lane.lock().await),
            None => None,
        };
        if let Some(answer) = self.fresh(&digest) {
            return answer;
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let status = match self.cluster.create(None, &review).await {
            Ok(review) => review.status.unwrap_or_default(),
            Err(error) => {
                let lately = self.cache.lock().lately(&digest, now());
                let Some(caller) = lately else {
                    tracing::warn!(%error, "a caller's token can't be verified; it is told to come back");
                    return Err(AuthenticateError::Unavailable(error.to_string()));
                };
                tracing::warn!(
                    %error, node = %caller.node, account = %caller.service_account,
                    "a caller's token can't be verified; it was good minutes ago and goes on being so"
                );
                return Ok(caller);
            }
        };
        let answer = self.caller(status);
        let verdict = match &answer {
            Ok(caller) => Verdict::Good(caller.clone(), end(token)),
            Err(reason) => Verdict::Bad(reason.clone()),
        };
        self.cache.lock().remember(digest, verdict, now());
        answer.map_err(AuthenticateError::Invalid)
    }

    fn fresh(&self, digest: &Digest) -> Option<Result<Caller, AuthenticateError>> {
        let answer = self.cache.lock().fresh(digest, now())?;
        Some(answer.map_err(AuthenticateError::Invalid))
    }

    fn caller(&self, status: TokenReviewStatus) -> Result<Caller, String> {
        let user = authenticated(status, &self.audience)?;
        let name = user.username.as_deref().unwrap_or_default();
        let account = name.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
        let Some((namespace, account)) = account else {
            return Err(format!("it is not of a service account but of {:?}", shorten(name, LONGEST_REASON)));
        };
        let node = self.node(&user, namespace);
        Ok(Caller { node, service_account: Name::new(namespace, account) })
    }

    /// The node that the token's pod runs on, as Kubernetes says or as we know.
    fn node(&self, user: &UserInfo, namespace: &str) -> Arc<str> {
        let extra = |key| user.extra.as_ref()?.get(key)?.first().map(String::as_str);
        if let Some(node) = extra(NODE) {
            return node.into();
        }
        let index = self.index.read();
        let pod = extra(POD).and_then(|pod| index.pod(&Name::new(namespace, pod)));
        let pod = pod.filter(|pod| extra(POD_UID) == Some(&*pod.uid));
        pod.map_or_else(|| "".into(), |pod| pod.node.clone())
    }
}

/// The user, if the token is good and for us.
fn authenticated(status: TokenReviewStatus, audience: &str) -> Result<UserInfo, String> {
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_else(|| "Kubernetes does not accept it".to_owned());
        return Err(shorten(&reason, LONGEST_REASON));
    }
    // An API server that does not know audiences would accept a token for anybody.
    if !status.audiences.unwrap_or_default().iter().any(|theirs| theirs == audience) {
        return Err(format!("it is not for the audience {audience}"));
    }
    status.user.ok_or_else(|| "Kubernetes does not say whose it is".to_owned())
}

/// When a token that has been verified ends (`exp`, Unix seconds); 0 when it does not say.
fn end(token: &str) -> u64 {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
    let claims = payload.and_then(|payload| serde_json::from_slice::<Claims>(&payload).ok());
    claims.map_or(0, |claims| claims.exp as u64)
}

fn now() -> Now {
    // A clock before 1970 lets every token end, which is the safe side only if it is late: so it is the latest.
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs());
    Now { instant: Instant::now(), unix_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(authenticated: bool, audiences: &[&str], user: Option<&str>) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(authenticated),
            audiences: Some(audiences.iter().map(ToString::to_string).collect()),
            user: user.map(|name| UserInfo { username: Some(name.into()), ..UserInfo::default() }),
            error: None,
        }
    }

    #[test]
    fn only_tokens_for_us_are_good() {
        for (status, good) in [
            (status(true, &["warren.dev"], Some("u")), true),
            (status(true, &["a", "warren.dev"], Some("u")), true),
            (status(true, &["https://kubernetes.default.svc"], Some("u")), false),
            (status(true, &[], Some("u")), false),
            (status(true, &["warren.dev"], None), false),
            (status(false, &["warren.dev"], Some("u")), false),
            (TokenReviewStatus::default(), false),
        ] {
            assert_eq!(authenticated(status.clone(), "warren.dev").is_ok(), good, "{status:?}");
        }
    }

    #[test]
    fn the_end_of_a_token() {
        let token = |payload: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload));
        for (token, expected) in [
            (token(r#"{"exp":1700000000,"aud":"x"}"#), 1_700_000_000),
            (token(r#"{"exp":1.5e9}"#), 1_500_000_000),
            (token("{}"), 0),
            (token("[["), 0),
            ("opaque".to_owned(), 0),
            (String::new(), 0),
        ] {
            assert_eq!(end(&token), expected, "{token}");
        }
    }
}
