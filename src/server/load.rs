//! How many connections a server has.

use super::slots::Slots;

/// Reports how many connections a server has: a cheap handle, made by [`Server::load`](crate::Server::load). It does
/// not keep the server alive.
#[derive(Debug, Clone)]
pub struct ServerLoad {
    pub(super) handshakes: Slots,
    pub(super) threads: Slots,
}

impl ServerLoad {
    /// Connections that are not upgraded yet, or exchange plain HTTP.
    pub fn handshakes(&self) -> usize {
        self.handshakes.taken()
    }

    /// Connections of all kinds; each has a thread.
    pub fn connections(&self) -> usize {
        self.threads.taken()
    }
}
