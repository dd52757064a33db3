//! Every numeric setting has a lower and an upper bound, checked when the hub or server is built; the error names the
//! setting and the value.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use wshub::history::RoomOptions;
use wshub::metrics::{DebugMetrics, Metrics};
use wshub::server::Forward;
use wshub::trace::Tracer;
use wshub::{Config, Hub, HubBuilder, Limits, Server};

const NANO: Duration = Duration::from_nanos(1);
const MILLI: Duration = Duration::from_millis(1);
const YEARS: Duration = Duration::from_secs(400 * 24 * 3600);

/// The error of building a hub; empty if it can be built.
fn of_hub(change: impl FnOnce(HubBuilder) -> HubBuilder) -> String {
    change(Hub::builder()).build().err().map(|error| error.to_string()).unwrap_or_default()
}

fn of_config(config: Config) -> String {
    of_hub(|builder| builder.config(config))
}

fn of_room(options: RoomOptions) -> String {
    of_hub(|builder| builder.rooms("*", options))
}

fn of_server(change: impl FnOnce(Server) -> Server) -> String {
    let server = change(Server::bind("127.0.0.1:0").unwrap());
    match server.spawn() {
        Ok(handle) => {
            handle.shutdown(Duration::from_secs(20)).unwrap();
            String::new()
        }
        Err(error) => error.to_string(),
    }
}

fn of_forward(timeout: Duration) -> String {
    let forward = Forward::unix("/nowhere").timeout(timeout);
    forward.err().map(|error| error.to_string()).unwrap_or_default()
}

/// A setting: its name, values that are taken, and values that are refused.
struct Setting {
    name: &'static str,
    taken: Vec<String>,
    refused: Vec<String>,
}

/// Tries values of a setting.
fn setting<T: Copy>(name: &'static str, taken: &[T], refused: &[T], build: impl Fn(T) -> String) -> Setting {
    let all = |values: &[T]| values.iter().map(|value| build(*value)).collect();
    Setting { name, taken: all(taken), refused: all(refused) }
}

fn times(name: &'static str, taken: &[Duration], build: impl Fn(Duration) -> String) -> Setting {
    setting(name, taken, &[NANO, YEARS], build)
}

fn check(settings: &[Setting]) {
    for Setting { name, taken, refused } in settings {
        assert!(!taken.is_empty() && !refused.is_empty());
        for (at, error) in taken.iter().enumerate() {
            assert_eq!(error, "", "{name}: value {at} of those that work");
        }
        for (at, error) in refused.iter().enumerate() {
            assert!(error.starts_with(name), "{name}: value {at} of those that cannot work: {error:?}");
            assert!(error.contains(" must "), "{name}: {error:?} names no bound");
        }
    }
}

#[test]
fn of_connections() {
    const MOST: usize = 1 << 30;
    let new = Config::default;
    check(&[
        setting("read_buffer", &[256, 16 << 20], &[255, (16 << 20) + 1], |n| of_config(new().read_buffer(n))),
        setting("max_message_size", &[0, isize::MAX.unsigned_abs()], &[usize::MAX], |n| {
            of_config(new().max_message_size(n))
        }),
        setting("queue_messages", &[1, 1 << 20], &[0, (1 << 20) + 1], |n| of_config(new().queue_messages(n))),
        setting("queue_bytes", &[1, MOST], &[0, MOST + 1], |n| of_config(new().queue_bytes(n))),
        setting("send_buffer", &[0, 4096, MOST], &[1, MOST + 1], |n| of_config(new().send_buffer(n))),
        setting("unsent_low_water", &[0, 1024, MOST], &[1, MOST + 1], |n| of_config(new().unsent_low_water(n))),
        setting("reader_stack", &[32 * 1024], &[0, usize::MAX], |n| of_config(new().reader_stack(n))),
        setting("writer_stack", &[32 * 1024], &[0, usize::MAX], |n| of_config(new().writer_stack(n))),
        setting("fanout_threads", &[0, 64], &[65, usize::MAX], |n| of_config(new().fanout_threads(n))),
        setting("violation_code", &[0, 1002, 4999], &[999, 1005, 5000], |n| of_config(new().violation_code(n))),
        setting("rate_limit_code", &[1008, 3000], &[0, 1006, u16::MAX], |n| of_config(new().rate_limit_code(n))),
        times("write_timeout", &[MILLI, Duration::MAX], |t| of_config(new().write_timeout(t))),
        times("close_timeout", &[MILLI, Duration::MAX], |t| of_config(new().close_timeout(t))),
        times("pong_timeout", &[Duration::ZERO, Duration::MAX], |t| of_config(new().pong_timeout(t))),
        times("ping_period", &[MILLI], |t| of_config(new().ping_period(t).pong_timeout(Duration::MAX))),
        times("heartbeat", &[Duration::ZERO, MILLI, Duration::MAX], |t| of_config(new().heartbeat(t))),
        times("max_age", &[Duration::ZERO, MILLI * 100, Duration::MAX], |t| of_config(new().max_age(t))),
        times("lame_duck", &[Duration::ZERO, MILLI, Duration::MAX], |t| of_config(new().lame_duck(t))),
        times("drain_timeout", &[Duration::ZERO, MILLI, Duration::MAX], |t| of_config(new().drain_timeout(t))),
        times("drain_spread", &[Duration::ZERO, MILLI, Duration::MAX], |t| of_config(new().drain_spread(t))),
    ]);
}

