//! The PROXY protocol, versions 1 and 2: the header that a proxy sends before the client's first byte. No I/O.
//!
//! The specification is `proxy-protocol.txt` of `HAProxy`, sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_START: &[u8] = b"PROXY ";
/// Maximum length of a line of version 1, with its CR LF.
const V1_LONGEST: usize = 107;
/// Number of bytes of version 2 before the addresses.
const V2_FIXED: usize = 16;
/// Maximum number of bytes of addresses and further fields. The further fields are ignored.
const V2_LONGEST: usize = 8 * 1024;

/// The origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The proxy itself, for example a health check, or unknown: the socket's peer.
    Peer,
    Client(SocketAddr),
    /// The client reached the proxy over a Unix socket.
    Unix,
}

/// The result of parsing the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// At least this many more bytes belong to the header; none of them is the client's.
    More(usize),
    Whole(Source),
}

/// Parses the header from its first bytes. The error is a reason for the log.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, &'static str> {
    let is_start_of = |whole: &[u8]| bytes.iter().zip(whole).all(|(a, b)| a == b);
    if is_start_of(V1_START) {
        return parse_v1(bytes);
    }
    if is_start_of(SIGNATURE) {
        return parse_v2(bytes);
    }
    Err("no PROXY header")
}

fn parse_v1(bytes: &[u8]) -> Result<Header, &'static str> {
    // The shortest line is `PROXY UNKNOWN`.
    let shortest = V1_START.len() + 9;
    if bytes.len() < shortest {
        return Ok(Header::More(shortest - bytes.len()));
    }
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        return if bytes.len() < V1_LONGEST { Ok(Header::More(1)) } else { Err("PROXY header too long") };
    };
    let source = std::str::from_utf8(line).ok().and_then(source_v1).ok_or("invalid PROXY header of version 1")?;
    Ok(Header::Whole(source))
}

fn source_v1(line: &str) -> Option<Source> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [_, family, rest @ ..] = &fields[..] else { return None };
    let [source, destination, source_port, destination_port] = rest else {
        return (*family == "UNKNOWN").then_some(Source::Peer);
    };
    let ip = |text: &str| -> Option<IpAddr> {
        match *family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    if *family == "UNKNOWN" {
        return Some(Source::Peer);
    }
    ip(destination).zip(port(destination_port))?;
    Some(Source::Client(SocketAddr::new(ip(source)?, port(source_port)?)))
}

fn parse_v2(bytes: &[u8]) -> Result<Header, &'static str> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else {
        return Ok(Header::More(V2_FIXED - bytes.len()));
    };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0xf);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version != 2 || command > 1 {
        return Err("unknown version or command of a PROXY header");
    }
    if length > V2_LONGEST {
        return Err("PROXY header too long");
    }
    if rest.len() < length {
        return Ok(Header::More(length - rest.len()));
    }
    if command == 0 {
        return Ok(Header::Whole(Source::Peer));
    }
    source_v2(fixed[13] >> 4, rest).map(Header::Whole).ok_or("PROXY header without its addresses")
}

