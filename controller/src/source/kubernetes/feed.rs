//! Follows the objects of one kind.
//!
//! ```text
//!   Start --lists are streamed--> Streaming --all sent--------------.
//!     ^ `------otherwise--------> Listing, page by page --> Listed --+--> Watching
//!     |                                                      ^-- over, after a minute or two --'
//!     `------------- the version is too old (410), the kind is gone (404) --------------------'
//! ```
//!
//! Errors come out as items; whoever polls decides how long to wait before the next poll.

use super::body::{Lines, Page};
use super::raw::{Item, Line};
use crate::kubernetes::{CallError, Cluster, Prepared};
use futures_util::stream::{Stream, unfold};
use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Objects per page. A page is read as a stream, so this bounds what the API server holds.
const PAGE: u32 = 500;
/// Watches end after this long, and a random part more (seconds): a connection that died silently is noticed then.
const WATCH: std::ops::Range<u32> = 60..120;
/// After the end of a watch that the server should have announced.
const MARGIN: Duration = Duration::from_secs(5);
/// A watch that is over sooner has failed, whatever it says.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// What happens to the objects of a kind.
#[derive(Debug)]
pub(super) enum Event {
    /// All objects follow, from the first one.
    Restarted,
    /// One is there.
    Present(Item),
    /// One is gone.
    Gone(Item),
    /// All objects that were there have come.
    Complete,
    /// Nothing but a sign of life.
    Alive,
}

/// Whether the API server streams lists (`sendInitialEvents`, Kubernetes 1.34 with etcd 3.5, or newer). One that
/// refuses once is not asked again.
#[derive(Debug)]
pub(super) struct Streaming {
    refused: AtomicBool,
}

impl Streaming {
    pub(super) fn new(wanted: bool) -> Self {
        Self { refused: AtomicBool::new(!wanted) }
    }

    /// A server that does not know the parameter answers 400 or 422, one with an old etcd 500.
    fn refused_by(&self, error: &CallError) -> bool {
        let refused = matches!(error, CallError::Refused { code: 400 | 406 | 422 | 500 | 501, .. });
        if refused && !self.refused.swap(true, Ordering::Relaxed) {
            tracing::info!(%error, "this API server does not stream lists; they are read page by page");
        }
        refused
    }
}

/// Which objects.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    /// Of all namespaces.
    pub(super) path: String,
    /// Names and labels are enough.
    pub(super) metadata_only: bool,
}

impl Collection {
    fn list(&self, params: &ListParams) -> Prepared {
        let request = Request::new(self.path.as_str());
        if self.metadata_only { request.list_metadata(params) } else { request.list(params) }
    }

    fn watch(&self, params: &WatchParams, version: &str) -> Prepared {
        let request = Request::new(self.path.as_str());
        if self.metadata_only {
            request.watch_metadata(params, version)
        } else {
            request.watch(params, version)
        }
    }
}

enum State {
    Start,
    Streaming(Lines),
    Listing { page: Option<Page>, token: Option<String> },
    Listed { version: String },
    Watching { version: String, lines: Lines },
}

struct Feed {
    cluster: Cluster,
    collection: Collection,
    streaming: Arc<Streaming>,
    state: State,
}

/// Follows without end. After an error it goes on where that makes sense, and from the start otherwise.
pub(super) fn follow(
    cluster: Cluster,
    collection: Collection,
    streaming: Arc<Streaming>,
) -> impl Stream<Item = Result<Event, CallError>> {
    let feed = Feed { cluster, collection, streaming, state: State::Start };
    unfold(feed, |mut feed| async {
        loop {
            match feed.step().await {
                Ok(Some(event)) => return Some((Ok(event), feed)),
                Ok(None) => {}
                Err(error) => return Some((Err(error), feed)),
            }
        }
    })
}

