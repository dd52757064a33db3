//! A reader of Server-Sent Events that keeps to the standard's algorithm, and shows the comments too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

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
    reader: BufReader<Body>,
}

/// What follows the head, out of its chunks if it is in chunks.
struct Body {
    source: BufReader<TcpStream>,
    is_chunked: bool,
    /// Bytes of the current chunk that are still to come.
    left: usize,
    /// The last chunk has come.
    is_whole: bool,
}

impl Body {
    /// A line of the chunked coding, without its end; `None` where the connection ends.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let n = self.source.read_line(&mut line)?;
        Ok((n > 0).then(|| line.strip_suffix("\r\n").expect("a whole line").to_owned()))
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.is_chunked {
            return self.source.read(buffer);
        }
        if self.left == 0 && !self.is_whole {
            let Some(size) = self.line()? else { return Ok(0) };
            self.left = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("a chunk's size: {size:?}"));
            self.is_whole = self.left == 0;
            if self.is_whole {
                assert_eq!(self.line()?.as_deref(), Some(""), "no trailers");
            }
        }
        if self.is_whole {
            return Ok(0);
        }
        let most = self.left.min(buffer.len());
        let n = self.source.read(&mut buffer[..most])?;
        self.left -= n;
        if self.left == 0 && n > 0 {
            assert_eq!(self.line()?.as_deref(), Some(""), "behind a chunk");
        }
        Ok(n)
    }
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
        let (mut source, mut head) = (BufReader::new(stream), String::new());
        while !head.ends_with("\r\n\r\n") {
            assert!(source.read_line(&mut head).unwrap() > 0, "closed: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let is_chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked\r\n");
        Self { head, reader: BufReader::new(Body { source, is_chunked, left: 0, is_whole: false }) }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref().source.get_ref()
    }

    /// Whether the last chunk has come.
    pub(crate) fn is_whole(&self) -> bool {
        self.reader.get_ref().is_whole
    }

    /// The next event or comment; `None` at the end.
    pub(crate) fn next_item(&mut self) -> Option<Item> {
        let mut event = SseEvent::default();
        let mut data: Vec<String> = Vec::new();
        let mut has_field = false;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                // As every client does; the server waits for it.
                let _ = self.stream().shutdown(Shutdown::Write);
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

    /// Reads the last comment, heartbeats aside, and the end, which is an orderly one.
    pub(crate) fn expect_close(&mut self) -> String {
        let mut last = String::new();
        while let Some(item) = self.next_item() {
            match item {
                Item::Comment(text) => last = text,
                Item::Event(event) => panic!("{event:?}"),
            }
        }
        assert!(!self.reader.get_ref().is_chunked || self.is_whole(), "cut off after {last:?}");
        last
    }
}
