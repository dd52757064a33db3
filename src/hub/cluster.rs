//! The hub as a node of a cluster: conversion between targets and envelopes, and counts over all nodes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

use super::calls::RemoteCalls;
use super::load::WeakHub;
use super::node_messages::NodeHandlers;
use super::sharing::Sharing;
use super::target::Part;
use super::{Client, Hub, Inner, Target};
use crate::client_id::ClientId;
use crate::cluster::{AdapterState, Cluster, ClusterNode, Counts, Link, Node as ClusterSide, Outgoing, Recipient};
use crate::config::{MAX_ROOM_NAME, MAX_USER_ID};
use crate::error::ConfigError;
use crate::history::{HistoryStore, Patterns};
use crate::lock::assert_no_lock_held;
use crate::message::Message;
use crate::metrics::{Metrics, guarded};
use crate::random;

/// What makes a hub a node, as set on its builder.
#[derive(Debug, Default)]
pub(super) struct NodeSettings {
    pub(super) cluster: Option<Cluster>,
    pub(super) history_store: Option<Arc<dyn HistoryStore>>,
    pub(super) handlers: NodeHandlers,
}

impl NodeSettings {
    pub(super) fn validate(&self, patterns: &Patterns) -> Result<(), ConfigError> {
        if patterns.is_any_shared() && self.history_store.is_none() {
            return Err(ConfigError::new("rooms", "a room with a shared history needs a history_store"));
        }
        self.cluster.as_ref().map_or(Ok(()), Cluster::validate)
    }
}

/// What a hub has as a node. The link and the shared histories hold weak references to the hub.
pub(super) struct Node {
    pub(super) id: Box<str>,
    /// The link to the cluster, if the hub is in one.
    pub(super) link: Option<Link>,
    pub(super) sharing: Option<Arc<Sharing>>,
    pub(super) calls: RemoteCalls,
    pub(super) handlers: NodeHandlers,
}

impl Node {
    pub(super) fn new(settings: NodeSettings, hub: &Weak<Inner>, metrics: Option<&Arc<dyn Metrics>>) -> Self {
        let NodeSettings { cluster, history_store, handlers } = settings;
        let id = cluster.as_ref().map_or_else(|| random::uuid().to_string(), |cluster| cluster.id().to_owned());
        let linked = || LinkedHub { inner: hub.clone(), metrics: metrics.cloned() };
        Self {
            id: id.into(),
            link: cluster.map(|settings| Link::new(settings, linked())),
            sharing: history_store.map(|store| Sharing::new(store, WeakHub::of(hub))),
            calls: RemoteCalls::default(),
            handlers,
        }
    }
}

impl Hub {
    /// The state of the hub's connection to its message bus; `None` without a cluster.
    pub fn adapter_state(&self) -> Option<AdapterState> {
        self.inner().node.link.as_ref().map(Link::state)
    }

    /// The number of connected clients on all nodes, as reported by heartbeats: exact within one interval after a
    /// change. Without [`Cluster::presence`](crate::cluster::Cluster::presence), the number of this node's clients.
    pub fn global_client_count(&self) -> usize {
        let elsewhere = self.inner().node.link.as_ref().map_or(0, Link::remote_clients);
        self.client_count().saturating_add(elsewhere)
    }

    /// The number of clients in the room on all nodes, with the accuracy of
    /// [`global_client_count`](Hub::global_client_count).
    pub fn global_room_size(&self, room: &str) -> usize {
        let elsewhere = self.inner().node.link.as_ref().map_or(0, |link| link.remote_room(room));
        self.room_size(room).saturating_add(elsewhere)
    }

    /// Every node known from heartbeats: this one first, the others sorted by id. For dashboards, not for hot paths.
    pub fn cluster_nodes(&self) -> Vec<ClusterNode> {
        let Counts { clients, rooms } = self.counts_here();
        let mut nodes = vec![ClusterNode::own(self.node_id(), clients, rooms)];
        nodes.extend(self.inner().node.link.iter().flat_map(Link::remote_nodes));
        nodes
    }

    fn counts_here(&self) -> Counts {
        let rooms = self.rooms().into_iter().map(|room| (room.name.as_ref().to_owned(), room.clients)).collect();
        Counts { clients: self.client_count(), rooms }
    }

    #[inline]
    pub(super) fn is_in_cluster(&self) -> bool {
        self.inner().node.link.is_some()
    }

    /// Starts the threads that the cluster and shared histories need.
    pub(super) fn start_node(&self) -> Result<(), ConfigError> {
        let Node { link, sharing, .. } = &self.inner().node;
        let started = link.as_ref().map_or(Ok(()), Link::start);
        started.map_err(|_| ConfigError::new("cluster", "its threads could not be started"))?;
        let started = sharing.as_ref().map_or(Ok(()), Sharing::start);
        started.map_err(|_| ConfigError::new("history_store", "its threads could not be started"))
    }

