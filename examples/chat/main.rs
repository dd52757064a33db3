//! `cargo run --release --example chat -- --addr 127.0.0.1:8080`
//!
//! Open the address in two browser windows and talk. The page is `page.html`; the JSON that it speaks, the rules for
//! names and the histories are in `model.rs`; here is how they meet the hub. Probes: `/healthz`, `/readyz`, `/metrics`;
//! `/endpoints` says what there is to connect to. `/admin` is the operator's dashboard: user `admin`, the password of
//! `--admin-password`, or one that is made up and printed. With the feature `tls`, `--tls CERT KEY` names two PEM files.

#[path = "../common/mod.rs"]
mod common;
mod model;

use std::sync::{Arc, mpsc};
use std::{thread, time::Duration};

use model::{Event, Histories, Line, Person, Refusal, Request};
use wshub::trace::{self, Sampling, Tracer};
use wshub::{
    Client, Config, DropPolicy, HandlerResult, Hub, Limits, Message,
    dashboard::Dashboard,
    metrics::{DebugMetrics, Gauges},
    server::Endpoint,
};
use wshub::{
    Response, RoomError, Server, Target,
    metrics::{MetricsPair, PrometheusMetrics},
};

/// Everybody is in this room, once welcomed: it hears which other rooms there are. `model::room_name` keeps others out.
const EVERYONE: &str = "\n";

struct Chat {
    histories: Histories,
    /// Holds one note at most: that the list of rooms must be sent again.
    changed: mpsc::SyncSender<()>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let (changed, notes) = mpsc::sync_channel(1);
    // Lives as long as the program.
    let chat: &Chat = Box::leak(Box::new(Chat { histories: Histories::default(), changed }));
    let (shown, scraped) = (Arc::new(DebugMetrics::new()), Arc::new(PrometheusMetrics::new()?));
    let metrics = Arc::new(MetricsPair::new(shown.clone(), scraped.clone()));
    let tracer = Tracer::new(100).sample(Sampling::PerSecond(20));
    // A page that falls behind by more than this is closed; it connects again and reads on in the history.
    let queue = Config::default().queue_messages(2048).queue_bytes(4 << 20).drop_policy(DropPolicy::Disconnect);
    let hub = Hub::builder()
        .config(queue)
        .limits(Limits::default().max_rooms_per_client(50))
        .metrics(metrics.clone())
        .tracer(tracer.clone())
        .after_connect(|client| drop(welcome(client)))
        .on_message(|client, message| chat.receive(client, message))
        .on_error(|client, error| drop(client.send_json(&Event::from(error))))
        .after_room_leave(|client, room| drop(chat.left(client, room)))
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
    client.join(EVERYONE)?;
    client.send_json(&rooms(client.hub()))
}

/// However often rooms change, their list is sent ten times a second at most.
fn announce_rooms(hub: &Hub, notes: &mpsc::Receiver<()>) {
    while notes.recv().is_ok() {
        if let Ok(message) = Message::json(&rooms(hub)) {
            let _ = hub.send(Target::room(EVERYONE), message);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn rooms(hub: &Hub) -> Event<'static> {
    let rooms = hub.rooms().into_iter().filter(|(name, _)| &**name != EVERYONE);
    Event::Rooms { rooms: rooms.map(model::Room::from).collect() }
}

impl Chat {
    fn receive(&self, client: &Client, message: &Message) -> HandlerResult {
        let request: Request = message.parse_json().map_err(|e| Refusal("bad_request", e.to_string()))?;
        trace::name_event(request.name());
        match request {
            Request::Join { room } => self.join(client, &model::room_name(&room)?),
            Request::Message { room, text } => self.say(client, &model::room_name(&room)?, text),
            Request::Leave { room } => {
                // Whatever is wrong with it, the client is not in that room any more.
                let _ = model::room_name(&room).map(|name| client.leave(&name));
                client.send_json(&Event::Left { room: &room })
            }
        }
    }

    fn join(&self, client: &Client, room: &str) -> HandlerResult {
        let history = self.histories.of(client.hub(), room);
        // Held until `joined` is sent: so a message either stands in its history or follows it. Sending never blocks.
        let history = history.lock();
        let is_new = match client.join(room) {
            Ok(()) => true,
            Err(RoomError::AlreadyJoined) => false,
            Err(error) => return Err(Refusal("join_refused", error.to_string()).into()),
        };
        let members = client.hub().room_clients(room).iter().map(Person::of).collect();
        client.send_json(&Event::Joined { room, members, history: history.lines() })?;
        if is_new {
            let arrived = Message::json(&Event::Arrived { room, member: Person::of(client) })?;
            client.hub().send(Target::room(room).except(client.id()), arrived)?;
            let _ = self.changed.try_send(());
        }
        Ok(())
    }

    fn say(&self, client: &Client, room: &str, text: String) -> HandlerResult {
        let line = Line::now(Person::of(client), text)?;
        if !client.in_room(room) {
            return Err(Refusal("not_joined", "join the room first".into()).into());
        }
        let message = Message::json(&Event::Message { room, from: &line.from, text: &line.text, at: line.at })?;
        let history = self.histories.of(client.hub(), room);
        let mut history = history.lock();
        history.push(line, message.len());
        client.hub().send(Target::room(room), message)?;
        Ok(())
    }

    /// A client has left a room, because it asked to or because its connection has ended.
    fn left(&self, client: &Client, room: &str) -> HandlerResult {
        if room == EVERYONE {
            return Ok(());
        }
        let departed = Message::json(&Event::Departed { room, member: Person::of(client) })?;
        let history = self.histories.of(client.hub(), room);
        // As in `join`: nobody hears of a departure before the list of members that it is to be struck from.
        let _turn = history.lock();
        client.hub().send(Target::room(room), departed)?;
        let _ = self.changed.try_send(());
        Ok(())
    }
}
