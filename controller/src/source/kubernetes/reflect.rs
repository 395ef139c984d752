//! One kind: from what the API server sends to changes, and to what people should know.

use super::definitions::Definitions;
use super::feed::{Collection, Event, Streaming, follow};
use super::kinds::Row;
use super::ledger::Ledger;
use super::pace::Pace;
use super::raw::Item;
use super::rejections::Rejections;
use crate::kubernetes::{CallError, Cluster};
use crate::source::{Change, Problem, SourceProblems};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::{Stream, StreamExt};
use warren_common::runtime::ReadinessGuard;

/// Problems are published at most this often: thousands of bad objects must not cost thousands of reports.
const PUBLISH: Duration = Duration::from_millis(250);
/// A kind whose definition nobody can tell us about is tried this often.
const TRY_ABSENT: Duration = Duration::from_secs(30);
/// Failures in a row before an unreachable kind becomes a problem; a restart of the API server is none.
const FAILURES: u32 = 4;

/// What a kind has to say to those who wait for all of them.
#[derive(Debug)]
pub(super) enum Report {
    /// In this order.
    Changes(Vec<Change>),
    /// Everything that was there at the start has been said.
    Complete,
}

/// Follows one kind.
pub(super) struct Reflector {
    pub(super) row: Row,
    pub(super) cluster: Cluster,
    pub(super) streaming: Arc<Streaming>,
    pub(super) definitions: watch::Receiver<Definitions>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) problems: SourceProblems,
    pub(super) rejections: Rejections,
    /// The version that is tried; see [`Row::api_version`].
    pub(super) version: usize,
    /// Until the kind is complete for the first time.
    pub(super) first: Option<ReadinessGuard>,
}

/// Nobody listens any more.
struct Closed;

impl Reflector {
    /// Runs until nobody listens any more.
    pub(super) async fn run(mut self) {
        let mut ledger = Ledger::new(self.row.kind());
        let mut asked = false;
        while self.until_there(&mut ledger, asked).await.is_ok() && self.follow(&mut ledger).await.is_ok() {
            asked = true;
        }
    }

    /// Waits until there is something to follow. `asked`: the API server has said that there is not.
    async fn until_there(&mut self, ledger: &mut Ledger, asked: bool) -> Result<(), Closed> {
        let Some(name) = self.row.definition() else { return Ok(()) };
        // An error means that the sender is gone, and then so is the receiver of our reports.
        let _ = self.definitions.wait_for(|definitions| *definitions != Definitions::Unknown).await;
        let has = self.definitions.borrow().has(&name);
        if has == Some(true) || (has.is_none() && !asked) {
            return Ok(());
        }
        let changes = ledger.all_gone();
        self.publish(ledger, None);
        self.report(changes).await?;
        self.complete().await?;
        tracing::debug!(definition = %name, "not in this cluster; waiting for it");
        tokio::select! {
            Ok(_) = self.definitions.wait_for(|definitions| definitions.has(&name) == Some(true)) => {}
            () = sleep(TRY_ABSENT), if has.is_none() => {}
            () = self.reports.closed() => return Err(Closed),
        }
        Ok(())
    }

