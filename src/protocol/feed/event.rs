//! The envelope.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::rfc3339::Rfc3339;
use crate::Message;

/// The last second that RFC 3339 can express: the end of the year 9999.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// An envelope: `{"type","payload","timestamp"}`, the timestamp in RFC 3339 with nanoseconds, UTC.
///
/// ```
/// use wshub::protocol::feed::FeedEvent;
/// let event = FeedEvent::new("price", serde_json::json!({"cents": 120}));
///
/// let message = event.message()?;
/// let start = r#"{"type":"price","payload":{"cents":120},"timestamp":""#;
/// assert!(message.as_text().unwrap().starts_with(start));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeedEvent<'a, T = serde_json::Value> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    payload: T,
    #[serde(serialize_with = "rfc3339")]
    timestamp: SystemTime,
}

impl<'a, T: Serialize> FeedEvent<'a, T> {
    /// Creates an event of this type with the current time. `()` as payload is sent as `null`.
    pub fn new(kind: impl Into<Cow<'a, str>>, payload: T) -> Self {
        Self { kind: kind.into(), payload, timestamp: SystemTime::now() }
    }

    /// Sets the time of the event; default: its creation. A time before 1970 or after 9999 is sent as the nearest of
    /// these.
    pub fn at(mut self, timestamp: SystemTime) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// The type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The payload.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// The time of the event.
    pub fn timestamp(&self) -> SystemTime {
        self.timestamp
    }

    /// The wire form as a text message, for [`Hub::send`](crate::Hub::send) to rooms, users and others.
    ///
    /// # Errors
    ///
    /// An error of the payload's `Serialize` implementation.
    pub fn message(&self) -> Result<Message, serde_json::Error> {
        Message::json(self)
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let time = (*time).clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST_SECOND);
    serializer.collect_str(&Rfc3339(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(event: &FeedEvent<'_, impl Serialize>) -> String {
        event.message().expect("JSON").as_text().expect("text").to_owned()
    }

    #[test]
    fn the_wire_is_exact() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 1_020_300);
        let event = FeedEvent::new("tick", [1, 2]).at(time);
        assert_eq!(wire(&event), r#"{"type":"tick","payload":[1,2],"timestamp":"2023-11-14T22:13:20.001020300Z"}"#);
        assert!(wire(&FeedEvent::new("", ())).starts_with(r#"{"type":"","payload":null,"timestamp":"2"#));
    }

    #[test]
    fn every_time_is_a_timestamp() {
        let at = |time| wire(&FeedEvent::new("t", ()).at(time));
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert!(at(early).contains(r#""1970-01-01T00:00:00.000000000Z""#));
        assert!(at(SystemTime::UNIX_EPOCH + LAST_SECOND * 2).contains(r#""9999-12-31T23:59:59.000000000Z""#));
    }

    #[test]
    fn a_payload_that_is_no_json_is_an_error() {
        let keys_that_are_no_strings = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(FeedEvent::new("t", keys_that_are_no_strings).message().is_err());
    }
}
