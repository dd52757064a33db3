//! Rooms with a state: the last value of each key, for clients that join, keep up or are behind.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by a panic, and counts little")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{TestServer, WsClient};
use wshub::health::QueueDepth;
use wshub::history::StateError;
use wshub::{Config, Hub, RoomOptions};

fn server(options: RoomOptions) -> TestServer {
    let config = Config::default().write_timeout(Duration::from_secs(600));
    TestServer::new(Hub::builder().config(config).rooms("r", options))
}

/// Reads until the key has the value: each key's values on the way.
fn read_until(socket: &mut WsClient, last: &str) -> BTreeMap<String, Vec<u64>> {
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    loop {
        let text = socket.text();
        let (key, rest) = text.split_once(' ').unwrap();
        let value = rest.split(' ').next().unwrap().parse().unwrap();
        seen.entry(key.to_owned()).or_default().push(value);
        if text.starts_with(last) {
            return seen;
        }
    }
}

#[test]
fn who_joins_gets_the_values_and_then_the_changes() {
    let server = server(RoomOptions::state());
    let hub = &server.hub;
    for (key, value) in [("a", "a 1"), ("b", "b 1"), ("a", "a 2")] {
        hub.set("r", key, value).unwrap();
    }
    let (mut socket, client) = server.pair();
    client.join("r").unwrap();
    assert_eq!([socket.text(), socket.text()], ["b 1", "a 2"], "the one that has not changed for longest first");
    assert_eq!(hub.set("r", "b", "b 2").unwrap().queued, 1);
    assert_eq!(socket.text(), "b 2");
    let values: Vec<_> = hub.state_of("r").iter().map(|p| p.message().as_text().unwrap().to_owned()).collect();
    assert_eq!(values, ["a 2", "b 2"]);
    let (mut second, client) = server.pair();
    client.join_with("r", None, |_| client.send("welcome").unwrap()).unwrap();
    assert_eq!([second.text(), second.text(), second.text()], ["welcome", "a 2", "b 2"]);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let server = server(RoomOptions::state().state_keys(2).state_bytes(4096));
    let hub = &server.hub;
    assert_eq!(hub.set("other", "a", "1"), Err(StateError::NoState));
    assert_eq!(hub.set("", "a", "1"), Err(StateError::InvalidRoom));
    hub.set("r", "a", "1").unwrap();
    hub.set("r", "b", "1").unwrap();
    assert_eq!(hub.set("r", "c", "1"), Err(StateError::TooManyKeys { limit: 2 }));
    assert_eq!(hub.set("r", "a", "x".repeat(5000)), Err(StateError::TooLarge { limit: 4096 }));
    assert_eq!(hub.state_of("r").len(), 2);
    assert!(hub.state_of("other").is_empty() && !hub.unset("other", "a"));
}

#[test]
fn a_client_that_is_behind_gets_the_last_value_of_each_key_and_no_older_one_after_it() {
    let server = server(RoomOptions::state());
    let hub = &server.hub;
    let (mut slow, client) = server.pair();
    client.join("r").unwrap();
    let pad = "x".repeat(20_000);
    let rounds = 2000;
    for n in 1..=rounds {
        let key = format!("k{}", n % 5);
        hub.set("r", &key, format!("{key} {n} {pad}")).unwrap();
    }
    let QueueDepth { messages, .. } = client.queue_depth();
    assert!(messages <= 2, "{messages} values wait");
    hub.set("r", "end", "end 0").unwrap();
    let seen = read_until(&mut slow, "end");
    for (key, values) in &seen {
        assert!(values.is_sorted(), "{key}: {values:?}");
    }
    let total: usize = seen.values().map(Vec::len).sum();
    assert!(total < rounds as usize, "{total} values for {rounds} changes");
    for (at, n) in [(1, rounds - 4), (2, rounds - 3), (3, rounds - 2), (4, rounds - 1), (0, rounds)] {
        assert_eq!(seen[&format!("k{at}")].last(), Some(&n));
    }
    assert_eq!(client.dropped().messages, 0);
}

#[test]
fn values_expire_and_members_who_ask_see_them_go() {
    let server = server(RoomOptions::state());
    let hub = &server.hub;
    hub.set_for("r", "short", "1", Duration::from_millis(30)).unwrap();
    hub.set_for("r", "long", "1", Duration::from_secs(600)).unwrap();
    hub.set_for("r", "renewed", "1", Duration::from_millis(30)).unwrap();
    hub.set("r", "renewed", "2").unwrap();
    common::eventually("the value has expired", || hub.state_of("r").len() == 2);
    let keys: Vec<_> = hub.state_of("r").iter().map(|p| p.key().unwrap().to_owned()).collect();
    assert_eq!(keys, ["long", "renewed"]);
}

#[test]
fn changes_are_sent_so_many_times_a_second_and_the_newest_come() {
    let server = server(RoomOptions::state().at_most(10));
    let hub = &server.hub;
    let (mut socket, client) = server.pair();
    client.join("r").unwrap();
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_millis(450) {
        n += 1;
        hub.set("r", "a", format!("a {n}")).unwrap();
        hub.set("r", "b", format!("b {n}")).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let lasted = begun.elapsed();
    hub.set("r", "end", "end 0").unwrap();
    let seen = read_until(&mut socket, "end");
    let most = lasted.as_millis() as usize / 100 + 2;
    assert!(seen["a"].len() <= most, "{} values in {lasted:?}", seen["a"].len());
    assert_eq!((seen["a"].last(), seen["b"].last()), (Some(&n), Some(&n)));
    assert!(seen["a"].is_sorted() && seen["b"].is_sorted());
}
