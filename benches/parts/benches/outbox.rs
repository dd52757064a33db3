//! `cargo bench --bench outbox`, in `benches/parts`.
//!
//! One client's outbox, for each message of 128 bytes, over a sink in place of a socket.
//!
//! The floor is a crossbeam channel of the same length that carries an `Arc`: `try_send` and, where a message is meant
//! to arrive, `try_recv`, on the same threads. That is the least for a bounded queue which several threads fill. Ours
//! writes past the queue where it is empty, keeps the right to write to the socket and looks once more after giving it
//! back; the channel's `try_recv` stands for the write.
//!
//! Full queues are those of an outbox whose handshake is not answered yet: it queues and does not write, so that every
//! send meets the drop policy, and no thread is needed to hold it up.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::{Bench, Way, each};
use crossbeam_channel::{Receiver, Sender, bounded};
use wshub::internals::{Fate, Frame, Outlet};
use wshub::{Config, DropPolicy, Hub, Message};

const PAYLOAD: usize = 128;
/// As the default of `Config::queue_messages`.
const PLACES: usize = 256;
/// Clients that are made at a time, to be disconnected.
const VICTIMS: usize = 64;

type Channel = (Sender<Arc<Vec<u8>>>, Receiver<Arc<Vec<u8>>>);

fn frame() -> Frame {
    Frame::new(&Message::text("x".repeat(PAYLOAD))).unwrap()
}

fn shared() -> Arc<Vec<u8>> {
    Arc::new(vec![0; PAYLOAD])
}

/// A channel with this many of its places taken.
fn channel(taken: usize) -> Channel {
    let channel = bounded(PLACES);
    (0..taken).for_each(|_| channel.0.try_send(shared()).unwrap());
    channel
}

fn full(policy: DropPolicy) -> Outlet {
    let outlet = Outlet::held_back(Config::default().drop_policy(policy));
    let frame = frame();
    (0..PLACES).for_each(|_| assert_eq!(outlet.send(&frame), Fate::Queued));
    outlet
}

/// Turns that are done `size` at a time.
fn in_bursts<'a>(size: u64, mut burst: impl FnMut(u64) + 'a) -> Way<'a> {
    Box::new(move |turns| {
        let started = Instant::now();
        (0..turns).step_by(usize::try_from(size).unwrap()).for_each(|from| burst(size.min(turns - from)));
        started.elapsed()
    })
}

fn uncontended(bench: &mut Bench) {
    let (outlet, frame) = (Outlet::open(Config::default()), frame());
    let (channel, message) = (channel(0), shared());
    let floor = each(|| {
        channel.0.try_send(Arc::clone(&message)).unwrap();
        channel.1.try_recv().unwrap()
    });
    let ours = each(|| assert_eq!(outlet.send(&frame), Fate::Queued));
    assert_eq!(outlet.send(&frame), Fate::Queued);
    check_written(&outlet, &frame, 1);
    bench.case("send, socket free", vec![ours, floor]);
}

/// Push and drain: under a cork a send only queues, and its end writes what there is, many frames in one call.
fn corked(bench: &mut Bench, size: u64) {
    let (hub, outlet, frame) = (Hub::new(), Outlet::open(Config::default()), frame());
    let (channel, message) = (channel(0), shared());
    let floor = in_bursts(size, |size| {
        (0..size).for_each(|_| channel.0.try_send(Arc::clone(&message)).unwrap());
        (0..size).for_each(|_| drop(channel.1.try_recv().unwrap()));
    });
    let burst = |size| {
        let _cork = hub.cork();
        (0..size).for_each(|_| assert_eq!(outlet.send(&frame), Fate::Queued));
    };
    burst(size);
    check_written(&outlet, &frame, size);
    let ours = in_bursts(size, burst);
    bench.case(format!("push and drain, corked, bursts of {size}"), vec![ours, floor]);
}

