//! Server-Sent Events: the head of the stream, events, comments. No I/O.
//!
//! The format is the WHATWG HTML standard's, section "Server-sent events".

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use super::chunked::encode_chunk;
use super::head::RequestHead;
use super::response::push_date;

/// The fields of an event besides its data. Each is one line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct EventFields {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<Duration>,
    /// The event has these fields and no data. A browser stores the id and dispatches no event.
    pub(crate) is_bare: bool,
}

/// The id of the last event that the client has received: the header `Last-Event-ID`, or else the query parameter
/// `lastEventId`, with which a page continues where another connection ended.
pub(crate) fn last_event_id(head: &RequestHead) -> Option<Cow<'_, str>> {
    let id = head.header("last-event-id").map(Cow::Borrowed).filter(|id| !id.is_empty());
    id.or_else(|| head.query_param("lastEventId").filter(|id| !id.is_empty()).map(Cow::Owned))
}

/// The response that opens a stream. `cors` are header lines for pages of other origins.
///
/// HTTP/1.1 clients get chunks, so that each event reaches a client that reads in blocks, and the end is
/// distinguishable from a cut. For HTTP/1.0 the stream ends with the connection.
pub(crate) fn event_stream_head(is_chunked: bool, cors: &[(&str, String)], now: SystemTime) -> Vec<u8> {
    // `no-transform`, because a proxy that compresses would hold events back.
    let mut head = String::from(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
         X-Accel-Buffering: no\r\n",
    );
    push_date(&mut head, now);
    head.push_str(if is_chunked { "Transfer-Encoding: chunked\r\n" } else { "" });
    head.push_str("Connection: close\r\n");
    for (name, value) in cors {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Encodes one event as one chunk. Also returns the event's range within the chunk.
pub(crate) fn encode_event_chunk(text: &str, fields: Option<&EventFields>) -> (Vec<u8>, std::ops::Range<usize>) {
    let event = encode_event(text, fields);
    let chunk = encode_chunk(&event);
    let end = chunk.len() - 2;
    (chunk, end - event.len()..end)
}

/// Encodes one event. Each line of the text becomes a `data` line. CR LF, CR and LF all end a line and arrive as LF.
fn encode_event(text: &str, fields: Option<&EventFields>) -> Vec<u8> {
    let mut event = Vec::with_capacity(text.len() + 32);
    if let Some(fields) = fields {
        let retry = fields.retry.map(|pause| pause.as_millis().to_string());
        push_field(&mut event, "event", fields.name.as_deref());
        push_field(&mut event, "id", fields.id.as_deref());
        push_field(&mut event, "retry", retry.as_deref());
    }
    if !fields.is_some_and(|fields| fields.is_bare) {
        lines(text).for_each(|line| push_field(&mut event, "data", Some(line)));
    }
    event.push(b'\n');
    event
}

/// Encodes a comment, which clients ignore. Line ends become spaces.
pub(crate) fn encode_comment(text: &str) -> Vec<u8> {
    let text = text.replace(['\r', '\n'], " ");
    if text.is_empty() { b":\n\n".to_vec() } else { format!(": {text}\n\n").into_bytes() }
}

fn push_field(event: &mut Vec<u8>, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    [name, ": ", value, "\n"].iter().for_each(|part| event.extend_from_slice(part.as_bytes()));
}

/// Splits a text into lines; at least one.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let length = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + length..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> String {
        String::from_utf8(encode_event(text, None)).expect("UTF-8")
    }

    #[test]
    fn every_line_is_a_data_line() {
        assert_eq!(event("one"), "data: one\n\n");
        assert_eq!(event(""), "data: \n\n");
        assert_eq!(event("a\nb\r\nc\rd"), "data: a\ndata: b\ndata: c\ndata: d\n\n");
        assert_eq!(event("a\n\n"), "data: a\ndata: \ndata: \n\n");
        assert_eq!(event("\n\r"), "data: \ndata: \ndata: \n\n");
        assert_eq!(event(" ü:"), "data:  ü:\n\n");
    }

    #[test]
    fn fields_come_before_the_data() {
        let fields = EventFields {
            name: Some("price".into()),
            id: Some("7".into()),
            retry: Some(Duration::from_millis(1500)),
            is_bare: false,
        };
        let wire = encode_event("x", Some(&fields));
        assert_eq!(wire, b"event: price\nid: 7\nretry: 1500\ndata: x\n\n");
        let bare = EventFields { id: Some("7".into()), is_bare: true, ..EventFields::default() };
        assert_eq!(encode_event("", Some(&bare)), b"id: 7\n\n");
        assert_eq!(encode_event("x", Some(&EventFields::default())), b"data: x\n\n");
    }

    #[test]
    fn comments_are_one_line() {
        assert_eq!(encode_comment(""), b":\n\n");
        assert_eq!(encode_comment("a\r\ndata: b"), b": a  data: b\n\n");
    }

    #[test]
    fn an_event_is_found_in_its_chunk() {
        let (chunk, range) = encode_event_chunk("a\nb", None);
        assert_eq!(chunk, b"11\r\ndata: a\ndata: b\n\n\r\n");
        assert_eq!(chunk[range], encode_event("a\nb", None));
    }

    #[test]
    fn only_http_1_1_clients_get_chunks() {
        let now = SystemTime::UNIX_EPOCH;
        let head = |is_chunked| String::from_utf8(event_stream_head(is_chunked, &[], now)).expect("UTF-8");
        assert_eq!(
            head(true),
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
             X-Accel-Buffering: no\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n"
        );
        assert!(!head(false).contains("chunked"));
        let cors = event_stream_head(true, &[("Vary", "Origin".into())], now);
        assert!(cors.ends_with(b"\r\nVary: Origin\r\n\r\n"));
    }
}
