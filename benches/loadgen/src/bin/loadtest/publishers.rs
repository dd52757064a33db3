//! Those who send: one in each room, at a rate or as fast as their messages are received.

use std::time::Instant;

use super::audience::Audience;
use super::pace::Pace;
use super::pool::Pool;
use super::stamp::{Letter, Stamp};

/// What may wait for a socket of ours before its publisher holds back, in bytes; a message more goes on top.
const WAITING: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Publishers {
    letter: Letter,
    /// `None`: a closed loop.
    pub(crate) pace: Option<Pace>,
    in_flight: u64,
    /// Messages, for each room.
    pub(crate) sent: Vec<u64>,
    /// Probes that each has sent.
    pub(crate) probes: u64,
}

impl Publishers {
    pub(crate) fn new(rooms: usize, size: usize, in_flight: u64) -> Self {
        Self { letter: Letter::new(size), pace: None, in_flight, sent: vec![0; rooms], probes: 0 }
    }

    /// Each sends a message of this size that does not count. False when one of them is gone.
    pub(crate) fn probe(&mut self, pool: &mut Pool, size: usize) -> bool {
        self.probes += 1;
        let mut letter = Letter::new(size);
        (0..self.sent.len()).all(|room| {
            let stamp = Stamp { at: 0, is_probe: true, sender: room, number: self.probes };
            pool.link(room).map(|link| link.send(letter.stamped(stamp))).is_some()
        })
    }

    /// Sends what is due. False when a publisher is gone.
    pub(crate) fn turn(&mut self, pool: &mut Pool, audience: &Audience, now: Instant) -> bool {
        let Some(mut pace) = self.pace.take() else { return self.refill(pool, audience) };
        let mut is_there = true;
        while is_there && pace.is_due(now) {
            let room = (pace.done % self.sent.len() as u64) as usize;
            match self.send(pool, room) {
                Some(true) => pace.done(Instant::now()),
                Some(false) => {
                    pace.hold_up();
                    break;
                }
                None => is_there = false,
            }
        }
        self.pace = Some(pace);
        is_there
    }

    /// Keeps so many messages of each room on their way.
    fn refill(&mut self, pool: &mut Pool, audience: &Audience) -> bool {
        for room in 0..self.sent.len() {
            let size = audience.size(room);
            while self.sent[room] * size < audience.received[room] + self.in_flight * size {
                match self.send(pool, room) {
                    Some(true) => {}
                    Some(false) => break,
                    None => return false,
                }
            }
        }
        true
    }

    /// `None` when the publisher is gone; false when its socket takes nothing.
    fn send(&mut self, pool: &mut Pool, room: usize) -> Option<bool> {
        let at = pool.clock().nanos();
        let link = pool.link(room)?;
        if link.waiting() > WAITING {
            return Some(false);
        }
        let stamp = Stamp { at, is_probe: false, sender: room, number: self.sent[room] };
        link.send(self.letter.stamped(stamp));
        self.sent[room] += 1;
        Some(true)
    }
}
