//! `cargo bench --bench dispatch`, in `benches/parts`.
//!
//! One message to every kind of target, joins and leaves, connects, by the number of clients.
//! The clients have no sockets: everything is done but for the system calls.
//!
//! The floor of a send is one thread that goes through a list of as many slots, each a cache line behind a pointer, and
//! under each slot's lock stores a clone of the message's `Arc`: what the memory costs, whoever does it. Each
//! recipient's outbox is such a line; the lines of both lie in memory in the order of the list. `client` is one
//! recipient among so many; `union` is a room and another with half of the clients, each of whom gets one copy;
//! `except` leaves one out.
//!
//! The floor of `join and leave` and of `connect and disconnect` is putting an `Arc` into a map of as many entries,
//! behind a lock, and taking it out again, for the connect a new one. The hub keeps more than one map, and a connect is
//! also a handshake to check and to answer. `join, send, leave` has the floor of the send: the first send after a
//! change makes the room's list again.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::{Bench, Way, each, head};
use parking_lot::{Mutex, RwLock};
use wshub::internals::SinkClient;
use wshub::{Admission, ClientId, Hub, Message, Target};

const SIZES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
const MESSAGE: &str = "a reading of 21.5 degrees, noon.";
/// Wire bytes.
const FRAME: u32 = 2 + 32;

/// What the floor stores a message in.
#[repr(align(64))]
struct Slot(Mutex<Option<Arc<str>>>);

/// What the floor keeps clients in.
type Map = RwLock<HashMap<ClientId, Arc<Slot>>>;

fn slot() -> Arc<Slot> {
    Arc::new(Slot(Mutex::new(None)))
}

struct Crowd {
    hub: Hub,
    clients: Vec<SinkClient>,
    slots: Vec<Arc<Slot>>,
    map: Map,
}

fn admission() -> Admission {
    Admission::user("user").room("room")
}

impl Crowd {
    /// All are of one user and in one room, every other one in `half`.
    fn new(count: usize) -> Self {
        let hub = Hub::new();
        let connect = |at: usize| {
            let admission = if at.is_multiple_of(2) { admission().room("half") } else { admission() };
            SinkClient::connect(&hub, head(), admission).unwrap()
        };
        let clients: Vec<_> = (0..count).map(connect).collect();
        let slots: Vec<_> = clients.iter().map(|_| slot()).collect();
        let ids = clients.iter().map(|client| client.client().id());
        let map = ids.zip(&slots).map(|(id, slot)| (id, Arc::clone(slot))).collect();
        Self { hub, clients, slots, map: RwLock::new(map) }
    }

    /// In the middle of the list.
    fn one(&self) -> &SinkClient {
        &self.clients[self.clients.len() / 2]
    }

    fn send(&self, target: Target<'_>, recipients: usize, message: &Message) {
        let delivery = self.hub.send(target, message).unwrap();
        assert_eq!((delivery.queued, delivery.dropped), (recipients, 0));
    }

    /// Sends once, and looks who has got it.
    fn check(&self, target: &Target<'_>, recipients: usize) {
        let written = || self.clients.iter().map(SinkClient::written).collect::<Vec<_>>();
        let before = written();
        self.send(target.clone(), recipients, &Message::text(MESSAGE));
        let got: Vec<u32> = before.iter().zip(written()).map(|(before, after)| after.wrapping_sub(*before)).collect();
        assert_eq!(got.iter().filter(|bytes| **bytes == FRAME).count(), recipients);
        assert_eq!(got.iter().filter(|bytes| **bytes == 0).count(), self.clients.len() - recipients);
    }

    /// The floor of a send.
    fn store(&self, recipients: usize) -> Way<'_> {
        each(move || {
            let message: Arc<str> = MESSAGE.into();
            self.slots[..recipients].iter().for_each(|slot| *slot.0.lock() = Some(Arc::clone(&message)));
        })
    }

    /// The floor of coming and going.
    fn put_and_take<'a>(&'a self, mut entry: impl FnMut() -> (ClientId, Arc<Slot>) + 'a) -> Way<'a> {
        each(move || {
            let (id, slot) = entry();
            self.map.write().insert(id, slot);
            self.map.write().remove(&id)
        })
    }
}

fn sends(bench: &mut Bench, crowd: &Crowd) {
    let (count, one) = (crowd.clients.len(), crowd.one().client().id());
    let targets = [
        ("all", Target::all(), count),
        ("room", Target::room("room"), count),
        ("user", Target::user("user"), count),
        ("client", Target::client(one), 1),
        ("union", Target::room("half").and(Target::room("room")), count),
        ("except", Target::all().except(one), count - 1),
    ];
    for (name, target, recipients) in targets {
        crowd.check(&target, recipients);
        let message = Message::text(MESSAGE);
        let ours = each(|| crowd.send(target.clone(), recipients, &message));
        bench.case(format!("{name}, {count}"), vec![ours, crowd.store(recipients)]);
    }
}

fn changes(bench: &mut Bench, crowd: &Crowd) {
    let (count, one) = (crowd.clients.len(), crowd.one().client());
    // A client that is in no room yet.
    let guest = SinkClient::connect(&crowd.hub, head(), Admission::anonymous()).unwrap();
    let guest = guest.client();
    let id = guest.id();
    let known = Arc::clone(&crowd.slots[0]);
    let ours = each(|| {
        guest.join("room").unwrap();
        guest.leave("room").unwrap();
    });
    bench.case(format!("join and leave, {count}"), vec![ours, crowd.put_and_take(|| (id, Arc::clone(&known)))]);
    let message = Message::text(MESSAGE);
    let ours = each(|| {
        guest.join("room").unwrap();
        crowd.send(Target::room("room"), count + 1, &message);
        guest.leave("room").unwrap();
    });
    bench.case(format!("join, send, leave, {count}"), vec![ours, crowd.store(count)]);
    let ours = each(|| drop(SinkClient::connect(&crowd.hub, head(), admission()).unwrap()));
    bench.case(format!("connect and disconnect, {count}"), vec![ours, crowd.put_and_take(|| (id, slot()))]);
    assert_eq!(crowd.hub.client_count(), count + 1);
    assert!(one.in_room("room") && !guest.in_room("room"));
}

fn main() {
    let mut bench = Bench::new("dispatch", &["floor"], 20, 1.0);
    for count in SIZES {
        let crowd = Crowd::new(count);
        sends(&mut bench, &crowd);
        changes(&mut bench, &crowd);
    }
    bench.finish();
}
