//! Ready-made protocols over a hub. They use only the crate's public items, so they also serve as examples for a
//! protocol of your own.

pub mod binary;
#[cfg(feature = "centrifuge")]
pub mod centrifuge;
pub mod events;
pub mod feed;
pub mod relay;
pub mod sse;
