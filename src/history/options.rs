//! Options for what rooms remember, and for members that fall behind.

use std::time::Duration;

use crate::bounds::{COUNT, GIB, MILLISECOND, YEAR, check, check_or_zero};
use crate::error::ConfigError;

/// What happens if a member's queue is full when a message is published to its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenBehind {
    /// Nothing is dropped: the member continues from the history as its socket drains, with a cursor instead of a full
    /// queue. If the history no longer holds its next message, the member is told of the gap and continues after it.
    /// The default.
    #[default]
    CatchUp,
    /// The hub's [`DropPolicy`](crate::DropPolicy) applies, as in rooms without a history.
    Drop,
    /// The client is closed with 1013 and the reason `slow consumer`.
    Close,
}

/// What a room remembers; see [`HubBuilder::rooms`](crate::HubBuilder::rooms).
///
/// The default remembers nothing. Durations use a monotonic clock.
///
/// ```
/// use std::time::Duration;
/// use wshub::RoomOptions;
/// let options = RoomOptions::history().messages(1000).age(Duration::from_secs(3600)).rewind(20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options do nothing until they are given to a hub's builder"]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct RoomOptions {
    pub(crate) history: bool,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) age: Duration,
    pub(crate) rewind: usize,
    pub(crate) state: bool,
    pub(crate) state_keys: usize,
    pub(crate) state_bytes: usize,
    pub(crate) at_most: u32,
    pub(crate) linger: Duration,
    pub(crate) shared: bool,
    pub(crate) when_behind: WhenBehind,
    pub(crate) members: bool,
    pub(crate) by_connection: bool,
    pub(crate) member_linger: Duration,
}

impl Default for RoomOptions {
    fn default() -> Self {
        Self {
            history: false,
            messages: 100,
            bytes: 256 * 1024,
            age: Duration::from_secs(300),
            rewind: 0,
            state: false,
            state_keys: 256,
            state_bytes: 256 * 1024,
            at_most: 0,
            linger: Duration::from_secs(300),
            shared: false,
            when_behind: WhenBehind::CatchUp,
            members: false,
            by_connection: false,
            member_linger: Duration::ZERO,
        }
    }
}

impl RoomOptions {
    /// Rooms with a history: the last 100 messages, from the last five minutes, in at most 256 KiB.
    #[doc(alias("replay", "log"))]
    pub fn history() -> Self {
        Self { history: true, ..Self::default() }
    }

    /// Rooms with a state: the last value of each of at most 256 keys, in at most 256 KiB.
    #[doc(alias("retained", "last value"))]
    pub fn state() -> Self {
        Self { state: true, ..Self::default() }
    }

    /// Rooms that track their members, over all nodes: see [`Hub::members`](crate::Hub::members).
    #[doc(alias("presence", "who is online"))]
    pub fn members() -> Self {
        Self { members: true, ..Self::default() }
    }

    /// Adds tracking of members.
    pub fn with_members(mut self) -> Self {
        self.members = true;
        self
    }

    /// Adds tracking of members by connection: each connection is a member of its own, known by its client id, also if
    /// several belong to one user. Default: the connections of one user are one member.
    pub fn with_connections(mut self) -> Self {
        (self.members, self.by_connection) = (true, true);
        self
    }

    /// Sets how long a member stays listed after its last connection is gone. Default: 0; at most a day. 15 s avoids
    /// announcing short reconnects of phones.
    pub fn member_linger(mut self, linger: Duration) -> Self {
        self.member_linger = linger;
        self
    }

    /// Adds a history.
    pub fn with_history(mut self) -> Self {
        self.history = true;
        self
    }

    /// Adds a state.
    pub fn with_state(mut self) -> Self {
        self.state = true;
        self
    }

    /// Sets the maximum number of messages in the history. Default: 100; 1 to 1,073,741,824.
    pub fn messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    /// Sets the maximum size of the history in bytes, including payloads, wire forms and bookkeeping. Default: 256 KiB;
    /// 1 byte to 1 GiB. A larger single message is sent, but not kept.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets how long a message is kept. Default: 5 min; 1 ms to 366 days, or [`Duration::MAX`] for ever.
    pub fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Sets how many of the last messages a client gets that joins without a position. Default: 0 = none. At most
    /// [`messages`](Self::messages).
    pub fn rewind(mut self, messages: usize) -> Self {
        self.rewind = messages;
        self
    }

    /// Sets the maximum number of keys in the state. Default: 256; 1 to 1,073,741,824.
    pub fn state_keys(mut self, keys: usize) -> Self {
        self.state_keys = keys;
        self
    }

    /// Sets the maximum size of the state in bytes, including keys, values, wire forms and bookkeeping. Default: 256
    /// KiB; 1 byte to 1 GiB.
    pub fn state_bytes(mut self, bytes: usize) -> Self {
        self.state_bytes = bytes;
        self
    }

    /// Sends changes of the state at most this many times a second, as one batch with the newest value of each changed
    /// key. Default: 0 = each change at once. At most 1,000.
    pub fn at_most(mut self, per_second: u32) -> Self {
        self.at_most = per_second;
        self
    }

    /// Sets how long a room without members is remembered after it was last left, published to or read. Default: 5 min.
    /// 0 = it ends with its last member, like a room that remembers nothing. At most 366 days, or [`Duration::MAX`] for
    /// ever.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Shares the history with the other nodes of a cluster. The hub's
    /// [`history_store`](crate::HubBuilder::history_store) determines the order of such a room, and its messages are
    /// delivered, on this node too, when the store announces them. While the store is unavailable, each node delivers
    /// its own messages under a new epoch. Default: each node has its own history.
    #[cfg(feature = "cluster")]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Sets what happens to members whose queue is full. Default: [`WhenBehind::CatchUp`].
    pub fn when_behind(mut self, when_behind: WhenBehind) -> Self {
        self.when_behind = when_behind;
        self
    }

    /// Whether rooms with these options outlive their members.
    pub(crate) fn remembers(&self) -> bool {
        self.history || self.state
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        check("messages", self.messages, 1..=COUNT)?;
        check("bytes", self.bytes, 1..=GIB)?;
        check("age", self.age, MILLISECOND..=YEAR)?;
        if self.rewind > self.messages {
            let bound = format!("must not exceed messages {}", self.messages);
            return Err(ConfigError::out_of_bounds("rewind", self.rewind, bound));
        }
        check("state_keys", self.state_keys, 1..=COUNT)?;
        check("state_bytes", self.state_bytes, 1..=GIB)?;
        check("at_most", self.at_most, 0..=1000)?;
        check_or_zero("linger", self.linger, MILLISECOND..=YEAR)?;
        if self.member_linger > DAY || (!self.member_linger.is_zero() && self.member_linger < MILLISECOND) {
            return Err(ConfigError::out_of_bounds("member_linger", self.member_linger, "must be 0 or 1ms to 24h"));
        }
        let needs = [
            (self.at_most > 0 && !self.state, "at_most", "needs a state"),
            (self.shared && !self.history, "shared", "needs a history"),
            (self.rewind > 0 && !self.history, "rewind", "needs a history"),
            (!self.member_linger.is_zero() && !self.members, "member_linger", "needs members"),
        ];
        let wrong = needs.into_iter().find(|(is_wrong, ..)| *is_wrong);
        wrong.map_or(Ok(()), |(_, field, reason)| Err(ConfigError::new(field, reason)))
    }
}
