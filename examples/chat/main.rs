//! `cargo run --release --example chat -- --addr 127.0.0.1:8080`
//!
//! Open the address in two browser windows and talk. `page.html` is the page; `model.rs` has the JSON that it speaks
//! and the rules for names. This file connects them to the hub, which keeps a history of the chat. Probes: `/healthz`,
//! `/readyz`, `/metrics`; `/endpoints` lists the endpoints. `/admin` is the operator's dashboard: user `admin`, the
//! password from `--admin-password`, or a generated one that is printed. With the feature `tls`, `--tls CERT KEY` names
//! two PEM files.

#[path = "../common/mod.rs"]
mod common;
mod model;

use std::sync::{Arc, mpsc};
use std::{thread, time::Duration};

use model::{Event, Line, Person, Refusal, Request};
use wshub::history::{Publication, Publish, Range, Recovery, WithPosition};
use wshub::trace::{self, Sampling, Tracer};
use wshub::{
    Client, HandlerResult, Hub, Limits, Message,
    dashboard::Dashboard,
    metrics::{DebugMetrics, Gauges},
    server::Endpoint,
};
use wshub::{
    Response, RoomError, RoomOptions, Server,
    metrics::{MetricsPair, PrometheusMetrics},
};

/// Every welcomed client is in this room, which announces the other rooms. `model::room_name` keeps others out.
const EVERYONE: &str = "\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    // Holds at most one note: the list of rooms must be sent again.
    let (changed, notes) = mpsc::sync_channel(1);
    let joined = changed.clone();
    let (shown, scraped) = (Arc::new(DebugMetrics::new()), Arc::new(PrometheusMetrics::new()?));
    let metrics = Arc::new(MetricsPair::new(shown.clone(), scraped.clone()));
    let tracer = Tracer::new(100).sample(Sampling::PerSecond(20));
    // A page that falls behind reads on in the history, or is told what it misses.
    let talk = RoomOptions::history().messages(2000).bytes(1 << 20).age(Duration::from_secs(86400)).rewind(2000);
    let hub = Hub::builder()
        .rooms("*", talk.linger(Duration::from_secs(3600)))
        .rooms(EVERYONE, RoomOptions::state())
        .format(&WithPosition)
        .limits(Limits::default().max_rooms_per_client(50))
        .metrics(metrics.clone())
        .tracer(tracer.clone())
        .after_connect(|client| drop(welcome(client)))
        .on_message(receive)
        .on_error(|client, error| drop(client.send_json(&Event::from(error))))
        .after_room_leave(|client, room| drop(left(client, room)))
        .after_room_join(move |_, _| _ = joined.try_send(()))
        .after_room_leave(move |_, _| _ = changed.try_send(()))
        .build()?;
    let endpoint = Endpoint::new("/ws", &hub).description("The chat of the page").tag("protocol", "chat JSON");
    let dashboard = Dashboard::new(&hub).title("chat").metrics(shown).tracer(tracer);
    let dashboard = dashboard.name_clients(|client| client.metadata("name").as_deref().cloned());
    let server = Server::on(common::listener("127.0.0.1:8080")?).mount(endpoint).metrics(metrics);
    let gauges = Gauges::new().hub(&hub).server(&server);
    let endpoints = Response::json(200, server.endpoints());
    let server = server
        .probes(&hub)
        .dashboard("/admin", dashboard.auth(Dashboard::basic("admin", admin_password())))
        .handle("/endpoints", move |request| common::get(request, || endpoints.clone()))
        .handle("/", |request| common::get(request, || Response::html(include_str!("page.html"))))
        .handle("/metrics", scraped.handler(gauges));
    thread::spawn(move || announce_rooms(&hub, &notes));
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
    let (name, is_granted) = model::nickname(&client.request().query_param("name").unwrap_or_default());
    client.set_metadata("name", name.clone());
    client.send_json(&Event::Welcome(Person::of(client)))?;
    if !is_granted {
        let message = format!("names have 1 to 32 characters: you are {name:?}");
        client.send_json(&Event::Error { code: "name", message })?;
    }
    // The list of rooms is this room's state.
    client.join(EVERYONE)?;
    Ok(())
}

/// Sends the list of rooms at most ten times a second, however often rooms change.
fn announce_rooms(hub: &Hub, notes: &mpsc::Receiver<()>) {
    while notes.recv().is_ok() {
        if let Ok(message) = Message::json(&rooms(hub)) {
            let _ = hub.set(EVERYONE, "", message);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn rooms(hub: &Hub) -> Event<'static> {
    let rooms = hub.rooms().into_iter().filter(|(name, _)| &**name != EVERYONE);
    Event::Rooms { rooms: rooms.map(model::Room::from).collect() }
}

fn receive(client: &Client, message: &Message) -> HandlerResult {
    let request: Request = message.parse_json().map_err(|e| Refusal("bad_request", e.to_string()))?;
    trace::name_event(request.name());
    match request {
        Request::Join { room, since } => join(client, &model::room_name(&room)?, since),
        Request::Message { room, text } => say(client, &model::room_name(&room)?, text),
        Request::Leave { room } => {
            // Whatever the error, the client is no longer in that room.
            let _ = model::room_name(&room).map(|name| client.leave(&name));
            client.send_json(&Event::Left { room: &room })
        }
    }
}

/// `joined` comes before any later message of the room, and holds its earlier messages.
fn join(client: &Client, room: &str, since: Option<String>) -> HandlerResult {
    let answer = |publications: &[Publication], position, recovery: Recovery| {
        let members = client.hub().room_clients(room).iter().map(Person::of).collect();
        let history = publications.iter().filter_map(Publication::attachment).collect();
        client.send_json(&Event::Joined { room, members, history, position, recovery: recovery.as_str() })
    };
    let since = since.and_then(|text| text.parse().ok());
    match client.join_collecting(room, since, |joined, missed| answer(&missed, joined.position, joined.recovery)) {
        Ok(answered) => {
            answered?;
            let arrived = Message::json(&Event::Arrived { room, member: Person::of(client) })?;
            client.hub().publish(room, Publish::new(arrived).except(client.id()));
            Ok(())
        }
        Err(RoomError::AlreadyJoined) => {
            let page = client.hub().history(room, Range::oldest_first()).ok_or("the room is gone")?;
            answer(&page.publications, Some(page.position), Recovery::None)
        }
        Err(error) => Err(Refusal("join_refused", error.to_string()).into()),
    }
}

fn say(client: &Client, room: &str, text: String) -> HandlerResult {
    let line = Line::now(Person::of(client), text)?;
    if !client.in_room(room) {
        return Err(Refusal("not_joined", "join the room first".into()).into());
    }
    let message = Message::json(&Event::Message { room, from: &line.from, text: &line.text, at: line.at })?;
    let size = line.text.len() + line.from.size();
    client.hub().publish(room, Publish::new(message).attach(line, size));
    Ok(())
}

/// A client has left a room, by request or because its connection has ended.
fn left(client: &Client, room: &str) -> HandlerResult {
    if room != EVERYONE {
        let departed = Message::json(&Event::Departed { room, member: Person::of(client) })?;
        client.hub().publish(room, departed);
    }
    Ok(())
}
