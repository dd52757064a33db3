//! Actions of an operator: send a message, call or close a client, close a user, begin a drain. Each is a `POST` with
//! JSON.

use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Auth;
use super::{admitted, page};
use crate::client_id::ClientId;
use crate::guard::{record, record_limited};
use crate::http::{OriginPolicy, RequestHead, Response};
use crate::hub::{CallError, Hub, HubState, Target};
use crate::message::Message;
use crate::server::Request;

/// A page of another origin cannot add its own header without a preflight request, which is never granted.
const HEADER: &str = "x-wshub-dashboard";
/// Maximum duration of a requested drain, in seconds.
const MAX_DRAIN: u64 = 24 * 3600;
/// Maximum timeout of a call, in seconds. Its request occupies a connection so long.
const MAX_CALL: u64 = 30;

/// `{"action":"close","client":"…","code":1000,"reason":"…"}` and so on.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Action {
    Send {
        to: Recipient,
        text: String,
    },
    Close {
        client: ClientId,
        code: u16,
        #[serde(default)]
        reason: String,
    },
    Call {
        client: ClientId,
        method: String,
        /// Null if absent.
        #[serde(default)]
        data: Value,
        seconds: u64,
    },
    /// On all nodes.
    #[serde(rename = "close_user")]
    CloseUser {
        user: String,
        code: u16,
        #[serde(default)]
        reason: String,
    },
    Drain {
        seconds: u64,
        /// Must be true: a drain cannot be cancelled.
        confirm: bool,
    },
}

/// `"all"`, `{"room":"…"}`, `{"user":"…"}` or `{"client":"…"}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Recipient {
    All,
    Room(String),
    User(String),
    Client(ClientId),
}

type Outcome = Result<Value, (u16, String)>;

/// Performs the action, if the request is authorised.
pub(super) fn answer(hub: &Hub, auth: &Auth, request: &Request) -> Response {
    let who = match admitted(auth, request.head()) {
        Ok(who) => who,
        Err(refusal) => return refusal,
    };
    if request.head().method() != "POST" {
        return page::guarded(Response::text(405, "method not allowed\n").header("Allow", "POST"));
    }
    let outcome = check(request.head()).and_then(|()| {
        let action = request.json().map_err(|error| (400, error.to_string()))?;
        perform(hub, action)
    });
    let from = request.remote_addr();
    let (status, body) = match outcome {
        Ok(value) => (200, value),
        Err((status, why)) => {
            record_limited!(Info, "wshub::dashboard", "{who:?} from {from:?} was refused with {status}");
            (status, json!({ "error": why }))
        }
    };
    if status == 200 {
        record!(Info, "wshub::dashboard", "{who:?} from {from:?}: {}", body["done"].as_str().unwrap_or_default());
    }
    page::guarded(Response::json(status, &body))
}

/// Checks that the request comes from the dashboard's own page, or from a program that is not a page.
fn check(head: &RequestHead) -> Result<(), (u16, String)> {
    let is_own = head.header(HEADER).is_some()
        && OriginPolicy::same_origin().allows(head)
        && head.header("sec-fetch-site").is_none_or(|site| site == "same-origin");
    if !is_own {
        return Err((403, format!("actions come from the dashboard's own page, with the header {HEADER}")));
    }
    let media_type = head.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err((415, "an action is application/json".into()))
    }
}

fn perform(hub: &Hub, action: Action) -> Outcome {
    match action {
        Action::Send { to, text } => send(hub, to, text),
        Action::Close { client, code, reason } => close(hub, client, code, &reason),
        Action::Call { client, method, data, seconds } => call(hub, client, &method, &data, seconds),
        Action::CloseUser { user, code, reason } => close_user(hub, &user, code, &reason),
        Action::Drain { confirm: false, .. } => Err((400, "a drain must be confirmed".into())),
        Action::Drain { seconds, .. } => drain(hub, seconds),
    }
}

