//! The wake-up protocol of `src/outbox` as a small model, explored exhaustively: every interleaving, and every stale
//! value that a weakly ordered machine may let a load return.
//!
//! Memory is the history of each atomic; a thread has a view, the oldest entry of each history that it may still read.
//! A relaxed load reads any entry from there on; acquire, release and the mutexes hand views on; sequentially
//! consistent fences exchange them through one global view. Sequentially consistent loads and stores count as no more
//! than acquire and release: the argument must not need more. What the socket's mutex guards is plain data. Frames are
//! numbers and have two halves; the socket takes `room` halves from writers that do not block.
//!
//! The steps have the names of the code's functions. Each part of the argument can be left out, and then the model must
//! find what goes wrong: otherwise it would prove nothing.

mod outbox_model {
    pub(crate) mod machine;
    pub(crate) mod memory;
    pub(crate) mod verdict;
}

use outbox_model::machine::Act::{Close, Flush, IsIdle, Ping, Push, Send};
use outbox_model::machine::{Act, Without, explore};

/// The socket takes everything.
const WIDE: u8 = u8::MAX;

/// Senders, and how many half frames the socket takes before it pushes back.
type Scenario = (&'static [&'static [Act]], u8);

const SCENARIOS: &[Scenario] = &[
    // The direct way.
    (&[&[Send, Send], &[Send]], WIDE),
    // Corks.
    (&[&[Push, Push, Flush], &[Send]], WIDE),
    (&[&[Push, Flush, Send], &[Push, Flush]], WIDE),
    // The socket pushes back before, in, and after a frame.
    (&[&[Send], &[Send]], 0),
    (&[&[Send], &[Send]], 1),
    (&[&[Send], &[Send]], 2),
    (&[&[Send], &[Send]], 3),
    (&[&[Push, Push, Flush], &[Send]], 3),
    // Control frames.
    (&[&[Send, Send], &[Ping]], WIDE),
    (&[&[Send], &[Ping]], 1),
    (&[&[Ping], &[Ping, Send]], WIDE),
    // A drain looks.
    (&[&[Send, Send], &[IsIdle]], WIDE),
    (&[&[Send], &[IsIdle]], 1),
    (&[&[Ping], &[IsIdle]], WIDE),
    // Closing.
    (&[&[Send, Close], &[Send]], WIDE),
    (&[&[Send, Close], &[Close]], WIDE),
    (&[&[Push, Close], &[IsIdle]], WIDE),
    (&[&[Close], &[IsIdle]], WIDE),
    (&[&[Close], &[Send]], 0),
    (&[&[Close], &[Ping]], 1),
    (&[&[Push, Close], &[Send]], 3),
    // Larger ones.
    (&[&[Send, Send], &[IsIdle]], 1),
    (&[&[Send, Send], &[Send]], 2),
    (&[&[Push, Flush], &[Push, Flush], &[Flush]], WIDE),
];

#[test]
fn nothing_is_lost_doubled_swapped_or_torn_and_the_close_frame_is_last() {
    for (threads, room) in SCENARIOS {
        let found = explore(Without::Nothing, *room, threads);
        assert_eq!(found.faults, [""; 0], "{threads:?} with room for {room}");
        assert!(found.ends > 0, "{threads:?} never ends");
    }
}

/// Whether any scenario shows this fault when that part of the protocol is missing.
fn finds(without: Without, fault: &str) -> bool {
    SCENARIOS.iter().any(|(threads, room)| explore(without, *room, threads).faults.contains(&fault))
}

#[test]
fn without_the_pushers_fence_a_message_is_lost() {
    assert!(finds(Without::PushFence, "lost"));
}

#[test]
fn without_the_holders_fence_a_message_is_lost() {
    assert!(finds(Without::LookFence, "lost"));
}

#[test]
fn without_the_look_after_unlocking_a_message_is_lost() {
    assert!(finds(Without::Look, "lost"));
    assert!(finds(Without::WriterLook, "lost"));
    assert!(finds(Without::IdleLook, "lost"));
}

#[test]
fn without_the_look_at_the_urgent_flag_a_control_frame_is_lost() {
    assert!(finds(Without::UrgentLook, "lost"));
}

#[test]
fn without_calling_the_writer_thread_a_message_is_lost() {
    assert!(finds(Without::Call, "lost"));
}

#[test]
fn without_looking_at_the_queue_first_messages_swap() {
    assert!(finds(Without::QueueFirst, "out of order"));
}

#[test]
fn without_respect_for_a_half_written_frame_it_is_torn() {
    assert!(finds(Without::UrgentBehindHalf, "torn"));
}

#[test]
fn a_close_frame_that_is_taken_up_before_the_queue_is_emptied_swallows_a_message() {
    assert!(finds(Without::CloseBeforeQueue, "lost"));
}

#[test]
fn without_the_rule_that_a_close_frame_ends_a_batch_something_follows_it() {
    assert!(finds(Without::CloseIsLast, "after the close frame"));
}
