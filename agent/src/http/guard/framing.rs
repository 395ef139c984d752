//! Follows the messages of an HTTP/1 connection byte by byte. Pure.
//!
//! ```text
//!   Head --head is good--> Sized / Chunked --end--> Head
//!                                \--the client asked for another protocol--> Undecided --> Head / Opaque
//! ```

use super::head::{self, Body, Framed, Malformed};

/// Most bytes of a head, and of the trailers.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Most bytes of one chunk's size line.
const MAX_SIZE_LINE: usize = 1024;

/// Where the reader is.
#[derive(Debug)]
pub struct Framing {
    state: State,
    may_switch: bool,
}

#[derive(Debug)]
enum State {
    /// Within a head, of which so many bytes hold no end.
    Head { scanned: usize },
    /// So many bytes of a body are missing.
    Sized(u64),
    /// Within a chunked body.
    Chunked(Chunk),
    /// The client asked for another protocol, and nobody has answered yet.
    Undecided,
    /// Another protocol.
    Opaque,
    /// What comes next is bad: a chunk of a body (`in_body`), or a head.
    Bad { malformed: Malformed, in_body: bool },
}

#[derive(Debug)]
enum Chunk {
    /// Within the line of a size: what it is so far, digits, bytes, whether an extension has begun, whether CR was seen.
    Size { size: u64, digits: u8, bytes: usize, extension: bool, cr: bool },
    /// So many bytes are missing.
    Data(u64),
    /// The CR and LF after the bytes; whether CR was seen.
    End { cr: bool },
    /// Trailers: all bytes of them, and of the line.
    Trailers { bytes: usize, line: Vec<u8> },
}

const FIRST_CHUNK: Chunk = Chunk::Size { size: 0, digits: 0, bytes: 0, extension: false, cr: false };

impl Default for Framing {
    fn default() -> Self {
        Self { state: State::Head { scanned: 0 }, may_switch: false }
    }
}

impl Framing {
    /// How many of `bytes` may be read on: all but a head that is not complete, and what comes after an unanswered
    /// question for another protocol. What may not comes first at the next call, with more after it.
    ///
    /// # Errors
    /// [`Malformed`]; nothing more may be read on then. Only at the next call if something good comes before it.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut passed = 0;
        loop {
            let rest = &bytes[passed..];
            let step = match &mut self.state {
                State::Opaque => return Ok(bytes.len()),
                State::Undecided => return Ok(passed),
                State::Bad { malformed, .. } => return Err(*malformed),
                State::Head { scanned } => match complete_head(rest, scanned) {
                    Err(malformed) => return self.refuse(malformed, passed),
                    Ok(None) => return Ok(passed),
                    Ok(Some((length, framed))) => {
                        self.begin(framed);
                        length
                    }
                },
                State::Sized(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= step as u64;
                    if *left > 0 {
                        return Ok(bytes.len());
                    }
                    self.end();
                    step
                }
                State::Chunked(chunk) => match chunk.pass(rest) {
                    Err(malformed) => return self.refuse(malformed, passed),
                    Ok((_, false)) => return Ok(bytes.len()),
                    Ok((step, true)) => {
                        self.end();
                        step
                    }
                },
            };
            passed += step;
            if passed == bytes.len() && !matches!(self.state, State::Sized(0)) {
                return Ok(passed);
            }
        }
    }

    /// Whether the answer to a question for another protocol is waited for.
    pub fn is_undecided(&self) -> bool {
        matches!(self.state, State::Undecided)
    }

    /// Whether nothing of the next message was seen.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head { scanned: 0 })
    }

    /// Whether what is bad is within a message whose beginning was read on.
    pub fn is_bad_in_body(&self) -> bool {
        matches!(self.state, State::Bad { in_body: true, .. })
    }

    /// What comes after `passed` good bytes is bad: they are read on first.
    fn refuse(&mut self, malformed: Malformed, passed: usize) -> Result<usize, Malformed> {
        self.state = State::Bad { malformed, in_body: matches!(self.state, State::Chunked(_)) };
        match passed {
            0 => Err(malformed),
            passed => Ok(passed),
        }
    }

    /// The question was answered.
    pub fn decide(&mut self, opaque: bool) {
        self.may_switch = false;
        if self.is_undecided() {
            self.state = if opaque { State::Opaque } else { State::Head { scanned: 0 } };
        }
    }

    fn begin(&mut self, framed: Framed) {
        self.may_switch = framed.may_switch;
        self.state = match framed.body {
            Body::Sized(length) => State::Sized(length),
            Body::Chunked => State::Chunked(FIRST_CHUNK),
        };
    }

    fn end(&mut self) {
        self.state = if self.may_switch { State::Undecided } else { State::Head { scanned: 0 } };
    }
}

