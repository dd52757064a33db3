//! The nodes of the hub's cluster.

use serde_json::{Value, json};

use super::rows::cut;
use super::view::MAX_ROWS;
use crate::cluster::{AdapterState, ClusterNode};
use crate::hub::Hub;

/// This node first; none without a cluster.
pub(super) struct Nodes(Vec<ClusterNode>);

impl Nodes {
    pub(super) fn of(hub: &Hub) -> Self {
        Self(if hub.adapter_state().is_some() { hub.cluster_nodes() } else { Vec::new() })
    }

    pub(super) fn in_room_elsewhere(&self, name: &str) -> usize {
        self.0.iter().skip(1).filter_map(|node| node.rooms.get(name)).sum()
    }

    #[allow(clippy::unused_self, reason = "the hub adds them up")]
    pub(super) fn clients_everywhere(&self, hub: &Hub) -> usize {
        hub.global_client_count()
    }

    #[allow(clippy::unused_self, reason = "the hub knows")]
    pub(super) fn adapter(&self, hub: &Hub) -> Option<AdapterState> {
        hub.adapter_state()
    }

    pub(super) fn rows(&self) -> Vec<Value> {
        let row = |node: &ClusterNode| {
            json!({
                "id": cut(&node.id), "clients": node.clients, "rooms": node.rooms.len(),
                "seen_ms": u64::try_from(node.last_seen.as_millis()).unwrap_or(u64::MAX),
            })
        };
        self.0.iter().take(MAX_ROWS).map(row).collect()
    }
}
