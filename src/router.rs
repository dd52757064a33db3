//! Routes messages to handlers by event name.
//!
//! ```
//! use wshub::Hub;
//! use wshub::router::Router;
//!
//! #[derive(serde::Deserialize)]
//! struct Say {
//!     text: String,
//! }
//!
//! let router = Router::json_field("type")
//!     .on("ping", |client, _| Ok(client.send("pong")?))
//!     .on_json("say", |client, say: Say| Ok(client.send(say.text)?))
//!     .on_not_found(|client, _| Ok(client.send("unknown event")?));
//! let hub = Hub::builder().on_message(router.into_handler()).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

pub use crate::error::InvalidMessage;

use crate::error::HandlerResult;
use crate::hub::{CallHandlers, CallRefusal, Client, HubBuilder, JsonCalls};
use crate::message::Message;
use crate::trace;

type Handler = Box<dyn Fn(&Client, &Message) -> HandlerResult + Send + Sync>;
type Extractor = Box<dyn for<'m> Fn(&'m Message) -> Option<Cow<'m, str>> + Send + Sync>;

/// Passes each message to the handler of its event.
///
/// An extractor determines a message's event, so any format works.
#[must_use = "a router does nothing until messages are given to it"]
pub struct Router {
    extractor: Extractor,
    handlers: HashMap<String, Handler>,
    /// Present if the router handles calls or answers to calls.
    calls: Option<CallHandlers>,
    not_found: Option<Handler>,
}

impl Router {
    /// Routes by the event name that the extractor returns; `None` means a message without an event. The extractor runs
    /// once for each message, on the connection's thread, and can borrow from the message.
    ///
    /// ```
    /// use wshub::router::Router;
    /// // `join lobby`: the first word
    /// let router = Router::new(|message| message.as_text()?.split(' ').next().map(Into::into));
    /// ```
    pub fn new(extractor: impl Fn(&Message) -> Option<Cow<'_, str>> + Send + Sync + 'static) -> Self {
        Self { extractor: Box::new(extractor), handlers: HashMap::new(), calls: None, not_found: None }
    }

    /// Routes by a field of the JSON object in each message; see [`json_field`].
    pub fn json_field(key: impl Into<String>) -> Self {
        let key = key.into();
        Self::new(move |message| json_field(message, &key))
    }

    /// Sets the handler of an event, replacing an earlier one.
    pub fn on(
        mut self,
        event: impl Into<String>,
        handler: impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static,
    ) -> Self {
        self.handlers.insert(event.into(), Box::new(handler));
        self
    }

    /// Sets the handler of an event, which gets the whole message parsed as JSON. A message that does not parse as `T`
    /// does not reach the handler; the error is [`InvalidMessage::Payload`].
    ///
    /// `serde_json` parses the message: unknown fields are ignored, a repeated field of a struct is an error, and a map
    /// keeps the last of equal keys. To refuse unknown fields, use `#[serde(deny_unknown_fields)]`.
    pub fn on_json<T: DeserializeOwned>(
        self,
        event: impl Into<String>,
        handler: impl Fn(&Client, T) -> HandlerResult + Send + Sync + 'static,
    ) -> Self {
        self.on(event, move |client, message| {
            let value = message.parse_json().map_err(InvalidMessage::Payload)?;
            handler(client, value)
        })
    }

    /// Sets the handler for messages without an event or with an event that has no handler. Default: none, and such a
    /// message is an [`InvalidMessage`] error.
    pub fn on_not_found(
        mut self,
        handler: impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static,
    ) -> Self {
        self.not_found = Some(Box::new(handler));
        self
    }

    /// Sets the handler of a method that clients call, in the format of [`JsonCalls`]. It gets the call's data; its
    /// return value is sent back as a reply or an error.
    ///
    /// ```
    /// use wshub::{Hub, Message, calls::CallRefusal, router::Router};
    /// let router = Router::json_field("type").on_call("double", |_, data| {
    ///     let number: i64 = data.parse_json().map_err(|e| CallRefusal::new("bad_request", e.to_string()))?;
    ///     Ok(Message::text((number * 2).to_string()))
    /// });
    /// let hub = router.install(Hub::builder()).build()?;
    /// # Ok::<(), wshub::ConfigError>(())
    /// ```
    pub fn on_call(
        mut self,
        method: impl Into<String>,
        handler: impl Fn(&Client, &Message) -> Result<Message, CallRefusal> + Send + Sync + 'static,
    ) -> Self {
        self.calls.get_or_insert_default().insert(method, handler);
        self
    }

