//! Plain HTTP answers. Every one closes its connection.

use serde::Serialize;

/// An answer of a plain HTTP route: status, headers, body.
///
/// `Content-Length` and `Connection: close` are added when it is written.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// An answer in plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status).header("Content-Type", "text/plain; charset=utf-8").body(text.into())
    }

    /// A page, status 200.
    pub fn html(page: impl Into<String>) -> Self {
        Self::new(200).header("Content-Type", "text/html; charset=utf-8").body(page.into())
    }

    /// An answer in JSON; status 500 if `value` cannot be serialised.
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::new(status).header("Content-Type", "application/json").body(json),
            Err(_) => Self::text(500, "internal error\n"),
        }
    }

    /// Adds a header. Line ends and NUL in the name or value become spaces: a header cannot smuggle another.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let clean = |text: String| text.replace(['\r', '\n', '\0'], " ");
        self.headers.push((clean(name.into()), clean(value.into())));
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

    /// The answer as it goes over the wire; without the body for `HEAD`.
    pub(crate) fn encode(&self, with_body: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status));
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend(["Content-Length: ", &self.body.len().to_string(), "\r\nConnection: close\r\n\r\n"]);
        let mut bytes = head.into_bytes();
        if with_body {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// The answer when there is no thread or no place for a connection.
pub(crate) fn overloaded() -> Response {
    Response::text(503, "overloaded\n").header("Retry-After", "1")
}

/// RFC 9110 §15 and RFC 6585; empty for codes that are not listed there or not used here.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
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
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_with_length_and_close() {
        let wire = Response::text(404, "no\n").header("X", "a\r\nInjected: b").encode(true);
        assert_eq!(
            String::from_utf8_lossy(&wire),
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nX: a  Injected: b\r\n\
             Content-Length: 3\r\nConnection: close\r\n\r\nno\n"
        );
        assert!(Response::json(200, &[1, 2]).encode(true).ends_with(b"[1,2]"));
        assert!(Response::html("<p>").encode(false).ends_with(b"\r\n\r\n"));
    }
}
