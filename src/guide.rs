//! Guides: how the parts are meant to be used together. There is no code here.

#[doc = include_str!("guide/rooms.md")]
pub mod rooms {}

#[doc = include_str!("guide/backpressure.md")]
pub mod backpressure {}

#[doc = include_str!("guide/lifecycle.md")]
pub mod lifecycle {}

#[doc = include_str!("guide/compression.md")]
pub mod compression {}

#[doc = include_str!("guide/observability.md")]
pub mod observability {}

#[doc = include_str!("guide/embedding.md")]
pub mod embedding {}

#[doc = include_str!("guide/security.md")]
pub mod security {}

#[doc = include_str!("guide/performance.md")]
///
/// # Plots
///
/// The table by number of clients, drawn: the cost of a delivery, for this crate and for the floor, and the memory of a
/// connection, of this process and of the kernel.
///
#[doc = include_str!("guide/scale-cpu.svg")]
///
#[doc = include_str!("guide/scale-memory.svg")]
pub mod performance {}

#[doc = include_str!("guide/cluster.md")]
pub mod cluster {}

#[cfg(feature = "dashboard")]
#[doc = include_str!("guide/dashboard.md")]
pub mod dashboard {}

#[doc = include_str!("guide/seeds.md")]
pub mod seeds {
    #[doc = include_str!("guide/seeds/relay.md")]
    pub mod relay {}

    #[doc = include_str!("guide/seeds/events.md")]
    pub mod events {}

    #[doc = include_str!("guide/seeds/feed.md")]
    pub mod feed {}

    #[doc = include_str!("guide/seeds/hub.md")]
    pub mod hub {}

    #[doc = include_str!("guide/seeds/rooms.md")]
    pub mod rooms {}
}

/// The README's code compiles too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub mod readme {}
