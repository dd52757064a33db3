//! Delivers a publication to the members of its room. The hub records it and pushes it to their queues under the room's
//! lock, and writes to the sockets afterwards, without the lock.

use std::sync::Arc;
use std::time::Instant;

use super::Hub;
use super::behind::Reader;
use super::client_send::dispose_evicted;
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
    /// Members that are flushed first, even if this thread is corked: they just fell behind, or another thread relies
    /// on the flush.
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
        // Only for the first frame: whatever becomes of it, the others wait behind it.
        let mut may_go_next = !must_wait;
        for (publication, frame) in batch.publications.iter().zip(batch.frames_of(member)) {
            if batch.is_excepting && publication.skips(client.id()) {
                continue;
            }
            let Some(frame) = frame else {
                done.refused += 1;
                continue;
            };
            if std::mem::take(&mut may_go_next) && batch.push_next(outbox, frame, done) {
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
                WhenBehind::Drop if outbox.push_if_fits(frame) => done.queued += 1,
                WhenBehind::Drop => {
                    // An eviction may hold the socket for a moment, and others rely on the flush that follows.
                    done.urgent.push(Arc::clone(outbox));
                    match outbox.push(frame) {
                        Sent::Queued => done.queued += 1,
                        Sent::Closed => {}
                        sent => {
                            done.queued += usize::from(matches!(sent, Sent::Evicted(_)));
                            done.dropped.push((member.clone(), frame.clone(), sent));
                        }
                    }
                }
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::history::RoomOptions;
    use crate::http::RequestHead;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn changes_that_come_together_make_no_member_urgent() {
        let rooms = RoomOptions::state().at_most(1);
        let hub = Hub::builder().rooms("r", rooms).build().expect("valid");
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let (head, _) = RequestHead::parse(REQUEST).expect("valid").expect("whole");
        hub.accept(near, head, &[]).detach().expect("a thread");
        far.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            far.read_exact(&mut byte).expect("the answer");
            answer.push(byte[0]);
        }
        let client = hub.clients().pop().expect("it is answered once it is connected");
        client.join("r").expect("joined");
        // Nothing is written from here on but by this test: the values go by a fan-out of their own.
        let room = hub.find_room("r").expect("it has a member");
        let name = Arc::from("r");
        let values: Vec<_> = (0..20)
            .map(|version| {
                let position = crate::history::Position::new(crate::history::Epoch::random(), version + 1);
                let subject = crate::history::Subject::Value(version.to_string().into());
                Publication::new(&name, position, subject, crate::history::Publish::new(version.to_string()))
            })
            .collect();
        let done = room.fan_out(&mut room.state.write(), Stream::State, &values, hub.compressed());
        assert_eq!((done.queued, done.urgent.len()), (20, 0), "the first goes next, the others wait behind it");
        hub.finish_fan_out(done);
        let mut got = Vec::new();
        while got.len() < 20 {
            let mut head = [0; 2];
            far.read_exact(&mut head).expect("a message");
            let mut text = vec![0; usize::from(head[1])];
            far.read_exact(&mut text).expect("its payload");
            got.push(String::from_utf8(text).expect("text"));
        }
        assert!(got.iter().enumerate().all(|(at, text)| *text == at.to_string()), "{got:?}");
        hub.shutdown(Duration::ZERO).expect("all gone");
    }
}
