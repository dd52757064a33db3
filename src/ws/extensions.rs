//! The offers of `Sec-WebSocket-Extensions` (RFC 6455 §9.1), as far as permessage-deflate needs them (RFC 7692 §7).

/// The parameters agreed on with one client. No context is taken over in either direction, whatever the client offers.
/// So a message is compressed once for all clients, and no connection keeps a window in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deflate {
    /// The exponent of the maximum window size that the client asked for; 15 if it did not ask.
    pub(crate) window_bits: u8,
    is_window_asked: bool,
}

impl Deflate {
    /// The header's value in the response.
    pub(crate) fn response(self) -> String {
        let mut text = String::from("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if self.is_window_asked {
            text.extend(["; server_max_window_bits=", &self.window_bits.to_string()]);
        }
        text
    }
}

/// Accepts the first acceptable offer. `values` are the values of all request headers of that name.
pub(crate) fn negotiate<'a>(values: impl Iterator<Item = &'a str>) -> Option<Deflate> {
    values.flat_map(|value| split(value, ',')).find_map(accept)
}

/// Declines an offer with an unknown, duplicate or malformed parameter (RFC 7692 §7.1), and a window of 256 bytes,
/// which zlib does not support.
fn accept(offer: &str) -> Option<Deflate> {
    let mut parts = split(offer, ';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut agreed = Deflate { window_bits: 15, is_window_asked: false };
    for part in parts {
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name.trim(), Some(value)));
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => _ = window_bits(value)?,
            ("server_max_window_bits", Some(value)) => {
                let bits = window_bits(value).filter(|bits| *bits > 8)?;
                agreed = Deflate { window_bits: bits, is_window_asked: true };
            }
            _ => return None,
        }
    }
    Some(agreed)
}

/// Parses 8 to 15, without leading zeros, optionally quoted.
fn window_bits(value: &str) -> Option<u8> {
    let value = value.trim();
    let value = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" | "11" | "12" | "13" | "14" | "15" => value.parse().ok(),
        _ => None,
    }
}

/// Splits at separators outside of quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.split(move |c| {
        let escaped = std::mem::take(&mut is_escaped);
        match c {
            '\\' if is_quoted && !escaped => is_escaped = true,
            '"' if !escaped => is_quoted = !is_quoted,
            _ => {}
        }
        c == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(values: &[&str]) -> Option<String> {
        negotiate(values.iter().copied()).map(Deflate::response)
    }

    #[test]
    fn every_combination_of_parameters_is_answered() {
        let flags = ["", "; server_no_context_takeover", ";client_no_context_takeover"];
        let clients =
            ["", "; client_max_window_bits", "; client_max_window_bits=8", "; client_max_window_bits = \"15\""];
        let servers = [None, Some(9), Some(10), Some(15)];
        for (a, b) in flags.iter().flat_map(|a| flags.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
            for client in clients {
                for server in servers {
                    let window = server.map(|bits| format!("; server_max_window_bits={bits}")).unwrap_or_default();
                    let wanted = Some(format!("{PLAIN}{window}"));
                    assert_eq!(answer(&[&format!("permessage-deflate{a}{b}{client}{window}")]), wanted);
                    assert_eq!(answer(&[&format!("permessage-deflate{window}{client}{b}{a}")]), wanted);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_accepted_is_declined() {
        for offer in [
            "",
            "x-webkit-deflate-frame",
            "Permessage-Deflate",
            "permessage-deflate; unknown",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=x",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate;",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_accepted_is() {
        let window = |bits: u8| Some(format!("{PLAIN}; server_max_window_bits={bits}"));
        let offers = "foo; bar=\"a, permessage-deflate; b\", permessage-deflate; server_max_window_bits=8, \
                      permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(answer(&[offers]), window(10));
        assert_eq!(answer(&["foo", "permessage-deflate"]), Some(PLAIN.into()));
        assert_eq!(answer(&["foo; a=\"\\\",\"", "permessage-deflate; server_max_window_bits=9"]), window(9));
    }
}
