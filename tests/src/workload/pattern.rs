//! Bytes that can be checked at the other end: a stream made from a seed (xorshift64*).

/// An endless stream of bytes that both ends can make.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, word: [0; 8], used: 8 }
    }

    fn next_word(&mut self) -> [u8; 8] {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    }

    /// Writes the next bytes of the stream.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == 8 {
                self.word = self.next_word();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }

    /// Compares with the next bytes of the stream; the position of the first that differs.
    pub(crate) fn mismatch(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut wanted = [0; 4096];
        let mut at = 0;
        for chunk in bytes.chunks(wanted.len()) {
            let wanted = &mut wanted[..chunk.len()];
            self.fill(wanted);
            if wanted != chunk {
                let inside = wanted.iter().zip(chunk).position(|(want, have)| want != have);
                return Some(at + inside.unwrap_or_default());
            }
            at += chunk.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_make_the_same_stream_in_any_pieces() {
        let mut bytes = vec![0; 10_000];
        Pattern::new(7).fill(&mut bytes);
        let mut checker = Pattern::new(7);
        assert_eq!(checker.mismatch(&bytes[..4097]), None);
        assert_eq!(checker.mismatch(&bytes[4097..]), None);
        bytes[5000] ^= 1;
        assert_eq!(Pattern::new(7).mismatch(&bytes), Some(5000));
        assert_eq!(Pattern::new(8).mismatch(&bytes), Some(0));
    }
}
