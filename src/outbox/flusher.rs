//! One thread per process for output that no other thread writes in time: messages that bursts hold back for too long,
//! and messages for sockets whose writer thread could not be started. It runs only while there is such output.

use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use super::held::{HELD_AT_MOST, Held, Look};
use super::{Outbox, WriteFailure};
use crate::disposal;
use crate::guard;
use crate::lock::{Condition, Leaf};

/// The number of looks that find nothing before the thread sleeps. Until then, bursts need not wake it.
const IDLE_LOOKS: u32 = 10;
/// How long the thread sleeps before it ends.
const LINGER: Duration = Duration::from_millis(100);
/// The pause between two looks at a socket without a writer thread.
const POLL: Duration = Duration::from_millis(5);
/// The pause between two attempts to start the thread.
const RETRY: Duration = Duration::from_millis(100);
/// The pause between two attempts to start a writer thread.
const WRITER_RETRY: Duration = Duration::from_secs(1);

static FLUSHER: LazyLock<Flusher> =
    LazyLock::new(|| Flusher { state: Leaf::new(State::new()), wake: Condition::new() });

struct Flusher {
    state: Leaf<State>,
    /// Signalled when there is work for the sleeping thread.
    wake: Condition,
}

struct State {
    /// Lists to look at, added by their owners.
    held: Vec<Arc<Held>>,
    /// Sockets without a writer thread.
    orphans: Vec<Orphan>,
    is_running: bool,
    /// The thread waits for `wake`, not for the time of its next look.
    is_asleep: bool,
    /// When the last attempt to start the thread failed.
    refused: Option<Instant>,
}

/// An outbox whose socket pushes back and that has no writer thread. Only the flusher may write to it.
struct Orphan {
    outbox: Arc<Outbox>,
    /// When the socket last took data.
    progress: Instant,
    /// When to try to start a writer thread again.
    next_call: Instant,
}

/// Makes the flusher look at this list until it is empty. Returns false if the thread cannot be started.
pub(super) fn watch(held: &Arc<Held>) -> bool {
    FLUSHER.add(|state| state.held.push(Arc::clone(held)))
}

/// Writes for an outbox, whose socket has been handed over, until nothing waits in it or it gets a writer thread.
/// Returns false if no thread is available.
pub(super) fn adopt(outbox: &Arc<Outbox>) -> bool {
    let now = Instant::now();
    let orphan = Orphan { outbox: Arc::clone(outbox), progress: now, next_call: now + WRITER_RETRY };
    FLUSHER.add(|state| state.orphans.push(orphan))
}

impl Flusher {
    /// Adds work, and starts or wakes the thread. Returns false, with nothing added, if the thread cannot be started.
    fn add(&'static self, change: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state.lock();
        if !state.is_running && !self.start(&mut state) {
            return false;
        }
        change(&mut state);
        if state.is_asleep {
            self.wake.notify_one();
        }
        true
    }

    fn start(&'static self, state: &mut State) -> bool {
        if state.refused.is_some_and(|at| at.elapsed() < RETRY) {
            return false;
        }
        let builder = thread::Builder::new().name("wshub-flusher".into()).stack_size(256 * 1024);
        state.is_running = builder.spawn(|| self.run()).is_ok();
        state.refused = (!state.is_running).then(Instant::now);
        state.is_running
    }

    fn run(&self) {
        disposal::keep_off_this_thread();
        let mut idle_looks = 0;
        let mut state = self.state.lock();
        loop {
            let (mut held, mut orphans) = (std::mem::take(&mut state.held), std::mem::take(&mut state.orphans));
            drop(state);
            // A panic would be a bug in this crate. It must not end the thread, because others would wait for it in
            // vain.
            let next = guard::catch(|| look(&mut held, &mut orphans)).unwrap_or_else(|| Instant::now() + HELD_AT_MOST);
            state = self.state.lock();
            state.held.append(&mut held);
            state.orphans.append(&mut orphans);
            idle_looks = if state.is_idle() { idle_looks + 1 } else { 0 };
            let is_over = idle_looks >= IDLE_LOOKS;
            // A new burst wakes the thread only if the next look would come too late.
            state.is_asleep = state.held.is_empty() && (is_over || !state.orphans.is_empty());
            let until = if is_over { Instant::now() + LINGER } else { next };
            self.wake.wait_until(&mut state, until);
            state.is_asleep = false;
            if is_over && state.is_idle() {
                state.is_running = false;
                return;
            }
        }
    }
}

impl State {
    const fn new() -> Self {
        Self { held: Vec::new(), orphans: Vec::new(), is_running: false, is_asleep: false, refused: None }
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.orphans.is_empty()
    }
}

/// Flushes what is due and removes what is finished. Returns the time of the next look.
fn look(held: &mut Vec<Arc<Held>>, orphans: &mut Vec<Orphan>) -> Instant {
    let now = Instant::now();
    let mut next = now + HELD_AT_MOST;
    held.retain(|held| match held.flush_if_due(now) {
        Look::Empty => false,
        Look::Until(due) => {
            next = next.min(due);
            true
        }
    });
    orphans.retain_mut(|orphan| orphan.write(now));
    if held.is_empty() && !orphans.is_empty() { now + POLL } else { next }
}

impl Orphan {
    /// Writes what the socket takes. Returns false once nothing is left to write here.
    fn write(&mut self, now: Instant) -> bool {
        if now >= self.next_call {
            self.next_call = now + WRITER_RETRY;
            if self.outbox.has_got_writer() {
                return false;
            }
        }
        match self.outbox.write_unblocked() {
            None => return false,
            Some(true) => self.progress = now,
            Some(false) if now.saturating_duration_since(self.progress) > self.outbox.settings.write_timeout => {
                self.outbox.fail(WriteFailure::Timeout);
                return false;
            }
            Some(false) => {}
        }
        true
    }
}
