//! Output to one client: the replies of a frame in few messages, and pushes.

use std::time::Duration;

use super::codec::{Codec, MAX_COMMANDS};
use super::error::Disconnect;
use super::wire::reply::{Push, Reply};
use crate::{Client, SendError};

/// Approximate size at which a message of replies is sent, in bytes: it must fit into the client's queue.
const MAX_BYTES: usize = 64 * 1024;
/// How long a reply may wait for the client's queue. Only the client's own thread waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Replies that wait to be sent together.
pub(super) struct Outgoing<'a> {
    client: &'a Client,
    codec: Codec,
    replies: Vec<Reply>,
    bytes: usize,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(client: &'a Client, codec: Codec) -> Self {
        Self { client, codec, replies: Vec::new(), bytes: 0 }
    }

    /// Adds a reply; sends the waiting replies when they fill a message.
    pub(super) fn add(&mut self, reply: Reply) {
        self.bytes += Codec::size(&reply);
        self.replies.push(reply);
        if self.bytes >= MAX_BYTES || self.replies.len() >= MAX_COMMANDS {
            self.flush();
        }
    }

    /// Sends the waiting replies. A client that does not read its replies is closed, because without one it would not
    /// know its state.
    pub(super) fn flush(&mut self) {
        if self.replies.is_empty() {
            return;
        }
        let frame = self.codec.encode(&std::mem::take(&mut self.replies));
        self.bytes = 0;
        if let Err(error) = self.client.send_timeout(frame, PATIENCE) {
            close_slow(self.client, &error);
        }
    }
}

/// Sends a push to one client, and closes the client if it is too slow.
pub(super) fn push(client: &Client, codec: Codec, push: Push) {
    let frame = codec.encode(&[Reply { push: Some(push), ..Reply::default() }]);
    if let Err(error) = client.send(frame) {
        close_slow(client, &error);
    }
}

fn close_slow(client: &Client, error: &SendError) {
    if !matches!(error, SendError::Closed(_)) {
        Disconnect::SLOW.close(client);
    }
}
