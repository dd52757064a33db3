//! What goes to one client: replies of a frame in few messages, and pushes.

use std::sync::Arc;
use std::time::Duration;

use super::codec::{Codec, MAX_COMMANDS};
use super::error::Disconnect;
use super::recover::Place;
use super::wire::reply::{Push, Reply};
use crate::{Client, SendError};

/// A message of replies is sent when it has this many bytes, about: it must fit into the client's queue.
const MAX_BYTES: usize = 64 * 1024;
/// How long a reply may wait for the client's queue. Only the client's own thread waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// A subscription whose reply waits: the room is joined once the reply is sent, so that no push comes before it.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) channel: Arc<str>,
    /// The position that the reply has told; `None` without a history.
    pub(super) from: Option<Place>,
}

/// Replies that wait to be sent together.
pub(super) struct Outgoing<'a> {
    client: &'a Client,
    codec: Codec,
    replies: Vec<Reply>,
    bytes: usize,
    /// Channels whose reply waits: they are joined once it is sent.
    starts: Vec<Start>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(client: &'a Client, codec: Codec) -> Self {
        Self { client, codec, replies: Vec::new(), bytes: 0, starts: Vec::new() }
    }

    /// Adds a reply, and what begins after it. What begins is given to the caller by [`flush`](Self::flush).
    pub(super) fn add(&mut self, reply: Reply, starts: impl IntoIterator<Item = Start>) {
        self.bytes += Codec::size(&reply);
        self.replies.push(reply);
        self.starts.extend(starts);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES || self.replies.len() >= MAX_COMMANDS
    }

    /// Sends what waits; what begins now that it is sent. A client that does not read its replies is closed: without
    /// one it would not know where it stands.
    pub(super) fn flush(&mut self) -> Vec<Start> {
        if self.replies.is_empty() {
            return Vec::new();
        }
        let frame = self.codec.encode(&std::mem::take(&mut self.replies));
        self.bytes = 0;
        let starts = std::mem::take(&mut self.starts);
        match self.client.send_timeout(frame, PATIENCE) {
            Ok(()) => starts,
            Err(error) => {
                close_slow(self.client, &error);
                Vec::new()
            }
        }
    }
}

/// Sends a push to one client; one that is too slow for it is closed.
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
