//! Names and help texts of the series. The names are part of the interface.

/// The namespace in front of every name.
pub(super) const NAMESPACE: &str = "wshub";

/// A series: its name without the namespace, and its help text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

const fn series(name: &'static str, help: &'static str) -> Series {
    Series { name, help }
}

pub(super) const CONNECTIONS_ACTIVE: Series = series("connections_active", "Clients connected now.");
pub(super) const CONNECTIONS: Series = series("connections_total", "Clients that have connected.");
pub(super) const RECEIVED: Series = series("messages_received_total", "Messages received from clients.");
pub(super) const RECEIVED_BYTES: Series =
    series("message_received_bytes_total", "Payload bytes received from clients.");
pub(super) const SENT: Series = series("messages_sent_total", "Messages queued, once for each client.");
pub(super) const SENT_BYTES: Series =
    series("message_sent_bytes_total", "Payload bytes of the messages queued, once for each client.");
pub(super) const DROPPED: Series =
    series("messages_dropped_total", "Messages dropped because a queue was full, once for each client.");
pub(super) const LATENCY: Series = series("message_latency_seconds", "How long the handlers of a message took.");
pub(super) const BROADCAST: Series =
    series("broadcast_duration_seconds", "How long a send to more than a single client took on this node.");
pub(super) const ROOMS_ACTIVE: Series = series("rooms_active", "Rooms that exist now.");
pub(super) const JOINS: Series = series("room_joins_total", "Joins of rooms.");
pub(super) const LEAVES: Series = series("room_leaves_total", "Leaves of rooms.");
pub(super) const HISTORY_GAPS: Series =
    series("history_gaps_total", "Gaps in the histories of rooms that clients were told of.");
pub(super) const HISTORY_EVICTIONS: Series =
    series("history_evictions_total", "Rooms without members that were forgotten because memory was short.");
pub(super) const CALL_TIMEOUTS: Series =
    series("call_timeouts_total", "Calls to clients that were not answered in time.");
pub(super) const LATE_REPLIES: Series =
    series("late_replies_total", "Answers of clients to calls that no longer waited for one.");
pub(super) const ERRORS: Series = series("errors_total", "Errors by type.");
pub(super) const ADAPTER_PUBLISHED: Series =
    series("adapter_published_total", "Messages published to other nodes of the cluster.");
pub(super) const ADAPTER_RECEIVED: Series =
    series("adapter_received_total", "Messages received from other nodes of the cluster.");
pub(super) const ADAPTER_DROPPED: Series =
    series("adapter_dropped_total", "Messages that were not published to other nodes of the cluster.");
pub(super) const ADAPTER_CONNECTS: Series =
    series("adapter_connects_total", "How often the cluster's message bus has been connected to.");
pub(super) const ADAPTER_DISCONNECTS: Series =
    series("adapter_disconnects_total", "How often the cluster's message bus has been lost.");
pub(super) const QUEUE_MESSAGES: Series = series("queue_messages", "Messages waiting in the queues of all clients.");
pub(super) const QUEUE_BYTES: Series = series("queue_bytes", "Bytes waiting in the queues of all clients.");
pub(super) const QUEUE_CLIENTS: Series = series("queue_clients", "Clients for which messages wait.");
pub(super) const WRITER_THREADS: Series = series("writer_threads", "Writer threads of clients.");
pub(super) const HISTORY_ROOMS: Series = series("history_rooms", "Rooms that remember something.");
pub(super) const HISTORY_MESSAGES: Series = series("history_messages", "Messages in the histories of rooms.");
pub(super) const STATE_VALUES: Series = series("state_values", "Values in the states of rooms.");
pub(super) const HISTORY_BYTES: Series = series("history_bytes", "Bytes that histories and states of rooms hold.");
pub(super) const CALLS_PENDING: Series = series("calls_pending", "Calls to clients that wait for an answer.");
pub(super) const MEMBERS: Series =
    series("members", "Members of rooms with members, those of other nodes included, once for each room.");
pub(super) const HANDSHAKES: Series =
    series("handshakes_active", "Connections before their upgrade, or in a plain HTTP exchange.");

/// The label of [`ERRORS`].
pub(super) const ERROR_LABEL: &str = "type";
