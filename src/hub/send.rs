//! From a target to the outboxes of its recipients.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Hub;
use super::client::{Client, dispose_evicted};
use super::recipients::Recipients;
use super::roster::Member;
use super::target::{Delivery, Part, Target};
use crate::config::deadline_after;
use crate::error::CloseError;
use crate::guard::record_limited;
use crate::lock::assert_no_lock_held;
use crate::message::{Encoded, Encodings, Message, SendError};
use crate::outbox::{Cork, GaveUp, Outbox, Sent};
use crate::trace;
use crate::ws::{check_close, close_code};

thread_local! {
    /// This thread is in the `on_send_dropped` hook: drops that the hook itself causes do not call it again.
    static IN_DROP_HOOK: Cell<bool> = const { Cell::new(false) };
}

impl Hub {
    /// Sends a message to a target, by the drop policy. Never blocks on a peer.
    ///
    /// The order of one thread's messages is kept for each recipient. A message to one room that has a history is recorded
    /// there, as by [`publish`](Hub::publish); unions, users and clients have no single order, so what is sent to them is
    /// recorded nowhere. In a cluster the message is queued for the other
    /// nodes as well, after it has been sent here.
    ///
    /// ```
    /// # use wshub::{Hub, Target};
    /// # let hub = Hub::builder().build()?;
    /// let delivery = hub.send(Target::room("lobby"), "hello")?;
    /// assert_eq!(delivery.queued, 0, "nobody is in the lobby");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SendError::ClientNotFound`] when the target is one client that is not connected, and the hub is in no cluster.
    /// Rooms and users that do not exist are no error: nothing is queued.
    pub fn send<'a>(&self, target: impl Into<Target<'a>>, message: impl Into<Message>) -> Result<Delivery, SendError> {
        let (target, message) = (target.into(), message.into());
        let span = trace::begin_send(|| target.to_string());
        if let Some(delivery) = self.send_shared(&target, &message) {
            span.sent(0, 0, 0, delivery.published);
            return Ok(delivery);
        }
        let mut delivery = match self.send_recorded(&target, &message) {
            Some(delivery) => delivery,
            None => self.deliver_now(&target, &self.recipients(&target, &message)?, &message),
        };
        if self.inner().link.is_some() {
            delivery.published = self.publish_elsewhere(&target, message);
        }
        span.sent(delivery.queued, delivery.dropped, delivery.refused, delivery.published);
        Ok(delivery)
    }

    /// Sends to this hub's clients only.
    pub(super) fn send_here(&self, target: &Target<'_>, message: &Message) {
        // What is shared comes by the store.
        let is_shared = matches!(target.single(), Some(Part::Room(room)) if self.sharing(room).is_some());
        if !is_shared && self.send_recorded(target, message).is_none() {
            self.deliver_now(target, &self.resolve(target), message);
        }
    }

    /// Sends a message to a target and waits, for at most `timeout` in all, until it fits into every recipient's
    /// queue; the drop policy does not apply. Blocks.
    ///
    /// Recipients whose queues are full are waited for once all others have the message. A recipient that closes is not
    /// waited for. Recipients that the message did not reach in time count as dropped, and the `on_send_timeout` hook is
    /// called for each at the end. In a cluster, the message is queued for the other nodes first; nobody waits for them.
    ///
    /// # Errors
    ///
    /// As [`send`](Hub::send).
    pub fn send_timeout<'a>(
        &self,
        target: impl Into<Target<'a>>,
        message: impl Into<Message>,
        timeout: Duration,
    ) -> Result<Delivery, SendError> {
        let deadline = deadline_after(timeout);
        let (target, message) = (target.into(), message.into());
        let span = trace::begin_send(|| target.to_string());
        if let Some(delivery) = self.send_shared(&target, &message) {
            span.sent(0, 0, 0, delivery.published);
            return Ok(delivery);
        }
        if let Some(delivery) = self.send_recorded(&target, &message) {
            // Nobody need be waited for: who is behind reads on in the history.
            let published = self.inner().link.is_some() && self.publish_elsewhere(&target, message);
            span.sent(delivery.queued, delivery.dropped, delivery.refused, published);
            return Ok(Delivery { published, ..delivery });
        }
        let recipients = self.recipients(&target, &message)?;
        let published = self.inner().link.is_some() && self.publish_elsewhere(&target, message.clone());
        let delivery = self.deliver_waiting(&target, &recipients, &message, deadline);
        span.sent(delivery.queued, delivery.dropped, delivery.refused, published);
        Ok(Delivery { published, ..delivery })
    }

    /// Closes every connection of the target on this hub, each as [`Client::close`] does; says how many were open. Does not
    /// block. Other nodes of a cluster are not asked.
    ///
    /// # Errors
    ///
    /// A code that may not be sent, or a reason over 123 bytes; then nobody is closed.
    pub fn close<'a>(&self, target: impl Into<Target<'a>>, code: u16, reason: &str) -> Result<usize, CloseError> {
        check_close(code, reason)?;
        let target = target.into();
        let mut count = 0;
        self.resolve(&target).for_each(|member| {
            if !target.except.contains(&member.client.id()) && !member.client.is_closed() {
                member.client.close_checked(code, reason);
                count += 1;
            }
        });
        Ok(count)
    }

    /// Corks this thread: what it sends, through this or any other hub, waits until the guard is dropped. See [`Cork`].
    pub fn cork(&self) -> Cork {
        Cork::new()
    }

    /// The target's recipients here. Only without a cluster is it certain that a client does not exist.
    fn recipients(&self, target: &Target<'_>, message: &Message) -> Result<Recipients, SendError> {
        let recipients = self.resolve(target);
        let is_unknown = recipients.is_nobody() && matches!(target.single(), Some(Part::Client(_)));
        if is_unknown && self.inner().link.is_none() {
            return Err(SendError::ClientNotFound(message.clone()));
        }
        Ok(recipients)
    }

    /// Hooks and metrics hear of drops when every recipient has its message: they may take as long as they like.
    fn deliver_now(&self, target: &Target<'_>, recipients: &Recipients, message: &Message) -> Delivery {
        let mut lost = Vec::new();
        let mut delivery = self.deliver(target, recipients, message, |member, frame, delivery| {
            let sent = member.outbox.send(frame);
            match sent {
                Sent::Queued => return delivery.queued += 1,
                Sent::Closed => return,
                Sent::Evicted(_) => delivery.queued += 1,
                Sent::Full => delivery.dropped += 1,
                Sent::SlowConsumer => {
                    delivery.dropped += 1;
                    self.watch_close(member.client.id(), &member.outbox);
                }
            }
            lost.push((member.clone(), frame.clone(), sent));
        });
        for (member, frame, sent) in lost {
            self.tell_drop(&member.outbox, &member.client, &frame, &sent);
            delivery.dropped += dispose_evicted(sent);
        }
        delivery
    }

    /// Waits for those whose queues are full when all others have their message, and calls hooks when all waiting is over.
    fn deliver_waiting(
        &self,
        target: &Target<'_>,
        recipients: &Recipients,
        message: &Message,
        deadline: Instant,
    ) -> Delivery {
        let (now, mut full) = (Instant::now(), Vec::new());
        let mut delivery = self.deliver(target, recipients, message, |member, frame, delivery| {
            match member.outbox.send_waiting(frame, now) {
                Ok(()) => delivery.queued += 1,
                Err(GaveUp::Timeout) => full.push((member.clone(), frame.clone())),
                Err(GaveUp::Closed) => {}
            }
        });
        let in_time = delivery.queued;
        full.retain(|(member, frame)| {
            let result = member.outbox.send_waiting(frame, deadline);
            delivery.queued += usize::from(result.is_ok());
            result == Err(GaveUp::Timeout)
        });
        delivery.dropped += full.len();
        self.count_sent(delivery.queued - in_time, message.len());
        full.iter().for_each(|(member, frame)| self.after_timeout(&member.outbox, &member.client, frame));
        delivery
    }

    fn deliver(
        &self,
        target: &Target<'_>,
        recipients: &Recipients,
        message: &Message,
        mut give: impl FnMut(&Member, &Encoded, &mut Delivery),
    ) -> Delivery {
        assert_no_lock_held();
        let timed = !recipients.is_one() && self.inner().metrics.is_some();
        let started = timed.then(Instant::now);
        let encodings = Encodings::of(message, self.compressed());
        let excluded: Vec<Client> = target.except.iter().filter_map(|id| self.client(*id)).collect();
        let mut delivery = Delivery::default();
        // Pointers are compared, so that a recipient's own memory is not touched for it.
        let is_excluded = |member: &Member| excluded.iter().any(|c| c.has_outbox(&member.outbox));
        recipients.for_each(|member| {
            if is_excluded(member) {
                return;
            }
            match encodings.get(member.outbox.format()) {
                Some(frame) => give(member, frame, &mut delivery),
                None => delivery.refused += 1,
            }
        });
        self.count_sent(delivery.queued, message.len());
        if let Some(started) = started {
            self.count(|m| m.record_broadcast_duration(started.elapsed()));
        }
        delivery
    }

    /// Gives one frame to one recipient and sees to what follows from a drop.
    #[inline]
    pub(super) fn give(&self, outbox: &Arc<Outbox>, client: &Client, frame: &Encoded) -> Sent {
        let sent = outbox.send(frame);
        if !matches!(sent, Sent::Queued | Sent::Closed) {
            self.after_drop(outbox, client, frame, &sent);
        }
        sent
    }

    pub(super) fn give_waiting(
        &self,
        outbox: &Arc<Outbox>,
        client: &Client,
        frame: &Encoded,
        deadline: Instant,
    ) -> Result<(), GaveUp> {
        assert_no_lock_held();
        let result = outbox.send_waiting(frame, deadline);
        if result == Err(GaveUp::Timeout) {
            self.after_timeout(outbox, client, frame);
        }
        result
    }

    #[cold]
    fn after_timeout(&self, outbox: &Outbox, client: &Client, frame: &Encoded) {
        outbox.count_lost(frame);
        self.count(|m| m.increment_messages_dropped());
        let hook = &self.hooks().on_send_timeout;
        self.run_message_hook(hook, "on_send_timeout", client, &frame.message());
    }

    #[cold]
    pub(super) fn after_drop(&self, outbox: &Arc<Outbox>, client: &Client, frame: &Encoded, sent: &Sent) {
        if let Sent::SlowConsumer = sent {
            // First: the hook may take its time, and the close has begun.
            self.watch_close(client.id(), outbox);
        }
        self.tell_drop(outbox, client, frame, sent);
    }

    /// Tells hooks and metrics, and closes a client that has lost too many in a row.
    #[cold]
    fn tell_drop(&self, outbox: &Arc<Outbox>, client: &Client, frame: &Encoded, sent: &Sent) {
        match sent {
            Sent::Evicted(old) => old.iter().for_each(|f| {
                self.report_drop(outbox, client, f);
                self.report_evicted(client.id(), f);
            }),
            _ => self.report_drop(outbox, client, frame),
        }
        if let Sent::SlowConsumer = sent {
            warn_slow(client, "its queue is full");
            return;
        }
        let in_a_row = outbox.count_drop();
        let limit = self.config().max_consecutive_drops;
        if limit != 0 && in_a_row >= limit {
            warn_slow(client, "too many drops in a row");
            client.close_checked(close_code::TRY_AGAIN_LATER, "slow consumer");
        }
    }

    fn report_drop(&self, outbox: &Outbox, client: &Client, frame: &Encoded) {
        outbox.count_lost(frame);
        self.count(|m| m.increment_messages_dropped());
        let hook = &self.hooks().on_send_dropped;
        if hook.is_none() || IN_DROP_HOOK.replace(true) {
            return;
        }
        self.run_message_hook(hook, "on_send_dropped", client, &frame.message());
        IN_DROP_HOOK.set(false);
    }

    /// A message of `size` payload bytes has been queued for `count` clients.
    pub(super) fn count_sent(&self, count: usize, size: usize) {
        if count > 0 {
            self.count(|m| {
                m.increment_messages_sent(count);
                m.increment_bytes_sent(count.saturating_mul(size));
            });
        }
    }
}

/// Limited, because a peer that stalls and returns could repeat it.
fn warn_slow(client: &Client, why: &str) {
    record_limited!(Warn, "wshub::conn", "{} closed: {why}", client.id());
}
