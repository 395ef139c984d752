//! Routes of HTTP requests, applied: pure functions over tables that never change.
//!
//! ```text
//!   Traffic, client, port --HttpTable::compile--> HttpTable          once per client and version; may fail, then nothing is sent
//!   HttpTable + RequestView --route--> Matched { rule, name, part }  none: Refusal::no_rule
//!     rule.cors.decide            a preflight is answered; else its headers go on the response (put_on)
//!     rule.action: Reply, Redirect (location), or Forward:
//!       draw_fault                pause, then perhaps an answer
//!       next_backend              the backend; none or Broken: Refusal::no_backend
//!         backend.redirect        instead of forwarding
//!         rule.request_headers, then backend.request_headers; backend.rewrite
//!         the endpoint            balance
//!         mirrors                 is_drawn, each; shadow
//!       retries.decide            after every try
//!     rule.response_headers, then backend.response_headers
//! ```

mod authority;
mod condition;
mod cors;
mod edits;
mod explain;
mod fault;
mod in_force;
mod index;
mod path;
mod pattern;
mod redirect;
mod refusal;
mod request;
mod retry;
mod rewrite;
mod rule;
mod split;
mod substitute;
mod table;
#[cfg(test)]
mod tests;

pub use authority::shadow;
pub use condition::{PathPart, Unmet};
pub use cors::{CorsDecision, CorsPolicy, put_on};
pub use edits::{HeaderEdits, PreparedEdits};
pub use explain::{Step, Trace, describe};
pub use fault::{FaultDraw, draw_fault};
pub use in_force::InForce;
pub use path::{Normalization, normalize};
pub use pattern::{Checks, Patterns};
pub use redirect::Redirection;
pub use refusal::Refusal;
pub use request::RequestView;
pub use retry::{Ended, RetryPolicy, Situation, Verdict, timeout_of};
pub use rewrite::Rewriter;
pub use rule::{Action, BackendRule, Forwarding, Rule};
pub use split::{Split, Turns, below, is_drawn, spread};
pub use substitute::Values;
pub use table::{ClientView, HttpTable, Matched, TableError, check, table_of};
pub use warren_common::model::traffic::values::RuleError;
