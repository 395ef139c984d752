//! What the two agents say: JSON, one object per packet, with the sockets beside it. Pure.

use super::HandoverError;
use super::flows::FlowMessage;
use crate::pods::{DoorSockets, Leaf};
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;
use warren_common::model::Workload;

/// Version of these messages. `hello` and `refused` stay as they are over all versions.
pub const VERSION: u32 = 1;
/// Bytes of a message.
pub(super) const MAX_BYTES: usize = 16 << 10;
/// Sockets beside a message: three doors of two families.
pub(super) const MAX_SOCKETS: usize = 6;

/// From the successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub(super) enum Request {
    /// First.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The node's name.
        node: String,
        /// It takes connections that stand too.
        #[serde(default)]
        flows: bool,
    },
    /// Last.
    Taken {
        /// The predecessor's metrics and readiness are served too.
        endpoints: bool,
    },
    /// It is ready for connections that stand.
    Flows,
    /// It owns this flow now.
    Moved {
        /// As in [`Answer::Flow`].
        id: u64,
    },
}

/// From the predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub(super) enum Answer {
    /// To `hello`: no.
    Refused {
        /// For people.
        reason: String,
    },
    /// To `hello`: yes.
    Welcome {
        /// Layout of the kernel's maps.
        abi: String,
        /// Connections that stand can be had too, after `taken`.
        #[serde(default)]
        flows: bool,
    },
    /// One pod; a socket beside it for each leaf, in this order.
    Pod {
        /// `metadata.uid`.
        uid: String,
        /// Cookie of its network namespace.
        cookie: u64,
        /// Its doors.
        sockets: Vec<Leaf>,
    },
    /// Metrics, readiness: one socket beside it.
    Endpoint,
    /// That was all for now.
    End,
    /// A workload that flows name; before the first that does.
    Workload {
        /// All that is known of it.
        workload: Arc<Workload>,
    },
    /// A connection that stands; both of its sockets beside it, its bytes behind it in packets of their own.
    Flow {
        /// Its number in this conversation.
        id: u64,
        /// What it is.
        flow: Box<FlowMessage>,
        /// How many bytes follow.
        tail: usize,
    },
}

/// The bytes of a message.
pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and booleans can always be written.
    serde_json::to_vec(message).unwrap_or_default()
}

/// The message in a packet.
pub(super) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, HandoverError> {
    serde_json::from_slice(bytes).map_err(|error| HandoverError::Protocol(error.to_string()))
}

/// A pod's message.
pub(super) fn pod(uid: &str, sockets: &DoorSockets) -> Answer {
    let leaves = sockets.sockets.keys().copied().collect();
    Answer::Pod { uid: uid.to_owned(), cookie: sockets.cookie, sockets: leaves }
}

/// What a successor has been told until now.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) abi: Option<String>,
    /// The other side hands flows over.
    pub(super) flows: bool,
    pub(super) pods: Vec<(Arc<str>, DoorSockets)>,
    pub(super) endpoints: Vec<OwnedFd>,
    pub(super) refused: Option<String>,
}

impl Told {
    /// Adds one answer. Whether it was the last for now.
    pub(super) fn hear(&mut self, answer: Answer, mut sockets: Vec<OwnedFd>) -> Result<bool, HandoverError> {
        let expected = match &answer {
            Answer::Pod { sockets, .. } => sockets.len(),
            Answer::Endpoint => 1,
            Answer::Flow { .. } => 2,
            _ => 0,
        };
        let wrong = |what: String| Err(HandoverError::Protocol(what));
        if sockets.len() != expected {
            return wrong(format!("{} sockets instead of {expected} beside {answer:?}", sockets.len()));
        }
        if self.abi.is_none() && !matches!(answer, Answer::Welcome { .. } | Answer::Refused { .. }) {
            return wrong(format!("{answer:?} before a welcome"));
        }
        match answer {
            Answer::Refused { reason } => {
                self.refused = Some(reason);
                return Ok(true);
            }
            Answer::Welcome { abi, flows } => (self.abi, self.flows) = (Some(abi), flows),
            Answer::Pod { uid, cookie, sockets: leaves } => {
                let sockets = leaves.into_iter().zip(sockets.drain(..).map(Arc::new)).collect();
                self.pods.push((uid.into(), DoorSockets { cookie, sockets }));
            }
            Answer::Endpoint => self.endpoints.append(&mut sockets),
            Answer::Workload { .. } | Answer::Flow { .. } => {
                return wrong("a flow before the end".to_owned());
            }
            Answer::End => return Ok(true),
        }
        Ok(false)
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
