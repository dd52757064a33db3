//! Connections that end at a given time, because their admission expires or because of their age.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use super::keeper::Job;
use super::{Client, Hub};
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::lock::Leaf;
use crate::random;
use crate::ws::close_code;

/// The close code of a connection whose admission has expired. The client may reconnect with a new one.
pub(super) const EXPIRED: u16 = 4100;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    Expired,
    Old,
}

/// The times at which connections end, behind a leaf lock. Contains only connections with such a time.
#[derive(Debug, Default)]
pub(super) struct Deadlines(Leaf<Times>);

#[derive(Debug, Default)]
struct Times {
    /// The earliest first. Entries that `of_client` does not confirm are outdated.
    in_order: BinaryHeap<Reverse<(Instant, ClientId, Reason)>>,
    of_client: HashMap<(ClientId, Reason), Instant>,
    /// When the keeper checks next.
    job: Option<Instant>,
}

impl Times {
    /// Sets a connection's time. Returns when the keeper must check, if that is earlier than its next check.
    fn set(&mut self, client: ClientId, reason: Reason, at: Option<Instant>) -> Option<Instant> {
        self.of_client.remove(&(client, reason));
        self.forget_outdated();
        let at = at?;
        self.of_client.insert((client, reason), at);
        self.in_order.push(Reverse((at, client, reason)));
        self.look_at(at)
    }

    /// Removes outdated entries once they are the larger part, so that each costs constant time.
    fn forget_outdated(&mut self) {
        let Self { in_order, of_client, .. } = self;
        if in_order.len() > 2 * of_client.len() + 64 {
            in_order.retain(|Reverse((at, client, reason))| of_client.get(&(*client, *reason)) == Some(at));
        }
    }

    fn look_at(&mut self, at: Instant) -> Option<Instant> {
        let is_earlier = self.job.is_none_or(|job| at < job);
        is_earlier.then(|| *self.job.insert(at))
    }

    /// Removes and returns the due connections, and the time of the next check.
    fn take_due(&mut self, now: Instant) -> (Vec<(ClientId, Reason)>, Option<Instant>) {
        self.job = self.job.filter(|job| *job > now);
        let (mut due, mut next) = (Vec::new(), None);
        while let Some(&Reverse((at, client, reason))) = self.in_order.peek() {
            if self.of_client.get(&(client, reason)) == Some(&at) {
                if at > now {
                    next = Some(at);
                    break;
                }
                self.of_client.remove(&(client, reason));
                due.push((client, reason));
            }
            self.in_order.pop();
        }
        (due, next.and_then(|at| self.look_at(at)))
    }
}

impl Client {
    /// Sets when the connection's admission expires and overrides
    /// [`Admission::expires_at`](crate::Admission::expires_at); `None` = never. At that time the connection is closed
    /// with 4100 `expired`, and the client may reconnect with a new admission. Does nothing after the connection's end.
    pub fn set_expiry(&self, at: Option<SystemTime>) {
        let left = at.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        self.hub().set_deadline(self, Reason::Expired, left);
    }
}

impl Hub {
    /// Sets the maximum age of a newly connected client.
    pub(super) fn limit_age(&self, client: &Client) {
        let age = self.config().max_age;
        if !age.is_zero() {
            self.set_deadline(client, Reason::Old, Some(jittered(age, random::uuid().as_fields().0)));
        }
    }

    fn set_deadline(&self, client: &Client, reason: Reason, left: Option<Duration>) {
        let job = {
            // Set under the client's lock, so that a concurrent end clears it.
            let own = client.state().read();
            let at = left.filter(|_| !own.gone).map(deadline_after);
            self.inner().deadlines.0.lock().set(client.id(), reason, at)
        };
        if let Some(at) = job {
            self.keeper().schedule(at, Job::Deadlines);
        }
    }

    /// Removes the deadlines of a client that is gone.
    pub(super) fn clear_deadlines(&self, client: &Client) {
        let mut times = self.inner().deadlines.0.lock();
        times.set(client.id(), Reason::Expired, None);
        times.set(client.id(), Reason::Old, None);
    }

    /// Closes the connections that have reached their deadline. Runs on the keeper's thread.
    pub(super) fn close_due(&self) {
        let (due, next) = self.inner().deadlines.0.lock().take_due(Instant::now());
        for (id, reason) in due {
            if let Some(client) = self.client(id) {
                match reason {
                    Reason::Expired => client.close_checked(EXPIRED, "expired"),
                    Reason::Old => client.close_checked(close_code::GOING_AWAY, "maximum age reached"),
                }
            }
        }
        if let Some(at) = next {
            self.keeper().schedule(at, Job::Deadlines);
        }
    }
}

/// Varies the age between 90 and 110 %, so that connections that began together do not end together.
fn jittered(age: Duration, random: u32) -> Duration {
    let tenth = age / 10;
    age.saturating_sub(tenth).saturating_add((tenth * 2).mul_f64(f64::from(random) / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_tenth_either_way() {
        let age = Duration::from_secs(100);
        assert_eq!(jittered(age, 0), Duration::from_secs(90));
        assert_eq!(jittered(age, u32::MAX), Duration::from_secs(110));
    }

    #[test]
    fn times_come_in_order_and_cleared_ones_do_not() {
        let (mut times, now) = (Times::default(), Instant::now());
        let second = Duration::from_secs(1);
        let [a, b, c] = std::array::from_fn(|_| ClientId::random());
        assert_eq!(times.set(a, Reason::Old, Some(now + second * 2)), Some(now + second * 2));
        assert_eq!(times.set(b, Reason::Expired, Some(now + second)), Some(now + second));
        assert_eq!(times.set(c, Reason::Old, Some(now + second * 3)), None, "the keeper looks earlier");
        assert_eq!(times.set(c, Reason::Expired, None), None);
        assert_eq!(times.take_due(now + second), (vec![(b, Reason::Expired)], Some(now + second * 2)));
        times.set(a, Reason::Old, None);
        assert_eq!(times.take_due(now + second * 3), (vec![(c, Reason::Old)], None));
        assert!(times.in_order.is_empty() && times.of_client.is_empty());
    }

    #[test]
    fn times_that_are_set_again_and_again_take_no_memory() {
        let (mut times, now, client) = (Times::default(), Instant::now(), ClientId::random());
        for n in 1..10_000 {
            times.set(client, Reason::Expired, Some(now + Duration::from_secs(n)));
            assert!(times.in_order.len() <= 70, "{} entries", times.in_order.len());
        }
        assert_eq!(times.take_due(now + Duration::from_secs(9998)), (vec![], Some(now + Duration::from_secs(9999))));
        assert_eq!(times.take_due(now + Duration::from_secs(9999)), (vec![(client, Reason::Expired)], None));
    }
}
