//! The server's process, from its start to its end.

use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::failure::Failure;

const FAREWELL: Duration = Duration::from_secs(3);

/// A server of our own. Its process is ended and reaped when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnServer {
    process: Child,
    pub(crate) addr: SocketAddr,
}

impl OwnServer {
    /// Starts this program once more, as a server for messages of this size; waits until it listens.
    pub(crate) fn start(size: usize) -> Result<Self, Failure> {
        let own = env::current_exe()?;
        let mut command = Command::new(own);
        command.args(["--serve", "--size", &size.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C reaches all processes of a group: this one ends when the load test has done with it.
        command.process_group(0);
        let mut process = command.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if let Some(addr) = line.trim().rsplit(' ').next().and_then(|addr| addr.parse().ok()) {
            return Ok(Self { process, addr });
        }
        let _ = process.kill();
        let status = process.wait()?;
        Err(Failure::because(format!("the server did not start: {status}")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it has ended, if it has.
    pub(crate) fn end(&mut self) -> Option<String> {
        let status = self.process.try_wait().ok()??;
        Some(format!("the server's process has ended: {status}"))
    }

    /// How many messages it has dropped because queues were full. Blocks until it answers.
    pub(crate) fn dropped(&self) -> Option<u64> {
        let mut stream = TcpStream::connect(self.addr).ok()?;
        stream.set_read_timeout(Some(FAREWELL)).ok()?;
        write!(stream, "GET /dropped HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split("\r\n\r\n").nth(1)?.trim().parse().ok()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Its standard input ends: so does it.
        self.process.stdin = None;
        let deadline = Instant::now() + FAREWELL;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
