//! Joining a room with a history or state: from a position, with a replay, and with the state first.

use std::sync::Arc;

use super::Hub;
use super::behind::Reader;
use super::client::Client;
use super::memory::Stream;
use super::room::{Room, RoomState};
use super::telling::Ticket;
use crate::error::RoomError;
use crate::guard::dispose;
use crate::history::{Gap, Joined, Position, Publication, Recovery};
use crate::http::last_event_id;
use crate::lock::assert_no_lock_held;
use crate::outbox::Outbox;

/// How a client enters a room.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a way of its own to come in")]
pub(super) struct Entry {
    /// The client has everything up to this position.
    pub(super) since: Option<Position>,
    /// The client gave an id that is not a position of any history.
    pub(super) is_foreign: bool,
    /// The client gets nothing before the hold is released.
    pub(super) is_held: bool,
    /// Missed messages are returned instead of being replayed.
    pub(super) is_collecting: bool,
    /// The client gets a message with its first position or the gap.
    pub(super) is_introduced: bool,
}

impl Entry {
    /// Enters a client by its upgrade. An event stream gives its position in `Last-Event-ID`; it gets reports of missed
    /// messages here, because no other code sends them.
    pub(super) fn of_request(client: &Client) -> Self {
        if !client.is_event_stream() {
            return Self::default();
        }
        let id = last_event_id(client.request());
        let since = id.as_deref().and_then(|id| id.parse().ok());
        Self { since, is_foreign: id.is_some() && since.is_none(), is_introduced: true, ..Self::default() }
    }
}

/// The result of entering.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) joined: Joined,
    pub(super) collected: Vec<Publication>,
    pub(super) hold: Hold,
    has_source: bool,
    fallen: Vec<Publication>,
}

/// A guard that keeps a client's sources from being read until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    /// `None` when the connection has ended.
    outbox: Option<Arc<Outbox>>,
    tickets: Vec<u64>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(outbox) = &self.outbox else { return };
        self.tickets.iter().for_each(|ticket| outbox.release(*ticket));
    }
}

impl Entered {
    fn nothing(client: &Client) -> Self {
        Self {
            joined: Joined { position: None, recovery: Recovery::None, replayed: 0 },
            collected: Vec::new(),
            hold: Hold { outbox: client.outbox(), tickets: Vec::new() },
            has_source: false,
            fallen: Vec::new(),
        }
    }
}

impl Room {
    /// Runs under the room's lock, in one step with the join, so that no message is missed or delivered twice.
    pub(super) fn enter(self: &Arc<Self>, state: &mut RoomState, client: &Client, entry: Entry) -> Entered {
        let mut entered = Entered::nothing(client);
        let (Some(memory), Some(outbox)) = (&mut state.memory, client.outbox()) else { return entered };
        let now = memory.clock.now();
        entered.fallen = memory.trim(now);
        memory.member_joined(client, now);
        let mut add = |reader: Reader, ticket| {
            outbox.fall_behind(Box::new(reader), entry.is_held);
            entered.hold.tickets.extend(entry.is_held.then_some(ticket));
            entered.has_source = true;
        };
        if memory.state.as_ref().is_some_and(|values| values.position().offset() > 0 || entry.is_held) {
            let ticket = memory.behind(Stream::State).add(&outbox);
            add(Reader::new(ticket, self, Stream::State, client, 0), ticket);
        }
        let Some(ring) = &memory.history else { return entered };
        let mut recovered = ring.recover(entry.since, memory.options.rewind);
        if entry.is_foreign {
            recovered = ring.recover(Some(Position::new(ring.position().epoch(), u64::MAX)), 0);
        }
        let position = ring.position();
        if entry.is_collecting {
            entered.collected = ring.after(recovered.cursor).cloned().collect();
            recovered.cursor = position.offset();
        }
        let intro = entry.is_introduced.then(|| {
            let format = client.frame_kind().format;
            match recovered.recovery {
                Recovery::Complete | Recovery::None => format.begin(Position::new(position.epoch(), recovered.cursor)),
                Recovery::Gap { .. } | Recovery::OtherEpoch => {
                    let from = entry.since.filter(|_| recovered.recovery != Recovery::OtherEpoch);
                    let from = from.map(|since| since.offset() + 1);
                    format.gap(&Gap::new(Arc::clone(&self.name), position.epoch(), from, recovered.cursor))
                }
            }
        });
        let intro = intro.flatten();
        if entry.is_held || intro.is_some() || recovered.cursor < position.offset() {
            let ticket = memory.behind(Stream::History).add(&outbox);
            let reader = Reader::new(ticket, self, Stream::History, client, recovered.cursor).with_intro(intro);
            add(reader, ticket);
        }
        let replayed = if entry.is_collecting { 0 } else { recovered.replayed };
        entered.joined = Joined { position: Some(position), recovery: recovered.recovery, replayed };
        entered
    }
}

