//! A reverse proxy as a process of its own, with a configuration from the guide.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::PATIENCE;

const GUIDE: &str = include_str!("../../src/guide/proxies.md");

/// The block of this language in the guide.
pub(crate) fn guide(language: &str) -> String {
    let start = format!("```{language}\n");
    let (_, rest) = GUIDE.split_once(&start).unwrap_or_else(|| panic!("no block of {language}"));
    rest.split_once("```").unwrap().0.to_owned()
}

/// A running proxy. It is killed when this is dropped.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    process: Child,
    folder: PathBuf,
}

impl Proxy {
    /// `HAProxy`. The configuration listens at `bind :80`.
    pub(crate) fn haproxy(config: &str) -> Self {
        let (folder, addr) = place();
        let file = folder.join("haproxy.cfg");
        assert!(config.contains("bind :80\n"), "{config}");
        std::fs::write(&file, config.replace("bind :80\n", &format!("bind {addr}\n"))).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        Self::start(command, folder, addr)
    }

    /// nginx. The configuration is what stands in `http { }`, and listens at `listen 80;`.
    pub(crate) fn nginx(config: &str) -> Self {
        let (folder, addr) = place();
        assert!(config.contains("listen 80;"), "{config}");
        let config = config.replace("listen 80;", &format!("listen {addr};"));
        let mut temporary = String::new();
        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            temporary.extend([name, "_temp_path ", folder.to_str().unwrap(), "/", name, ";\n"]);
        }
        let whole = format!(
            "daemon off;\nworker_processes 1;\npid {0}/nginx.pid;\nerror_log {0}/error.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{config}\n}}\n",
            folder.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, whole).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(&file);
        Self::start(command, folder, addr)
    }

    fn start(mut command: Command, folder: PathBuf, addr: SocketAddr) -> Self {
        // Debian keeps them where an ordinary user does not look.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let log = std::fs::File::create(folder.join("output")).unwrap();
        command.env("PATH", path).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut proxy = Self { addr, process: command.spawn().unwrap(), folder };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(addr).is_err() {
            let ended = proxy.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}: {}", proxy.output());
            std::thread::sleep(Duration::from_millis(5));
        }
        proxy
    }

    /// What it has printed and logged.
    pub(crate) fn output(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("output") + &read("error.log")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx' workers outlive a master that is killed, but not one that is asked to end.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder of its own, and an address that is free.
fn place() -> (PathBuf, SocketAddr) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only unique.
    let name = format!("wshub-proxy-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    open(&folder);
    let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    (folder, addr)
}

/// nginx' workers run as another user when it is started by root.
fn open(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}