    /// Follows until the kind is gone.
    async fn follow(&mut self, ledger: &mut Ledger) -> Result<(), Closed> {
        let mut events = Box::pin(self.events());
        let mut missed = 0;
        let mut pace = Pace::default();
        let mut trouble: Option<String> = None;
        let mut publish_at: Option<Instant> = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sleep_until(publish_at.unwrap_or_else(Instant::now)), if publish_at.is_some() => {
                    publish_at = None;
                    self.publish(ledger, trouble.clone());
                    continue;
                }
                () = self.reports.closed() => return Err(Closed),
            };
            match event {
                Some(Ok(event)) => {
                    // The attempt alone proves nothing.
                    if !matches!(event, Event::Restarted) {
                        missed = 0;
                        pace.reset();
                        if trouble.take().is_some() {
                            publish_at = Some(Instant::now());
                        }
                    }
                    if self.take(ledger, event).await? {
                        publish_at.get_or_insert_with(|| Instant::now() + PUBLISH);
                    }
                }
                // Perhaps in another version.
                Some(Err(CallError::NotFound)) if missed + 1 < self.row.versions() => {
                    missed += 1;
                    self.version += 1;
                    events = Box::pin(self.events());
                }
                Some(Err(CallError::NotFound)) if !self.is_defined() => return Ok(()),
                Some(Err(error)) => {
                    let text = self.trouble(&error, pace.failures());
                    if text.is_some() && text != trouble {
                        trouble = text;
                        self.publish(ledger, trouble.clone());
                    }
                    tracing::debug!(kind = self.row.kind().as_str(), %error, "not followed right now");
                    pace.wait().await;
                    if error == CallError::NotFound {
                        missed = 0;
                        self.version += 1;
                        events = Box::pin(self.events());
                    }
                }
                None => return Err(Closed),
            }
        }
    }

    fn events(&self) -> impl Stream<Item = Result<Event, CallError>> + use<> {
        let path = self.row.path(self.version);
        let collection = Collection { path, metadata_only: self.row.metadata_only() };
        follow(self.cluster.clone(), collection, self.streaming.clone())
    }

    /// Whether the kind must be there, whatever the API server answers.
    fn is_defined(&self) -> bool {
        let Some(name) = self.row.definition() else { return true };
        self.definitions.borrow().has(&name) == Some(true)
    }

    /// Takes an event in; says whether problems may have changed.
    async fn take(&mut self, ledger: &mut Ledger, event: Event) -> Result<bool, Closed> {
        let (changes, touched) = match event {
            Event::Alive => return Ok(false),
            Event::Restarted => {
                ledger.list_begins();
                return Ok(false);
            }
            Event::Present(Item { head, raw }) => {
                let (name, before) = (head.name(), ledger.has_rejected());
                let instead = |why: &str, was_good| self.row.instead(&raw, why, was_good);
                let change = ledger.present(name, &head.uid, self.row.object(&raw), instead);
                let touched = before || ledger.has_rejected();
                (change.into_iter().collect(), touched)
            }
            Event::Gone(item) => {
                let before = ledger.has_rejected();
                (ledger.gone(&item.head.name()).into_iter().collect(), before)
            }
            Event::Complete => {
                let changes = ledger.list_ends();
                self.report(changes).await?;
                self.complete().await?;
                return Ok(true);
            }
        };
        self.report(changes).await?;
        Ok(touched)
    }

    async fn report(&self, changes: Vec<Change>) -> Result<(), Closed> {
        if changes.is_empty() {
            return Ok(());
        }
        self.reports.send(Report::Changes(changes)).await.map_err(|_| Closed)
    }

    async fn complete(&mut self) -> Result<(), Closed> {
        match self.first.take() {
            Some(_) => self.reports.send(Report::Complete).await.map_err(|_| Closed),
            None => Ok(()),
        }
    }

    /// What people should know about an error, if anything yet.
    fn trouble(&self, error: &CallError, failures: u32) -> Option<String> {
        let stays = match self.first {
            Some(_) => "nothing is served until this kind has been read once",
            None => "what is known of it stays",
        };
        let text = match error {
            CallError::Forbidden(_) => format!("may not be read, {stays}: {error}"),
            _ if failures < FAILURES => return None,
            CallError::NotFound => {
                let version = self.row.api_version(0);
                format!(
                    "not served as {version} or older versions, {stays}: install a current definition of it"
                )
            }
            _ => format!("can't be followed right now, {stays}: {error}"),
        };
        Some(text)
    }

    fn publish(&self, ledger: &Ledger, trouble: Option<String>) {
        let kind = self.row.kind().as_str();
        let trouble = trouble.map(|reason| Problem { place: kind.to_owned(), line: None, reason });
        let problems = trouble.into_iter().chain(ledger.problems()).collect();
        self.problems.replace(&format!("kubernetes {kind}"), problems);
        let api_version = self.row.api_version(self.version);
        self.rejections.replace(self.row.kind(), &api_version, ledger.rejected().0);
    }
}