impl Hub {
    /// Joins a room and continues after `since`; see [`Client::join_from`].
    pub(super) fn join_from(&self, client: &Client, room: &str, since: Option<Position>) -> Result<Joined, RoomError> {
        let (ticket, entered) = self.join_entering(client, room, Entry { since, ..Entry::default() })?;
        let joined = self.settle(entered).joined;
        self.tell(ticket);
        Ok(joined)
    }

    /// Flushes messages that a join has made readable, and drops obsolete values.
    pub(super) fn settle(&self, mut entered: Entered) -> Entered {
        dispose(std::mem::take(&mut entered.fallen));
        if entered.has_source {
            assert_no_lock_held();
            entered.hold.outbox.iter().for_each(Outbox::flush);
        }
        if entered.joined.recovery.is_lossy() {
            self.count(|m| m.increment_history_gaps());
        }
        entered
    }

    /// See [`Client::join_with`].
    pub(super) fn join_with<T>(
        &self,
        client: &Client,
        room: &str,
        since: Option<Position>,
        is_collecting: bool,
        before: impl FnOnce(&Joined, Vec<Publication>) -> T,
    ) -> Result<(Joined, T), RoomError> {
        let (ticket, Entered { joined, collected, hold, .. }) = self.join_held(client, room, since, is_collecting)?;
        let result = before(&joined, collected);
        self.end_hold(hold, ticket);
        Ok((joined, result))
    }

    /// The part of [`join_with`](Self::join_with) before the application's code. It exists once, not for each closure.
    #[inline(never)]
    fn join_held(
        &self,
        client: &Client,
        room: &str,
        since: Option<Position>,
        is_collecting: bool,
    ) -> Result<(Option<Ticket>, Entered), RoomError> {
        let entry = Entry { since, is_held: true, is_collecting, ..Entry::default() };
        let (ticket, entered) = self.join_entering(client, room, entry)?;
        Ok((ticket, self.settle(entered)))
    }

    /// The part after it.
    #[inline(never)]
    fn end_hold(&self, hold: Hold, ticket: Option<Ticket>) {
        drop(hold);
        self.tell(ticket);
    }
}

impl Client {
    /// Joins a room and replays the messages after `since` that the room's history holds, in order; later publications
    /// follow. Joining and publishing exclude each other, so no message is missed or delivered twice. Without a
    /// position, the last [`rewind`](crate::RoomOptions::rewind) messages are replayed. If the room has a state, the
    /// state comes first.
    ///
    /// The replay is sent as fast as the socket takes it and does not count against the queue. The hooks are those of
    /// [`Hub::join`]. In a room without a history this is a plain join. If the client is already in the room, it must
    /// leave first.
    ///
    /// ```no_run
    /// # use wshub::{Client, history::Recovery};
    /// # fn handler(client: &Client, since: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let joined = client.join_from("news", since.parse().ok())?;
    /// if joined.recovery.is_lossy() {
    ///     client.send("you have missed something")?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Hub::join`].
    #[doc(alias("reconnect", "resume", "recovery", "subscribe"))]
    pub fn join_from(&self, room: &str, since: Option<Position>) -> Result<Joined, RoomError> {
        self.hub().join_from(self, room, since)
    }

    /// Like [`join_from`](Client::join_from), but runs `before` on this thread, without a lock held. Messages that
    /// `before` sends to this client arrive before any message of the room.
    ///
    /// # Errors
    ///
    /// As [`Hub::join`]; `before` has not run then.
    pub fn join_with<T>(
        &self,
        room: &str,
        since: Option<Position>,
        before: impl FnOnce(&Joined) -> T,
    ) -> Result<T, RoomError> {
        let result = self.hub().join_with(self, room, since, false, |joined, _| before(joined))?;
        Ok(result.1)
    }

    /// Like [`join_with`](Client::join_with), but passes the missed messages to `before` instead of replaying them, for
    /// protocols whose answer contains them.
    ///
    /// # Errors
    ///
    /// As [`Hub::join`]; `before` has not run then.
    pub fn join_collecting<T>(
        &self,
        room: &str,
        since: Option<Position>,
        before: impl FnOnce(&Joined, Vec<Publication>) -> T,
    ) -> Result<T, RoomError> {
        Ok(self.hub().join_with(self, room, since, true, before)?.1)
    }
}