/// `family` and the addresses: the source's, the destination's, the source's port, the destination's.
fn source_v2(family: u8, addresses: &[u8]) -> Option<Source> {
    let client = |ip: IpAddr, port: &[u8]| {
        let port: [u8; 2] = port.try_into().ok()?;
        Some(Source::Client(SocketAddr::new(ip, u16::from_be_bytes(port))))
    };
    match family {
        1 => {
            let ip: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            addresses.get(..12)?;
            client(Ipv4Addr::from(ip).into(), addresses.get(8..10)?)
        }
        2 => {
            let ip: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            addresses.get(..36)?;
            client(Ipv6Addr::from(ip).into(), addresses.get(32..34)?)
        }
        3 => addresses.get(..216).map(|_| Source::Unix),
        _ => Some(Source::Peer),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the parser as it asks for bytes; gives the source, and how many bytes it has asked for.
    fn feed(bytes: &[u8]) -> Result<(Source, usize), &'static str> {
        let mut read = 0;
        loop {
            match parse(&bytes[..read])? {
                Header::Whole(source) => return Ok((source, read)),
                Header::More(n) if read + n <= bytes.len() => read += n,
                Header::More(_) => return Err("incomplete PROXY header"),
            }
        }
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[0x20 | command, family][..], &length, addresses].concat()
    }

    fn client(text: &str) -> Source {
        Source::Client(text.parse().expect("an address"))
    }

    #[test]
    fn version_1() {
        for (line, source) in [
            ("PROXY TCP4 1.2.3.4 5.6.7.8 567 80\r\n", client("1.2.3.4:567")),
            ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", client("[2001:db8::1]:65535")),
            ("PROXY UNKNOWN\r\n", Source::Peer),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Source::Peer),
        ] {
            let bytes = [line, "GET / HTTP/1.1\r\n"].concat();
            assert_eq!(feed(bytes.as_bytes()), Ok((source, line.len())), "{line:?}");
        }
        for bad in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 567\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 567 80 1\r\n",
            "PROXY TCP4 ::1 5.6.7.8 567 80\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 567 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +567 80\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 567 \r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 567 80\r\n",
            "PROXY NOBODY..\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 567 80\n\
             1234567890123456789012345678901234567890123456789012345678901234567890\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "proxy TCP4 1.2.3.4 5.6.7.8 567 80\r\n",
        ] {
            assert!(feed(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(feed(&[V1_START, &[b'x'; 200]].concat()), Err("PROXY header too long"));
    }

    #[test]
    fn version_2() {
        let v4 = [&[1, 2, 3, 4, 5, 6, 7, 8][..], &567_u16.to_be_bytes(), &[0, 80]].concat();
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &567_u16.to_be_bytes(), &[0, 80]].concat();
        let with_more = [&v4[..], &[0x20, 0, 3, 1, 2, 3]].concat();
        for (bytes, source) in [
            (v2(1, 0x11, &v4), client("1.2.3.4:567")),
            (v2(1, 0x11, &with_more), client("1.2.3.4:567")),
            (v2(1, 0x21, &v6), client("[::1]:567")),
            (v2(1, 0x31, &[0; 216]), Source::Unix),
            (v2(1, 0x00, &[]), Source::Peer),
            (v2(0, 0x00, &[]), Source::Peer),
            (v2(0, 0x11, &v4), Source::Peer),
        ] {
            let length = bytes.len();
            assert_eq!(feed(&[bytes, b"\x16\x03".to_vec()].concat()), Ok((source, length)));
        }
        for bad in [
            v2(2, 0x11, &v4),
            v2(1, 0x11, &v4[..11]),
            v2(1, 0x21, &v6[..35]),
            v2(1, 0x31, &[0; 215]),
            v2(1, 0x11, &[0; V2_LONGEST + 1]),
            [&v2(1, 0x11, &v4)[..12], &[0x11, 0x11, 0, 0]].concat(),
        ] {
            assert!(feed(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_client_byte_is_asked_for(
            start in prop_oneof![Just(V1_START.to_vec()), Just(SIGNATURE.to_vec()), Just(b"PROXY TCP4 ".to_vec())],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, rest].concat();
            let mut read = 0;
            while let Ok(Header::More(n)) = parse(&bytes[..read]) {
                prop_assert!(n > 0);
                if read + n > bytes.len() {
                    break;
                }
                read += n;
            }
        }

        #[test]
        fn every_address_comes_through_in_both_versions(ip: u32, port: u16) {
            let addr = SocketAddr::new(Ipv4Addr::from(ip).into(), port);
            let line = format!("PROXY TCP4 {} 127.0.0.1 {port} 80\r\n", addr.ip());
            prop_assert_eq!(feed(line.as_bytes()), Ok((Source::Client(addr), line.len())));
            let addresses = [&ip.to_be_bytes()[..], &[127, 0, 0, 1], &port.to_be_bytes(), &[0, 80]].concat();
            let bytes = v2(1, 0x11, &addresses);
            prop_assert_eq!(feed(&bytes), Ok((Source::Client(addr), bytes.len())));
        }
    }
}
