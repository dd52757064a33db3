//! Replaces `nodes` without the feature `cluster`: there are no other nodes to report to.

use std::sync::Arc;

use super::table::Table;
use crate::hub::Hub;

#[derive(Debug, Default)]
pub(super) struct Telling;

/// Reports for other nodes: none.
pub(super) struct Controls;

#[allow(clippy::unused_self, reason = "the feature has something to look up")]
impl Hub {
    pub(super) fn member_controls(&self, _: &Arc<str>, _: &mut Table, _: &mut Telling) -> Controls {
        Controls
    }

    pub(super) fn tell_of_members(&self, _: &Controls) {}
}
