//! Answers scrapes.

use crate::http::Response;
use crate::server::Request;

/// Answers GET (and with it HEAD) with the text from `render`, in the text exposition format; other methods get 405.
pub(super) fn answer(request: &Request, render: impl FnOnce() -> Result<String, String>) -> Response {
    if !matches!(request.head().method(), "GET" | "HEAD") {
        return Response::text(405, "method not allowed\n").header("Allow", "GET, HEAD");
    }
    match render() {
        Ok(text) => Response::new(200)
            .header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            .header("Cache-Control", "no-store")
            .body(text),
        Err(error) => Response::text(500, format!("{error}\n")),
    }
}
