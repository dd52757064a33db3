//! Shared histories in Redis (or Valkey): one stream and one hash per room.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Cmd, ConnectionInfo, Msg, RedisError, Value, cmd};

use super::connection::{Received, Redis};
use super::connection_info;
use crate::error::ConfigError;
use crate::history::{Bounds, Epoch, HistoryStore, Position, StoreError, StoreEvent, Stored};
use crate::lock::Leaf;

/// Default prefix of the keys and of the channel.
const PREFIX: &str = "wshub:history:";
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often a follower calls its callback, which decides whether it ends.
const TICK: Duration = Duration::from_millis(100);
/// Silence after which the follower sends a PING.
const IDLE: Duration = Duration::from_secs(5);
/// Maximum number of idle connections kept for commands.
const KEPT: usize = 4;
/// A kept connection that rested for longer is tried before it is used: Redis or a firewall may have closed it in the
/// meantime.
const RESTED: Duration = Duration::from_secs(1);
/// How long that may take.
const TRIAL: Duration = Duration::from_millis(500);

/// Keys: stream, hash. Arguments: epoch to use if there is none, maximum number of entries, age and linger in ms,
/// channel, room, entry.
const APPEND: &str = "\
local epoch = redis.call('HGET', KEYS[2], 'epoch') \
if not epoch then epoch = ARGV[1] redis.call('DEL', KEYS[1]) redis.call('HSET', KEYS[2], 'epoch', epoch) end \
local offset = redis.call('HINCRBY', KEYS[2], 'offset', 1) \
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], string.format('%.0f', offset) .. '-0', 'e', ARGV[7]) \
redis.call('PEXPIRE', KEYS[1], ARGV[3]) \
redis.call('PEXPIRE', KEYS[2], ARGV[4]) \
local head = epoch .. ' ' .. string.format('%.0f', offset) .. ' ' .. #ARGV[6] .. ' ' \
redis.call('PUBLISH', ARGV[5], head .. ARGV[6] .. ARGV[7]) \
return {epoch, offset}";

/// Keys: stream, hash. Arguments: first id to read, epoch to use if there is none, linger in ms.
const READ: &str = "\
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset') \
if not meta[1] then \
redis.call('DEL', KEYS[1]) redis.call('HSET', KEYS[2], 'epoch', ARGV[2], 'offset', 0) \
meta = {ARGV[2], '0'} redis.call('PEXPIRE', KEYS[2], ARGV[3]) end \
return {meta[1], tonumber(meta[2] or '0'), redis.call('XRANGE', KEYS[1], ARGV[1], '+')}";

/// Keys: stream, hash. Arguments: old epoch, new epoch, linger in ms.
const RENEW: &str = "\
local epoch = redis.call('HGET', KEYS[2], 'epoch') \
if epoch ~= ARGV[1] then return epoch or ARGV[1] end \
redis.call('DEL', KEYS[1]) \
redis.call('HSET', KEYS[2], 'epoch', ARGV[2], 'offset', 0) \
return ARGV[2]";

/// Shares the histories of rooms with [`RoomOptions::shared`](crate::RoomOptions::shared) over Redis 5 or newer.
/// Feature `redis`.
///
/// Each room is a stream and a hash, `wshub:history:{ROOM}:s` and `wshub:history:{ROOM}:m`; one script appends to both
/// and publishes to the channel `wshub:history:told`. The stream expires after the history's age, the hash after its
/// linger. A command blocks for about two seconds at most, or twice that if it has to connect first.
pub struct RedisStore {
    info: ConnectionInfo,
    prefix: String,
    /// Connections that are not in use, and since when. The lock is not held while one is used, opened or closed.
    idle: Leaf<Vec<(Instant, Redis)>>,
}

impl RedisStore {
    /// Creates a store for the server at this URL, as [`RedisAdapter::new`](super::RedisAdapter::new) does. Does not
    /// connect yet.
    ///
    /// # Errors
    ///
    /// The same as for [`RedisAdapter::new`](super::RedisAdapter::new).
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self { info: connection_info(url)?, prefix: PREFIX.to_owned(), idle: Leaf::default() })
    }

    /// Sets the prefix of the keys and of the channel; default `wshub:history:`. Nodes that share histories use the
    /// same prefix.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    fn channel(&self) -> String {
        format!("{}told", self.prefix)
    }

    /// Builds a script call with the two keys of a room, which share a node of a Redis cluster.
    fn script(&self, script: &str, room: &str) -> Cmd {
        let mut command = cmd("EVAL");
        command
            .arg(script)
            .arg(2)
            .arg(format!("{}{{{room}}}:s", self.prefix))
            .arg(format!("{}{{{room}}}:m", self.prefix));
        command
    }

    /// A kept connection that works, or a new one.
    fn connection(&self) -> Result<Redis, StoreError> {
        let idle = self.idle.lock().pop();
        if let Some((since, mut redis)) = idle {
            if since.elapsed() <= RESTED || redis.is_alive(TRIAL) {
                return Ok(redis);
            }
            self.forget_idle();
        }
        Redis::open(&self.info, TIMEOUT, TIMEOUT).map_err(StoreError::new)
    }

    /// Closes the kept connections: one has failed, so the others probably have, too.
    fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }

    fn ask(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut redis = self.connection()?;
        // A connection that has failed is not used again: an answer may still be on its way.
        let value = redis.ask(command).map_err(|error| {
            self.forget_idle();
            StoreError::new(error)
        })?;
        let superfluous = {
            let mut idle = self.idle.lock();
            if idle.len() < KEPT {
                idle.push((Instant::now(), redis));
                None
            } else {
                Some(redis)
            }
        };
        drop(superfluous);
        match value {
            Value::ServerError(error) => Err(StoreError::new(RedisError::from(error))),
            value => Ok(value),
        }
    }
}

