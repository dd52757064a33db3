//! The request line and headers, parsed by httparse, with stricter rules against request smuggling.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use super::fields::is_host;

/// Maximum size of a request head, in bytes. A larger one is refused with 431.
pub const MAX_HEAD: usize = 8 * 1024;
/// Maximum number of headers in a request. More are refused with 431.
pub const MAX_HEADERS: usize = 64;

/// Headers that may appear once. With duplicates two parsers could see two different requests, because one reads the
/// first header and the other one the last.
const SINGULAR: [&str; 20] = [
    "host",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "authorization",
    "sec-websocket-key",
    "sec-websocket-version",
    "origin",
    "access-control-request-method",
    "content-type",
    "from",
    "if-modified-since",
    "if-range",
    "if-unmodified-since",
    "last-event-id",
    "max-forwards",
    "proxy-authorization",
    "range",
    "referer",
    "user-agent",
];

/// The first headers of the list must be UTF-8. Otherwise [`RequestHead::header`] would report them as missing, which
/// changes the meaning of the request.
const TEXTUAL: usize = 7;

/// Why a request head is refused, and the HTTP status of the refusal.
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

/// A range of the head's bytes. The head has at most 8 KiB, so 16 bits are enough.
#[derive(Debug, Clone, Copy)]
struct Span(u16, u16);

