//! Servers that are no brokers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server that does one thing with each connection, on a thread of its own.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Fake {
    pub(crate) fn new(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counter, streams, serve) = (Arc::clone(&connections), Arc::clone(&open), Arc::new(serve));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { addr, connections, open }
    }

    /// Accepts, reads, and says nothing.
    pub(crate) fn silent() -> Self {
        Self::new(|mut stream| while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {})
    }

    /// Says this at once and to whatever it is told, and reads on.
    pub(crate) fn saying(text: &'static [u8]) -> Self {
        Self::new(
            move |mut stream| {
                while stream.write_all(text).is_ok() && matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
            },
        )
    }

    /// How many have connected.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for stream in self.open.lock().unwrap().iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}