#[cfg(feature = "deflate")]
#[test]
fn of_compression() {
    let new = Config::default;
    check(&[
        setting("compression_level", &[1, 9], &[0, 10], |n| of_config(new().compression_level(n))),
        setting("compression_min_size", &[0, 1 << 30], &[usize::MAX], |n| of_config(new().compression_min_size(n))),
    ]);
}

#[test]
fn of_limits() {
    const MOST: usize = 1 << 30;
    type Set = fn(Limits, usize) -> Limits;
    let counts: [(&str, Set); 5] = [
        ("max_connections", Limits::max_connections),
        ("max_connections_per_user", Limits::max_connections_per_user),
        ("max_connections_per_address", Limits::max_connections_per_address),
        ("max_rooms_per_client", Limits::max_rooms_per_client),
        ("max_clients_per_room", Limits::max_clients_per_room),
    ];
    let of = |limits: Limits| of_hub(|builder| builder.limits(limits));
    for (name, set) in counts {
        check(&[setting(name, &[0, 1, MOST], &[MOST + 1, usize::MAX], |n| of(set(Limits::default(), n)))]);
    }
    check(&[
        setting("max_message_rate", &[0, 1, 1_000_000], &[u32::MAX], |n| of(Limits::default().max_message_rate(n))),
        setting("history_bytes", &[0, 1], &[usize::MAX], |n| of(Limits::default().history_bytes(n))),
    ]);
}

#[test]
fn of_rooms() {
    const MOST: usize = 1 << 30;
    let (history, state) = (RoomOptions::history, RoomOptions::state);
    let day = Duration::from_secs(24 * 3600);
    check(&[
        setting("messages", &[1, MOST], &[0, MOST + 1], |n| of_room(history().messages(n).rewind(0))),
        setting("bytes", &[1, MOST], &[0, MOST + 1], |n| of_room(history().bytes(n))),
        setting("rewind", &[0, 10], &[11, usize::MAX], |n| of_room(history().messages(10).rewind(n))),
        setting("state_keys", &[1, MOST], &[0, MOST + 1], |n| of_room(state().state_keys(n))),
        setting("state_bytes", &[1, MOST], &[0, MOST + 1], |n| of_room(state().state_bytes(n))),
        setting("at_most", &[0, 1000], &[1001, u32::MAX], |n| of_room(state().at_most(n))),
        times("age", &[MILLI, Duration::MAX], |t| of_room(history().age(t))),
        times("linger", &[Duration::ZERO, MILLI, Duration::MAX], |t| of_room(history().linger(t))),
        setting("member_linger", &[Duration::ZERO, MILLI, day], &[NANO, day * 2, Duration::MAX], |t| {
            of_room(RoomOptions::members().member_linger(t))
        }),
    ]);
}

#[test]
fn of_servers_and_tools() {
    const MOST: usize = 1 << 30;
    check(&[
        setting("max_handshakes", &[0, 1, MOST], &[MOST + 1, usize::MAX], |n| of_server(|s| s.max_handshakes(n))),
        setting("max_handshakes_per_address", &[0, 1, MOST], &[MOST + 1, usize::MAX], |n| {
            of_server(|s| s.max_handshakes_per_address(n))
        }),
        setting("max_body", &[0, MOST], &[MOST + 1, usize::MAX], |n| of_server(|s| s.max_body(n))),
        setting("stack_size", &[64 * 1024], &[0, usize::MAX], |n| of_server(|s| s.stack_size(n))),
        times("handshake_timeout", &[MILLI, Duration::MAX], |t| of_server(|s| s.handshake_timeout(t))),
        setting("grace", &[Duration::ZERO, MILLI, Duration::MAX], &[YEARS], |t| of_server(|s| s.grace(t))),
        times("timeout", &[Duration::ZERO, MILLI, Duration::MAX], of_forward),
        setting("capacity", &[0, 1 << 20], &[usize::MAX], |n| of_hub(|builder| builder.tracer(Tracer::new(n)))),
    ]);
    // Allocates its places at once.
    drop(Tracer::new(1).subscribe(usize::MAX));
    let metrics: Arc<dyn Metrics> = Arc::new(DebugMetrics::default());
    assert_eq!(of_server(|server| server.metrics(metrics)), "");
}

