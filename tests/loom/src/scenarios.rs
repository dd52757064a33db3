//! What a few threads do to one outbox, and what must hold at the end.
//!
//! To add a scenario, add a line to `SCENARIOS`. Each inner list is a thread, each `Act` one of its steps. The
//! functions `of`, `room`, `queue`, `broken` and `once` say what socket and queue they meet and how many preemptions
//! are tried; `Scenario::check` states what must hold after every scenario. A new step is a variant of `Act` and an arm
//! of `Scenario::act`. A test of another shape, such as `burst`, is a function and a line in `all`. Interleavings
//! multiply: two threads with two or three steps take a second, a third thread takes `once` or few steps.
//!
//! What `src/outbox` uses of the crate has a stand-in in `world.rs`, its locks in `lock.rs`, its threads and atomics in
//! `sync.rs`. A new argument in `src/outbox` also gets a mutation in `mutate.py`, and a scenario that notices it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::model::Builder;
use loom::thread;

use crate::config::{Config, DropPolicy};
use crate::lock;
use crate::message::{Encoded, WireFormat};
use crate::outbox::{GaveUp, Held, How, Job, Outbox, Placed, Sent};
use crate::transport::Transport;
use crate::ws::{CLOSE, PING, PONG};
use Act::{Close, Flush, IsIdle, Kill, Next, Ping, Pong, Push, Send, SendWaiting};

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Send,
    /// As under a cork, or under a room's lock: only into the queue.
    Push,
    /// As a publication's fan-out: in front of the queue if nothing waits. A `Flush` follows.
    Next,
    Flush,
    SendWaiting,
    Ping,
    Pong,
    Close,
    IsIdle,
    Kill,
}

#[derive(Debug, Clone, Copy)]
struct Scenario {
    threads: &'static [&'static [Act]],
    /// Bytes that the socket takes before it pushes back.
    room: usize,
    /// Bytes after which the socket breaks.
    breaks_after: usize,
    /// Messages that fit into the queue.
    queue: usize,
    /// Bytes that fit into it.
    queue_bytes: usize,
    policy: DropPolicy,
    /// Writer threads go as soon as they have nothing to do.
    is_writer_short: bool,
    preemptions: usize,
}

const WIDE: usize = usize::MAX;

const fn of(threads: &'static [&'static [Act]]) -> Scenario {
    Scenario {
        threads,
        room: WIDE,
        breaks_after: WIDE,
        queue: 8,
        queue_bytes: 1000,
        policy: DropPolicy::DropNewest,
        is_writer_short: false,
        preemptions: 2,
    }
}

const fn room(room: usize, threads: &'static [&'static [Act]]) -> Scenario {
    Scenario { room, ..of(threads) }
}

const fn queue(queue: usize, policy: DropPolicy, scenario: Scenario) -> Scenario {
    Scenario { queue, policy, ..scenario }
}

const fn broken(breaks_after: usize, scenario: Scenario) -> Scenario {
    Scenario { breaks_after, ..scenario }
}

/// With many steps: one preemption.
const fn once(scenario: Scenario) -> Scenario {
    Scenario { preemptions: 1, ..scenario }
}

