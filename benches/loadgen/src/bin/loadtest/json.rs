//! The report for programs. Its keys carry their units; what is not known is `null`.
//!
//! ```text
//! version            of this form, 1
//! wshub              the crate's version
//! url                of a server that ran already, or null
//! cores              of this machine
//! interrupted        by a signal: what follows is what there was until then
//! failures           [{scenario, message}]: what could not be measured
//! runs               one object for each line of the table:
//!   scenario                       connect, fanout, rooms, echo, churn, stall_none (stall, without the stalled), stall
//!   clients, stalled_clients       connections that stay; of these, those that never read
//!   rooms                          0 where there are none
//!   payload_bytes                  of a message
//!   rate_per_second                of each publisher; null in a closed loop
//!   seconds                        of the measurement, until the last message had come
//!   messages_sent
//!   messages_expected              deliveries that must have been, one for each message and recipient
//!   messages_received              deliveries that were
//!   messages_lost                  the difference
//!   messages_disordered            twice, or after a later one
//!   messages_stray                 to whom they were not for
//!   messages_dropped               by a server of our own, in stall: for full queues of clients that are still there
//!   per_second                     deliveries; in connect, connections
//!   latency_ms                     {count, p50, p90, p99, p999, max}: from sending to receiving
//!   handshake_ms                   the same, from connecting to the server's answer; in churn, of the visitors
//!   connections_opened             in churn, of visitors
//!   connections_failed             in churn, of visitors: refused, not answered, or closed too early
//!   connections_lost               that were to stay
//!   connections_per_second
//!   server_cpu_seconds
//!   server_cpu_us                  for each delivery; in connect, for each connection
//!   server_rss_kib_per_connection  of idle connections; null when it had the memory already
//!   server_threads                 with all clients connected
//!   generator_busy                 the part of the time that the generator's thread was on a CPU, 0 to 1
//!   generator_late_share           of the messages, 0 to 1: sent more than 10 ms and one message behind their schedule
//!   generator_bound                whether the figures say more about the generator than about the server
//!   interrupted
//!   faults, notes                  sentences
//! ```

use serde_json::{Value, json};

use super::histogram::Percentiles;
use super::outcome::Outcome;

const VERSION: u32 = 1;

/// All of it.
pub(crate) fn report(url: Option<&str>, is_interrupted: bool, runs: &[Outcome], failures: &[(&str, String)]) -> Value {
    let failure = |(scenario, message): &(&str, String)| json!({"scenario": scenario, "message": message});
    json!({
        "version": VERSION,
        "wshub": env!("CARGO_PKG_VERSION"),
        "url": url,
        "cores": std::thread::available_parallelism().ok(),
        "interrupted": is_interrupted,
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(outcome: &Outcome) -> Value {
    json!({
        "scenario": outcome.scenario,
        "clients": outcome.clients,
        "stalled_clients": outcome.stalled,
        "rooms": outcome.rooms,
        "payload_bytes": outcome.size,
        "rate_per_second": outcome.rate,
        "seconds": outcome.elapsed.as_secs_f64(),
        "messages_sent": outcome.sent,
        "messages_expected": outcome.expected,
        "messages_received": outcome.received,
        "messages_lost": outcome.lost(),
        "messages_disordered": outcome.disordered,
        "messages_stray": outcome.stray,
        "messages_dropped": outcome.dropped,
        "per_second": outcome.per_second(),
        "latency_ms": outcome.latency.map(percentiles),
        "handshake_ms": outcome.handshake.map(percentiles),
        "connections_opened": outcome.connects,
        "connections_failed": outcome.failed_connects,
        "connections_lost": outcome.lost_connections,
        "connections_per_second": outcome.connects_per_second,
        "server_cpu_seconds": outcome.cpu.map(|cpu| cpu.as_secs_f64()),
        "server_cpu_us": outcome.cpu_micros(),
        "server_rss_kib_per_connection": outcome.kib_per_connection,
        "server_threads": outcome.threads,
        "generator_busy": outcome.busy,
        "generator_late_share": outcome.late_share,
        "generator_bound": outcome.generator_bound().is_some(),
        "interrupted": outcome.is_interrupted,
        "faults": outcome.faults(),
        "notes": outcome.notes,
    })
}

fn percentiles(of: Percentiles) -> Value {
    json!({"count": of.count, "p50": of.p50, "p90": of.p90, "p99": of.p99, "p999": of.p999, "max": of.max})
}
