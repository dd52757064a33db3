//! Traces: one for each inbound message, with everything that ran and was sent; bounded, sampled, and none when turned
//! off.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{BINARY, PATIENCE, TestServer, WsClient};
use wshub::middleware::{Chain, Recovery};
use wshub::protocol::events::Events;
use wshub::router::Router;
use wshub::trace::{MAX_SPANS, Outcome, RecvTimeoutError, Sampling, SpanKind, Subscription, Trace, Tracer, span};
use wshub::{
    Client, HandlerError, HandlerResult, Hub, HubBuilder, Limits, Message, Target, limit::RatePolicy,
    metrics::ErrorType,
};

/// A server whose hub has this handler, and what hears of its heard.
fn traced(handler: impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static) -> (TestServer, Subscription) {
    traced_by(Tracer::new(100), Hub::builder().on_message(handler))
}

fn traced_by(tracer: Tracer, builder: HubBuilder) -> (TestServer, Subscription) {
    let heard = tracer.subscribe(100);
    (TestServer::new(builder.tracer(tracer)), heard)
}

fn next(heard: &Subscription) -> Arc<Trace> {
    heard.recv_timeout(PATIENCE).unwrap()
}

/// Each span with its depth.
fn outline(trace: &Trace) -> Vec<String> {
    let depth = |mut parent: Option<usize>| {
        let mut depth = 0;
        while let Some(at) = parent {
            depth += 1;
            parent = trace.spans[at].parent;
        }
        depth
    };
    trace.spans.iter().map(|span| format!("{}{}", "  ".repeat(depth(span.parent)), span.name)).collect()
}

#[test]
fn spans_stand_in_the_order_in_which_they_begin() {
    let router = Router::json_field("type").on("say", |client, message| {
        let _work = span("work");
        client.hub().send(Target::room("lobby").except(client.id()), message.clone())?;
        client.send("done")?;
        Ok(())
    });
    let chain = Chain::new(router.into_handler())
        .wrap(Recovery)
        .wrap_fn(|client, message, next| next.run(client, message))
        .wrap_named("auth", |client: &Client, message: &Message, next: wshub::middleware::Next<'_>| {
            next.run(client, message)
        });
    let builder = Hub::builder()
        .after_connect(|client| client.join("lobby").unwrap())
        .before_message(|_, message| Ok(message))
        .on_message(chain.into_handler())
        .after_message(|_, _, _| ());
    let (server, heard) = traced_by(Tracer::new(10), builder);
    let mut other = server.connect();
    let (mut socket, client) = server.pair_to("/ws?token=secret");
    socket.sync();
    other.sync();
    socket.send_text(r#"{"type":"say","text":"private"}"#);
    assert_eq!(socket.text(), "done");
    let trace = next(&heard);
    let expected = [
        "before_message",
        "on_message",
        "  Recovery",
        "    closure",
        "      auth",
        "        handler",
        "          work",
        "            send",
        "            send",
        "after_message",
    ];
    assert_eq!(outline(&trace), expected);
    assert_eq!((trace.client, trace.endpoint.as_str(), trace.event.as_deref()), (client.id(), "/ws", Some("say")));
    assert_eq!((trace.bytes, trace.kind, &trace.outcome), (31, wshub::MessageKind::Text, &Outcome::Ok));
    let sends: Vec<_> =
        trace.spans.iter().filter_map(|s| if let SpanKind::Send(send) = &s.kind { Some(send) } else { None }).collect();
    assert_eq!((sends[0].target.as_str(), sends[0].queued), ("room \"lobby\" except 1 client", 1));
    assert_eq!((sends[1].target.clone(), sends[1].queued), (format!("client {}", client.id()), 1));
    for span in &trace.spans {
        assert!(span.start + span.duration <= trace.duration, "{trace:#?}");
        if let Some(parent) = span.parent.map(|at| &trace.spans[at]) {
            assert!(parent.start <= span.start && span.start + span.duration <= parent.start + parent.duration);
        }
    }
    assert!(trace.started_at.elapsed().unwrap() < PATIENCE);
    let json = serde_json::to_value(&*trace).unwrap();
    assert_eq!(json["spans"][7]["kind"], "send");
    assert_eq!(json["spans"][2]["kind"], "middleware");
    assert_eq!(json["outcome"]["result"], "ok");
    assert!(json["started_us"].is_u64() && json["duration_ns"].is_u64() && json["spans"][0]["start_ns"].is_u64());
    let text = json.to_string();
    assert!(!text.contains("private") && !text.contains("secret"), "{text}");
}

