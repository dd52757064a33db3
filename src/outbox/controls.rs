//! Control frames: pings, pongs and the close. On an event stream they are comments.

use crate::http;
use crate::message::WireFormat;
use crate::ws::{self, Control, close_code};

/// Waiting control frames. They are not in the queue, so a full queue neither delays nor drops them. An idle connection
/// has none, and no memory for them.
#[derive(Debug, Default)]
pub(super) struct Controls(Option<Box<Waiting>>);

#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Only the latest pong is worth sending (RFC 6455 §5.5.3).
    pub(super) pong: Option<Vec<u8>>,
    pub(super) ping: bool,
    pub(super) close: Option<Vec<u8>>,
    pub(super) close_begun: bool,
}

impl Controls {
    /// What waits, to be changed.
    pub(super) fn waiting(&mut self) -> &mut Waiting {
        self.0.get_or_insert_default()
    }

    /// Takes the waiting pong and ping.
    pub(super) fn take_urgent(&mut self, format: WireFormat) -> impl Iterator<Item = Vec<u8>> + use<> {
        let (mut answer, mut question) = (None, None);
        if let Some(waiting) = &mut self.0 {
            answer = waiting.pong.take().map(|payload| ws::encode_control(Control::Pong, &payload));
            question = std::mem::take(&mut waiting.ping).then(|| ping(format));
            if !waiting.close_begun {
                self.0 = None;
            }
        }
        answer.into_iter().chain(question)
    }

    /// Takes the close frame.
    pub(super) fn take_close(&mut self) -> Option<Vec<u8>> {
        self.0.as_mut()?.close.take()
    }
}

fn ping(format: WireFormat) -> Vec<u8> {
    match format {
        WireFormat::WebSocket | WireFormat::Deflate(_) => ws::encode_control(Control::Ping, b""),
        WireFormat::EventStream => http::encode_chunk(&http::encode_comment("")),
        WireFormat::PlainEventStream => http::encode_comment(""),
    }
}

/// Encodes the close frame, the last frame of a connection. `None` gives one without a code.
pub(super) fn close(format: WireFormat, why: Option<(u16, &str)>) -> Vec<u8> {
    let (code, reason) = why.unwrap_or_default();
    if format.is_event_stream() {
        // A server that shuts down tells event streams when to reconnect.
        let retry = (code == close_code::GOING_AWAY).then(|| http::encode_retry(http::return_time()));
        let comment = http::encode_comment(&format!("closed {code} {reason}"));
        let last = [retry.unwrap_or_default().into_bytes(), comment].concat();
        return match format {
            WireFormat::EventStream => [&http::encode_chunk(&last), http::LAST_CHUNK].concat(),
            _ => last,
        };
    }
    let payload = why.map(|_| [&code.to_be_bytes(), reason.as_bytes()].concat());
    ws::encode_control(Control::Close, &payload.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_its_own_controls() {
        let mut controls = Controls::default();
        *controls.waiting() = Waiting { pong: Some(b"x".to_vec()), ping: true, ..Waiting::default() };
        let urgent: Vec<_> = controls.take_urgent(WireFormat::WebSocket).collect();
        assert_eq!(urgent, [&b"\x8a\x01x"[..], b"\x89\x00"]);
        assert_eq!(controls.take_urgent(WireFormat::WebSocket).count(), 0);
        controls.waiting().ping = true;
        assert_eq!(controls.take_urgent(WireFormat::EventStream).collect::<Vec<_>>(), [b"3\r\n:\n\n\r\n"]);
        controls.waiting().ping = true;
        assert_eq!(controls.take_urgent(WireFormat::PlainEventStream).collect::<Vec<_>>(), [b":\n\n"]);
        assert!(controls.0.is_none(), "it needs memory only while something waits");
        controls.waiting().close_begun = true;
        assert_eq!(controls.take_urgent(WireFormat::WebSocket).count(), 0);
        assert!(controls.waiting().close_begun, "a close begins once");
    }

    #[test]
    fn a_close_says_why() {
        assert_eq!(close(WireFormat::WebSocket, None), b"\x88\x00");
        assert_eq!(close(WireFormat::WebSocket, Some((1001, "bye"))), b"\x88\x05\x03\xe9bye");
        assert_eq!(close(WireFormat::PlainEventStream, Some((1011, "bye\nx"))), b": closed 1011 bye x\n\n");
        let chunked = close(WireFormat::EventStream, Some((1011, "bye")));
        assert_eq!(chunked, b"13\r\n: closed 1011 bye\n\n\r\n0\r\n\r\n", "the last chunk is the end");
        let gone = String::from_utf8(close(WireFormat::PlainEventStream, Some((1001, "bye")))).unwrap();
        let (retry, comment) = gone.split_once('\n').unwrap();
        let pause: u64 = retry.strip_prefix("retry: ").and_then(|pause| pause.parse().ok()).unwrap();
        assert_eq!(((1000..=5000).contains(&pause), comment), (true, ": closed 1001 bye\n\n"));
    }
}
