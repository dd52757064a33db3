//! Shared histories: the hub's two threads between its rooms and the store.
//!
//! | mode | messages of shared rooms | left by |
//! | --- | --- | --- |
//! | starting | wait | the store is followed → shared; it cannot be reached → away |
//! | shared | go to the store and are delivered when it reports them | the store fails → away |
//! | away | are delivered here, each room under a new epoch | the store is followed again, rooms have been renewed and read → shared |
//!
//! One thread appends messages in the order of their publication on this node. The other thread follows the store and
//! is the only one that delivers shared messages. The hub reads a room from the store when the room is first used.
//! Offsets identify duplicates between the store's notifications and such a read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Hub;
use super::load::WeakHub;
use super::memory::Mirror;
use super::mirror::Applied;
use super::publish::Published;
use super::room::Room;
use super::target::{Delivery, Part, Target};
use crate::guard::{self, dispose, record};
use crate::history::{HistoryStore, Position, Publish, StoreError, StoreEvent, encode_entry};
use crate::lock::{Condition, Leaf};
use crate::message::Message;
use crate::metrics::ErrorType;

/// Maximum number of messages that wait for the store.
const QUEUE: usize = 4096;
/// Maximum total size of their payloads, in bytes.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// How often the threads check that the hub still exists.
const TICK: Duration = Duration::from_millis(200);
/// How long a room waits at the start until the hub follows the store.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Starting,
    Shared,
    Away,
}

/// A message for the store, and the caller that waits for its position.
struct Append {
    room: Arc<str>,
    publish: Publish,
    done: Option<Sender<Option<Position>>>,
}

pub(super) struct Sharing {
    store: Arc<dyn HistoryStore>,
    hub: WeakHub,
    queue: (Sender<Append>, Receiver<Append>),
    /// Payload bytes in the queue. Relaxed, because it is only a count; the channel orders the messages.
    queued: AtomicUsize,
    mode: Leaf<Mode>,
    changed: Condition,
    /// A room may have its own order although the store is reachable. Relaxed, because it is checked every tick.
    has_local: AtomicBool,
}

