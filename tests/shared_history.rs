//! Shared histories in the memory of one process.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;
mod history_suite;

use wshub::history::MemoryStore;
use wshub::{Hub, RoomOptions};

#[test]
fn appends_are_one_order() {
    history_suite::appends_are_one_order(&MemoryStore::new());
}

#[test]
fn followers_are_told_everything_in_order() {
    history_suite::followers_are_told_everything_in_order(&MemoryStore::new());
}

#[test]
fn nodes_share_one_order() {
    history_suite::nodes_share_one_order(&MemoryStore::new());
}

#[test]
fn an_outage_is_bridged() {
    let store = MemoryStore::new();
    history_suite::an_outage_is_bridged(&store, |is_down| store.set_down(is_down));
}

#[test]
fn a_shared_room_needs_a_store_and_a_history() {
    let fault = |options: RoomOptions| Hub::builder().rooms("a", options).build().err().map(|error| error.field());
    assert_eq!(fault(RoomOptions::history().shared()), Some("rooms"));
    assert_eq!(fault(RoomOptions::state().shared()), Some("shared"));
}
