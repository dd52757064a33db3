//! What reaches whom over a broker, in one process.

use std::thread;

use wshub::{Client, ClientId, Message, Target};

use super::{Bus, node};
use crate::common::broker::Broker;
use crate::common::{BINARY, TEXT, TestServer, WsClient};

/// Six clients on two or three nodes.
struct Crowd {
    nodes: Vec<TestServer>,
    sockets: Vec<WsClient>,
    clients: Vec<Client>,
}

const CROWD: [&str; 6] =
    ["user=ann&rooms=x", "user=ann&rooms=x,y", "user=bob&rooms=y", "", "user=eve&rooms=z", "rooms=x"];

impl Crowd {
    fn new<B: Bus>(broker: &Broker, nodes: usize) -> Self {
        let nodes: Vec<_> = (0..nodes).map(|n| node::<B>(broker, &format!("node-{n}")).0).collect();
        let pair = |(n, query): (usize, &&str)| nodes[n % nodes.len()].pair_to(&format!("/ws?{query}"));
        let (sockets, clients) = CROWD.iter().enumerate().map(pair).unzip();
        Self { nodes, sockets, clients }
    }

    /// Sends from each node in turn, and says how many copies each client gets.
    fn copies(&mut self, target: &Target<'_>) -> Vec<usize> {
        let mut all = Vec::new();
        for from in &self.nodes {
            from.hub.send(target.clone(), "x").unwrap();
            from.hub.send(Target::all(), "end").unwrap();
            all.push(self.sockets.iter_mut().map(|s| s.texts_until_end().len()).collect::<Vec<_>>());
        }
        assert!(all.iter().all(|copies| *copies == all[0]), "it matters from where: {all:?}");
        all.swap_remove(0)
    }
}

pub(crate) fn every_target_crosses_two_and_three_nodes<B: Bus>() {
    let broker = B::broker();
    for nodes in [2, 3] {
        let mut crowd = Crowd::new::<B>(&broker, nodes);
        let ids: Vec<ClientId> = crowd.clients.iter().map(Client::id).collect();
        let cases: [(Target<'_>, [usize; 6]); 12] = [
            (Target::all(), [1, 1, 1, 1, 1, 1]),
            (Target::all().except(ids[0]).except(ids[3]), [0, 1, 1, 0, 1, 1]),
            (Target::room("x"), [1, 1, 0, 0, 0, 1]),
            (Target::room("x").except(ids[1]), [1, 0, 0, 0, 0, 1]),
            (Target::rooms(["x", "y"]), [1, 1, 1, 0, 0, 1]),
            (Target::user("ann"), [1, 1, 0, 0, 0, 0]),
            (Target::users(["ann", "eve"]).except(ids[4]), [1, 1, 0, 0, 0, 0]),
            (Target::client(ids[2]), [0, 0, 1, 0, 0, 0]),
            (Target::clients([ids[0], ids[3], ids[5]]), [1, 0, 0, 1, 0, 1]),
            (Target::client(ids[1]).and(Target::room("y")).and(Target::user("ann")), [1, 1, 1, 0, 0, 0]),
            (Target::all().and(Target::user("bob")).except(ids[2]), [1, 1, 0, 1, 1, 1]),
            (Target::room("nowhere"), [0; 6]),
        ];
        for (target, expected) in cases {
            assert_eq!(crowd.copies(&target), expected, "{nodes} nodes: {target:?}");
        }
    }
}

pub(crate) fn payloads_cross_as_they_are<B: Bus>() {
    let broker = B::broker();
    let (one, two) = (node::<B>(&broker, "one").0, node::<B>(&broker, "two").0);
    let mut far = two.connect();
    let messages = [
        Message::text(""),
        Message::text("grüß <b>&\u{2028}</b> 😀\r\n$5\r\n"),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::binary(vec![7; 500_000]),
    ];
    for message in messages {
        one.hub.send(Target::all(), &message).unwrap();
        let frame = far.frame();
        let first = if message.is_text() { TEXT } else { BINARY };
        assert!(frame.first == first && frame.payload == message.payload()[..], "{message:?}");
    }
}

/// Three nodes, each of which sends to all as fast as it can, in bursts that the queue for the broker holds.
pub(crate) fn the_order_of_each_sender_is_kept<B: Bus>() {
    const MESSAGES: usize = 3000;
    let broker = B::broker();
    let nodes = ["a", "b", "c"].map(|id| node::<B>(&broker, id).0);
    let mut sockets: Vec<_> = nodes.iter().map(TestServer::connect).collect();
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(move || {
                for n in 0..MESSAGES {
                    node.hub.send(Target::all(), format!("{} {n}", node.hub.node_id())).unwrap();
                }
                node.hub.send(Target::all(), "end").unwrap();
            });
        }
        for socket in &mut sockets {
            scope.spawn(|| {
                let texts: Vec<_> = (0..nodes.len()).flat_map(|_| socket.texts_until_end()).collect();
                for id in ["a", "b", "c"] {
                    let own = texts.iter().filter_map(|t| t.strip_prefix(id)?.trim().parse::<usize>().ok());
                    assert!(own.eq(0..MESSAGES), "from {id}");
                }
            });
        }
    });
}
