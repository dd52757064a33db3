//! Replaces `cluster` and everything that knows other nodes if that feature is off.

use std::sync::{Arc, Weak};

use super::publish::Published;
use super::room::Room;
use super::target::{Delivery, Target};
use super::{Hub, Inner};
use crate::error::ConfigError;
use crate::history::{Patterns, Publish};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::random;

#[derive(Debug, Default)]
pub(super) struct NodeSettings;

impl NodeSettings {
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the feature has settings")]
    pub(super) fn validate(&self, _: &Patterns) -> Result<(), ConfigError> {
        Ok(())
    }
}

pub(super) struct Node {
    pub(super) id: Box<str>,
}

impl Node {
    pub(super) fn new(_: NodeSettings, _: &Weak<Inner>, _: Option<&Arc<dyn Metrics>>) -> Self {
        Self { id: random::uuid().to_string().into() }
    }
}

/// Never created, because no history is shared.
pub(super) enum Sharing {}

impl Sharing {
    pub(super) fn publish(&self, _: &str, _: Publish) -> Published {
        match *self {}
    }

    pub(super) fn clear(&self, _: &Hub, _: &str) {
        match *self {}
    }
}

#[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the feature has something to do")]
impl Hub {
    pub(super) fn is_in_cluster(&self) -> bool {
        false
    }

    pub(super) fn start_node(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    pub(super) fn stop_link(&self) {}

    pub(super) fn publish_elsewhere(&self, _: &Target<'_>, _: Message) -> bool {
        false
    }

    pub(super) fn publish_join(&self, _: &str, _: &str) -> bool {
        false
    }

    pub(super) fn publish_leave(&self, _: &str, _: &str) -> bool {
        false
    }

    pub(super) fn publish_close(&self, _: Option<&str>, _: Option<&str>, _: u16, _: &str) -> bool {
        false
    }

    pub(super) fn sharing(&self, _: &str) -> Option<&Arc<Sharing>> {
        None
    }

    pub(super) fn send_shared(&self, _: &Target<'_>, _: &Message) -> Option<Delivery> {
        None
    }

    pub(super) fn before_use(&self, _: &Arc<Room>) {}
}
