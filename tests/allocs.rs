//! Allocations of a send, counted by the allocator: no more for a thousand recipients than for ten, and for a client
//! that does not read, no more than its queue holds.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::sync::Arc;
use std::time::Duration;

use common::{Link, PATIENCE, WsClient, accept, eventually};
use counting::{live_bytes, own_allocations};
use parking_lot::Mutex;
use wshub::middleware::Chain;
use wshub::trace::{Sampling, Tracer};
use wshub::{Client, Config, DropPolicy, Hub, Message, Target};

/// Held by each test: [`live_bytes`] are everybody's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn allocations(work: impl FnOnce()) -> usize {
    let before = own_allocations();
    work();
    own_allocations() - before
}

/// Two descriptors for each connection: a thousand of them are over the usual soft limit.
fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a limit that lives as long as they last.
    let is_set = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(is_set, 0);
    assert!(limit.rlim_max > 2200, "{} files are not enough", limit.rlim_max);
}

/// A hub with so many clients, all in one room.
fn crowd(count: usize) -> (Hub, Vec<(WsClient, Client)>) {
    let hub = Hub::builder().config(Config::default().reader_stack(128 * 1024)).build().unwrap();
    let clients: Vec<_> = (0..count).map(|_| accept(&hub, Link::Unix, "/")).collect();
    clients.iter().for_each(|(_, client)| client.join("room").unwrap());
    (hub, clients)
}

fn settle(hub: &Hub) {
    let is_drained = |client: &Client| client.queue_depth().messages == 0;
    eventually("everything is written", || hub.clients().iter().all(is_drained));
}

/// Allocations of one broadcast on the direct way, of one under a cork, and of ten under one cork.
fn costs(hub: &Hub, target: &Target<'_>) -> [usize; 3] {
    let count = hub.client_count();
    let send = || {
        let delivery = hub.send(target.clone(), "a reading of 21.5 degrees").unwrap();
        assert!(delivery.queued >= count - 1 && delivery.dropped == 0, "{delivery:?}");
    };
    let corked = |times: usize| {
        let _cork = hub.cork();
        (0..times).for_each(|_| send());
    };
    // The lists of members, the queues and the thread's own buffers are made once.
    send();
    corked(10);
    settle(hub);
    let costs = [allocations(send), allocations(|| corked(1)), allocations(|| corked(10))];
    settle(hub);
    costs
}

#[test]
fn a_broadcast_to_a_thousand_allocates_no_more_than_one_to_ten() {
    let _alone = ONE_AT_A_TIME.lock();
    allow_many_files();
    let (few_hub, few) = crowd(10);
    let (many_hub, many) = crowd(1000);
    for target in [Target::all(), Target::room("room")] {
        let (few_cost, many_cost) = (costs(&few_hub, &target), costs(&many_hub, &target));
        assert!(many_cost.iter().zip(few_cost).all(|(many, few)| *many <= few), "{many_cost:?} against {few_cost:?}");
        assert!(few_cost[0] < 10 && few_cost[2] < 100, "{few_cost:?}");
    }
    let but_one = |clients: &[(WsClient, Client)]| Target::all().except(clients[0].1.id());
    let (few_cost, many_cost) = (costs(&few_hub, &but_one(&few)), costs(&many_hub, &but_one(&many)));
    assert!(many_cost.iter().zip(few_cost).all(|(many, few)| *many <= few), "{many_cost:?} against {few_cost:?}");
    drop((few, many));
    few_hub.shutdown(PATIENCE).unwrap();
    many_hub.shutdown(PATIENCE).unwrap();
}

#[test]
fn a_client_that_does_not_read_costs_no_more_than_its_queue() {
    const CAP: usize = 256 * 1024;
    const MESSAGE: usize = 1000;
    let _alone = ONE_AT_A_TIME.lock();
    for policy in [DropPolicy::DropNewest, DropPolicy::DropOldest] {
        let config = Config::default().queue_bytes(CAP).queue_messages(10_000).drop_policy(policy);
        let hub = Hub::builder().config(config.write_timeout(PATIENCE)).build().unwrap();
        let (_socket, client) = accept(&hub, Link::TinyUnix, "/");
        let before = live_bytes();
        let mut highest = 0;
        // Sixty times what may wait.
        for _ in 0..60 * CAP / MESSAGE {
            let _ = client.send(vec![0; MESSAGE]);
            highest = highest.max(live_bytes().saturating_sub(before));
        }
        assert!(client.queue_depth().messages > 0);
        // The queue, a batch of 64 KiB, and what surrounds each message and the places in the queue.
        assert!(highest < 2 * CAP + 512 * 1024, "{highest} bytes, policy {policy:?}");
        hub.shutdown(Duration::ZERO).unwrap();
    }
}

/// What the thread of a connection allocates from one message to the next, with this tracer.
fn allocations_of_a_message(tracer: Option<Tracer>) -> usize {
    let counts = Arc::new(Mutex::new(Vec::with_capacity(100)));
    let noted = Arc::clone(&counts);
    let chain = Chain::new(move |client: &Client, message: &Message| {
        client.send(message)?;
        noted.lock().push(own_allocations());
        Ok(())
    });
    let chain = chain.wrap_fn(|client, message, next| next.run(client, message));
    let builder = Hub::builder().before_message(|_, message| Ok(message)).on_message(chain.into_handler());
    let hub = match tracer {
        Some(tracer) => builder.tracer(tracer).build().unwrap(),
        None => builder.build().unwrap(),
    };
    let (mut socket, _client) = accept(&hub, Link::Unix, "/");
    for _ in 0..20 {
        socket.send_text("a message");
        assert_eq!(socket.text(), "a message");
    }
    socket.close();
    hub.shutdown(PATIENCE).unwrap();
    let counts = counts.lock();
    // The first messages make what is made once.
    let steps: Vec<usize> = counts[10..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| *step == steps[0]), "{steps:?}");
    steps[0]
}

#[test]
fn a_message_that_is_not_traced_allocates_nothing_for_it() {
    let _alone = ONE_AT_A_TIME.lock();
    let without = allocations_of_a_message(None);
    assert_eq!(allocations_of_a_message(Some(Tracer::new(10).sample(Sampling::Off))), without);
    assert_eq!(allocations_of_a_message(Some(Tracer::new(10).sample(Sampling::OneIn(1000)))), without);
    assert!(allocations_of_a_message(Some(Tracer::new(10))) > without);
}
