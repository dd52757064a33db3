//! Replaces `remote` without the feature `cluster`: there are no other nodes to ask.

use std::time::Duration;

use crossbeam_channel::Sender;

use super::pending::{Answer, CallResult};
use crate::client_id::ClientId;
use crate::hub::{Hub, Target};
use crate::message::Message;

/// An event for a waiting caller.
#[derive(Debug)]
pub(super) enum CallEvent {
    /// A client has answered.
    Here(ClientId, CallResult),
}

#[derive(Debug, Default)]
pub(super) struct Others {}

#[allow(clippy::unused_self, reason = "the feature has something to look up")]
impl Others {
    pub(super) fn ask(
        &mut self,
        _: &Hub,
        _: &Target<'_>,
        _: &str,
        _: &Message,
        _: Duration,
        _: &Sender<CallEvent>,
    ) -> Option<Answer> {
        None
    }

    pub(super) fn are_over(&self) -> bool {
        true
    }

    pub(super) fn give_up(&mut self, _: &Hub) -> Option<ClientId> {
        None
    }
}
