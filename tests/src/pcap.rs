//! Reads what tcpdump wrote: Ethernet frames, of which we look into TCP over IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: usize = 14;
const TCP: u8 = 6;

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) payload: &'a [u8],
}

/// The TCP segments of a capture in microsecond format, oldest first; a record that is still being written ends it.
pub(crate) fn segments(file: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = file.get(FILE_HEADER..).unwrap_or_default();
    let frames = std::iter::from_fn(move || {
        let length = rest.get(8..12)?.try_into().ok().map(u32::from_ne_bytes)? as usize;
        let frame = rest.get(RECORD_HEADER..RECORD_HEADER + length)?;
        rest = &rest[RECORD_HEADER + length..];
        Some(frame)
    });
    frames.filter_map(segment)
}

fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let packet = frame.get(ETHERNET..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => ipv4(packet),
        [0x86, 0xdd] => ipv6(packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Segment<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    if packet.get(9) != Some(&TCP) {
        return None;
    }
    let address =
        |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
    // Short frames are padded: the IP header says where the packet ends. 0: the kernel left it to the device (GSO).
    let end = if total == 0 { packet.len() } else { total };
    tcp(address(12)?, address(16)?, packet.get(header..end)?)
}

fn ipv6(packet: &[u8]) -> Option<Segment<'_>> {
    let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    if packet.get(6) != Some(&TCP) {
        return None;
    }
    let address =
        |at: usize| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
    let end = if length == 0 { packet.len() } else { 40 + length };
    tcp(address(8)?, address(24)?, packet.get(40..end)?)
}

fn tcp(source: IpAddr, target: IpAddr, text: &[u8]) -> Option<Segment<'_>> {
    let port = |at: usize| Some(u16::from_be_bytes(text.get(at..at + 2)?.try_into().ok()?));
    let header = usize::from(text.get(12)? >> 4) * 4;
    Some(Segment {
        source: SocketAddr::new(source, port(0)?),
        target: SocketAddr::new(target, port(2)?),
        payload: text.get(header..)?,
    })
}

/// Whether `needle` is somewhere in `hay`.
pub(crate) fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_header(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[..2].copy_from_slice(&4000_u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&8080_u16.to_be_bytes());
        bytes[12] = 5 << 4;
        bytes.extend_from_slice(payload);
        bytes
    }

    fn frame(kind: [u8; 2], ip: &[u8], payload: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &kind, ip, &tcp_header(payload), b"padding"].concat()
    }

    fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = vec![0; FILE_HEADER];
        for frame in frames {
            let length = (frame.len() as u32).to_ne_bytes();
            file.extend([&[0; 8][..], &length, &length, frame].concat());
        }
        file
    }

    #[test]
    fn both_families_are_read_without_padding() {
        let mut ip4 = vec![0; 20];
        (ip4[0], ip4[3], ip4[9], ip4[15], ip4[19]) = (0x45, 20 + 20 + 4, TCP, 1, 2);
        let mut ip6 = vec![0; 40];
        (ip6[5], ip6[6], ip6[23], ip6[39]) = (20 + 3, TCP, 1, 2);
        let arp = [&[0; 12][..], &[0x08, 0x06], &[0; 28]].concat();
        let frames = [arp, frame([0x08, 0], &ip4, b"four"), frame([0x86, 0xdd], &ip6, b"six")];
        let file = capture(&frames);
        let seen: Vec<_> = segments(&file).collect();
        assert_eq!(seen.len(), 2);
        assert_eq!((seen[0].payload, seen[1].payload), (&b"four"[..], &b"six"[..]));
        assert_eq!(seen[0].source, "0.0.0.1:4000".parse().expect("an address"));
        assert_eq!(seen[1].target, "[::2]:8080".parse().expect("an address"));
    }

    #[test]
    fn whatever_is_cut_short_is_no_segment() {
        let mut ip4 = vec![0; 20];
        (ip4[0], ip4[3], ip4[9]) = (0x45, 44, TCP);
        let file = capture(&[frame([0x08, 0], &ip4, b"four")]);
        for length in 0..file.len() {
            assert_eq!(segments(&file[..length]).count(), 0, "{length}");
        }
        for length in 0..58 {
            let short = capture(&[frame([0x08, 0], &ip4, b"four")[..length].to_vec()]);
            assert_eq!(segments(&short).count(), 0, "{length}");
        }
    }
}
