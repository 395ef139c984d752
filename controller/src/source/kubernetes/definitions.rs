//! Which custom kinds the cluster has: a kind that is not there is waited for.

use super::feed::{Collection, Event, Streaming, follow};
use super::pace::Pace;
use crate::kubernetes::{CallError, Cluster};
use crate::source::{Problem, SourceProblems};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_stream::StreamExt;

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Of this part's problems.
const ORIGIN: &str = "kubernetes CustomResourceDefinition";

/// The CustomResourceDefinitions, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Definitions {
    /// Not read yet.
    Unknown,
    /// They may not be read: every kind finds out for itself, now and then.
    Unreadable,
    /// Names ("serviceentries.networking.istio.io") of those that are there.
    Known(BTreeSet<String>),
}

impl Definitions {
    /// Whether the definition is there; `None` when nobody knows.
    pub(super) fn has(&self, name: &str) -> Option<bool> {
        match self {
            Self::Known(names) => Some(names.contains(name)),
            Self::Unknown | Self::Unreadable => None,
        }
    }
}

/// Keeps `definitions` up to date, as far as `wanted` ones are concerned.
pub(super) async fn run(
    cluster: Cluster,
    streaming: Arc<Streaming>,
    wanted: BTreeSet<String>,
    definitions: watch::Sender<Definitions>,
    problems: SourceProblems,
) {
    let collection = Collection { path: PATH.to_owned(), metadata_only: true };
    let mut events = pin!(follow(cluster, collection, streaming));
    let (mut names, mut complete) = (BTreeSet::new(), false);
    let mut pace = Pace::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Restarted) => {
                names.clear();
                complete = false;
                continue;
            }
            Ok(Event::Present(item)) => {
                names.extend(wanted.get(&*item.head.name().name).cloned());
            }
            Ok(Event::Gone(item)) => {
                names.remove(&*item.head.name().name);
            }
            Ok(Event::Complete) => complete = true,
            Ok(Event::Alive) => {}
            Err(error) => {
                let forbidden = matches!(error, CallError::Forbidden(_));
                if forbidden {
                    let reason = format!("can't be read, so new kinds are noticed late: {error}");
                    let place = "CustomResourceDefinition".to_owned();
                    problems.replace(ORIGIN, vec![Problem { place, line: None, reason }]);
                }
                definitions.send_if_modified(|known| {
                    let change = forbidden && *known == Definitions::Unknown;
                    if change {
                        *known = Definitions::Unreadable;
                    }
                    change
                });
                tracing::debug!(%error, "CustomResourceDefinitions are not followed");
                pace.wait().await;
                continue;
            }
        }
        pace.reset();
        if complete {
            problems.replace(ORIGIN, Vec::new());
            definitions.send_if_modified(|known| {
                let now = Definitions::Known(names.clone());
                let change = *known != now;
                *known = now;
                change
            });
        }
    }
}