/// Name, and what happens.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("direct", of(&[&[Send, Send], &[Send]])),
    ("direct-three", of(&[&[Send], &[Send], &[Send]])),
    ("cork", of(&[&[Push, Push, Flush], &[Send]])),
    ("cork-both", of(&[&[Push, Flush, Send], &[Push, Flush]])),
    ("blocked-at-once", room(0, &[&[Send], &[Send]])),
    ("blocked-in-a-frame", room(1, &[&[Send], &[Send]])),
    ("blocked-between-frames", room(2, &[&[Send], &[Send]])),
    ("blocked-in-the-second", room(3, &[&[Push, Push, Flush], &[Send]])),
    ("blocked-more", room(2, &[&[Send, Send], &[Send]])),
    ("ping", of(&[&[Send, Send], &[Ping]])),
    ("ping-alone", of(&[&[Ping], &[Ping, Send]])),
    ("ping-first", Scenario { preemptions: 4, ..of(&[&[Ping, Send], &[IsIdle]]) }),
    ("ping-blocked", room(1, &[&[Send], &[Ping]])),
    ("pong-blocked", room(3, &[&[Send, Send], &[Pong]])),
    ("drain-looks", of(&[&[Send, Send], &[IsIdle]])),
    ("drain-looks-blocked", room(1, &[&[Send], &[IsIdle]])),
    ("drain-looks-ping", of(&[&[Ping], &[IsIdle]])),
    ("close", of(&[&[Send, Close], &[Send]])),
    ("close-twice", of(&[&[Send, Close], &[Close]])),
    ("close-corked", of(&[&[Push, Close], &[IsIdle]])),
    ("close-blocked", room(0, &[&[Close], &[Send]])),
    ("close-ping-blocked", room(1, &[&[Close], &[Ping]])),
    ("close-behind-a-half", room(3, &[&[Push, Close], &[Send]])),
    ("close-against-waiting", queue(1, DropPolicy::DropNewest, room(0, &[&[Push, SendWaiting], &[Close]]))),
    ("full-holder-elsewhere", queue(1, DropPolicy::DropNewest, of(&[&[Send, Send], &[Send]]))),
    ("full-holder-elsewhere-close", queue(1, DropPolicy::Disconnect, of(&[&[Send, Send], &[Send]]))),
    ("full-holder-elsewhere-evict", queue(1, DropPolicy::DropOldest, of(&[&[Push, Send], &[Send]]))),
    ("full-newest", once(queue(1, DropPolicy::DropNewest, room(1, &[&[Send, Send], &[Send]])))),
    ("full-oldest", once(queue(1, DropPolicy::DropOldest, room(1, &[&[Send, Send], &[Send]])))),
    ("full-disconnect", once(queue(1, DropPolicy::Disconnect, room(1, &[&[Send, Send], &[Send]])))),
    ("waiting", once(queue(1, DropPolicy::DropNewest, room(1, &[&[Send, SendWaiting], &[Send]])))),
    ("waiting-both", queue(1, DropPolicy::DropNewest, of(&[&[Send, SendWaiting], &[SendWaiting]]))),
    ("kill", of(&[&[Send, Send], &[Kill]])),
    ("kill-blocked", room(1, &[&[Send, Send], &[Kill]])),
    ("kill-waiting", queue(1, DropPolicy::DropNewest, room(0, &[&[Push, SendWaiting], &[Kill]]))),
    // The first of them finds the queue empty, because the writer thread has what was in it.
    ("kill-waiting-twice", queue(1, DropPolicy::DropNewest, room(0, &[&[Push, SendWaiting, SendWaiting], &[Kill]]))),
    ("kill-closing", room(1, &[&[Send, Close], &[Kill]])),
    ("break", broken(3, of(&[&[Send, Send], &[Send]]))),
    ("break-waiting", queue(1, DropPolicy::DropNewest, broken(3, of(&[&[Push, SendWaiting], &[Send]])))),
    ("break-blocked", broken(3, room(1, &[&[Send], &[Send]]))),
    ("break-closing", broken(3, of(&[&[Send, Close], &[Send]]))),
    ("next", of(&[&[Next, Flush], &[Send]])),
    ("next-twice", of(&[&[Next, Next, Flush], &[Send]])),
    ("next-then-send", of(&[&[Next, Flush, Send], &[Ping]])),
    ("next-before-send", of(&[&[Next, Send], &[Send]])),
    ("next-both", of(&[&[Next, Flush], &[Next, Flush]])),
    ("next-drain-looks", of(&[&[Next, Flush], &[IsIdle]])),
    ("next-blocked", room(1, &[&[Next, Flush], &[Send]])),
    ("next-blocked-both", room(2, &[&[Next, Flush], &[Next, Flush]])),
    ("next-closing", of(&[&[Next, Close], &[IsIdle]])),
    ("next-closed-by-another", of(&[&[Next, Flush], &[Send, Close]])),
    ("next-behind-the-queue", of(&[&[Push, Next, Flush], &[Send]])),
    ("close-after-an-empty-look", of(&[&[Flush], &[Send, Close]])),
    ("next-after-a-close", of(&[&[Close, Next, Flush], &[Send]])),
    ("next-kill", of(&[&[Next, Flush], &[Kill]])),
    ("next-break", broken(1, of(&[&[Next, Flush], &[Send]]))),
    ("writer-goes", Scenario { is_writer_short: true, ..room(1, &[&[Send, Send]]) }),
    ("writer-goes-two", Scenario { is_writer_short: true, ..room(2, &[&[Send], &[Send]]) }),
];

