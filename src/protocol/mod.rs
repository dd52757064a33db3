//! Ready-made ways to talk over a hub: modules that use nothing but the crate's public items.

pub mod binary;
pub mod relay;
