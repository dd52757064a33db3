//! A broker that stands still, with its connections open.

use std::time::{Duration, Instant};

use wshub::{Target, cluster::AdapterState};

use super::outage::flows;
use super::{Bus, early_node, node, settings};
use crate::common::bus::connected;
use crate::common::{PATIENCE, eventually};

const MESSAGES: usize = 4000;
const QUEUE: usize = 1000;
/// What may be on its way between the queue and the broker.
const HANDED_OVER: usize = 1000;

pub(crate) fn a_paused_broker_holds_up_no_sender<B: Bus>() {
    let broker = B::broker();
    let (one, metrics) = early_node(settings::<B>(&broker, "one").queue_messages(QUEUE));
    connected(&one.hub);
    let (two, _) = node::<B>(&broker, "two");
    let (mut here, mut there) = (one.connect(), two.connect());
    let filler = "x".repeat(1000);
    let send = |from: usize| {
        let start = Instant::now();
        for n in from..from + MESSAGES {
            one.hub.send(Target::all(), format!("{n} {filler}")).unwrap();
        }
        start.elapsed()
    };
    let done = || usize::try_from(metrics.stats().adapter_published + metrics.stats().adapter_dropped).unwrap();

    let usual = send(0);
    eventually("all is settled", || done() == MESSAGES);
    broker.pause();
    let paused = send(MESSAGES);
    let waiting = 2 * MESSAGES - done();
    eprintln!(
        "{}: {MESSAGES} sends took {usual:?}, with a paused broker {paused:?}; then {waiting} waited, {} dropped",
        B::OPTION,
        metrics.stats().adapter_dropped
    );
    assert!(paused < usual * 20 + Duration::from_millis(200), "{paused:?} instead of {usual:?}");
    assert!(waiting <= QUEUE + HANDED_OVER, "{waiting}");
    // One finds out because it publishes, the other because it asks.
    for node in [&one, &two] {
        eventually("the pause is noticed", || node.hub.adapter_state() == Some(AdapterState::Disconnected));
    }
    broker.resume();
    for node in [&one, &two] {
        connected(&node.hub);
    }
    flows(&one, &two);
    flows(&two, &one);

    eventually("all is settled", || done() >= 2 * MESSAGES);
    one.hub.send(Target::all(), "end").unwrap();
    let number = |text: &String| text.strip_suffix(&filler)?.trim().parse::<usize>().ok();
    let near: Vec<_> = here.texts_until_end().iter().filter_map(number).collect();
    assert!(near.into_iter().eq(0..2 * MESSAGES), "local clients get everything");
    let far: Vec<_> = there.texts_until_end().iter().filter_map(number).collect();
    assert!(far.is_sorted_by(|a, b| a < b), "out of order or twice");
}

/// What was on its way when the broker stood still comes late or never, but not after what was sent later.
pub(crate) fn a_pause_under_load_keeps_the_order<B: Bus>() {
    let broker = B::broker();
    let (one, metrics) = early_node(settings::<B>(&broker, "one").max_age(PATIENCE));
    connected(&one.hub);
    let (two, _) = node::<B>(&broker, "two");
    let mut there = two.connect();
    let published = || metrics.stats().adapter_published;
    let filler = "x".repeat(1000);
    let mut sent = 0;
    for _ in 0..3 {
        let before = published();
        // At once, so that much is under way when the broker stops.
        for _ in 0..MESSAGES {
            one.hub.send(Target::all(), format!("{sent} {filler}")).unwrap();
            sent += 1;
        }
        eventually("some is published", || published() > before + 20);
        broker.pause();
        eventually("the pause is noticed", || one.hub.adapter_state() == Some(AdapterState::Disconnected));
        broker.resume();
        connected(&one.hub);
        flows(&one, &two);
    }
    eventually("all is settled", || published() + metrics.stats().adapter_dropped >= sent);
    one.hub.send(Target::all(), "end").unwrap();
    let number = |text: &String| text.strip_suffix(&filler)?.trim().parse::<usize>().ok();
    let far: Vec<_> = there.texts_until_end().iter().filter_map(number).collect();
    assert!(far.is_sorted_by(|a, b| a < b), "out of order or twice");
    eprintln!("{}: of {sent} messages with three pauses, {} arrived", B::OPTION, far.len());
}