fn send(hub: &Hub, to: Recipient, text: String) -> Outcome {
    let (is_known, what, target) = match to {
        Recipient::All => (true, "everyone".to_owned(), Target::all()),
        Recipient::Room(name) => (hub.room_exists(&name), format!("room {name:?}"), Target::room(name)),
        Recipient::User(id) => (hub.is_user_online(&id), format!("user {id:?}"), Target::user(id)),
        Recipient::Client(id) => (hub.client(id).is_some(), format!("client {id}"), Target::client(id)),
    };
    let size = text.len();
    let delivery = hub.send(target, text);
    // In a cluster only the other nodes know whether they have the recipient.
    match delivery.ok().filter(|sent| is_known || sent.published) {
        None => Err((404, format!("no recipient: {what}"))),
        Some(sent) => Ok(json!({
            "done": format!("sent {size} bytes to {what}"),
            "queued": sent.queued, "dropped": sent.dropped, "refused": sent.refused, "published": sent.published,
        })),
    }
}

fn close(hub: &Hub, id: ClientId, code: u16, reason: &str) -> Outcome {
    let client = hub.client(id).ok_or_else(|| (404, format!("no client {id} is connected here")))?;
    client.close(code, reason).map_err(|error| (422, error.to_string()))?;
    Ok(json!({ "done": format!("closed {id} with {code} {reason:?}") }))
}

/// Waits for the answer of a client of any node.
fn call(hub: &Hub, id: ClientId, method: &str, data: &Value, seconds: u64) -> Outcome {
    if !(1..=MAX_CALL).contains(&seconds) {
        return Err((422, format!("a call waits 1 to {MAX_CALL} seconds")));
    }
    let answer = hub.call(id, method, Message::raw_json(data.to_string()), Duration::from_secs(seconds)).next();
    let done = format!("called {id}: {method:?}");
    match answer.map(|(_, result)| result) {
        Some(Ok(message)) => Ok(json!({ "done": done, "answer": parsed(&message) })),
        Some(Err(CallError::Refused { code, message })) => {
            Ok(json!({ "done": done, "refused": { "code": code, "message": message } }))
        }
        Some(Err(CallError::Timeout)) => Err((504, format!("no answer within {seconds} s"))),
        Some(Err(error @ CallError::TooMany)) => Err((429, error.to_string())),
        Some(Err(error @ CallError::Closed)) => Err((404, error.to_string())),
        Some(Err(error)) => Err((422, error.to_string())),
        None => Err((404, format!("no client {id} is connected"))),
    }
}

/// JSON, or the text of an answer in another format.
fn parsed(message: &Message) -> Value {
    message.parse_json().unwrap_or_else(|_| message.as_text().map_or(Value::Null, Value::from))
}

fn close_user(hub: &Hub, user: &str, code: u16, reason: &str) -> Outcome {
    let done = hub.close_user(user, code, reason).map_err(|error| (422, error.to_string()))?;
    // In a cluster only the other nodes know whether they have the user.
    if done.here == 0 && !done.published {
        return Err((404, format!("no recipient: user {user:?}")));
    }
    Ok(json!({
        "done": format!("closed user {user:?} with {code} {reason:?}"),
        "here": done.here, "published": done.published,
    }))
}

/// Runs on a separate thread, because a drain blocks.
fn drain(hub: &Hub, seconds: u64) -> Outcome {
    if !(1..=MAX_DRAIN).contains(&seconds) {
        return Err((422, format!("a drain takes 1 to {MAX_DRAIN} seconds")));
    }
    if hub.state() != HubState::Running {
        return Err((409, "the hub does not run any more".into()));
    }
    let (draining, patience) = (hub.clone(), Duration::from_secs(seconds));
    let builder = thread::Builder::new().name("wshub-drain".into()).stack_size(128 * 1024);
    let spawned = builder.spawn(move || match draining.drain(patience) {
        Ok(()) => record!(Info, "wshub::dashboard", "drained"),
        Err(error) => record!(Warn, "wshub::dashboard", "drain: {error}"),
    });
    spawned.map_err(|error| (503, format!("could not start a thread for the drain: {error}")))?;
    Ok(json!({ "done": format!("began to drain, for at most {seconds} s") }))
}