/// Every scenario by its name.
pub(crate) fn all() -> Vec<(&'static str, Box<dyn Fn()>)> {
    let mut all: Vec<(&'static str, Box<dyn Fn()>)> = Vec::new();
    for (name, scenario) in SCENARIOS {
        all.push((name, Box::new(move || explore(scenario.preemptions, || scenario.run()))));
    }
    all.push(("relied-on", Box::new(|| explore(3, relied_on))));
    all.push(("next-awaited", Box::new(|| explore(3, awaited))));
    all.push(("next-evicted", Box::new(|| explore(3, evicted))));
    all.push(("held-back", Box::new(|| explore(2, held_back))));
    all.push(("burst", Box::new(|| explore(3, || burst(&[2])))));
    all.push(("shared", Box::new(|| explore(3, || shared(2, 1)))));
    all.push(("shared-three", Box::new(|| explore(2, || shared(3, 1)))));
    all.push(("shared-two-helpers", Box::new(|| explore(1, || shared(2, 2)))));
    all.push(("burst-two-looks", Box::new(|| explore(2, || burst(&[2, 1])))));
    all
}

fn explore(preemptions: usize, scenario: impl Fn() + Sync + std::marker::Send + 'static + Copy) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(scenario);
}

/// What a thread has seen.
#[derive(Debug, Default)]
struct Told {
    accepted: Vec<u8>,
    evicted: Vec<u8>,
    /// Of the messages that it has not got in.
    refusals: Vec<Refusal>,
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Full,
    Closed,
}

fn frame(thread: usize, place: usize) -> Encoded {
    Encoded::new(u8::try_from(10 * (thread + 1) + place).expect("few"))
}

impl Scenario {
    fn outbox(&self) -> Arc<Outbox> {
        let outbox = self.unopened();
        outbox.open();
        outbox
    }

    fn unopened(&self) -> Arc<Outbox> {
        let config = Config {
            queue_messages: self.queue,
            queue_bytes: self.queue_bytes,
            drop_policy: self.policy,
            coalesce_writes: false,
            eager_writers: false,
            writer_stack: 0,
            write_timeout: Duration::from_secs(1),
        };
        let transport = Transport::new(self.room, self.breaks_after);
        Outbox::new(transport, Arc::new(config.into()), WireFormat::WebSocket, Vec::new())
    }

    fn run(&'static self) {
        lock::writers_wait_for_work(!self.is_writer_short);
        let outbox = self.outbox();
        let others: Vec<_> = (1..self.threads.len())
            .map(|at| {
                let outbox = Arc::clone(&outbox);
                thread::spawn(move || self.act(at, &outbox))
            })
            .collect();
        let mut told = vec![self.act(0, &outbox)];
        told.extend(others.into_iter().map(|thread| thread.join().expect("no panic")));
        self.check(&outbox, &told);
    }

    fn has(&self, act: Act) -> bool {
        self.threads.iter().any(|acts| acts.contains(&act))
    }

    /// Whether the close or the death of the connection is part of it, or may follow from a full queue.
    fn may_end(&self, told: &[Told]) -> bool {
        let is_slow = self.policy == DropPolicy::Disconnect && told.iter().any(|t| !t.refusals.is_empty());
        self.has(Close) || self.has(Kill) || self.breaks_after != WIDE || is_slow
    }

    fn act(&self, thread: usize, outbox: &Arc<Outbox>) -> Told {
        let mut told = Told::default();
        let far = Instant::now() + Duration::from_secs(1000);
        for (place, act) in self.threads[thread].iter().enumerate() {
            let frame = frame(thread, place);
            match act {
                Send => told.note(frame.number(), outbox.send(&frame)),
                Push => told.note(frame.number(), outbox.push(&frame)),
                Next => told.note(frame.number(), push_next(outbox, &frame).0),
                SendWaiting => told.note(
                    frame.number(),
                    match outbox.send_waiting(&frame, far) {
                        Ok(()) => Sent::Queued,
                        Err(GaveUp::Closed) => Sent::Closed,
                        Err(GaveUp::Timeout) => panic!("no wait times out here"),
                    },
                ),
                Flush => outbox.flush(),
                Ping => outbox.ping(),
                Pong => outbox.pong(Vec::new()),
                Close => _ = outbox.begin_close(None),
                IsIdle => _ = outbox.is_idle(),
                Kill => outbox.kill(),
            }
        }
        told
    }

    /// Waits for what must come, and looks at what has.
    fn check(&self, outbox: &Arc<Outbox>, told: &[Told]) {
        let evicted: Vec<u8> = told.iter().flat_map(|t| t.evicted.iter().copied()).collect();
        let is_kept = |number: &u8| !evicted.contains(number);
        let kept: Vec<u8> = told.iter().flat_map(|t| t.accepted.iter().copied()).filter(is_kept).collect();
        let urgent = usize::from(self.has(Ping)) + usize::from(self.has(Pong));
        if self.may_end(told) {
            if self.has(Close) || self.has(Kill) || self.policy == DropPolicy::Disconnect {
                assert!(outbox.wait_close_sent(Instant::now()), "no wait times out here");
            }
        } else {
            outbox.transport().wait_written(2 * (kept.len() + urgent));
            assert!(told.iter().all(|t| !t.refusals.contains(&Refusal::Closed)), "closed: {told:?}");
        }
        outbox.stop_writer();
        let wire = outbox.transport().wait_written(0);
        let is_cut = self.has(Kill) || self.breaks_after != WIDE;
        let numbers = whole_frames(&wire, is_cut);
        if self.room == WIDE {
            let is_full = told.iter().any(|t| t.refusals.contains(&Refusal::Full));
            assert!(!is_full && evicted.is_empty(), "the peer is not slow: {told:?}");
        }
        self.check_order(&numbers, &kept);
        if !is_cut {
            // What others send while one closes may come too late.
            let closers: Vec<_> = (0..self.threads.len()).filter(|at| self.threads[*at].contains(&Close)).collect();
            let must = |number: &&u8| {
                let thread = usize::from(**number / 10 - 1);
                if self.may_end(told) { closers == [thread] } else { true }
            };
            let missing: Vec<_> = kept.iter().filter(must).filter(|number| !numbers.contains(number)).collect();
            assert!(missing.is_empty(), "lost: {missing:?} of {numbers:?}");
            assert!(!self.has(Ping) || self.may_end(told) || numbers.contains(&PING), "the ping is lost");
        }
    }

    /// Each thread's messages in their order, once, only those that were accepted, and nothing behind the close frame.
    fn check_order(&self, numbers: &[u8], kept: &[u8]) {
        for thread in 0..self.threads.len() {
            let own: Vec<_> = numbers.iter().filter(|n| **n < PING && usize::from(**n / 10 - 1) == thread).collect();
            assert!(own.is_sorted_by(|a, b| a < b), "out of order or twice: {numbers:?}");
            assert!(own.iter().all(|n| kept.contains(n)), "not accepted: {numbers:?}");
        }
        let close = numbers.iter().position(|n| *n == CLOSE);
        assert!(close.is_none_or(|at| at == numbers.len() - 1), "after the close frame: {numbers:?}");
        assert!(numbers.iter().filter(|n| **n == PONG).count() <= 1);
        // While no other thread sends, a control frame goes before what its thread sends after it.
        if let [[Ping, Send], [IsIdle]] = self.threads {
            assert_eq!(numbers.first(), Some(&PING), "the ping waits: {numbers:?}");
        }
    }
}

impl Told {
    fn note(&mut self, number: u8, sent: Sent) {
        match sent {
            Sent::Queued => self.accepted.push(number),
            Sent::Evicted(old) => {
                self.accepted.push(number);
                self.evicted.extend(old.iter().map(Encoded::number));
            }
            Sent::Full | Sent::SlowConsumer => self.refusals.push(Refusal::Full),
            Sent::Closed => self.refusals.push(Refusal::Closed),
        }
    }
}

/// As a publication's fan-out does, with the flushes that others rely on.
fn push_next(outbox: &Arc<Outbox>, frame: &Encoded) -> (Sent, Placed) {
    let placed = outbox.push_next(frame);
    let sent = match placed {
        Placed::Yes | Placed::Awaited => Sent::Queued,
        Placed::No | Placed::Crowded => outbox.push(frame),
    };
    if matches!(placed, Placed::Awaited | Placed::Crowded) {
        outbox.flush();
    }
    (sent, placed)
}

/// A publication that waits for its flush, and a sender that has found its socket held. What is sent does not wait for
/// that flush.
fn relied_on() {
    let outbox = of(&[]).outbox();
    let sender = {
        let outbox = Arc::clone(&outbox);
        thread::spawn(move || assert!(matches!(outbox.send(&frame(1, 0)), Sent::Queued)))
    };
    let (sent, placed) = push_next(&outbox, &frame(0, 0));
    assert!(matches!(sent, Sent::Queued));
    sender.join().expect("no panic");
    if placed != Placed::No {
        assert_eq!(outbox.depth().0, 0, "a message waits for a flush that may come much later: {placed:?}");
    }
    outbox.flush();
    assert_eq!(whole_frames(&outbox.transport().wait_written(4), false).len(), 2);
    outbox.stop_writer();
}

/// A publication that waits for its flush and fills the queue's bytes, and a sender that waits for room. The flush
/// wakes it.
fn awaited() {
    let outbox = Scenario { queue_bytes: 2, ..of(&[]) }.outbox();
    let (waiting, far) = (Arc::clone(&outbox), Instant::now() + Duration::from_secs(1000));
    let sender = thread::spawn(move || assert_eq!(waiting.send_waiting(&frame(1, 0), far), Ok(())));
    let is_placed = matches!(outbox.push_next(&frame(0, 0)), Placed::Yes | Placed::Awaited);
    outbox.flush();
    sender.join().expect("no panic");
    let count = 1 + usize::from(is_placed);
    assert_eq!(whole_frames(&outbox.transport().wait_written(2 * count), false).len(), count);
    assert_eq!(outbox.depth(), (0, 0));
    outbox.stop_writer();
}

/// Two publications of which the second evicts the first if it still waits, while another thread sends a ping. Nothing
/// of it stays behind.
fn evicted() {
    let outbox = Scenario { queue_bytes: 2, policy: DropPolicy::DropOldest, ..of(&[]) }.outbox();
    let pinger = {
        let outbox = Arc::clone(&outbox);
        thread::spawn(move || outbox.ping())
    };
    let (first, _) = push_next(&outbox, &frame(0, 0));
    assert!(matches!(first, Sent::Queued));
    let second = outbox.push(&frame(0, 1));
    outbox.flush();
    let count = match second {
        Sent::Queued => 3,
        Sent::Evicted(old) => 3 - old.len(),
        sent => panic!("{sent:?}"),
    };
    assert_eq!(whole_frames(&outbox.transport().wait_written(2 * count), false).len(), count);
    pinger.join().expect("no panic");
    assert_eq!(outbox.depth(), (0, 0));
    outbox.stop_writer();
}

/// The numbers of the frames on the wire; the last may be half if the connection was cut.
fn whole_frames(wire: &[u8], is_cut: bool) -> Vec<u8> {
    let whole = wire.chunks(2).map(|frame| match frame {
        [first, second] => {
            assert_eq!(first | 0x80, *second, "torn: {wire:x?}");
            Some(*first)
        }
        _ => {
            assert!(is_cut, "half a frame: {wire:x?}");
            None
        }
    });
    whole.flatten().collect()
}

/// Until the handshake is answered, threads may send, and nothing is written.
fn held_back() {
    let outbox = of(&[]).unopened();
    let sender = {
        let outbox = Arc::clone(&outbox);
        thread::spawn(move || assert!(matches!(outbox.send(&frame(1, 0)), Sent::Queued)))
    };
    outbox.ping();
    sender.join().expect("no panic");
    assert!(outbox.transport().wait_written(0).is_empty(), "written before the answer to the handshake");
    outbox.open();
    let wire = outbox.transport().wait_written(4);
    assert_eq!(whole_frames(&wire, false), [PING, frame(1, 0).number()]);
    outbox.stop_writer();
}

/// A burst: its owner pushes so many messages and lists the client, while the flusher looks from outside. At the end
/// the flusher looks once more, and then nothing may wait.
fn burst(pushes: &[usize]) {
    let scenario = of(&[]);
    let (outbox, held) = (scenario.outbox(), Arc::new(Held::default()));
    let later = Instant::now() + Duration::from_secs(1000);
    let flusher = {
        let held = Arc::clone(&held);
        let looks = pushes.len();
        thread::spawn(move || (0..looks).for_each(|_| _ = held.flush_if_due(later)))
    };
    let count: usize = pushes.iter().sum();
    for n in 0..count {
        assert!(matches!(outbox.push(&frame(0, n)), Sent::Queued));
        held.touch(&outbox);
    }
    flusher.join().expect("no panic");
    held.flush_if_due(later);
    assert_eq!(outbox.depth().0, 0, "a message is held back, and its client is on no list");
    let wire = outbox.transport().wait_written(2 * count);
    assert_eq!(whole_frames(&wire, false).len(), count);
    outbox.stop_writer();
}

/// A broadcast to so many clients, whose flushes are shared with helpers, and another one by the same thread. When the
/// first is over, nothing may wait that no thread is writing.
fn shared(clients: usize, helpers: usize) {
    let scenario = of(&[]);
    let outboxes: Arc<[Arc<Outbox>]> = (0..clients).map(|_| scenario.outbox()).collect();
    let job = Arc::new(Job::new(Box::new(Arc::clone(&outboxes))));
    let threads: Vec<_> = (0..helpers)
        .map(|_| {
            let job = Arc::clone(&job);
            thread::spawn(move || job.help())
        })
        .collect();
    let mut given = vec![0; clients];
    job.run(helpers, |range, how| {
        for at in range {
            given[at] += 1;
            let sent = match how {
                How::Now => outboxes[at].send(&frame(0, 0)),
                How::Later => outboxes[at].send_later(&frame(0, 0)),
            };
            assert!(matches!(sent, Sent::Queued));
        }
    });
    assert!(given.iter().all(|count| *count == 1), "{given:?}");
    for outbox in outboxes.iter() {
        let is_written = || outbox.depth().0 == 0;
        // Looked at twice, because the thread that has the socket may be done in between.
        assert!(is_written() || outbox.is_held() || is_written(), "a message waits, and no thread has the socket");
        assert!(matches!(outbox.send(&frame(0, 1)), Sent::Queued));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    for outbox in outboxes.iter() {
        let wire = outbox.transport().wait_written(4);
        assert_eq!(whole_frames(&wire, false), [frame(0, 0).number(), frame(0, 1).number()]);
        outbox.stop_writer();
    }
}
