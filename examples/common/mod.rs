//! Shared by all examples: command-line options, and a clean end on SIGTERM or SIGINT.
#![allow(dead_code, clippy::print_stdout, clippy::print_stderr, reason = "each example uses a part and prints")]

use std::io::Write as _;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use wshub::server::{Listener, Request};
#[cfg(feature = "tls")]
use wshub::tls::Tls;
use wshub::{Response, Server};

/// The value of `--NAME VALUE` or `--NAME=VALUE`, or the default. Exits with a hint if the value is missing.
pub(crate) fn option(name: &str, default: &str) -> String {
    option_or_none(name).unwrap_or_else(|| default.to_owned())
}

/// The value of `--NAME VALUE` or `--NAME=VALUE`.
pub(crate) fn option_or_none(name: &str) -> Option<String> {
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let Some(rest) = arg.strip_prefix("--").and_then(|a| a.strip_prefix(name)) else { continue };
        if let Some(value) = rest.strip_prefix('=') {
            return Some(value.to_owned());
        }
        if rest.is_empty() {
            return Some(args.next().unwrap_or_else(|| fail(&format!("--{name} needs a value"))));
        }
    }
    None
}

/// The TLS of `--tls CERT KEY`, two PEM files. Exits with a hint if they are unusable.
#[cfg(feature = "tls")]
pub(crate) fn tls() -> Option<Tls> {
    let mut args = std::env::args().skip_while(|arg| arg != "--tls").skip(1);
    let chain = option_or_none("tls")?;
    let key = args.nth(1).unwrap_or_else(|| fail("--tls needs two files, the certificate's and the key's"));
    Some(Tls::from_pem_files(&chain, &key).unwrap_or_else(|error| fail(&format!("--tls: {error}"))))
}

/// The listener of `--addr`, by default at `default`, with the TLS of `--tls`.
pub(crate) fn listener(default: &str) -> std::io::Result<Listener> {
    let listener = Listener::tcp(option("addr", default))?;
    #[cfg(feature = "tls")]
    if let Some(tls) = tls() {
        return Ok(listener.tls(&tls));
    }
    #[cfg(not(feature = "tls"))]
    if option_or_none("tls").is_some() {
        fail("--tls needs the feature `tls`: cargo run --features tls …");
    }
    Ok(listener)
}

/// Whether `--NAME` is given.
pub(crate) fn flag(name: &str) -> bool {
    std::env::args().skip(1).any(|a| a.strip_prefix("--") == Some(name))
}

/// Ends the program with a message on standard error.
pub(crate) fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}

/// Prints a line for the user who started the program.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Starts the server, prints its address, and shuts it down on SIGTERM or SIGINT.
pub(crate) fn serve(server: Server) -> Result<(), Box<dyn std::error::Error>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = server.spawn()?;
    announce(handle.local_addr().map(|a| a.to_string()).unwrap_or_default().as_str());
    signals.forever().next();
    handle.shutdown(Duration::from_secs(5))?;
    Ok(())
}

/// The line that scripts wait for.
pub(crate) fn announce(addr: &str) {
    println!("listening on {addr}");
    let _ = std::io::stdout().flush();
}

/// Answers only GET and HEAD.
pub(crate) fn get(request: &Request, answer: impl FnOnce() -> Response) -> Response {
    match request.head().method() {
        "GET" | "HEAD" => answer().header("Cache-Control", "no-cache"),
        _ => Response::text(405, "method not allowed\n").header("Allow", "GET, HEAD"),
    }
}
