//! What is printed beside the table.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the module that prints")]

use std::io::Write as _;
use std::net::SocketAddr;

/// Prints the line that scripts wait for.
pub(crate) fn announce(addr: SocketAddr) {
    println!("listening on {addr}");
    let _ = std::io::stdout().flush();
}

/// Prints a line to standard error.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
