//! The threads of the model, step by step, and the search through all states.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};

use super::memory::{Memory, Place, View};
use super::verdict::{CLOSE, PING, verdict};

const OPEN: u8 = 0;
const CLOSING: u8 = 1;
const CLOSE_SENT: u8 = 2;

/// Batches that a sender writes before it hands over, and frames in a batch.
const MAX_BATCHES: u8 = 3;
const MAX_FRAMES: usize = 2;

/// A part of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    Nothing,
    /// (2): the fence between a push and the `try_lock`.
    PushFence,
    /// (5): the fence between the unlock and the look for work.
    LookFence,
    /// (6): the look for work, by senders.
    Look,
    /// (6), by the writer thread.
    WriterLook,
    /// (6), by `is_idle`.
    IdleLook,
    /// The urgent flag in (6).
    UrgentLook,
    /// The call of the writer thread by the one who hands over.
    Call,
    /// The look at the queue before a frame is written directly.
    QueueFirst,
    /// The rule that a control frame goes behind a half-written frame.
    UrgentBehindHalf,
    /// The look at the phase before the queue is emptied, not after.
    CloseBeforeQueue,
    /// The rule that nothing is taken up behind the close frame.
    CloseIsLast,
}

/// What a thread of a scenario does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Send,
    /// Under a cork: only the push.
    Push,
    /// The end of the cork.
    Flush,
    Ping,
    Close,
    IsIdle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// Between two acts.
    Next,
    Send,
    /// `write_through`: the two halves of `try_lock`, then what must hold for it.
    ThroughLook,
    ThroughLock,
    ThroughLength,
    ThroughUrgent,
    ThroughPhase,
    ThroughWrite,
    Push,
    Post,
    BeginClose,
    /// `flush`: fence, `try_lock` in two halves.
    Flush,
    FlushLook,
    FlushLock,
    /// `pump` and `refill`.
    PumpPhase,
    Urgent,
    Controls,
    ClosePhase,
    PopLook,
    LateClosePhase,
    TakeClose,
    Write,
    CloseSent,
    /// Unlock, then fence, then the look for work.
    Unlock(After),
    LookFence(After),
    WorkLength(After),
    WorkUrgent(After),
    WorkPhase(After),
    Call,
    IdleLength,
    IdleLook,
    IdleLock,
    /// The writer thread: asleep, taking the lock, taking it again.
    Asleep,
    WriterLock,
    AgainLook,
    AgainLock,
    Done,
}

/// What follows the unlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum After {
    /// A sender looks for work and flushes it.
    Look,
    /// The same, of `is_idle`.
    IdleLook,
    /// The writer thread looks for work.
    WriterLook,
    /// The socket was not free for the direct way.
    Push,
    /// The socket is handed over to the writer thread by this thread.
    Call,
    /// It has been handed over by another thread.
    Leave,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Batch {
    frames: Vec<u8>,
    is_half_written: bool,
    closes: bool,
}

/// What the socket's mutex guards, and the socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Socket {
    backlog: Option<Batch>,
    handed_over: bool,
    room: u8,
    wire: Vec<u8>,
}

/// A small mutex with what it guards; its critical sections are single steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Guarded {
    view: View,
    /// Controls: a ping, a close frame, whether the close has begun. Desk: work.
    flags: [bool; 3],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Thread {
    number: u8,
    acts: &'static [Act],
    place: usize,
    step: Step,
    view: View,
    batch: Batch,
    batches: u8,
    /// `refill` has seen that the close has begun.
    is_closing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    memory: Memory,
    socket: Socket,
    controls: Guarded,
    desk: Guarded,
    threads: Vec<Thread>,
}

/// What an exploration has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Different states in which every thread has finished.
    pub(crate) ends: usize,
    pub(crate) faults: Vec<&'static str>,
}

