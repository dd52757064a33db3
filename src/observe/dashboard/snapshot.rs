//! The state of the hub at one moment, for all viewers, and the part of it that one view shows.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::nodes::Nodes;
use super::rows::{ClientRow, Namer, cut, millis};
use super::view::{Order, View};
use crate::guard;
use crate::hub::Hub;
use crate::metrics::{DebugMetrics, DebugStats};
use crate::trace::Tracer;

/// Maximum number of clients listed as slow.
const MAX_SLOW: usize = 8;

/// Maximum number of traces that the page gets.
const MAX_TRACES: usize = 40;

/// Maximum number of members of a room that the page names.
const MAX_MEMBERS: usize = 50;

/// The sources of a snapshot.
pub(super) struct Sources {
    pub(super) hub: Hub,
    pub(super) metrics: Option<Arc<DebugMetrics>>,
    pub(super) tracer: Option<Tracer>,
    pub(super) namer: Option<Box<Namer>>,
}

impl Sources {
    /// The counts, from the dashboard's metrics or the hub's.
    pub(super) fn stats(&self) -> Option<DebugStats> {
        match &self.metrics {
            Some(metrics) => Some(metrics.stats()),
            None => self.hub.metrics().and_then(|metrics| guard::catch(|| metrics.debug_stats()).flatten()),
        }
    }
}

/// Taken once a second; no lock is held while it is processed.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The part that every viewer gets.
    common: Value,
    clients: Vec<ClientRow>,
    rooms: Vec<RoomRow>,
}

#[derive(Debug, Clone, Serialize)]
struct RoomRow {
    #[serde(serialize_with = "text")]
    name: Arc<str>,
    members: usize,
    /// Clients of it on other nodes.
    elsewhere: usize,
    /// Messages, values and bytes that the room remembers; absent if it remembers nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remembered: Option<(usize, usize, usize)>,
    /// Its members on all nodes, if it tracks them and has some: users, however many connections they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracked: Option<usize>,
}

/// One point of the charts: the counts up to a moment. Serialises to an array, in this order.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample(
    /// Milliseconds since 1970.
    u64,
    /// Clients.
    u64,
    /// Messages received, queued, dropped.
    [u64; 3],
    /// Bytes received, queued.
    [u64; 2],
    /// Errors of all types.
    u64,
);

impl Snapshot {
    pub(super) fn take(sources: &Sources) -> (Self, Sample) {
        let Sources { hub, tracer, namer, .. } = sources;
        let clients: Vec<ClientRow> =
            hub.clients().iter().map(|client| ClientRow::of(client, namer.as_deref())).collect();
        let nodes = Nodes::of(hub);
        let tracked = hub.member_counts();
        let rooms = hub.rooms().into_iter();
        let rooms: Vec<_> = rooms
            .map(|room| RoomRow {
                elsewhere: nodes.in_room_elsewhere(&room.name),
                remembered: hub.remembered(&room.name),
                tracked: tracked.get(&room.name).copied(),
                name: room.name,
                members: room.clients,
            })
            .collect();
        let load = hub.load();
        let stats = sources.stats();
        let sample = Sample::of(clients.len(), stats.as_ref());
        let traces = tracer.iter().flat_map(|tracer| tracer.recent(MAX_TRACES));
        let traces: Vec<_> = traces.map(|trace| json!(*trace)).collect();
        let common = json!({
            "at": sample.0,
            "sample": sample,
            "hub": {
                "state": hub.state(),
                "uptime_ms": u64::try_from(hub.uptime().as_millis()).unwrap_or(u64::MAX),
                "clients": clients.len(),
                "users": hub.user_count(),
                "rooms": rooms.len(),
                "everywhere": nodes.clients_everywhere(hub),
                "adapter": nodes.adapter(hub),
                "members": load.members,
                "calls": load.pending_calls,
            },
            "nodes": nodes.rows(),
            "stats": stats.as_ref().map(counts),
            "remembered": {
                "rooms": load.remembering_rooms, "messages": load.history_messages, "values": load.state_values,
                "bytes": load.history_bytes, "gaps": stats.as_ref().map(|stats| stats.history_gaps),
                "evictions": stats.as_ref().map(|stats| stats.history_evictions),
            },
            "slow": slow(&clients),
            "traces": traces,
        });
        (Self { common, clients, rooms }, sample)
    }

