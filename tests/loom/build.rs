//! Tells the outbox' sources that they are compiled for the model.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cfg=wshub_loom");
}
