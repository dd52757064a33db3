//! The hooks, which are the application's code, and the one place that calls them.
//!
//! Order for a connection: `on_upgrade` → `before_room_join` (rooms of the admission) → the client learns that it is
//! connected → `on_user_online` → `after_connect` → `after_room_join` → messages → `before_disconnect` →
//! `on_user_offline` → `before_room_leave`/`after_room_leave` for each room → no more is written → the client's
//! `on_close` → `after_disconnect`.
//!
//! `on_user_online`, `on_user_offline`, `after_room_join` and `after_room_leave` report states: see `telling.rs`. All
//! others report events, on the thread of the event.
//!
//! Order for a message: `before_message` → the client's handler → the hub's handler → `after_message`; an error goes to
//! `on_error` as well.

#![allow(clippy::ref_option, reason = "a hook is passed as the field that holds it")]

use super::Hub;
use super::admission::{Admission, Rejection};
use super::client::{Client, Handler, OfClient, OfError};
use super::members::MemberChange;
use crate::error::{HandlerError, HandlerResult};
use crate::guard::{self, record_limited};
use crate::history::Gap;
use crate::http::{RequestHead, Response};
use crate::lock::assert_no_lock_held;
use crate::message::Message;
use crate::metrics::ErrorType;
use crate::trace::{self, SpanKind};
use crate::ws::close_code;

type Hook<F> = Option<Box<F>>;

type AfterMessage = dyn Fn(&Client, &Message, &Result<(), HandlerError>) + Send + Sync;
/// Replaces a message or refuses it.
type BeforeMessage = dyn Fn(&Client, Message) -> HandlerResult<Message> + Send + Sync;
type BeforeRoomJoin = dyn Fn(&Client, &str) -> HandlerResult + Send + Sync;
type MapRefusal = dyn Fn(&RequestHead, ErrorType, &Response) -> Response + Send + Sync;
type OfGap = dyn Fn(&Client, &Gap) + Send + Sync;
type OfMember = dyn Fn(&Hub, &str, &MemberChange) + Send + Sync;
type OfHub = dyn Fn(&Hub) + Send + Sync;
type OfMessage = dyn Fn(&Client, &Message) + Send + Sync;
type OfRoom = dyn Fn(&Client, &str) + Send + Sync;
type OfUser = dyn Fn(&Hub, &str) + Send + Sync;
type OnUpgrade = dyn Fn(&RequestHead) -> Result<Admission, Rejection> + Send + Sync;

/// All hooks of a hub, documented at [`HubBuilder`](crate::HubBuilder).
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) on_upgrade: Hook<OnUpgrade>,
    pub(crate) map_refusal: Hook<MapRefusal>,
    pub(crate) after_connect: Hook<OfClient>,
    pub(crate) before_disconnect: Hook<OfClient>,
    pub(crate) after_disconnect: Hook<OfClient>,
    pub(crate) before_message: Hook<BeforeMessage>,
    pub(crate) on_message: Hook<Handler>,
    pub(crate) after_message: Hook<AfterMessage>,
    pub(crate) on_error: Hook<OfError>,
    pub(crate) on_rate_limited: Hook<OfMessage>,
    pub(crate) on_send_dropped: Hook<OfMessage>,
    pub(crate) on_send_timeout: Hook<OfMessage>,
    pub(crate) before_room_join: Hook<BeforeRoomJoin>,
    pub(crate) after_room_join: Hook<OfRoom>,
    pub(crate) before_room_leave: Hook<OfRoom>,
    pub(crate) after_room_leave: Hook<OfRoom>,
    /// For protocols: see `telling.rs`.
    pub(crate) room_settled: Hook<OfRoom>,
    pub(crate) on_user_online: Hook<OfUser>,
    pub(crate) on_user_offline: Hook<OfUser>,
    pub(crate) on_gap: Hook<OfGap>,
    pub(crate) on_member_change: Hook<OfMember>,
    pub(crate) on_shutdown: Hook<OfHub>,
}

