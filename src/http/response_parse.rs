//! Parses responses of other servers, for forwarding them. No I/O.

use super::chunked::ChunkedDecoder;
use super::response::Response;

/// Maximum number of headers in a response.
const MAX_HEADERS: usize = 128;
/// Headers that belong to the connection on which the response arrived.
const HOP_BY_HOP: [&str; 6] = ["connection", "keep-alive", "transfer-encoding", "trailer", "upgrade", "content-length"];

impl Response {
    /// Parses the final response in `bytes`. Returns `None` if more bytes are needed. `is_end` means that no more bytes
    /// follow, `is_head` that the request's method was `HEAD`. The error is a reason for the log.
    pub(crate) fn parse(bytes: &[u8], is_head: bool, is_end: bool) -> Result<Option<Self>, &'static str> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("malformed response head"),
        };
        let status = parsed.code.unwrap_or_default();
        if (100..200).contains(&status) {
            // `100 Continue` and other 1xx responses precede the final one.
            return if status == 101 {
                Err("unexpected upgrade")
            } else {
                Self::parse(&bytes[length..], is_head, is_end)
            };
        }
        let value = |name: &str| parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
        let promised = value("content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok());
        let rest = &bytes[length..];
        let body = if is_head || matches!(status, 204 | 304) {
            Some(Vec::new())
        } else if value("transfer-encoding").is_some() {
            // Decodes only where the body may end, because each attempt costs its whole length.
            if !is_end && !rest.ends_with(b"\r\n\r\n") {
                return Ok(None);
            }
            let mut decoder = ChunkedDecoder::new(usize::MAX);
            let is_whole = decoder.push(rest).map_err(|_| "malformed chunked response")?;
            is_whole.then(|| decoder.into_body())
        } else if let Some(promised) = promised {
            rest.get(..promised).map(<[u8]>::to_vec)
        } else {
            is_end.then(|| rest.to_vec())
        };
        let Some(body) = body else { return Ok(None) };
        let kept = parsed.headers.iter().filter(|h| !HOP_BY_HOP.iter().any(|hop| h.name.eq_ignore_ascii_case(hop)));
        let mut response = kept.fold(Self::new(status), |response, header| {
            response.header(header.name, String::from_utf8_lossy(header.value))
        });
        if let Some(promised) = promised.filter(|_| is_head) {
            response = response.header("Content-Length", promised.to_string());
        }
        Ok(Some(response.body(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, is_head: bool, is_end: bool) -> Result<Option<(u16, String)>, &'static str> {
        let parsed = Response::parse(text.as_bytes(), is_head, is_end)?;
        Ok(parsed.map(|response| (response.status(), String::from_utf8_lossy(response.content()).into_owned())))
    }

    #[test]
    fn answers_in_every_framing() {
        let whole = |status, body: &str| Ok(Some((status, body.to_owned())));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", false, false), whole(200, "ab"));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false, false), Ok(None));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false, true), Ok(None), "cut short");
        let chunked = "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert_eq!(parse(chunked, false, false), whole(404, "ab"));
        assert_eq!(parse(&chunked[..chunked.len() - 1], false, true), Ok(None));
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\nab", false, false), Ok(None));
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\nab", false, true), whole(200, "ab"));
        assert_eq!(parse("HTTP/1.1 204 No Content\r\n\r\n", false, false), whole(204, ""));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, false), whole(200, ""));
        let continued = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse(continued, false, false), whole(200, ""));
        for n in 0..17 {
            assert_eq!(parse(&"HTTP/1.1 200 OK\r\n\r\n"[..n], false, false), Ok(None), "{n}");
        }
        for bad in ["GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "nonsense"] {
            assert!(parse(bad, false, true).is_err(), "{bad}");
        }
    }
}
