//! The outbox over real socket pairs.
