//! Now and then descriptors or threads run out, on purpose, for a moment.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rlimit::Resource;
use socket2::Socket;

use crate::common::PATIENCE;
use crate::common::limits::{self, Lowered, status, unconnected};

/// The stack of each connection of the roomy listener: more than [`SLACK`] by what may become free meanwhile.
pub(crate) const STACK: usize = 2 << 30;
/// Address space for everybody else.
const SLACK: u64 = 512 << 20;

/// The status that this connection gets; 0 if it is closed without one, or nothing comes in that time.
fn ask(socket: Socket, addr: SocketAddr, patience: Duration) -> u16 {
    let asked = socket.connect_timeout(&addr.into(), patience).and_then(|()| {
        let mut stream = TcpStream::from(socket);
        limits::ask(&mut stream);
        status(&mut stream, patience)
    });
    match asked {
        Ok(status) => status,
        Err(e) if e.kind() == ErrorKind::Other => panic!("{e}"),
        Err(_) => 0,
    }
}

/// Waits until a connection is served.
fn served(addr: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while ask(unconnected(), addr, PATIENCE) != 101 {
        assert!(Instant::now() < deadline, "nobody is served again after a famine");
    }
}

/// No new descriptors for anybody: those that connect are refused or wait. Gives how many were refused.
pub(crate) fn no_descriptors(addr: SocketAddr) -> usize {
    let sockets: Vec<_> = (0..6).map(|_| unconnected()).collect();
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let highest = open.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).max();
    let limit = Lowered::new(Resource::NOFILE, highest.unwrap_or(0) + 1);
    let is_over = AtomicBool::new(false);
    let refused = thread::scope(|scope| {
        scope.spawn(|| hoard(&is_over));
        let answers = sockets.into_iter().map(|socket| ask(socket, addr, Duration::from_millis(200)));
        let refused = answers.filter(|status| *status == 503).count();
        is_over.store(true, Ordering::SeqCst);
        refused
    });
    drop(limit);
    served(addr);
    refused
}

/// Takes every free descriptor, and those that others give back meanwhile.
fn hoard(is_over: &AtomicBool) {
    let mut taken: Vec<File> = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        thread::sleep(Duration::from_micros(200));
    }
}

/// No room for the stacks of one listener, whose connections are refused.
pub(crate) fn no_threads(roomy: SocketAddr) {
    let socket = unconnected();
    let limit = Lowered::space(SLACK);
    let status = ask(socket, roomy, PATIENCE);
    drop(limit);
    assert_eq!(status, 503, "without room for its thread");
    served(roomy);
}
