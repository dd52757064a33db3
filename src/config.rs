//! Connection settings and hub limits. The builder validates them once, when it builds the hub.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::bounds::{ALL_MEMORY, COUNT, GIB, MILLISECOND, PER_SECOND, YEAR, check, check_or_zero};
use crate::error::ConfigError;

/// Defines consuming setters with the names of their fields.
macro_rules! setters {
    ($($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)?) => {
        $($(#[$attribute])*
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        })*
    };
}

/// A close code that may be sent (RFC 6455 §7.4), with the same check as [`Client::close`](crate::Client::close).
const fn may_be_sent(close_code: u16) -> bool {
    matches!(close_code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Maximum length of a room name, in bytes.
pub const MAX_ROOM_NAME: usize = 256;

/// Maximum length of a user id, in bytes.
pub const MAX_USER_ID: usize = 4096;

/// What to do with a message for a client whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[doc(alias("backpressure", "slow consumer"))]
pub enum DropPolicy {
    /// Drops the new message and keeps the queued ones. The default.
    #[default]
    DropNewest,
    /// Drops the oldest queued messages until the new one fits.
    DropOldest,
    /// Closes the client with 1013 and the reason `slow consumer`.
    Disconnect,
}

/// What to do with inbound messages over [`Limits::max_message_rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RatePolicy {
    /// Drops the message. The default.
    #[default]
    Drop,
    /// Closes the client with 1008 and the reason `rate limit exceeded`.
    Close,
}

/// Settings for a hub's connections.
///
/// Durations are measured with a monotonic clock. Each is at least 1 ms, unless 0 has a special meaning, and at most
/// 366 days, or [`Duration::MAX`] for no limit. Every setter consumes and returns the value:
///
/// ```
/// use std::time::Duration;
/// let config = wshub::Config::default().max_message_size(64 * 1024).write_timeout(Duration::from_secs(2));
/// assert_eq!(config.max_message_size, 64 * 1024);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Size of the read buffer in bytes; default 4096, at least 256 and at most 16 MiB. A connection reads up to
    /// 256 bytes onto its thread's stack. It allocates a buffer of this size only while more data arrives at a time, so
    /// an idle connection has none. Large messages are read directly into place, in steps that grow with the
    /// received data.
    pub read_buffer: usize,
    /// Maximum size of an inbound message in bytes, after reassembly; default 512 KiB. A larger message closes the
    /// connection with 1009 before it is stored. At most `isize::MAX`; 0 = only empty messages.
    pub max_message_size: usize,
    /// How long a write may stall before the connection counts as dead; default 10 s. At least 1 ms.
    pub write_timeout: Duration,
    /// How long a peer may send nothing before it is pinged; default 25 s, so that proxies that cut connections after
    /// 50 or 60 idle seconds see traffic in both directions. Must be below `pong_timeout`.
    #[doc(alias("keep-alive", "keepalive", "heartbeat"))]
    pub ping_period: Duration,
    /// How long a peer may send nothing before the connection counts as dead; default 60 s. That is 35 s more than
    /// `ping_period`, because a slow peer reads other output before the ping. A peer that takes more output from a full
    /// socket is alive and is pinged again. 0 = for ever, without pings. Peers of event streams never send; for them
    /// this is how long they may leave bytes unacknowledged (TCP on Linux only).
    pub pong_timeout: Duration,
    /// Interval of the comments that keep an event stream from looking dead to proxies; default 15 s. 0 = no comments.
    pub heartbeat: Duration,
    /// How long a close may take: flushing the queue, sending the close frame and waiting for the peer's; default 5 s.
    /// After the hooks have run, the server waits for the peer's end of the stream for the rest of this time. At least
    /// 1 ms.
    pub close_timeout: Duration,
    /// Maximum number of messages in one client's queue; default 256, at least 1 and at most 1,048,576.
    #[doc(alias("backpressure", "buffer"))]
    pub queue_messages: usize,
    /// Maximum number of bytes in one client's queue; default 1 MiB, at least 1 and at most 1 GiB. Each message counts
    /// as the memory that it occupies: its frame, for compressed messages and on event streams also the message itself,
    /// and about 150 bytes of overhead. A single message above this size fits only into an empty queue.
    pub queue_bytes: usize,
    /// Size of the kernel's send buffer for one client in bytes (`SO_SNDBUF`; Linux doubles it for its own needs). The
    /// buffer holds sent but unacknowledged data. That data has left the queue: [`DropPolicy::DropOldest`] cannot
    /// remove it, and a client gets it first after a stall. Choose a small size, such as 16 KiB, if freshness matters;
    /// it also bounds how much a client gets per round trip. Default 0 = the system's choice, up to some MiB; otherwise
    /// 4 KiB to 1 GiB.
    pub send_buffer: usize,
    /// Maximum number of unsent bytes in the kernel (`TCP_NOTSENT_LOWAT`, TCP on Linux only). Like
    /// [`send_buffer`](#structfield.send_buffer) it keeps messages in the queue, but it does not bound data in transit.
    /// Default 0 = no bound; otherwise 1 KiB to 1 GiB.
    pub unsent_low_water: usize,
    /// What to do when a client's queue is full; default [`DropPolicy::DropNewest`].
    pub drop_policy: DropPolicy,
    /// Number of consecutive drops after which a client is closed with 1013 (`slow consumer`). Any queued message
    /// resets the count. Default 0 = never.
    pub max_consecutive_drops: u32,
    /// Joins queued text messages with `\n` into one text frame when several are written at once. Receivers must split
    /// the frame. Binary messages are never joined. Default off: messages stay separate frames but share system calls.
    pub coalesce_writes: bool,
    /// Negotiates permessage-deflate with clients that offer it (RFC 7692), without context takeover in either
    /// direction; default off.
    #[cfg(feature = "deflate")]
    pub compression: bool,
    /// Compression level, 1 (fastest) to 9 (smallest); default 1.
    #[cfg(feature = "deflate")]
    pub compression_level: u32,
    /// Minimum payload size to compress, in bytes; default 512. 0 = any size. A message that compression does not
    /// shorten is sent uncompressed.
    #[cfg(feature = "deflate")]
    pub compression_min_size: usize,
    /// Starts each connection's writer thread with the connection and keeps it. Default off: the thread starts when the
    /// socket pushes back, and ends when it has had nothing to write for 3 s.
    pub eager_writers: bool,
    /// Stack size of the threads that [`PendingConnection::detach`](crate::server::PendingConnection::detach) starts,
    /// in bytes; default 512 KiB. These threads run user code. Only pages in use occupy memory.
    pub reader_stack: usize,
    /// Stack size of writer threads in bytes; default 64 KiB. These threads run no user code.
    pub writer_stack: usize,
    /// Maximum number of threads that help to write large broadcasts into the sockets; default: cores minus 1, at most
    /// 7, or 0 with two cores or fewer. At most 64; 0 = none, every broadcast is written by the thread that sends it.
    /// The threads help from 128 recipients each, and only while cores have nothing else to do. They start when they
    /// are first needed and end with the hub. Their stacks have 256 KiB, of which only pages in use occupy memory.
    pub fanout_threads: usize,
    /// Length of the first phase of a [drain](crate::Hub::drain), in which readiness fails but new connections are
    /// still admitted, so that load balancers redirect clients before any is closed. Default 10 s, which suits a check
    /// every two seconds that must fail three times. 0 = new connections are refused at once.
    pub lame_duck: Duration,
    /// While draining, how long a client must be idle before it is closed with 1001: no message has arrived or is being
    /// handled, and its socket has taken all output at once. Default 30 s. A client that is never idle is closed after
    /// twice that time. 0 = no client is closed.
    pub drain_timeout: Duration,
    /// While draining, the window over which the closes are spread, so that clients do not all reconnect at once;
    /// default 5 s. 0 = no spreading.
    pub drain_spread: Duration,
    /// Close code for peers that violate the WebSocket protocol. Set it if an application protocol has its own code
    /// that keeps its clients from reconnecting. Default 0 = 1002 or 1007. A message that is too large always closes
    /// with 1009.
    pub violation_code: u16,
    /// Close code for clients over [`Limits::max_message_rate`] with [`RatePolicy::Close`]; default 1008.
    pub rate_limit_code: u16,
    /// Maximum age of a connection, varied at random by up to a tenth. At that age it is closed with 1001, so that the
    /// client reconnects, perhaps to another node. 100 ms to a year; 0 = no limit, the default.
    pub max_age: Duration,
    /// Subprotocols that the server supports, preferred first. The server chooses the first one that the client offers.
    /// Default: none.
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
            fanout_threads: default_fanout_threads(),
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
        /// Sets [`Config::fanout_threads`](#structfield.fanout_threads).
        fanout_threads: usize,
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

    /// Checks the bounds of every setting.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.validate_times()?;
        check("read_buffer", self.read_buffer, 256..=16 << 20)?;
        // A message is one allocation, and no allocation is larger.
        check("max_message_size", self.max_message_size, 0..=isize::MAX.unsigned_abs())?;
        check("queue_messages", self.queue_messages, 1..=1 << 20)?;
        check("queue_bytes", self.queue_bytes, 1..=GIB)?;
        check_or_zero("send_buffer", self.send_buffer, 4096..=GIB)?;
        check_or_zero("unsent_low_water", self.unsent_low_water, 1024..=GIB)?;
        check("reader_stack", self.reader_stack, MIN_STACK..=MAX_STACK)?;
        check("writer_stack", self.writer_stack, MIN_STACK..=MAX_STACK)?;
        check("fanout_threads", self.fanout_threads, 0..=64)?;
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

/// With two cores, sender and receivers usually need both.
fn default_fanout_threads() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));
    if *CORES > 2 { (*CORES - 1).min(7) } else { 0 }
}

