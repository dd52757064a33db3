//! Settings of connections and limits of a hub, validated once when the hub is built.

use std::time::{Duration, Instant};

use crate::bounds::{GIB, MILLISECOND, YEAR, check, check_or_zero};
use crate::error::ConfigError;

/// Consuming setters named as their fields.
macro_rules! setters {
    ($($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)?) => {
        $($(#[$attribute])*
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        })*
    };
}

/// RFC 6455 §7.4, as [`Client::close`](crate::Client::close) has it.
const fn may_be_sent(close_code: u16) -> bool {
    matches!(close_code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Longest name of a room, in bytes.
pub const MAX_ROOM_NAME: usize = 256;

/// What happens to a message for a client whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DropPolicy {
    /// The new message is dropped; what is queued stays. The default.
    #[default]
    DropNewest,
    /// The oldest queued messages are dropped until the new one fits.
    DropOldest,
    /// The client is closed with 1013 and the reason `slow consumer`.
    Disconnect,
}

/// What happens to inbound messages over [`Limits::max_message_rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RatePolicy {
    /// The message is dropped. The default.
    #[default]
    Drop,
    /// The client is closed with 1008 and the reason `rate limit exceeded`.
    Close,
}

/// Settings of a hub's connections.
///
/// Durations count on a monotonic clock. Each is at least 1 ms, unless 0 has a meaning of its own, and at most 366
/// days, or
/// [`Duration::MAX`] for no end. Every setter consumes and returns the value:
///
/// ```
/// use std::time::Duration;
/// let config = wshub::Config::default().max_message_size(64 * 1024).write_timeout(Duration::from_secs(2));
/// assert_eq!(config.max_message_size, 64 * 1024);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Bytes of one read; default 4096, at least 256 and at most 16 MiB. A connection reads up to 4 KiB into the stack
    /// of its thread and has a buffer of this size only while more comes at a time, so none while it waits. Large
    /// messages are read directly into place, in steps that grow with what has arrived.
    pub read_buffer: usize,
    /// Largest inbound message in bytes, after reassembly; default 512 KiB. A larger one closes with 1009 before it is
    /// stored. At most `isize::MAX`; 0 = only empty messages.
    pub max_message_size: usize,
    /// How long a write may make no progress before the connection counts as dead; default 10 s. At least 1 ms.
    pub write_timeout: Duration,
    /// How long a peer may send nothing before a ping is sent; default 25 s, so that proxies, which cut what is idle
    /// for 50 or 60 s, hear from both sides. Must be below `pong_timeout`.
    pub ping_period: Duration,
    /// How long a peer may send nothing before the connection counts as dead; default 60 s, 35 s more than
    /// `ping_period`: a peer that reads slowly has other output to read before the ping. A peer that takes more output
    /// from a socket that was full is alive and is pinged again. 0 = for ever, no pings. On event streams, whose peers
    /// never send: how long it may leave bytes unacknowledged (TCP on Linux only).
    pub pong_timeout: Duration,
    /// The pause between the comments that keep an event stream from looking dead to proxies; default 15 s. 0 = none.
    pub heartbeat: Duration,
    /// How long a close may take: flushing the queue, sending the close frame, waiting for the peer's; default 5 s.
    /// What is left of it when the hooks have run is how long the peer's end is waited for then. At least 1 ms.
    pub close_timeout: Duration,
    /// Messages that may wait in one client's queue; default 256, at least 1 and at most 1,048,576.
    pub queue_messages: usize,
    /// Bytes that may wait in one client's queue; default 1 MiB, at least 1 and at most 1 GiB. Each message counts as
    /// what it keeps in memory: its frame, for compressed messages and on event streams the message as well, and about
    /// 150 bytes that hold them together. A larger single message is accepted only into an empty queue.
    pub queue_bytes: usize,
    /// Bytes that the kernel keeps of what has been sent to one client and is not acknowledged (`SO_SNDBUF`; Linux
    /// doubles it for its own needs). What is in there has left the queue: [`DropPolicy::DropOldest`] cannot take it
    /// back, and a client that was away gets it first. Small where freshness counts, such as 16 KiB; it also bounds
    /// what one client gets for each round trip. Default 0 = the system's choice, up to some MiB; else 4 KiB to 1 GiB.
    pub send_buffer: usize,
    /// Bytes that may wait in the kernel unsent before it takes no more (`TCP_NOTSENT_LOWAT`, TCP on Linux only): as
    /// [`send_buffer`](#structfield.send_buffer) it keeps messages in the queue, but does not bound what is under way.
    /// Default 0 = no such bound; else 1 KiB to 1 GiB.
    pub unsent_low_water: usize,
    /// What happens when a client's queue is full; default [`DropPolicy::DropNewest`].
    pub drop_policy: DropPolicy,
    /// Drops in a row after which a client is closed with 1013 (`slow consumer`); any queued message resets the
    /// count. Default 0 = never.
    pub max_consecutive_drops: u32,
    /// Joins queued text messages with `\n` into one text frame when several are written at once; receivers must
    /// split. Binary messages always travel alone. Default off: messages stay separate frames, but share system calls.
    pub coalesce_writes: bool,
    /// Agrees on permessage-deflate with clients that offer it (RFC 7692), without context takeover in either
    /// direction; default off.
    #[cfg(feature = "deflate")]
    pub compression: bool,
    /// How hard messages are compressed, 1 (fastest) to 9 (smallest); default 1.
    #[cfg(feature = "deflate")]
    pub compression_level: u32,
    /// Payload bytes from which on a message is compressed; default 512. 0 = all but those that do not get shorter.
    #[cfg(feature = "deflate")]
    pub compression_min_size: usize,
    /// Starts each connection's writer thread with the connection, and keeps it. Default off: it starts when the socket
    /// pushes back, and ends when it has had nothing to write for 3 s.
    pub eager_writers: bool,
    /// Stack of the threads that [`Accept::detach`](crate::server::Accept::detach) starts, in bytes; default 512 KiB.
    /// They run user code. Only pages in use occupy memory.
    pub reader_stack: usize,
    /// Stack of writer threads in bytes; default 64 KiB. They run no user code.
    pub writer_stack: usize,
    /// How long a [drain](crate::Hub::drain) begins with failing readiness only, while new connections are still
    /// admitted, so that load balancers send clients elsewhere before any is closed; default 10 s, which suits checks
    /// every two seconds of which three must fail. 0 = new connections are refused at once.
    pub lame_duck: Duration,
    /// While draining, how long a client must have been idle before it is closed with 1001: no message came from it or
    /// is being handled, and its socket took all output at once. Default 30 s. A client that is busy all the time is
    /// closed after twice that time. 0 = no client is closed.
    pub drain_timeout: Duration,
    /// While draining, the window over which those closes are spread, so that clients do not return as one herd;
    /// default 5 s. 0 = all at once.
    pub drain_spread: Duration,
    /// Close code for peers that break the rules of WebSocket, where a protocol has one of its own that makes its
    /// clients stay away; default 0 = 1002 or 1007. A message that is too large is closed with 1009 in any case.
    pub violation_code: u16,
    /// Close code for clients over [`Limits::max_message_rate`] with [`RatePolicy::Close`]; default 1008.
    pub rate_limit_code: u16,
    /// How long a connection may last, give or take a tenth at random: then it is closed with 1001, and the client comes
    /// back, perhaps to another node. 100 ms to a year; 0 = for ever, the default.
    pub max_age: Duration,
    /// Subprotocols that the server speaks, preferred first; the first that a client offers is chosen. Default none.
    pub subprotocols: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_buffer: 4096,
            max_message_size: 512 * 1024,
            write_timeout: Duration::from_secs(10),
            ping_period: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            close_timeout: Duration::from_secs(5),
            queue_messages: 256,
            queue_bytes: 1024 * 1024,
            send_buffer: 0,
            unsent_low_water: 0,
            drop_policy: DropPolicy::DropNewest,
            max_consecutive_drops: 0,
            coalesce_writes: false,
            #[cfg(feature = "deflate")]
            compression: false,
            #[cfg(feature = "deflate")]
            compression_level: 1,
            #[cfg(feature = "deflate")]
            compression_min_size: 512,
            eager_writers: false,
            reader_stack: 512 * 1024,
            writer_stack: 64 * 1024,
            lame_duck: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            drain_spread: Duration::from_secs(5),
            violation_code: 0,
            rate_limit_code: 1008,
            max_age: Duration::ZERO,
            subprotocols: Vec::new(),
        }
    }
}

