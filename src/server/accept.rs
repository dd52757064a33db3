//! The accept loop: it outlives full descriptor tables and refused threads.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listener::{Arrival, Listener};
use super::{Running, workers::Workers};
use crate::guard;
use crate::http::overloaded;
use crate::transport::{Transport, is_timeout};

/// First and longest pause after a failed accept, which would otherwise repeat at once.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How many refused connections are kept open, and for how long, so that a reset does not destroy the answer.
const LINGERING: (usize, Duration) = (64, Duration::from_secs(1));

/// Accepts on one listener until the server stops.
pub(super) struct Acceptor<'a> {
    shared: &'a Arc<Running>,
    listener: &'a Listener,
    pause: Duration,
    /// A spare descriptor. It is closed when descriptors run out, to accept one connection and refuse it.
    spare: Option<File>,
    refused: VecDeque<(Instant, Transport)>,
    workers: Workers,
}

impl<'a> Acceptor<'a> {
    pub(super) fn new(shared: &'a Arc<Running>, listener: &'a Listener) -> Self {
        Self {
            shared,
            listener,
            pause: PAUSES.0,
            spare: spare(),
            refused: VecDeque::new(),
            workers: Workers::default(),
        }
    }

    pub(super) fn run(&mut self) {
        loop {
            let accepted = self.listener.accept();
            if self.shared.is_stopping() {
                return;
            }
            // A panic in the program's metrics, or by a bug in this crate, costs this connection, not the listener.
            guard::catch(|| self.handle(accepted));
        }
    }

    fn handle(&mut self, accepted: io::Result<Arrival>) {
        match accepted {
            Ok(arrival) => {
                self.pause = PAUSES.0;
                if self.spare.is_none() {
                    // The spare descriptor could not be reopened after the last `EMFILE`: try again.
                    self.spare = spare();
                }
                self.admit(arrival);
            }
            // While refused connections are kept, `accept` has a timeout: see `refuse`.
            Err(error) if is_timeout(&error) && !self.refused.is_empty() => {}
            Err(error) => self.recover(&error),
        }
        self.let_go();
    }

    /// Passes the connection to a thread, or answers it with 503.
    fn admit(&mut self, arrival: Arrival) {
        let Some(mut slot) = self.shared.handshakes.take(self.shared.max_handshakes) else {
            self.shared.cannot_serve("too many handshakes at once: max_handshakes");
            return self.refuse(arrival.transport);
        };
        // Connections of a proxy count for their clients, whose addresses are known later.
        let is_of_proxy = arrival.has_proxy_header || self.shared.proxies.trusts(arrival.peer);
        if !is_of_proxy && !slot.assign(arrival.peer, self.shared.max_handshakes_per_address) {
            self.shared.cannot_serve("too many handshakes at once from one address: max_handshakes_per_address");
            return self.refuse(arrival.transport);
        }
        if let Err((transport, error)) = self.workers.serve(self.shared, arrival, slot) {
            self.shared.cannot_serve(&format!("no thread for a connection: {error}"));
            self.refuse(transport);
            self.rest();
        }
    }

    fn recover(&mut self, error: &io::Error) {
        let is_full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        let is_of_peer = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted);
        if is_of_peer {
            return;
        }
        self.shared.cannot_serve(&format!("accepting failed: {error}"));
        if is_full {
            self.refused.clear();
            self.listener.set_patience(None);
            self.spare = None;
            // The kernel allocates the descriptor first, so the error does not mean that a connection is waiting.
            let waiting = self.listener.accept_waiting().ok().filter(|_| !self.listener.is_secure());
            if let Some(transport) = waiting {
                answer(&transport);
                // Reads the request, which has probably arrived: unread input would turn the close into a reset.
                let _ = transport.set_read_timeout(Some(Duration::from_millis(20)));
                let _ = transport.read(&mut [0; 1024]);
            }
            self.spare = spare();
        }
        self.rest();
    }

    fn refuse(&mut self, transport: Transport) {
        answer(&transport);
        if self.refused.is_empty() {
            self.listener.set_patience(Some(LINGERING.1));
        }
        self.refused.push_back((Instant::now(), transport));
    }

    /// Closes refused connections that have been kept long enough.
    fn let_go(&mut self) {
        if self.refused.is_empty() {
            return;
        }
        let now = Instant::now();
        let is_over = |at: Instant| now.saturating_duration_since(at) >= LINGERING.1;
        while self.refused.front().is_some_and(|(at, _)| self.refused.len() > LINGERING.0 || is_over(*at)) {
            self.refused.pop_front();
        }
        if self.refused.is_empty() {
            self.listener.set_patience(None);
        }
    }

    /// Pauses, for longer each time until an accept succeeds.
    fn rest(&mut self) {
        self.shared.sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}

/// Answers with a refusal. Cannot block, because the socket's buffer is empty.
fn answer(transport: &Transport) {
    let _ = transport.try_send(&overloaded().encode(false).bytes);
    let _ = transport.try_finish();
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}
