//! Weakly ordered memory: histories, views, fences.

use std::hash::Hash;

/// The atomics of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The word of the socket's mutex.
    Lock,
    /// What the queue's length looks like; the frames themselves are in [`Memory::queue`].
    Length,
    Urgent,
    Phase,
}

const PLACES: usize = 4;

/// The oldest entry of each history that its owner may still read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct View([u8; PLACES]);

impl View {
    pub(crate) fn join(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    value: u8,
    /// What an acquiring reader learns.
    view: View,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    histories: [Vec<Entry>; PLACES],
    /// Through which fences exchange views.
    fences: View,
    /// The channel: frames with the views of their pushers.
    queue: Vec<(u8, View)>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let first = || vec![Entry { value: 0, view: View::default() }];
        Self { histories: std::array::from_fn(|_| first()), fences: View::default(), queue: Vec::new() }
    }

    /// Every value that a load may return, with the view after it.
    pub(crate) fn load(&self, view: View, place: Place, is_acquire: bool) -> Vec<(u8, View)> {
        let history = &self.histories[place as usize];
        let oldest = usize::from(view.0[place as usize]);
        let read = |(at, entry): (usize, &Entry)| {
            let mut after = view;
            after.0[place as usize] = u8::try_from(at).unwrap_or(u8::MAX);
            if is_acquire {
                after.join(entry.view);
            }
            (entry.value, after)
        };
        history.iter().enumerate().skip(oldest).map(read).collect()
    }

    /// The newest value, which an exchange reads.
    pub(crate) fn newest(&self, place: Place) -> u8 {
        self.histories[place as usize].last().map_or(0, |entry| entry.value)
    }

    /// An exchange reads the newest entry and acquires and releases as asked; gives the old value.
    pub(crate) fn exchange(&mut self, view: &mut View, place: Place, value: u8, acquire: bool, release: bool) -> u8 {
        let history = &mut self.histories[place as usize];
        let (old, released) = history.last().map_or((0, View::default()), |entry| (entry.value, entry.view));
        if acquire {
            view.join(released);
        }
        view.0[place as usize] = u8::try_from(history.len()).unwrap_or(u8::MAX);
        if value == old {
            // An entry that only repeats the value would let others learn more: the argument must not need it.
            view.0[place as usize] -= 1;
            return old;
        }
        let mut shown = released;
        if release {
            shown.join(*view);
        }
        history.push(Entry { value, view: shown });
        old
    }

    /// A store with release.
    pub(crate) fn store(&mut self, view: &mut View, place: Place, value: u8) {
        let history = &mut self.histories[place as usize];
        view.0[place as usize] = u8::try_from(history.len()).unwrap_or(u8::MAX);
        history.push(Entry { value, view: *view });
    }

    /// A sequentially consistent fence.
    pub(crate) fn fence(&mut self, view: &mut View) {
        view.join(self.fences);
        self.fences = *view;
    }

    pub(crate) fn push(&mut self, view: &mut View, frame: u8) {
        let length = self.newest(Place::Length);
        self.exchange(view, Place::Length, length + 1, false, false);
        self.queue.push((frame, *view));
    }

    pub(crate) fn pop(&mut self, view: &mut View) -> Option<u8> {
        if self.queue.is_empty() {
            return None;
        }
        let (frame, pushed) = self.queue.remove(0);
        view.join(pushed);
        let length = self.newest(Place::Length);
        self.exchange(view, Place::Length, length - 1, false, false);
        Some(frame)
    }

    /// Forgets what no view may read any more, so that equal states look equal.
    pub(crate) fn forget<'a>(&mut self, live: &mut [&'a mut View], others: &mut [&'a mut View]) {
        for place in 0..PLACES {
            let newest = u8::try_from(self.histories[place].len() - 1).unwrap_or(u8::MAX);
            let oldest = live.iter().map(|view| view.0[place]).min().unwrap_or(newest);
            self.histories[place].drain(..usize::from(oldest));
            let shift = |view: &mut View| view.0[place] = view.0[place].saturating_sub(oldest);
            for view in live.iter_mut().chain(others.iter_mut()) {
                shift(view);
            }
            shift(&mut self.fences);
            self.queue.iter_mut().for_each(|(_, view)| shift(view));
            self.histories.iter_mut().flatten().for_each(|entry| shift(&mut entry.view));
        }
    }
}
