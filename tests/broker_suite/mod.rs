//! What must hold over a real broker, whichever it is. Each test file of a broker says what a [`Bus`] is and lists the
//! tests with [`suite!`].
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr, reason = "tests may fail by a panic, and print figures")]

pub(crate) mod fake;
pub(crate) mod far;
pub(crate) mod foreign;
pub(crate) mod nodes;
pub(crate) mod outage;
pub(crate) mod pause;
pub(crate) mod process;
pub(crate) mod targets;
pub(crate) mod unreachable;

use std::sync::Arc;
use std::time::Duration;

use wshub::{Admission, Hub, HubBuilder, cluster::Cluster, metrics::DebugMetrics};

use crate::common::broker::{Broker, Kind};
use crate::common::bus::connected;
use crate::common::{TestServer, counted, deep_queue};

/// A kind of broker, and the adapter for it.
pub(crate) trait Bus: 'static {
    const KIND: Kind;
    /// The option of the example `cluster` that names the broker.
    const OPTION: &'static str;

    /// A hub's part in a cluster over the broker of this URL. The adapter gives up connections and answers after
    /// [`GIVE_UP`], and notices a silent broker within a second.
    fn cluster(url: &str) -> Cluster;

    /// Publishes these bytes where the nodes listen, as a client of the broker that is no node.
    fn publish(broker: &Broker, payload: &[u8]);

    fn broker() -> Broker {
        let mut broker = Broker::absent(Self::KIND);
        broker.start();
        broker
    }
}

/// The timeouts of adapters in these tests.
pub(crate) const GIVE_UP: Duration = Duration::from_millis(500);
/// The interval of heartbeats.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// The settings of a node in these tests: it tries again soon.
pub(crate) fn settings<B: Bus>(broker: &Broker, id: &str) -> Cluster {
    settings_at::<B>(&broker.url(), id)
}

/// The same, for a broker of this URL.
pub(crate) fn settings_at<B: Bus>(url: &str, id: &str) -> Cluster {
    B::cluster(url).node_id(id).backoff(Duration::from_millis(20), Duration::from_millis(200))
}

/// A hub's clients are of the user `user=`, join each of `rooms=`, and get messages from deep queues.
pub(crate) fn hub() -> HubBuilder {
    let builder = Hub::builder().on_upgrade(|head| {
        let admission = head.query_param("user").map_or_else(Admission::anonymous, Admission::user);
        Ok(head.query_param("rooms").unwrap_or_default().split_terminator(',').fold(admission, Admission::room))
    });
    // At its end it does not wait for clients that do not answer its close.
    builder.map_config(|c| deep_queue(c).queue_messages(100_000).close_timeout(Duration::from_millis(50)))
}

/// A node that need not be connected yet, and what it counts.
pub(crate) fn early_node(cluster: Cluster) -> (TestServer, Arc<DebugMetrics>) {
    let (metrics, builder) = counted(hub());
    (TestServer::new(builder.cluster(cluster)), metrics)
}

/// A connected node, and what it counts.
pub(crate) fn node<B: Bus>(broker: &Broker, id: &str) -> (TestServer, Arc<DebugMetrics>) {
    let node = early_node(settings::<B>(broker, id));
    connected(&node.0.hub);
    node
}

/// The tests of the suite, for a [`Bus`].
macro_rules! suite {
    ($bus:ty: $($module:ident::$test:ident)*) => {
        $(#[test]
        fn $test() {
            if !<$bus as broker_suite::Bus>::KIND.is_missing() {
                broker_suite::$module::$test::<$bus>();
            }
        })*
    };
    ($bus:ty) => {
        suite! { $bus:
            targets::every_target_crosses_two_and_three_nodes
            far::members_calls_and_commands_cross_and_survive_an_outage
            targets::payloads_cross_as_they_are
            targets::the_order_of_each_sender_is_kept
            nodes::nodes_that_are_killed_or_stand_still
            nodes::a_broker_that_is_killed_or_stands_still
            process::nodes_of_their_own_processes_share_clients
            process::a_killed_node_leaves_the_counts_and_a_farewell_leaves_at_once
            process::transitions_are_logged_and_never_the_password
            outage::a_broker_that_comes_late_is_found
            outage::a_broker_that_is_killed_under_load_comes_back
            outage::a_broker_that_wants_a_password_lets_in_who_knows_it
            outage::each_transition_is_counted_and_in_the_health_document
            pause::a_paused_broker_holds_up_no_sender
            pause::a_pause_under_load_keeps_the_order
            unreachable::nobody_listens
            unreachable::somebody_accepts_and_never_answers
            unreachable::somebody_answers_garbage
            unreachable::a_hub_ends_in_every_state
            foreign::what_is_no_envelope_is_counted_and_goes_nowhere
            foreign::envelopes_of_others_are_delivered_once_each_and_never_go_round
        }
    };
}
pub(crate) use suite;
