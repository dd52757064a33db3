//! A message broker as a process of its own, on a free port of the loopback, to be killed, paused and started again.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::skip::is_missing;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
}

impl Kind {
    /// Whether its program is missing; if so, says that the test is skipped.
    pub(crate) fn is_missing(self) -> bool {
        is_missing(match self {
            Self::Redis => "redis-server",
            Self::Nats => "nats-server",
        })
    }
}

/// A running broker. It is killed when this is dropped.
pub(crate) struct Broker {
    kind: Kind,
    port: u16,
    password: Option<String>,
    folder: PathBuf,
    more: Vec<String>,
    process: Option<Child>,
}

impl Broker {
    /// Starts `redis-server`.
    pub(crate) fn redis() -> Self {
        Self::start_new(Kind::Redis)
    }

    /// Starts `nats-server`.
    pub(crate) fn nats() -> Self {
        Self::start_new(Kind::Nats)
    }

    /// A broker that has a port and does not run yet.
    pub(crate) fn absent(kind: Kind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only unique.
        let name = format!("wshub-broker-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self { kind, port: free_port(), password: None, folder, more: Vec::new(), process: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where clients connect, with the password if there is one.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.kind == Kind::Redis { "redis" } else { "nats" };
        let login = self.password.as_ref().map_or(String::new(), |password| match self.kind {
            Kind::Redis => format!(":{password}@"),
            Kind::Nats => format!("user:{password}@"),
        });
        format!("{scheme}://{login}127.0.0.1:{}", self.port)
    }

    /// Its working directory, which goes with it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds arguments of its command line, from the next start on.
    pub(crate) fn add_args(&mut self, args: &[&str]) {
        self.more.extend(args.iter().map(ToString::to_string));
    }

    /// Asks for this password from the next start on.
    pub(crate) fn set_password(&mut self, password: Option<&str>) {
        self.password = password.map(str::to_owned);
    }

    /// Reads these settings from the next start on (`nats-server` only).
    pub(crate) fn set_config(&mut self, text: &str) {
        std::fs::write(self.folder.join("settings"), text).unwrap();
        self.add_args(&["--config", "settings"]);
    }

    /// Starts it on its port and waits until it accepts.
    pub(crate) fn start(&mut self) {
        assert!(self.starts(), "the broker has ended");
    }

    /// Whether it accepts. It does not if it has ended, such as because another program has its port.
    fn starts(&mut self) -> bool {
        assert!(self.process.is_none(), "it runs already");
        let deadline = Instant::now() + PATIENCE;
        let mut process = self.command().spawn().expect("the broker is installed (tests/all.sh does)");
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "the broker does not accept");
            std::thread::sleep(Duration::from_millis(5));
        }
        let is_running = process.try_wait().unwrap().is_none();
        self.process = is_running.then_some(process);
        is_running
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Also ends a paused one.
            let _ = process.kill();
            process.wait().unwrap();
        }
    }

    /// Stops it as it stands: connections stay, nothing is read or answered.
    pub(crate) fn pause(&self) {
        self.signal(libc::SIGSTOP);
        // Its threads stop one by one, and may answer until then.
        let deadline = Instant::now() + PATIENCE;
        while !self.is_stopped() {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_stopped(&self) -> bool {
        let id = self.process.as_ref().expect("it runs").id();
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        // The state stands behind the name, which is in brackets.
        let state = |stat: &str| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let mut states = threads.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("stat")).ok());
        states.all(|stat| state(&stat) == Some('T'))
    }

    /// Lets it go on after a [`pause`](Self::pause).
    pub(crate) fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn start_new(kind: Kind) -> Self {
        let mut broker = Self::absent(kind);
        // A port that was free may be taken in the meantime.
        let is_up = (0..5).any(|_| {
            let starts = broker.starts();
            if !starts {
                broker.port = free_port();
            }
            starts
        });
        assert!(is_up, "no broker starts");
        broker
    }

    fn signal(&self, number: i32) {
        signal(self.process.as_ref().expect("it runs"), number);
    }

    fn command(&self) -> Command {
        let port = self.port.to_string();
        let mut command = match self.kind {
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                command.args(self.password.iter().flat_map(|password| ["--requirepass", password]));
                command
            }
            Kind::Nats => {
                // Debian keeps it where an ordinary user does not look.
                let mut command = Command::new("nats-server");
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("{path}:/usr/sbin")).args(["--addr", "127.0.0.1", "--port", &port]);
                command.args(self.password.iter().flat_map(|password| ["--user", "user", "--pass", password]));
                command
            }
        };
        command
            .args(&self.more)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends a signal to a child.
pub(crate) fn signal(process: &Child, number: i32) {
    let id = i32::try_from(process.id()).unwrap();
    // SAFETY: a plain system call; the process is our child and has not been waited for.
    assert_eq!(unsafe { libc::kill(id, number) }, 0);
}

/// A free port below those that the kernel gives out, so that no other test's server or connection takes it, also not
/// while the broker is away: it must come back on its port, so it cannot be asked for port 0. Processes begin at
/// different places.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..COUNT)
        .map(|_| FIRST + (std::process::id().wrapping_mul(131) % COUNT + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}