impl Config {
    setters! {
        /// Sets [`Config::read_buffer`](#structfield.read_buffer), in bytes.
        read_buffer: usize,
        /// Sets [`Config::max_message_size`](#structfield.max_message_size), in bytes.
        max_message_size: usize,
        /// Sets [`Config::write_timeout`](#structfield.write_timeout).
        write_timeout: Duration,
        /// Sets [`Config::ping_period`](#structfield.ping_period).
        ping_period: Duration,
        /// Sets [`Config::pong_timeout`](#structfield.pong_timeout).
        pong_timeout: Duration,
        /// Sets [`Config::max_age`](#structfield.max_age).
        max_age: Duration,
        /// Sets [`Config::heartbeat`](#structfield.heartbeat).
        heartbeat: Duration,
        /// Sets [`Config::close_timeout`](#structfield.close_timeout).
        close_timeout: Duration,
        /// Sets [`Config::queue_messages`](#structfield.queue_messages).
        queue_messages: usize,
        /// Sets [`Config::queue_bytes`](#structfield.queue_bytes).
        queue_bytes: usize,
        /// Sets [`Config::send_buffer`](#structfield.send_buffer), in bytes.
        send_buffer: usize,
        /// Sets [`Config::unsent_low_water`](#structfield.unsent_low_water), in bytes.
        unsent_low_water: usize,
        /// Sets [`Config::drop_policy`](#structfield.drop_policy).
        drop_policy: DropPolicy,
        /// Sets [`Config::violation_code`](#structfield.violation_code).
        violation_code: u16,
        /// Sets [`Config::rate_limit_code`](#structfield.rate_limit_code).
        rate_limit_code: u16,
        /// Sets [`Config::max_consecutive_drops`](#structfield.max_consecutive_drops).
        max_consecutive_drops: u32,
        /// Sets [`Config::coalesce_writes`](#structfield.coalesce_writes).
        coalesce_writes: bool,
        /// Sets [`Config::compression`](#structfield.compression).
        #[cfg(feature = "deflate")]
        compression: bool,
        /// Sets [`Config::compression_level`](#structfield.compression_level).
        #[cfg(feature = "deflate")]
        compression_level: u32,
        /// Sets [`Config::compression_min_size`](#structfield.compression_min_size), in bytes.
        #[cfg(feature = "deflate")]
        compression_min_size: usize,
        /// Sets [`Config::eager_writers`](#structfield.eager_writers).
        eager_writers: bool,
        /// Sets [`Config::reader_stack`](#structfield.reader_stack), in bytes.
        reader_stack: usize,
        /// Sets [`Config::writer_stack`](#structfield.writer_stack), in bytes.
        writer_stack: usize,
        /// Sets [`Config::lame_duck`](#structfield.lame_duck).
        lame_duck: Duration,
        /// Sets [`Config::drain_timeout`](#structfield.drain_timeout).
        drain_timeout: Duration,
        /// Sets [`Config::drain_spread`](#structfield.drain_spread).
        drain_spread: Duration,
    }

