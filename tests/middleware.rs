//! Middleware: the order of a chain, the built-in middleware, and the counts that the hub leaves to it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;

use common::{Log, TestServer, errors};
use wshub::middleware::{Chain, Logging, Middleware, Next, RecordMetrics, Recovery};
use wshub::{
    Client, HandlerResult, Hub, Message,
    metrics::{DebugMetrics, ErrorType},
    middleware::HandlerPanic,
};

/// Says when it is entered and left.
struct Named(&'static str, Log);

impl Middleware for Named {
    fn handle(&self, client: &Client, message: &Message, next: Next<'_>) -> HandlerResult {
        self.1.add(format!("> {}", self.0));
        let result = next.run(client, message);
        self.1.add(format!("< {} {}", self.0, result.is_ok()));
        result
    }
}

/// Fails or panics when told so.
fn obey(_: &Client, message: &Message) -> HandlerResult {
    match message.as_text() {
        Some("fail") => Err("failed".into()),
        Some("panic") => panic!("as told"),
        _ => Ok(()),
    }
}

#[test]
fn the_first_is_the_outermost() {
    let log = Log::default();
    let inner = log.clone();
    let chain = Chain::new(move |_, message| {
        inner.add(message.as_text().unwrap());
        Ok(())
    })
    .wrap(Named("a", log.clone()))
    .wrap_fn(|client, message, next| match message.as_text() {
        Some("stop") => Err("stopped".into()),
        Some("twice") => next.run(client, message).and_then(|()| next.run(client, message)),
        _ => next.run(client, &Message::text("changed")),
    })
    .wrap(Named("b", log.clone()));
    let server = TestServer::new(Hub::builder().on_message(chain.into_handler()));
    let mut socket = server.connect();
    let mut trace = |text: &str| {
        socket.send_text(text);
        socket.sync();
        log.take()
    };
    assert_eq!(trace("x"), ["> a", "> b", "changed", "< b true", "< a true"]);
    assert_eq!(trace("stop"), ["> a", "< a false"]);
    let twice = ["> a", "> b", "twice", "< b true", "> b", "twice", "< b true", "< a true"];
    assert_eq!(trace("twice"), twice);
}

#[test]
fn recovery_keeps_the_connection_and_says_what_happened() {
    let log = Log::default();
    let seen = log.clone();
    let metrics = Arc::new(DebugMetrics::new());
    let chain = Chain::new(obey).wrap(Logging).wrap(Recovery);
    let builder = Hub::builder().metrics(metrics.clone()).on_message(chain.into_handler()).on_error(move |_, error| {
        let panic = error.downcast_ref::<HandlerPanic>().unwrap();
        seen.add(panic.message());
    });
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    socket.send_text("panic");
    socket.sync();
    assert_eq!(log.take(), ["as told"]);
    assert_eq!((errors(&metrics, ErrorType::Panic), errors(&metrics, ErrorType::MessageHandling)), (1, 0));
    socket.close();
}

#[test]
fn latency_and_errors_are_counted_once() {
    let metrics = Arc::new(DebugMetrics::new());
    let chain = Chain::new(obey).wrap(RecordMetrics::new(metrics.clone())).wrap(Recovery);
    let builder = Hub::builder()
        .metrics(metrics.clone())
        .without_handler_latency()
        .on_message(chain.into_handler())
        .before_message(
            |_, message| if message.as_text() == Some("refuse") { Err("refused".into()) } else { Ok(message) },
        );
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    for text in ["ok", "fail", "panic", "refuse"] {
        socket.send_text(text);
    }
    socket.sync();
    assert_eq!(errors(&metrics, ErrorType::Panic), 1);
    assert_eq!(errors(&metrics, ErrorType::MessageHandling), 2, "fail by the middleware, refuse by the hub");
    assert_eq!(metrics.stats().messages_received, 4);
    assert!(!metrics.stats().average_latency.is_zero());
}

#[test]
fn the_hub_can_leave_latency_alone() {
    for is_left in [false, true] {
        let metrics = Arc::new(DebugMetrics::new());
        let builder = Hub::builder().metrics(metrics.clone()).on_message(obey);
        let server = TestServer::new(if is_left { builder.without_handler_latency() } else { builder });
        let mut socket = server.connect();
        socket.send_text("fail");
        socket.sync();
        assert_eq!(metrics.stats().average_latency.is_zero(), is_left);
        assert_eq!(errors(&metrics, ErrorType::MessageHandling), u64::from(!is_left));
    }
}

#[test]
fn a_panic_without_recovery_still_closes_only_its_connection() {
    let server = TestServer::new(Hub::builder().on_message(Chain::new(obey).wrap(Logging).into_handler()));
    let (mut socket, mut other) = (server.connect(), server.connect());
    socket.send_text("panic");
    assert_eq!(socket.expect_close().0, 1011);
    other.sync();
}
