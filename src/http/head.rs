//! The request line and headers, parsed by httparse and held to stricter rules where requests could be smuggled.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

/// Largest request head in bytes; a larger one is refused with 431.
pub const MAX_HEAD: usize = 8 * 1024;
/// Most headers of a request; more are refused with 431.
pub const MAX_HEADERS: usize = 64;

/// Headers of which a second one would let two parsers disagree.
const SINGULAR: [&str; 7] =
    ["host", "upgrade", "origin", "content-length", "transfer-encoding", "sec-websocket-key", "sec-websocket-version"];

/// Why a request head is refused, and the HTTP status that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadError {
    status: u16,
    reason: &'static str,
}

impl HeadError {
    const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }

    const fn too_large(reason: &'static str) -> Self {
        Self { status: 431, reason }
    }

    /// 400 or 431.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// One line for the response body and the log.
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for HeadError {}

/// A place in the head's bytes. The head is at most 8 KiB, so 16 bits are enough.
#[derive(Debug, Clone, Copy)]
struct Span(u16, u16);

impl Span {
    /// Where `part` stands in `whole`, of which it is a slice.
    fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        let narrow = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Self(narrow(start), narrow(start + part.len()))
    }

    fn range(self) -> Range<usize> {
        usize::from(self.0)..usize::from(self.1)
    }
}

/// The head of an HTTP request: method, target and headers.
///
/// A client keeps the head of its upgrade request for as long as it lives; it is stored as it came, in one piece.
#[derive(Clone)]
pub struct RequestHead {
    bytes: Box<[u8]>,
    method: Span,
    target: Span,
    headers: Box<[(Span, Span)]>,
    is_http11: bool,
    /// Not part of the head: who sent it.
    remote: Option<SocketAddr>,
}

