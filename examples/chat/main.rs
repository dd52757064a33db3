//! `cargo run --release --example chat -- --addr 127.0.0.1:8080`
//!
//! Open the address in two browser windows and talk. `page.html`, `style.css` and `script.js` are the page. The hub
//! keeps each room's history and the list of rooms, and it reports clients that join and leave. Probes: `/healthz`,
//! `/readyz`, `/metrics`; `/endpoints` lists the endpoints. `/admin` is the operator's dashboard: user `admin`, the
//! password from `--admin-password`, or a generated one that is printed. With the feature `tls`, `--tls CERT KEY` names
//! two PEM files.
//!
//! Requests: `{"type":"join","room"}`, with `since`, the last `position` of the room, by a page that comes back;
//! `leave`; `message` with `text`. Events: `welcome`, `joined`, `left`, `arrived`, `departed`, `message`, `error`;
//! `room` and `removed` change the list of rooms. Events of a room have its `position`, see
//! `wshub::history::WithPosition`.

#[path = "../common/mod.rs"]
mod common;

use std::{sync::Arc, time::Duration, time::SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};
use wshub::dashboard::Dashboard;
use wshub::history::{Position, Publication, Publish, Range, Recovery, WithPosition};
use wshub::members::{Member, MemberChange};
use wshub::metrics::{DebugMetrics, Gauges, MetricsPair, PrometheusMetrics};
use wshub::server::Endpoint;
use wshub::trace::{self, Sampling, Tracer};
use wshub::{Client, HandlerResult, Hub, Limits, Message, Response, RoomError, RoomOptions, Server};

/// The room of every client. Its state is the list of the other rooms, whose names have no control characters.
const DIRECTORY: &str = "\n";

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request {
    Join { room: String, since: Option<String> },
    Leave { room: String },
    Message { room: String, text: String },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let (shown, scraped) = (Arc::new(DebugMetrics::new()), Arc::new(PrometheusMetrics::new()?));
    let metrics = Arc::new(MetricsPair::new(shown.clone(), scraped.clone()));
    let tracer = Tracer::new(100).sample(Sampling::PerSecond(20));
    // A page that falls behind reads on in the history, or is told what it misses.
    let talk = RoomOptions::history().messages(2000).bytes(1 << 20).age(Duration::from_secs(86400)).rewind(2000);
    let list = RoomOptions::state().state_keys(10_000).state_bytes(16 << 20).at_most(10);
    let hub = Hub::builder()
        .rooms("*", talk.linger(Duration::from_secs(3600)).with_connections())
        .rooms(DIRECTORY, list)
        .format(&WithPosition)
        .limits(Limits::default().max_rooms_per_client(50))
        .metrics(metrics.clone())
        .tracer(tracer.clone())
        .after_connect(|client| drop(welcome(client)))
        .on_message(receive)
        .on_error(|client, error| drop(client.send_json(&refusal(&error.to_string()))))
        .on_member_change(announce)
        .build()?;
    let endpoint = Endpoint::new("/ws", &hub).description("The chat of the page").tag("protocol", "chat JSON");
    let dashboard = Dashboard::new(&hub).title("chat").metrics(shown).tracer(tracer);
    let dashboard = dashboard.name_clients(|client| client.metadata("name").as_deref().cloned());
    let server = Server::on(common::listener("127.0.0.1:8080")?).mount(endpoint).metrics(metrics);
    let gauges = Gauges::new().hub(&hub).server(&server);
    let endpoints = Response::json(200, server.endpoints());
    let page = include_str!("page.html").replace("/* style.css */\n", include_str!("style.css"));
    let page = Response::html(page.replace("/* script.js */\n", include_str!("script.js")));
    let server = server
        .probes(&hub)
        .dashboard("/admin", dashboard.auth(Dashboard::basic("admin", admin_password())))
        .handle("/endpoints", move |request| common::get(request, || endpoints.clone()))
        .handle("/", move |request| common::get(request, || page.clone()))
        .handle("/metrics", scraped.handler(gauges));
    common::serve(server)
}

fn admin_password() -> String {
    common::option_or_none("admin-password").unwrap_or_else(|| {
        let mut random = [0; 16];
        getrandom::fill(&mut random).unwrap_or_else(|error| common::fail(&error.to_string()));
        let password = format!("{:032x}", u128::from_ne_bytes(random));
        common::note(&format!("dashboard at /admin: user admin, password {password}"));
        password
    })
}

