//! The envelope.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// One message, in either direction.
///
/// ```
/// use wshub::protocol::relay::RelayMessage;
/// let message = RelayMessage::new("state").device("lock").payload(&[1, 2])?;
/// assert_eq!(message.to_json(), r#"{"type":"state","deviceId":"lock","payload":[1,2]}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RelayMessage {
    /// The type of the message.
    #[serde(rename = "type")]
    pub kind: String,
    /// The device that the message concerns; omitted on the wire if empty.
    #[serde(default, rename = "deviceId", skip_serializing_if = "is_absent")]
    pub device_id: Option<String>,
    /// The user that the message concerns; omitted on the wire if empty.
    #[serde(default, rename = "userId", skip_serializing_if = "is_absent")]
    pub user_id: Option<String>,
    /// Any JSON, unchanged. `null` is a payload; a missing payload is `None`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
}

impl RelayMessage {
    /// Creates a message with only a type.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), device_id: None, user_id: None, payload: None }
    }

    /// Sets the device that the message concerns.
    #[must_use]
    pub fn device(mut self, id: impl Into<String>) -> Self {
        self.device_id = Some(id.into());
        self
    }

    /// Sets the user that the message concerns.
    #[must_use]
    pub fn user(mut self, id: impl Into<String>) -> Self {
        self.user_id = Some(id.into());
        self
    }

    /// Sets the payload.
    ///
    /// # Errors
    ///
    /// An error of the value's `Serialize` implementation.
    pub fn payload<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self, serde_json::Error> {
        self.payload = Some(serde_json::value::to_raw_value(value)?);
        Ok(self)
    }

    /// Parses a message.
    ///
    /// # Errors
    ///
    /// Not JSON, not an object, no `type`, a duplicate field, or a field of the wrong type.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The wire form of the message.
    pub fn to_json(&self) -> String {
        // Strings and raw JSON always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<&RelayMessage> for crate::Message {
    fn from(message: &RelayMessage) -> Self {
        Self::raw_json(message.to_json())
    }
}

impl From<RelayMessage> for crate::Message {
    fn from(message: RelayMessage) -> Self {
        Self::from(&message)
    }
}

#[allow(clippy::ref_option, reason = "serde passes the field")]
fn is_absent(id: &Option<String>) -> bool {
    id.as_deref().unwrap_or_default().is_empty()
}

/// Keeps a payload of `null`, which an `Option` would read as absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_goes_on_byte_for_byte() {
        for json in [
            r#"{"type":"t"}"#,
            r#"{"type":"t","deviceId":"d","userId":"u","payload":{"b": 1.50,  "a":[1e400, "\u00e9"]}}"#,
            r#"{"type":"","payload":null}"#,
            r#"{"type":"t","userId":"u","payload":"<&>"}"#,
        ] {
            assert_eq!(RelayMessage::from_json(json).expect("a message").to_json(), json);
        }
    }

    #[test]
    fn empty_ids_are_left_out_and_unknown_fields_ignored() {
        let message = RelayMessage::from_json(r#"{"x":1,"userId":null,"deviceId":"","type":"t"}"#).expect("a message");
        assert_eq!(message.to_json(), r#"{"type":"t"}"#);
    }

    #[test]
    fn what_is_no_message() {
        for json in [
            "",
            "nonsense",
            "[]",
            "1",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":null}"#,
            r#"{"type":"t","deviceId":1}"#,
            r#"{"type":"t","userId":[]}"#,
            r#"{"type":"t","payload":}"#,
            r#"{"type":"t","type":"t"}"#,
            r#"{"type":"t"} x"#,
            r#"{"type":"t""#,
        ] {
            assert!(RelayMessage::from_json(json).is_err(), "{json}");
        }
    }
}