impl RequestHead {
    /// Parses the head at the front of `bytes`. Gives the head and its length in bytes, or `None` when more bytes are
    /// needed. For programs that read requests themselves; the [`Server`](crate::Server) does it for you.
    ///
    /// # Errors
    ///
    /// 431 when the head is over [`MAX_HEAD`] bytes or [`MAX_HEADERS`] headers. 400 when it is malformed or could be
    /// read in two ways: a line end other than CR LF, a NUL byte, a folded header, a second `Host`, `Upgrade`,
    /// `Origin`, `Content-Length`, `Transfer-Encoding`, `Sec-WebSocket-Key` or `Sec-WebSocket-Version`, or one of these
    /// other than `Origin` that is not UTF-8, a `Content-Length` that is no number, a missing `Host` in HTTP/1.1, or an
    /// absolute target for another host.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let window = &bytes[..bytes.len().min(MAX_HEAD)];
        check_line_ends(window)?;
        // On the heap: 2 KiB of stack would stay resident for as long as the connection lives.
        let mut headers = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(window) {
            Ok(httparse::Status::Complete(n)) => n,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(HeadError::too_large("request head too large")),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::too_large("too many headers")),
            Err(httparse::Error::Version) => return Err(HeadError::bad("unknown HTTP version")),
            Err(_) => return Err(HeadError::bad("malformed request head")),
        };
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(HeadError::bad("malformed request line"));
        };
        let span = |part: &[u8]| Span::of(window, part);
        let head = Self {
            method: span(method.as_bytes()),
            target: span(target.as_bytes()),
            headers: request.headers.iter().map(|h| (span(h.name.as_bytes()), span(h.value))).collect(),
            is_http11: version == 1,
            remote: None,
            bytes: window[..length].into(),
        };
        head.check()?;
        Ok(Some((head, length)))
    }

    /// A head made from parts, for programs whose requests were parsed by another library.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse): the parts are held to the same rules. 400 also for a part that would be read as something
    /// else, such as a method with a space or a name with a line end in it.
    pub fn from_parts<'a>(
        method: &str,
        target: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, HeadError> {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        let mut names = Vec::new();
        for (name, value) in headers {
            if value.contains(['\r', '\n']) {
                return Err(HeadError::bad("line end in a header"));
            }
            names.push(name);
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        let parsed = Self::parse(text.as_bytes())?.filter(|(_, length)| *length == text.len());
        // A part that holds the end of its line, or of itself, is read as several.
        let has_these_parts = |head: &Self| {
            head.method() == method
                && head.target() == target
                && head.headers().map(|(name, _)| name).eq(names.iter().copied())
        };
        match parsed {
            Some((head, _)) if has_these_parts(&head) => Ok(head),
            Some(_) | None => Err(HeadError::bad("malformed request head")),
        }
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The request target as it was sent, such as `/ws?room=1`.
    pub fn target(&self) -> &str {
        self.text(self.target)
    }

    /// The path without the query, such as `/ws`; not decoded.
    pub fn path(&self) -> &str {
        self.origin_form().split('?').next().unwrap_or_default()
    }

    /// The query without the `?`; not decoded.
    pub fn query(&self) -> Option<&str> {
        self.origin_form().split_once('?').map(|(_, query)| query)
    }

    /// The first query parameter of that name, with `%` and `+` decoded.
    pub fn query_param(&self, name: &str) -> Option<String> {
        let pairs = form_urlencoded::parse(self.query()?.as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The first header of that name, in any case; `None` also when its value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// All headers of that name whose values are UTF-8.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let matching = self.headers().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        matching.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (self.text(*name), &self.bytes[value.range()]))
    }

    /// The address of the peer that sent the request, behind a proxy the proxy's; `None` for Unix sockets, and for a head
    /// that has reached neither a server nor a hub yet.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote
    }

    pub(crate) fn set_remote_addr(&mut self, remote: Option<SocketAddr>) {
        self.remote = remote;
    }

    /// HTTP/1.1 rather than HTTP/1.0.
    pub fn is_http11(&self) -> bool {
        self.is_http11
    }

    /// Whether a comma-separated header holds the token, in any case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token))
    }

    /// The elements of a comma-separated header.
    pub(crate) fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.header_values(name).flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty())
    }

    /// The announced body length.
    pub(crate) fn content_length(&self) -> Result<u64, HeadError> {
        let Some(text) = self.header("content-length") else { return Ok(0) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let length = if digits { text.parse().ok() } else { None };
        length.ok_or(HeadError::bad("invalid Content-Length"))
    }

    /// The target without scheme and authority.
    fn origin_form(&self) -> &str {
        let target = self.target();
        match split_absolute(target) {
            Some((_, rest)) if rest.starts_with('/') => rest,
            Some(_) => "/",
            None => target,
        }
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.bytes[span.range()]).unwrap_or_default()
    }

    fn check(&self) -> Result<(), HeadError> {
        for name in SINGULAR {
            let mut values = self.headers().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            let first = values.next().unwrap_or_default();
            if values.next().is_some() {
                return Err(HeadError::bad("a header that may stand once stands twice"));
            }
            // `header` would say that it is missing, and for a body that is another request. Origins are judged by their
            // bytes, and such a one answered with 403.
            if name != "origin" && std::str::from_utf8(first).is_err() {
                return Err(HeadError::bad("a header that matters is not UTF-8"));
            }
        }
        self.content_length()?;
        let host = self.header("host");
        if self.is_http11 && host.is_none() {
            return Err(HeadError::bad("missing Host header"));
        }
        let target = self.target();
        if let Some((authority, _)) = split_absolute(target) {
            // RFC 9112 §3.2.2 demands that the absolute form is understood; one that contradicts Host is a trick.
            let agrees = host.is_some_and(|h| h.eq_ignore_ascii_case(authority));
            return if agrees { Ok(()) } else { Err(HeadError::bad("target and Host disagree")) };
        }
        if !target.starts_with('/') && target != "*" {
            return Err(HeadError::bad("unsupported request target"));
        }
        Ok(())
    }
}

impl fmt::Debug for RequestHead {
    /// Method and path: queries and headers hold tokens and cookies, and this ends up in logs; so what a terminal or a
    /// reader would be misled by is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestHead({} {})", self.method(), self.path().escape_debug())
    }
}

