//! The binary rooms protocol over raw sockets: the effect of each frame, refusals and races.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::{BINARY, Log, TestServer, WsClient, counted, errors, eventually, exchange, status, upgrade_request};
use wshub::protocol::binary::{BinaryRooms, Claims, Conn, Frame, ROOT, RegisterError, send_to_client, send_to_room};
use wshub::{ClientId, DropPolicy, Hub, HubBuilder, Limits, Rejection, SendError, metrics::ErrorType};

/// `?token=NAME` gives the claim `user`; `?token=banned` is refused with 403, `?token=` gives no claims.
fn protocol() -> BinaryRooms {
    let mut rooms = BinaryRooms::new(|head| match head.query_param("token").as_deref() {
        Some("banned") => Err(Rejection::forbidden()),
        Some("") => Ok(Claims::new()),
        Some(name) => Ok(Claims::from([("user".into(), name.into())])),
        None => Err(Rejection::unauthorized()),
    });
    let echo = |conn: &Conn, message: &Frame| {
        assert!(conn.try_send(&Frame::new(ROOT, "echo", &message.src, &message.src, message.payload.clone())));
        Ok(())
    };
    rooms.register_handler("echo", echo).unwrap();
    let announce = |conn: &Conn, message: &Frame| {
        conn.send_to_room(&message.room, "announced", conn.claims()["user"].clone());
        Ok(())
    };
    rooms.register_handler("announce", announce).unwrap();
    rooms
}

fn serve() -> TestServer {
    TestServer::new(protocol().install(Hub::builder()))
}

/// Logs every error that handlers report.
fn logged(builder: HubBuilder) -> (Log, HubBuilder) {
    let log = Log::default();
    let errors = log.clone();
    (log, builder.on_error(move |_, error| errors.add(error.to_string())))
}

/// A connection that has read its `join_ack` of `root`.
struct Peer {
    socket: WsClient,
    id: String,
}

impl Peer {
    fn connect(server: &TestServer) -> Self {
        let mut socket = server.connect_to("/ws?token=ann");
        let ack = receive(&mut socket);
        assert_eq!((ack.room.as_str(), ack.event.as_str(), ack.dst.as_str()), (ROOT, "join_ack", ""));
        assert!(ids(&ack).contains(&ack.src));
        Self { socket, id: ack.src }
    }

    fn send(&mut self, room: &str, event: &str, dst: &str, payload: &str) {
        self.send_message(&Frame::new(room, event, dst, "", payload.to_owned()));
    }

    fn send_message(&mut self, message: &Frame) {
        self.socket.send_frame(BINARY, &message.encode());
    }

    fn receive(&mut self) -> Frame {
        receive(&mut self.socket)
    }

    /// Gives the answer; what else comes before it is passed over.
    fn join(&mut self, room: &str) -> Frame {
        self.send(room, "join", "", "");
        self.next_ack()
    }

    fn next_ack(&mut self) -> Frame {
        loop {
            let message = self.receive();
            if message.event.ends_with("_ack") {
                return message;
            }
        }
    }

    fn expect(&mut self, room: &str, event: &str, dst: &str, src: &str, payload: &str) {
        assert_eq!(self.receive(), Frame::new(room, event, dst, src, payload.to_owned()));
    }

    /// Nothing has been sent to this connection but what has been read.
    fn expect_nothing(&mut self) {
        self.socket.sync();
    }
}

/// The next frame, decoded by hand: what the crate's codec says is not its own witness.
fn receive(socket: &mut WsClient) -> Frame {
    let frame = socket.frame();
    assert_eq!(frame.first, BINARY, "{frame:?}");
    let mut rest = &frame.payload[..];
    let mut field = || {
        let (length, behind) = rest.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap());
        let (field, behind) = behind.split_at(usize::try_from(length).unwrap());
        rest = behind;
        field.to_vec()
    };
    let fields: Vec<Vec<u8>> = (0..5).map(|_| field()).collect();
    assert!(rest.is_empty());
    let text = |n: usize| String::from_utf8(fields[n].clone()).unwrap();
    Frame::new(text(0), text(1), text(2), text(3), fields[4].clone())
}

