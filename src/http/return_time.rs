//! When a refused or closed client should return: not at once, and not all clients at the same time.

use std::time::Duration;

use super::Response;

use crate::random;

/// A random time of 1 to 5 seconds.
pub(crate) fn return_time() -> Duration {
    let [a, b, ..] = *random::uuid().as_bytes();
    Duration::from_millis(1000 + u64::from(u16::from_be_bytes([a, b])) % 4001)
}

/// The response if the server has no thread or place for a connection.
pub(crate) fn overloaded() -> Response {
    unavailable("overloaded")
}

/// A temporary refusal, with 503.
pub(crate) fn unavailable(reason: &str) -> Response {
    Response::text(503, format!("{reason}\n")).header("Retry-After", return_time().as_secs().to_string())
}

/// The field that tells an `EventSource` when to reconnect. It takes effect without an event.
pub(crate) fn encode_retry(time: Duration) -> String {
    format!("retry: {}\n", time.as_millis())
}

/// An event stream that ends at once. `EventSource` then reconnects; after any status but 200 it would give up for
/// good.
pub(crate) fn come_back_later() -> Response {
    Response::new(200)
        .header("Content-Type", "text/event-stream")
        .header("Cache-Control", "no-store")
        .body(encode_retry(return_time()) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spread_over_four_seconds() {
        let times: Vec<Duration> = (0..1000).map(|_| return_time()).collect();
        let seconds = |n| Duration::from_secs(n);
        assert!(times.iter().all(|time| (seconds(1)..=seconds(5)).contains(time)));
        assert!(times.iter().any(|time| *time < seconds(2)) && times.iter().any(|time| *time > seconds(4)));
        assert_eq!(encode_retry(seconds(2)), "retry: 2000\n");
        let head = |_| String::from_utf8_lossy(&overloaded().encode(false).bytes).into_owned();
        let heads: Vec<String> = (0..200).map(head).collect();
        let with = |n: u32| heads.iter().filter(|head| head.contains(&format!("\r\nRetry-After: {n}\r\n"))).count();
        assert!((1..=5).map(with).sum::<usize>() == 200 && with(1) > 0 && with(3) > 0, "{}", heads[0]);
    }
}
