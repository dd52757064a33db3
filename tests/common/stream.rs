//! A reader of Server-Sent Events that keeps to the standard's algorithm, and shows the comments too.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// One thing that a stream has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Comment(String),
    Event(SseEvent),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SseEvent {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<String>,
    pub(crate) data: String,
}

/// A client on an event stream. Every read has a deadline.
pub(crate) struct SseClient {
    pub(crate) head: String,
    reader: BufReader<TcpStream>,
}

impl SseClient {
    /// Connects and expects the 200. `headers` are further header lines, each with its CR LF.
    pub(crate) fn connect(addr: SocketAddr, target: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n{headers}\r\n").unwrap();
        Self::on(stream)
    }

    /// A client on a stream on which the request has been sent.
    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { head: String::new(), reader: BufReader::new(stream) };
        while !client.head.ends_with("\r\n\r\n") {
            assert!(client.reader.read_line(&mut client.head).unwrap() > 0, "closed: {}", client.head);
        }
        assert!(client.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", client.head);
        client
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// The next event or comment; `None` at the end.
    pub(crate) fn next_item(&mut self) -> Option<Item> {
        let mut event = SseEvent::default();
        let mut data: Vec<String> = Vec::new();
        let mut has_field = false;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                assert!(!has_field, "the stream ends within an event");
                return None;
            }
            let line = line.strip_suffix('\n').expect("the stream ends within a line");
            assert!(!line.contains('\r'), "{line:?}");
            if line.is_empty() {
                if has_field {
                    event.data = data.join("\n");
                    return Some(Item::Event(event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => return Some(Item::Comment(value)),
                "event" => event.name = Some(value),
                "id" => event.id = Some(value),
                "retry" => event.retry = Some(value),
                "data" => data.push(value),
                other => panic!("unknown field {other:?}"),
            }
            has_field = true;
        }
    }

    /// The next event, heartbeats aside.
    pub(crate) fn event(&mut self) -> SseEvent {
        loop {
            match self.next_item().expect("the stream has ended") {
                Item::Event(event) => return event,
                Item::Comment(text) => assert!(text.is_empty(), "{text}"),
            }
        }
    }

    /// The data of the next event.
    pub(crate) fn data(&mut self) -> String {
        self.event().data
    }

    /// Reads the last comment, heartbeats aside, and the end.
    pub(crate) fn expect_close(&mut self) -> String {
        let mut last = String::new();
        while let Some(item) = self.next_item() {
            match item {
                Item::Comment(text) => last = text,
                Item::Event(event) => panic!("{event:?}"),
            }
        }
        last
    }
}
