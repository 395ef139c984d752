//! `:authority` and `Host`.

/// A host and perhaps a port, as a client may write them (RFC 3986, section 3.2, without userinfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets; in the client's case.
    pub host: &'a str,
    /// The port, if one is written.
    pub port: Option<u16>,
}

/// Why a text is no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing where the host should be.
    #[error("the host is empty")]
    Empty,
    /// Longer than a name can be.
    #[error("the host is longer than 255 bytes")]
    TooLong,
    /// Userinfo, blanks, control characters, or what else no host has.
    #[error("the host has the byte {0:#04x}, which no host has")]
    Byte(u8),
    /// Brackets without an IPv6 address.
    #[error("what is in the brackets is no IPv6 address")]
    Bracket,
    /// Not a number of 1 to 65535.
    #[error("the port is no number from 1 to 65535")]
    Port,
}

impl<'a> Authority<'a> {
    /// Reads `Host` or `:authority`.
    ///
    /// # Errors
    /// [`AuthorityError`]; such a request is answered with 400.
    pub fn parse(text: &'a str) -> Result<Self, AuthorityError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(inner) => {
                let (address, after) = inner.split_once(']').ok_or(AuthorityError::Bracket)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| AuthorityError::Bracket)?;
                let host = text.get(..address.len() + 2).ok_or(AuthorityError::Bracket)?;
                match after.strip_prefix(':') {
                    None if after.is_empty() => (host, None),
                    Some(port) => (host, Some(port)),
                    None => return Err(AuthorityError::Port),
                }
            }
            None => {
                let (host, port) =
                    text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                let is_foreign =
                    |byte: &u8| !(byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte));
                if let Some(byte) = host.bytes().find(is_foreign) {
                    return Err(AuthorityError::Byte(byte));
                }
                (host, port)
            }
        };
        match host.len() {
            0 => return Err(AuthorityError::Empty),
            1..=255 => {}
            _ => return Err(AuthorityError::TooLong),
        }
        Ok(Self { host, port: port.map(parse_port).transpose()? })
    }
}

fn parse_port(text: &str) -> Result<u16, AuthorityError> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| text.parse().ok()).flatten();
    port.filter(|port| *port != 0).ok_or(AuthorityError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, host, port) in [
            ("web", "web", None),
            ("Web.shop.svc.cluster.local.", "Web.shop.svc.cluster.local.", None),
            ("web:8080", "web", Some(8080)),
            ("10.0.0.1:1", "10.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:65535", "[2001:db8::1]", Some(65535)),
        ] {
            assert_eq!(Authority::parse(text), Ok(Authority { host, port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_authority() {
        use AuthorityError::{Bracket, Byte, Empty, Port, TooLong};
        let long = "a".repeat(256);
        for (text, error) in [
            ("", Empty),
            (":80", Empty),
            ("a b", Byte(b' ')),
            ("user@web", Byte(b'@')),
            ("web/path", Byte(b'/')),
            ("web\r\nx", Byte(b'\r')),
            ("wéb", Byte(0xc3)),
            ("w%65b", Byte(b'%')),
            ("web:", Port),
            ("web:0", Port),
            ("web:65536", Port),
            ("web:+80", Port),
            ("web:80:80", Port),
            ("web:000080", Port),
            ("::1", Empty),
            ("[::1", Bracket),
            ("[web]", Bracket),
            ("[::1]80", Port),
            ("[fe80::1%25eth0]", Bracket),
            (&long, TooLong),
        ] {
            assert_eq!(Authority::parse(text), Err(error), "{text}");
        }
    }
}
