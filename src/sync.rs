//! Atomics, threads and channels under one name. `tests/loom` compiles the outbox against those of a model checker
//! instead.

pub(crate) use std::sync::{OnceLock, atomic};
pub(crate) use std::thread;

pub(crate) use crossbeam_channel as channel;
