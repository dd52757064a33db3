//! From the bytes of a connection to its messages: no I/O. What is whole is read where it stands, without copying.

use super::frame::{BINARY, CLOSE, Header, PING, PONG, TEXT};

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A text or binary message.
    Message(&'a [u8]),
    Ping(&'a [u8]),
    /// The peer closes, with this code; 1005 when it gave none.
    Close(u16),
}

/// What a connection has received of a frame or message that is not whole yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    part: Vec<u8>,
    fragments: Option<Vec<u8>>,
}

impl Inbox {
    /// Takes what was read, and gives what has become whole to `on`.
    ///
    /// # Errors
    ///
    /// What the server must not send.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Item<'_>)) -> Result<(), &'static str> {
        if self.part.is_empty() {
            let used = self.read(bytes, &mut on)?;
            self.part.extend(&bytes[used..]);
            return Ok(());
        }
        let mut part = std::mem::take(&mut self.part);
        part.extend(bytes);
        let used = self.read(&part, &mut on)?;
        part.drain(..used);
        if part.is_empty() {
            // Its capacity is that of the largest message: with thousands of connections that would be kept for
            // nothing.
            part = Vec::new();
        }
        self.part = part;
        Ok(())
    }

    /// How many bytes the frames take that are whole.
    fn read(&mut self, bytes: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<usize, &'static str> {
        let mut used = 0;
        while let Some(header) = Header::parse(&bytes[used..])? {
            let start = used + header.head;
            let Some(payload) = bytes.get(start..start + header.len) else { break };
            self.frame(&header, payload, on)?;
            used = start + header.len;
        }
        Ok(used)
    }

    fn frame(&mut self, header: &Header, payload: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<(), &'static str> {
        match (header.opcode, self.fragments.take()) {
            (TEXT | BINARY, None) if header.is_last => on(Item::Message(payload)),
            (TEXT | BINARY, None) => self.fragments = Some(payload.to_vec()),
            (0, Some(mut fragments)) => {
                fragments.extend(payload);
                if header.is_last {
                    on(Item::Message(&fragments));
                } else {
                    self.fragments = Some(fragments);
                }
            }
            (PING | PONG | CLOSE, fragments) => {
                self.fragments = fragments;
                match header.opcode {
                    PING => on(Item::Ping(payload)),
                    CLOSE => on(Item::Close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))),
                    _ => {}
                }
            }
            _ => return Err("a frame that does not belong there"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(inbox: &mut Inbox, bytes: &[u8]) -> Result<Vec<String>, &'static str> {
        let mut items = Vec::new();
        inbox.feed(bytes, |item| {
            items.push(match item {
                Item::Message(payload) => String::from_utf8_lossy(payload).into_owned(),
                Item::Ping(payload) => format!("ping {}", payload.len()),
                Item::Close(code) => format!("close {code}"),
            });
        })?;
        Ok(items)
    }

    #[test]
    fn messages_come_out_the_same_however_the_bytes_are_cut() {
        let bytes = b"\x81\x03one\x01\x02tw\x89\x01p\x80\x01o\x82\x05three\x8a\x00\x88\x02\x03\xe8";
        let expected = ["one", "ping 1", "two", "three", "close 1000"];
        for size in 1..=bytes.len() {
            let mut inbox = Inbox::default();
            let found: Vec<_> = bytes.chunks(size).flat_map(|part| items(&mut inbox, part).unwrap()).collect();
            assert_eq!(found, expected, "in pieces of {size}");
            assert!(inbox.part.is_empty() && inbox.fragments.is_none());
        }
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        for bytes in [&b"\x80\x00"[..], b"\x01\x00\x81\x00", b"\x83\x00", b"\x81\x80\0\0\0\0"] {
            assert!(items(&mut Inbox::default(), bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(items(&mut Inbox::default(), b"\x88\x00"), Ok(vec!["close 1005".into()]));
    }
}