impl Drop for Hooks {
    /// Drops the hooks one by one, because a second panic during a drop would abort the process. The thread that drops
    /// the last handle runs this; it may be a connection's thread.
    fn drop(&mut self) {
        fn dispose<F: ?Sized>(hook: &mut Hook<F>) {
            hook.take().into_iter().for_each(guard::dispose);
        }
        dispose(&mut self.on_upgrade);
        dispose(&mut self.map_refusal);
        dispose(&mut self.after_connect);
        dispose(&mut self.before_disconnect);
        dispose(&mut self.after_disconnect);
        dispose(&mut self.before_message);
        dispose(&mut self.on_message);
        dispose(&mut self.after_message);
        dispose(&mut self.on_error);
        dispose(&mut self.on_rate_limited);
        dispose(&mut self.on_send_dropped);
        dispose(&mut self.on_send_timeout);
        dispose(&mut self.before_room_join);
        dispose(&mut self.after_room_join);
        dispose(&mut self.before_room_leave);
        dispose(&mut self.after_room_leave);
        dispose(&mut self.room_settled);
        dispose(&mut self.on_user_online);
        dispose(&mut self.on_user_offline);
        dispose(&mut self.on_gap);
        dispose(&mut self.on_member_change);
        dispose(&mut self.on_shutdown);
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

fn span_kind(what: &str) -> SpanKind {
    if what.ends_with("on_message") { SpanKind::Handler } else { SpanKind::Hook }
}

impl Hub {
    pub(crate) fn hooks(&self) -> &Hooks {
        &self.inner().hooks
    }

    /// Runs user code. A panic is logged and counted, closes `client` with 1011, and makes the result `None`. If this
    /// thread records a trace, the call is a span of it.
    pub(crate) fn guarded<T>(
        &self,
        client: Option<&Client>,
        what: &'static str,
        code: impl FnOnce() -> T,
    ) -> Option<T> {
        let (mut code, mut result) = (Some(code), None);
        self.run_guarded(client, what, &mut || result = code.take().map(|code| code()));
        result
    }

    /// One function for all hooks: its copies would add up in a small program.
    fn run_guarded(&self, client: Option<&Client>, what: &'static str, code: &mut dyn FnMut()) {
        assert_no_lock_held();
        let _span = trace::begin_span(|| (span_kind(what), what.into()));
        if guard::catch(code).is_none() {
            self.note_panic(client, what);
        }
    }

    #[cold]
    fn note_panic(&self, client: Option<&Client>, what: &'static str) {
        let of = client.map(|c| format!(" for {}", c.id())).unwrap_or_default();
        record_limited!(Error, "wshub::hub", "{what} panicked{of}");
        self.count_error(ErrorType::Panic);
        if let Some(client) = client {
            trace::note_panic(client.id(), what);
            client.close_checked(close_code::INTERNAL_ERROR, "");
        }
    }

    /// Runs a hook that takes a client, if it is set.
    pub(crate) fn run_client_hook(&self, hook: &Hook<OfClient>, what: &'static str, client: &Client) {
        if let Some(hook) = hook {
            self.guarded(Some(client), what, || hook(client));
        }
    }

    /// Runs a hook that takes a client and a message, if it is set.
    pub(crate) fn run_message_hook(
        &self,
        hook: &Hook<OfMessage>,
        what: &'static str,
        client: &Client,
        message: &Message,
    ) {
        if let Some(hook) = hook {
            self.guarded(Some(client), what, || hook(client, message));
        }
    }

    /// Runs a hook that takes a client and a room, if it is set.
    pub(super) fn run_room_hook(&self, hook: &Hook<OfRoom>, what: &'static str, client: &Client, room: &str) {
        if let Some(hook) = hook {
            self.guarded(Some(client), what, || hook(client, room));
        }
    }

    /// Calls the `on_error` hook and the client's own callback.
    pub(crate) fn report_error(&self, client: &Client, error: &HandlerError) {
        if let Some(hook) = &self.hooks().on_error {
            self.guarded(Some(client), "on_error", || hook(client, error));
        }
        if let Some(callback) = client.callback(|c| &c.on_error) {
            self.guarded(Some(client), "the client's on_error", || callback(client, error));
            guard::dispose(callback);
        }
    }
}
