//! The successor's side of flows that come. Blocking: for a thread of its own.

use super::flows::{ArrivedFlow, MAX_TAIL};
use super::message::{Answer, MAX_BYTES, Request};
use super::wire::{Packet, Wire};
use super::{DEADLINE, HandoverError, Lifeline};
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

impl Lifeline {
    /// Takes what flows the predecessor hands over, until it has gone. `take` makes each this agent's: when it returns, the
    /// predecessor is told.
    ///
    /// # Errors
    /// [`HandoverError`]: the predecessor does not keep to the protocol; what came before is this agent's.
    pub fn take_flows(&self, mut take: impl FnMut(ArrivedFlow)) -> Result<u64, HandoverError> {
        let wire = &self.wire;
        let mut workloads = Arc::new(HashMap::new());
        let mut taken = 0;
        if wire.send(&Request::Flows, std::iter::empty()).is_err() {
            return Ok(taken);
        }
        loop {
            wire.set_patience(None)?;
            let (id, flow, tail, sockets) = match wire.receive::<Answer>()? {
                Packet::Gone => return Ok(taken),
                Packet::Message(Answer::Workload { workload }, _) => {
                    Arc::make_mut(&mut workloads).insert(workload.uid.clone(), workload);
                    continue;
                }
                Packet::Message(Answer::Flow { id, flow, tail }, sockets) => (id, flow, tail, sockets),
                Packet::Message(other, _) => {
                    return Err(HandoverError::Protocol(format!("{other:?} instead of a flow")));
                }
            };
            let wrong = |what: &str| HandoverError::Protocol(format!("a flow {what}"));
            let sockets: [_; 2] = sockets.try_into().map_err(|_| wrong("without its two sockets"))?;
            if tail > MAX_TAIL {
                return Err(wrong("is larger than any may be"));
            }
            wire.set_patience(Some(DEADLINE))?;
            let Some(tail) = receive_tail(wire, tail)? else { return Ok(taken) };
            take(ArrivedFlow { message: *flow, tail, sockets, workloads: Arc::clone(&workloads) });
            taken += 1;
            if wire.send(&Request::Moved { id }, std::iter::empty()).is_err() {
                return Ok(taken);
            }
        }
    }
}

/// None: the predecessor has gone in the middle of it, and with it the flow.
fn receive_tail(wire: &Wire, length: usize) -> Result<Option<Zeroizing<Vec<u8>>>, HandoverError> {
    let mut tail = Zeroizing::new(vec![0; length]);
    let mut at = 0;
    while at < length {
        let end = length.min(at + MAX_BYTES);
        let part = tail.get_mut(at..end).unwrap_or_default();
        match wire.receive_bytes(part)? {
            None => return Ok(None),
            Some((n, _)) if n == part.len() => at = end,
            Some(_) => return Err(HandoverError::Protocol("a flow's bytes are cut".to_owned())),
        }
    }
    Ok(Some(tail))
}
