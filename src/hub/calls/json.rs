//! Calls as JSON objects: `call` and its `reply` or `error`, the same in both directions.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::CallRefusal;
use crate::message::Message;

/// The wire format of calls to clients. Answers arrive as messages; the handler that reads them calls
/// [`Client::answer_call`](crate::Client::answer_call).
pub trait CallFormat: Send + Sync + 'static {
    /// Encodes a call. Returns `None` if the format cannot carry the payload. Runs on the caller's thread.
    fn encode(&self, id: u64, method: &str, payload: &Message) -> Option<Message>;
}

/// Calls as text messages that hold a JSON object.
///
/// | message | means |
/// | --- | --- |
/// | `{"type":"call","id":1,"method":"set","data":…}` | a call |
/// | `{"type":"reply","id":1,"data":…}` | its answer |
/// | `{"type":"error","id":1,"data":{"code":"…","message":"…"}}` | its refusal |
///
/// The caller chooses the id. This side counts up; a client may use any number or string of at most 128 bytes. Payloads
/// are JSON. A binary message, or text that is not JSON, cannot be carried.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonCalls;

/// Maximum length of the id of a client's call, in bytes of JSON.
const MAX_ID: usize = 128;

impl CallFormat for JsonCalls {
    fn encode(&self, id: u64, method: &str, payload: &Message) -> Option<Message> {
        let method = serde_json::to_string(method).ok()?;
        let data = json_text(payload)?;
        Some(Message::raw_json(format!(r#"{{"type":"call","id":{id},"method":{method},"data":{data}}}"#)))
    }
}

fn json_text(payload: &Message) -> Option<&str> {
    let text = payload.as_text()?;
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

/// A message that belongs to a call.
#[derive(Debug)]
pub(super) enum Frame<'m> {
    /// A client calls.
    Call { id: &'m RawValue, method: String, data: Message },
    /// A client has answered the call of this id.
    Answer { id: u64, result: Result<Message, CallRefusal> },
}

#[derive(Deserialize)]
struct Raw<'m> {
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'m, str>,
    #[serde(borrow)]
    id: Option<&'m RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    data: Option<&'m RawValue>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl<'m> Frame<'m> {
    /// Returns `None` if the message is neither a call nor an answer.
    pub(super) fn parse(message: &'m Message) -> Option<Self> {
        let raw: Raw<'m> = serde_json::from_str(message.as_text()?).ok()?;
        let id = raw.id.filter(|id| id.get().len() <= MAX_ID && is_scalar(id.get()))?;
        let data = raw.data.map_or("null", RawValue::get);
        let number = || id.get().parse().ok();
        match &*raw.kind {
            "call" => Some(Self::Call { id, method: raw.method?, data: Message::raw_json(data) }),
            "reply" => Some(Self::Answer { id: number()?, result: Ok(Message::raw_json(data)) }),
            "error" => {
                let refusal =
                    serde_json::from_str(data).unwrap_or(Refusal { code: String::new(), message: data.into() });
                Some(Self::Answer { id: number()?, result: Err(CallRefusal::new(refusal.code, refusal.message)) })
            }
            _ => None,
        }
    }
}

fn is_scalar(json: &str) -> bool {
    json.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

/// Encodes the answer to a client's call.
pub(super) fn answer(id: &RawValue, result: &Result<Message, CallRefusal>) -> Message {
    let id = id.get();
    let unusable = CallRefusal::new("internal", "the answer is not JSON");
    let refusal = match result.as_ref().map(json_text) {
        Ok(Some(data)) => return Message::raw_json(format!(r#"{{"type":"reply","id":{id},"data":{data}}}"#)),
        Ok(None) => &unusable,
        Err(refusal) => refusal,
    };
    let [code, message] =
        [refusal.code(), refusal.message()].map(|text| serde_json::to_string(text).unwrap_or_default());
    let data = format!(r#"{{"code":{code},"message":{message}}}"#);
    Message::raw_json(format!(r#"{{"type":"error","id":{id},"data":{data}}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<String> {
        let message = Message::text(text);
        Frame::parse(&message).map(|frame| format!("{frame:?}"))
    }

    #[test]
    fn a_call_is_one_object_and_its_payload_goes_as_it_is() {
        let text =
            |payload: Message| JsonCalls.encode(7, "set \"x\"", &payload).map(|m| m.as_text().map(str::to_owned));
        let expected = r#"{"type":"call","id":7,"method":"set \"x\"","data":{"a": 1.50}}"#;
        assert_eq!(text(Message::text(r#" {"a": 1.50} "#)), Some(Some(expected.to_owned())));
        assert_eq!(text(Message::text("no JSON")), None);
        assert_eq!(text(Message::binary(b"1".to_vec())), None);
    }

    #[test]
    fn answers_bear_the_id_and_refusals_their_code() {
        let message = Message::text(r#"{"id":"a-1","type":"call","method":"m","data":[1, 2]}"#);
        let Some(Frame::Call { id, method, data }) = Frame::parse(&message) else { panic!("a call") };
        assert_eq!((&method[..], data.as_text()), ("m", Some("[1, 2]")));
        let reply = answer(id, &Ok(Message::text("true")));
        assert_eq!(reply.as_text(), Some(r#"{"type":"reply","id":"a-1","data":true}"#));
        let refused = answer(id, &Err(CallRefusal::new("no", "not \"now\"")));
        let expected = r#"{"type":"error","id":"a-1","data":{"code":"no","message":"not \"now\""}}"#;
        assert_eq!(refused.as_text(), Some(expected));
        assert!(answer(id, &Ok(Message::text("nonsense"))).as_text().is_some_and(|text| text.contains("internal")));
    }

    #[test]
    fn what_is_no_call_is_left_to_others() {
        for text in [
            "",
            "[]",
            r#"{"type":"call","id":1}"#,
            r#"{"type":"call","method":"m"}"#,
            r#"{"type":"call","id":{},"method":"m"}"#,
            r#"{"type":"call","id":null,"method":"m"}"#,
            r#"{"type":"reply","id":"x"}"#,
            r#"{"type":"reply","id":-1}"#,
            r#"{"type":"error","data":{}}"#,
            r#"{"type":"other","id":1}"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!(r#"{{"type":"call","id":"{}","method":"m"}}"#, "x".repeat(200))), None);
        let reply = Message::text(r#"{"type":"reply","id":3}"#);
        let Some(Frame::Answer { id: 3, result: Ok(data) }) = Frame::parse(&reply) else { panic!("no answer") };
        assert_eq!(data.as_text(), Some("null"));
        assert!(parse(r#"{"type":"error","id":3,"data":"text"}"#).is_some());
    }
}
