//! The keeper: the thread for rooms with a history or state. It expires values, sends rate-limited changes, ends rooms
//! without members, and calls the `on_gap` hook.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use super::Hub;
use super::clock::Clock;
use super::load::WeakHub;
use super::memory::Stream;
use super::room::Room;
use crate::client_id::ClientId;
use crate::guard::record;
use crate::history::{Gap, WhenBehind};
use crate::lock::{Condition, Leaf};
use crate::message::Encoded;

/// Maximum number of unreported gaps of one client and room. Further gaps are merged into the last one.
const MAX_GAPS: usize = 16;

/// A scheduled job.
#[derive(Debug)]
pub(super) enum Job {
    /// Ends the room if it has no members and has not been used for its `linger`.
    Linger(Weak<Room>),
    /// Removes values that have expired.
    Expire(Weak<Room>),
    /// Sends the changes of the state.
    Tick(Weak<Room>),
    /// Reports member changes of a room with this name.
    Members(Arc<str>),
    /// Reports versions and hashes of all rooms with members to other nodes.
    #[cfg(feature = "cluster")]
    Digests,
    /// Ends calls to this client that have timed out. The callers, on other nodes, detect the timeout themselves.
    #[cfg(feature = "cluster")]
    GiveUp(ClientId),
    /// Closes connections whose deadline has passed.
    Deadlines,
}

/// One thread per hub, which runs only while there is work.
#[derive(Debug)]
pub(super) struct Keeper {
    hub: WeakHub,
    clock: Clock,
    agenda: Leaf<Agenda>,
    changed: Condition,
}

#[derive(Debug, Default)]
struct Agenda {
    jobs: BinaryHeap<Scheduled>,
    next_number: u64,
    /// Unreported gaps, in order, with a limit for each client and room.
    gaps: HashMap<(ClientId, Arc<str>), Vec<Gap>>,
    is_running: bool,
    is_stopped: bool,
}

/// A job and its time. The earliest is the greatest, because a heap gives the greatest first. Jobs with the same time
/// are done in the order of their numbers.
#[derive(Debug)]
struct Scheduled {
    at: Instant,
    number: u64,
    job: Job,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

/// The thread's next task.
enum Task {
    Job(Job),
    Gaps(ClientId, Vec<Gap>),
}

/// The hub's handle to the keeper. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct KeeperHandle(pub(super) Arc<Keeper>);

impl Drop for KeeperHandle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Keeper {
    pub(super) fn new(hub: WeakHub, clock: Clock) -> Arc<Self> {
        Arc::new(Self { hub, clock, agenda: Leaf::default(), changed: Condition::default() })
    }

    /// Not under a lock.
    pub(super) fn schedule(self: &Arc<Self>, at: Instant, job: Job) {
        self.add(|agenda| {
            agenda.next_number += 1;
            agenda.jobs.push(Scheduled { at, number: agenda.next_number, job });
        });
    }

    /// Queues a call of the gap hook for these publications. Must be called without a lock held.
    pub(super) fn tell_gap(self: &Arc<Self>, client: ClientId, gap: Gap) {
        self.add(|agenda| {
            let told = agenda.gaps.entry((client, Arc::from(gap.room()))).or_default();
            let is_full = told.len() >= MAX_GAPS;
            match told.last_mut().filter(|last| is_full || last.is_followed_by(&gap)) {
                Some(last) => last.extend(&gap),
                None => told.push(gap),
            }
        });
    }

    fn add(self: &Arc<Self>, change: impl FnOnce(&mut Agenda)) {
        let mut agenda = self.agenda.lock();
        if agenda.is_stopped {
            return;
        }
        change(&mut agenda);
        self.changed.notify_one();
        if agenda.is_running {
            return;
        }
        agenda.is_running = true;
        drop(agenda);
        let this = Arc::clone(self);
        let builder = thread::Builder::new().name("wshub-rooms".into());
        if let Err(error) = builder.spawn(move || this.run()) {
            // The next scheduled job tries again. Waiting jobs are kept until then.
            self.agenda.lock().is_running = false;
            record!(Warn, "wshub::hub", "could not start the wshub-rooms thread: {error}");
        }
    }