fn ids(ack: &Frame) -> Vec<String> {
    serde_json::from_slice(&ack.payload).unwrap()
}

#[test]
fn everyone_joins_root_first() {
    let server = serve();
    let mut ann = Peer::connect(&server);
    let mut bob = server.connect_to("/ws?token=bob");
    let ack = receive(&mut bob);
    let mut members = ids(&ack);
    members.sort();
    let mut expected = vec![ann.id.clone(), ack.src.clone()];
    expected.sort();
    assert_eq!(members, expected);
    ann.expect(ROOT, "new_member", "", "", &ack.src);
    bob.close();
    ann.expect(ROOT, "member_left", "", "", &ack.src);
}

#[test]
fn joins_and_leaves_are_told_to_the_room() {
    let server = serve();
    let (mut ann, mut bob) = (Peer::connect(&server), Peer::connect(&server));
    ann.expect(ROOT, "new_member", "", "", &bob.id);
    let id = ann.id.clone();
    let ack = ann.join("lobby");
    assert_eq!(ack, Frame::new("lobby", "join_ack", "", &id, format!("[\"{id}\"]")));
    let ack = bob.join("lobby");
    assert_eq!((ack.event.as_str(), &ack.src), ("join_ack", &bob.id));
    assert_eq!(ids(&ack).len(), 2);
    ann.expect("lobby", "new_member", "", "", &bob.id);
    bob.send("lobby", "leave", "", "");
    let id = bob.id.clone();
    bob.expect("lobby", "leave_ack", "", &id, &id);
    ann.expect("lobby", "member_left", "", "", &id);
    assert_eq!(server.hub.room_size("lobby"), 1);
}

#[test]
fn joining_and_leaving_twice_is_acknowledged_and_not_told() {
    let server = serve();
    let (mut ann, mut bob) = (Peer::connect(&server), Peer::connect(&server));
    ann.expect(ROOT, "new_member", "", "", &bob.id);
    ann.join("lobby");
    bob.join("lobby");
    ann.expect("lobby", "new_member", "", "", &bob.id);
    assert_eq!(ids(&bob.join("lobby")).len(), 2);
    let id = bob.id.clone();
    for _ in 0..2 {
        bob.send("lobby", "leave", "", "");
        bob.expect("lobby", "leave_ack", "", &id, &id);
    }
    bob.send("never", "leave", "", "");
    bob.expect("never", "leave_ack", "", &id, &id);
    ann.expect("lobby", "member_left", "", "", &id);
    ann.expect_nothing();
}

#[test]
fn a_room_message_goes_to_the_others_with_the_senders_id() {
    let server = serve();
    let (mut ann, mut bob, mut eve) = (Peer::connect(&server), Peer::connect(&server), Peer::connect(&server));
    ann.join("lobby");
    bob.join("lobby");
    // A forged src, and a payload that is not text.
    let sent = Frame::new("lobby", "chat", "", &eve.id, vec![0, 255, 128]);
    ann.send_message(&sent);
    let id = ann.id.clone();
    assert_eq!(bob.receive(), Frame { src: id, ..sent });
    eve.expect_nothing();
    ann.expect("lobby", "new_member", "", "", &bob.id);
    ann.expect_nothing();
}

#[test]
fn a_direct_message_goes_to_one_client_through_root() {
    let server = serve();
    let (mut ann, mut bob) = (Peer::connect(&server), Peer::connect(&server));
    ann.expect(ROOT, "new_member", "", "", &bob.id);
    // The event has a handler, the sender is not in the room, and src is forged: dst comes first.
    bob.send_message(&Frame::new("anywhere", "echo", &ann.id, "forged", "psst"));
    let (ann_id, bob_id) = (ann.id.clone(), bob.id.clone());
    ann.expect(ROOT, "echo", &ann_id, &bob_id, "psst");
    // To oneself.
    bob.send("", "note", &bob_id, "self");
    bob.expect(ROOT, "note", &bob_id, &bob_id, "self");
}