    /// Sets [`Config::subprotocols`](#structfield.subprotocols), preferred first.
    pub fn subprotocols<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Every number and duration has bounds.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.validate_times()?;
        check("read_buffer", self.read_buffer, 256..=16 << 20)?;
        // A message is one piece of memory, and no allocation is larger.
        check("max_message_size", self.max_message_size, 0..=isize::MAX.unsigned_abs())?;
        check("queue_messages", self.queue_messages, 1..=1 << 20)?;
        check("queue_bytes", self.queue_bytes, 1..=GIB)?;
        check_or_zero("send_buffer", self.send_buffer, 4096..=GIB)?;
        check_or_zero("unsent_low_water", self.unsent_low_water, 1024..=GIB)?;
        check("reader_stack", self.reader_stack, MIN_STACK..=MAX_STACK)?;
        check("writer_stack", self.writer_stack, MIN_STACK..=MAX_STACK)?;
        #[cfg(feature = "deflate")]
        {
            check("compression_level", self.compression_level, 1..=9)?;
            check("compression_min_size", self.compression_min_size, 0..=GIB)?;
        }
        let codes = [("violation_code", self.violation_code, true), ("rate_limit_code", self.rate_limit_code, false)];
        for (setting, code, may_be_zero) in codes {
            let is_usable = may_be_sent(code) || may_be_zero && code == 0;
            if !is_usable {
                let bound = if may_be_zero {
                    "must be 0 or a close code that may be sent"
                } else {
                    "must be a close code that may be sent"
                };
                return Err(ConfigError::out_of_bounds(setting, code, bound));
            }
        }
        check("subprotocols", self.subprotocols.len(), 0..=64)?;
        let is_usable = |name: &&String| !is_token(name) || name.len() > 128;
        let wrong = self.subprotocols.iter().find(is_usable);
        let refuse =
            |name| ConfigError::out_of_bounds("subprotocols", name, "must be an HTTP token of at most 128 bytes");
        wrong.map_or(Ok(()), |name| Err(refuse(name)))
    }

    fn validate_times(&self) -> Result<(), ConfigError> {
        check("write_timeout", self.write_timeout, MILLISECOND..=YEAR)?;
        check("close_timeout", self.close_timeout, MILLISECOND..=YEAR)?;
        check_or_zero("pong_timeout", self.pong_timeout, MILLISECOND..=YEAR)?;
        check_or_zero("heartbeat", self.heartbeat, MILLISECOND..=YEAR)?;
        check_or_zero("max_age", self.max_age, MILLISECOND * 100..=YEAR)?;
        check_or_zero("lame_duck", self.lame_duck, MILLISECOND..=YEAR)?;
        check_or_zero("drain_timeout", self.drain_timeout, MILLISECOND..=YEAR)?;
        check_or_zero("drain_spread", self.drain_spread, MILLISECOND..=YEAR)?;
        if self.pong_timeout.is_zero() {
            return Ok(());
        }
        check("ping_period", self.ping_period, MILLISECOND..=YEAR)?;
        if self.ping_period >= self.pong_timeout {
            let bound = format!("must be below pong_timeout {:?}", self.pong_timeout);
            return Err(ConfigError::out_of_bounds("ping_period", self.ping_period, bound));
        }
        Ok(())
    }
}