#[test]
fn outcomes_say_how_it_ended() {
    let (server, heard) = traced(|client, message| match message.as_text().unwrap_or("binary") {
        "error" => Err("no such thing".into()),
        "counted" => Err(HandlerError::from("odd").counted_as(ErrorType::ProtocolError).into()),
        "close" => Err(HandlerError::close(4001, "enough").into()),
        "bye" => Ok(client.close(4002, "bye")?),
        "others" => {
            let others = client.hub().clients().into_iter().filter(|other| other != client);
            others.for_each(|other| other.close(4003, "you").unwrap());
            Ok(())
        }
        "panic" => panic!("a test's panic"),
        _ => Ok(()),
    });
    let outcome = |socket: &mut WsClient, text: &str| {
        socket.send_text(text);
        next(&heard).outcome.clone()
    };
    let error = |error, text: &str| Outcome::Error { error, text: text.into() };
    let mut socket = server.connect();
    assert_eq!(outcome(&mut socket, "fine"), Outcome::Ok);
    assert_eq!(outcome(&mut socket, "error"), error(ErrorType::MessageHandling, "no such thing"));
    assert_eq!(outcome(&mut socket, "counted"), error(ErrorType::ProtocolError, "odd"));
    let mut bystander = server.connect();
    bystander.sync();
    assert_eq!(outcome(&mut socket, "others"), Outcome::Ok);
    assert_eq!(bystander.expect_close().0, 4003);
    let closed = |code, reason: &str| Outcome::Closed { code, reason: reason.into() };
    assert_eq!(outcome(&mut socket, "close"), closed(4001, "enough"));
    assert_eq!(outcome(&mut server.connect(), "bye"), closed(4002, "bye"));
    let mut socket = server.connect();
    assert_eq!(outcome(&mut socket, "panic"), Outcome::Panic { text: "on_message panicked".into() });
    assert_eq!(socket.expect_close().0, 1011);
}

#[test]
fn a_panic_that_is_caught_further_out_is_told_and_the_spans_end() {
    let chain = Chain::new(|_, _| {
        let _work = span("work");
        panic!("till is empty")
    });
    let (server, heard) = traced(chain.wrap(Recovery).into_handler());
    let mut socket = server.connect();
    socket.send_text("x");
    let trace = next(&heard);
    let Outcome::Panic { text } = &trace.outcome else { panic!("{trace:?}") };
    assert!(text.contains("till is empty"), "{text}");
    assert_eq!(outline(&trace), ["on_message", "  Recovery", "    handler", "      work"]);
    socket.send_text("y");
    assert_eq!(outline(&next(&heard)).len(), 4, "the next trace begins at the top");
}

#[test]
fn sends_tell_whom_they_reached() {
    let (server, heard) = traced(|client, message| {
        let to = if message.is_text() { Target::all() } else { Target::user("nobody") };
        client.hub().send_timeout(to, "x", Duration::ZERO)?;
        client.send_timeout("y", Duration::ZERO)?;
        client.close(1000, "")?;
        assert!(client.send("late").is_err());
        Ok(())
    });
    let mut socket = server.connect();
    socket.send_frame(BINARY, b"x");
    let trace = next(&heard);
    let queued = trace.spans[1..].iter().map(|span| match &span.kind {
        SpanKind::Send(send) => (send.queued, send.dropped, send.published),
        other => panic!("{other:?}"),
    });
    assert_eq!(queued.collect::<Vec<_>>(), [(0, 0, false), (1, 0, false), (0, 0, false)]);
}

#[test]
fn messages_over_the_rate_are_traced_too() {
    let limits = Limits::default().max_message_rate(1).rate_policy(RatePolicy::Drop);
    let (server, heard) = traced_by(Tracer::new(0), Hub::builder().limits(limits).on_message(|_, _| Ok(())));
    let mut socket = server.connect();
    (0..3).for_each(|_| socket.send_text("x"));
    let outcomes: Vec<_> = (0..3).map(|_| next(&heard).outcome.clone()).collect();
    let is_refused = |o: &Outcome| matches!(o, Outcome::Error { error: ErrorType::RateLimitExceeded, .. });
    assert!(outcomes[0] == Outcome::Ok && outcomes.iter().any(is_refused), "{outcomes:?}");
}