#[test]
fn handlers_come_before_the_room() {
    let server = serve();
    let (mut ann, mut bob) = (Peer::connect(&server), Peer::connect(&server));
    ann.expect(ROOT, "new_member", "", "", &bob.id);
    let (ann_id, bob_id) = (ann.id.clone(), bob.id.clone());
    bob.send(ROOT, "echo", "", "again");
    bob.expect(ROOT, "echo", &bob_id, &bob_id, "again");
    ann.expect_nothing();
    ann.send(ROOT, "announce", "", "");
    bob.expect(ROOT, "announced", "", &ann_id, "ann");
    ann.expect_nothing();
}

#[test]
fn the_server_speaks_with_an_empty_src() {
    let server = serve();
    let mut ann = Peer::connect(&server);
    let id = ann.id.clone();
    let delivery = send_to_room(&server.hub, ROOT, "news", "for all");
    assert_eq!((delivery.queued, delivery.dropped), (1, 0));
    ann.expect(ROOT, "news", "", "", "for all");
    let client_id: ClientId = id.parse().unwrap();
    send_to_client(&server.hub, client_id, "news", "for one").unwrap();
    ann.expect(ROOT, "news", &id, "", "for one");
    assert_eq!(send_to_room(&server.hub, "nobody", "news", "").queued, 0);
    let nobody: ClientId = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    assert!(matches!(send_to_client(&server.hub, nobody, "news", ""), Err(SendError::ClientNotFound(_))));
    // What the server does to a client is told like what the client asks for.
    let client = server.hub.client(client_id).unwrap();
    assert_eq!(Conn::of(&client).unwrap().claims()["user"], "ann");
    client.join("vip").unwrap();
    ann.expect("vip", "join_ack", "", &id, &format!("[\"{id}\"]"));
    client.leave("vip").unwrap();
    ann.expect("vip", "leave_ack", "", &id, &id);
}

#[test]
fn without_claims_there_is_no_upgrade() {
    let server = serve();
    for (target, expected) in [("/ws", 401), ("/ws?token=", 401), ("/ws?token=banned", 403), ("/ws?token=ann", 101)] {
        let answer = exchange(server.addr, upgrade_request(&format!("GET {target} HTTP/1.1"), &[]).as_bytes());
        assert_eq!(status(&answer), expected, "{target}");
    }
}

#[test]
fn what_is_refused_reaches_nobody_and_the_connection_stays() {
    let (reported, builder) =
        logged(protocol().install(Hub::builder()).limits(Limits::default().max_rooms_per_client(2)));
    let server = TestServer::new(builder);
    let (mut ann, mut bob) = (Peer::connect(&server), Peer::connect(&server));
    ann.expect(ROOT, "new_member", "", "", &bob.id);
    ann.join("lobby");
    let too_long = "x".repeat(257);
    let refused = [
        ("lobby", "chat", "", "the client is not in the room"),
        ("nowhere", "chat", "", "the client is not in the room"),
        ("", "chat", "", "the client is not in the room"),
        (ROOT, "chat", "nobody", "dst is not the id of a client"),
        (ROOT, "chat", "00000000-0000-4000-8000-000000000000", "no such client"),
        (ROOT, "join_ack", "", "join_ack is sent by the server only"),
        (ROOT, "leave_ack", "", "leave_ack is sent by the server only"),
        (ROOT, "new_member", "", "new_member is sent by the server only"),
        (ROOT, "member_left", &ann.id.clone(), "member_left is sent by the server only"),
        ("", "join", "", "the room name is empty"),
        ("", "leave", "", "the room name is empty"),
        (&too_long, "join", "", "the room name is longer than 256 bytes"),
    ];
    for (room, event, dst, _) in refused {
        bob.send(room, event, dst, "");
    }
    bob.join("second");
    bob.send("third", "join", "", "");
    bob.expect_nothing();
    let mut expected: Vec<&str> = refused.iter().map(|(.., error)| *error).collect();
    expected.push("the client has reached max_rooms_per_client");
    assert_eq!(reported.all(), expected);
    ann.expect_nothing();
}