    /// Lets the thread look at the clock again.
    #[cfg(test)]
    pub(super) fn wake(&self) {
        let _agenda = self.agenda.lock();
        self.changed.notify_one();
    }

    /// Ends the thread and discards waiting jobs.
    pub(super) fn stop(&self) {
        let forgotten = {
            let mut agenda = self.agenda.lock();
            agenda.is_stopped = true;
            self.changed.notify_one();
            (std::mem::take(&mut agenda.jobs), std::mem::take(&mut agenda.gaps))
        };
        drop(forgotten);
    }

    fn run(self: &Arc<Self>) {
        while let Some(task) = self.next() {
            let Some(hub) = self.hub.upgrade() else { return };
            hub.keep(task);
        }
    }

    /// Sleeps until a task is due. Returns `None` when none is left.
    fn next(&self) -> Option<Task> {
        let mut agenda = self.agenda.lock();
        loop {
            if agenda.is_stopped {
                return None;
            }
            if let Some(key) = agenda.gaps.keys().next().cloned() {
                return agenda.gaps.remove(&key).map(|gaps| Task::Gaps(key.0, gaps));
            }
            let Some(at) = agenda.jobs.peek().map(|first| first.at) else {
                agenda.is_running = false;
                return None;
            };
            if self.clock.now() >= at {
                return agenda.jobs.pop().map(|first| Task::Job(first.job));
            }
            self.changed.wait_until(&mut agenda, self.clock.system(at));
        }
    }
}

impl Hub {
    pub(super) fn keeper(&self) -> Arc<Keeper> {
        Arc::clone(&self.inner().keeper.0)
    }

    fn keep(&self, task: Task) {
        match task {
            Task::Gaps(id, gaps) => gaps.iter().for_each(|gap| self.report_gap(id, gap)),
            Task::Job(Job::Linger(room)) => self.with_room(&room, Self::end_if_idle),
            Task::Job(Job::Expire(room)) => self.with_room(&room, Self::remove_expired),
            Task::Job(Job::Tick(room)) => self.with_room(&room, Self::send_changes),
            Task::Job(Job::Members(room)) => self.flush_members(&room),
            #[cfg(feature = "cluster")]
            Task::Job(Job::Digests) => self.publish_digests(),
            #[cfg(feature = "cluster")]
            Task::Job(Job::GiveUp(client)) => self.give_up_calls(client),
            Task::Job(Job::Deadlines) => self.close_due(),
        }
    }

    fn with_room(&self, room: &Weak<Room>, job: impl FnOnce(&Self, &Arc<Room>)) {
        if let Some(room) = room.upgrade() {
            job(self, &room);
        }
    }

    /// Reports a publication that another message has evicted from the client's queue as a gap.
    pub(super) fn report_evicted(&self, client: ClientId, frame: &Encoded) {
        let Some((name, offset)) = frame.place() else { return };
        let Some(room) = self.find_room(name) else { return };
        let position = {
            let state = room.state.read();
            let memory = state.memory.as_ref().filter(|memory| memory.options.when_behind == WhenBehind::CatchUp);
            memory.and_then(|memory| memory.position(Stream::History))
        };
        if let Some(position) = position {
            self.keeper().tell_gap(client, Gap::new(Arc::clone(name), position.epoch(), Some(offset), offset));
        }
    }

    /// Counts a gap and calls the hook.
    fn report_gap(&self, id: ClientId, gap: &Gap) {
        self.count(|m| m.increment_history_gaps());
        let Some(hook) = &self.hooks().on_gap else { return };
        if let Some(client) = self.client(id) {
            self.guarded(Some(&client), "on_gap", || hook(&client, gap));
        }
    }
}
