//! The server name in a client's own TLS: read from the first bytes of its connection, which are no secret.
//!
//! Bytes go in as they come, split in any way; nothing is kept but the one message that counts, and of that no more than
//! [`ClientHello::LIMIT`]. What cannot be read for certain is [`ServerName::Unreadable`]: a server may be more lenient than
//! this is, so a client must not escape a DENY by writing oddly.

use std::sync::Arc;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// This name, in lower case and without a final dot; empty when the client speaks no TLS or names no server.
    Named(Arc<str>),
    /// It may be TLS, and its name cannot be told.
    Unreadable,
}

/// Reads a ClientHello (RFC 8446, section 4.1.2; server names: RFC 6066, section 3).
#[derive(Clone, Debug, Default)]
pub struct ClientHello {
    /// Bytes so far.
    total: usize,
    header: [u8; RECORD_HEADER],
    in_header: usize,
    /// Bytes that the current record still has.
    in_record: usize,
    /// The handshake message, out of its records.
    message: Vec<u8>,
}

const RECORD_HEADER: usize = 5;
/// Type, and length in 24 bits.
const MESSAGE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
/// Every type that a TLS record can have.
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 20..=24;
const CLIENT_HELLO: u8 = 1;
const LONGEST_RECORD: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const LONGEST_NAME: usize = 255;

impl ClientHello {
    /// So many bytes of a connection are looked at; a ClientHello that is longer is not read.
    pub const LIMIT: usize = 16 << 10;

    /// Takes the next bytes. None: more are needed. Call it no more once it has answered.
    pub fn read(&mut self, mut bytes: &[u8]) -> Option<ServerName> {
        if self.total == 0
            && let Some(first) = bytes.first()
            && !CONTENT_TYPES.contains(first)
        {
            return Some(ServerName::Named("".into()));
        }
        while let Some((first, rest)) = bytes.split_first() {
            if self.total == Self::LIMIT {
                return Some(ServerName::Unreadable);
            }
            if self.in_record == 0 {
                self.total += 1;
                self.header[self.in_header] = *first;
                self.in_header += 1;
                bytes = rest;
                if self.in_header == RECORD_HEADER && !self.begin_record() {
                    return Some(ServerName::Unreadable);
                }
                continue;
            }
            let count = bytes.len().min(self.in_record).min(Self::LIMIT - self.total);
            let (now, later) = bytes.split_at(count);
            self.message.extend_from_slice(now);
            self.total += count;
            self.in_record -= count;
            bytes = later;
            if let Some(found) = self.finished() {
                return Some(found);
            }
        }
        None
    }

    /// The client will say no more. It may have said nothing: that is no TLS.
    pub fn end(&self) -> ServerName {
        if self.total == 0 { ServerName::Named("".into()) } else { ServerName::Unreadable }
    }

    /// The version is not looked at: RFC 8446 forbids it.
    fn begin_record(&mut self) -> bool {
        let [kind, _, _, high, low] = self.header;
        self.in_header = 0;
        self.in_record = usize::from(u16::from_be_bytes([high, low]));
        kind == HANDSHAKE && (1..=LONGEST_RECORD).contains(&self.in_record)
    }

    fn finished(&self) -> Option<ServerName> {
        let mut reader = Reader(&self.message);
        let kind = reader.u8()?;
        if kind != CLIENT_HELLO {
            return Some(ServerName::Unreadable);
        }
        let [high, middle, low] = *reader.take(3)?.first_chunk()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > Self::LIMIT - MESSAGE_HEADER {
            return Some(ServerName::Unreadable);
        }
        let body = reader.take(length)?;
        let name = server_name(body).map(|name| ServerName::Named(name.into()));
        Some(name.unwrap_or(ServerName::Unreadable))
    }
}

/// The name in a whole ClientHello, empty if there is none; None if it is malformed.
fn server_name(body: &[u8]) -> Option<String> {
    let mut reader = Reader(body);
    let (_version, _random) = (reader.take(2)?, reader.take(32)?);
    let (_session, _ciphers, _compressions) = (reader.list8()?, reader.list16()?, reader.list8()?);
    if reader.is_empty() {
        return Some(String::new());
    }
    let mut extensions = reader.list16()?;
    if !reader.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.is_empty() {
        let (kind, value) = (extensions.u16()?, extensions.list16()?);
        if kind == SERVER_NAME && found.replace(host_name(value)?).is_some() {
            return None;
        }
    }
    Some(found.unwrap_or_default())
}

