//! Shared histories in Redis.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;
mod history_suite;

use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::broker::{Broker, Kind};
use common::eventually;
use wshub::cluster::RedisStore;
use wshub::history::{HistoryStore, Position};

fn store(broker: &Broker) -> Arc<RedisStore> {
    Arc::new(RedisStore::new(&broker.url()).unwrap())
}

#[test]
fn appends_are_one_order() {
    if Kind::Redis.is_missing() {
        return;
    }
    history_suite::appends_are_one_order(&store(&Broker::redis()));
}

#[test]
fn followers_are_told_everything_in_order() {
    if Kind::Redis.is_missing() {
        return;
    }
    history_suite::followers_are_told_everything_in_order(&store(&Broker::redis()));
}

#[test]
fn nodes_share_one_order() {
    if Kind::Redis.is_missing() {
        return;
    }
    let broker = Broker::redis();
    history_suite::nodes_share_one_order(&store(&broker));
}

#[test]
fn an_outage_is_bridged() {
    if Kind::Redis.is_missing() {
        return;
    }
    let broker = Broker::redis();
    let shared = store(&broker);
    let broker = Mutex::new(broker);
    history_suite::an_outage_is_bridged(&shared, |is_down| {
        let mut broker = broker.lock().unwrap();
        if is_down { broker.kill() } else { broker.start() }
    });
}

/// Redis has lost its last entries: it was killed before they were on disk, or a replica that lagged took over.
#[test]
fn a_store_that_went_back_begins_a_new_epoch() {
    if Kind::Redis.is_missing() {
        return;
    }
    let broker = Broker::redis();
    let node = history_suite::node(store(&broker));
    let mut reader = node.connect_to("/ws?room=shared");
    let wait = Duration::from_secs(20);
    for text in ["1", "2", "3"] {
        node.hub.publish_confirmed("shared", text, wait).unwrap();
        assert_eq!(reader.text(), text);
    }
    let before = node.hub.position("shared").unwrap();
    let mut redis = redis::Client::open(broker.url()).unwrap().get_connection().unwrap();
    let mut run = |command: &[&str]| redis::cmd(command[0]).arg(&command[1..]).exec(&mut redis).unwrap();
    run(&["HSET", "wshub:history:{shared}:m", "offset", "1"]);
    run(&["DEL", "wshub:history:{shared}:s"]);
    run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("a new epoch has begun", || node.hub.position("shared").unwrap().epoch() != before.epoch());
    let last = node.hub.publish_confirmed("shared", "4", wait).unwrap().position.unwrap();
    assert_ne!(last.epoch(), before.epoch());
    assert_eq!(reader.text(), "4");
}

/// Redis closes connections that rest, as its `timeout` makes it do; that is no outage.
#[test]
fn a_connection_that_was_closed_while_it_rested_is_replaced() {
    if Kind::Redis.is_missing() {
        return;
    }
    let broker = Broker::redis();
    let store = store(&broker);
    let first = store.append("room", b"1", history_suite::BOUNDS).unwrap();
    let mut redis = redis::Client::open(broker.url()).unwrap().get_connection().unwrap();
    let closed: u64 = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).query(&mut redis).unwrap();
    assert_eq!(closed, 1);
    thread::sleep(Duration::from_millis(1100));
    let second = store.append("room", b"2", history_suite::BOUNDS).unwrap();
    assert_eq!(second, Position::new(first.epoch(), 2));
}