fn welcome(client: &Client) -> HandlerResult {
    let wish = client.request().query_param("name").unwrap_or_default();
    let name: String = one_line(&wish).chars().take(32).collect();
    let name = if name.is_empty() { "guest".to_owned() } else { name };
    client.set_metadata("name", name.clone());
    client.set_member(&person(client))?;
    client.send_json(&json!({"type": "welcome", "id": client.id(), "name": name}))?;
    if name != one_line(&wish) {
        client.send_json(&refusal(&format!("names have 1 to 32 characters: you are {name:?}")))?;
    }
    client.join(DIRECTORY)?;
    Ok(())
}

/// Reports joins and leaves to a room and to the list of rooms.
fn announce(hub: &Hub, room: &str, change: &MemberChange) {
    let kind = match change {
        MemberChange::Joined(_) => "arrived",
        MemberChange::Left(_) => "departed",
        _ => return,
    };
    hub.publish(room, event(&json!({"type": kind, "room": room, "member": person_of(change.member())})));
    let members = hub.room_size(room);
    let listed = match members {
        0 => Ok(_ = hub.unset(DIRECTORY, room)),
        _ => hub.set(DIRECTORY, room, event(&json!({"type": "room", "name": room, "members": members}))).map(drop),
    };
    listed.unwrap_or_else(|error| common::note(&format!("room {room:?} is not listed: {error}")));
}

fn receive(client: &Client, message: &Message) -> HandlerResult {
    match message.parse_json()? {
        Request::Join { room, since } => {
            trace::name_event("join");
            join(client, &room_name(&room)?, since.and_then(|position| position.parse().ok()))
        }
        Request::Message { room, text } => {
            trace::name_event("message");
            say(client, &room_name(&room)?, &text)
        }
        Request::Leave { room } => {
            trace::name_event("leave");
            // Whatever the error, the client is no longer in that room.
            let _ = room_name(&room).map(|name| client.leave(&name));
            Ok(client.send_json(&json!({"type": "left", "room": room}))?)
        }
    }
}

/// `joined` comes before any later event of the room. Its history holds what was said after `since`, if its recovery is
/// `complete`, else all that is remembered.
fn join(client: &Client, room: &str, since: Option<Position>) -> HandlerResult {
    let answer = |publications: &[Publication], position: Option<Position>, recovery: Recovery| {
        let members: Vec<Value> = client.hub().members(room).iter().map(person_of).collect();
        let history: Vec<&Value> = publications.iter().filter_map(Publication::attachment).collect();
        let recovery = recovery.as_str();
        let (kind, position) = ("joined", position.map(|position| position.to_string()));
        client.send_json(&json!({"type": kind, "room": room, "members": members, "history": history,
            "position": position, "recovery": recovery}))
    };
    match client.join_collecting(room, since, |joined, missed| answer(&missed, joined.position, joined.recovery)) {
        Ok(answered) => Ok(answered?),
        Err(RoomError::AlreadyJoined) => {
            let page = client.hub().history(room, Range::oldest_first()).ok_or("the room is gone")?;
            Ok(answer(&page.publications, Some(page.position), Recovery::None)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn say(client: &Client, room: &str, text: &str) -> HandlerResult {
    if text.trim().is_empty() || text.chars().count() > 2000 {
        return Err("a message has 1 to 2,000 characters".into());
    }
    if !client.in_room(room) {
        return Err("join the room first".into());
    }
    let at = u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
    let said = json!({"type": "message", "room": room, "from": person(client), "text": text, "at": at});
    let size = 2 * text.len() + 1000;
    client.hub().publish(room, Publish::new(event(&said)).attach(said, size));
    Ok(())
}

fn event(json: &Value) -> Message {
    Message::raw_json(json.to_string())
}

fn refusal(why: &str) -> Value {
    json!({"type": "error", "code": "refused", "message": why})
}

fn person(client: &Client) -> Value {
    json!({"id": client.id(), "name": client.metadata::<String>("name").as_deref()})
}

/// What `welcome` has set for others to see.
fn person_of(member: &Member) -> Value {
    member.metadata.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// Without control characters, and without blanks around it.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ").trim().to_owned()
}

fn room_name(text: &str) -> Result<String, &'static str> {
    let name = one_line(text);
    let is_good = (1..=64).contains(&name.chars().count());
    if is_good { Ok(name) } else { Err("a room's name has 1 to 64 characters") }
}
