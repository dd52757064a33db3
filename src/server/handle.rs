//! A running server: its addresses and load, waiting for it, shutting it down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Running;
use super::accept::Acceptor;
use super::endpoint::EndpointInfo;
use super::listener::Listener;
use super::load::ServerLoad;
use crate::config::deadline_after;
use crate::error::DeadlineError;
use crate::hub::Hub;
use crate::lock::Leaf;

/// A running server.
///
/// Dropping the handle does not stop the server. Call [`shutdown`](ServerHandle::shutdown), or make a guard with
/// [`stop_on_drop`](ServerHandle::stop_on_drop).
#[derive(Debug)]
pub struct ServerHandle {
    pub(super) shared: Arc<Running>,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) endpoints: Vec<EndpointInfo>,
    pub(super) listeners: Vec<Arc<Listener>>,
    pub(super) acceptors: Leaf<Vec<JoinHandle<()>>>,
}

impl ServerHandle {
    /// The bound address of the first TCP listener.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addrs.first().copied()
    }

    /// The bound addresses of all TCP listeners.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// As [`Server::load`](crate::Server::load).
    pub fn load(&self) -> ServerLoad {
        ServerLoad { handshakes: self.shared.handshakes.clone(), threads: self.shared.threads.clone() }
    }

    /// The endpoints, in the order in which they were mounted.
    pub fn endpoints(&self) -> &[EndpointInfo] {
        &self.endpoints
    }

    /// Returns a guard that shuts the server down when it is dropped, for at most `timeout`: for tests, and for
    /// programs that may end with an error.
    pub fn stop_on_drop(self, timeout: Duration) -> StopOnDrop {
        StopOnDrop { handle: self, timeout }
    }

    /// Waits until the server has been shut down. Blocks.
    pub fn join(&self) {
        let mut stopped = self.shared.stopped.lock();
        while !*stopped {
            self.shared.changed.wait(&mut stopped);
        }
    }

    /// Stops accepting, shuts all mounted hubs down (close frames go out, see [`Hub::shutdown`]) and waits for every
    /// thread, for at most `timeout` and a second's grace for last hooks. Blocks. To let clients finish first, call
    /// [`Hub::drain`] before.
    ///
    /// # Errors
    ///
    /// A [`DeadlineError`] with the number of connections that are left, because user code has not returned.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), DeadlineError> {
        let deadline = deadline_after(timeout);
        self.stop_accepting();
        self.shared.hubs.iter().for_each(Hub::begin_shutdown);
        for hub in &self.shared.hubs {
            // Connections that are left show up in the count of threads below.
            let _ = hub.shutdown(deadline.saturating_duration_since(Instant::now()));
        }
        let deadline = deadline.max(Instant::now() + Duration::from_secs(1));
        let remaining = self.shared.threads.wait_none(deadline);
        // Workers that serve a connection count with it; the others end with their acceptor.
        self.shared.workers.wait_none(deadline);
        *self.shared.stopped.lock() = true;
        self.shared.changed.notify_all();
        if remaining == 0 { Ok(()) } else { Err(DeadlineError { remaining }) }
    }

    /// Every mounted hub, each once.
    pub(super) fn hubs(&self) -> &[Hub] {
        &self.shared.hubs
    }

    pub(super) fn start(&self) -> io::Result<()> {
        for listener in &self.listeners {
            let (shared, listener) = (Arc::clone(&self.shared), Arc::clone(listener));
            let builder = thread::Builder::new().name("wshub-accept".into()).stack_size(128 * 1024);
            let thread = builder.spawn(move || Acceptor::new(&shared, &listener).run())?;
            self.acceptors.lock().push(thread);
        }
        Ok(())
    }

    pub(super) fn stop_accepting(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(self.shared.stopped.lock());
        self.shared.changed.notify_all();
        self.listeners.iter().for_each(|l| l.wake());
        let acceptors = std::mem::take(&mut *self.acceptors.lock());
        for thread in acceptors {
            // An acceptor panics only by a bug in this crate, and nothing can be done about it here.
            let _ = thread.join();
        }
        self.listeners.iter().for_each(|l| l.remove_file());
    }
}

/// Shuts a server down when it is dropped; made by [`ServerHandle::stop_on_drop`].
#[derive(Debug)]
#[must_use = "the server is shut down as soon as this is dropped"]
pub struct StopOnDrop {
    handle: ServerHandle,
    timeout: Duration,
}

impl std::ops::Deref for StopOnDrop {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // Dropping cannot report an error.
        let _ = self.handle.shutdown(self.timeout);
    }
}
