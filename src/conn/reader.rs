//! The read loop: bytes → events → handlers.

use std::io;
use std::time::{Duration, Instant};

use super::End;
use crate::config::{RatePolicy, deadline_after};
use crate::error::HandlerResult;
use crate::guard::record;
use crate::hub::{Client, TokenBucket};
use crate::message::Message;
use crate::metrics::ErrorType;
use crate::outbox::Cork;
use crate::trace;
use crate::transport::is_timeout;
use crate::ws::{Decoder, Event, close_code};

/// What the read timeout of the socket stands for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nothing heard yet for less than the ping period.
    Quiet,
    /// A ping is out; what is left of the pong timeout runs.
    ForPong,
    /// We have begun to close; the peer has until this moment.
    ForClose(Instant),
}

/// Reads one connection until it ends.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    client: &'a Client,
    decoder: Decoder,
    bucket: Option<TokenBucket>,
    waiting: Waiting,
    /// Since when an unfinished frame has made no progress.
    stuck_since: Option<Instant>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(client: &'a Client, early: &[u8]) -> Self {
        let config = client.hub().config();
        let is_deflate = client.outbox().format().is_deflate();
        let mut decoder = Decoder::new(config.read_buffer.max(early.len()), config.max_message_size, is_deflate);
        decoder.space()[..early.len()].copy_from_slice(early);
        decoder.filled(early.len());
        let rate = client.hub().limits().max_message_rate;
        let bucket = (rate > 0).then(|| TokenBucket::new(rate));
        Self { client, decoder, bucket, waiting: Waiting::Quiet, stuck_since: None }
    }

    pub(super) fn run(&mut self) -> End {
        if let Err(end) = self.apply_timeout() {
            return end;
        }
        loop {
            let before = self.decoder.progress();
            let step = self.handle_buffered().and_then(|()| self.watch_progress(before)).and_then(|()| self.read());
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Handles every event that is whole. Several messages of one read are handled under one cork, so that each
    /// recipient is written to once; a message that comes alone takes the direct way.
    fn handle_buffered(&mut self) -> Result<(), End> {
        let mut cork = None;
        let mut held: Option<Message> = None;
        loop {
            // One event ahead, to know whether a message comes alone. Messages before a violation are still handled.
            let event = self.decoder.next();
            if let Ok(Some(Event::Message(kind, payload))) = event {
                if let Some(message) = held.replace(Message::received(kind, payload)) {
                    cork.get_or_insert_with(Cork::new);
                    self.handle(&message);
                }
                continue;
            }
            if let Some(message) = held.take() {
                self.handle(&message);
            }
            match event {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Ping(payload))) => self.client.outbox().pong(payload),
                Ok(Some(Event::Pong | Event::Message(..))) => {}
                Ok(Some(Event::Close(frame))) => return Err(End::PeerClosed(frame)),
                Err(violation) => return Err(End::Violation(violation)),
            }
        }
    }

    fn read(&mut self) -> Result<(), End> {
        self.watch_own_close()?;
        match self.client.outbox().transport().read(self.decoder.space()) {
            Ok(0) => Err(End::Eof),
            Ok(n) => {
                self.decoder.filled(n);
                if self.waiting != Waiting::ForPong {
                    return Ok(());
                }
                self.waiting = Waiting::Quiet;
                self.apply_timeout()
            }
            Err(e) if is_timeout(&e) => self.timed_out(),
            Err(e) => Err(read_error(&e)),
        }
    }

    /// A frame that arrives in drips does not keep a connection alive: it must end, or 16 KiB more of it must come,
    /// within the pong timeout. The clock is only looked at while a frame is unfinished.
    fn watch_progress(&mut self, before: u64) -> Result<(), End> {
        if self.decoder.progress() != before || !self.decoder.is_mid_message() {
            self.stuck_since = None;
            return Ok(());
        }
        let limit = self.client.hub().config().pong_timeout;
        if limit.is_zero() {
            return Ok(());
        }
        let now = Instant::now();
        let since = *self.stuck_since.get_or_insert(now);
        if now.saturating_duration_since(since) > limit { Err(End::Silent) } else { Ok(()) }
    }

    /// Once this side has begun to close, the peer has the close timeout to answer. Covers closes that were begun on
    /// this thread, by handlers; the hub's reaper covers the others.
    fn watch_own_close(&mut self) -> Result<(), End> {
        if !self.client.is_closed() {
            return Ok(());
        }
        if !matches!(self.waiting, Waiting::ForClose(_)) {
            self.waiting = Waiting::ForClose(deadline_after(self.client.hub().config().close_timeout));
        }
        self.apply_timeout()
    }

    fn timed_out(&mut self) -> Result<(), End> {
        match self.waiting {
            Waiting::Quiet => {
                self.client.outbox().ping();
                if self.client.outbox().failure().is_some() {
                    return Err(End::PingFailed);
                }
                self.waiting = Waiting::ForPong;
                self.apply_timeout()
            }
            Waiting::ForPong => Err(End::Silent),
            Waiting::ForClose(_) => Err(End::CloseTimeout),
        }
    }

    fn apply_timeout(&self) -> Result<(), End> {
        let config = self.client.hub().config();
        let timeout = match self.waiting {
            Waiting::ForClose(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(End::CloseTimeout);
                }
                Some(left)
            }
            _ if config.pong_timeout.is_zero() => None,
            Waiting::Quiet => Some(config.ping_period),
            Waiting::ForPong => Some(config.pong_timeout.saturating_sub(config.ping_period)),
        };
        let timeout = timeout.map(|t| t.max(Duration::from_millis(1)));
        self.client.outbox().transport().set_read_timeout(timeout).map_err(|e| read_error(&e))
    }

    /// One message through the rate limit, the hooks and the handlers.
    fn handle(&mut self, message: &Message) {
        // After a close has begun, what still comes is discarded (RFC 6455 §1.4).
        if self.client.is_closed() {
            return;
        }
        let hub = self.client.hub();
        let client = self.client;
        let _trace =
            hub.tracer().and_then(|t| t.begin(client.id(), || client.request().path(), message.kind(), message.len()));
        hub.count(|m| {
            m.increment_messages_received();
            m.record_message_size(message.len());
        });
        if self.bucket.as_mut().is_some_and(|bucket| !bucket.allow()) {
            self.refuse_rate(message);
            return;
        }
        let _handling = client.handling();
        let started = hub.counts_handler().then(Instant::now);
        self.dispatch(message);
        if let Some(started) = started {
            hub.count(|m| m.record_latency(started.elapsed()));
        }
    }

    fn dispatch(&self, message: &Message) {
        let hub = self.client.hub();
        let Some(hook) = &hub.hooks().before_message else {
            return self.conclude(message, self.call_handlers(message));
        };
        let verdict = hub.guarded(Some(self.client), "before_message", || hook(self.client, message.clone()));
        match verdict.unwrap_or_else(|| Err("before_message panicked".into())) {
            Ok(new) => self.conclude(&new, self.call_handlers(&new)),
            Err(error) => self.conclude(message, self.counted(Err(error))),
        }
    }

    /// What follows from a message's result.
    fn conclude(&self, message: &Message, result: HandlerResult) {
        let hub = self.client.hub();
        if let Some(hook) = &hub.hooks().after_message {
            hub.guarded(Some(self.client), "after_message", || hook(self.client, message, &result));
        }
        if let Err(error) = result {
            record!(Debug, "wshub::conn", "{} handler error: {error}", self.client.id());
            trace::note_error(error.error_type(), || error.to_string());
            hub.report_error(self.client, &error);
            self.client.close_as_asked(&error);
        }
    }

    fn counted(&self, result: HandlerResult) -> HandlerResult {
        if let Err(error) = &result {
            self.client.hub().count_error(error.error_type());
        }
        result
    }

    /// The client's own handler, then the hub's; an error of the first keeps the second from running.
    fn call_handlers(&self, message: &Message) -> HandlerResult {
        let hub = self.client.hub();
        let panicked = || Err("the handler panicked".into());
        if let Some(own) = self.client.callbacks().on_message {
            let result = hub.guarded(Some(self.client), "the client's on_message", || own(self.client, message));
            self.counted(result.unwrap_or_else(panicked))?;
        }
        let Some(handler) = &hub.hooks().on_message else { return Ok(()) };
        let result = hub.guarded(Some(self.client), "on_message", || handler(self.client, message));
        let result = result.unwrap_or_else(panicked);
        if hub.counts_handler() { self.counted(result) } else { result }
    }

    #[cold]
    fn refuse_rate(&self, message: &Message) {
        let hub = self.client.hub();
        hub.count_error(ErrorType::RateLimitExceeded);
        record!(Debug, "wshub::conn", "{} over the message rate", self.client.id());
        trace::note_error(ErrorType::RateLimitExceeded, || "rate limit exceeded".into());
        hub.run_message_hook(&hub.hooks().on_rate_limited, "on_rate_limited", self.client, message);
        if hub.limits().rate_policy == RatePolicy::Close {
            self.client.close_checked(close_code::POLICY, "rate limit exceeded");
        }
    }
}

pub(super) fn read_error(error: &io::Error) -> End {
    // A peer that resets is gone, as one that closes.
    if error.kind() == io::ErrorKind::ConnectionReset { End::Eof } else { End::ReadError(error.kind()) }
}