/// The deadline of a wait that begins now. The clock cannot represent a wait of `Duration::MAX`, which means "for
/// ever".
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    later(Instant::now(), timeout)
}

/// The end of a time that begins at `from`; a century later if it is `Duration::MAX`.
pub(crate) fn later(from: Instant, time: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    from + time.min(CENTURY)
}

/// Minimum thread stack size, in bytes.
pub(crate) const MIN_STACK: usize = 32 * 1024;
/// Maximum thread stack size: no machine has more addresses. If the system cannot provide a stack, starting the thread
/// fails at run time.
pub(crate) const MAX_STACK: usize = GIB << (if usize::BITS > 32 { 20 } else { 0 });

/// A token is one or more of these characters (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token_byte)
}

/// A hub's limits. 0 = unlimited, which is the default of each except `history_bytes`. Counts are at most
/// 1,073,741,824.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum number of open connections; further ones are refused with 503. The guide to embedding derives it from a
    /// machine's memory.
    pub max_connections: usize,
    /// Maximum number of open connections of one user; further ones are refused with 429.
    pub max_connections_per_user: usize,
    /// Maximum number of open connections from one IP address; further ones are refused with 429.
    pub max_connections_per_address: usize,
    /// Maximum number of rooms for one client.
    pub max_rooms_per_client: usize,
    /// Maximum number of clients in one room.
    pub max_clients_per_room: usize,
    /// Maximum number of inbound messages per second and client, by a token bucket whose burst equals the rate. At most
    /// 1,000,000.
    pub max_message_rate: u32,
    /// What to do with messages over that rate; default [`RatePolicy::Drop`].
    pub rate_policy: RatePolicy,
    /// Maximum total size of all histories and states in bytes; default 64 MiB. Above it, rooms without members are
    /// removed, the least recently used first; then the room that is being published to drops its oldest messages. At
    /// most 1 TiB, or 1 GiB on 32-bit systems.
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

    /// Checks the bounds of every limit.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("max_connections", self.max_connections),
            ("max_connections_per_user", self.max_connections_per_user),
            ("max_connections_per_address", self.max_connections_per_address),
            ("max_rooms_per_client", self.max_rooms_per_client),
            ("max_clients_per_room", self.max_clients_per_room),
        ];
        counts.into_iter().try_for_each(|(limit, value)| check(limit, value, 0..=COUNT))?;
        check("max_message_rate", self.max_message_rate, 0..=PER_SECOND)?;
        check("history_bytes", self.history_bytes, 0..=ALL_MEMORY)
    }
}

/// Whether `count` has reached `limit`; 0 means unlimited.
pub(crate) const fn reached(limit: usize, count: usize) -> bool {
    limit != 0 && count >= limit
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
