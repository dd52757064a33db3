//! Several hubs as one: what crosses nodes, its recipients and order, and what stays on its node.
// Not over TLS: the cluster sees no sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::thread;
use std::time::Duration;

use common::bus::{Mood, Wire, connected, node, plain_node};
use common::stream::SseClient;
use common::{Log, PATIENCE, TestServer, WsClient, counted, deep_queue, errors, eventually, get, stall};
use wshub::{
    Admission, Client, ClientId, Config, Hub, HubBuilder, Message, SendError, Target,
    cluster::{Cluster, MemoryBus},
    metrics::ErrorType,
};

/// Clients are of the user `user=`, and join each `room=`.
fn hub() -> HubBuilder {
    Hub::builder().on_upgrade(|head| {
        let admission = head.query_param("user").map_or_else(Admission::anonymous, Admission::user);
        Ok(head.query_param("rooms").unwrap_or_default().split_terminator(',').fold(admission, Admission::room))
    })
}

/// Five clients on three nodes.
struct Crowd {
    nodes: Vec<TestServer>,
    sockets: Vec<WsClient>,
    clients: Vec<Client>,
}

/// Node, and query.
const CROWD: [(usize, &str); 5] =
    [(0, "user=ann&rooms=x"), (1, "user=ann&rooms=x,y"), (1, "user=bob&rooms=y"), (2, ""), (2, "user=eve&rooms=z")];

impl Crowd {
    fn new() -> Self {
        let bus = MemoryBus::new();
        let nodes: Vec<_> =
            ["a", "b", "c"].iter().map(|id| node(hub(), Cluster::new(bus.adapter()).node_id(*id))).collect();
        let pairs = CROWD.iter().map(|(node, query)| nodes[*node].pair_to(&format!("/ws?{query}")));
        let (sockets, clients) = pairs.unzip();
        Self { nodes, sockets, clients }
    }

    fn id(&self, client: usize) -> ClientId {
        self.clients[client].id()
    }

    /// Sends from each node in turn, and says which clients get how many copies.
    fn copies(&mut self, target: &Target<'_>) -> Vec<usize> {
        let mut counts = Vec::new();
        for from in 0..self.nodes.len() {
            self.nodes[from].hub.send(target.clone(), "x").unwrap();
            self.nodes[from].hub.send(Target::all(), "end").unwrap();
            counts.push(self.sockets.iter_mut().map(|s| s.texts_until_end().len()).collect::<Vec<_>>());
        }
        assert!(counts.iter().all(|c| *c == counts[0]), "it matters from where: {counts:?}");
        counts.swap_remove(0)
    }
}

#[test]
fn every_target_reaches_its_clients_wherever_they_are_and_once() {
    let mut crowd = Crowd::new();
    let id = |n| crowd.id(n);
    let ids: Vec<ClientId> = (0..5).map(id).collect();
    let unknown: ClientId = "246173a9-650a-4d6f-9630-e7533aed5d60".parse().unwrap();
    let cases: Vec<(Target<'_>, [usize; 5])> = vec![
        (Target::all(), [1, 1, 1, 1, 1]),
        (Target::all().except(ids[0]).except(ids[3]), [0, 1, 1, 0, 1]),
        (Target::room("x"), [1, 1, 0, 0, 0]),
        (Target::room("x").except(ids[1]), [1, 0, 0, 0, 0]),
        (Target::rooms(["x", "y", "x"]), [1, 1, 1, 0, 0]),
        (Target::rooms(["x", "y", "z"]).except_all([ids[0], ids[2]]), [0, 1, 0, 0, 1]),
        (Target::user("ann"), [1, 1, 0, 0, 0]),
        (Target::user("ann").except(ids[0]), [0, 1, 0, 0, 0]),
        (Target::users(["ann", "eve"]), [1, 1, 0, 0, 1]),
        (Target::client(ids[2]), [0, 0, 1, 0, 0]),
        (Target::client(ids[2]).except(ids[2]), [0, 0, 0, 0, 0]),
        (Target::clients([ids[0], ids[3], ids[4]]), [1, 0, 0, 1, 1]),
        (Target::client(ids[0]).and(Target::room("y")), [1, 1, 1, 0, 0]),
        (Target::client(ids[1]).and(Target::room("y")).and(Target::user("ann")), [1, 1, 1, 0, 0]),
        (Target::clients(ids.clone()).and(Target::user("eve")).except(ids[4]), [1, 1, 1, 1, 0]),
        (Target::all().and(Target::room("x")).and(Target::client(ids[0])), [1, 1, 1, 1, 1]),
        (Target::all().and(Target::user("bob")).except(ids[2]), [1, 1, 0, 1, 1]),
        (Target::client(unknown), [0, 0, 0, 0, 0]),
        (Target::rooms(["", "nowhere"]).and(Target::user("")), [0, 0, 0, 0, 0]),
    ];
    for (target, expected) in cases {
        assert_eq!(crowd.copies(&target), expected, "{target:?}");
    }
}

