//! Private modules as this project's own benches and fuzz targets see them. No part of the interface.
//!
//! Compiled only with `--cfg wshub_internals`. That is a flag of the compiler and no feature of the crate, because
//! `--all-features` would turn a feature on in the tests, which must run the socket type that users get.

#[cfg(feature = "centrifuge")]
mod centrifuge;
mod codec;
mod sinks;

#[cfg(feature = "centrifuge")]
pub use centrifuge::centrifuge_frame;
pub use codec::{Decoder, Event, encode};
#[cfg(feature = "deflate")]
pub use codec::{encode_compressed, negotiate};
pub use sinks::{Fate, Frame, Outlet, SinkClient};
