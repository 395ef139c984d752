//! What HTTP/2 refuses by itself, read off the frames that it writes: the library tells nobody.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const FRAME_HEADER: usize = 9;
const RST_STREAM: u8 = 3;

/// A stream reset by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// REFUSED_STREAM: there were too many.
    Refused,
    /// PROTOCOL_ERROR: its header list was too long, or malformed.
    Protocol,
}

/// A connection on which frames are written; each reset is told.
pub(super) struct Tap<S, F> {
    inner: S,
    told: F,
    frames: Frames,
}

/// Where in the sequence of frames the next byte is.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; FRAME_HEADER],
    in_header: usize,
    /// What is left of the frame's payload.
    left: usize,
    /// The last four bytes of a payload that is a reset's: its reason.
    reason: u32,
}

impl Frames {
    /// Takes the next bytes that were written.
    fn written(&mut self, mut bytes: &[u8], told: &mut impl FnMut(Reset)) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = (FRAME_HEADER - self.in_header).min(bytes.len());
                let (now, later) = bytes.split_at(wanted);
                self.header[self.in_header..self.in_header + wanted].copy_from_slice(now);
                self.in_header += wanted;
                bytes = later;
                if self.in_header == FRAME_HEADER {
                    let [high, middle, low, ..] = self.header;
                    self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                    self.in_header = 0;
                    self.reason = 0;
                }
                continue;
            }
            let (now, later) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= now.len();
            bytes = later;
            if self.header[3] == RST_STREAM {
                self.reason = now.iter().fold(self.reason, |reason, byte| reason << 8 | u32::from(*byte));
                if self.left == 0 {
                    match h2::Reason::from(self.reason) {
                        h2::Reason::REFUSED_STREAM => told(Reset::Refused),
                        h2::Reason::PROTOCOL_ERROR => told(Reset::Protocol),
                        _ => {}
                    }
                }
            }
        }
    }
}

impl<S, F: FnMut(Reset)> Tap<S, F> {
    pub(super) fn new(inner: S, told: F) -> Self {
        Self { inner, told, frames: Frames::default() }
    }
}

impl<S: AsyncRead + Unpin, F: Unpin> AsyncRead for Tap<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, F: FnMut(Reset) + Unpin> AsyncWrite for Tap<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        let Self { told, frames, .. } = &mut *self;
        frames.written(&bytes[..written], told);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
        let Self { told, frames, .. } = &mut *self;
        let mut left = written;
        for slice in slices {
            let count = left.min(slice.len());
            frames.written(&slice[..count], told);
            left -= count;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    proptest! {
        #[test]
        fn resets_are_found_however_frames_are_cut(
            kinds in prop::collection::vec(0..6_u8, 0..30), cuts in prop::collection::vec(1..40_usize, 1..20),
        ) {
            let bytes: Vec<u8> = kinds.iter().flat_map(|kind| match kind {
                0 => frame(RST_STREAM, &7_u32.to_be_bytes()),
                1 => frame(RST_STREAM, &1_u32.to_be_bytes()),
                2 => frame(RST_STREAM, &8_u32.to_be_bytes()),
                // No reset, though it looks like one inside.
                3 => frame(0, &frame(RST_STREAM, &7_u32.to_be_bytes())),
                4 => frame(4, &[]),
                _ => frame(1, &[3; 99]),
            }).collect();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                frames.written(now, &mut |reset| found.push(reset));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let expected: Vec<_> = kinds.iter().filter_map(|kind| match kind {
                0 => Some(Reset::Refused),
                1 => Some(Reset::Protocol),
                _ => None,
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
