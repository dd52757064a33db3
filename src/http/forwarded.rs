//! The client's address behind proxies: `X-Forwarded-For`, and `Forwarded` of RFC 7239. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::RequestHead;

/// The header in which a program's proxies report the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, which nginx, `HAProxy` and Caddy can set. The default.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The proxies that are trusted to report a client's address.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies {
    networks: Vec<Network>,
    /// Peers on Unix sockets.
    unix: bool,
    pub(crate) header: ForwardedHeader,
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, Copy)]
struct Network {
    /// The address as IPv6; IPv4 addresses are mapped.
    address: u128,
    mask: u128,
}

impl TrustedProxies {
    /// Adds an address, a prefix such as `10.0.0.0/8`, or `unix`. Returns false if the text is none of these.
    pub(crate) fn add(&mut self, text: &str) -> bool {
        if text == "unix" {
            self.unix = true;
            return true;
        }
        let network = Network::parse(text);
        self.networks.extend(network);
        network.is_some()
    }

    /// Whether the peer of a connection is a trusted proxy. `None` is a Unix socket.
    pub(crate) fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        peer.map_or(self.unix, |peer| self.trusts_ip(peer.ip()))
    }

    fn trusts_ip(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }

    /// The sender's address. Follows the hops from the peer backwards through trusted proxies and returns the first
    /// untrusted address, or else the last hop. The headers of an untrusted peer are ignored. At a hop that is not an
    /// address, returns the address of the proxy that reported it.
    pub(crate) fn client_addr(&self, head: &RequestHead, peer: Option<SocketAddr>) -> Option<SocketAddr> {
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        for hop in hops(head, self.header).into_iter().rev() {
            let Some(addr) = hop else { break };
            client = Some(addr);
            if !self.trusts_ip(addr.ip()) {
                break;
            }
        }
        client
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().ok()?;
        let bits: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|n| *n <= bits)?,
            Some(_) => return None,
            None => bits,
        };
        let mask = u128::MAX.checked_shl(bits - length).unwrap_or(0);
        Some(Self { address: as_bits(ip) & mask, mask })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        as_bits(ip) & self.mask == self.address
    }
}

fn as_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// All hops in the header's lines, in order; the last proxy's comes last. `None` is a hop that is not an address.
fn hops(head: &RequestHead, header: ForwardedHeader) -> Vec<Option<SocketAddr>> {
    let name = match header {
        ForwardedHeader::XForwardedFor => "x-forwarded-for",
        ForwardedHeader::Forwarded => "forwarded",
    };
    let lines = head.header_lines().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    lines
        .flat_map(|(_, value)| match (std::str::from_utf8(value), header) {
            (Ok(line), ForwardedHeader::XForwardedFor) => line.split(',').map(node).collect(),
            (Ok(line), ForwardedHeader::Forwarded) => elements(line),
            (Err(_), _) => vec![None],
        })
        .collect()
}

/// Parses an address with or without a port: `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn node(text: &str) -> Option<SocketAddr> {
    let text = text.trim_matches([' ', '\t']);
    if let Ok(addr) = text.parse() {
        return Some(addr);
    }
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip: IpAddr = match inner {
        Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?),
        None => text.parse::<Ipv4Addr>().map(IpAddr::V4).or_else(|_| text.parse::<Ipv6Addr>().map(IpAddr::V6)).ok()?,
    };
    Some(SocketAddr::new(ip, 0))
}

/// The `for` of each element in a line of `Forwarded`. A line that violates the grammar counts as one hop without an
/// address, because the ends of its elements are unknown.
fn elements(line: &str) -> Vec<Option<SocketAddr>> {
    let mut rest = line;
    let mut hops = Vec::new();
    loop {
        let Some((hop, behind)) = element(rest) else { return vec![None] };
        hops.push(hop);
        match behind {
            Some(behind) => rest = behind,
            None => return hops,
        }
    }
}

/// Parses the first element. Also returns the rest after its comma. `None` if the element violates the grammar.
#[allow(clippy::type_complexity, reason = "the pair is taken apart at once")]
fn element(text: &str) -> Option<(Option<SocketAddr>, Option<&str>)> {
    let mut rest = text.trim_start_matches([' ', '\t']);
    let mut hop = None;
    loop {
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = value(behind)?;
        if name.eq_ignore_ascii_case("for") {
            hop = node(&value);
        }
        rest = behind.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Some((hop, None));
        }
        if let Some(behind) = rest.strip_prefix(',') {
            return Some((hop, Some(behind)));
        }
        rest = rest.strip_prefix(';')?.trim_start_matches([' ', '\t']);
    }
}

/// Parses a token or a quoted string. Also returns the rest after it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t', '"']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