#[test]
fn every_kind_of_message_crosses_as_it_is() {
    let bus = MemoryBus::new();
    let (one, two) = (plain_node(&bus, "one"), plain_node(&bus, "two"));
    let mut far = two.connect();
    let messages = [
        Message::text(""),
        Message::text("grüß <b>&\u{2028}</b> 😀"),
        Message::binary(vec![]),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::binary(vec![7; 300_000]),
    ];
    for message in messages {
        one.hub.send(Target::all(), &message).unwrap();
        let frame = far.frame();
        assert_eq!(
            (frame.first, &frame.payload[..]),
            (if message.is_text() { 0x81 } else { 0x82 }, &message.payload()[..])
        );
    }
}

#[test]
fn event_streams_get_what_other_nodes_send_with_its_name() {
    let bus = MemoryBus::new();
    let one = plain_node(&bus, "one");
    let hub = Hub::builder().cluster(Cluster::new(bus.adapter())).build().unwrap();
    connected(&hub);
    let same = hub.clone();
    let two = TestServer::of(hub, move |server| server.event_stream("/events", &same));
    let mut far = SseClient::connect(two.addr, "/events", "");
    one.hub.send(Target::all(), Message::text("a\nb").with_event_name("news").with_event_id("7")).unwrap();
    let event = far.event();
    assert_eq!((event.name.as_deref(), event.id.as_deref(), event.data.as_str()), (Some("news"), Some("7"), "a\nb"));
}

#[test]
fn a_delivery_says_whether_the_message_was_published() {
    let bus = MemoryBus::new();
    let one = plain_node(&bus, "one");
    let (_socket, client) = one.pair();
    let published = |target: Target<'_>| one.hub.send(target, "x").unwrap().published;
    let unknown: ClientId = "246173a9-650a-4d6f-9630-e7533aed5d60".parse().unwrap();
    assert!(published(Target::all()) && published(Target::room("nowhere")) && published(Target::client(unknown)));
    assert!(published(Target::clients([client.id(), unknown])));
    assert!(!published(Target::client(client.id())), "it is here");
    assert!(!published(Target::clients([client.id(), client.id()])));
    assert!(!published(Target::rooms(Vec::<String>::new())) && !published(Target::room("")));
    assert!(!published(Target::room("x".repeat(wshub::limit::MAX_ROOM_NAME + 1))));
    assert!(one.hub.send_timeout(Target::client(unknown), "x", PATIENCE).unwrap().published);
    one.hub.shutdown(PATIENCE).unwrap();
    assert!(!published(Target::all()), "the hub has left the cluster");
    let alone = Hub::new();
    assert!(!alone.send(Target::all(), "x").unwrap().published);
    for result in [alone.send(unknown, "m"), alone.send_timeout(unknown, "m", PATIENCE)] {
        assert!(matches!(result, Err(SendError::ClientNotFound(m)) if m.as_text() == Some("m")));
    }
}

