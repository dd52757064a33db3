//! A server and clients that speak the client protocol of Centrifugo.
#![allow(dead_code, reason = "each test file uses a part")]

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use wshub::protocol::centrifuge::{Access, Centrifuge, ChannelOptions, ConnectionToken, SubscriptionToken, TokenError};
use wshub::{Hub, HubBuilder, RoomOptions};

use crate::common::{TestServer, WsClient};

/// `user` or `user+seconds`, also in the past; `old` has expired, `bad` is not ours.
pub(crate) fn token(text: &str) -> Result<(String, Option<SystemTime>), TokenError> {
    match text.split_once('+') {
        _ if text == "bad" => Err(TokenError::Invalid),
        _ if text == "old" => Err(TokenError::Expired),
        Some((user, seconds)) => {
            let time = SystemTime::now() + Duration::from_secs(seconds.parse().unwrap());
            Ok((user.to_owned(), Some(time)))
        }
        None => Ok((text.to_owned(), None)),
    }
}

pub(crate) fn protocol() -> Centrifuge {
    Centrifuge::new()
        .connection_tokens(|text| {
            let (user, expires) = token(text)?;
            let token = ConnectionToken::user(user);
            Ok(expires.map_or(token.clone(), |time| token.expires_at(time)))
        })
        .subscription_tokens(|text| {
            let (user, expires) = token(text)?;
            let token = SubscriptionToken::new(user, "secret");
            Ok(expires.map_or(token.clone(), |time| token.expires_at(time)))
        })
        .channels(|channel| {
            let options = ChannelOptions::default().publish(Access::Subscribers).needs_token(channel == "secret");
            (channel != "nowhere").then_some(options)
        })
        .rpc("echo", |_, data| Ok(data.clone()))
}

pub(crate) fn builder() -> HubBuilder {
    Hub::builder()
        .rooms("*", RoomOptions::history())
        .rooms("small", RoomOptions::history().messages(2))
        .rooms("plain*", RoomOptions::default())
}

pub(crate) fn serve(protocol: Centrifuge) -> TestServer {
    TestServer::new(protocol.install(builder()))
}

pub(crate) fn send(socket: &mut WsClient, command: &Value) {
    socket.send_text(&command.to_string());
}

/// The next objects; a message may hold several.
pub(crate) fn next(socket: &mut WsClient) -> Vec<Value> {
    socket.text().split('\n').map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn one(socket: &mut WsClient) -> Value {
    let mut objects = next(socket);
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects.remove(0)
}

/// The reply to a command.
pub(crate) fn ask(socket: &mut WsClient, command: &Value) -> Value {
    send(socket, command);
    one(socket)
}

pub(crate) fn code(reply: &Value) -> u64 {
    reply["error"]["code"].as_u64().unwrap_or_else(|| panic!("no error: {reply}"))
}

pub(crate) fn connect(server: &TestServer, connect: &Value) -> (WsClient, Value) {
    let mut socket = server.connect();
    let reply = ask(&mut socket, &json!({"id": 1, "connect": connect}));
    assert_eq!(reply["id"], 1, "{reply}");
    (socket, reply)
}

pub(crate) fn connected(server: &TestServer) -> WsClient {
    connect(server, &json!({})).0
}

pub(crate) fn subscribe(socket: &mut WsClient, wish: &Value) -> Value {
    ask(socket, &json!({"id": 2, "subscribe": wish}))
}