/// When a wait that begins now is over. "For ever", as `Duration::MAX`, is a time that the clock cannot hold.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    Instant::now() + timeout.min(CENTURY)
}

/// Smallest thread stack that the crate accepts, in bytes.
pub(crate) const MIN_STACK: usize = 32 * 1024;
/// Largest thread stack: no machine has more addresses. A thread that a machine cannot give is refused at run time.
pub(crate) const MAX_STACK: usize = GIB << (if usize::BITS > 32 { 20 } else { 0 });

/// RFC 9110 §5.6.2: a token is one or more of these characters.
pub(crate) fn is_token(text: &str) -> bool {
    let token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token_byte)
}

/// Limits of a hub. 0 = unlimited, the default of each but `history_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at one time; one more is refused with 503. The guide to embedding derives it from a machine's memory.
    pub max_connections: usize,
    /// Connections at one time of one user; one more is refused with 429.
    pub max_connections_per_user: usize,
    /// Connections at one time from one IP address; one more is refused with 429.
    pub max_connections_per_address: usize,
    /// Rooms that one client may be in.
    pub max_rooms_per_client: usize,
    /// Clients that one room may hold.
    pub max_clients_per_room: usize,
    /// Inbound messages a second and client: a token bucket whose burst is the rate.
    pub max_message_rate: u32,
    /// What happens to messages over that rate; default [`RatePolicy::Drop`].
    pub rate_policy: RatePolicy,
    /// Bytes that all rooms that remember hold together: histories and states; default 64 MiB. Over it, rooms without
    /// members go, the one that was used least recently first; then the room that is published to forgets its oldest
    /// messages.
    pub history_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 0,
            max_connections_per_user: 0,
            max_connections_per_address: 0,
            max_rooms_per_client: 0,
            max_clients_per_room: 0,
            max_message_rate: 0,
            rate_policy: RatePolicy::Drop,
            history_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Limits {
    setters! {
        /// Sets [`Limits::max_connections`](#structfield.max_connections).
        max_connections: usize,
        /// Sets [`Limits::max_connections_per_user`](#structfield.max_connections_per_user).
        max_connections_per_user: usize,
        /// Sets [`Limits::max_connections_per_address`](#structfield.max_connections_per_address).
        max_connections_per_address: usize,
        /// Sets [`Limits::max_rooms_per_client`](#structfield.max_rooms_per_client).
        max_rooms_per_client: usize,
        /// Sets [`Limits::max_clients_per_room`](#structfield.max_clients_per_room).
        max_clients_per_room: usize,
        /// Sets [`Limits::max_message_rate`](#structfield.max_message_rate), in messages a second.
        max_message_rate: u32,
        /// Sets [`Limits::rate_policy`](#structfield.rate_policy).
        rate_policy: RatePolicy,
        /// Sets [`Limits::history_bytes`](#structfield.history_bytes).
        history_bytes: usize,
    }
}

