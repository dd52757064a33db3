//! `loadtest`: what it counts, against its own server and against others, good and bad; and how it ends. How
//! fast anything is does not matter here.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "loadtest/run.rs"]
mod run;
#[path = "loadtest/server.rs"]
mod server;

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use run::{PROGRAM, lives, signal, start, start_as};
use server::{TestServer, eventually};
use wshub::{Admission, Client, HandlerResult, Hub, HubBuilder, Limits, Message, Rejection, Target};

const SCENARIOS: [&str; 7] = ["connect", "fanout", "rooms", "echo", "churn", "stall_none", "stall"];
const KEYS: &str = "clients connections_failed connections_lost connections_opened connections_per_second faults \
    generator_bound generator_busy generator_late_share handshake_ms interrupted latency_ms messages_disordered \
    messages_dropped messages_expected messages_lost messages_received messages_sent messages_stray notes payload_bytes \
    per_second rate_per_second rooms scenario seconds server_cpu_seconds server_cpu_us server_rss_kib_per_connection \
    server_threads stalled_clients";
const SMALL: &str = "--clients 20 --duration 0.5 --timeout 20";
/// Where something is missing on purpose.
const WAIT: &str = "--timeout 5";

fn broadcast(builder: HubBuilder) -> HubBuilder {
    builder.on_message(to_all)
}

fn to_all(client: &Client, message: &Message) -> HandlerResult {
    client.hub().send(Target::all(), message)?;
    Ok(())
}

fn echo() -> HubBuilder {
    Hub::builder().on_message(|client, message| Ok(client.send(message)?))
}

/// Runs a scenario against a server of the test.
fn against(server: &TestServer, line: &str) -> run::Ended {
    start(&format!("{SMALL} {line} --url ws://{}/ws", server.addr)).end()
}

#[test]
fn every_scenario_counts_what_was_sent_and_what_arrived() {
    let ended = start(&format!("{SMALL} --rooms 4 --stalled 5 --churn-rate 50")).end().succeeded();
    for (scenario, listeners) in [("fanout", 20), ("rooms", 5), ("echo", 1), ("churn", 20), ("stall_none", 15)] {
        ended.is_complete(scenario, listeners);
    }
    // Those that do not read take nothing from those that do.
    ended.is_complete("stall", 15);
    assert!(ended.count("stall", "messages_dropped") > 0, "they were not stalled");
    assert!(ended.count("churn", "connections_opened") > 0);
    assert_eq!(ended.count("connect", "connections_opened"), 20);
    assert_eq!(ended.run("connect")["handshake_ms"]["count"], 20);

    let runs = ended.json["runs"].as_array().unwrap();
    assert!(runs.iter().map(|run| run["scenario"].as_str().unwrap()).eq(SCENARIOS));
    for run in runs {
        let keys: Vec<_> = run.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.join(" "), KEYS);
        assert!(run["generator_bound"].is_boolean() && run["server_threads"].as_u64() > Some(15), "{run:#}");
        let line = ended.stdout.lines().find(|line| line.split(' ').next() == run["scenario"].as_str());
        assert!(line.is_some_and(|line| line.contains(&run["messages_received"].to_string())), "{}", ended.stdout);
    }
    // The line that scripts wait for; one server for each measurement.
    assert_eq!(ended.stdout.lines().filter(|line| line.starts_with("listening on 127.0.0.1:")).count(), 7);
    is_drawing(&ended.svg);
}

