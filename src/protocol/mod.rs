//! Ready-made ways to talk over a hub: modules that use nothing but the crate's public items. Use them, or read them before
//! you write your own.

pub mod binary;
#[cfg(feature = "centrifuge")]
pub mod centrifuge;
pub mod events;
pub mod feed;
pub mod relay;
pub mod sse;