/// Goes through all states of a scenario.
pub(crate) fn explore(without: Without, room: u8, acts: &[&'static [Act]]) -> Found {
    let thread = |number: u8, acts: &'static [Act], step| Thread {
        number,
        acts,
        place: 0,
        step,
        view: View::default(),
        batch: Batch::default(),
        batches: 0,
        is_closing: false,
    };
    let mut threads: Vec<Thread> = (1..).zip(acts).map(|(number, acts)| thread(number, acts, Step::Next)).collect();
    threads.push(thread(0, &[], Step::Asleep));
    let socket = Socket { room, ..Socket::default() };
    let (controls, desk) = (Guarded::default(), Guarded::default());
    let start = State { memory: Memory::new(), socket, controls, desk, threads };
    let mut found = Found::default();
    // A hash stands for the state: with some 10^5 states, two of one hash are a matter of 10^-9, and the seed is new
    // in every run.
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        if !seen.insert(hasher.hash_one(&state)) {
            continue;
        }
        let before = open.len();
        // A step that no other thread can notice or disturb needs no other order.
        let own = state.threads.iter().position(|t| matches!(t.step, Step::Next | Step::Write | Step::ThroughWrite));
        let chosen = own.map_or(0..state.threads.len(), |at| at..at + 1);
        chosen.for_each(|at| state.advance(at, without, &mut open));
        if open.len() == before {
            found.ends += 1;
            let fault = verdict(&state.socket.wire, acts).err();
            found.faults.extend(fault.filter(|fault| !found.faults.contains(fault)));
        }
    }
    found
}

impl State {
    /// Adds every state that one step of that thread leads to.
    fn advance(&self, at: usize, without: Without, open: &mut Vec<Self>) {
        use Step::{
            AgainLook, ClosePhase, FlushLook, IdleLength, IdleLook, LateClosePhase, PopLook, PumpPhase, Send,
            ThroughLength, ThroughLook, ThroughPhase, ThroughUrgent, WorkLength, WorkPhase, WorkUrgent,
        };
        let step = self.threads[at].step;
        let (place, is_acquire) = match step {
            ThroughLook | FlushLook | IdleLook | AgainLook => (Place::Lock, false),
            ThroughLength | WorkLength(_) | PopLook | IdleLength => (Place::Length, false),
            ThroughUrgent => (Place::Urgent, false),
            WorkUrgent(_) => (Place::Urgent, true),
            Send | ThroughPhase => (Place::Phase, false),
            PumpPhase | ClosePhase | LateClosePhase | WorkPhase(_) => (Place::Phase, true),
            _ => return open.extend(self.after(at, without, 0)),
        };
        for (value, view) in self.memory.load(self.threads[at].view, place, is_acquire) {
            let mut read = self.clone();
            read.threads[at].view = view;
            open.extend(read.after(at, without, value));
        }
    }

