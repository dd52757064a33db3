//! The read loop: bytes → events → handlers.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{End, pings};
use crate::config::{RatePolicy, deadline_after};
use crate::error::{HandlerError, HandlerResult};
use crate::guard::{self, record};
use crate::hub::{Client, TokenBucket};
use crate::message::Message;
use crate::metrics::ErrorType;
use crate::outbox::{Burst, Outbox};
use crate::trace;
use crate::transport::{is_gone, is_timeout};
use crate::ws::{Decoder, Event};

/// Size of a read on the stack, in bytes. Small, because each used page of the stack stays resident.
const CHUNK: usize = 256;
/// The number of consecutive reads smaller than a chunk after which the larger buffer is freed. Until then, messages
/// that arrive together are read together.
const PATIENCE: u32 = 64;

/// What the socket's read timeout means at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nothing is awaited; a timeout sends a ping.
    Quiet,
    /// A ping has been sent; the rest of `pong_timeout` is running.
    ForPong,
    /// This side has begun to close; the peer must answer by this time.
    ForClose(Instant),
}

/// Reads one connection until it ends.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    client: &'a Client,
    outbox: &'a Arc<Outbox>,
    decoder: Decoder,
    bucket: Option<TokenBucket>,
    waiting: Waiting,
    /// When the unfinished frame last made progress.
    stuck_since: Option<Instant>,
    /// [`Outbox::acknowledged`] when the last ping was sent.
    acknowledged: u32,
    /// Set while calls wait on this thread: the deadline of the next read, and its deadline without the calls.
    call: Option<(Instant, Option<Instant>)>,
}

impl<'a> Reader<'a> {
    /// Boxed and not inlined. Used pages of a stack stay resident, and without the reader the stack needs one page
    /// less.
    #[inline(never)]
    pub(super) fn new(client: &'a Client, outbox: &'a Arc<Outbox>) -> Box<Self> {
        let decoder = Decoder::new(client.hub().config().max_message_size, outbox.format().is_deflate());
        let rate = client.hub().limits().max_message_rate;
        let bucket = (rate > 0).then(|| TokenBucket::new(rate));
        Box::new(Self {
            client,
            outbox,
            decoder,
            bucket,
            waiting: Waiting::Quiet,
            stuck_since: None,
            acknowledged: 0,
            call: None,
        })
    }

    /// Reads until the connection ends. `early` holds bytes that were already read.
    pub(super) fn run(&mut self, early: &[u8]) -> End {
        let started = self.apply_timeout().and_then(|()| self.take(&mut early.to_vec()));
        match started.and_then(|()| self.read_all()) {
            Ok(never) => match never {},
            // Another thread sends the ping. Its failure has cut the connection.
            Err(End::Eof | End::ReadError(_)) if self.is_pinged() && self.outbox.failure().is_some() => End::PingFailed,
            Err(end) => end,
        }
    }

    fn is_pinged(&self) -> bool {
        self.waiting == Waiting::ForPong
    }

    /// Reads onto this thread's stack and decodes there, so a waiting connection has no buffer.
    fn read_all(&mut self) -> Result<Infallible, End> {
        let mut chunk = [0; CHUNK];
        let most = self.client.hub().config().read_buffer;
        // Allocated when a read fills the chunk. Freed after a timeout or after many small reads.
        let mut large = Vec::new();
        let mut small_reads = 0_u32;
        loop {
            self.watch_own_close()?;
            self.watch_calls()?;
            let before = self.decoder.progress();
            if let Some(space) = self.decoder.space() {
                let read = self.outbox.transport().read(space);
                let filled = self.decoder.filled(*read.as_ref().unwrap_or(&0));
                self.note_read(read)?;
                filled.map_err(End::Violation)?;
                self.take(&mut [])?;
            } else {
                let buffer = if large.is_empty() { &mut chunk[..most.min(CHUNK)] } else { &mut large[..] };
                let read = self.outbox.transport().read(buffer);
                let n = self.note_read(read)?;
                self.take(&mut buffer[..n])?;
                small_reads = if n < CHUNK { small_reads + 1 } else { 0 };
                if n == CHUNK && most > CHUNK {
                    large.resize(most, 0);
                } else if n == 0 || small_reads > PATIENCE {
                    large = Vec::new();
                }
            }
            self.watch_progress(before)?;
        }
    }

