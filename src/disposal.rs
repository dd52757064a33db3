//! Runs destructors of payloads away from the threads that write for others.
//!
//! A payload may be the application's memory, so its destructor is application code: it may take any time and need any
//! stack. Often the thread that has written a payload drops the last handle to it. Writer threads, helpers, the flusher
//! and the ping thread have small stacks, and others wait for them. So these threads pass payloads to one thread of the
//! process, which runs only while there are any. If a destructor never returns, later payloads stay in memory, but
//! nothing else waits.

use std::cell::Cell;
use std::mem;
use std::time::{Duration, Instant};

use crate::guard;
use crate::headroom;
use crate::lock::{Condition, Leaf};

/// How long the thread waits for further values before it ends.
const LINGER: Duration = Duration::from_millis(100);
/// Stack size of the thread in bytes: the same as for threads that run handlers.
const STACK: usize = 512 * 1024;

thread_local! {
    /// This thread must not run destructors of the application.
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
}

static DISPOSAL: Disposal =
    Disposal { queue: Leaf::new(Queue { drops: Vec::new(), is_running: false }), more: Condition::new() };

/// Drops a value when it is called.
type Drops = Box<dyn FnOnce() + Send>;

struct Disposal {
    queue: Leaf<Queue>,
    /// Signals that values were added.
    more: Condition,
}

struct Queue {
    drops: Vec<Drops>,
    is_running: bool,
}

/// Keeps destructors of payloads off this thread from now on.
pub(crate) fn keep_off_this_thread() {
    IS_BUSY.set(true);
}

/// Drops payloads, or values that hold payloads, one by one, on this thread unless destructors are kept off it. Catches
/// panics in destructors. Must be called without a lock held.
#[inline]
pub(crate) fn dispose_all<T: Send + 'static>(values: Vec<T>) {
    if values.is_empty() || !mem::needs_drop::<T>() {
        return;
    }
    let drops = move || values.into_iter().for_each(guard::dispose);
    if IS_BUSY.get() { DISPOSAL.add(Box::new(drops)) } else { drops() }
}

impl Disposal {
    #[cold]
    fn add(&'static self, drops: Drops) {
        let is_running = {
            let mut queue = self.queue.lock();
            queue.drops.push(drops);
            mem::replace(&mut queue.is_running, true)
        };
        if is_running {
            self.more.notify_one();
        } else if headroom::spawn("wshub-drops", STACK, || self.run()).is_err() {
            // If the thread cannot be started, this one drops the waiting values, including those that other threads
            // have added.
            let drops = {
                let mut queue = self.queue.lock();
                queue.is_running = false;
                mem::take(&mut queue.drops)
            };
            drops.into_iter().for_each(|drops| drops());
        }
    }

    fn run(&self) {
        while let Some(drops) = self.wait() {
            drops.into_iter().for_each(|drops| drops());
        }
    }

    /// Waits for values and takes them. `None` if there were none for [`LINGER`]; the thread must then end.
    fn wait(&self) -> Option<Vec<Drops>> {
        let mut queue = self.queue.lock();
        let deadline = Instant::now() + LINGER;
        while queue.drops.is_empty() {
            if self.more.wait_until(&mut queue, deadline) && queue.drops.is_empty() {
                queue.is_running = false;
                return None;
            }
        }
        Some(mem::take(&mut queue.drops))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    /// Waits when it is dropped, and says on which thread.
    struct Slow(mpsc::Sender<Option<String>>, mpsc::Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.1.recv();
            let _ = self.0.send(thread::current().name().map(String::from));
            panic!("on purpose");
        }
    }

    #[test]
    fn a_destructor_that_waits_holds_up_no_busy_thread() {
        let (say, said) = mpsc::channel();
        let (gates, slow): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (open, gate) = mpsc::channel();
                (open, Slow(say.clone(), gate))
            })
            .unzip();
        let busy = thread::spawn(|| {
            keep_off_this_thread();
            dispose_all(slow);
        });
        busy.join().expect("it does not wait");
        assert!(said.try_recv().is_err());
        drop(gates);
        for _ in 0..3 {
            assert_eq!(said.recv_timeout(Duration::from_secs(60)), Ok(Some("wshub-drops".into())));
        }
        let (open, gate) = mpsc::channel();
        drop(open);
        dispose_all(vec![Slow(say, gate)]);
        assert_eq!(said.try_recv(), Ok(thread::current().name().map(String::from)), "on this thread, at once");
    }
}
