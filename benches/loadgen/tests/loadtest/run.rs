//! One run of `loadtest`, and what it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No run of these tests measures for longer than a few seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// A load test that runs. It is killed when this is dropped, and its files are removed.
pub(crate) struct Running {
    pub(crate) process: Child,
    folder: PathBuf,
}

/// What is left of it.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `Null` when nothing was written.
    pub(crate) json: Value,
    pub(crate) svg: String,
}

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

/// Starts it with these options, divided by spaces, and those that make it write files.
pub(crate) fn start(line: &str) -> Running {
    start_as(Command::new(PROGRAM), line)
}

pub(crate) fn start_as(mut command: Command, line: &str) -> Running {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only that no two are the same matters.
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("wshub-loadtest-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for file in ["json", "svg"] {
        command.arg(format!("--{file}")).arg(folder.join(file));
    }
    command.args(line.split_whitespace());
    let output = |name: &str| Stdio::from(fs::File::create(folder.join(name)).unwrap());
    let process = command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap();
    Running { process, folder }
}

impl Running {
    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// The processes that it has started.
    pub(crate) fn children(&self) -> Vec<u32> {
        let id = self.process.id();
        let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        list.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it hangs: {}{}", self.text("stdout"), self.text("stderr"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn end(mut self) -> Ended {
        let status = self.wait().code();
        let json = serde_json::from_str(&self.text("json")).unwrap_or_default();
        Ended { status, stdout: self.text("stdout"), stderr: self.text("stderr"), json, svg: self.text("svg") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: &Child, signal: i32) {
    let status = Command::new("kill").args([format!("-{signal}"), process.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whether a process is there, and no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

impl Ended {
    /// It measured everything, and lost nothing.
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.status, Some(0), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.json["failures"], Value::Array(Vec::new()));
        self
    }

    /// It has failed, and says this.
    pub(crate) fn says(&self, status: i32, part: &str) {
        assert_eq!(self.status, Some(status), "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(part), "not {part:?}, but {}", self.stderr);
    }

    pub(crate) fn run(&self, scenario: &str) -> &Value {
        let runs = self.json["runs"].as_array().unwrap_or_else(|| panic!("no runs: {}{}", self.stdout, self.stderr));
        runs.iter().find(|run| run["scenario"] == scenario).unwrap_or_else(|| panic!("no {scenario}: {runs:#?}"))
    }

    /// A number of a run.
    pub(crate) fn count(&self, scenario: &str, key: &str) -> u64 {
        let value = &self.run(scenario)[key];
        value.as_u64().unwrap_or_else(|| panic!("{scenario}: {key} is {value}"))
    }

    /// Every message that was sent has reached so many clients, once and in order, and no connection was lost.
    pub(crate) fn is_complete(&self, scenario: &str, listeners: u64) {
        let count = |key: &str| self.count(scenario, key);
        assert!(count("messages_sent") > 0);
        assert_eq!(count("messages_expected"), count("messages_sent") * listeners);
        assert_eq!(count("messages_received"), count("messages_expected"), "{:#}", self.run(scenario));
        for key in ["messages_lost", "messages_disordered", "messages_stray", "connections_lost", "connections_failed"]
        {
            assert_eq!(count(key), 0, "{scenario}: {key}");
        }
        assert_eq!(self.run(scenario)["latency_ms"]["count"], count("messages_received"));
    }
}
