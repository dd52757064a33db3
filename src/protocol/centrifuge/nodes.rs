//! The users and the uptime of other nodes, which heartbeats do not tell: a node asks for them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Hub;
use crate::lock::{Condition, Leaf};

/// The subject of questions and answers between nodes.
pub(super) const NODES: &str = "centrifuge.node";
/// How long to wait for the answers.
const PATIENCE: Duration = Duration::from_millis(500);

/// A question to all other nodes, or the answer of one of them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Letter {
    Question { from: String, number: u64 },
    Answer { to: String, number: u64, node: String, about: About },
}

/// What a node tells of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The number of users with connections.
    pub(super) users: usize,
    /// In seconds.
    pub(super) uptime: u64,
}

impl About {
    /// What this node tells.
    pub(super) fn own(hub: &Hub) -> Self {
        Self { users: hub.user_count(), uptime: hub.uptime().as_secs() }
    }
}

/// The questions of this node that wait for answers. The lock is a leaf: no other code runs under it.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    state: Leaf<State>,
    /// Signals that an answer has come.
    answered: Condition,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// The answers so far, by the question's number and the node.
    questions: HashMap<u64, HashMap<String, About>>,
}

impl Nodes {
    /// Asks the other nodes and returns the answers, by node. Blocks until all known nodes have answered, for 500 ms at
    /// most. What the bus loses is missing, as are nodes without this protocol.
    pub(super) fn ask(hub: &Hub) -> HashMap<String, About> {
        let others = hub.cluster_nodes().len().saturating_sub(1);
        let Some(nodes) = hub.extension::<Self>().filter(|_| others > 0) else { return HashMap::new() };
        let number = {
            let mut state = nodes.state.lock();
            state.last += 1;
            let number = state.last;
            state.questions.insert(number, HashMap::new());
            number
        };
        let is_asked = tell(hub, &Letter::Question { from: hub.node_id().to_owned(), number });
        let until = Instant::now() + PATIENCE;
        let mut state = nodes.state.lock();
        while is_asked && state.questions.get(&number).is_some_and(|answers| answers.len() < others) {
            if nodes.answered.wait_until(&mut state, until) {
                break;
            }
        }
        state.questions.remove(&number).unwrap_or_default()
    }

    fn hear(&self, number: u64, node: String, about: About) {
        if let Some(answers) = self.state.lock().questions.get_mut(&number) {
            answers.insert(node, about);
        }
        self.answered.notify_all();
    }
}

/// Another node has asked or answered.
pub(super) fn hear(hub: &Hub, data: &str) {
    match serde_json::from_str(data) {
        Ok(Letter::Question { from, number }) => {
            let (node, about) = (hub.node_id().to_owned(), About::own(hub));
            tell(hub, &Letter::Answer { to: from, number, node, about });
        }
        Ok(Letter::Answer { to, number, node, about }) if to == hub.node_id() => {
            if let Some(nodes) = hub.extension::<Nodes>() {
                nodes.hear(number, node, about);
            }
        }
        _ => {}
    }
}

fn tell(hub: &Hub, letter: &Letter) -> bool {
    serde_json::to_string(letter).is_ok_and(|json| hub.tell_nodes(NODES, &json))
}
