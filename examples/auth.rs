//! `cargo run --release --example auth -- --addr 127.0.0.1:8080`
//!
//! Clients must authenticate: with the header `Authorization: Bearer TOKEN`, or, because a browser's WebSocket cannot
//! set headers, with `/ws?token=TOKEN`. Without a known token the answer is 401. The text message `bob: hello` goes to
//! every connection of bob, and to the other connections of its author.
//!
//! The tokens are `ann-token`, `bob-token` and `eve-token`.

mod common;

use wshub::{Admission, Client, HandlerResult, Hub, Limits, Message, Rejection, RequestHead, Server, Target};

/// Tokens and their users; a real program asks its session store or checks a signature.
const TOKENS: [(&str, &str); 3] = [("ann-token", "ann"), ("bob-token", "bob"), ("eve-token", "eve")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let hub = Hub::builder()
        .limits(Limits::default().max_connections_per_user(5))
        .on_upgrade(authenticate)
        .after_connect(|client| drop(greet(client)))
        .on_message(forward)
        .on_error(|client, error| drop(client.send(format!("error: {error}"))))
        .on_user_online(|hub, user| announce(hub, user, "online"))
        .on_user_offline(|hub, user| announce(hub, user, "offline"))
        .build()?;
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?;
    common::serve(server.websocket("/ws", &hub).probes(&hub))
}

/// Runs before the 101: a refusal is an HTTP response.
fn authenticate(head: &RequestHead) -> Result<Admission, Rejection> {
    let bearer = head.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let token = bearer.map(str::to_owned).or_else(|| head.query_param("token")).unwrap_or_default();
    match TOKENS.iter().find(|(known, _)| *known == token) {
        Some((_, user)) => Ok(Admission::user(*user)),
        None => Err(Rejection::unauthorized()),
    }
}

fn greet(client: &Client) -> HandlerResult {
    let user = client.user_id().unwrap_or_default();
    let connections = client.hub().user_connection_count(&user);
    client.send(format!("welcome {user}, this is your connection number {connections}"))?;
    Ok(())
}

/// `USER: TEXT` goes to that user as `AUTHOR: TEXT`.
fn forward(client: &Client, message: &Message) -> HandlerResult {
    let author = client.user_id().unwrap_or_default();
    let (user, text) = message.as_text().and_then(|m| m.split_once(':')).ok_or("write USER: TEXT")?;
    if !client.hub().is_user_online(user.trim()) {
        return Err(format!("{} is not online", user.trim()).into());
    }
    let recipients = Target::users([user.trim(), &author]).except(client.id());
    client.hub().send(recipients, format!("{author}: {}", text.trim()))?;
    Ok(())
}

/// Runs when a user's first connection opens, and when the last one has closed.
fn announce(hub: &Hub, user: &str, state: &str) {
    // Sending fails only for a single client that is gone.
    let _ = hub.send(Target::all(), format!("{user} is {state}"));
}