fn dropping(bench: &mut Bench) {
    let frame = frame();
    let (newest, message) = (channel(PLACES), shared());
    let outlet = full(DropPolicy::DropNewest);
    let floor = each(|| newest.0.try_send(Arc::clone(&message)).unwrap_err());
    bench.case("queue full, newest dropped", vec![each(|| assert_eq!(outlet.send(&frame), Fate::Full)), floor]);

    let oldest = channel(PLACES);
    let outlet = full(DropPolicy::DropOldest);
    let floor = each(|| {
        let refused = oldest.0.try_send(Arc::clone(&message)).unwrap_err();
        drop(oldest.1.try_recv().unwrap());
        oldest.0.try_send(refused.into_inner()).unwrap();
    });
    bench.case("queue full, oldest dropped", vec![each(|| assert_eq!(outlet.send(&frame), Fate::Evicted(1))), floor]);

    let floor = each(|| newest.0.try_send(Arc::clone(&message)).unwrap_err());
    bench.case("queue full, client disconnected", vec![Box::new(|turns| disconnect(turns, &frame)), floor]);
}

/// Each client can be disconnected once, so they are made outside the measured time.
fn disconnect(turns: u64, frame: &Frame) -> Duration {
    let mut took = Duration::ZERO;
    for from in (0..turns).step_by(VICTIMS) {
        let victims: Vec<_> = (from..turns).take(VICTIMS).map(|_| full(DropPolicy::Disconnect)).collect();
        let started = Instant::now();
        victims.iter().for_each(|victim| assert_eq!(victim.send(frame), Fate::SlowConsumer));
        took += started.elapsed();
    }
    took
}

/// So many turns, shared by threads that begin together; the time until the last of them has finished. `work` gets the
/// turns of one thread.
fn on_threads(threads: u64, turns: u64, work: impl Fn(u64) + Sync) -> Duration {
    let ready = Barrier::new(usize::try_from(threads).unwrap() + 1);
    thread::scope(|scope| {
        let at_work: Vec<_> = (0..threads)
            .map(|thread| {
                let (ready, work) = (&ready, &work);
                let share = (turns + thread) / threads;
                scope.spawn(move || {
                    ready.wait();
                    work(share);
                })
            })
            .collect();
        ready.wait();
        let started = Instant::now();
        at_work.into_iter().for_each(|thread| thread.join().unwrap());
        started.elapsed()
    })
}

fn contended(bench: &mut Bench, threads: u64) {
    let frame = frame();
    let (channel, message) = (channel(0), shared());
    let floor: Way<'_> = Box::new(|turns| {
        on_threads(threads, turns, |turns| {
            for _ in 0..turns {
                let _ = channel.0.try_send(Arc::clone(&message));
                let _ = channel.1.try_recv();
            }
        })
    });
    let contend = |turns| {
        let outlet = Outlet::open(Config::default());
        let sent = AtomicU64::new(0);
        let took = on_threads(threads, turns, |turns| {
            let queued = (0..turns).filter(|_| outlet.send(&frame) == Fate::Queued).count() as u64;
            sent.fetch_add(queued, Ordering::Relaxed);
        });
        check_written(&outlet, &frame, sent.into_inner());
        took
    };
    // Enough for the threads to meet, also where each case has one turn only.
    contend(10_000);
    bench.case(format!("send, {threads} threads to one client"), vec![Box::new(contend), floor]);
}

/// Everything that was accepted is written, once.
#[allow(clippy::cast_possible_truncation, reason = "modulo 2^32")]
fn check_written(outlet: &Outlet, frame: &Frame, sent: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !outlet.is_idle() {
        assert!(Instant::now() < deadline, "the writer thread has left something");
        thread::yield_now();
    }
    assert_eq!(outlet.written(), (sent * frame.len() as u64) as u32, "of {sent} messages");
}

fn main() {
    let mut bench = Bench::new("outbox", &["floor"], 20, 2.0);
    uncontended(&mut bench);
    [1, 16, 64, 256].into_iter().for_each(|size| corked(&mut bench, size));
    dropping(&mut bench);
    [2, 4].into_iter().for_each(|threads| contended(&mut bench, threads));
    bench.finish();
}
