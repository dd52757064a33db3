//! Hubs that share a Redis server.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod broker_suite;
mod common;

use broker_suite::{Bus, GIVE_UP, suite};
use common::broker::{Broker, Kind};
use wshub::{Cluster, RedisAdapter};

struct Redis;

impl Bus for Redis {
    const KIND: Kind = Kind::Redis;
    const OPTION: &'static str = "redis";

    fn cluster(url: &str) -> Cluster {
        let adapter = RedisAdapter::new(url).unwrap();
        Cluster::new(adapter.connect_timeout(GIVE_UP).response_timeout(GIVE_UP).idle(GIVE_UP / 2))
    }

    fn publish(broker: &Broker, payload: &[u8]) {
        let mut redis = redis::Client::open(broker.url()).unwrap().get_connection().unwrap();
        redis::cmd("PUBLISH").arg("wshub:messages").arg(payload).exec(&mut redis).unwrap();
    }
}

suite! { Redis }