/// Whether `count` more-or-equal than `limit` means "full", with 0 for unlimited.
pub(crate) const fn reached(limit: usize, count: usize) -> bool {
    limit != 0 && count >= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offending(config: &Config) -> Option<&'static str> {
        config.validate().err().map(|e| e.field())
    }

    #[test]
    fn defaults_are_valid_and_errors_name_the_field() {
        assert_eq!(offending(&Config::default()), None);
        assert_eq!(offending(&Config::default().max_message_size(isize::MAX.unsigned_abs())), None);
        assert_eq!(
            offending(&Config::default().max_message_size(isize::MAX.unsigned_abs() + 1)),
            Some("max_message_size")
        );
        assert_eq!(offending(&Config::default().queue_messages(0)), Some("queue_messages"));
        assert_eq!(offending(&Config::default().violation_code(999)), Some("violation_code"));
        assert_eq!(offending(&Config::default().violation_code(3501)), None);
        assert_eq!(offending(&Config::default().rate_limit_code(0)), Some("rate_limit_code"));
        assert_eq!(offending(&Config::default().queue_bytes(0)), Some("queue_bytes"));
        assert_eq!(offending(&Config::default().read_buffer(1)), Some("read_buffer"));
        assert_eq!(offending(&Config::default().write_timeout(Duration::ZERO)), Some("write_timeout"));
        assert_eq!(offending(&Config::default().close_timeout(Duration::ZERO)), Some("close_timeout"));
        assert_eq!(offending(&Config::default().writer_stack(1)), Some("writer_stack"));
        assert_eq!(offending(&Config::default().reader_stack(1)), Some("reader_stack"));
        assert_eq!(offending(&Config::default().subprotocols(["a b"])), Some("subprotocols"));
        for bad in [1, 4095, (1 << 30) + 1] {
            assert_eq!(offending(&Config::default().send_buffer(bad)), Some("send_buffer"));
        }
        assert_eq!(offending(&Config::default().send_buffer(4096).unsent_low_water(1 << 30)), None);
        assert_eq!(offending(&Config::default().unsent_low_water(1023)), Some("unsent_low_water"));
    }

    #[test]
    fn every_setting_has_an_upper_and_a_lower_bound() {
        type Change = fn(Config, Duration) -> Config;
        type Set = fn(Config, usize) -> Config;
        let nano = Duration::from_nanos(1);
        let most = Duration::MAX.saturating_sub(nano);
        let times: [(&str, Change); 7] = [
            ("write_timeout", Config::write_timeout),
            ("close_timeout", Config::close_timeout),
            ("pong_timeout", Config::pong_timeout),
            ("heartbeat", Config::heartbeat),
            ("lame_duck", Config::lame_duck),
            ("drain_timeout", Config::drain_timeout),
            ("drain_spread", Config::drain_spread),
        ];
        for (name, set) in times {
            assert_eq!(offending(&set(Config::default(), nano)), Some(name));
            assert_eq!(offending(&set(Config::default(), most)), Some(name));
            assert_eq!(offending(&set(Config::default(), Duration::MAX)), None, "{name}: for ever");
        }
        let sizes: [(&str, Set); 8] = [
            ("read_buffer", Config::read_buffer),
            ("max_message_size", Config::max_message_size),
            ("queue_messages", Config::queue_messages),
            ("queue_bytes", Config::queue_bytes),
            ("send_buffer", Config::send_buffer),
            ("unsent_low_water", Config::unsent_low_water),
            ("reader_stack", Config::reader_stack),
            ("writer_stack", Config::writer_stack),
        ];
        for (name, set) in sizes {
            // Messages may be as large as memory allows.
            let too_large = if name == "max_message_size" { usize::MAX / 2 + 1 } else { usize::MAX / 4 };
            for value in [usize::MAX, too_large] {
                let error = set(Config::default(), value).validate().unwrap_err();
                assert_eq!((error.field(), error.value()), (name, &*value.to_string()));
            }
        }
        let error = Config::default().queue_messages(usize::MAX / 4).validate().unwrap_err();
        assert_eq!(error.to_string(), format!("queue_messages {} must be 1 to 1048576", usize::MAX / 4));
        let long = "x".repeat(129);
        assert_eq!(offending(&Config::default().subprotocols([long])), Some("subprotocols"));
        assert_eq!(offending(&Config::default().subprotocols(vec!["x"; 65])), Some("subprotocols"));
    }

    #[test]
    fn pings_must_come_before_the_pong_deadline() {
        let config = Config::default().ping_period(Duration::from_secs(60));
        assert_eq!(offending(&config), Some("ping_period"));
        assert_eq!(offending(&config.pong_timeout(Duration::ZERO)), None);
    }
}
