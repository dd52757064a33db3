//! Wire protocols over a hub, made of its public interface only: use them, or read them before you write your own.

pub mod events;