    /// The state after one step of that thread, which has loaded `value`; `None` if the thread must wait.
    #[allow(clippy::too_many_lines, reason = "every step of the protocol, one beside the other")]
    fn after(&self, at: usize, without: Without, value: u8) -> Option<Self> {
        let mut next = self.clone();
        let Self { memory, socket, controls, desk, threads } = &mut next;
        let me = &mut threads[at];
        let is_writer = me.number == 0;
        let is_free = memory.newest(Place::Lock) == 0;
        let hold = |memory: &mut Memory, me: &mut Thread| memory.exchange(&mut me.view, Place::Lock, 1, true, false);
        me.step = match me.step {
            Step::Next => match me.acts.get(me.place) {
                None => Step::Done,
                Some(act) => {
                    me.place += 1;
                    match act {
                        Act::Send => Step::Send,
                        Act::Push => Step::Push,
                        Act::Flush => Step::Flush,
                        Act::Ping => Step::Post,
                        Act::Close => Step::BeginClose,
                        Act::IsIdle => Step::IdleLength,
                    }
                }
            },
            Step::Send if value != OPEN => Step::Next,
            Step::Send => Step::ThroughLook,
            Step::ThroughLook if value == 0 => Step::ThroughLock,
            Step::ThroughLock if is_free => {
                hold(memory, me);
                if socket.backlog.is_some() { Step::Unlock(After::Push) } else { Step::ThroughLength }
            }
            Step::ThroughLook | Step::ThroughLock => Step::Push,
            Step::ThroughLength if value == 0 || without == Without::QueueFirst => Step::ThroughUrgent,
            Step::ThroughUrgent if value == 0 => Step::ThroughPhase,
            Step::ThroughPhase if value == OPEN => Step::ThroughWrite,
            Step::ThroughLength | Step::ThroughUrgent | Step::ThroughPhase => Step::Unlock(After::Push),
            Step::ThroughWrite => {
                me.batch.frames = vec![me.number * 10 + u8::try_from(me.place).unwrap_or(9)];
                let is_written = socket.write(&mut me.batch, false);
                if is_written { Step::Unlock(After::Look) } else { socket.hand_over(me) }
            }
            Step::Push => {
                memory.push(&mut me.view, me.number * 10 + u8::try_from(me.place).unwrap_or(9));
                if me.acts[me.place - 1] == Act::Push { Step::Next } else { Step::Flush }
            }
            Step::Post => {
                controls.run(&mut me.view, |flags| flags[0] = true);
                memory.store(&mut me.view, Place::Urgent, 1);
                Step::Flush
            }
            Step::BeginClose if controls.flags[2] => {
                controls.run(&mut me.view, |_| ());
                Step::Next
            }
            Step::BeginClose => {
                memory.exchange(&mut me.view, Place::Phase, CLOSING, true, true);
                controls.run(&mut me.view, |flags| *flags = [flags[0], true, true]);
                memory.store(&mut me.view, Place::Urgent, 1);
                Step::Flush
            }
            Step::Flush => {
                if without != Without::PushFence {
                    memory.fence(&mut me.view);
                }
                Step::FlushLook
            }
            Step::FlushLook if value == 0 => Step::FlushLock,
            Step::FlushLock if is_free => {
                hold(memory, me);
                if socket.handed_over { Step::Unlock(After::Leave) } else { socket.take_over(me) }
            }
            Step::FlushLook | Step::FlushLock => Step::Next,
            Step::PumpPhase if value >= CLOSE_SENT => {
                me.batch = Batch::default();
                Step::Unlock(if is_writer { After::WriterLook } else { After::Look })
            }
            Step::PumpPhase if me.batch.closes && without != Without::CloseIsLast => Step::Write,
            Step::PumpPhase => Step::Urgent,
            Step::Urgent => {
                let was = memory.exchange(&mut me.view, Place::Urgent, 0, true, true);
                if was == 0 { Step::ClosePhase } else { Step::Controls }
            }
            Step::Controls => {
                if controls.run(&mut me.view, |flags| std::mem::take(&mut flags[0])) {
                    let is_behind = me.batch.is_half_written && without != Without::UrgentBehindHalf;
                    me.batch.frames.insert(usize::from(is_behind), PING);
                }
                Step::ClosePhase
            }
            Step::ClosePhase => {
                me.is_closing = value == CLOSING;
                Step::PopLook
            }
            Step::PopLook if value > 0 && me.batch.frames.len() < MAX_FRAMES => {
                me.batch.frames.extend(memory.pop(&mut me.view));
                Step::PopLook
            }
            Step::PopLook if !me.batch.frames.is_empty() => Step::Write,
            Step::PopLook if without == Without::CloseBeforeQueue => Step::LateClosePhase,
            Step::LateClosePhase if value == CLOSING => Step::TakeClose,
            Step::PopLook if me.is_closing => Step::TakeClose,
            Step::TakeClose if controls.run(&mut me.view, |flags| std::mem::take(&mut flags[1])) => {
                me.batch = Batch { frames: vec![CLOSE], closes: true, ..Batch::default() };
                Step::Write
            }
            Step::PopLook | Step::LateClosePhase | Step::TakeClose => {
                Step::Unlock(if is_writer { After::WriterLook } else { After::Look })
            }
            Step::Write if !socket.write(&mut me.batch, is_writer) => socket.hand_over(me),
            Step::Write if me.batch.closes => Step::CloseSent,
            Step::Write => socket.next_batch(me),
            Step::CloseSent => {
                memory.exchange(&mut me.view, Place::Phase, CLOSE_SENT, true, true);
                socket.next_batch(me)
            }
            Step::Unlock(after) => {
                memory.store(&mut me.view, Place::Lock, 0);
                match after {
                    After::Push => Step::Push,
                    After::Call => Step::Call,
                    After::Leave => Step::Next,
                    After::Look | After::IdleLook | After::WriterLook => Step::LookFence(after),
                }
            }
            Step::LookFence(after) => {
                if without != Without::LookFence {
                    memory.fence(&mut me.view);
                }
                let is_left_out = match after {
                    After::WriterLook => without == Without::WriterLook,
                    After::IdleLook => without == Without::IdleLook,
                    _ => without == Without::Look,
                };
                if is_left_out { after.idle() } else { Step::WorkLength(after) }
            }
            Step::WorkLength(after) if value > 0 => Step::WorkPhase(after),
            Step::WorkLength(after) => Step::WorkUrgent(after),
            Step::WorkUrgent(after) if value > 0 && without != Without::UrgentLook => Step::WorkPhase(after),
            Step::WorkPhase(after) if value < CLOSE_SENT => {
                if is_writer {
                    Step::AgainLook
                } else {
                    after.flush()
                }
            }
            Step::WorkUrgent(after) | Step::WorkPhase(after) => after.idle(),
            Step::Call => {
                desk.run(&mut me.view, |flags| flags[0] = without != Without::Call);
                Step::Next
            }
            Step::IdleLength if value == 0 => Step::IdleLook,
            Step::IdleLook if value == 0 => Step::IdleLock,
            Step::IdleLock if is_free => {
                hold(memory, me);
                Step::Unlock(After::IdleLook)
            }
            Step::IdleLength | Step::IdleLook | Step::IdleLock => Step::LookFence(After::IdleLook),
            Step::Asleep if desk.flags[0] => {
                desk.run(&mut me.view, |flags| flags[0] = false);
                Step::WriterLock
            }
            Step::AgainLook if value == 0 => Step::AgainLock,
            Step::WriterLock | Step::AgainLock if is_free => {
                hold(memory, me);
                socket.take_over(me)
            }
            Step::AgainLook | Step::AgainLock => Step::Asleep,
            Step::Asleep | Step::WriterLock | Step::Done => return None,
        };
        next.forget();
        Some(next)
    }

