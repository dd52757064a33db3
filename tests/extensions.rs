//! Values of the application on clients, found by their types.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::sync::Arc;

use common::{Log, TestServer, WsClient, eventually};
use wshub::{Admission, Client, Hub};

#[derive(Debug, PartialEq)]
struct Score(u32);

/// Uses its client in its destructor: under a lock, this would deadlock or fail a debug build's check.
struct Noted(Log, Client, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        let Self(log, client, name) = self;
        log.add(format!("{name} {:?}", client.extension::<Score>().map(|score| score.0)));
        client.set_extension(Score(9));
    }
}

#[test]
fn each_type_has_one_value() {
    let server =
        TestServer::new(Hub::builder().on_upgrade(|_| Ok(Admission::anonymous().extension(Score(1)).extension(7_u8))));
    let (_socket, client) = server.pair();
    assert_eq!(
        (client.extension::<Score>().as_deref(), client.extension::<u8>().as_deref()),
        (Some(&Score(1)), Some(&7))
    );
    assert!(client.extension::<u16>().is_none());
    client.set_extension(Score(2));
    assert_eq!(client.clone().extension::<Score>().as_deref(), Some(&Score(2)), "handles share it");
    assert!(client.remove_extension::<Score>() && !client.remove_extension::<Score>());
    assert!(client.extension::<Score>().is_none() && client.extension::<u8>().is_some());
    let (_other, other) = server.pair();
    assert_eq!(other.extension::<Score>().as_deref(), Some(&Score(1)), "each client has its own");
}

#[test]
fn two_hooks_of_an_admission_both_store() {
    let builder = Hub::builder()
        .on_upgrade(|_| Ok(Admission::anonymous().extension(Score(1)).extension("first")))
        .on_upgrade(|_| Ok(Admission::anonymous().extension(Score(2))));
    let server = TestServer::new(builder);
    let (_socket, client) = server.pair();
    assert_eq!(client.extension::<Score>().as_deref(), Some(&Score(2)));
    assert_eq!(client.extension::<&str>().as_deref(), Some(&"first"));
}

#[test]
fn destructors_may_use_the_client() {
    let (log, server) = (Log::default(), TestServer::new(Hub::builder()));
    let (_socket, client) = server.pair();
    client.set_extension(Score(1));
    client.set_extension(Noted(log.clone(), client.clone(), "replaced"));
    client.set_extension(Noted(log.clone(), client.clone(), "removed"));
    assert_eq!(log.take(), ["replaced Some(1)"]);
    assert!(client.remove_extension::<Noted>());
    assert_eq!(log.take(), ["removed Some(9)"]);
}

#[test]
fn values_end_with_the_connection() {
    let (log, seen) = (Log::default(), Log::default());
    let hook = seen.clone();
    let builder = Hub::builder().after_disconnect(move |client| {
        hook.add(format!("{:?}", client.extension::<Score>()));
    });
    let server = TestServer::new(builder);
    let (socket, client) = server.pair();
    let probe = Arc::new(());
    client.set_extension(Score(3));
    client.set_extension(Arc::clone(&probe));
    // It holds its own client, and so it would keep itself.
    client.set_extension(Noted(log.clone(), client.clone(), "ended"));
    socket.close();
    eventually("the probe is dropped", || Arc::strong_count(&probe) == 1);
    eventually("all values are dropped", || log.all().len() == 1);
    assert_eq!(log.take(), ["ended None"]);
    assert_eq!(seen.take(), ["Some(Score(3))"], "the last hook still finds it");
    client.set_extension(Arc::clone(&probe));
    assert_eq!((Arc::strong_count(&probe), client.extension::<Arc<()>>()), (1, None), "late values are not kept");
}

/// A client that never becomes one keeps nothing either.
#[test]
fn values_of_a_refused_client_are_dropped() {
    let probe = Arc::new(());
    let given = Arc::clone(&probe);
    let builder = Hub::builder()
        .on_upgrade(move |_| Ok(Admission::anonymous().extension(Arc::clone(&given)).room("closed")))
        .before_room_join(|_, _| Err("closed".into()));
    let server = TestServer::new(builder);
    let (answer, _) = WsClient::try_connect(server.addr, "/ws", "");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    eventually("the value is dropped", || Arc::strong_count(&probe) == 2);
}