#[test]
fn joins_can_be_refused_by_a_hook() {
    let builder = protocol().install(Hub::builder()).before_room_join(|_, room| match room {
        "private" => Err("members only".into()),
        _ => Ok(()),
    });
    let (log, builder) = logged(builder);
    let server = TestServer::new(builder);
    let mut ann = Peer::connect(&server);
    ann.send("private", "join", "", "");
    ann.expect_nothing();
    assert_eq!(log.all(), ["joining was refused: members only"]);
    assert!(!server.hub.room_exists("private"));
}

/// Frames that are no messages, each wrong in one way.
fn malformed() -> Vec<Vec<u8>> {
    let good = Frame::new(ROOT, "chat", "", "", "hello").encode();
    let mut frames: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
    frames.push([&good[..], b"\0"].concat());
    for at in [0, 8, 16, 20, 24] {
        for length in [100, u32::MAX] {
            let mut frame = good.clone();
            frame[at..at + 4].copy_from_slice(&u32::to_be_bytes(length));
            frames.push(frame);
        }
    }
    let mut not_utf8 = good;
    not_utf8[5] = 0xff;
    frames.push(not_utf8);
    frames
}

#[test]
fn malformed_frames_close_with_1002_and_are_counted() {
    let (metrics, builder) = counted(protocol().install(Hub::builder()));
    let server = TestServer::new(builder);
    let mut witness = Peer::connect(&server);
    let frames = malformed();
    let count = frames.len() as u64;
    for frame in frames {
        let mut peer = Peer::connect(&server);
        witness.expect(ROOT, "new_member", "", "", &peer.id);
        peer.socket.send_frame(BINARY, &frame);
        // What follows is not looked at.
        peer.send(ROOT, "chat", "", "too late");
        assert_eq!(peer.socket.expect_close().0, 1002, "{frame:?}");
        witness.expect(ROOT, "member_left", "", "", &peer.id);
    }
    assert_eq!(errors(&metrics, ErrorType::ProtocolError), count);
    assert_eq!(errors(&metrics, ErrorType::MessageHandling), 0);
}

#[test]
fn text_and_oversized_messages_close() {
    let (metrics, builder) = counted(protocol().install(Hub::builder()));
    let server = TestServer::new(builder);
    let mut peer = Peer::connect(&server);
    peer.socket.send_text("{}");
    assert_eq!(peer.socket.expect_close(), (1003, "binary messages only".into()));
    assert_eq!(errors(&metrics, ErrorType::ProtocolError), 1);
    eventually("the first is gone", || server.hub.room_size(ROOT) == 0);
    let mut peer = Peer::connect(&server);
    let id = peer.id.clone();
    let overhead = Frame::new(ROOT, "echo", "", "", "").encode().len();
    let largest = "x".repeat(65_536 - overhead);
    peer.send(ROOT, "echo", "", &largest);
    peer.expect(ROOT, "echo", &id, &id, &largest);
    peer.send(ROOT, "echo", "", &(largest + "x"));
    assert_eq!(peer.socket.expect_close().0, 1009);
}