    /// Installs the router on a hub as the `on_message` handler, with [`JsonCalls`] as the call format so that
    /// [`Client::call`] also works.
    pub fn install(mut self, builder: HubBuilder) -> HubBuilder {
        self.calls.get_or_insert_default();
        builder.call_format(JsonCalls).on_message(self.into_handler())
    }

    /// Passes one message to its handler, on the calling thread. A handler for an event name that calls use (`call`,
    /// `reply`, `error`) takes precedence over calls.
    ///
    /// # Errors
    ///
    /// The handler's error, or [`InvalidMessage`] if no handler matches.
    pub fn handle(&self, client: &Client, message: &Message) -> HandlerResult {
        let event = (self.extractor)(message);
        if let Some(event) = &event {
            trace::name_event(event);
        }
        let found = event.as_ref().and_then(|event| self.handlers.get(&**event));
        let calls = self.calls.as_ref().filter(|_| found.is_none());
        if let Some(result) = calls.and_then(|calls| calls.handle(client, message)) {
            return result;
        }
        match (found.or(self.not_found.as_ref()), event) {
            (Some(handler), _) => handler(client, message),
            (None, Some(event)) => Err(InvalidMessage::UnknownEvent(event.into_owned()).into()),
            (None, None) => Err(InvalidMessage::NoEvent.into()),
        }
    }

    /// Converts the router into a handler for [`HubBuilder::on_message`](crate::HubBuilder::on_message) or a
    /// [`Chain`](crate::middleware::Chain).
    pub fn into_handler(self) -> impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static {
        move |client: &Client, message: &Message| self.handle(client, message)
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("events", &self.handlers.keys()).finish_non_exhaustive()
    }
}

/// Returns the string under `key` in the JSON object of a text message. Returns `None` for a binary message, for text
/// that is not a JSON object, and if the key is missing, repeated or not a string. Nested objects are not searched.
///
/// ```
/// use wshub::{Message, router::json_field};
/// let message = Message::text(r#"{"data": {"type": "inner"}, "type": "say"}"#);
/// assert_eq!(json_field(&message, "type").as_deref(), Some("say"));
/// ```
pub fn json_field<'m>(message: &'m Message, key: &str) -> Option<Cow<'m, str>> {
    let mut json = serde_json::Deserializer::from_str(message.as_text()?);
    let value = json.deserialize_map(Field(key)).ok()?;
    json.end().ok()?;
    value
}

/// Deserializes one field of an object.
struct Field<'k>(&'k str);

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_key) = map.next_key_seed(KeyIs(self.0))? {
            if !is_key {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value::<Text<'de>>()?.0).is_some() {
                return Err(A::Error::custom("the field is there twice"));
            }
        }
        Ok(found)
    }
}

/// Compares a name with this one without copying it.
struct KeyIs<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_string_of_the_outer_object() {
        let field = |json: &str| json_field(&Message::text(json), "type").map(Cow::into_owned);
        assert_eq!(field(r#" {"a":[{"type":"x"}],"type":"say","b":1e999} "#).as_deref(), Some("say"));
        assert_eq!(field(r#"{"typ\u0065":"s\u0061y"}"#).as_deref(), Some("say"));
        assert_eq!(field(r#"{"type":""}"#).as_deref(), Some(""));
        for bad in [
            "",
            "{",
            "[]",
            "null",
            r#""type""#,
            r#"["type"]"#,
            "{}",
            r#"{"type":5}"#,
            r#"{"type":null}"#,
            r#"{"type":["say"]}"#,
            r#"{"type":"a","type":"a"}"#,
            r#"{"type":"a"}x"#,
            r#"{"type":"a""#,
            r#"{"type":"a",}"#,
            r#"{"a":{"type":"a"}}"#,
        ] {
            assert_eq!(field(bad), None, "{bad}");
        }
        assert_eq!(json_field(&Message::binary(br#"{"type":"a"}"#.to_vec()), "type"), None);
    }

    #[test]
    fn a_plain_value_is_borrowed() {
        assert!(matches!(json_field(&Message::text(r#"{"t":"x"}"#), "t"), Some(Cow::Borrowed("x"))));
    }
}
