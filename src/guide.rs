//! Guides: how to use the parts together. This module contains no code.

#[doc = include_str!("guide/rooms.md")]
pub mod rooms {}

#[doc = include_str!("guide/history.md")]
pub mod history {}

#[cfg(feature = "centrifuge")]
#[doc = include_str!("guide/centrifuge.md")]
pub mod centrifuge {}

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

#[doc = include_str!("guide/gateways.md")]
pub mod gateways {}

#[doc = include_str!("guide/security.md")]
pub mod security {}

#[doc = include_str!("guide/proxies.md")]
pub mod proxies {}

#[doc = include_str!("guide/performance.md")]
///
/// # Plots
///
/// The figures by number of clients: the cost of a delivery for this crate and for the floor, and the memory of a
/// connection in this process and in the kernel.
///
#[doc = include_str!("guide/scale-cpu.svg")]
///
#[doc = include_str!("guide/scale-memory.svg")]
pub mod performance {}

#[doc = include_str!("guide/presence-and-calls.md")]
pub mod presence_and_calls {}

#[cfg(feature = "cluster")]
#[doc = include_str!("guide/cluster.md")]
pub mod cluster {}

#[cfg(feature = "dashboard")]
#[doc = include_str!("guide/dashboard.md")]
pub mod dashboard {}

/// The pages for users of Go packages are in the repository, not in the API documentation. Their links are checked
/// here.
#[cfg(wshub_internals)]
#[doc(hidden)]
#[allow(unused_imports, reason = "links look names up here")]
pub mod from_go {
    use crate::protocol::*;
    use crate::*;

    #[doc = include_str!("../docs/from-go/relay.md")]
    pub mod relay_page {
        use super::*;
    }

    #[doc = include_str!("../docs/from-go/events.md")]
    pub mod events_page {
        use super::*;
    }

    #[doc = include_str!("../docs/from-go/feed.md")]
    pub mod feed_page {
        use super::*;
    }

    #[doc = include_str!("../docs/from-go/hub.md")]
    pub mod hub_page {
        use super::*;
    }

    #[doc = include_str!("../docs/from-go/rooms.md")]
    pub mod rooms_page {
        use super::*;
    }
}

/// Compiles the README's code.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub mod readme {}
