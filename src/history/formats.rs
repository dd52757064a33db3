//! Publication formats that belong to no particular protocol.

use serde::Serialize;
use serde_json::value::RawValue;

use super::gap::Gap;
use super::position::Position;
use super::publication::{Format, FormatRef, Publication, Sealed};
use crate::message::Message;

/// Messages and values unchanged, without positions. Gaps and removals are not shown. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

pub(crate) const PLAIN: FormatRef = FormatRef::named("plain", &Plain);

impl Sealed for Plain {}

impl Format for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn message(&self, publication: &Publication) -> Option<Message> {
        (!publication.is_removal()).then(|| publication.message().clone())
    }

    fn gap(&self, _: &Gap) -> Option<Message> {
        None
    }
}

/// JSON objects with positions: publications of the history get a last field `position`. Other texts, and values of the
/// state, stay unchanged.
///
/// A gap is `{"type":"gap","room":ROOM,"from":OFFSET,"to":OFFSET,"position":POSITION}`, a removal
/// `{"type":"removed","room":ROOM,"key":KEY}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct WithPosition;

impl Sealed for WithPosition {}

impl Format for WithPosition {
    fn name(&self) -> &'static str {
        "with position"
    }

    fn message(&self, publication: &Publication) -> Option<Message> {
        #[derive(Serialize)]
        struct Removed<'a> {
            r#type: &'static str,
            room: &'a str,
            key: &'a str,
        }
        match publication.key() {
            None => Some(with_position(publication)),
            Some(key) if publication.is_removal() => {
                json(&Removed { r#type: "removed", room: publication.room(), key })
            }
            Some(_) => Some(publication.message().clone()),
        }
    }

    fn gap(&self, gap: &Gap) -> Option<Message> {
        #[derive(Serialize)]
        struct Told<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            gap: &'a Gap,
        }
        json(&Told { r#type: "gap", gap })
    }
}

/// The message, with its position as the last field if it is a JSON object.
fn with_position(publication: &Publication) -> Message {
    let message = publication.message();
    let Some(body) = message.as_text().map(str::trim).and_then(|t| t.strip_prefix('{')?.strip_suffix('}')) else {
        return message.clone();
    };
    let comma = if body.trim().is_empty() { "" } else { "," };
    Message::text(format!("{{{body}{comma}\"position\":\"{}\"}}", publication.position()))
}

/// The format of event streams, whatever else the hub speaks.
pub(crate) const STREAM: FormatRef = FormatRef::named("stream", &Stream);

/// Messages with their position as `id:`, and the events `state` and `gap`.
#[derive(Debug)]
struct Stream;

impl Sealed for Stream {}

#[derive(Serialize)]
struct StateEvent<'a> {
    room: &'a str,
    key: &'a str,
    #[serde(flatten)]
    change: Change<'a>,
}

/// The new value of a key, or its removal.
#[derive(Serialize)]
#[serde(untagged)]
enum Change<'a> {
    Removed {
        removed: bool,
    },
    Value {
        value: &'a RawValue,
    },
    /// The value is not JSON.
    Text {
        value: &'a str,
    },
}

impl<'a> Change<'a> {
    /// `None` for a binary value.
    fn of(publication: &'a Publication) -> Option<Self> {
        if publication.is_removal() {
            return Some(Self::Removed { removed: true });
        }
        let text = publication.message().as_text()?;
        Some(match serde_json::from_str(text) {
            Ok(value) => Self::Value { value },
            Err(_) => Self::Text { value: text },
        })
    }
}

impl Format for Stream {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn message(&self, publication: &Publication) -> Option<Message> {
        let Some(key) = publication.key() else {
            return Some(publication.message().clone().with_event_id(publication.position().to_string()));
        };
        let change = Change::of(publication)?;
        Some(json(&StateEvent { room: publication.room(), key, change })?.with_event_name("state"))
    }

    fn gap(&self, gap: &Gap) -> Option<Message> {
        Some(json(gap)?.with_event_name("gap").with_event_id(gap.position().to_string()))
    }

    fn begin(&self, position: Position) -> Option<Message> {
        Some(Message::event_id_only(position.to_string()))
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Option<Message> {
    Message::json(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::position::Epoch;
    use crate::history::publication::{Publish, Subject};

    fn publication(subject: Subject, message: Message) -> Publication {
        let epoch: Epoch = "abcdefgh".parse().expect("valid");
        Publication::new(&"r".into(), Position::new(epoch, 3), subject, Publish::new(message))
    }

    fn text(message: Option<Message>) -> String {
        message.expect("shown").as_text().expect("text").to_owned()
    }

    #[test]
    fn objects_get_their_position_and_nothing_else_does() {
        let shown = |t: &str| text(WithPosition.message(&publication(Subject::Message, Message::text(t))));
        assert_eq!(shown(r#"{"a":1}"#), r#"{"a":1,"position":"abcdefgh.3"}"#);
        assert_eq!(shown(" { } "), r#"{ "position":"abcdefgh.3"}"#);
        assert_eq!(shown("{}"), r#"{"position":"abcdefgh.3"}"#);
        for other in ["", "[1]", "plain", "{", "}", "\"{}\"x"] {
            assert_eq!(shown(other), other);
        }
        let binary = publication(Subject::Message, Message::binary(b"{}".to_vec()));
        assert_eq!(WithPosition.message(&binary), Some(Message::binary(b"{}".to_vec())));
    }

    #[test]
    fn each_format_tells_of_values_and_removals_in_its_way() {
        let value = publication(Subject::Value("k".into()), Message::text("[1, 2]"));
        let word = publication(Subject::Value("".into()), Message::text("a\nb"));
        let removal = publication(Subject::Removal("k".into()), Message::text(""));
        let binary = publication(Subject::Value("k".into()), Message::binary(vec![1]));
        assert_eq!(text(Plain.message(&value)), "[1, 2]");
        assert_eq!(Plain.message(&removal), None);
        assert_eq!(text(WithPosition.message(&removal)), r#"{"type":"removed","room":"r","key":"k"}"#);
        assert_eq!(text(Stream.message(&value)), r#"{"room":"r","key":"k","value":[1, 2]}"#);
        assert_eq!(text(Stream.message(&word)), r#"{"room":"r","key":"","value":"a\nb"}"#);
        assert_eq!(text(Stream.message(&removal)), r#"{"room":"r","key":"k","removed":true}"#);
        assert_eq!(Stream.message(&binary), None);
    }

    #[test]
    fn gaps_say_what_is_missing_and_where_to_go_on() {
        let epoch: Epoch = "abcdefgh".parse().expect("valid");
        let gap = Gap::new("r".into(), epoch, Some(2), 5);
        assert_eq!(Plain.gap(&gap), None);
        let told = r#"{"type":"gap","room":"r","from":2,"to":5,"position":"abcdefgh.5"}"#;
        assert_eq!(text(WithPosition.gap(&gap)), told);
        let unknown = Gap::new("r".into(), epoch, None, 0);
        let event = Stream.gap(&unknown);
        assert_eq!(text(event), r#"{"room":"r","from":null,"to":0,"position":"abcdefgh.0"}"#);
    }
}
