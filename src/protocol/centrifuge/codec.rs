//! Converts frames to commands and replies to frames, in JSON and in protobuf. Pure: no client, no hub.

use std::fmt;

use bytes::{Buf, Bytes};
use prost::Message as _;

use super::wire::Object;
use super::wire::command::Command;
use super::wire::reply::Reply;
use crate::Message;

/// Maximum number of commands in one frame, without subscribe commands: an SDK sends all its subscriptions in one
/// frame.
pub(super) const MAX_COMMANDS: usize = 64;

/// How a client encodes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Codec {
    /// Text messages: objects, separated by line ends.
    Json,
    /// Binary messages: each object follows its length as a varint.
    Protobuf,
}

/// A peer's violation of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn violation<T>(why: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(why.into()))
}

impl Codec {
    /// Decodes all commands of a frame; at least one.
    pub(super) fn decode(self, frame: &Message) -> Result<Vec<Command>, Violation> {
        let mut commands = Commands::default();
        match (self, frame.as_text()) {
            (Self::Json, Some(text)) => {
                for command in serde_json::Deserializer::from_str(text).into_iter() {
                    let Object(command) = command.map_err(|error| Violation(format!("invalid command: {error}")))?;
                    commands.add(command)?;
                }
            }
            (Self::Json, None) => return violation("binary message in the JSON protocol"),
            (Self::Protobuf, None) => {
                let mut rest = frame.payload().clone();
                while rest.has_remaining() {
                    commands.add(next_delimited(&mut rest)?)?;
                }
            }
            (Self::Protobuf, Some(_)) => return violation("text message in the protobuf protocol"),
        }
        if commands.list.is_empty() { violation("empty frame") } else { Ok(commands.list) }
    }

    /// Encodes one frame that holds all these replies.
    pub(super) fn encode(self, replies: &[Reply]) -> Message {
        match self {
            Self::Json => {
                let mut frame = Vec::new();
                for reply in replies {
                    if !frame.is_empty() {
                        frame.push(b'\n');
                    }
                    // Neither the types nor a Vec can fail.
                    let _ = serde_json::to_writer(&mut frame, reply);
                }
                Message::text(String::from_utf8(frame).unwrap_or_default())
            }
            Self::Protobuf => {
                Message::binary(replies.iter().flat_map(Reply::encode_length_delimited_to_vec).collect::<Vec<u8>>())
            }
        }
    }

    /// The approximate size of a reply in a frame, in bytes.
    pub(super) fn size(reply: &Reply) -> usize {
        reply.encoded_len()
    }
}

/// Decodes a frame, and its commands again after a round trip through both encodings.
#[cfg(wshub_internals)]
pub(crate) fn check_frame(frame: &Message) {
    let codec = if frame.is_text() { Codec::Json } else { Codec::Protobuf };
    let commands = match codec.decode(frame) {
        Ok(commands) => commands,
        Err(violation) => return assert!(!violation.to_string().is_empty()),
    };
    let counted = commands.iter().filter(|command| command.subscribe.is_none()).count();
    assert!(!commands.is_empty() && counted <= MAX_COMMANDS);
    let bytes: Vec<u8> = commands.iter().flat_map(Command::encode_length_delimited_to_vec).collect();
    assert_eq!(Codec::Protobuf.decode(&Message::binary(bytes)), Ok(commands.clone()));
    let lines: Result<Vec<String>, _> = commands.iter().map(serde_json::to_string).collect();
    let again = Codec::Json.decode(&Message::text(lines.unwrap_or_default().join("\n")));
    // Protobuf payloads need not be JSON: they return as JSON strings.
    assert!(again.is_ok_and(|again| codec == Codec::Protobuf || again == commands));
}

fn next_delimited(rest: &mut Bytes) -> Result<Command, Violation> {
    let length =
        prost::decode_length_delimiter(&mut *rest).map_err(|error| Violation(format!("invalid length: {error}")))?;
    if length > rest.len() {
        return violation(format!("command of {length} bytes with {} bytes left in the frame", rest.len()));
    }
    Command::decode(rest.split_to(length)).map_err(|error| Violation(format!("invalid command: {error}")))
}

/// The commands of a frame so far.
#[derive(Default)]
struct Commands {
    list: Vec<Command>,
    counted: usize,
}

impl Commands {
    fn add(&mut self, command: Command) -> Result<(), Violation> {
        let requests = command.requests();
        if requests > 1 {
            return violation(format!("{requests} requests in one command"));
        }
        if command.id == 0 && requests == 1 && command.send.is_none() {
            return violation("request without an id");
        }
        self.counted += usize::from(command.subscribe.is_none());
        if self.counted > MAX_COMMANDS {
            return violation(format!("more than {MAX_COMMANDS} commands in one frame"));
        }
        self.list.push(command);
        Ok(())
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