/// Authority and rest of an absolute target.
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https", "ws", "wss"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) {
        return None;
    }
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// Bare CR, bare LF and NUL are refused in the head; what follows the head is not looked at.
fn check_line_ends(bytes: &[u8]) -> Result<(), HeadError> {
    // Empty lines before the request line are skipped (RFC 9112 §2.2); they are not the end of the head.
    let start = bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
    let end = bytes[start..].windows(4).position(|w| w == b"\r\n\r\n").map_or(bytes.len(), |at| start + at + 4);
    let mut previous = 0;
    for (i, &byte) in bytes[..end].iter().enumerate() {
        let last = i + 1 == end;
        let bare_lf = byte == b'\n' && previous != b'\r';
        let bare_cr = byte == b'\r' && !last && bytes[i + 1] != b'\n';
        if bare_lf || bare_cr || byte == 0 {
            return Err(HeadError::bad("bare CR, bare LF or NUL in the request head"));
        }
        previous = byte;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /ws?a=1&b=x%20y HTTP/1.1\r\nHost: example.org\r\nX-List: a, B\r\nx-list: c\r\n\r\n";

    fn parse(text: &str) -> Result<Option<(RequestHead, usize)>, u16> {
        RequestHead::parse(text.as_bytes()).map_err(|e| e.status())
    }

    #[test]
    fn what_is_logged_is_printable() {
        // A control sequence, a line end, and text that runs backwards: all of them may stand in a target.
        let head =
            parse("GET /a\u{9b}31m\u{85}\u{202e}é?secret HTTP/1.1\r\nHost: x\r\n\r\n").expect("good").expect("whole").0;
        assert_eq!(format!("{head:?}"), "RequestHead(GET /a\\u{9b}31m\\u{85}\\u{202e}é)");
    }

    fn status(text: &str) -> u16 {
        parse(text).map_or_else(|s| s, |head| if head.is_some() { 200 } else { 100 })
    }

    #[test]
    fn parts_of_a_head() {
        let (head, length) = parse(&format!("{GOOD}rest")).expect("valid").expect("whole");
        assert_eq!(length, GOOD.len());
        assert_eq!((head.method(), head.path(), head.query()), ("GET", "/ws", Some("a=1&b=x%20y")));
        assert_eq!(head.query_param("b").as_deref(), Some("x y"));
        assert_eq!(head.query_param("c"), None);
        assert_eq!(head.header("HOST"), Some("example.org"));
        assert!(head.has_token("x-list", "b") && head.has_token("X-List", "c") && !head.has_token("x-list", "d"));
        assert_eq!(format!("{head:?}"), "RequestHead(GET /ws)");
    }

    #[test]
    fn every_prefix_is_incomplete() {
        for n in 0..GOOD.len() {
            assert_eq!(status(&GOOD[..n]), 100, "{n}");
        }
    }

    #[test]
    fn heads_that_could_be_read_in_two_ways() {
        let with = |line: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        let bad = [
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            with("Host: a"),
            with("Content-Length: 1\r\nContent-Length: 1"),
            with("Content-Length: +1"),
            with("Content-Length: 1, 1"),
            with("Content-Length: 99999999999999999999"),
            with("Upgrade: websocket\r\nUpgrade: websocket"),
            with("X: a\r\n folded"),
            with("X: a\nY: b"),
            with("X: a\rY: b"),
            with("X: a\0b"),
            with("X : a"),
            with(": a"),
            "GET / HTTP/1.1\nHost: a\n\n".to_owned(),
            "\r\n\r\nGET / HTTP/1.1\nHost: a\n\n".to_owned(),
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".to_owned(),
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(),
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n".to_owned(),
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "\u{16}\u{3}\u{1}".to_owned(),
        ];
        for text in bad {
            assert_eq!(status(&text), 400, "{text:?}");
        }
        for name in SINGULAR.into_iter().filter(|name| *name != "origin") {
            let head = [b"GET / HTTP/1.0\r\n", name.as_bytes(), b": \xff\r\n\r\n"].concat();
            assert_eq!(
                RequestHead::parse(&head).map_err(|e| e.status()).err(),
                Some(400),
                "{name} is there, not missing"
            );
        }
        assert_eq!(status("GET http://a/x?y HTTP/1.1\r\nHost: A\r\n\r\n"), 200);
        assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200);
        assert_eq!(status("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    }

    #[test]
    fn absolute_targets_give_their_path() {
        let (head, _) = parse("GET ws://a?q=1 HTTP/1.1\r\nHost: a\r\n\r\n").expect("valid").expect("whole");
        assert_eq!((head.path(), head.query()), ("/", None));
        let (head, _) = parse("GET http://a/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n").expect("valid").expect("whole");
        assert_eq!((head.path(), head.query()), ("/x", Some("q=1")));
    }

    #[test]
    fn size_limits() {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(status(&long), 431);
        assert_eq!(status(&long[..MAX_HEAD - 1]), 100);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(status(&many), 431);
    }

    #[test]
    fn from_parts_follows_the_same_rules() {
        let head = RequestHead::from_parts("GET", "/ws", [("Host", "a")]).expect("valid");
        assert_eq!(head.path(), "/ws");
        assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a\r\nX: y")]).is_err(), "two headers in one");
        assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a\r\n\r\nGET")]).is_err());
        assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a"), ("Host", "b")]).is_err());
        assert!(RequestHead::from_parts("GET", "/ws", [("Host", "a"), ("X: y\r\nCookie", "z")]).is_err());
        assert!(RequestHead::from_parts("GET", "/ws", [("Host: a", "b")]).is_err(), "another name");
        assert!(RequestHead::from_parts("GET /admin HTTP/1.1\r\nX:", "/ws", [("Host", "a")]).is_err());
        assert!(RequestHead::from_parts("GET", "/ws HTTP/1.1\r\nX: y", [("Host", "a")]).is_err(), "two lines in one");
        assert!(RequestHead::from_parts("\r\nGET", "/ws", [("Host", "a")]).is_err(), "skipped when parsed");
    }
}
