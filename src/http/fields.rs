//! The grammar of header fields (RFC 9110 §5) and of `Host` (RFC 9110 §7.2, RFC 3986 §3.2.2).

use std::net::Ipv6Addr;

use crate::config::is_token;

/// A header's name is a token.
pub(super) fn is_name(name: &str) -> bool {
    is_token(name)
}

/// A header value contains no control characters except tabs.
pub(super) fn is_value(value: &str) -> bool {
    !value.chars().any(|c| c.is_ascii_control() && c != '\t')
}

/// Checks the value of `Host`: a host, which may be empty, and optionally a colon and a port, which may be empty.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = port.strip_prefix(':').is_none_or(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let has_port = port.is_empty() || port.starts_with(':');
    has_port && is_port && (is_ip_literal(host) || is_reg_name(host))
}

/// `[` an IPv6 address, or one of a future version, `]`.
fn is_ip_literal(host: &str) -> bool {
    let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else { return false };
    inner.parse::<Ipv6Addr>().is_ok() || is_future_address(inner)
}

/// RFC 3986: `"v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )`.
fn is_future_address(text: &str) -> bool {
    let Some((version, address)) = text.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_hex = !version.is_empty() && version.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex && !address.is_empty() && address.bytes().all(|b| is_name_byte(b) || b == b':')
}

/// RFC 3986: a registered name, which an IPv4 address is as well. Percent signs begin an encoded byte.
fn is_reg_name(host: &str) -> bool {
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let is_legal = match byte {
            b'%' => bytes.by_ref().take(2).filter(u8::is_ascii_hexdigit).count() == 2,
            byte => is_name_byte(byte),
        };
        if !is_legal {
            return false;
        }
    }
    true
}

/// RFC 3986: unreserved characters and sub-delimiters.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts() {
        for host in [
            "",
            ":",
            "a",
            "a:",
            "a_b",
            "a,b",
            "a.b:80",
            "a:99999",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:",
            "[::1]:80",
            "%41",
            "[v1.a:b]",
            "[::ffff:1.2.3.4]",
            "1.2.3",
            "a;b=c",
            "xn--bcher-kva.example",
        ] {
            assert!(is_host(host), "{host:?}");
        }
        for host in [
            "exa mple",
            "http://a",
            "user@a",
            "a:b",
            "[::1",
            "::1",
            "a/",
            "a?b",
            "a#b",
            "[a]",
            "[]",
            "[::1]a",
            "[::1]]",
            "[::1]:a",
            "a:1:2",
            "a:+1",
            "%4",
            "%zz",
            "%",
            "a\\b",
            "\"a\"",
            "<a>",
            "ä",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "a]",
            "]",
            "[",
            "a[::1]",
            "a:80 ",
            "\ta",
        ] {
            assert!(!is_host(host), "{host:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_built_by_the_grammar_is_a_host(
            host in prop_oneof!["[a-zA-Z0-9._~!$&'()*+,;=-]{0,20}", "(%[0-9a-fA-F]{2}){1,5}"],
            port in prop_oneof![Just(String::new()), "(:[0-9]{0,6})"],
        ) {
            let text = host + &port;
            prop_assert!(is_host(&text), "{}", text);
        }

        #[test]
        fn every_ipv6_address_is_a_host(address: u128, port: u16) {
            let text = format!("[{}]:{port}", Ipv6Addr::from(address));
            prop_assert!(is_host(&text), "{}", text);
        }

        #[test]
        fn a_forbidden_character_anywhere_is_seen(
            before in "[a-z0-9.]{0,9}",
            bad in "[ \t\"#/<>?@\\\\^`{|}\u{7f}-\u{ff}]",
            after in "[a-z0-9.]{0,9}",
        ) {
            let text = [before, bad, after].concat();
            prop_assert!(!is_host(&text), "{}", text);
        }

        #[test]
        fn names_and_values_have_no_line_ends(text in ".*", at in 0_usize..3) {
            let bad = text.clone() + ["\r", "\n", "\0"][at];
            prop_assert!(!is_name(&bad) && !is_value(&bad));
            prop_assert_eq!(is_value(&text), text.bytes().all(|b| (b >= 0x20 && b != 0x7f) || b == b'\t'));
        }
    }
}
