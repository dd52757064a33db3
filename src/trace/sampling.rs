//! Which messages are traced.

use std::sync::atomic::Ordering;

use crate::atomic::AtomicU64;
use crate::lock::Leaf;
use std::time::{Duration, Instant};

/// Which messages a [`Tracer`](super::Tracer) records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sampling {
    /// No messages.
    Off,
    /// Every message.
    #[default]
    All,
    /// The first of every `n` messages; 0 = none.
    OneIn(u32),
    /// The first `n` messages of each second; 0 = none.
    PerSecond(u32),
}

/// A [`Sampling`] that can change while messages arrive, with its counters.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Kind in the upper half, number in the lower. Relaxed: either setting may apply to a message that is handled
    /// while it changes.
    setting: AtomicU64,
    /// Messages seen under `OneIn`. Relaxed: a count.
    seen: AtomicU64,
    /// The start of the current second, and the number of messages recorded in it.
    window: Leaf<(Option<Instant>, u32)>,
}

const ONE_IN: u64 = 0;
const PER_SECOND: u64 = 1 << 32;

impl Sampler {
    pub(super) fn new(sampling: Sampling) -> Self {
        Self { setting: AtomicU64::new(pack(sampling)), seen: AtomicU64::new(0), window: Leaf::default() }
    }

    pub(super) fn set(&self, sampling: Sampling) {
        self.setting.store(pack(sampling), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Sampling {
        match split(self.setting.load(Ordering::Relaxed)) {
            (_, 0) => Sampling::Off,
            (PER_SECOND, n) => Sampling::PerSecond(n),
            (_, 1) => Sampling::All,
            (_, n) => Sampling::OneIn(n),
        }
    }

    /// Whether to record the next message.
    #[inline]
    pub(super) fn take(&self) -> bool {
        let setting = self.setting.load(Ordering::Relaxed);
        setting & u64::from(u32::MAX) != 0 && self.take_some(setting)
    }

    fn take_some(&self, setting: u64) -> bool {
        match split(setting) {
            (PER_SECOND, most) => self.take_in_second(most, Instant::now()),
            (_, 1) => true,
            (_, n) => self.seen.fetch_add(1, Ordering::Relaxed) % u64::from(n) == 0,
        }
    }

    fn take_in_second(&self, most: u32, now: Instant) -> bool {
        let mut window = self.window.lock();
        let (since, used) = &mut *window;
        if since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            *since = Some(now);
            *used = 0;
        }
        let has_room = *used < most;
        *used += u32::from(has_room);
        has_room
    }
}

fn pack(sampling: Sampling) -> u64 {
    match sampling {
        Sampling::Off => ONE_IN,
        Sampling::All => ONE_IN | 1,
        Sampling::OneIn(n) => ONE_IN | u64::from(n),
        Sampling::PerSecond(n) => PER_SECOND | u64::from(n),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
const fn split(setting: u64) -> (u64, u32) {
    (setting & PER_SECOND, setting as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_packing() {
        for sampling in [Sampling::Off, Sampling::All, Sampling::OneIn(u32::MAX), Sampling::PerSecond(7)] {
            assert_eq!(Sampler::new(sampling).get(), sampling);
        }
        for none in [Sampling::OneIn(0), Sampling::PerSecond(0)] {
            assert_eq!((Sampler::new(none).get(), Sampler::new(none).take()), (Sampling::Off, false));
        }
    }

    #[test]
    fn one_in_n_and_so_many_a_second() {
        let sampler = Sampler::new(Sampling::OneIn(3));
        assert_eq!((0..6).map(|_| sampler.take()).collect::<Vec<_>>(), [true, false, false, true, false, false]);
        let now = Instant::now();
        assert_eq!((0..9).filter(|_| sampler.take_in_second(2, now)).count(), 2);
        assert!(sampler.take_in_second(2, now + Duration::from_secs(1)));
        sampler.set(Sampling::All);
        assert!(sampler.take() && sampler.take());
    }
}