#[test]
fn upgrades_pings_and_closes_have_no_trace() {
    let (server, heard) = traced(|_, _| Ok(()));
    let (mut socket, client) = server.pair();
    socket.sync();
    client.send("pushed").unwrap();
    assert_eq!(socket.text(), "pushed");
    socket.close();
    server.hub.shutdown(PATIENCE).unwrap();
    assert_eq!(heard.try_iter().count(), 0);
}

#[test]
fn protocols_name_their_events_and_middleware_itself() {
    let (server, heard) = traced_by(Tracer::new(0), Events::new().wrap(Recovery).install(Hub::builder()));
    let mut socket = server.connect();
    socket.text();
    socket.send_text(r#"{"type":"ping"}"#);
    let trace = next(&heard);
    assert_eq!(trace.event.as_deref(), Some("ping"));
    assert_eq!(outline(&trace), ["on_message", "  Recovery", "    handler", "      send"]);
}

#[test]
fn the_ring_keeps_the_newest_and_a_trace_so_many_spans() {
    let tracer = Tracer::new(3);
    let handler = |client: &Client, message: &Message| {
        if message.as_text() == Some("many") {
            (0..MAX_SPANS + 9).for_each(|_| drop(client.hub().send(Target::room("empty"), "x")));
        }
        wshub::trace::name_event(message.as_text().unwrap());
        Ok(())
    };
    let (server, heard) = traced_by(tracer.clone(), Hub::builder().on_message(handler));
    let mut socket = server.connect();
    for text in ["a", "b", "c", "d", "many"] {
        socket.send_text(text);
        next(&heard);
    }
    let events = |count| tracer.recent(count).iter().map(|t| t.event.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(
        (events(2), events(100)),
        (vec!["many".into(), "d".into()], vec!["many".into(), "d".into(), "c".into()])
    );
    let many = &tracer.recent(1)[0];
    assert_eq!((many.spans.len(), many.spans_left_out), (MAX_SPANS, 10));
    socket.send_text(&"é".repeat(300));
    assert_eq!(next(&heard).event.as_ref().unwrap().len(), 256);
    tracer.clear();
    assert!(tracer.recent(10).is_empty());
}

#[test]
fn a_slow_subscriber_loses_traces_and_is_told_how_many() {
    let tracer = Tracer::new(0);
    let slow = tracer.subscribe(2);
    let (server, heard) = traced_by(tracer.clone(), Hub::builder().on_message(|_, _| Ok(())));
    let mut socket = server.connect();
    let ids: Vec<u64> = (0..5)
        .map(|_| {
            socket.send_text("x");
            next(&heard).id
        })
        .collect();
    assert_eq!(slow.lost(), 3);
    assert_eq!(slow.lost(), 0);
    assert_eq!(slow.try_iter().map(|t| t.id).collect::<Vec<_>>(), ids[..2]);
    socket.send_text("x");
    assert_eq!(next(&slow).id, next(&heard).id);
    assert!(tracer.recent(10).is_empty(), "none are kept");
    assert_eq!(slow.recv_timeout(Duration::ZERO).unwrap_err(), RecvTimeoutError::Timeout);
    socket.close();
    drop((server, heard, tracer));
    // The hub's handle goes with its last thread.
    let end = std::iter::from_fn(|| Some(slow.recv_timeout(PATIENCE))).find_map(Result::err);
    assert_eq!(end, Some(RecvTimeoutError::Ended));
}

#[test]
fn sampling_can_change_and_be_off() {
    let tracer = Tracer::new(100).sample(Sampling::Off);
    let builder = Hub::builder().on_message(|client, message| Ok(client.send(message)?));
    let (server, heard) = traced_by(tracer.clone(), builder);
    assert_eq!(server.hub.tracer().map(Tracer::sampling), Some(Sampling::Off));
    let mut socket = server.connect();
    let mut echo = |count| {
        for _ in 0..count {
            socket.send_text("x");
            assert_eq!(socket.text(), "x");
        }
        // The trace of the last ends after its echo is sent.
        socket.sync();
        heard.try_iter().count()
    };
    assert_eq!(echo(5), 0);
    tracer.set_sampling(Sampling::OneIn(4));
    assert_eq!(echo(8), 2);
    tracer.set_sampling(Sampling::All);
    assert_eq!(echo(3), 3);
    tracer.set_sampling(Sampling::PerSecond(1));
    assert!(echo(10) > 0, "at least the first");
}
