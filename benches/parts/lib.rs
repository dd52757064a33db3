//! Nothing: a package must have a library or a program. The benches are in `benches/`.

#[cfg(not(wshub_internals))]
compile_error!("run cargo in benches/parts: its .cargo/config.toml sets `--cfg wshub_internals`");
