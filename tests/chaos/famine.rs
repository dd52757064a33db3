//! Now and then descriptors or threads run out, on purpose, for a moment.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rlimit::Resource;
use socket2::{Domain, Socket, Type};

use crate::common::{PATIENCE, upgrade_request};

/// The stack of each connection of the roomy listener: more than [`SLACK`] by what may become free meanwhile.
pub(crate) const STACK: usize = 2 << 30;
/// Address space for everybody else.
const SLACK: u64 = 512 << 20;

/// A lowered soft limit, raised again when dropped.
struct Lowered(Resource, u64, u64);

impl Lowered {
    fn new(resource: Resource, limit: u64) -> Self {
        let (soft, hard) = resource.get().unwrap();
        resource.set(limit, hard).unwrap();
        Self(resource, soft, hard)
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        self.0.set(self.1, self.2).unwrap();
    }
}

fn unconnected() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// The status that this connection gets; 0 if it is closed without one, or nothing comes in that time.
fn ask(socket: Socket, addr: SocketAddr, patience: Duration) -> u16 {
    let mut line = [0; 12];
    let asked = socket.connect_timeout(&addr.into(), patience).and_then(|()| {
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(patience))?;
        // A refusal may come and close before it is asked for.
        let _ = stream.write_all(upgrade_request("GET /ws HTTP/1.1", &[]).as_bytes());
        stream.read_exact(&mut line)
    });
    match asked {
        Ok(()) => std::str::from_utf8(&line[9..]).unwrap().parse().unwrap(),
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
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let socket = unconnected();
    let limit = Lowered::new(Resource::AS, pages * 4096 + SLACK);
    let status = ask(socket, roomy, PATIENCE);
    drop(limit);
    assert_eq!(status, 503, "without room for its thread");
    served(roomy);
}