#[cfg(feature = "cluster")]
#[test]
fn of_clusters() {
    use wshub::cluster::{Adapter, AdapterError, Cluster, Inbox, MemoryBus};

    /// An adapter of the program's own, which refuses its setting.
    struct Own;
    impl Adapter for Own {
        fn validate(&self) -> Result<(), wshub::ConfigError> {
            Err(wshub::ConfigError::out_of_bounds("pause", 7, "must be 1 to 6"))
        }

        fn publish(&self, _: &[u8]) -> Result<(), AdapterError> {
            Ok(())
        }

        fn subscribe(&self, _: &Inbox) -> Result<(), AdapterError> {
            Ok(())
        }

        fn close(&self) {}
    }

    let new = || Cluster::new(MemoryBus::new().adapter());
    let of = |cluster: Cluster| of_hub(|builder| builder.cluster(cluster));
    let least = MILLI * 10;
    // An adapter refuses its own settings.
    assert_eq!(of(Cluster::new(Own)), "pause 7 must be 1 to 6");
    check(&[
        setting("queue_messages", &[1, 1 << 24], &[0, usize::MAX], |n| of(new().queue_messages(n))),
        setting("queue_bytes", &[1, 1 << 30], &[0, usize::MAX], |n| of(new().queue_bytes(n))),
        setting("max_envelope", &[128, 1 << 30], &[0, 127, usize::MAX], |n| of(new().max_envelope(n))),
        setting("presence", &[Duration::ZERO, least], &[NANO, YEARS, Duration::MAX], |t| of(new().presence(t))),
        setting("max_age", &[MILLI], &[Duration::ZERO, NANO, Duration::MAX], |t| of(new().max_age(t))),
        setting("backoff", &[MILLI], &[Duration::ZERO, NANO, Duration::MAX], |t| of(new().backoff(t, t))),
        setting("node_id", &["a"], &["", &*"x".repeat(257)], |id| of(new().node_id(id))),
    ]);
}

#[cfg(feature = "redis")]
#[test]
fn of_redis() {
    use wshub::cluster::{Cluster, RedisAdapter};
    let new = || RedisAdapter::new("redis://127.0.0.1:1").unwrap();
    let of = |adapter: RedisAdapter| of_hub(|builder| builder.cluster(Cluster::new(adapter)));
    check(&[
        times("connect_timeout", &[Duration::ZERO, MILLI], |t| of(new().connect_timeout(t))),
        times("response_timeout", &[Duration::ZERO, MILLI], |t| of(new().response_timeout(t))),
        times("idle", &[Duration::ZERO, MILLI], |t| of(new().idle(t))),
    ]);
}

#[cfg(feature = "nats")]
#[test]
fn of_nats() {
    use wshub::cluster::{Cluster, NatsAdapter};
    let new = || NatsAdapter::new("nats://127.0.0.1:1").unwrap();
    let of = |adapter: NatsAdapter| of_hub(|builder| builder.cluster(Cluster::new(adapter)));
    check(&[
        times("connect_timeout", &[Duration::ZERO, MILLI], |t| of(new().connect_timeout(t))),
        times("response_timeout", &[Duration::ZERO, MILLI], |t| of(new().response_timeout(t))),
        times("idle", &[Duration::ZERO, MILLI], |t| of(new().idle(t))),
    ]);
}

#[cfg(feature = "centrifuge")]
#[test]
fn of_centrifuge() {
    use wshub::protocol::centrifuge::Centrifuge;
    let new = Centrifuge::new;
    let of = |protocol: Centrifuge| of_hub(|builder| protocol.install(builder));
    let second = Duration::from_secs(1);
    check(&[
        times("ping_interval", &[second, second * 3600], |t| of(new().ping_interval(t))),
        times("pong_timeout", &[MILLI, Duration::MAX], |t| of(new().pong_timeout(t))),
        times("connect_timeout", &[MILLI, Duration::MAX], |t| of(new().connect_timeout(t))),
        setting("expiry_grace", &[Duration::ZERO, MILLI, Duration::MAX], &[YEARS], |t| of(new().expiry_grace(t))),
        setting("max_subscriptions", &[0, 1], &[usize::MAX], |n| of(new().max_subscriptions(n))),
        setting("max_history", &[1, 1000], &[0, usize::MAX], |n| of(new().max_history(n))),
    ]);
}

#[cfg(feature = "protocols")]
#[test]
fn of_relays() {
    use wshub::protocol::relay::Relay;
    let of = |max: u32, window: Duration| {
        let relay = Relay::builder(|_| Err(wshub::Rejection::forbidden())).rate_limit(max, window);
        of_hub(|builder| relay.install(builder))
    };
    check(&[
        setting("rate_limit", &[1, 1_000_000], &[0, u32::MAX], |n| of(n, MILLI)),
        times("rate_limit", &[MILLI], |t| of(1, t)),
    ]);
}