    fn forget(&mut self) {
        let (mut live, mut others) = (Vec::new(), vec![&mut self.controls.view, &mut self.desk.view]);
        for thread in &mut self.threads {
            // The writer thread learns what its caller knows before it reads anything.
            if thread.step == Step::Done || (thread.step == Step::Asleep && !self.desk.flags[0]) {
                others.push(&mut thread.view);
            } else {
                live.push(&mut thread.view);
            }
        }
        self.memory.forget(&mut live, &mut others);
    }
}

impl After {
    /// There is no work.
    fn idle(self) -> Step {
        if self == Self::WriterLook { Step::Asleep } else { Step::Next }
    }

    fn flush(self) -> Step {
        if self == Self::WriterLook { Step::AgainLook } else { Step::Flush }
    }
}

impl Guarded {
    fn run<T>(&mut self, view: &mut View, section: impl FnOnce(&mut [bool; 3]) -> T) -> T {
        view.join(self.view);
        self.view = *view;
        section(&mut self.flags)
    }
}

impl Socket {
    /// The beginning of a pump: what is left over goes first.
    fn take_over(&mut self, me: &mut Thread) -> Step {
        me.batch = self.backlog.take().unwrap_or_default();
        me.batches = 0;
        self.handed_over = false;
        Step::PumpPhase
    }

    fn hand_over(&mut self, me: &mut Thread) -> Step {
        self.backlog = Some(std::mem::take(&mut me.batch));
        self.handed_over = true;
        Step::Unlock(After::Call)
    }

    /// After a batch is written.
    fn next_batch(&mut self, me: &mut Thread) -> Step {
        let closes = me.batch.closes;
        me.batch = Batch { closes, ..Batch::default() };
        me.batches += u8::from(me.number != 0);
        if me.batches == MAX_BATCHES { self.hand_over(me) } else { Step::PumpPhase }
    }

    /// False if the socket takes no more.
    fn write(&mut self, batch: &mut Batch, is_blocking: bool) -> bool {
        while let Some(&frame) = batch.frames.first() {
            if self.room == 0 && !is_blocking {
                return false;
            }
            if self.room < u8::MAX {
                self.room = self.room.saturating_sub(1);
            }
            self.wire.push(frame);
            batch.is_half_written = !batch.is_half_written;
            if !batch.is_half_written {
                batch.frames.remove(0);
            }
        }
        true
    }
}