/// The length of the complete head that `bytes` begin with.
fn complete_head(bytes: &[u8], scanned: &mut usize) -> Result<Option<(usize, Framed)>, Malformed> {
    // Empty lines before a request are left over from sloppy clients (RFC 9112, 2.2).
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let empty = &bytes[..blank];
    if !empty.is_empty() && !empty.starts_with(b"\r") || blank > 4 {
        return Err(Malformed::LineEnd);
    }
    let from = scanned.saturating_sub(3).max(blank);
    // A head without a single CR is told as soon as it would have ended.
    let end = bytes.get(from..).and_then(|rest| rest.windows(4).position(|window| window == b"\r\n\r\n"));
    match end {
        Some(end) if from + end + 4 <= MAX_HEAD => {
            let length = from + end + 4;
            if !empty.len().is_multiple_of(2) {
                return Err(Malformed::LineEnd);
            }
            *scanned = 0;
            head::read(&bytes[blank..length]).map(|framed| Some((length, framed)))
        }
        Some(_) => Err(too_large(&bytes[blank..])),
        None if bytes.len() > MAX_HEAD => Err(too_large(&bytes[blank..])),
        None => {
            let fresh = &bytes[from.min(bytes.len())..];
            if fresh.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r') {
                return Err(Malformed::LineEnd);
            }
            *scanned = bytes.len();
            Ok(None)
        }
    }
}

/// What of a head of too many bytes is too large.
fn too_large(head: &[u8]) -> Malformed {
    match head.iter().take(MAX_HEAD).any(|byte| *byte == b'\n') {
        true => Malformed::TooLarge,
        false => Malformed::TooLong,
    }
}

