//! What a server has to do at one moment.

use super::slots::Slots;

/// How many connections a server has, to be asked at any time: a cheap handle, made by
/// [`Server::load`](crate::Server::load). It does not keep the server alive.
#[derive(Debug, Clone)]
pub struct ServerLoad {
    pub(super) handshakes: Slots,
    pub(super) threads: Slots,
}

impl ServerLoad {
    /// Connections before their upgrade, or in a plain HTTP exchange.
    pub fn handshakes(&self) -> usize {
        self.handshakes.taken()
    }

    /// Connections of all kinds; each has one thread.
    pub fn connections(&self) -> usize {
        self.threads.taken()
    }
}