impl Span {
    /// The position of `part`, which is a slice of `whole`.
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
/// A client keeps the head of its upgrade request for its lifetime. The head is stored as received, in one allocation.
#[derive(Clone)]
pub struct RequestHead {
    bytes: Box<[u8]>,
    method: Span,
    target: Span,
    headers: Box<[(Span, Span)]>,
    is_http11: bool,
    /// The sender's address, which is not part of the head.
    remote: Option<SocketAddr>,
    /// The route's parameters, which are not part of the head. Boxed, because a client keeps them and most clients have
    /// none.
    #[allow(clippy::box_collection, reason = "one word where there is none")]
    path_params: Option<Box<PathParams>>,
}

/// The names and values of a route's parameters.
type PathParams = Vec<(Box<str>, Box<str>)>;

impl RequestHead {
    /// Parses the head at the start of `bytes`. Returns the head and its length in bytes, or `None` if more bytes are
    /// needed. It is for programs that read requests themselves; a [`Server`](crate::Server) does so by itself.
    ///
    /// # Errors
    ///
    /// 431 if the head has more than [`MAX_HEAD`] bytes or [`MAX_HEADERS`] headers. 400 if it is malformed or
    /// ambiguous:
    ///
    /// - a line end other than CR LF, a NUL byte, a folded header;
    /// - a duplicate of a header that may appear once, such as `Host`, `Authorization`, `Origin`, `Content-Length` or
    ///   `Sec-WebSocket-Key`;
    /// - a `Host`, `Upgrade`, `Content-Length`, `Transfer-Encoding`, `Authorization`, `Sec-WebSocket-Key` or
    ///   `Sec-WebSocket-Version` that is not UTF-8;
    /// - a `Content-Length` that is not a number or comes with a `Transfer-Encoding`, or the latter in HTTP/1.0 (RFC
    ///   9112 §6.1);
    /// - a `Host` that is missing in HTTP/1.1 or is not a host with an optional port (RFC 9112 §3.2);
    /// - an absolute target for another host.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let window = &bytes[..bytes.len().min(MAX_HEAD)];
        check_line_ends(window)?;
        // On the heap, because 2 KiB of stack would stay resident for the connection's lifetime.
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
            path_params: None,
            bytes: window[..length].into(),
        };
        head.check()?;
        Ok(Some((head, length)))
    }

    /// Creates a head from parts, for programs whose requests were parsed by another library.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), because the same rules apply to the parts. Also 400 for a part that would be parsed
    /// as something else, such as a method with a space or a name with a line end.
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
        // A part that contains a separator would be parsed as several parts.
        let has_these_parts = |head: &Self| {
            head.method() == method
                && head.target() == target
                && head.header_lines().map(|(name, _)| name).eq(names.iter().copied())
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

    /// The decoded value of a parameter in the route's path: `room` of `/rooms/{room}`, or `*` of `/files/*`. See
    /// [`Server::websocket`](crate::Server::websocket).
    pub fn path_param(&self, name: &str) -> Option<&str> {
        self.path_params.iter().flat_map(|all| all.iter()).find(|(key, _)| **key == *name).map(|(_, value)| &**value)
    }

    pub(crate) fn set_path_params(&mut self, params: PathParams) {
        self.path_params = (!params.is_empty()).then(|| Box::new(params));
    }

    /// The query without the `?`; not decoded.
    pub fn query(&self) -> Option<&str> {
        self.origin_form().split_once('?').map(|(_, query)| query)
    }

    /// The query's parameters in order, with `%` and `+` decoded. Pairs that are not UTF-8 are left out.
    pub fn query_params(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let pairs = self.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((form_decoded(name)?, form_decoded(value)?))
        })
    }

    /// The first query parameter of that name, with `%` and `+` decoded. `None` if it is missing or not UTF-8.
    pub fn query_param(&self, name: &str) -> Option<String> {
        self.query_params().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The first cookie of that name, as sent, in all `Cookie` lines (RFC 6265 §5.4).
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.headers("cookie").flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The token of `Authorization: Bearer TOKEN` (RFC 6750 §2.1). `None` if the header is missing or has another
    /// scheme.
    ///
    /// Compare secrets in constant time, for example with the crate `subtle`.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    }

    /// The first header of that name, in any case. `None` if it is missing or its value is not UTF-8.
    ///
    /// A header may have several lines. A proxy adds its line, such as `X-Forwarded-For`, at the end, and the first
    /// line may be the peer's own. For such headers use [`headers`](Self::headers).
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.header_lines().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The values of all headers of that name, in any case, in order. Values that are not UTF-8 are left out;
    /// [`header_lines`](Self::header_lines) includes them.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let matching = self.header_lines().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        matching.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers in order: names as sent, values as bytes.
    pub fn header_lines(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (self.text(*name), &self.bytes[value.range()]))
    }

    /// The sender's address: the connection's peer, or the client reported by trusted proxies (see
    /// [`Server::trusted_proxies`](crate::Server::trusted_proxies)), with port 0 if they report none.
    ///
    /// `None` for Unix sockets, and before the head has reached a server or hub.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote
    }

    pub(crate) fn set_remote_addr(&mut self, remote: Option<SocketAddr>) {
        self.remote = remote;
    }

    /// Whether the request uses HTTP/1.1, not HTTP/1.0.
    pub fn is_http11(&self) -> bool {
        self.is_http11
    }

    /// Whether a comma-separated header contains the token, in any case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token))
    }

    /// The elements of a comma-separated header.
    pub(crate) fn tokens(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers(name).flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty())
    }

    /// How the body is framed. Never an error for a parsed head.
    pub(crate) fn framing(&self) -> Result<Framing, HeadError> {
        let coding = self.header("transfer-encoding");
        let Some(text) = self.header("content-length") else {
            return match coding {
                None => Ok(Framing::Length(0)),
                Some(_) if !self.is_http11 => Err(HeadError::bad("Transfer-Encoding in HTTP/1.0")),
                Some(coding) if coding.trim().eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
                Some(_) => Ok(Framing::Unknown),
            };
        };
        if coding.is_some() {
            return Err(HeadError::bad("both Content-Length and Transfer-Encoding"));
        }
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let length = if is_number { text.parse().ok() } else { None };
        length.map(Framing::Length).ok_or(HeadError::bad("invalid Content-Length"))
    }

    /// Whether the sender waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        self.is_http11 && self.has_token("expect", "100-continue")
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
        self.check_singular()?;
        self.framing()?;
        let host = self.header("host");
        match host {
            None if self.is_http11 => return Err(HeadError::bad("missing Host header")),
            Some(host) if !is_host(host) => return Err(HeadError::bad("invalid Host header")),
            _ => {}
        }
        let target = self.target();
        if let Some((authority, _)) = split_absolute(target) {
            if authority.is_empty() {
                return Err(HeadError::bad("absolute target without a host"));
            }
            // RFC 9112 §3.2.2 requires support of the absolute form. One that contradicts `Host` is refused as an
            // attack.
            let agrees = host.is_some_and(|h| h.eq_ignore_ascii_case(authority));
            return if agrees { Ok(()) } else { Err(HeadError::bad("target and Host disagree")) };
        }
        if !target.starts_with('/') && target != "*" {
            return Err(HeadError::bad("unsupported request target"));
        }
        Ok(())
    }

    fn check_singular(&self) -> Result<(), HeadError> {
        let mut seen = [false; SINGULAR.len()];
        for (name, value) in self.header_lines() {
            let Some(at) = SINGULAR.iter().position(|singular| name.eq_ignore_ascii_case(singular)) else { continue };
            if std::mem::replace(&mut seen[at], true) {
                return Err(HeadError::bad("duplicate header"));
            }
            if at < TEXTUAL && std::str::from_utf8(value).is_err() {
                return Err(HeadError::bad("header is not valid UTF-8"));
            }
        }
        Ok(())
    }
}

/// How a request's body is framed (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes; 0 without a body.
    Length(u64),
    /// By the chunked transfer coding.
    Chunked,
    /// By an unsupported transfer coding.
    Unknown,
}

/// Decodes a name or value of a query: `+` is a space, `%` begins an encoded byte (WHATWG URL,
/// `application/x-www-form-urlencoded`).
fn form_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_encoding::percent_decode_str(text).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

impl fmt::Debug for RequestHead {
    /// Shows only method and path, because logs contain this, and queries and headers contain tokens and cookies.
    /// Characters that could mislead a terminal or reader are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestHead({} {})", self.method(), self.path().escape_debug())
    }
}

/// Splits an absolute target into authority and rest.
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https", "ws", "wss"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) {
        return None;
    }
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// Refuses bare CR, bare LF and NUL in the head. Bytes after the head are not checked.
fn check_line_ends(bytes: &[u8]) -> Result<(), HeadError> {
    // Empty lines before the request line are skipped (RFC 9112 §2.2). They do not end the head.
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
#[path = "head_tests.rs"]
mod tests;