/// Of a server_name extension. There is one name of each type, and only one type.
fn host_name(mut value: Reader<'_>) -> Option<String> {
    let mut names = value.list16()?;
    let (kind, name) = (names.u8()?, names.list16()?);
    let text = std::str::from_utf8(name.0).ok()?;
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_good = value.is_empty() && names.is_empty() && kind == HOST_NAME;
    let is_name = (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    (is_good && is_name).then(|| text.to_ascii_lowercase())
}

/// What is left of some bytes.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    /// As many bytes as the next one says.
    fn list8(&mut self) -> Option<Self> {
        let length = self.u8()?;
        self.take(length.into()).map(Self)
    }

    /// As many bytes as the next two say.
    fn list16(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list8(bytes: &[u8]) -> Vec<u8> {
        [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn list16(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), list16(value)].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        extension(0, &list16(&[&[0][..], &list16(name)].concat()))
    }

    fn body(extensions: &[u8]) -> Vec<u8> {
        let parts = [vec![3, 3], vec![7; 32], list8(&[9; 32]), list16(&[0x13, 1]), list8(&[0])];
        [parts.concat(), list16(extensions)].concat()
    }

    fn message(body: &[u8]) -> Vec<u8> {
        [&[1][..], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], body].concat()
    }

    /// In records of at most so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [vec![22, 3, 1], list16(part)].concat()).collect()
    }

    fn read(bytes: &[u8]) -> Option<ServerName> {
        ClientHello::default().read(bytes)
    }

    fn name(text: &str) -> Option<ServerName> {
        Some(ServerName::Named(text.into()))
    }

    fn hello(extensions: &[u8]) -> Vec<u8> {
        records(&message(&body(extensions)), LONGEST_RECORD)
    }

    #[test]
    fn names_are_found() {
        let others = [extension(0x2b, &[2, 3, 4]), extension(10, &[0, 2, 0, 29])].concat();
        for (bytes, found) in [
            (hello(&named(b"db.example.com")), name("db.example.com")),
            (hello(&named(b"DB.Example.com.")), name("db.example.com")),
            (hello(&[&others[..], &named(b"a")].concat()), name("a")),
            (hello(&[&named(b"a")[..], &others].concat()), name("a")),
            (hello(&others), name("")),
            (hello(&[]), name("")),
            // Before TLS 1.2 there may be no extensions at all.
            (records(&message(&body(&[])[..2 + 32 + 33 + 4 + 2]), 999), name("")),
            // What follows in the record, or after it, is not looked at.
            ([hello(&named(b"a")), vec![0; 99]].concat(), name("a")),
            (records(&[message(&body(&named(b"a"))), vec![1; 9]].concat(), 9999), name("a")),
            // No TLS.
            (b"GET / HTTP/1.1".to_vec(), name("")),
            (b"\x80\x2e\x01\x03\x01".to_vec(), name("")),
            (vec![0], name("")),
            (vec![], None),
        ] {
            assert_eq!(read(&bytes), found, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_odd_is_unreadable() {
        let good = hello(&named(b"db"));
        let with = |at: usize, byte: u8| {
            let mut odd = good.clone();
            odd[at] = byte;
            odd
        };
        let long = vec![b'a'; 256];
        let twice = [named(b"a"), named(b"b")].concat();
        let two_names = extension(0, &list16(&[&[0, 0, 1, b'a'][..], &[0, 0, 1, b'b']].concat()));
        for odd in [
            // Records that are no handshake before one that is: some servers bear with that.
            [vec![21, 3, 1, 0, 2, 1, 0], good.clone()].concat(),
            [vec![20, 3, 1, 0, 1, 1], good.clone()].concat(),
            [vec![22, 3, 1, 0, 0], good.clone()].concat(),
            // A record that is too long; a message that is not a ClientHello.
            with(3, 0x41),
            with(5, 2),
            // The message's length, the session's, the extension's, the type of name.
            with(8, 1),
            with(43, 0xff),
            hello(&extension(0, &[])),
            hello(&named(b"")),
            hello(&named(b".")),
            hello(&named(&long)),
            hello(&named(b"a\0b")),
            hello(&named("ä".as_bytes())),
            hello(&two_names),
            hello(&twice),
            hello(&extension(0, &list16(&[1, 0, 1, b'a']))),
            records(&message(&[body(&named(b"a")), vec![0]].concat()), 999),
            records(&message(&[0; ClientHello::LIMIT]), 9999),
            // Another record in the midst of the message.
            [&records(&message(&body(&named(b"a")))[..20], 20)[..], &[21, 3, 3, 0, 1]].concat(),
        ] {
            assert_eq!(read(&odd), Some(ServerName::Unreadable), "{odd:?}");
        }
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let endless = records(&message(&vec![0; ClientHello::LIMIT - 4]), 1);
        let mut hello = ClientHello::default();
        assert_eq!(hello.read(&endless), Some(ServerName::Unreadable));
        assert!(
            hello.message.len() <= ClientHello::LIMIT && hello.message.capacity() <= 2 * ClientHello::LIMIT
        );
    }

    #[test]
    fn who_ends_early_has_named_nothing_or_cannot_be_read() {
        assert_eq!(ClientHello::default().end(), ServerName::Named("".into()));
        let mut begun = ClientHello::default();
        assert_eq!(begun.read(&[22, 3]), None);
        assert_eq!(begun.end(), ServerName::Unreadable);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_are_split(
            text in "[a-z]{1,20}(\\.[a-z]{1,20}){0,3}", size in 1..600_usize, cuts in prop::collection::vec(1..200_usize, 1..50),
        ) {
            let bytes = records(&message(&body(&named(text.as_bytes()))), size);
            let mut hello = ClientHello::default();
            let (mut rest, mut found) = (&bytes[..], None);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                found = hello.read(now);
                if found.is_some() || rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, name(&text));
            prop_assert!(rest.is_empty(), "it answered before it had seen all");
        }

        #[test]
        fn any_bytes_are_answered_the_same_however_they_come(mut bytes in prop::collection::vec(any::<u8>(), 0..400), like in 0..3_u8) {
            if like > 0 && bytes.len() > 9 {
                bytes[..9].copy_from_slice(&[22, 3, 1, 1, 0, 1, 0, 0, 252]);
            }
            let at_once = read(&bytes);
            let mut hello = ClientHello::default();
            let one_by_one = bytes.iter().find_map(|byte| hello.read(&[*byte]));
            prop_assert_eq!(at_once, one_by_one);
        }

        #[test]
        fn a_byte_changed_never_makes_another_name_of_nothing(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = hello(&extension(0x2b, &[2, 3, 4]));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            prop_assert!(!matches!(read(&bytes), Some(ServerName::Named(name)) if !name.is_empty()));
        }
    }
}
