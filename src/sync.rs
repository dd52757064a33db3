//! Atomics, threads and channels under one name. `tests/loom` compiles the outbox with a model checker's versions
//! instead.

pub(crate) use std::sync::{OnceLock, atomic};
pub(crate) use std::thread;

pub(crate) use crossbeam_channel as channel;
