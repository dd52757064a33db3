//! Shared histories in Redis.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;
mod history_suite;

use std::sync::Arc;
use std::sync::Mutex;

use common::broker::{Broker, Kind};
use wshub::cluster::RedisStore;

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
