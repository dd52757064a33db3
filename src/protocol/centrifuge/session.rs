//! The state of a connection in this protocol: user, subscriptions, expiry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::codec::Codec;
use super::settings::{Callbacks, Settings, Shared};
use super::wire::reply::ClientInfo;
use crate::Client;
use crate::lock::{Condition, Leaf};

/// The metadata key of a client's session.
const KEY: &str = "wshub.centrifuge";

/// One connection. Its lock is a leaf: no other code runs under it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) codec: Codec,
    pub(super) state: Leaf<State>,
    /// Signals that a subscription has been removed.
    removed: Condition,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// `conn_info` of this client, as others see it.
    pub(super) info: Bytes,
    /// When the connection token expires.
    pub(super) expires_at: Option<SystemTime>,
    pub(super) subscriptions: HashMap<Arc<str>, Subscription>,
    /// When the next ping is due; before a connect command, when that command is due.
    pub(super) due: Instant,
    /// Something may be due earlier than the timers know.
    pub(super) is_rescheduled: bool,
    /// The deadline for the answer to a ping.
    pub(super) pong_due: Option<Instant>,
    /// [`Client::output_progress`] when `pong_due` was set.
    pub(super) progress: u32,
}

/// The phase of a connection; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// No connect command has succeeded.
    New,
    Connected,
    /// The connection is ending: its leaves are not announced.
    Ended,
}

/// The origin of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Origin {
    #[default]
    Client,
    /// The program: the SDK does not subscribe again by itself.
    Server,
}

/// A channel that a client is subscribed to.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Subscription {
    /// `chan_info` of this client there.
    pub(super) info: Bytes,
    pub(super) expires_at: Option<SystemTime>,
    /// Whether this client gets joins and leaves.
    pub(super) wants_joins: bool,
    /// Whether others get this client's joins and leaves.
    pub(super) tells_joins: bool,
    pub(super) origin: Origin,
    /// See [`ChannelOptions::cache_recovery`](super::ChannelOptions::cache_recovery).
    pub(super) is_cache: bool,
    pub(super) stage: Stage,
    /// It was ended while it was beginning.
    pub(super) ends: Option<End>,
}

/// The stage of a subscription. The thread that begins or ends a subscription has it to itself, so the pushes about one
/// channel are in order. Acts of other threads meanwhile only change the room's members, or set `ends`. When the thread
/// is done, it compares the subscription with the room and does what is left: see `subscribe::settle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    /// A thread joins the room, and tells this client and others.
    #[default]
    Beginning,
    /// The client and others have been told of it.
    Live,
    /// A thread leaves the room, and tells this client and others.
    Ending,
}

/// Why the server ends a subscription: the content of the unsubscribe push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u32,
    pub(super) reason: &'static str,
}

impl Session {
    /// Gives the client its session.
    pub(super) fn begin(client: &Client, shared: &Arc<Shared>, due: Instant) {
        let is_protobuf = client.subprotocol() == Some(super::PROTOBUF);
        let state = State {
            phase: Phase::New,
            info: Bytes::new(),
            expires_at: None,
            subscriptions: HashMap::new(),
            due,
            is_rescheduled: false,
            pong_due: None,
            progress: 0,
        };
        let codec = if is_protobuf { Codec::Protobuf } else { Codec::Json };
        client.set_metadata(
            KEY,
            Self { shared: Arc::clone(shared), codec, state: Leaf::new(state), removed: Condition::new() },
        );
    }

    /// Returns the client's session; `None` for a client of another protocol.
    pub(super) fn of(client: &Client) -> Option<Arc<Self>> {
        client.metadata(KEY)
    }

    pub(super) fn callbacks(&self) -> &Callbacks {
        &self.shared.callbacks
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state.lock().phase == Phase::Connected
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().phase == Phase::Ended
    }

    /// Whether a subscription exists, in any stage.
    pub(super) fn is_subscribed(&self, channel: &str) -> bool {
        self.state.lock().subscriptions.contains_key(channel)
    }

    pub(super) fn subscription(&self, channel: &str) -> Option<Subscription> {
        self.state.lock().subscriptions.get(channel).cloned()
    }

    /// Removes a subscription that the calling thread begins or ends.
    pub(super) fn remove(&self, channel: &str) {
        self.state.lock().subscriptions.remove(channel);
        self.removed.notify_all();
    }

    /// Waits while another thread ends the subscription. Returns whether it has ended.
    pub(super) fn wait_ended(&self, channel: &str, until: Instant) -> bool {
        let mut state = self.state.lock();
        let mut is_in_time = true;
        loop {
            let is_ending = state.subscriptions.get(channel).is_some_and(|s| s.stage == Stage::Ending);
            if !is_ending || !is_in_time {
                return !is_ending;
            }
            is_in_time = !self.removed.wait_until(&mut state, until);
        }
    }

    /// Gives the calling thread a live subscription to end. One that is beginning will be ended by its own thread, if
    /// there is a reason.
    pub(super) fn start_end(&self, channel: &str, end: Option<End>) -> Option<Subscription> {
        let mut state = self.state.lock();
        let subscription = state.subscriptions.get_mut(channel)?;
        match subscription.stage {
            Stage::Beginning => {
                subscription.ends = end.or(subscription.ends);
                None
            }
            Stage::Live => {
                subscription.stage = Stage::Ending;
                Some(subscription.clone())
            }
            Stage::Ending => None,
        }
    }

    /// Changes a subscription, if it exists.
    pub(super) fn change(&self, channel: &str, change: impl FnOnce(&mut Subscription)) {
        if let Some(subscription) = self.state.lock().subscriptions.get_mut(channel) {
            change(subscription);
        }
    }

    /// The client's info for a channel, with this `chan_info`.
    pub(super) fn client_info(&self, client: &Client, chan_info: Bytes) -> ClientInfo {
        ClientInfo {
            user: client.user_id().map(|user| user.to_string()).unwrap_or_default(),
            client: client.id().to_string(),
            conn_info: self.state.lock().info.clone(),
            chan_info,
        }
    }
}
