//! What the chat says over the wire (JSON in text messages), and its rules for names and texts.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use wshub::history::Position;
use wshub::{Client, ClientId, HandlerError};

/// From the page. `{"type":"join","room":"lobby"}` is answered by `joined`, `leave` by `left`. Who comes back joins with
/// `since`, the last `position` that it has seen of the room.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Request {
    Join { room: String, since: Option<String> },
    Leave { room: String },
    Message { room: String, text: String },
}

impl Request {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Message { .. } => "message",
        }
    }
}

/// To the page: `welcome` first; `rooms` whenever they change; `arrived` and `departed` to the other members of a room;
/// `message` to all of them, its author too; `error` instead of what a request asked for. What is said in a room bears its
/// `position`, see `wshub::history::WithPosition`. `history` holds what came behind `since`, if `recovery` is `complete`, else
/// all that is remembered.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    Welcome(Person),
    Rooms {
        rooms: Vec<Room>,
    },
    Joined {
        room: &'a str,
        members: Vec<Person>,
        history: Vec<&'a Line>,
        position: Option<Position>,
        recovery: &'static str,
    },
    Left {
        room: &'a str,
    },
    Arrived {
        room: &'a str,
        member: Person,
    },
    Departed {
        room: &'a str,
        member: Person,
    },
    Message {
        room: &'a str,
        from: &'a Person,
        text: &'a str,
        at: u64,
    },
    Error {
        code: &'a str,
        message: String,
    },
}

#[derive(Serialize)]
pub(crate) struct Room {
    name: String,
    members: usize,
}

impl From<(Arc<str>, usize)> for Room {
    fn from((name, members): (Arc<str>, usize)) -> Self {
        Self { name: name.to_string(), members }
    }
}

#[derive(Serialize)]
pub(crate) struct Person {
    id: ClientId,
    name: String,
}

impl Person {
    /// Bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.name.len()
    }

    pub(crate) fn of(client: &Client) -> Self {
        Self { id: client.id(), name: client.metadata::<String>("name").as_deref().cloned().unwrap_or_default() }
    }
}

/// What somebody has said; `at` is in milliseconds since 1970.
#[derive(Serialize)]
pub(crate) struct Line {
    #[serde(flatten)]
    pub(crate) from: Person,
    pub(crate) text: String,
    pub(crate) at: u64,
}

impl Line {
    pub(crate) fn now(from: Person, text: String) -> Result<Self, Refusal> {
        if text.trim().is_empty() || text.chars().count() > 2000 {
            return Err(Refusal("text", "a message has 1 to 2,000 characters".into()));
        }
        let at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        Ok(Self { from, text, at: u64::try_from(at).unwrap_or(u64::MAX) })
    }
}

/// A request that is not granted: a code for programs, and why.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) &'static str, pub(crate) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for Refusal {}

impl From<&HandlerError> for Event<'_> {
    fn from(error: &HandlerError) -> Self {
        let code = error.source().downcast_ref::<Refusal>().map_or("internal", |refusal| refusal.0);
        Self::Error { code, message: error.to_string() }
    }
}

/// Without control characters, and without blanks around it.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ").trim().to_owned()
}

/// The name that a visitor gets, and whether it is the one that was asked for.
pub(crate) fn nickname(wish: &str) -> (String, bool) {
    let wish = one_line(wish);
    let name: String = wish.chars().take(32).collect();
    let is_granted = !name.is_empty() && name == wish;
    (if name.is_empty() { "guest".to_owned() } else { name }, is_granted)
}

pub(crate) fn room_name(text: &str) -> Result<String, Refusal> {
    let name = one_line(text);
    let is_good = (1..=64).contains(&name.chars().count());
    if is_good { Ok(name) } else { Err(Refusal("room", "a room's name has 1 to 64 characters".into())) }
}
