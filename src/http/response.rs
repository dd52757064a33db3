//! Plain HTTP responses. Each one closes its connection.

use std::time::SystemTime;

use serde::Serialize;

use super::fields::{is_name, is_value};
use crate::guard::record;
use crate::log_limit::LogLimit;

/// A plain HTTP response: status, headers, body.
///
/// The server itself writes the three headers that frame a response: `Content-Length`, `Connection` and
/// `Transfer-Encoding`. It ignores values that are set here, with one exception: a response to `HEAD` without a body
/// keeps its `Content-Length`, which is the length of the response to `GET`. `Date` is added unless it is set.
///
/// A response is checked before it is sent. The status must be 200 to 599, each header name a token (RFC 9110 §5.1),
/// and each value free of line ends and other control characters. A response that violates these rules is replaced by a
/// plain 500, and the log gives the reason. Responses with status 204, 205 or 304 are sent without a body.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A response as it goes over the wire.
#[derive(Debug)]
pub(crate) struct WireResponse {
    /// The status that the client gets: 500 if the response was invalid.
    pub(crate) status: u16,
    pub(crate) bytes: Vec<u8>,
}

/// Headers that the server writes.
const FRAMING: [&str; 3] = ["content-length", "connection", "transfer-encoding"];

/// Response headers that may appear once. Setting a second one replaces the first.
const SINGULAR: [&str; 17] = [
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "access-control-max-age",
    "age",
    "content-disposition",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "location",
    "retry-after",
    "server",
    "upgrade",
];

static INVALID: LogLimit = LogLimit::new();

impl Response {
    /// Creates a response without a body. `status` must be 200 to 599; another one is sent as 500.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Creates a plain-text response.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status).header("Content-Type", "text/plain; charset=utf-8").body(text.into())
    }

    /// Creates a response with an HTML page and status 200.
    pub fn html(page: impl Into<String>) -> Self {
        Self::new(200).header("Content-Type", "text/html; charset=utf-8").body(page.into())
    }

    /// Creates a JSON response. Its status is 500 if `value` cannot be serialised.
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::new(status).header("Content-Type", "application/json").body(json),
            Err(_) => Self::text(500, "internal error\n"),
        }
    }

    /// Adds a header. A header that may appear once, such as `Content-Type` or `Location`, replaces an earlier one. Any
    /// other is added to those of the same name.
    ///
    /// An invalid name or value is not repaired: the whole response becomes a 500 (see [`Response`]).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        if SINGULAR.iter().any(|singular| name.eq_ignore_ascii_case(singular)) {
            self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        }
        self.headers.push((name, value));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body.
    pub fn content(&self) -> &[u8] {
        &self.body
    }

    /// The first value of a header that has been set, in any case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Encodes the response, or a 500 if it is invalid. `is_head` means that the request's method is `HEAD`.
    pub(crate) fn encode(&self, is_head: bool) -> WireResponse {
        let fault = match self.check() {
            Ok(()) => return WireResponse { status: self.status, bytes: self.to_bytes(is_head, SystemTime::now()) },
            Err(fault) => fault,
        };
        if let Some(suppressed) = INVALID.pass() {
            record!(Error, "wshub::server", "invalid response replaced by 500: {fault} ({suppressed} more not logged)");
        }
        let replacement = Self::text(500, "internal error\n");
        WireResponse { status: 500, bytes: replacement.to_bytes(is_head, SystemTime::now()) }
    }

    /// Validates status and headers. The error does not quote values, because they may be secret.
    fn check(&self) -> Result<(), String> {
        if !(200..=599).contains(&self.status) {
            return Err(format!("status {} is not in 200 to 599", self.status));
        }
        for (name, value) in &self.headers {
            if !is_name(name) {
                return Err(format!("header name {name:?} is not a token"));
            }
            if !is_value(value) {
                return Err(format!("the value of header {name} holds a control character"));
            }
        }
        Ok(())
    }

    fn to_bytes(&self, is_head: bool, now: SystemTime) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status));
        let own = self.headers.iter().filter(|(name, _)| !FRAMING.iter().any(|f| name.eq_ignore_ascii_case(f)));
        for (name, value) in own {
            push_header(&mut head, name, value.trim_matches([' ', '\t']));
        }
        if self.get("date").is_none() {
            push_date(&mut head, now);
        }
        if let Some(length) = self.content_length(is_head) {
            push_header(&mut head, "Content-Length", &length.to_string());
        }
        // A sender of `Upgrade` must name it here (RFC 9110 §7.8).
        let connection = if self.get("upgrade").is_some() { "Upgrade, close" } else { "close" };
        push_header(&mut head, "Connection", connection);
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !is_head && self.has_body() {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// RFC 9110 §6.4.1.
    fn has_body(&self) -> bool {
        !matches!(self.status, 204 | 205 | 304)
    }

    /// RFC 9110 §8.6: none with 204; with 304 it would be the length of another response.
    fn content_length(&self, is_head: bool) -> Option<u64> {
        match self.status {
            204 | 304 => None,
            205 => Some(0),
            _ => {
                let promised = self.get("content-length").filter(|_| is_head && self.body.is_empty());
                promised.and_then(|length| length.parse().ok()).or(Some(self.body.len() as u64))
            }
        }
    }
}

pub(super) fn push_header(head: &mut String, name: &str, value: &str) {
    head.extend([name, ": ", value, "\r\n"]);
}

/// Adds `Date`, unless the clock is not set: such devices count from 1970, and a server without a clock sends no date
/// (RFC 9110 §6.6.1).
pub(super) fn push_date(head: &mut String, now: SystemTime) {
    if now >= SystemTime::UNIX_EPOCH {
        push_header(head, "Date", &httpdate::fmt_http_date(now));
    }
}

/// RFC 9110 §15 and RFC 6585; empty for codes that are not listed there or not used here.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
