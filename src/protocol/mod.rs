//! Ready-made protocols over a hub. They use only the crate's public items, so they also serve as examples for a
//! protocol of your own.

#[cfg(feature = "protocols")]
pub mod binary;
#[cfg(feature = "centrifuge")]
pub mod centrifuge;
#[cfg(feature = "protocols")]
pub mod events;
#[cfg(feature = "protocols")]
pub mod feed;
#[cfg(feature = "protocols")]
pub mod relay;
pub mod sse;