    /// The JSON that a view shows. The members are those of the view's room, at this moment.
    pub(super) fn render(&self, hub: &Hub, view: &View) -> String {
        let mut whole = self.common.clone();
        whole["clients"] = self.clients_of(view);
        whole["rooms"] = self.rooms_of(view);
        if let Some(room) = &view.room {
            let members = hub.members(room);
            let shown: Vec<String> = members.iter().take(MAX_MEMBERS).map(|member| cut(&member.id)).collect();
            whole["members"] = json!({ "total": members.len(), "shown": shown });
        }
        whole.to_string()
    }

    fn clients_of(&self, view: &View) -> Value {
        let is_shown = |row: &&ClientRow| {
            view.room.as_deref().is_none_or(|room| row.rooms.iter().any(|name| **name == *room))
                && (view.search.is_empty() || row.contains(&view.search))
        };
        let mut shown: Vec<&ClientRow> = self.clients.iter().filter(is_shown).collect();
        sort(&mut shown, view.order);
        json!({ "total": self.clients.len(), "matching": shown.len(), "rows": &shown[..shown.len().min(view.rows)] })
    }

    fn rooms_of(&self, view: &View) -> Value {
        let is_shown =
            |row: &&RoomRow| view.room_search.is_empty() || row.name.to_lowercase().contains(&view.room_search);
        let mut shown: Vec<&RoomRow> = self.rooms.iter().filter(is_shown).collect();
        shown.sort_unstable_by(|a, b| (b.members, &a.name).cmp(&(a.members, &b.name)));
        json!({ "total": self.rooms.len(), "matching": shown.len(), "rows": &shown[..shown.len().min(view.rows)] })
    }
}

impl Sample {
    fn of(clients: usize, stats: Option<&DebugStats>) -> Self {
        let now = millis(SystemTime::now());
        let Some(stats) = stats else { return Self(now, clients as u64, [0; 3], [0; 2], 0) };
        Self(
            now,
            clients as u64,
            [stats.messages_received, stats.messages_sent, stats.messages_dropped],
            [stats.bytes_received, stats.bytes_sent],
            stats.errors.values().sum(),
        )
    }
}

fn text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// The id breaks ties, so that otherwise equal rows keep their places from one second to the next.
fn sort(rows: &mut [&ClientRow], order: Order) {
    match order {
        Order::Newest => rows.sort_unstable_by_key(|row| (Reverse(row.since), row.id)),
        Order::Oldest => rows.sort_unstable_by_key(|row| (row.since, row.id)),
        Order::Queue => rows.sort_unstable_by_key(|row| (Reverse(row.queue), Reverse(row.since), row.id)),
        Order::Dropped => rows.sort_unstable_by_key(|row| (Reverse(row.dropped), Reverse(row.since), row.id)),
        Order::Rooms => rows.sort_unstable_by_key(|row| (Reverse(row.room_count), Reverse(row.since), row.id)),
        // Clients without a user last.
        Order::User => rows.sort_unstable_by(|a, b| {
            (a.user.is_none(), &a.user, Reverse(a.since), a.id).cmp(&(
                b.user.is_none(),
                &b.user,
                Reverse(b.since),
                b.id,
            ))
        }),
    }
}

/// Clients with queued or dropped messages: fullest queues first, then most drops.
fn slow(clients: &[ClientRow]) -> Vec<&ClientRow> {
    let mut slow: Vec<&ClientRow> = clients.iter().filter(|row| row.queue.0 > 0 || row.dropped.0 > 0).collect();
    slow.sort_unstable_by_key(|row| (Reverse(row.queue), Reverse(row.dropped), row.id));
    slow.truncate(MAX_SLOW);
    slow
}

fn counts(stats: &DebugStats) -> Value {
    let micros = |duration: std::time::Duration| duration.as_secs_f64() * 1e6;
    json!({
        "connections": stats.total_connections,
        "joins": stats.room_joins,
        "leaves": stats.room_leaves,
        "latency_us": micros(stats.average_latency),
        "broadcast_us": micros(stats.average_broadcast),
        "published": stats.adapter_published,
        "from_others": stats.adapter_received,
        "unpublished": stats.adapter_dropped,
        "call_timeouts": stats.call_timeouts,
        "late_replies": stats.late_replies,
        "errors": stats.errors.iter().map(|(kind, count)| (kind.as_str(), count)).collect::<Vec<_>>(),
    })
}