impl Chunk {
    /// How many of `bytes` belong to the body, and whether it has ended with them.
    fn pass(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            match self {
                Self::Data(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *left -= step as u64;
                    at += step;
                    if *left == 0 {
                        *self = Self::End { cr: false };
                    }
                    continue;
                }
                Self::End { cr } => match (bytes[at], *cr) {
                    (b'\r', false) => *cr = true,
                    (b'\n', true) => *self = FIRST_CHUNK,
                    _ => return Err(Malformed::Chunk),
                },
                Self::Size { .. } => self.size(bytes[at])?,
                Self::Trailers { bytes: all, line } => {
                    *all += 1;
                    if *all > MAX_HEAD {
                        return Err(Malformed::TooLarge);
                    }
                    line.push(bytes[at]);
                    if bytes[at] == b'\n' {
                        let text = line.strip_suffix(b"\r\n").ok_or(Malformed::LineEnd)?;
                        if text.is_empty() {
                            return Ok((at + 1, true));
                        }
                        if text.contains(&b'\r') || text.contains(&0) {
                            return Err(Malformed::LineEnd);
                        }
                        head::trailer(text)?;
                        line.clear();
                    }
                }
            }
            at += 1;
        }
        Ok((at, false))
    }

    /// One byte of a size's line.
    fn size(&mut self, byte: u8) -> Result<(), Malformed> {
        let Self::Size { size, digits, bytes, extension, cr } = self else { return Err(Malformed::Chunk) };
        *bytes += 1;
        match byte {
            b'\n' if *cr && *digits > 0 => {
                *self = match *size {
                    0 => Self::Trailers { bytes: 0, line: Vec::new() },
                    size => Self::Data(size),
                };
            }
            _ if *cr || *bytes > MAX_SIZE_LINE => return Err(Malformed::Chunk),
            b'\r' => *cr = true,
            b';' if *digits > 0 => *extension = true,
            b'\t' | b' '..=b'~' if *extension => {}
            _ => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed::Chunk)?;
                if *digits == 15 {
                    return Err(Malformed::Chunk);
                }
                *digits += 1;
                *size = *size * 16 + u64::from(digit);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// All that passes when `bytes` come in pieces of `size`.
    fn pass(bytes: &[u8], size: usize) -> Result<usize, Malformed> {
        let (mut framing, mut passed) = (Framing::default(), 0);
        for end in (size..bytes.len()).step_by(size).chain([bytes.len()]) {
            passed += framing.pass(&bytes[passed..end])?;
        }
        // What is bad after something good is refused at the next call.
        if passed < bytes.len() {
            passed += framing.pass(&bytes[passed..])?;
        }
        Ok(passed)
    }

    #[test]
    fn messages_pass_in_any_pieces() {
        let sized = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";
        let chunks = format!("{CHUNKED}5;a=\"b\"\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
        let all = format!("{GET}{sized}\r\n{chunks}{GET}{chunks}{sized}");
        for size in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(pass(all.as_bytes(), size), Ok(all.len()), "pieces of {size}");
        }
    }

    #[test]
    fn half_a_head_is_held_back() {
        let text = format!("{GET}GET / HT");
        assert_eq!(pass(text.as_bytes(), 1000), Ok(GET.len()));
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(pass(endless.as_bytes(), 1000), Err(Malformed::TooLarge));
        let endless = format!("GET /{}", "x".repeat(MAX_HEAD));
        assert_eq!(pass(endless.as_bytes(), 1000), Err(Malformed::TooLong));
    }

    #[test]
    fn what_is_good_passes_before_what_is_bad_is_refused() {
        let mut framing = Framing::default();
        let text = format!("{GET}GET / HTTP/1.1\nHost: web\n\n");
        assert_eq!(framing.pass(text.as_bytes()), Ok(GET.len()));
        assert!(framing.pass(&text.as_bytes()[GET.len()..]).is_err());
        assert!(!framing.is_bad_in_body());
        assert!(framing.pass(GET.as_bytes()).is_err(), "nothing more passes");
        let mut framing = Framing::default();
        let text = format!("{CHUNKED}5\r\nhelloX");
        assert_eq!(framing.pass(text.as_bytes()), Ok(CHUNKED.len()));
        assert_eq!(framing.pass(&text.as_bytes()[CHUNKED.len()..]), Err(Malformed::Chunk));
        assert!(framing.is_bad_in_body());
    }

    #[test]
    fn bad_chunks_are_refused() {
        for bad in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX0\r\n",
            "g\r\n",
            "\r\n",
            "5 \r\nhello\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            "1234567890abcdef\r\n",
            "5;x\rhello",
            "0\r\nx: 1\n\r\n",
            "0\r\n x: 1\r\n\r\n",
        ] {
            let text = format!("{CHUNKED}{bad}");
            for size in [1, 1000] {
                assert!(pass(text.as_bytes(), size).is_err(), "{bad:?}, pieces of {size}");
            }
        }
        let text = "GET / HTTP/1.1\nHost: web\n\n";
        assert_eq!(pass(text.as_bytes(), 1), Err(Malformed::LineEnd));
    }

    #[test]
    fn after_an_upgrade_nothing_is_read_on_before_the_answer() {
        let upgrade = "GET / HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\n\r\n";
        let text = format!("{upgrade}\x01\x02");
        let mut framing = Framing::default();
        assert_eq!(framing.pass(text.as_bytes()), Ok(upgrade.len()));
        assert!(framing.is_undecided());
        framing.decide(true);
        assert_eq!(framing.pass(b"\x01\x02"), Ok(2));
        let mut framing = Framing::default();
        assert_eq!(framing.pass(format!("{upgrade}{GET}").as_bytes()), Ok(upgrade.len()));
        framing.decide(false);
        assert_eq!(framing.pass(GET.as_bytes()), Ok(GET.len()));
    }

    proptest! {
        #[test]
        fn any_bytes_pass_or_not_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in 1usize..50) {
            let _ = pass(&bytes, size);
            let _ = pass(&[CHUNKED.as_bytes(), &bytes].concat(), size);
        }

        #[test]
        fn pieces_make_no_difference(
            text in "(GET|POST) /[a-z]{0,3} HTTP/1.1\r\n(Host: a\r\n)?(Content-Length: [0-9]\r\n)?(Transfer-Encoding: chunked\r\n)?\r\n[0-9a-f\r\n]{0,30}",
            size in 1usize..20,
        ) {
            let (whole, pieces) = (pass(text.as_bytes(), 10_000), pass(text.as_bytes(), size));
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if whole.is_ok() {
                prop_assert_eq!(whole, pieces);
            }
        }
    }
}