impl std::fmt::Debug for Sharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sharing").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Sharing {
    pub(super) fn new(store: Arc<dyn HistoryStore>, hub: WeakHub) -> Arc<Self> {
        Arc::new(Self {
            store,
            hub,
            queue: bounded(QUEUE),
            queued: AtomicUsize::new(0),
            mode: Leaf::new(Mode::Starting),
            changed: Condition::new(),
            has_local: AtomicBool::new(false),
        })
    }

    /// Starts the threads, which end when the hub is gone.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let [append, follow] = [Arc::clone(self), Arc::clone(self)];
        let thread = |name: &str| thread::Builder::new().name(name.into()).stack_size(256 * 1024);
        thread("wshub-history").spawn(move || append.append_all())?;
        thread("wshub-follow").spawn(move || follow.follow_always())?;
        Ok(())
    }

    /// Queues a message for the store. Returns false if the queue is full.
    fn enqueue(&self, room: &str, publish: Publish, done: Option<Sender<Option<Position>>>) -> bool {
        let bytes = publish.message.len();
        let fits = |queued: usize| queued.checked_add(bytes).filter(|sum| queued == 0 || *sum <= QUEUE_BYTES);
        if self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            dispose(publish);
            return false;
        }
        let sent = self.queue.0.try_send(Append { room: room.into(), publish, done });
        let is_queued = sent.is_ok();
        if !is_queued {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        dispose(sent.err().map(|error| error.into_inner().publish));
        is_queued
    }

    /// Publishes without waiting for the position.
    pub(super) fn publish(&self, room: &str, publish: Publish) -> Published {
        let published = self.enqueue(room, publish, None);
        Published { delivery: Delivery { published, ..Delivery::default() }, position: None }
    }

    fn append_all(&self) {
        loop {
            match self.queue.1.recv_timeout(TICK) {
                Ok(Append { room, publish, done }) => {
                    self.queued.fetch_sub(publish.message.len(), Ordering::Relaxed);
                    let Some(hub) = self.hub.upgrade() else { return };
                    let position = self.append(&hub, &room, publish);
                    // The waiting caller may have given up.
                    done.map(|done| done.try_send(position));
                }
                Err(RecvTimeoutError::Timeout) if self.hub.upgrade().is_some() => {}
                Err(_) => return,
            }
        }
    }

    fn append(&self, hub: &Hub, name: &str, publish: Publish) -> Option<Position> {
        let room = hub.room_with(name, |options| options.shared)?;
        let bounds = room.bounds()?;
        if self.decided() == Mode::Shared {
            // It may have become local just when the store came back.
            let ready = self.rejoin(hub, &room);
            match ready.and_then(|()| call(|| self.store.append(name, &encode_entry(&publish), bounds))) {
                Ok(position) => {
                    dispose(publish);
                    return Some(position);
                }
                Err(error) => self.go_away(hub, &error),
            }
        }
        hub.go_local(&room);
        self.has_local.store(true, Ordering::Relaxed);
        hub.record_here(name, publish).map(|(_, position)| position)
    }

    /// The mode, once it is known.
    fn decided(&self) -> Mode {
        let deadline = Instant::now() + PATIENCE;
        let mut mode = self.mode.lock();
        while *mode == Mode::Starting && !self.changed.wait_until(&mut mode, deadline) {}
        *mode
    }

    fn set(&self, to: Mode) -> Mode {
        let before = std::mem::replace(&mut *self.mode.lock(), to);
        self.changed.notify_all();
        before
    }

    /// Handles a store failure, which is logged and counted once for each outage.
    fn go_away(&self, hub: &Hub, error: &StoreError) {
        if self.set(Mode::Away) != Mode::Away {
            record!(Warn, "wshub::cluster", "{error}; shared rooms are delivered on this node only");
            hub.count_error(ErrorType::AdapterPublish);
        }
    }

    fn follow_always(&self) {
        while self.hub.upgrade().is_some() {
            let ended = call(|| self.store.follow(&mut |event| self.on(event)));
            let Some(hub) = self.hub.upgrade() else { return };
            let error = ended.err().unwrap_or_else(|| StoreError::new("the store must be followed again"));
            self.go_away(&hub, &error);
            drop(hub);
            thread::sleep(TICK);
        }
    }

    /// Returns false if the hub must follow the store anew, because a message may have been missed.
    fn on(&self, event: StoreEvent<'_>) -> bool {
        let Some(hub) = self.hub.upgrade() else { return false };
        let done = match event {
            StoreEvent::Following => self.come_back(&hub),
            // Reading the rooms covers this event, too.
            _ if self.has_local.swap(false, Ordering::Relaxed) => self.come_back(&hub),
            StoreEvent::Nothing => Ok(()),
            StoreEvent::Appended { room, position, entry } => self.told(&hub, room, position, entry),
        };
        if let Err(error) = done {
            self.go_away(&hub, &error);
        }
        *self.mode.lock() == Mode::Shared
    }

    /// Brings every room to the store's order. From then on the store determines the order.
    fn come_back(&self, hub: &Hub) -> Result<(), StoreError> {
        for room in hub.mirrored_rooms() {
            let mirror = room.state.read().mirror();
            match mirror {
                Mirror::Unread => {}
                Mirror::Shared => self.catch_up(hub, &room)?,
                Mirror::Local(_) => self.rejoin(hub, &room)?,
            }
        }
        if self.set(Mode::Shared) != Mode::Shared {
            record!(Info, "wshub::cluster", "shared histories are followed");
        }
        Ok(())
    }

    /// Returns a room with an order of this node's own to the store's order. Messages that this node published in the
    /// meantime are in no store; positions in them have another epoch.
    fn rejoin(&self, hub: &Hub, room: &Arc<Room>) -> Result<(), StoreError> {
        let mirror = room.state.read().mirror();
        let (Mirror::Local(before), Some(bounds)) = (mirror, room.bounds()) else { return Ok(()) };
        if let Some(before) = before {
            call(|| self.store.renew(&room.name, before))?;
        }
        hub.load_stored(room, &call(|| self.store.read(&room.name, 0, bounds))?);
        // Entries that were appended since the read were reported while the room was not shared.
        self.catch_up(hub, room)
    }

    fn told(&self, hub: &Hub, name: &str, position: Position, entry: &[u8]) -> Result<(), StoreError> {
        let Some(room) = hub.find_room(name) else { return Ok(()) };
        match hub.apply_told(&room, position, entry) {
            Applied::Done => Ok(()),
            Applied::Early | Applied::OtherEpoch => self.catch_up(hub, &room),
        }
    }

    /// Applies the store's entries after the room's top, or all of them if they have another epoch or leave a hole.
    /// After a crash or failover, a store may have lost its last entries and would assign their offsets to other
    /// messages. The room then begins a new epoch.
    fn catch_up(&self, hub: &Hub, room: &Arc<Room>) -> Result<(), StoreError> {
        let (Some(top), Some(bounds)) = (hub.position(&room.name), room.bounds()) else { return Ok(()) };
        let stored = call(|| self.store.read(&room.name, top.offset(), bounds))?;
        let mut applied = Applied::Done;
        if stored.position.epoch() == top.epoch() && stored.position.offset() < top.offset() {
            call(|| self.store.renew(&room.name, top.epoch()))?;
        } else if stored.position.epoch() == top.epoch() {
            for (offset, entry) in &stored.entries {
                applied = hub.apply_told(room, Position::new(top.epoch(), *offset), entry);
                if applied != Applied::Done {
                    break;
                }
            }
            let is_hole = stored.entries.is_empty() && stored.position.offset() > top.offset();
            if applied == Applied::Done && !is_hole {
                return Ok(());
            }
        }
        hub.load_stored(room, &call(|| self.store.read(&room.name, 0, bounds))?);
        Ok(())
    }

    /// Deletes a room's history in the store.
    pub(super) fn clear(&self, hub: &Hub, room: &str) {
        if let Err(error) = call(|| self.store.clear(room)) {
            self.go_away(hub, &error);
        }
    }

    /// Reads a room that is first used on this node.
    fn mirror(&self, hub: &Hub, room: &Arc<Room>) {
        if room.state.read().mirror() != Mirror::Unread {
            return;
        }
        let Some(bounds) = room.bounds() else { return };
        if self.decided() == Mode::Shared {
            let read = call(|| self.store.read(&room.name, 0, bounds)).and_then(|stored| {
                hub.load_unread(room, &stored);
                // Notifications between the read and now arrived for a room that had not been read.
                self.catch_up(hub, room)
            });
            match read {
                Ok(()) => return,
                Err(error) => self.go_away(hub, &error),
            }
        }
        hub.go_local(room);
        self.has_local.store(true, Ordering::Relaxed);
    }
}

