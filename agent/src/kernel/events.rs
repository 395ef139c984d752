//! The ring buffer: the rare and the wrong.

use super::sys;
use aya::maps::{MapData, RingBuf};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};
use warren_common::abi::{Endpoint, Event, EventKind, Ip};

/// Source of the programs' events. Its descriptor is readable when there are some, so it can also stand in an
/// event loop.
pub struct EventSource {
    ring: RingBuf<MapData>,
    short: u64,
}

impl EventSource {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, short: 0 }
    }

    /// The next event, without waiting. Kinds that this side doesn't know are skipped.
    pub fn try_next(&mut self) -> Option<Event> {
        while let Some(record) = self.ring.next() {
            if let Some(event) = decode(&record) {
                return Some(event);
            }
            self.short += u64::from(record.len() < size_of::<Event>());
        }
        None
    }

    /// Waits for an event; `None` when the time is up.
    ///
    /// # Errors
    /// When waiting is interrupted.
    pub fn next_within(&mut self, timeout: Duration) -> io::Result<Option<Event>> {
        if let Some(event) = self.try_next() {
            return Ok(Some(event));
        }
        sys::wait_readable(self.as_fd(), timeout)?;
        Ok(self.try_next())
    }

    /// How many records were too short to be an event.
    pub fn short_records(&self) -> u64 {
        self.short
    }
}

impl AsFd for EventSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Reads one record. `None` if it is too short or of an unknown kind; a newer object may append fields.
pub fn decode(record: &[u8]) -> Option<Event> {
    let mut reader = Reader(record);
    let event = Event {
        kind: reader.u32()?,
        pid: reader.u32()?,
        cookie: reader.u64()?,
        destination: reader.endpoint()?,
        source: reader.endpoint()?,
    };
    EventKind::from_raw(event.kind)?;
    Some(event)
}

/// Takes native-endian values off the front; the programs run on this machine.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*value))
    }

    fn u64(&mut self) -> Option<u64> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*value))
    }

    fn endpoint(&mut self) -> Option<Endpoint> {
        let words = [self.u32()?, self.u32()?, self.u32()?, self.u32()?];
        // Ports are 16 bits wide; a larger number is no record of ours.
        let port = self.u32().filter(|port| u16::try_from(*port).is_ok())?;
        Some(Endpoint { ip: Ip { words }, port, family: self.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(event: &Event) -> Vec<u8> {
        let endpoint = |it: &Endpoint| [it.ip.words.as_slice(), &[it.port, it.family]].concat();
        let mut bytes = [event.kind.to_ne_bytes(), event.pid.to_ne_bytes()].concat();
        bytes.extend(event.cookie.to_ne_bytes());
        let words = [endpoint(&event.destination), endpoint(&event.source)].concat();
        bytes.extend(words.into_iter().flat_map(u32::to_ne_bytes));
        bytes
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn events_survive_and_longer_records_are_read(
            kind in 1..5_u32, pid: u32, cookie: u64, words: [u32; 4], port: u16, tail: Vec<u8>,
        ) {
            let destination = Endpoint { ip: Ip { words }, port: port.into(), family: 10 };
            let event = Event { kind, pid, cookie, destination, source: Endpoint::default() };
            let mut bytes = encode(&event);
            prop_assert_eq!(bytes.len(), size_of::<Event>());
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes), Some(event));
        }

        #[test]
        fn unknown_kinds_are_skipped(kind in 5_u32..) {
            let zero = Endpoint::default();
            let event = Event { kind, pid: 0, cookie: 0, destination: zero, source: zero };
            prop_assert_eq!(decode(&encode(&event)), None);
        }
    }
}
