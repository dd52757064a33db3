//! Rooms with memory: histories, positions, recovery, state.
//!
//! A room has the [`RoomOptions`] that [`HubBuilder::rooms`](crate::HubBuilder::rooms) sets for its name; by default it
//! remembers nothing. See the [guide](crate::guide::history).
//!
//! This module holds plain data structures without sockets, hub locks or clocks. `hub` keeps them under the room's
//! lock.

#[cfg(feature = "cluster")]
mod entry;
mod formats;
mod gap;
mod ledger;
#[cfg(feature = "cluster")]
mod memory_store;
mod options;
mod page;
mod patterns;
mod position;
mod publication;
mod ring;
mod state;
#[cfg(feature = "cluster")]
mod store;

pub use formats::{Plain, WithPosition};
pub use gap::Gap;
#[cfg(feature = "cluster")]
pub use memory_store::MemoryStore;
pub use options::{RoomOptions, WhenBehind};
pub use page::{Joined, Page, Range, Recovery};
pub use position::{Epoch, Position, PositionError};
#[doc(hidden)]
pub use publication::Sealed;
pub use publication::{Format, Publication, Publish};
pub use state::StateError;
#[cfg(feature = "cluster")]
pub use store::{Bounds, HistoryStore, StoreError, StoreEvent, Stored};

#[cfg(feature = "cluster")]
pub(crate) use entry::{decode as decode_entry, encode as encode_entry};
pub(crate) use formats::{PLAIN, STREAM};
pub(crate) use ledger::{RoomShare, Totals};
pub(crate) use patterns::Patterns;
pub(crate) use publication::{FormatRef, FrameKind, Subject};
pub(crate) use ring::Ring;
pub(crate) use state::RoomState;
