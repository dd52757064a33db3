//! One connection to Redis: commands out, answers in, everything bounded in time.
//!
//! The client library's own calls for pipelines and subscriptions are passed by where they wait for each answer anew after
//! the first has timed out, or take an error for a subscription.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Client, Cmd, ConnectionInfo, Msg, RedisError, ServerError, ServerErrorKind, Value, cmd};

use super::super::adapter::AdapterError;

/// Bytes in one write, unless a single message is larger: as many as Redis reads at once. Of a server that hung and comes
/// back, the next connection cannot overtake what this one has left there, and no more than this is ever in doubt.
const CHUNK: usize = 16 * 1024;

pub(super) struct Redis {
    connection: redis::Connection,
    response_timeout: Duration,
}

/// What a subscription has brought.
pub(super) enum Received {
    Message(Msg),
    /// Nothing within the time asked for.
    Nothing,
}

impl Redis {
    /// Connects and logs in.
    pub(super) fn open(info: &ConnectionInfo, connect: Duration, response: Duration) -> Result<Self, AdapterError> {
        let client = Client::open(info.clone()).map_err(unavailable)?;
        let connection = client.get_connection_with_timeout(connect).map_err(unavailable)?;
        connection.set_write_timeout(Some(response)).map_err(unavailable)?;
        let redis = Self { connection, response_timeout: response };
        redis.wait_for(response)?;
        Ok(redis)
    }

    /// How long the next answers may take.
    fn wait_for(&self, timeout: Duration) -> Result<(), AdapterError> {
        self.connection.set_read_timeout(Some(timeout)).map_err(unavailable)
    }

    /// Whether Redis answers. It need not allow the PING.
    pub(super) fn ping(&mut self) -> Result<(), AdapterError> {
        self.send(&cmd("PING"))?;
        match self.connection.recv_response().map_err(unavailable)? {
            Value::ServerError(error) if error.kind() != Some(ServerErrorKind::NoPerm) => {
                Err(unavailable(error.into()))
            }
            _ => Ok(()),
        }
    }

    fn send(&mut self, command: &Cmd) -> Result<(), AdapterError> {
        self.connection.send_packed_command(&command.get_packed_command()).map_err(unavailable)
    }

    /// Publishes the first of these envelopes in one write and reads the answers: how many is up to [`CHUNK`]. One result
    /// for each: if the connection breaks, those without an answer share its error, because any of them may have gone out.
    pub(super) fn publish(&mut self, channel: &str, envelopes: &[Bytes]) -> Vec<Result<(), AdapterError>> {
        let (mut commands, mut count) = (Vec::new(), 0);
        for envelope in envelopes {
            if count > 0 && commands.len() + channel.len() + envelope.len() > CHUNK {
                break;
            }
            cmd("PUBLISH").arg(channel).arg(&envelope[..]).write_packed_command(&mut commands);
            count += 1;
        }
        let mut results = Vec::with_capacity(count);
        if let Err(error) = self.exchange(&commands, count, &mut results) {
            let text = error.to_string();
            results.push(Err(error));
            results.resize_with(count, || Err(AdapterError::unavailable(text.as_str())));
        }
        results
    }

    fn exchange(
        &mut self,
        commands: &[u8],
        count: usize,
        results: &mut Vec<Result<(), AdapterError>>,
    ) -> Result<(), AdapterError> {
        let start = Instant::now();
        self.connection.send_packed_command(commands).map_err(unavailable)?;
        while results.len() < count {
            // Each answer has its timeout; a server that drips them has one for all.
            if start.elapsed() > self.response_timeout * 2 {
                return Err(AdapterError::unavailable("the answers take too long"));
            }
            results.push(match self.connection.recv_response().map_err(unavailable)? {
                Value::Int(_) => Ok(()),
                Value::ServerError(error) => Err(refused(error)),
                _ => return Err(AdapterError::unavailable("no answer of Redis to PUBLISH")),
            });
        }
        Ok(())
    }

    /// One command and its answer, which may be an error of Redis.
    pub(super) fn ask(&mut self, command: &Cmd) -> Result<Value, AdapterError> {
        self.send(command)?;
        self.connection.recv_response().map_err(unavailable)
    }

    /// Subscribes; from then on [`receive`](Self::receive) waits for `tick` at a time.
    pub(super) fn subscribe(&mut self, channel: &str, tick: Duration) -> Result<(), AdapterError> {
        self.send(cmd("SUBSCRIBE").arg(channel))?;
        match self.connection.recv_response().map_err(unavailable)? {
            Value::ServerError(error) => return Err(unavailable(error.into())),
            Value::Array(answer) if answer.first() == Some(&Value::BulkString(b"subscribe".to_vec())) => {}
            _ => return Err(AdapterError::unavailable("no answer of Redis to SUBSCRIBE")),
        }
        self.wait_for(tick)
    }

    pub(super) fn receive(&mut self) -> Result<Received, AdapterError> {
        // Dropping it would end the subscription and wait for the answer. It owns nothing while it caches no messages, and
        // it caches them for commands only.
        let mut subscription = ManuallyDrop::new(self.connection.as_pubsub());
        match subscription.get_message() {
            Ok(message) => Ok(Received::Message(message)),
            Err(error) if error.is_timeout() => Ok(Received::Nothing),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Asks for a sign of life on the subscription. Messages may come before it.
    pub(super) fn ping_subscribed(&mut self, tick: Duration, message: impl Fn(&Msg)) -> Result<(), AdapterError> {
        self.wait_for(self.response_timeout)?;
        self.send(&cmd("PING"))?;
        loop {
            let value = self.connection.recv_response().map_err(unavailable)?;
            match Msg::from_value(&value) {
                Some(received) => message(&received),
                // An answer, though it were an error: somebody is there.
                None => return self.wait_for(tick),
            }
        }
    }
}

fn unavailable(error: RedisError) -> AdapterError {
    AdapterError::unavailable(error)
}

/// Redis does not publish this one; or it publishes nothing at all at the moment.
fn refused(error: ServerError) -> AdapterError {
    let is_outage = matches!(error.code(), "NOAUTH" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "UNBLOCKED");
    let error = RedisError::from(error);
    if is_outage { AdapterError::unavailable(error) } else { AdapterError::rejected(error) }
}
