//! What this project's own benches and fuzz targets need of the private modules. Here only with the feature `_internals`:
//! no part of the interface.

mod codec;
mod sinks;

pub use codec::{Decoder, Event, encode};
#[cfg(feature = "deflate")]
pub use codec::{encode_compressed, negotiate};
pub use sinks::{Fate, Frame, Outlet, SinkClient};
