//! Tests that need a program which may be missing.

use std::io::Write;
use std::path::Path;

/// Whether a program is missing. If so, prints that the test is skipped; `tests/all.sh` fails on that line.
pub(crate) fn is_missing(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    // Debian keeps `nats-server` where an ordinary user does not look.
    let is_installed = path.split(':').chain(["/usr/sbin"]).any(|folder| Path::new(folder).join(program).is_file());
    if !is_installed {
        say(program);
    }
    !is_installed
}

/// Whether a package is missing that `what` installs into this folder. If so, prints as [`is_missing`] does.
#[allow(dead_code, reason = "of one test file")]
pub(crate) fn is_missing_file(path: &Path, what: &str) -> bool {
    if !path.exists() {
        say(what);
    }
    !path.exists()
}

fn say(what: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Past the test harness, which hides what a passing test prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {what} is not installed");
}
