//! Connections that end at a given time: expiry of an admission, maximum age.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::{Duration, Instant, SystemTime};

use common::{TestServer, eventually};
use wshub::{Admission, Config, Hub};

#[test]
fn an_admission_expires_and_may_be_refreshed() {
    let server = TestServer::new(Hub::builder().on_upgrade(|head| {
        let millis: u64 = head.query_param("millis").unwrap().parse().unwrap();
        Ok(Admission::anonymous().expires_at(SystemTime::now() + Duration::from_millis(millis)))
    }));
    let start = Instant::now();
    let mut short = server.connect_to("/ws?millis=150");
    let (mut refreshed, client) = server.pair_to("/ws?millis=150000");
    client.set_expiry(Some(SystemTime::now() + Duration::from_secs(100)));
    assert_eq!(short.frame().close(), (4100, "expired"));
    assert!(start.elapsed() >= Duration::from_millis(140));
    refreshed.sync();
    client.set_expiry(Some(SystemTime::now()));
    assert_eq!(refreshed.frame().close(), (4100, "expired"));
    let (mut stays, client) = server.pair_to("/ws?millis=1500");
    client.set_expiry(None);
    let mut other = server.connect_to("/ws?millis=1800");
    assert_eq!(other.frame().close().0, 4100);
    stays.sync();
    let mut past = server.connect_to("/ws?millis=0");
    assert_eq!(past.frame().close().0, 4100);
}

#[test]
fn a_connection_has_a_maximum_age_with_jitter() {
    let config = Config::default().max_age(Duration::from_millis(300)).close_timeout(Duration::from_millis(50));
    let server = TestServer::new(Hub::builder().config(config));
    let start = Instant::now();
    let mut sockets: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for socket in &mut sockets {
        assert_eq!(socket.frame().close(), (1001, "maximum age reached"));
    }
    assert!(start.elapsed() >= Duration::from_millis(265));
    // One that goes before its time is forgotten.
    drop(server.connect());
    eventually("nobody is left", || server.hub.client_count() == 0);
    let error = Hub::builder().config(Config::default().max_age(Duration::from_millis(1))).build().unwrap_err();
    assert_eq!(error.field(), "max_age");
}