#[test]
fn names_of_handlers_are_checked() {
    let mut rooms = protocol();
    let nothing = |_: &Conn, _: &Frame| Ok(());
    assert_eq!(rooms.register_handler("", nothing), Err(RegisterError::EmptyName));
    assert_eq!(rooms.register_handler("echo", nothing), Err(RegisterError::Duplicate));
    for name in ["join", "leave", "join_ack", "leave_ack", "new_member", "member_left"] {
        assert_eq!(rooms.register_handler(name, nothing), Err(RegisterError::Reserved), "{name}");
    }
    assert_eq!(rooms.register_handler("other", nothing), Ok(()));
}

#[test]
fn defaults_are_the_protocols() {
    let config = BinaryRooms::config();
    assert_eq!((config.max_message_size, config.queue_messages), (65_536, 256));
    assert_eq!(config.drop_policy, DropPolicy::Disconnect);
    let seconds = Duration::from_secs;
    assert_eq!((config.write_timeout, config.pong_timeout), (seconds(10), seconds(60)));
    assert_eq!(config.ping_period, seconds(25));
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let (metrics, builder) = counted(protocol().install(Hub::builder()));
    let server = TestServer::new(builder);
    let slow = Peer::connect(&server);
    let client = server.hub.client(slow.id.parse().unwrap()).unwrap();
    let news = vec![0; 60_000];
    for _ in 0..1000 {
        send_to_room(&server.hub, ROOT, "news", news.clone());
        if client.is_closed() {
            break;
        }
    }
    assert!(client.is_closed());
    assert_eq!(metrics.stats().messages_dropped, 1);
}

#[test]
fn a_thousand_joins_are_a_thousand_acks() {
    let server = serve();
    let mut ann = Peer::connect(&server);
    let id = ann.id.clone();
    for n in 0..1000 {
        let ack = ann.join(&format!("room {n}"));
        assert_eq!((ack.event.as_str(), &ack.src), ("join_ack", &id));
    }
    assert_eq!(server.hub.room_names().len(), 1001);
    ann.socket.close();
    eventually("all rooms are gone", || server.hub.room_names().is_empty());
}

/// Applies what a member is told; at the end it must know exactly the members.
#[test]
fn racing_joins_and_leaves_add_up_for_every_member() {
    const ROUNDS: usize = 200;
    let server = serve();
    let mut watcher = Peer::connect(&server);
    let barrier = Arc::new(Barrier::new(3));
    let racers: Vec<_> = (0..2)
        .map(|_| {
            let (mut peer, barrier) = (Peer::connect(&server), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                for round in 0..ROUNDS {
                    peer.send("lobby", if round % 2 == 0 { "join" } else { "leave" }, "", "");
                    peer.next_ack();
                }
                peer.join("lobby");
                peer
            })
        })
        .collect();
    barrier.wait();
    watcher.join_until_told("lobby");
    let racers: Vec<Peer> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    let mut known = watcher.members_told("lobby");
    known.sort();
    let mut actual: Vec<String> = server.hub.room_clients("lobby").iter().map(|c| c.id().to_string()).collect();
    actual.sort();
    assert_eq!((known, actual.len()), (actual, racers.len() + 1));
}

impl Peer {
    /// Joins again and again while others race; every ack is a fresh start.
    fn join_until_told(&mut self, room: &str) {
        for _ in 0..50 {
            self.send(room, "join", "", "");
            self.send(room, "leave", "", "");
        }
        self.send(room, "join", "", "");
    }

    /// The members of the room by all that has come so far.
    fn members_told(&mut self, room: &str) -> Vec<String> {
        self.send(ROOT, "echo", "", "end");
        let mut members = Vec::new();
        loop {
            let message = self.receive();
            let payload = std::str::from_utf8(&message.payload).unwrap();
            match message.event.as_str() {
                "echo" if payload == "end" => return members,
                "join_ack" if message.room == room => members = ids(&message),
                "new_member" if message.room == room => {
                    members.retain(|id| id != payload);
                    members.push(payload.to_owned());
                }
                "member_left" if message.room == room => members.retain(|id| id != payload),
                _ => {}
            }
        }
    }
}
