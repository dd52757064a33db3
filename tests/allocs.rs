//! A broadcast allocates a constant number of times, whatever the number of its recipients.
//!
//! In a file of its own, because it replaces the allocator.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{TestServer, WsClient};
use rlimit::Resource;
use wshub::{Hub, Target};

thread_local! {
    /// Allocations of this thread: those of the connections' threads do not count.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; counting touches only a `Cell` without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(code: impl FnOnce()) -> usize {
    let before = COUNT.get();
    code();
    COUNT.get() - before
}

/// What the broadcast does to a hub of `size` clients, of which a room holds all but one: after a first time, in which
/// lists are cached and queues are made.
fn of_broadcasts_to(size: usize, target: &dyn Fn() -> Target<'static>, times: usize) -> usize {
    let server = TestServer::new(Hub::builder());
    let mut sockets: Vec<WsClient> = (0..size).map(|_| server.connect()).collect();
    let clients = server.hub.clients();
    clients[1..].iter().for_each(|client| client.join("room").unwrap());
    let expected = server.hub.send(target(), "warm up").unwrap().queued;
    assert!(expected >= size - 2);
    let burst = || {
        let _cork = (times > 1).then(|| server.hub.cork());
        for _ in 0..times {
            assert_eq!(server.hub.send(target(), "hello").unwrap().queued, expected);
        }
    };
    burst();
    let count = allocations(burst);
    // Everything has arrived all the same.
    for _ in 0..times * 2 {
        let socket = sockets.last_mut().unwrap();
        while socket.text() != "hello" {}
    }
    count
}

#[test]
fn broadcasts_to_many_allocate_no_more_than_to_few() {
    let (_, hard) = Resource::NOFILE.get().unwrap();
    Resource::NOFILE.set(hard, hard).unwrap();
    let targets: [(&str, &dyn Fn() -> Target<'static>); 2] =
        [("everyone", &Target::all), ("a room", &|| Target::room("room"))];
    for (name, target) in targets {
        for times in [1, 5] {
            let few = of_broadcasts_to(10, target, times);
            let many = of_broadcasts_to(1000, target, times);
            assert!(many <= few, "{times} to {name}: {many} allocations for 1,000 clients, {few} for 10");
            assert!(few <= 6 * times + 2, "{times} to {name}: {few} allocations");
        }
    }
}
