//! One connection to Redis. It sends commands and reads responses; everything is bounded in time.
//!
//! It avoids the client library's calls for pipelines and subscriptions where they wait again for each response after
//! the first has timed out, or mistake an error for a subscription.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Client, Cmd, ConnectionInfo, Msg, RedisError, ServerError, ServerErrorKind, Value, cmd};

use super::super::adapter::AdapterError;

/// Maximum bytes in one write, unless a single message is larger: the amount that Redis reads at once. When a server
/// hangs and recovers, the next connection cannot overtake data that this one left there, and no more than this is in
/// doubt.
const CHUNK: usize = 16 * 1024;

pub(super) struct Redis {
    connection: redis::Connection,
    response_timeout: Duration,
}

/// The result of waiting on a subscription.
pub(super) enum Received {
    Message(Msg),
    /// No message arrived in time.
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

    /// Sets the timeout of the next responses.
    fn wait_for(&self, timeout: Duration) -> Result<(), AdapterError> {
        self.connection.set_read_timeout(Some(timeout)).map_err(unavailable)
    }

    /// Checks that Redis responds. A refused PING (no permission) counts as a response.
    pub(super) fn ping(&mut self) -> Result<(), AdapterError> {
        self.send(&cmd("PING"))?;
        match self.connection.recv_response().map_err(unavailable)? {
            Value::ServerError(error) if error.kind() != Some(ServerErrorKind::NoPerm) => {
                Err(unavailable(error.into()))
            }
            _ => Ok(()),
        }
    }

    /// Whether Redis answers a PING within this time.
    pub(super) fn is_alive(&mut self, within: Duration) -> bool {
        self.wait_for(within).and_then(|()| self.ping()).and_then(|()| self.wait_for(self.response_timeout)).is_ok()
    }

    fn send(&mut self, command: &Cmd) -> Result<(), AdapterError> {
        self.connection.send_packed_command(&command.get_packed_command()).map_err(unavailable)
    }

    /// Publishes the first envelopes, up to [`CHUNK`] bytes, in one write and reads the responses. Returns one result
    /// for each envelope tried. If the connection breaks, all envelopes without a response share its error, because any
    /// of them may have gone out.
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
            // Each response has its own timeout; this limit stops a server that drips them.
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

    /// Sends one command and returns the response, which may be a Redis error.
    pub(super) fn ask(&mut self, command: &Cmd) -> Result<Value, AdapterError> {
        self.send(command)?;
        self.connection.recv_response().map_err(unavailable)
    }

    /// Subscribes. After that, each [`receive`](Self::receive) waits for at most `tick`.
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
        // Dropping it would end the subscription and wait for the response. It owns nothing as long as it caches no
        // messages, and it caches them for commands only.
        let mut subscription = ManuallyDrop::new(self.connection.as_pubsub());
        match subscription.get_message() {
            Ok(message) => Ok(Received::Message(message)),
            Err(error) if error.is_timeout() => Ok(Received::Nothing),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Sends a PING on the subscription and waits for the response. Messages may arrive before it.
    pub(super) fn ping_subscribed(&mut self, tick: Duration, message: impl Fn(&Msg)) -> Result<(), AdapterError> {
        self.wait_for(self.response_timeout)?;
        self.send(&cmd("PING"))?;
        loop {
            let value = self.connection.recv_response().map_err(unavailable)?;
            match Msg::from_value(&value) {
                Some(received) => message(&received),
                // Any response, even an error, shows that the server is alive.
                None => return self.wait_for(tick),
            }
        }
    }
}

fn unavailable(error: RedisError) -> AdapterError {
    AdapterError::unavailable(error)
}

/// Classifies an error as the refusal of one message or as an outage.
fn refused(error: ServerError) -> AdapterError {
    let is_outage = matches!(error.code(), "NOAUTH" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "UNBLOCKED");
    let error = RedisError::from(error);
    if is_outage { AdapterError::unavailable(error) } else { AdapterError::rejected(error) }
}
