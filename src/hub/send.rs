//! Sending: resolves a target and hands the message to its recipients' outboxes.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Hub;
use super::client::Client;
use super::client_send::dispose_evicted;
use super::recipients::Recipients;
use super::roster::Member;
use super::target::{Delivery, Part, Target};
use crate::config::deadline_after;
use crate::error::CloseError;
use crate::guard::record_limited;
use crate::lock::assert_no_lock_held;
use crate::message::{Encoded, Encodings, Message, SendError};
use crate::outbox::{Cork, GaveUp, How, Outbox, Sent};
use crate::trace;
use crate::ws::{check_close, close_code};

thread_local! {
    /// Set while this thread runs the `on_send_dropped` hook. Drops caused by the hook itself do not call it again.
    static IN_DROP_HOOK: Cell<bool> = const { Cell::new(false) };
}

impl Hub {
    /// Sends a message to a target and applies the drop policy. Never blocks on a peer.
    ///
    /// Each recipient gets one thread's messages in the order in which the thread sends them. A message to a single
    /// room with a history is recorded in that history, as by [`publish`](Hub::publish). Unions, users and clients have
    /// no single order, so messages to them are not recorded. In a cluster, the message is also queued for the other
    /// nodes after the local send.
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
    /// [`SendError::ClientNotFound`] if the target is a single client that is not connected and the hub is in no
    /// cluster. Rooms and users that do not exist are not an error: nothing is queued.
    #[doc(alias("broadcast", "publish", "emit"))]
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
        if self.is_in_cluster() {
            delivery.published = self.publish_elsewhere(&target, message);
        }
        span.sent(delivery.queued, delivery.dropped, delivery.refused, delivery.published);
        Ok(delivery)
    }

    /// Sends to this hub's clients only, not to other nodes.
    #[cfg(feature = "cluster")]
    pub(super) fn send_here(&self, target: &Target<'_>, message: &Message) {
        // The store delivers messages of shared rooms.
        let is_shared = matches!(target.single(), Some(Part::Room(room)) if self.sharing(room).is_some());
        if !is_shared && self.send_recorded(target, message).is_none() {
            self.deliver_now(target, &self.resolve(target), message);
        }
    }

    /// Sends a message to a target and blocks until it fits into every recipient's queue, for at most `timeout` in all.
    /// The drop policy does not apply.
    ///
    /// The call waits for recipients with full queues after all others have the message. It does not wait for a
    /// recipient that closes. If the message does not reach a recipient in time, that recipient counts as dropped;
    /// after the wait, the `on_send_timeout` hook is called for each such recipient. In a cluster, the message is first
    /// queued for the other nodes; the call does not wait for them.
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
            // No need to wait: members that are behind catch up from the history.
            let published = self.is_in_cluster() && self.publish_elsewhere(&target, message);
            span.sent(delivery.queued, delivery.dropped, delivery.refused, published);
            return Ok(Delivery { published, ..delivery });
        }
        let recipients = self.recipients(&target, &message)?;
        let published = self.is_in_cluster() && self.publish_elsewhere(&target, message.clone());
        let delivery = self.deliver_waiting(&target, &recipients, &message, deadline);
        span.sent(delivery.queued, delivery.dropped, delivery.refused, published);
        Ok(Delivery { published, ..delivery })
    }

    /// Closes every connection of the target on this hub, as [`Client::close`] does, and returns how many were open.
    /// Does not block. Connections on other nodes of a cluster stay open.
    ///
    /// # Errors
    ///
    /// A [`CloseError`] if the code may not be sent or the reason is longer than 123 bytes. No connection is closed
    /// then.
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

    /// Corks this thread: its messages, through this or any other hub, are held back until the guard is dropped. See
    /// [`Cork`].
    pub fn cork(&self) -> Cork {
        Cork::new()
    }

    /// Resolves the target's recipients on this node. An unknown client is an error only without a cluster, because in
    /// a cluster it may be on another node.
    fn recipients(&self, target: &Target<'_>, message: &Message) -> Result<Recipients, SendError> {
        let recipients = self.resolve(target);
        let is_unknown = recipients.is_nobody() && matches!(target.single(), Some(Part::Client(_)));
        if is_unknown && !self.is_in_cluster() {
            return Err(SendError::ClientNotFound(message.clone()));
        }
        Ok(recipients)
    }

    /// Sends to all recipients and reports drops to hooks and metrics afterwards, so that a slow hook delays no
    /// recipient.
    pub(super) fn deliver_now(&self, target: &Target<'_>, recipients: &Recipients, message: &Message) -> Delivery {
        let mut lost = Vec::new();
        let mut delivery = self.deliver(target, recipients, message, true, |member, frame, how, delivery| {
            let sent = match how {
                How::Now => member.outbox.send(frame),
                How::Later => member.outbox.send_later(frame),
            };
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

    /// Sends to all recipients, then waits for those with full queues, then calls the hooks.
    fn deliver_waiting(
        &self,
        target: &Target<'_>,
        recipients: &Recipients,
        message: &Message,
        deadline: Instant,
    ) -> Delivery {
        let (now, mut full) = (Instant::now(), Vec::new());
        let mut delivery = self.deliver(target, recipients, message, false, |member, frame, _, delivery| match member
            .outbox
            .send_waiting(frame, now)
        {
            Ok(()) => delivery.queued += 1,
            Err(GaveUp::Timeout) => full.push((member.clone(), frame.clone())),
            Err(GaveUp::Closed) => {}
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

    /// Calls `send` for each recipient. Only with `may_share` it may leave flushes to a later time.
    fn deliver(
        &self,
        target: &Target<'_>,
        recipients: &Recipients,
        message: &Message,
        may_share: bool,
        mut send: impl FnMut(&Member, &Encoded, How, &mut Delivery),
    ) -> Delivery {
        assert_no_lock_held();
        let timed = !recipients.is_one() && self.inner().metrics.is_some();
        let started = timed.then(Instant::now);
        let encodings = Encodings::of(message, self.compressed());
        let excluded: Vec<Client> = target.except.iter().filter_map(|id| self.client(*id)).collect();
        let mut delivery = Delivery::default();
        // Comparing pointers avoids touching the recipient's memory.
        let is_excluded = |member: &Member| excluded.iter().any(|c| c.has_outbox(&member.outbox));
        let each = |member: &Member, how| {
            if is_excluded(member) {
                return;
            }
            match encodings.get(member.outbox.format()) {
                Some(frame) => send(member, frame, how, &mut delivery),
                None => delivery.refused += 1,
            }
        };
        let helpers = may_share.then(|| self.inner().group.helpers());
        recipients.for_each_shared(helpers, each);
        self.count_sent(delivery.queued, message.len());
        if let Some(started) = started {
            self.count(|m| m.record_broadcast_duration(started.elapsed()));
        }
        delivery
    }

    /// Hands one frame to one recipient and handles a drop.
    #[inline]
    pub(super) fn send_one(&self, outbox: &Arc<Outbox>, client: &Client, frame: &Encoded) -> Sent {
        let sent = outbox.send(frame);
        if !matches!(sent, Sent::Queued | Sent::Closed) {
            self.after_drop(outbox, client, frame, &sent);
        }
        sent
    }

    pub(super) fn send_one_waiting(
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
            // Before the hook, which may take long: the close has already begun.
            self.watch_close(client.id(), outbox);
        }
        self.tell_drop(outbox, client, frame, sent);
    }

    /// Reports a drop to hooks and metrics, and closes a client after too many drops in a row.
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

    /// Counts a message of `size` payload bytes that was queued for `count` clients.
    pub(super) fn count_sent(&self, count: usize, size: usize) {
        if count > 0 {
            self.count(|m| {
                m.increment_messages_sent(count);
                m.increment_bytes_sent(count.saturating_mul(size));
            });
        }
    }
}

/// Rate-limited, because a peer could trigger this record repeatedly.
fn warn_slow(client: &Client, why: &str) {
    record_limited!(Warn, "wshub::conn", "{} closed: {why}", client.id());
}
