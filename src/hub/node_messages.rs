//! Messages between protocols or applications on different nodes, by subject.

use std::collections::BTreeMap;
use std::fmt;

use super::Hub;
use super::control::Control;

type OnTold = dyn Fn(&Hub, &str) + Send + Sync;

/// The handlers of messages between nodes, by subject.
#[derive(Default)]
pub(super) struct NodeHandlers(pub(super) BTreeMap<String, Box<OnTold>>);

impl fmt::Debug for NodeHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Hub {
    /// Queues a text for the handlers of this subject on all other nodes; see
    /// [`on_node_message`](crate::HubBuilder::on_node_message). Returns whether it was queued: false without a cluster,
    /// and if it is too large for the bus or the queue is full. Delivery is at most once and not confirmed.
    pub fn tell_nodes(&self, subject: &str, data: &str) -> bool {
        self.publish_control(&Control::Told { subject: subject.to_owned(), data: data.to_owned() })
    }

    /// Passes another node's message to the handler of its subject.
    pub(super) fn hear_told(&self, subject: &str, data: &str) {
        if let Some(handler) = self.inner().node.handlers.0.get(subject) {
            self.guarded(None, "on_node_message", || handler(self, data));
        }
    }
}
