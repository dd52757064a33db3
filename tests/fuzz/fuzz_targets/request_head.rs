//! `RequestHead` against httparse alone, against the stricter rules written down a second time, and against itself on
//! the same bytes cut short.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use wshub::{
    RequestHead,
    server::{HeadError, MAX_HEAD, MAX_HEADERS},
};

/// These must also be UTF-8.
const TEXTUAL: &str =
    "host upgrade content-length transfer-encoding authorization sec-websocket-key sec-websocket-version";
const SINGULAR: &str = "origin access-control-request-method content-type from if-modified-since if-range \
    if-unmodified-since last-event-id max-forwards proxy-authorization range referer user-agent";

type Parsed = Result<Option<(RequestHead, usize)>, HeadError>;

#[derive(Debug, Arbitrary)]
struct Parts<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

fuzz_target!(|bytes: &[u8]| {
    // The first byte says how many times the rest stands there: heads over the limits are long.
    let Some((&times, rest)) = bytes.split_first() else { return };
    let times = if times >= 0xf0 { usize::from(times) * 4 } else { 0 };
    let mut bytes = rest.to_vec();
    if times > 0
        && let Some(line) = rest.windows(2).position(|w| w == b"\r\n")
    {
        let more = rest[line + 2..].split_inclusive(|b| *b == b'\n').next().unwrap_or_default().repeat(times);
        bytes.splice(line + 2..line + 2, more.into_iter().take(2 * MAX_HEAD));
    }
    let parsed = RequestHead::parse(&bytes);
    against_httparse(&bytes, &parsed);
    prefixes(&bytes, &parsed);
    if let Ok(Some((head, length))) = &parsed {
        accessors(head);
        from_its_parts(head, *length);
    }
    if let Ok(parts) = Parts::arbitrary_take_rest(Unstructured::new(rest)) {
        from_any_parts(&parts);
    }
});

/// The answer is httparse's, unless a stricter rule refuses.
fn against_httparse(bytes: &[u8], parsed: &Parsed) {
    let window = &bytes[..bytes.len().min(MAX_HEAD)];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match (request.parse(window), parsed) {
        (Ok(httparse::Status::Complete(n)), Ok(Some((head, length)))) => {
            assert_eq!(n, *length);
            assert_eq!(request.method, Some(head.method()));
            assert_eq!(request.path, Some(head.target()));
            assert_eq!(request.version, Some(u8::from(head.is_http11())));
            let theirs: Vec<_> = request.headers.iter().map(|h| (h.name, h.value)).collect();
            assert_eq!(head.header_lines().collect::<Vec<_>>(), theirs);
            assert!(!is_refused(&window[..n], &request));
        }
        (Ok(httparse::Status::Complete(n)), Err(error)) => {
            assert!(is_refused(&window[..n], &request), "{error}");
            assert_eq!(error.status(), 400);
        }
        (Ok(httparse::Status::Partial), Ok(None)) => assert!(bytes.len() < MAX_HEAD),
        (Ok(httparse::Status::Partial), Err(error)) if error.status() == 431 => assert!(bytes.len() >= MAX_HEAD),
        (Ok(httparse::Status::Partial), Err(_)) => assert!(has_bad_bytes(window)),
        (Err(httparse::Error::TooManyHeaders), Err(error)) => {
            assert!(error.status() == 431 || has_bad_bytes(window));
        }
        (Err(_), Err(error)) => assert_eq!(error.status(), 400),
        (theirs, ours) => panic!("httparse says {theirs:?}, we say {ours:?}"),
    }
}

/// The stricter rules.
fn is_refused(head: &[u8], request: &httparse::Request<'_, '_>) -> bool {
    let named = |name: &str| -> Vec<Option<&str>> {
        let matching = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        matching.map(|h| std::str::from_utf8(h.value).ok()).collect()
    };
    let host = named("host").first().copied().flatten();
    let target = request.path.unwrap_or_default();
    let absolute = ["http://", "https://", "ws://", "wss://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let is_good_target = match absolute {
        Some(scheme) => {
            let authority = target[scheme.len()..].split(['/', '?']).next().unwrap_or_default();
            host.is_some_and(|host| !host.is_empty() && host.eq_ignore_ascii_case(authority))
        }
        None => target.starts_with('/') || target == "*",
    };
    let length = named("content-length");
    let is_good_length = length
        .iter()
        .all(|length| length.is_some_and(|length| !length.starts_with('+') && length.parse::<u64>().is_ok()));
    let has_coding = !named("transfer-encoding").is_empty();
    has_bad_bytes(head)
        || SINGULAR.split_whitespace().any(|name| named(name).len() > 1)
        || TEXTUAL.split(' ').any(|name| named(name).len() > 1 || named(name).contains(&None))
        || (request.version == Some(1) && host.is_none())
        || host.is_some_and(|host| !is_good_host(host))
        || (has_coding && (request.version == Some(0) || !length.is_empty()))
        || !is_good_target
        || !is_good_length
}