/// XML, with each scenario and each percentile in it.
fn is_drawing(svg: &str) {
    let document = roxmltree::Document::parse(svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
    assert!(document.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")));
    let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
    for word in SCENARIOS.iter().chain(&["p50", "p90", "p99", "p99.9", "max"]) {
        assert!(texts.iter().any(|text| text.starts_with(word)), "{word} is not in {texts:?}");
    }
    let bars = document.descendants().filter(|node| node.has_tag_name("rect")).count();
    assert_eq!(bars, SCENARIOS.len());
    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
}

#[test]
fn without_a_rate_messages_go_as_fast_as_they_come() {
    let ended = start(&format!("fanout {SMALL} --rate 0 --in-flight 4 --size 100000 --quiet")).end().succeeded();
    ended.is_complete("fanout", 20);
    assert_eq!(ended.count("fanout", "payload_bytes"), 100_000);
    assert!(ended.run("fanout")["rate_per_second"].is_null());
    let ended = start(&format!("rooms {SMALL} --rate 0 --rooms 20")).end().succeeded();
    ended.is_complete("rooms", 1);
}

#[test]
fn a_server_that_runs_already_is_measured() {
    let server = TestServer::new(broadcast(Hub::builder()));
    let own = std::process::id();
    for (line, scenario, listeners) in
        [("fanout", "fanout", 20), ("churn --churn-rate 50", "churn", 20), ("stall --stalled 5", "stall", 15)]
    {
        let ended = against(&server, &format!("{line} --pid {own}")).succeeded();
        ended.is_complete(scenario, listeners);
        assert!(ended.count(scenario, "server_threads") > 0 && !ended.stdout.contains("listening on"));
        assert_eq!(ended.json["url"], format!("ws://{}/ws", server.addr));
    }
    against(&TestServer::new(echo()), "echo").succeeded().is_complete("echo", 1);
    let rooms = Hub::builder()
        .on_upgrade(|head| Ok(Admission::anonymous().room(head.query_param("room").unwrap())))
        .on_message(|client, message| {
            let rooms = client.rooms();
            client.hub().send(Target::rooms(rooms.iter().map(|room| &**room)), message)?;
            Ok(())
        });
    against(&TestServer::new(rooms), "rooms --rooms 10").succeeded().is_complete("rooms", 2);
    eventually("they have left", || server.hub.client_count() == 0);
}

#[test]
fn a_server_that_does_something_else_is_told_what_it_should() {
    let others = Hub::builder().on_message(|client, message| {
        client.hub().send(Target::all().except(client.id()), message)?;
        Ok(())
    });
    let wrapped = Hub::builder().on_message(|client, _| Ok(client.send("{\"type\":\"hello\"}")?));
    let closed = Hub::builder().on_upgrade(|_| Err(Rejection::new(403, "no")));
    let all = || broadcast(Hub::builder());
    let cases = [
        (echo(), "fanout", "messages only go back to their senders"),
        (all(), "echo", "a client got the message of another"),
        (all(), "rooms --rooms 2", "a client got a message from another room"),
        (others, "fanout", "messages do not go back to their senders"),
        (Hub::builder(), "churn", "nothing comes back"),
        (Hub::builder(), "echo", "0 of 20 clients got their message back"),
        (wrapped, "fanout", "not what was sent, but \"{\\\"type\\\":\\\"hello\\\"}\""),
        (closed, "connect", "could not connect: the server refused: \"HTTP/1.1 403"),
    ];
    // At one time, because most wait for what does not come.
    thread::scope(|scope| {
        for (hub, line, part) in cases {
            scope.spawn(move || against(&TestServer::new(hub), &format!("{line} {WAIT}")).says(1, part));
        }
    });
}

#[test]
fn a_server_that_says_nothing_or_is_not_there_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!("connect {SMALL} --timeout 0.5 --url ws://{}", silent.local_addr().unwrap());
    let ended = start(&line).end();
    ended.says(1, "no answer to the upgrade within 0.5 s; 0 of 20 clients are connected");
    assert_eq!(ended.json["failures"][0]["scenario"], "connect");
    let address = silent.local_addr().unwrap();
    drop(silent);
    start(&format!("fanout --url ws://{address}")).end().says(1, "could not connect");
}

#[test]
fn what_is_lost_or_comes_twice_is_counted() {
    // The first message of a run is the one that finds out whether messages arrive, and is not counted.
    let (seen, dropped) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let count = dropped.clone();
    let forgetful = Hub::builder().on_message(move |client, message| {
        if seen.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
            count.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        to_all(client, message)
    });
    let ended = against(&TestServer::new(forgetful), &format!("fanout --rate 200 {WAIT}"));
    ended.says(1, "messages lost");
    let lost = dropped.load(Ordering::Relaxed) * 20;
    assert!(lost > 0);
    assert_eq!(ended.count("fanout", "messages_lost"), lost);

    let doubling = Hub::builder().on_message(|client, message| {
        to_all(client, message)?;
        to_all(client, message)
    });
    let ended = against(&TestServer::new(doubling), "fanout");
    ended.says(1, "messages twice or out of order");
    assert_eq!(ended.count("fanout", "messages_disordered"), ended.count("fanout", "messages_received"));
}

#[test]
fn a_steady_client_that_is_lost_is_a_fault_in_churn_and_stall() {
    for (line, scenario) in [("churn", "churn"), ("stall --stalled 2", "stall_none")] {
        let seen = AtomicU64::new(0);
        let server = TestServer::new(Hub::builder().on_message(move |client, message| {
            to_all(client, message)?;
            if seen.fetch_add(1, Ordering::Relaxed) == 20 {
                // The oldest are those that stay.
                let victim = client.hub().clients().into_iter().find(|other| other.id() != client.id()).unwrap();
                victim.close(1008, "out")?;
            }
            Ok(())
        }));
        let ended = against(&server, &format!("{line} {WAIT}"));
        ended.says(1, "connections lost");
        assert_eq!(ended.count(scenario, "connections_lost"), 1);
        assert!(ended.count(scenario, "messages_lost") > 0);
        assert!(ended.stdout.contains("the server closed with code 1008"), "{}", ended.stdout);
    }
}

#[test]
fn visitors_that_are_not_let_in_are_a_fault_and_the_others_lose_nothing() {
    let full = Hub::builder().limits(Limits::default().max_connections(20));
    let ended = against(&TestServer::new(broadcast(full)), "churn --churn-rate 50");
    ended.says(1, "connections failed");
    assert!(ended.count("churn", "connections_failed") > 0);
    assert_eq!(ended.count("churn", "connections_opened"), 0);
    assert_eq!(ended.count("churn", "messages_received"), ended.count("churn", "messages_sent") * 20);
    assert!(ended.stdout.contains("a visitor: the server refused: \"HTTP/1.1 503"), "{}", ended.stdout);
}

#[test]
fn bad_options_are_named_and_nothing_runs() {
    for (line, part) in [
        ("--clients none", "--clients takes a number"),
        ("swim", "no scenario \"swim\""),
        ("--sise 3", "--sise"),
        ("--url ws://127.0.0.1:1/", "--url needs one scenario"),
        ("echo --url ws://127.0.0.1:1/ --pid 4294967295", "no such process"),
        ("--svg /nowhere/at/all.svg", "--svg /nowhere/at/all.svg"),
    ] {
        let ended = start(line).end();
        ended.says(2, part);
        assert!(ended.stdout.is_empty(), "{line}: {}", ended.stdout);
    }
    let help = start("--help").end();
    assert_eq!(help.status, Some(0));
    assert!(SCENARIOS.iter().filter(|s| **s != "stall_none").all(|s| help.stdout.contains(s)), "{}", help.stdout);
}

#[test]
fn more_clients_than_descriptors_are_refused_beforehand() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 200 && exec \"$@\"", "sh"]).arg(PROGRAM);
    start_as(limited, "fanout --clients 500").end().says(2, "500 clients need 564 descriptors, and the limit is 200");
}