#[test]
fn one_part_is_published_as_go_nodes_do_and_a_union_so_that_they_understand() {
    let wire = Wire::new(Mood::Works);
    let one = node(hub(), Cluster::new(wire.adapter()).node_id("n"));
    let (_socket, here) = one.pair_to("/ws?user=ann&rooms=x");
    let far: ClientId = "246173a9-650a-4d6f-9630-e7533aed5d60".parse().unwrap();
    let hub = &one.hub;
    here.send("to the client itself: local").unwrap();
    hub.send(here.id(), "local too").unwrap();
    hub.send(Target::all().and(Target::room("x")), "").unwrap();
    hub.send(Target::rooms(["x", "x"]).except(far), "").unwrap();
    hub.send(Target::user("ann").and(Target::client(here.id())), "").unwrap();
    hub.send(Target::user("u").except(far), "").unwrap();
    hub.send(Target::room("x").and(Target::clients([here.id(), far])).and(Target::user("u")), "hi").unwrap();
    let expected = [
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":""}"#,
        r#"{"node_id":"n","type":"room_except","room":"x","except":["F"],"msg_type":1,"data":""}"#,
        r#"{"node_id":"n","type":"user","user_id":"ann","msg_type":1,"data":""}"#,
        r#"{"node_id":"n","type":"user","user_id":"u","except":["F"],"msg_type":1,"data":""}"#,
        concat!(
            r#"{"node_id":"n","type":"room","room":"x","msg_type":1,"data":"aGk=","#,
            r#""union":[{"room":"x"},{"client_id":"F"},{"user_id":"u"}]}"#
        ),
        r#"{"node_id":"n","type":"client","client_id":"F","msg_type":1,"data":"aGk=","part":true}"#,
        r#"{"node_id":"n","type":"user","user_id":"u","msg_type":1,"data":"aGk=","part":true}"#,
    ];
    eventually("all is published", || wire.published().len() >= expected.len());
    assert_eq!(wire.published(), expected.map(|e| e.replace('F', &far.to_string())));
}

#[test]
fn what_arrives_is_delivered_and_never_published_again() {
    let wire = Wire::new(Mood::Works);
    let (metrics, builder) = counted(hub());
    let one = node(builder, Cluster::new(wire.adapter()).node_id("n"));
    let mut socket = one.connect_to("/ws?user=ann&rooms=x");
    let id = one.hub.clients()[0].id().to_string();
    let from_go = [
        r#"{"node_id":"go","type":"broadcast","msg_type":1,"data":"MQ=="}"#,
        r#"{"node_id":"go","type":"broadcast_except","except":["ID"],"msg_type":1,"data":"bm8="}"#,
        r#"{"node_id":"go","type":"room","room":"x","msg_type":1,"data":"Mg=="}"#,
        r#"{"node_id":"go","type":"room_except","room":"x","except":["not-an-id"],"msg_type":1,"data":"Mw=="}"#,
        r#"{"node_id":"go","type":"user","user_id":"ann","msg_type":1,"data":"NA=="}"#,
        r#"{"node_id":"go","type":"client","client_id":"ID","msg_type":1,"data":"NQ=="}"#,
        r#"{"node_id":"go","type":"client","client_id":"not-an-id","msg_type":1,"data":"bm8="}"#,
        // Its own, a further part of a union, and heartbeats where presence is off: nothing.
        r#"{"node_id":"n","type":"broadcast","msg_type":1,"data":"bm8="}"#,
        r#"{"type":"broadcast","node_id":"n","msg_type":1,"data":"bm8="}"#,
        r#"{"node_id":"go","type":"broadcast","msg_type":1,"data":"bm8=","part":true}"#,
        r#"{"node_id":"go","type":"presence","msg_type":0,"data":"bm8="}"#,
        // The whole union at once, one copy.
        concat!(
            r#"{"node_id":"r","type":"room","room":"no","msg_type":1,"data":"Ng==","#,
            r#""union":[{"room":"x"},{"user_id":"ann"},{"client_id":"ID"}]}"#,
        ),
        // A replay cannot be told from a message that is sent twice.
        r#"{"node_id":"go","type":"room","room":"x","msg_type":1,"data":"Mg=="}"#,
    ];
    from_go.iter().for_each(|line| wire.receive(line.replace("ID", &id)));
    one.hub.send(Target::all(), "end").unwrap();
    assert_eq!(socket.texts_until_end(), ["1", "2", "3", "4", "5", "6", "2"]);
    eventually("the end is published", || metrics.stats().adapter_published == 1);
    assert_eq!(wire.payloads(), ["end"]);
    let stats = metrics.stats();
    assert_eq!((stats.adapter_received, stats.adapter_published, stats.adapter_dropped), (9, 1, 0));
    assert_eq!(stats.errors.get(&ErrorType::AdapterDecode), None);
}

