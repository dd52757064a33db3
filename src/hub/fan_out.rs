//! Delivers a publication to the members of its room. The hub records it and pushes it to their queues under the room's
//! lock, and writes to the sockets afterwards, without the lock.

use std::sync::Arc;
use std::time::Instant;

use super::Hub;
use super::behind::Reader;
use super::client::dispose_evicted;
use super::memory::{Memory, Stream};
use super::recipients::share;
use super::room::{Room, RoomState};
use super::roster::{Member, Snapshot};
use crate::guard::dispose;
use crate::history::{FrameKind, Publication, WhenBehind};
use crate::lock::assert_no_lock_held;
use crate::message::{Compressed, Encoded};
use crate::outbox::{How, Outbox, Placed, Sent, flush_all, is_corked, prefetch_queues};

/// Members whose queues are fetched from memory together.
const PREFETCHED: usize = 16;

/// The result of a push, and the work that remains to be done without the lock.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    pub(super) queued: usize,
    pub(super) refused: usize,
    /// Drops by the drop policy, and clients to close.
    dropped: Vec<(Member, Encoded, Sent)>,
    /// Members that are flushed first, even if this thread is corked: they just fell behind, or another thread relies on
    /// the flush.
    urgent: Vec<Arc<Outbox>>,
    members: Option<Snapshot>,
    /// When the keeper must send the state's changes.
    pub(super) tick: Option<Instant>,
    /// Publications that the room no longer holds.
    pub(super) fallen: Vec<Publication>,
}

impl FanOut {
    /// Nothing was pushed; the keeper will push to this many members.
    pub(super) fn later(members: usize, tick: Option<Instant>) -> Self {
        Self { queued: members, tick, ..Self::default() }
    }
}

/// Consecutive publications, with their wire forms for all kinds of members.
struct Batch<'a> {
    stream: Stream,
    publications: &'a [Publication],
    kinds: Vec<FrameKind>,
    /// For each kind, a frame for each publication, or `None` if nothing is sent.
    frames: Vec<Vec<Option<Encoded>>>,
    is_excepting: bool,
    /// The flush comes right after the push.
    is_flushed: bool,
}

impl<'a> Batch<'a> {
    fn new(stream: Stream, publications: &'a [Publication], kinds: Vec<FrameKind>, compressed: Compressed) -> Self {
        let of_kind = |kind| publications.iter().map(|publication| publication.frame(kind, compressed)).collect();
        let frames = kinds.iter().map(|kind| of_kind(*kind)).collect();
        let is_excepting = publications.iter().any(Publication::excepts_anybody);
        Self { stream, publications, kinds, frames, is_excepting, is_flushed: !is_corked() }
    }

    /// Makes the frame the next one of a client for which nothing waits.
    fn push_next(&self, outbox: &Arc<Outbox>, frame: &Encoded, done: &mut FanOut) -> bool {
        if !self.is_flushed {
            return false;
        }
        let placed = outbox.push_next(frame);
        if matches!(placed, Placed::Awaited | Placed::Crowded) {
            done.urgent.push(Arc::clone(outbox));
        }
        matches!(placed, Placed::Yes | Placed::Awaited)
    }

    fn frames_of(&self, member: &Member) -> &[Option<Encoded>] {
        if let [only] = &self.frames[..] {
            return only;
        }
        let kind = member.client.frame_kind();
        self.kinds.iter().position(|k| *k == kind).map_or(&[], |at| &self.frames[at])
    }
}

impl Room {
    /// Pushes just recorded publications to all members that are not behind. Called under the room's lock.
    pub(super) fn fan_out(
        self: &Arc<Self>,
        state: &mut RoomState,
        stream: Stream,
        publications: &[Publication],
        compressed: Compressed,
    ) -> FanOut {
        let mut done = FanOut { members: Some(state.roster.snapshot()), ..FanOut::default() };
        let Some(memory) = &mut state.memory else { return done };
        let batch = Batch::new(stream, publications, memory.kinds(), compressed);
        for next in state.roster.members().chunks(PREFETCHED) {
            prefetch_queues(next.iter().map(|member| &member.outbox));
            for member in next {
                if memory.is_behind(stream, &member.outbox) {
                    done.queued += publications.len();
                } else {
                    self.push_to(member, memory, &batch, &mut done);
                }
            }
        }
        done
    }

    fn push_to(self: &Arc<Self>, member: &Member, memory: &mut Memory, batch: &Batch<'_>, done: &mut FanOut) {
        let Member { outbox, client } = member;
        if !outbox.is_open() {
            return;
        }
        // A queued value could be outdated when it is written, so a member that would have to wait reads the value at
        // that time.
        let policy = if batch.stream == Stream::State { WhenBehind::CatchUp } else { memory.options.when_behind };
        let must_wait = policy == WhenBehind::CatchUp
            && if batch.stream == Stream::State { outbox.is_waiting() } else { outbox.is_crowded() };
        for (publication, frame) in batch.publications.iter().zip(batch.frames_of(member)) {
            if batch.is_excepting && publication.skips(client.id()) {
                continue;
            }
            let Some(frame) = frame else {
                done.refused += 1;
                continue;
            };
            if !must_wait && batch.push_next(outbox, frame, done) {
                done.queued += 1;
                continue;
            }
            match policy {
                WhenBehind::CatchUp if must_wait || !outbox.push_if_fits(frame) => {
                    let ticket = memory.behind(batch.stream).add(outbox);
                    let reader = Reader::new(ticket, self, batch.stream, client, publication.offset() - 1);
                    outbox.fall_behind(Box::new(reader), false);
                    done.urgent.push(Arc::clone(outbox));
                    done.queued += 1;
                    return;
                }
                WhenBehind::Close if !outbox.push_if_fits(frame) => {
                    done.dropped.push((member.clone(), frame.clone(), Sent::SlowConsumer));
                    return;
                }
                WhenBehind::CatchUp | WhenBehind::Close => done.queued += 1,
                WhenBehind::Drop => match outbox.push(frame) {
                    Sent::Queued => done.queued += 1,
                    Sent::Closed => {}
                    sent => {
                        done.queued += usize::from(matches!(sent, Sent::Evicted(_)));
                        done.dropped.push((member.clone(), frame.clone(), sent));
                    }
                },
            }
        }
    }
}

impl Hub {
    /// Flushes the members' outboxes, with the helpers if there are many and this thread holds nothing back.
    fn flush_pushed(&self, members: Option<Snapshot>) {
        let Some(members) = members else { return };
        if is_corked() {
            return flush_all(members.iter().map(|member| &member.outbox));
        }
        share(self.inner().group.helpers(), &members, |member, how| {
            if how == How::Now {
                member.outbox.flush();
            }
        });
    }

    /// Flushes the pushed messages and handles drops, without a lock. Returns the number of dropped messages.
    pub(super) fn finish_fan_out(&self, done: FanOut) -> usize {
        let FanOut { dropped, urgent, members, fallen, .. } = done;
        assert_no_lock_held();
        urgent.iter().for_each(Outbox::flush);
        self.flush_pushed(members);
        let mut count = 0;
        for (Member { outbox, client }, frame, sent) in dropped {
            count += if let Sent::Evicted(old) = &sent { old.len() } else { 1 };
            if let Sent::SlowConsumer = sent {
                outbox.close_slow();
            }
            self.after_drop(&outbox, &client, &frame, &sent);
            dispose_evicted(sent);
        }
        dispose(fallen);
        count
    }
}