impl Feed {
    /// One step. The state is `Start` unless the step leaves another one.
    async fn step(&mut self) -> Result<Option<Event>, CallError> {
        match std::mem::replace(&mut self.state, State::Start) {
            State::Start if self.streaming.refused.load(Ordering::Relaxed) => {
                self.state = State::Listing { page: None, token: None };
                Ok(Some(Event::Restarted))
            }
            State::Start => match self.watch("0", true).await {
                Ok(lines) => {
                    self.state = State::Streaming(lines);
                    Ok(Some(Event::Restarted))
                }
                Err(error) if self.streaming.refused_by(&error) => Ok(None),
                Err(error) => Err(error),
            },
            State::Streaming(lines) => self.stream(lines).await,
            State::Listing { page: Some(page), .. } => self.list(page).await,
            State::Listing { page: None, token } => {
                let params = ListParams { limit: Some(PAGE), continue_token: token, ..ListParams::default() };
                let body = self.cluster.stream(self.collection.list(&params)).await?;
                self.state = State::Listing { page: Some(Page::new(body)), token: None };
                Ok(None)
            }
            State::Listed { version } => match self.watch(&version, false).await {
                Ok(lines) => {
                    self.state = State::Watching { version, lines };
                    Ok(Some(Event::Alive))
                }
                Err(error) => {
                    if matches!(error, CallError::Unavailable(_) | CallError::Forbidden(_)) {
                        self.state = State::Listed { version };
                    }
                    Err(error)
                }
            },
            State::Watching { version, lines } => self.watched(version, lines).await,
        }
    }

    async fn watch(&mut self, version: &str, streaming: bool) -> Result<Lines, CallError> {
        let seconds = rand::random_range(WATCH);
        let params = WatchParams {
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: streaming,
            ..WatchParams::default()
        };
        let body = self.cluster.stream(self.collection.watch(&params, version)).await?;
        Ok(Lines::new(body, Duration::from_secs(seconds.into()) + MARGIN))
    }

    async fn stream(&mut self, mut lines: Lines) -> Result<Option<Event>, CallError> {
        let event = match lines.next().await? {
            Some(Line::Present(item)) => Event::Present(item),
            Some(Line::Gone(item)) => Event::Gone(item),
            Some(Line::Bookmark { version, initial_end: true }) => {
                self.state = State::Watching { version, lines };
                return Ok(Some(Event::Complete));
            }
            Some(Line::Bookmark { .. }) => Event::Alive,
            Some(Line::Failed(status)) => {
                let error = CallError::of_status(&status);
                return if self.streaming.refused_by(&error) { Ok(None) } else { Err(error) };
            }
            None => return Err(CallError::Unavailable("a streamed list ended before its end".to_owned())),
        };
        self.state = State::Streaming(lines);
        Ok(Some(event))
    }

    async fn list(&mut self, mut page: Page) -> Result<Option<Event>, CallError> {
        if let Some(item) = page.next().await? {
            self.state = State::Listing { page: Some(page), token: None };
            return Ok(Some(Event::Present(item)));
        }
        let metadata = page.finish()?;
        if !metadata.r#continue.is_empty() {
            self.state = State::Listing { page: None, token: Some(metadata.r#continue) };
            return Ok(None);
        }
        self.state = State::Listed { version: metadata.resource_version };
        Ok(Some(Event::Complete))
    }

    async fn watched(&mut self, version: String, mut lines: Lines) -> Result<Option<Event>, CallError> {
        let resume = |version| State::Listed { version };
        let (version, event) = match lines.next().await {
            Ok(Some(Line::Present(item))) => (item.head.resource_version.clone(), Event::Present(item)),
            Ok(Some(Line::Gone(item))) => (item.head.resource_version.clone(), Event::Gone(item)),
            Ok(Some(Line::Bookmark { version, .. })) => (version, Event::Alive),
            Ok(Some(Line::Failed(status))) => {
                let error = CallError::of_status(&status);
                if matches!(error, CallError::Unavailable(_)) {
                    self.state = resume(version);
                }
                return Err(error);
            }
            Ok(None) => {
                self.state = resume(version);
                let failed = lines.age() < SHORTEST_WATCH;
                let error = || CallError::Unavailable("a watch was over at once".to_owned());
                return if failed { Err(error()) } else { Ok(None) };
            }
            Err(error) => {
                // A broken line would break again: what can't be read is read anew, with a list.
                if matches!(error, CallError::Unavailable(_)) {
                    self.state = resume(version);
                }
                return Err(error);
            }
        };
        self.state = State::Watching { version, lines };
        Ok(Some(event))
    }
}
