//! What an operator sees of a hub.

#[cfg(feature = "dashboard")]
mod dashboard;

#[cfg(feature = "dashboard")]
pub use dashboard::Dashboard;
