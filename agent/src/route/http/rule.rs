//! What happens to a request, compiled.

use super::cors::CorsPolicy;
use super::edits::HeaderEdits;
use super::pattern::Patterns;
use super::redirect::Redirection;
use super::retry::RetryPolicy;
use super::rewrite::Rewriter;
use super::split::{Split, Turns};
use std::sync::Arc;
use std::time::Duration;
use warren_common::model::traffic::values::RuleError;
use warren_common::model::traffic::{
    Backend, Destination, Fault, Forward, HttpAction, HttpRule, Mirror, Reply, Rewrite, RouteApi,
};

/// What happens to a request.
#[derive(Debug)]
pub struct Rule {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// What happens.
    pub action: Action,
    /// Changes of the request, before those of a backend.
    pub request_headers: HeaderEdits,
    /// Changes of the response, before those of a backend.
    pub response_headers: HeaderEdits,
    /// Who may read the response in a browser; asked before the action.
    pub cors: Option<CorsPolicy>,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Action {
    /// It is sent on.
    Forward(Box<Forwarding>),
    /// Its client is sent elsewhere.
    Redirect(Redirection),
    /// It is answered.
    Reply(Reply),
}

/// How a request is sent on.
#[derive(Debug)]
pub struct Forwarding {
    /// Which of the `backends`: once per request, retries keep to it. None picked: the request fails.
    pub split: Split,
    /// Its choices so far, of one worker and client.
    turns: Turns,
    /// Where to.
    pub backends: Vec<BackendRule>,
    /// For everything, retries included; none: no limit.
    pub timeout: Option<Duration>,
    /// What is tried again.
    pub retries: RetryPolicy,
    /// Trouble made on purpose: draw with [`draw_fault`](super::draw_fault).
    pub fault: Option<Fault>,
}

/// One way out of a rule: what the rule says and the backend says, put together.
#[derive(Debug)]
pub struct BackendRule {
    /// Where to.
    pub to: Destination,
    /// Changes of the request, after the rule's.
    pub request_headers: HeaderEdits,
    /// Changes of the response, after the rule's.
    pub response_headers: HeaderEdits,
    /// What the request asks for there.
    pub rewrite: Option<Rewriter>,
    /// Instead of forwarding.
    pub redirect: Option<Redirection>,
    /// Copies: draw each with [`is_drawn`](super::is_drawn).
    pub mirrors: Vec<Mirror>,
}

impl Rule {
    pub(super) fn new(rule: &HttpRule, api: RouteApi, patterns: &Patterns) -> Result<Self, RuleError> {
        let action = match &rule.action {
            HttpAction::Forward(forward) => {
                Action::Forward(Box::new(Forwarding::new(forward, api, patterns)?))
            }
            HttpAction::Redirect(redirect) => Action::Redirect(Redirection::new(redirect, patterns)?),
            HttpAction::Reply(reply) if (200..600).contains(&reply.status) => Action::Reply(reply.clone()),
            HttpAction::Reply(reply) => return Err(RuleError::Status(reply.status)),
        };
        Ok(Self {
            name: Arc::clone(&rule.name),
            action,
            request_headers: HeaderEdits::new(&rule.request_headers, api)?,
            response_headers: HeaderEdits::new(&rule.response_headers, api)?,
            cors: rule.cors.as_ref().map(|cors| CorsPolicy::new(cors, patterns)).transpose()?,
        })
    }
}

impl Forwarding {
    fn new(forward: &Forward, api: RouteApi, patterns: &Patterns) -> Result<Self, RuleError> {
        let split = match (&*forward.backends, api) {
            ([_], RouteApi::Istio) => Split::new([1]),
            (backends, _) => Split::new(backends.iter().map(|backend| backend.weight)),
        };
        if let Some(abort) = forward.fault.as_ref().and_then(|fault| fault.abort.as_ref())
            && !(200..600).contains(&abort.http_status)
        {
            return Err(RuleError::Status(abort.http_status));
        }
        let backend = |backend: &Backend| BackendRule::new(backend, forward, api, patterns);
        Ok(Self {
            split,
            turns: Turns::default(),
            backends: forward.backends.iter().map(backend).collect::<Result<_, _>>()?,
            timeout: forward.timeout_ms.map(Duration::from_millis),
            retries: forward.retries.as_ref().map(|said| RetryPolicy::new(said, api)).unwrap_or_default(),
            fault: forward.fault.clone(),
        })
    }

    /// The backend of the next request; `entropy` is a random number. None: no backend has a share.
    pub fn next_backend(&self, entropy: u64) -> Option<&BackendRule> {
        self.backends.get(self.split.pick_nth(self.turns.next(entropy))?)
    }
}

impl BackendRule {
    fn new(
        backend: &Backend,
        forward: &Forward,
        api: RouteApi,
        patterns: &Patterns,
    ) -> Result<Self, RuleError> {
        let rewrite = both(forward.rewrite.as_ref(), backend.rewrite.as_ref());
        let redirect = backend.redirect.as_ref();
        Ok(Self {
            to: backend.to.clone(),
            request_headers: HeaderEdits::new(&backend.request_headers, api)?,
            response_headers: HeaderEdits::new(&backend.response_headers, api)?,
            rewrite: rewrite.map(|rewrite| Rewriter::new(&rewrite, patterns)).transpose()?,
            redirect: redirect.map(|redirect| Redirection::new(redirect, patterns)).transpose()?,
            mirrors: forward.mirrors.iter().chain(&backend.mirrors).cloned().collect(),
        })
    }
}

/// The rule's rewrite and then the backend's: each changes what it names, and leaves the rest as the other has it.
fn both(rule: Option<&Rewrite>, backend: Option<&Rewrite>) -> Option<Rewrite> {
    let (Some(rule), Some(backend)) = (rule, backend) else { return rule.or(backend).cloned() };
    Some(Rewrite {
        authority: backend.authority.as_ref().or(rule.authority.as_ref()).cloned(),
        path: backend.path.as_ref().or(rule.path.as_ref()).cloned(),
    })
}
