//! A room's history and state, and the members that are catching up. Guarded by the room's lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::Client;
use super::clock::Clock;
use crate::atomic::AtomicU64;
#[cfg(feature = "cluster")]
use crate::history::Epoch;
use crate::history::{FrameKind, Position, Publication, Ring, RoomOptions, RoomShare, RoomState, Totals};
use crate::message::Encoded;
use crate::outbox::Outbox;

/// The source of tickets. Relaxed, because tickets only need to be unique.
static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);

/// A stream in which a member may be behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    History,
    State,
}

/// The origin of the order of a shared room's messages on this node.
#[cfg(feature = "cluster")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mirror {
    /// Nothing has been read from the store yet, or the room is not shared.
    #[default]
    Unread,
    /// The store's.
    Shared,
    /// This node's own, because the store was away; before that, the store's of this epoch.
    Local(Option<Epoch>),
}

/// The history and state of a room with [`RoomOptions`].
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) options: Arc<RoomOptions>,
    pub(super) history: Option<Ring>,
    pub(super) state: Option<RoomState>,
    behind_in_history: Behind,
    behind_in_state: Behind,
    kinds: Kinds,
    #[cfg(feature = "cluster")]
    pub(super) mirror: Mirror,
    pub(super) clock: Clock,
    /// When the room was last joined, left, published to or read.
    pub(super) used: Instant,
    /// Whether the keeper has scheduled the end of this room.
    pub(super) is_lingering: bool,
    /// When the keeper next checks for expired values.
    pub(super) expiry: Option<Instant>,
    /// The keeper sends the state's changes after this version.
    pub(super) ticking_from: Option<u64>,
    /// When it last did.
    pub(super) ticked: Option<Instant>,
    /// The whole state in one message, of this version.
    pub(super) snapshots: Vec<(u64, FrameKind, Encoded)>,
    _share: RoomShare,
}

impl Memory {
    /// `hub` counts the bytes of all rooms.
    pub(super) fn new(options: Arc<RoomOptions>, hub: &Arc<Totals>, clock: &Clock) -> Self {
        Self {
            history: options.history.then(|| Ring::new(&options, Arc::clone(hub))),
            state: options.state.then(|| RoomState::new(&options, Arc::clone(hub))),
            options,
            behind_in_history: Behind::default(),
            behind_in_state: Behind::default(),
            kinds: Kinds::default(),
            #[cfg(feature = "cluster")]
            mirror: Mirror::default(),
            used: clock.now(),
            clock: clock.clone(),
            is_lingering: false,
            expiry: None,
            ticking_from: None,
            ticked: None,
            snapshots: Vec::new(),
            _share: RoomShare::new(hub),
        }
    }

    #[cfg(feature = "dashboard")]
    pub(super) fn bytes(&self) -> usize {
        self.history.as_ref().map_or(0, Ring::bytes) + self.state.as_ref().map_or(0, RoomState::bytes)
    }

    pub(super) fn position(&self, stream: Stream) -> Option<Position> {
        match stream {
            Stream::History => self.history.as_ref().map(Ring::position),
            Stream::State => self.state.as_ref().map(RoomState::position),
        }
    }

    pub(super) fn next_position(&self, stream: Stream) -> Option<Position> {
        match stream {
            Stream::History => self.history.as_ref().map(Ring::next_position),
            Stream::State => self.state.as_ref().map(RoomState::next_position),
        }
    }

    pub(super) fn behind(&mut self, stream: Stream) -> &mut Behind {
        match stream {
            Stream::History => &mut self.behind_in_history,
            Stream::State => &mut self.behind_in_state,
        }
    }

    pub(super) fn is_behind(&self, stream: Stream, outbox: &Arc<Outbox>) -> bool {
        match stream {
            Stream::History => self.behind_in_history.contains(outbox),
            Stream::State => self.behind_in_state.contains(outbox),
        }
    }

    pub(super) fn has_ticket(&self, stream: Stream, place: usize, ticket: u64) -> bool {
        let behind = match stream {
            Stream::History => &self.behind_in_history,
            Stream::State => &self.behind_in_state,
        };
        behind.0.get(&place) == Some(&ticket)
    }

    pub(super) fn member_joined(&mut self, client: &Client, now: Instant) {
        self.used = now;
        self.kinds.add(client.frame_kind());
    }

    pub(super) fn member_left(&mut self, client: &Client) {
        self.used = self.clock.now();
        self.kinds.remove(client.frame_kind());
        let place = client.place();
        self.behind_in_history.0.remove(&place);
        self.behind_in_state.0.remove(&place);
    }

    /// When changes of the state may be sent next, at most `at_most` times a second.
    pub(super) fn next_tick(&self, at_most: u32) -> Instant {
        let now = self.clock.now();
        self.ticked.map_or(now, |last| (last + Duration::from_secs(1) / at_most.max(1)).max(now))
    }

    /// The wire forms that members read.
    pub(super) fn kinds(&self) -> Vec<FrameKind> {
        self.kinds.0.iter().map(|(kind, _)| *kind).collect()
    }

    /// Drops messages that are too old.
    #[must_use = "payloads are dropped without a lock"]
    pub(super) fn trim(&mut self, now: Instant) -> Vec<Publication> {
        self.history.as_mut().map_or_else(Vec::new, |ring| ring.trim(now))
    }
}

/// The address of an outbox, which identifies it while its client is a member.
pub(super) fn place(outbox: &Arc<Outbox>) -> usize {
    Arc::as_ptr(outbox).addr()
}

/// Members that are catching up in one stream, each with the ticket of its source. Publishers push nothing of the
/// stream to them.
#[derive(Debug, Default)]
pub(super) struct Behind(HashMap<usize, u64>);

impl Behind {
    /// Adds a ticket. It replaces an old one, whose source then ends.
    pub(super) fn add(&mut self, outbox: &Arc<Outbox>) -> u64 {
        let ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        self.0.insert(place(outbox), ticket);
        ticket
    }

    pub(super) fn contains(&self, outbox: &Arc<Outbox>) -> bool {
        !self.0.is_empty() && self.0.contains_key(&place(outbox))
    }

    pub(super) fn remove(&mut self, place: usize) {
        self.0.remove(&place);
    }
}

/// The number of members that read each wire form.
#[derive(Debug, Default)]
struct Kinds(Vec<(FrameKind, usize)>);

impl Kinds {
    fn add(&mut self, kind: FrameKind) {
        match self.0.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, count)) => *count += 1,
            None => self.0.push((kind, 1)),
        }
    }

    fn remove(&mut self, kind: FrameKind) {
        if let Some((_, count)) = self.0.iter_mut().find(|(k, _)| *k == kind) {
            *count -= 1;
            self.0.retain(|(_, count)| *count > 0);
        }
    }
}