    pub(super) fn stop_link(&self) {
        if let Some(link) = &self.inner().node.link {
            link.stop();
        }
    }

    /// Queues the message for the other nodes and returns whether it was queued. Clients that are connected here need
    /// no other node.
    pub(super) fn publish_elsewhere(&self, target: &Target<'_>, message: Message) -> bool {
        let Some(link) = &self.inner().node.link else { return false };
        let to = self.remote_recipients(target);
        let except = target.except.iter().map(ToString::to_string).collect();
        !to.is_empty() && link.publish(Outgoing { to, except, message })
    }

    /// Converts another node's recipients into a target.
    pub(super) fn target_of<'a>(to: &'a [Recipient], except: &[String]) -> Target<'a> {
        let mut target = Target::rooms::<Cow<'_, str>>([]);
        for recipient in to {
            target = target.and(match recipient {
                Recipient::All => Target::all(),
                Recipient::Room(name) => Target::room(name.as_str()),
                Recipient::User(id) => Target::user(id.as_str()),
                // An id in another form does not belong to this crate.
                Recipient::Client(id) => Target::clients(id.parse::<ClientId>()),
            });
        }
        target.except_all(except.iter().filter_map(|id| id.parse::<ClientId>().ok()))
    }

    /// The other nodes, limited to those with clients in the room if one is given; `None` if the nodes are not known.
    pub(super) fn other_nodes(&self, room: Option<&str>) -> Option<HashSet<String>> {
        let link = self.inner().node.link.as_ref().filter(|link| link.has_presence())?;
        let has_room =
            |node: &ClusterNode| room.is_none_or(|room| node.rooms.get(room).is_some_and(|count| *count > 0));
        Some(link.remote_nodes().into_iter().filter(has_room).map(|node| node.id).collect())
    }

    /// The parts of the target that may have clients on other nodes, each once. `Everyone` includes all other parts.
    pub(super) fn remote_recipients(&self, target: &Target<'_>) -> Vec<Recipient> {
        if target.parts().any(|part| *part == Part::All) {
            return vec![Recipient::All];
        }
        let elsewhere = target.parts().filter_map(|part| match part {
            Part::All | Part::OneOf(_) => None,
            Part::Room(name) if name.is_empty() || name.len() > MAX_ROOM_NAME => None,
            Part::Room(name) => Some(Recipient::Room(name.to_string())),
            Part::User(id) if id.is_empty() || id.len() > MAX_USER_ID => None,
            Part::User(id) => Some(Recipient::User(id.to_string())),
            Part::Client(id) if self.client(*id).is_some() => None,
            Part::Client(id) => Some(Recipient::Client(id.to_string())),
        });
        if target.single().is_some() {
            return elsewhere.collect();
        }
        let mut seen = HashSet::new();
        elsewhere.filter(|to| seen.insert(to.clone())).collect()
    }
}

/// The link's reference to the hub. It does not keep the hub alive.
pub(super) struct LinkedHub {
    pub(super) inner: Weak<Inner>,
    /// Separate from the hub, so that messages published or lost after the hub's end are counted too.
    pub(super) metrics: Option<Arc<dyn Metrics>>,
}

impl LinkedHub {
    fn hub(&self) -> Option<Hub> {
        self.inner.upgrade().map(Hub)
    }
}

impl ClusterSide for LinkedHub {
    fn deliver(&self, to: &[Recipient], except: &[String], message: Message) {
        let Some(hub) = self.hub() else { return };
        hub.send_here(&Hub::target_of(to, except), &message);
    }

    fn control(&self, from: &str, payload: &[u8]) -> bool {
        self.hub().is_none_or(|hub| hub.receive_control(from, payload))
    }

    fn beat_sent(&self) {
        if let Some(hub) = self.hub() {
            hub.digests_due();
        }
    }

    fn node_gone(&self, id: &str) {
        if let Some(hub) = self.hub() {
            hub.forget_members_of(id);
        }
    }

    fn counts(&self) -> Option<Counts> {
        Some(self.hub()?.counts_here())
    }

    fn count(&self, what: &dyn Fn(&dyn Metrics)) {
        if let Some(metrics) = &self.metrics {
            assert_no_lock_held();
            guarded(|| what(&**metrics));
        }
    }

    fn guarded(&self, what: &'static str, code: &dyn Fn()) {
        if let Some(hub) = self.hub() {
            hub.guarded(None::<&Client>, what, code);
        }
    }
}
