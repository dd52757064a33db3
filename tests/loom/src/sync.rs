//! What `src/sync.rs` is to the crate: here everything is loom's.

pub(crate) use loom::sync::atomic;
pub(crate) use loom::thread;

/// A bounded channel whose operations are single steps. They order nothing in memory, so the outbox' argument cannot
/// lean on more than its own atomics.
pub(crate) mod channel {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use loom::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    struct Shared<T> {
        items: Mutex<VecDeque<T>>,
        capacity: usize,
        /// An atomic that every operation touches: there loom lets other threads run.
        step: AtomicUsize,
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Shared<T>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Shared<T>>);

    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let shared = Shared { items: Mutex::default(), capacity, step: AtomicUsize::new(0) };
        let shared = Arc::new(shared);
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    /// The outbox keeps to the bound itself then.
    pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        bounded(usize::MAX)
    }

    impl<T> Shared<T> {
        fn with<R>(&self, work: impl FnOnce(&mut VecDeque<T>) -> R) -> R {
            self.step.load(Ordering::Relaxed);
            work(&mut self.items.lock().expect("no panic"))
        }
    }

    impl<T> Sender<T> {
        pub(crate) fn try_send(&self, item: T) -> Result<(), T> {
            self.0.with(|items| {
                if items.len() == self.0.capacity {
                    return Err(item);
                }
                items.push_back(item);
                Ok(())
            })
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Result<T, ()> {
            self.0.with(VecDeque::pop_front).ok_or(())
        }

        pub(crate) fn len(&self) -> usize {
            self.0.with(|items| items.len())
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.with(|items| items.is_empty())
        }
    }
}

/// The cell of `std`, with the order that it promises: what initialised it comes before what finds it initialised. A
/// thread may find it empty for a while longer.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    is_set: atomic::AtomicBool,
    /// Threads that initialise take turns.
    turn: loom::sync::Mutex<()>,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            is_set: atomic::AtomicBool::new(false),
            turn: loom::sync::Mutex::new(()),
            value: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if self.is_set.load(atomic::Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _turn = self.turn.lock().expect("no panic");
        let value = self.value.get_or_init(make);
        self.is_set.store(true, atomic::Ordering::Release);
        value
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _turn = self.turn.lock().expect("no panic");
        self.value.set(value)?;
        self.is_set.store(true, atomic::Ordering::Release);
        Ok(())
    }
}
