//! 64-bit atomic integers on every target.
//!
//! 32-bit MIPS, PowerPC and older ARM processors have no instructions for them. There, and only there,
//! `portable-atomic` takes the place of the standard library's types.

#[cfg(not(target_has_atomic = "64"))]
pub(crate) use portable_atomic::{AtomicI64, AtomicU64};
#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::{AtomicI64, AtomicU64};