#[test]
fn what_is_no_envelope_is_counted_and_handed_over_and_hurts_nobody() {
    let wire = Wire::new(Mood::Works);
    let (metrics, builder) = counted(Hub::builder());
    let log = Log::default();
    let seen = log.clone();
    let cluster = Cluster::new(wire.adapter()).max_envelope(200).on_decode_error(move |error, bytes| {
        seen.add(format!("{} bytes: {error}", bytes.len()));
        assert!(bytes != b"panic", "the handler's own");
    });
    let one = node(builder, cluster);
    let mut socket = one.connect();
    wire.receive("nonsense");
    wire.receive("panic");
    wire.receive([0xff; 64]);
    wire.receive(format!(r#"{{"node_id":"x","type":"broadcast","msg_type":1,"data":"{}"}}"#, "A".repeat(200)));
    wire.receive(r#"{"node_id":"x","type":"room","msg_type":1,"data":""}"#);
    wire.receive(r#"{"node_id":"x","type":"broadcast","msg_type":1,"data":"ZW5k"}"#);
    assert!(socket.texts_until_end().is_empty());
    assert_eq!((errors(&metrics, ErrorType::AdapterDecode), errors(&metrics, ErrorType::Panic)), (5, 1));
    let all = log.all();
    assert_eq!(all.len(), 5);
    assert!(all[3].contains("exceeds max_envelope") && all[4].contains("without a name"), "{all:?}");
}

#[test]
fn the_order_of_each_sender_is_kept_on_every_node() {
    const SENDERS: usize = 4;
    const MESSAGES: usize = 400;
    let bus = MemoryBus::new();
    let config = Config::default().queue_messages(100_000).queue_bytes(1 << 28);
    let cluster = |id: &str| Cluster::new(bus.adapter()).node_id(id).max_age(3 * PATIENCE);
    let nodes = ["a", "b", "c"].map(|id| node(Hub::builder().config(config.clone()), cluster(id)));
    let mut sockets: Vec<_> = nodes.iter().map(TestServer::connect).collect();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let hub = &nodes[sender % 2].hub;
            scope.spawn(move || {
                for n in 0..MESSAGES {
                    assert!(hub.send(Target::all(), format!("{sender} {n}")).unwrap().published);
                }
            });
        }
        for socket in &mut sockets {
            scope.spawn(move || {
                let mut next = [0; SENDERS];
                for _ in 0..SENDERS * MESSAGES {
                    let text = socket.text();
                    let (sender, n) = text.split_once(' ').unwrap();
                    let sender: usize = sender.parse().unwrap();
                    assert_eq!(n.parse(), Ok(next[sender]), "of sender {sender}");
                    next[sender] += 1;
                }
            });
        }
    });
}

#[test]
fn a_slow_client_holds_up_no_other_and_no_node() {
    let bus = MemoryBus::new();
    let config = deep_queue(Config::default());
    let one = node(Hub::builder().config(config.clone()), Cluster::new(bus.adapter()));
    let two = node(Hub::builder().config(config), Cluster::new(bus.adapter()));
    let ((_slow_here, here), (_slow_far, far)) = (one.pair(), two.pair());
    let mut reader = two.connect();
    stall(&here);
    stall(&far);
    for n in 0..300 {
        one.hub.send(Target::all(), n.to_string()).unwrap();
        assert_eq!(reader.text(), n.to_string());
    }
    // A send that waits for a client here lets the others have theirs at once.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| one.hub.send_timeout(Target::all(), "waits", 3 * PATIENCE).unwrap());
        assert_eq!(reader.text(), "waits");
        assert!(!waiting.is_finished());
        here.close(1000, "").unwrap();
        assert!(waiting.join().unwrap().published);
    });
}

