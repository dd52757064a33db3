//! `cargo run --release --example relay -- --addr 127.0.0.1:8080 --access access.json`
//!
//! Users connect at `/ws?user=U`, the relays of devices at `/ws?user=U&device=D`. The access file lists the devices of
//! each user, as `{"ann": ["lock", "lamp"]}`; `POST /invalidate?user=U` or `?device=D` makes the program read it again.
//! A device's messages go to its users; a user's message with a `deviceId` goes to that device. Connects and
//! disconnects are announced as `presence`. A user that calls `device`, with `{"deviceId","method","data"}`, gets the
//! device's answer.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wshub::calls::{CallError, CallRefusal};
use wshub::protocol::relay::{Conn, Identity, Relay, RelayMessage};
use wshub::{Rejection, RequestHead, Response, Server, Target, server::Request};

type Lists = HashMap<String, Vec<String>>;

/// The contents of the access file when it was last read.
struct Access {
    path: PathBuf,
    lists: Mutex<Lists>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let path = common::option_or_none("access").unwrap_or_else(|| common::fail("--access FILE is missing")).into();
    let access = Arc::new(Access { path, lists: Mutex::default() });
    access.read()?;
    let source = Arc::clone(&access);
    let relay = Relay::builder(identify)
        .loader(move |user| Ok(source.devices(user)))
        .rate_limit(20, Duration::from_secs(1))
        .on_message(|conn, message| {
            forward(conn, message);
            Ok(())
        })
        .on_call("device", ask)
        .on_user_connect(|relay, user| user_presence(relay, user, "online"))
        .on_user_disconnect(|relay, user| user_presence(relay, user, "offline"))
        .on_device_connect(|relay, device| device_presence(relay, device, "online"))
        .on_device_disconnect(|relay, device| device_presence(relay, device, "offline"))
        .build()?;
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?;
    let server = server.websocket("/ws", relay.hub()).probes(relay.hub());
    common::serve(server.handle("/invalidate", move |request| invalidate(&relay, &access, request)))
}

/// A real program checks a token here.
fn identify(head: &RequestHead) -> Result<Identity, Rejection> {
    let user = head.query_param("user").ok_or_else(Rejection::unauthorized)?;
    Ok(Identity::new(user, head.query_param("device")))
}

fn forward(conn: &Conn, mut message: RelayMessage) {
    if let Some(device) = conn.device() {
        message.device_id = Some(device.to_owned());
        conn.relay().broadcast_to_device(device, &message);
        return;
    }
    message.user_id = Some(conn.user().to_owned());
    match message.device_id.as_deref().filter(|device| !device.is_empty()) {
        None => conn.send_error("bad_message", "deviceId is missing"),
        Some(device) if !conn.may_see(device) => conn.send_error("forbidden", "no access to this device"),
        Some(device) if !conn.relay().send_to_device(device, &message) => {
            conn.send_error("offline", "the device is not connected");
        }
        Some(_) => {}
    }
}

#[derive(serde::Deserialize)]
struct Question {
    #[serde(rename = "deviceId")]
    device: String,
    method: String,
    data: Box<serde_json::value::RawValue>,
}

/// Passes a user's call on to a device that it may see, and waits for the answer for at most five seconds.
fn ask(conn: &Conn, data: &wshub::Message) -> Result<wshub::Message, CallRefusal> {
    let question: Question = data.parse_json().map_err(|e| CallRefusal::new("bad_message", e.to_string()))?;
    if conn.device().is_some() || !conn.may_see(&question.device) {
        return Err(CallRefusal::new("forbidden", "no access to this device"));
    }
    let payload = wshub::Message::raw_json(question.data.get());
    let answer = conn.relay().call_device(&question.device, &question.method, payload, Duration::from_secs(5));
    answer.map_err(|error| match error {
        CallError::Refused { code, message } => CallRefusal::new(code, message),
        other => CallRefusal::new("no_answer", other.to_string()),
    })
}

fn presence(status: &str) -> RelayMessage {
    // A map of strings is always valid JSON.
    RelayMessage::new("presence")
        .payload(&HashMap::from([("status", status)]))
        .unwrap_or_else(|_| RelayMessage::new("presence"))
}

/// Sends to all users that may see the device.
fn device_presence(relay: &Relay, device: &str, status: &str) {
    relay.broadcast_to_device(device, &presence(status).device(device));
}

/// Sends to the devices that the user may see, and to the other users of these devices.
fn user_presence(relay: &Relay, user: &str, status: &str) {
    let message = presence(status).user(user);
    let devices = relay.user_devices(user);
    for device in &devices {
        relay.send_to_device(device, &message);
    }
    let users: BTreeSet<_> = devices.iter().flat_map(|device| relay.device_users(device)).collect();
    let others = users.iter().map(|other| &**other).filter(|other| *other != user);
    // Sending fails only for a single client that is gone.
    let _ = relay.hub().send(Target::users(others), &message);
}

fn invalidate(relay: &Relay, access: &Access, request: &Request) -> Response {
    if request.head().method() != "POST" {
        return Response::text(405, "method not allowed\n").header("Allow", "POST");
    }
    let (user, device) = (request.head().query_param("user"), request.head().query_param("device"));
    if user.is_none() && device.is_none() {
        return Response::text(400, "user or device is missing\n");
    }
    if let Err(error) = access.read() {
        return Response::text(500, format!("{error}\n"));
    }
    if let Some(device) = device {
        relay.invalidate_device(&device);
        // Users that gained access to the device are not subscribed to it yet.
        access.users(&device).iter().for_each(|user| relay.invalidate_user(user));
    }
    if let Some(user) = user {
        relay.invalidate_user(&user);
    }
    Response::new(204)
}

impl Access {
    fn read(&self) -> Result<(), Box<dyn std::error::Error>> {
        let lists: Lists = serde_json::from_slice(&std::fs::read(&self.path)?)?;
        *self.lists.lock().unwrap_or_else(PoisonError::into_inner) = lists;
        Ok(())
    }

    fn devices(&self, user: &str) -> Vec<String> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.get(user).cloned().unwrap_or_default()
    }

    fn users(&self, device: &str) -> Vec<String> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let of_device = lists.iter().filter(|(_, devices)| devices.iter().any(|d| d == device));
        of_device.map(|(user, _)| user.clone()).collect()
    }
}