    /// Handles every complete event. Several messages of one read form a burst: each recipient is written to once at
    /// its end, or after a millisecond. A message that arrives alone is sent directly.
    fn take(&mut self, mut input: &mut [u8]) -> Result<(), End> {
        let mut burst: Option<Burst> = None;
        let mut held: Option<Message> = None;
        loop {
            // Decodes one event ahead to know whether a message arrived alone. Messages before a violation are still
            // handled.
            let event = self.decoder.next(&mut input);
            if let Ok(Some(Event::Message(kind, payload))) = event {
                if let Some(message) = held.replace(Message::received(kind, payload)) {
                    burst.get_or_insert_with(Burst::begin).next();
                    self.handle(&message);
                }
                continue;
            }
            if let Some(message) = held.take() {
                self.handle(&message);
            }
            match event {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Ping(payload))) => self.outbox.pong(payload),
                Ok(Some(Event::Pong | Event::Message(..))) => {}
                Ok(Some(Event::Close(frame))) => return Err(End::PeerClosed(frame)),
                Err(violation) => return Err(End::Violation(violation)),
            }
        }
    }

    /// Handles the result of a read. Returns the number of bytes, 0 after a timeout.
    fn note_read(&mut self, read: io::Result<usize>) -> Result<usize, End> {
        match read {
            Ok(0) => Err(End::Eof),
            Ok(n) => {
                if self.waiting == Waiting::ForPong {
                    self.waiting = Waiting::Quiet;
                    self.apply_timeout()?;
                }
                self.restart_keep_alive();
                Ok(n)
            }
            Err(e) if is_timeout(&e) => self.timed_out().map(|()| 0),
            Err(e) => Err(read_error(&e)),
        }
    }

    /// Ends a connection whose frame arrives in drips. Within the pong timeout, the frame must end or 16 KiB more of it
    /// must arrive. Reads the clock only while a frame is unfinished.
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

    /// Limits a close that began on this thread, in a handler, to the close timeout. The hub's close watch covers other
    /// closes.
    fn watch_own_close(&mut self) -> Result<(), End> {
        if self.outbox.is_open() {
            return Ok(());
        }
        if !matches!(self.waiting, Waiting::ForClose(_)) {
            self.waiting = Waiting::ForClose(deadline_after(self.client.hub().config().close_timeout));
            self.restart_keep_alive();
        }
        self.apply_timeout()
    }

    /// Runs due calls of this thread and makes the next read end at the next deadline.
    fn watch_calls(&mut self) -> Result<(), End> {
        let Some(due) = self.client.finish_due_calls() else {
            return if self.call.take().is_some() { self.apply_timeout() } else { Ok(()) };
        };
        let now = Instant::now();
        // The keep-alive's time continues while reads end early for calls. It restarts when data arrives.
        let until = match self.call {
            Some((_, until)) => until,
            None => self.timeout().map(deadline_after),
        };
        self.call = Some((due, until));
        let next = until.map_or(due, |until| until.min(due));
        let left = next.saturating_duration_since(now).max(Duration::from_millis(1));
        self.outbox.transport().set_read_timeout(Some(left)).map_err(|e| read_error(&e))
    }

    /// Restarts the read timeout, and the keep-alive's time if calls shorten reads.
    fn restart_keep_alive(&mut self) {
        if let Some((due, _)) = self.call {
            self.call = Some((due, self.timeout().map(deadline_after)));
        }
    }

    fn timed_out(&mut self) -> Result<(), End> {
        if self.call.is_some_and(|(_, until)| until.is_none_or(|until| Instant::now() < until)) {
            // Only a call has timed out.
            return Ok(());
        }
        let result = self.keep_alive();
        self.restart_keep_alive();
        result
    }

    /// Acts when the keep-alive's time has passed.
    fn keep_alive(&mut self) -> Result<(), End> {
        match self.waiting {
            Waiting::Quiet => self.ping(),
            // The ping waits behind output that the peer keeps acknowledging. So the peer is alive and is pinged again.
            Waiting::ForPong if self.outbox.acknowledged() != self.acknowledged => self.ping(),
            Waiting::ForPong => Err(End::Silent),
            Waiting::ForClose(_) => Err(End::CloseTimeout),
        }
    }

    fn ping(&mut self) -> Result<(), End> {
        self.acknowledged = self.outbox.acknowledged();
        pings::send(self.outbox);
        self.waiting = Waiting::ForPong;
        self.apply_timeout()
    }

    /// How long a read may last without a byte.
    fn timeout(&self) -> Option<Duration> {
        let config = self.client.hub().config();
        match self.waiting {
            Waiting::ForClose(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            _ if config.pong_timeout.is_zero() => None,
            Waiting::Quiet => Some(config.ping_period),
            Waiting::ForPong => Some(config.pong_timeout.saturating_sub(config.ping_period)),
        }
    }

    fn apply_timeout(&self) -> Result<(), End> {
        let timeout = self.timeout();
        if matches!(self.waiting, Waiting::ForClose(_)) && timeout.is_some_and(|left| left.is_zero()) {
            return Err(End::CloseTimeout);
        }
        let timeout = timeout.map(|t| t.max(Duration::from_millis(1)));
        self.outbox.transport().set_read_timeout(timeout).map_err(|e| read_error(&e))
    }

    /// Passes one message through the rate limit, the hooks and the handlers.
    fn handle(&mut self, message: &Message) {
        // After a close has begun, further messages are discarded (RFC 6455 §1.4).
        if !self.outbox.is_open() {
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
            Ok(new) => {
                self.conclude(&new, self.call_handlers(&new));
                // The payload may be the application's memory.
                guard::dispose(new);
            }
            Err(error) => self.conclude(message, self.counted(Err(HandlerError::new(error)))),
        }
    }

    /// Reports and acts on a message's result.
    fn conclude(&self, message: &Message, result: Result<(), HandlerError>) {
        let hub = self.client.hub();
        if let Some(hook) = &hub.hooks().after_message {
            hub.guarded(Some(self.client), "after_message", || hook(self.client, message, &result));
        }
        if let Err(error) = result {
            record!(Debug, "wshub::conn", "{} handler error: {error}", self.client.id());
            trace::note_error(error.error_type(), || text_of(&error));
            hub.report_error(self.client, &error);
            self.client.close_as_asked(&error);
            guard::dispose(error);
        }
    }

    fn counted(&self, result: Result<(), HandlerError>) -> Result<(), HandlerError> {
        if let Err(error) = &result {
            self.client.hub().count_error(error.error_type());
        }
        result
    }

    /// Calls the client's own handler, then the hub's unless the first returned an error.
    fn call_handlers(&self, message: &Message) -> Result<(), HandlerError> {
        let hub = self.client.hub();
        let of = |result: Option<HandlerResult>| {
            result.unwrap_or_else(|| Err("the handler panicked".into())).map_err(HandlerError::new)
        };
        if let Some(own) = self.client.callback(|c| &c.on_message) {
            let result = hub.guarded(Some(self.client), "the client's on_message", || own(self.client, message));
            // The handler may have been replaced in the meantime, so this may be its last handle.
            guard::dispose(own);
            self.counted(of(result))?;
        }
        let Some(handler) = &hub.hooks().on_message else { return Ok(()) };
        let result = of(hub.guarded(Some(self.client), "on_message", || handler(self.client, message)));
        if hub.counts_handler() { self.counted(result) } else { result }
    }

    #[cold]
    fn refuse_rate(&self, message: &Message) {
        let hub = self.client.hub();
        hub.count_error(ErrorType::RateLimitExceeded);
        record!(Debug, "wshub::conn", "{} exceeded max_message_rate", self.client.id());
        trace::note_error(ErrorType::RateLimitExceeded, || "rate limit exceeded".into());
        hub.run_message_hook(&hub.hooks().on_rate_limited, "on_rate_limited", self.client, message);
        if hub.limits().rate_policy == RatePolicy::Close {
            self.client.close_checked(hub.config().rate_limit_code, "rate limit exceeded");
        }
    }
}

pub(super) fn read_error(error: &io::Error) -> End {
    match error.kind() {
        // A reset counts as a departure, like an end of stream.
        kind if is_gone(kind) => End::Eof,
        // `ETIMEDOUT`: the peer acknowledges nothing.
        io::ErrorKind::TimedOut => End::Silent,
        kind => End::ReadError(kind),
    }
}

/// The text of an error. `Display` is the application's code.
fn text_of(error: &HandlerError) -> String {
    guard::catch(|| error.to_string()).unwrap_or_else(|| "its text panicked".into())
}
