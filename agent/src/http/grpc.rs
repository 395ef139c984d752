//! How many messages a gRPC body carries.

/// A message's prefix: a flag and the length of what follows (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Counts messages by their prefixes, however they are split.
#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of it that are known.
    known: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Messages {
    /// How many begin in these bytes, the next ones of the body: each is counted with the last byte of its prefix.
    pub(super) fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut count = 0;
        while !data.is_empty() {
            let skipped = self.left.min(data.len());
            self.left -= skipped;
            data = &data[skipped..];
            let taken = (PREFIX - self.known).min(data.len());
            self.prefix[self.known..self.known + taken].copy_from_slice(&data[..taken]);
            self.known += taken;
            data = &data[taken..];
            if self.known == PREFIX {
                let [_flag, length @ ..] = self.prefix;
                (self.known, self.left) = (0, u32::from_be_bytes(length) as usize);
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let prefix = (length as u32).to_be_bytes();
        [&[0][..], &prefix, &vec![7; length]].concat()
    }

    #[test]
    fn messages_are_counted_however_they_are_split() {
        let body = [message(0), message(3), message(300), message(0), message(1)].concat();
        for size in [1, 2, 4, 5, 6, 7, 100, body.len()] {
            let mut messages = Messages::default();
            let count: u64 = body.chunks(size).map(|part| messages.count(part)).sum();
            assert_eq!(count, 5, "in parts of {size}");
        }
        let mut messages = Messages::default();
        assert_eq!(messages.count(&body[..body.len() - 2]), 4, "half a prefix is none");
        assert_eq!(messages.count(&body[body.len() - 2..]), 1);
        assert_eq!(messages.count(&[]), 0);
    }
}
