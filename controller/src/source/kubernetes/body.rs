//! The answer to a list or a watch, as it arrives.

use super::raw::{Item, Line};
use super::split::{LONGEST, Metadata, Splitter};
use crate::kubernetes::{Body, CallError};
use futures_util::io::AsyncBufReadExt;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A list of which nothing comes for this long has failed.
const LIST_PATIENCE: Duration = Duration::from_secs(30);

/// A page of a list.
pub(super) struct Page {
    body: Body,
    splitter: Splitter,
    items: VecDeque<String>,
}

impl Page {
    pub(super) fn new(body: Body) -> Self {
        Self { body, splitter: Splitter::default(), items: VecDeque::new() }
    }

    /// The next object; `None` at the end of the page.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, CallError> {
        loop {
            if let Some(text) = self.items.pop_front() {
                return Item::listed(text).map(Some).map_err(|error| malformed(&error));
            }
            let chunk = within(LIST_PATIENCE, self.body.fill_buf()).await?;
            let chunk = chunk.ok_or_else(|| CallError::Unavailable("a list stopped coming".to_owned()))?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let taken = chunk.len();
            self.splitter
                .push(chunk, &mut self.items)
                .map_err(|error| CallError::Malformed(error.to_string()))?;
            self.body.consume_unpin(taken);
        }
    }

    /// What the list says beside its items, after the last one.
    pub(super) fn finish(self) -> Result<Metadata, CallError> {
        let envelope = self.splitter.finish().map_err(|error| CallError::Malformed(error.to_string()))?;
        Ok(envelope.metadata)
    }
}

/// A watch.
pub(super) struct Lines {
    body: Body,
    line: Vec<u8>,
    opened: Instant,
    patience: Duration,
}

impl Lines {
    /// A watch that says something at least every `patience`, if only that it ends.
    pub(super) fn new(body: Body, patience: Duration) -> Self {
        Self { body, line: Vec::new(), opened: Instant::now(), patience }
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The next line; `None` when the watch is over or nothing came for too long.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, CallError> {
        loop {
            let Some(chunk) = within(self.patience, self.body.fill_buf()).await? else { return Ok(None) };
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |at| at + 1);
            if self.line.len() + taken > LONGEST {
                return Err(CallError::Malformed(format!("an object is longer than {} MiB", LONGEST >> 20)));
            }
            self.line.extend_from_slice(&chunk[..taken]);
            self.body.consume_unpin(taken);
            if end.is_none() {
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut self.line));
            let text = text.map_err(|_| CallError::Malformed("not UTF-8".to_owned()))?;
            if let Some(line) = Line::parse(text).map_err(|error| malformed(&error))? {
                return Ok(Some(line));
            }
        }
    }
}

async fn within<T>(
    patience: Duration,
    read: impl Future<Output = std::io::Result<T>>,
) -> Result<Option<T>, CallError> {
    match tokio::time::timeout(patience, read).await {
        Ok(result) => result.map(Some).map_err(|error| CallError::Unavailable(error.to_string())),
        Err(_) => Ok(None),
    }
}

fn malformed(error: &serde_json::Error) -> CallError {
    CallError::Malformed(format!("line {}, column {}", error.line(), error.column()))
}