/// A name of legal characters or an address in brackets, and an optional port.
fn is_good_host(host: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
    let (is_good, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return false,
        Some(Some((address, port))) => {
            let future = address.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.'));
            let is_future = future.is_some_and(|(version, rest)| {
                !version.is_empty()
                    && version.chars().all(|c| c.is_ascii_hexdigit())
                    && !rest.is_empty()
                    && rest.chars().all(|c| is_legal(c) || c == ':')
            });
            (address.parse::<std::net::Ipv6Addr>().is_ok() || is_future, port)
        }
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            let mut parts = name.split('%');
            let is_first_good = parts.next().is_some_and(|part| part.chars().all(is_legal));
            let is_encoded = |part: &str| {
                part.len() >= 2
                    && part.bytes().take(2).all(|b| b.is_ascii_hexdigit())
                    && part.chars().skip(2).all(is_legal)
            };
            (is_first_good && parts.all(is_encoded), port)
        }
    };
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|digits| digits.chars().all(|c| c.is_ascii_digit()));
    is_good && (port.is_empty() || is_port(port))
}

/// A NUL, or a CR or LF that is no part of CR LF; a CR may end what has come so far.
fn has_bad_bytes(bytes: &[u8]) -> bool {
    let text: Vec<u8> = String::from_utf8_lossy(bytes).replace("\r\n", "").into_bytes();
    let text = text.strip_suffix(b"\r").unwrap_or(&text);
    text.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'))
}

/// However the bytes come: nothing, and then the answer, which stays.
fn prefixes(bytes: &[u8], whole: &Parsed) {
    let shown = |parsed: &Parsed| match parsed {
        Ok(Some((head, length))) => format!("{length} {:?}", head.header_lines().collect::<Vec<_>>()),
        Ok(None) => "more".to_owned(),
        Err(_) => "refused".to_owned(),
    };
    let wanted = shown(whole);
    let length = whole.as_ref().ok().and_then(|head| head.as_ref()).map(|(_, length)| *length);
    // Anywhere, as the bytes themselves have it; and where it matters.
    let anywhere = bytes.rchunks(3).take(4).map(|at| at.iter().fold(0, |sum, b| sum * 64 + usize::from(*b)));
    let anywhere = anywhere.map(|at| at % (bytes.len() + 1));
    for n in anywhere.chain(length.map(|length| length - 1)).chain(length) {
        let part = shown(&RequestHead::parse(&bytes[..n]));
        match length {
            Some(length) if n < length => assert_eq!(part, "more", "{n} bytes of {length}"),
            Some(_) => assert_eq!(part, wanted),
            None => assert!(part == "more" || part == wanted, "{n} bytes: {part}, then {wanted}"),
        }
    }
}

fn accessors(head: &RequestHead) {
    let shown = head.query().map_or(head.path().to_owned(), |query| format!("{}?{query}", head.path()));
    assert!(head.target().ends_with(&shown) || head.path() == "/", "{shown} of {}", head.target());
    assert!(!head.path().contains('?') && (head.path().starts_with('/') || head.path() == "*"));
    // For logs: without the query, and what is not plain is escaped.
    let shown = format!("{head:?}");
    assert!(!shown.contains(char::is_control), "{shown}");
    if head.path().bytes().all(|b| b.is_ascii_graphic() && !b"\\\"'".contains(&b)) {
        assert_eq!(shown, format!("RequestHead({} {})", head.method(), head.path()));
    }
    for (name, _) in head.header_lines() {
        let of_name = || head.header_lines().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let text = |value| std::str::from_utf8(value).ok();
        assert_eq!(head.header(&name.to_ascii_uppercase()), of_name().next().and_then(|(_, value)| text(value)));
        let values: Vec<_> = head.headers(name).collect();
        assert_eq!(values, of_name().filter_map(|(_, value)| text(value)).collect::<Vec<_>>());
    }
    for pair in head.query().unwrap_or_default().split('&').filter(|pair| !pair.contains(['%', '+'])) {
        let name = pair.split('=').next().unwrap_or_default();
        assert!(pair.is_empty() || head.query_param(name).is_some(), "{name}");
    }
    assert_eq!(head.remote_addr(), None);
}

/// A head made from the parts of a head is that head.
fn from_its_parts(head: &RequestHead, length: usize) {
    let parts: Option<Vec<_>> =
        head.header_lines().map(|(name, value)| Some((name, std::str::from_utf8(value).ok()?))).collect();
    let Some(parts) = parts.filter(|parts| head.is_http11() && length + 2 * parts.len() <= MAX_HEAD) else { return };
    let again = RequestHead::from_parts(head.method(), head.target(), parts).expect("the same rules");
    assert_eq!((again.method(), again.target()), (head.method(), head.target()));
    assert_eq!(again.header_lines().collect::<Vec<_>>(), head.header_lines().collect::<Vec<_>>());
}

/// Whatever the parts are: the head has them and nothing else, or there is none.
fn from_any_parts(parts: &Parts<'_>) {
    let Ok(head) = RequestHead::from_parts(parts.method, parts.target, parts.headers.iter().copied()) else { return };
    assert_eq!((head.method(), head.target()), (parts.method, parts.target));
    let trimmed = |value: &str| value.trim_matches([' ', '\t']).to_owned().into_bytes();
    let wanted: Vec<_> = parts.headers.iter().map(|(name, value)| (*name, trimmed(value))).collect();
    assert_eq!(head.header_lines().map(|(name, value)| (name, value.to_vec())).collect::<Vec<_>>(), wanted);
}