/// Catches panics, because the store may be the application's code.
fn call<T>(code: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    guard::catch(code).unwrap_or_else(|| Err(StoreError::new("the store panicked")))
}

impl Hub {
    /// The sharing state for a room, if its history is shared.
    #[inline]
    pub(super) fn sharing(&self, room: &str) -> Option<&Arc<Sharing>> {
        let sharing = self.inner().node.sharing.as_ref()?;
        self.inner().patterns.find(room).filter(|options| options.shared).map(|_| sharing)
    }

    /// Sends to the target through the store, if the target is a room with a shared history.
    #[inline]
    pub(super) fn send_shared(&self, target: &Target<'_>, message: &Message) -> Option<Delivery> {
        self.inner().node.sharing.as_ref()?;
        let Some(Part::Room(room)) = target.single() else { return None };
        let sharing = self.sharing(room)?;
        let mut publish = Publish::new(message);
        publish.except.clone_from(&target.except);
        Some(Delivery { published: sharing.enqueue(room, publish, None), ..Delivery::default() })
    }

    /// Publishes as [`publish`](Hub::publish). If the room's history is shared, blocks until the message has its
    /// position, for at most `timeout`. Returns `None` after the timeout; the message stays queued, and publishing it
    /// again would publish it twice. If the queue is full, nothing is published, and the [`Delivery`] reports that.
    pub fn publish_confirmed(&self, room: &str, publish: impl Into<Publish>, timeout: Duration) -> Option<Published> {
        let publish = publish.into();
        let Some(sharing) = self.sharing(room) else { return Some(self.publish(room, publish)) };
        let (done, place) = bounded(1);
        let published = sharing.enqueue(room, publish, Some(done));
        let position = if published { place.recv_timeout(timeout).ok()? } else { None };
        Some(Published { delivery: Delivery { published, ..Delivery::default() }, position })
    }

    /// Called before a room is used: if its history is shared, reads it from the store, which blocks.
    pub(super) fn before_use(&self, room: &Arc<Room>) {
        if let Some(sharing) = self.sharing(&room.name) {
            sharing.mirror(self, room);
        }
    }
}