impl fmt::Debug for RedisStore {
    /// Omits the address, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn unexpected(value: &Value) -> StoreError {
    StoreError::new(format!("unexpected answer: {value:?}"))
}

fn epoch(value: &Value) -> Result<Epoch, StoreError> {
    let text = match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text.as_str()),
        _ => None,
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| unexpected(value))
}

fn position(of_epoch: &Value, offset: &Value) -> Result<Position, StoreError> {
    let Value::Int(number) = offset else { return Err(unexpected(offset)) };
    Ok(Position::new(epoch(of_epoch)?, u64::try_from(*number).map_err(|_| unexpected(offset))?))
}

/// `[ID, [FIELD, ENTRY]]`.
fn entry(value: &Value) -> Option<(u64, Bytes)> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = &parts[..] else { return None };
    let [_, Value::BulkString(entry)] = &fields[..] else { return None };
    let offset = std::str::from_utf8(id).ok()?.split('-').next()?.parse().ok()?;
    Some((offset, Bytes::copy_from_slice(entry)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}

/// `EPOCH OFFSET LENGTH ROOM ENTRY`, without a space before the entry.
fn told(payload: &[u8]) -> Option<(&str, Position, &[u8])> {
    let mut parts = payload.splitn(4, |byte| *byte == b' ');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (epoch, offset, length) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?.parse().ok()?);
    let (room, entry) = parts.next()?.split_at_checked(length)?;
    Some((std::str::from_utf8(room).ok()?, Position::new(epoch, offset), entry))
}

impl HistoryStore for RedisStore {
    fn append(&self, room: &str, entry: &[u8], bounds: Bounds) -> Result<Position, StoreError> {
        let mut script = self.script(APPEND, room);
        script.arg(Epoch::random().as_str()).arg(bounds.messages).arg(millis(bounds.age)).arg(millis(bounds.linger));
        match &self.ask(script.arg(self.channel()).arg(room).arg(entry))? {
            Value::Array(parts) if parts.len() == 2 => position(&parts[0], &parts[1]),
            other => Err(unexpected(other)),
        }
    }

    fn read(&self, room: &str, after: u64, bounds: Bounds) -> Result<Stored, StoreError> {
        let mut script = self.script(READ, room);
        script.arg(format!("{}-0", after.saturating_add(1))).arg(Epoch::random().as_str());
        match &self.ask(script.arg(millis(bounds.linger)))? {
            Value::Array(parts) => {
                let [of_epoch, offset, Value::Array(entries)] = &parts[..] else {
                    return Err(StoreError::new("unexpected answer"));
                };
                let entries = entries.iter().map(|value| entry(value).ok_or_else(|| unexpected(value)));
                Ok(Stored { position: position(of_epoch, offset)?, entries: entries.collect::<Result<_, _>>()? })
            }
            other => Err(unexpected(other)),
        }
    }

    fn renew(&self, room: &str, old: Epoch) -> Result<Epoch, StoreError> {
        let mut script = self.script(RENEW, room);
        epoch(&self.ask(script.arg(old.as_str()).arg(Epoch::random().as_str()))?)
    }

    fn clear(&self, room: &str) -> Result<(), StoreError> {
        let stream = format!("{}{{{room}}}:s", self.prefix);
        self.ask(cmd("DEL").arg(stream)).map(|_| ())
    }

    fn follow(&self, on: &mut dyn FnMut(StoreEvent<'_>) -> bool) -> Result<(), StoreError> {
        let mut redis = Redis::open(&self.info, TIMEOUT, TIMEOUT).map_err(StoreError::new)?;
        redis.subscribe(&self.channel(), TICK).map_err(StoreError::new)?;
        let mut heard = Instant::now();
        let mut goes_on = on(StoreEvent::Following);
        while goes_on {
            goes_on = match redis.receive().map_err(StoreError::new)? {
                Received::Message(message) => {
                    heard = Instant::now();
                    tell(on, &message)
                }
                Received::Nothing => on(StoreEvent::Nothing),
            };
            if heard.elapsed() > IDLE {
                let messages = RefCell::new(Vec::new());
                let keep = |message: &Msg| messages.borrow_mut().push(message.clone());
                redis.ping_subscribed(TICK, keep).map_err(StoreError::new)?;
                heard = Instant::now();
                goes_on = goes_on && messages.into_inner().iter().all(|message| tell(on, message));
            }
        }
        Ok(())
    }
}

/// Ignores payloads of any other form on the channel.
fn tell(on: &mut dyn FnMut(StoreEvent<'_>) -> bool, message: &Msg) -> bool {
    let told = told(message.get_payload_bytes());
    told.is_none_or(|(room, position, entry)| on(StoreEvent::Appended { room, position, entry }))
}