#[test]
fn envelopes_that_come_together_are_delivered_in_order() {
    let wire = Wire::new(Mood::Works);
    let one = node(Hub::builder(), Cluster::new(wire.adapter()));
    let mut socket = one.connect();
    let envelope = |n: usize| format!(r#"{{"node_id":"x","type":"broadcast","msg_type":1,"data":"Nzc{n}"}}"#);
    let broken = vec!["{".to_owned()];
    wire.receive_all(&[(0..4).map(envelope).collect(), broken, (4..8).map(envelope).collect()].concat());
    let texts: Vec<_> = (0..8).map(|_| socket.text()).collect();
    assert!(texts.is_sorted() && texts[0] != texts[7], "{texts:?}");
}

#[test]
fn a_draining_hub_still_delivers_and_publishes() {
    let bus = MemoryBus::new();
    let (one, two) = (plain_node(&bus, "one"), plain_node(&bus, "two"));
    let (mut here, mut far) = (one.connect(), two.connect());
    assert_eq!(one.hub.drain(Duration::ZERO).unwrap_err().remaining, 1);
    two.hub.send(Target::all(), "from afar").unwrap();
    one.hub.send(Target::all(), "from here").unwrap();
    let mut got = [here.text(), here.text()];
    got.sort();
    assert_eq!(got, ["from afar", "from here"]);
    assert_eq!((far.text(), far.text()), ("from afar".into(), "from here".into()));
}

#[test]
fn the_last_words_of_a_hub_are_published() {
    let bus = MemoryBus::new();
    let two = plain_node(&bus, "two");
    let mut far = two.connect();
    let builder = Hub::builder().after_disconnect(|client| {
        client.hub().send(Target::all(), "it has left").unwrap();
    });
    let one = node(builder, Cluster::new(bus.adapter()));
    let mut here = one.connect();
    thread::scope(|scope| {
        scope.spawn(|| here.expect_close());
        one.hub.shutdown(PATIENCE).unwrap();
    });
    assert_eq!(far.text(), "it has left");
}

#[test]
fn health_tells_of_the_adapter_only_where_there_is_one() {
    let wire = Wire::new(Mood::Works);
    let one = node(Hub::builder(), Cluster::new(wire.adapter()));
    let (status, body) = get(one.addr, "/readyz");
    assert!(status == 200 && body.ends_with(r#","clients":0,"adapter":"connected"}"#), "{body}");
    wire.subscribing(Mood::Unavailable);
    eventually("disconnected", || get(one.addr, "/readyz").1.ends_with(r#","adapter":"disconnected"}"#));
    assert_eq!(get(one.addr, "/readyz").0, 200, "its clients are served all the same");
    one.hub.shutdown(PATIENCE).unwrap();
    assert!(get(one.addr, "/healthz").1.ends_with(r#","adapter":"closed"}"#));
    let alone = TestServer::new(Hub::builder());
    let (_, body) = get(alone.addr, "/healthz");
    assert!(body.ends_with(r#","clients":0}"#), "{body}");
    assert_eq!(alone.hub.adapter_state(), None);
    assert_eq!(alone.hub.node_id().len(), 36);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
    let field = |change: fn(Cluster) -> Cluster| {
        let cluster = change(Cluster::new(MemoryBus::new().adapter()));
        Hub::builder().cluster(cluster).build().map_err(|error| error.field())
    };
    assert_eq!(field(|c| c.node_id("")), Err("node_id"));
    assert_eq!(field(|c| c.queue_messages(0)), Err("queue_messages"));
    assert_eq!(field(|c| c.queue_bytes(0)), Err("queue_bytes"));
    assert_eq!(field(|c| c.max_age(Duration::ZERO)), Err("max_age"));
    assert_eq!(field(|c| c.max_age(Duration::MAX)), Err("max_age"));
    assert_eq!(field(|c| c.max_envelope(0)), Err("max_envelope"));
    assert_eq!(field(|c| c.presence(Duration::MAX)), Err("presence"));
    assert_eq!(field(|c| c.backoff(Duration::ZERO, Duration::MAX)), Err("backoff"));
    let (nano, milli) = (Duration::from_nanos(1), Duration::from_millis(1));
    for (first, longest) in [(nano, second), (milli, Duration::MAX)] {
        let cluster = Cluster::new(MemoryBus::new().adapter()).backoff(first, longest);
        assert_eq!(Hub::builder().cluster(cluster).build().unwrap_err().field(), "backoff");
    }
    let error = Hub::builder().cluster(Cluster::new(MemoryBus::new().adapter()).backoff(day, second)).build();
    assert_eq!(error.unwrap_err().to_string(), "backoff 86400s must not exceed the longest wait 1s");
    let cluster = Cluster::new(MemoryBus::new().adapter()).presence(Duration::ZERO).backoff(milli, milli);
    assert!(Hub::builder().cluster(cluster).build().is_ok());
}
