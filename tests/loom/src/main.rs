//! The outbox' own code under loom: every interleaving of a few threads with at most so many preemptions, and every
//! value that the memory model lets a load return. The argument that it checks stands in `src/outbox/mod.rs`.
//!
//! `cargo run --release --manifest-path tests/loom/Cargo.toml [NAME]` runs all scenarios, or those whose names contain
//! NAME. A deadlock that loom reports is a message or a thread that nobody comes back for: no wait in the model ever
//! times out.

mod lock;
mod scenarios;
mod sync;
mod world;

#[allow(dead_code, unused_imports, reason = "the crate uses all of it, the model a part")]
#[path = "../../../src/outbox/mod.rs"]
mod outbox;

pub(crate) use world::{atomic, config, disposal, guard, http, message, transport, ws};

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    // A panic is a short line: loom's threads have no stack for backtraces.
    panic::set_hook(Box::new(|info| println!("{info}")));
    let filter = std::env::args().nth(1).unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    for (name, scenario) in scenarios::all().into_iter().filter(|(name, _)| name.contains(&filter)) {
        // Before it runs: a deadlock within a destructor ends the process.
        print!("{name}: ");
        let _ = io::stdout().flush();
        let started = Instant::now();
        let is_ok = catch_unwind(AssertUnwindSafe(scenario)).is_ok();
        println!("{} in {:.1?}", if is_ok { "ok" } else { "FAILED" }, started.elapsed());
        if is_ok { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed; {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