#[test]
fn a_signal_ends_it_with_what_there_is() {
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let server = TestServer::new(Hub::builder().on_message(move |client, message| {
        count.fetch_add(1, Ordering::Relaxed);
        to_all(client, message)
    }));
    let running = start(&format!("fanout --clients 20 --duration 600 --url ws://{}/ws", server.addr));
    // More than it takes to find out whether messages arrive.
    eventually("it measures", || seen.load(Ordering::Relaxed) > 100);
    signal(&running.process, libc::SIGTERM);
    let ended = running.end().succeeded();
    ended.is_complete("fanout", 20);
    assert!(ended.json["interrupted"] == true && ended.run("fanout")["interrupted"] == true);
    assert!(ended.stdout.contains("interrupted"), "{}", ended.stdout);
}

#[test]
fn a_signal_ends_its_server_too() {
    let running = start("fanout --clients 20 --duration 600");
    eventually("its server runs", || running.text("stdout").contains("listening on"));
    let children = running.children();
    assert_eq!(children.len(), 1);
    signal(&running.process, libc::SIGINT);
    let ended = running.end().succeeded();
    assert!(ended.json["interrupted"] == true && ended.stdout.contains("scenario"), "{}", ended.stdout);
    assert!(!lives(children[0]));
}

#[test]
fn its_server_ends_with_it_also_when_it_is_killed() {
    let mut running = start("fanout --clients 20 --duration 600");
    eventually("its server runs", || running.text("stdout").contains("listening on"));
    let children = running.children();
    running.process.kill().unwrap();
    eventually("the server has noticed", || !children.iter().any(|child| lives(*child)));
}
