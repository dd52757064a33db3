//! Rules for the project as a whole: its dependencies, the layers of its modules, the size of its files.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A module may use only those before it. (`guide` is documentation.)
const LAYERS: &str = "sync atomic random sorted_map lock handover headroom levels log_limit guard disposal client_id metrics \
     error bounds config transport http ws trace message history outbox cluster hub conn middleware router protocol server \
     observe internals guide";
/// Uses the crate as programs do: what the root of the crate offers, and nothing else.
const CLIENT: &str = "protocol";
/// Tools that know nothing of the hub, for every module.
const TOOLS: [&str; 6] = ["atomic", "bounds", "guard", "levels", "lock", "random"];
/// Modules that are public by their own names.
const PUBLIC: [&str; 11] =
    ["middleware", "router", "trace", "cluster", "metrics", "server", "history", "limit", "calls", "members", "rooms"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let is_made = ["target", ".git", "node_modules"].iter().any(|name| entry.file_name() == *name);
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && !is_made => folders.push(entry.path()),
                kind if kind.is_file() && !is_made => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    files(&root().join("src")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

/// The code of a source file: without comments, and without the unit tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.split("\n#[cfg(all(test").next().unwrap_or_default();
    // A public re-export shows an item under its subject. It is no dependency.
    let counts = |line: &&str| !line.trim_start().starts_with("//") && !line.starts_with("pub use crate::");
    code.split_inclusive('\n').filter(counts).collect()
}

/// The names that follow each `prefix`, such as `hub` and `ws` in `crate::hub::Hub` and `crate::{ws::close_code, …}`.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = |text: &str| text.chars().take_while(|c| is_name(*c)).collect::<String>();
    let mut names = BTreeSet::new();
    for rest in code.split(prefix).skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = &list[..list.find(';').unwrap_or(list.len())];
                let mut depth = 0;
                for part in list.split_inclusive(['{', '}', ',']) {
                    if depth == 0 {
                        names.insert(name(part.trim_start()));
                    }
                    depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
                }
            }
            None => _ = names.insert(name(rest)),
        }
    }
    names.remove("");
    names
}

/// The module of the crate that a file belongs to, and the file's own name.
fn place(path: &Path) -> (String, String) {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    (first.trim_end_matches(".rs").trim_end_matches("_tests").to_owned(), stem)
}

#[test]
fn the_reader_of_imports_reads_imports() {
    let code = "use crate::config::{Config, reached};\nuse crate::{ws::{a, b}, http};\nlet x = crate::hub::y;\n";
    assert_eq!(names_after(code, "crate::").into_iter().collect::<Vec<_>>(), ["config", "http", "hub", "ws"]);
    let code = "use super::client::Client;\nuse super::{Shared, slots::Slot};\n";
    assert_eq!(names_after(code, "super::").into_iter().collect::<Vec<_>>(), ["Shared", "client", "slots"]);
    assert_eq!(place(&root().join("src/hub/mod.rs")), ("hub".into(), "mod".into()));
    assert_eq!(place(&root().join("src/error.rs")), ("error".into(), "error".into()));
    assert_eq!(place(&root().join("src/error_tests.rs")).0, "error", "unit tests are part of their module");
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let layer = |module: &str| LAYERS.split(' ').position(|l| l == module);
    let mut wrong = Vec::new();
    for path in sources() {
        let (module, _) = place(&path);
        if module == "lib" {
            continue;
        }
        let Some(own) = layer(&module) else {
            wrong.push(format!("{module} has no place in the order"));
            continue;
        };
        for used in names_after(&code(&path), "crate::") {
            match layer(&used) {
                at if module == CLIENT => {
                    let is_open = PUBLIC.contains(&used.as_str()) || TOOLS.contains(&used.as_str());
                    if at.is_some() && used != CLIENT && !is_open {
                        wrong.push(format!("{} uses {used} from inside", path.display()));
                    }
                }
                Some(at) if at < own || used == module => {}
                Some(_) => wrong.push(format!("{} uses {used}, which stands above {module}", path.display())),
                // An item at the root of the crate: a re-export, by which nobody sees where it comes from.
                None => wrong.push(format!("{} uses crate::{used}", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Which files of its folder a file imports, also those whose items it takes from the folder's face. The face itself,
/// `mod.rs`, is left out: it declares all of them, and they extend its type.
fn imports_of_folder(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let inside: Vec<_> = sources().into_iter().filter(|p| p.parent() == Some(folder)).collect();
    let names: BTreeSet<String> = inside.iter().map(|p| place(p).1).filter(|name| name != "mod").collect();
    let face = inside.iter().find(|p| place(p).1 == "mod").map(|p| code(p)).unwrap_or_default();
    let shown: Vec<_> = names.iter().map(|name| (name, names_after(&face, &format!("use {name}::")))).collect();
    let module = folder.strip_prefix(root().join("src")).unwrap().to_str().unwrap().replace('/', "::");
    let imports = |path: &PathBuf| {
        let code = code(path);
        let mut used = names_after(&code, "super::");
        used.extend(names_after(&code, &format!("crate::{module}::")));
        let behind = shown.iter().filter(|(_, items)| !items.is_disjoint(&used)).map(|(name, _)| *name);
        let own = place(path).1;
        names.iter().filter(|name| used.contains(*name)).chain(behind).filter(|name| **name != own).cloned().collect()
    };
    inside.iter().map(|path| (place(path).1, imports(path))).filter(|(name, _)| name != "mod").collect()
}

#[test]
fn no_files_of_a_folder_import_each_other() {
    let mut wrong = Vec::new();
    let folders: BTreeSet<PathBuf> = sources().iter().map(|path| path.parent().unwrap().to_owned()).collect();
    for folder in folders.iter().filter(|folder| **folder != root().join("src")) {
        let mut imports = imports_of_folder(folder);
        // Takes away files that import only files already taken away; what stays goes round in a circle.
        while let Some(free) = imports.iter().find(|(_, used)| used.is_empty()).map(|(name, _)| name.clone()) {
            imports.remove(&free);
            for used in imports.values_mut() {
                used.remove(&free);
            }
        }
        wrong.extend(imports.into_iter().map(|(name, used)| format!("{}/{name} ⇄ {used:?}", folder.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether the table of locks names the file under `src`, or one of its folders, such as `cluster/redis`.
fn is_in_table(table: &str, path: &Path) -> bool {
    let name = path.strip_prefix(root().join("src")).unwrap();
    let is_of_hub = ["hub/mod.rs", "hub/room.rs", "hub/client.rs"].iter().any(|file| name == Path::new(file));
    is_of_hub || name.ancestors().any(|place| table.contains(&format!("`{}`", place.display())))
}

#[test]
fn every_lock_has_a_rank_and_stands_in_the_table() {
    let hub = fs::read_to_string(root().join("src/hub/mod.rs")).unwrap();
    let table: String = hub.lines().filter(|line| line.starts_with("/// | ")).collect();
    let mut wrong = Vec::new();
    for path in sources().into_iter().filter(|path| !path.ends_with("src/lock.rs") && !path.ends_with("_tests.rs")) {
        let code = code(&path);
        let is_foreign =
            ["parking_lot", "sync::Mutex", "sync::RwLock", "sync::Condvar"].iter().any(|name| code.contains(name));
        if is_foreign {
            wrong.push(format!("{} has a lock without a rank", path.display()));
        }
        let holds_lock = ["Leaf<", "Ranked<"].iter().any(|name| code.contains(name));
        if holds_lock && !is_in_table(&table, &path) {
            wrong.push(format!("the table in hub/mod.rs misses {}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_first_page_lists_every_log_target() {
    let page = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let text: String = sources().iter().map(|path| code(path)).collect();
    let parts: Vec<&str> = text.split('"').collect();
    let targets: BTreeSet<&str> = parts.into_iter().filter(|part| part.starts_with("wshub::")).collect();
    let missing: Vec<_> = targets.iter().filter(|target| !page.contains(&format!("//! | `{target}` |"))).collect();
    assert!(targets.len() > 5 && missing.is_empty(), "{missing:?}");
}

/// What people type into the search of the API documentation finds an item, by its name or by an alias.
#[test]
fn words_that_people_search_for_find_something() {
    let text: String = sources().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let aliases: String = text.lines().filter(|line| line.trim_start().starts_with("#[doc(alias(")).collect();
    for word in [
        "retained",
        "proxy",
        "keep-alive",
        "presence",
        "broadcast",
        "backpressure",
        "pub/sub",
        "pubsub",
        "subscribe",
        "reconnect",
        "resume",
        "graceful shutdown",
        "slow consumer",
    ] {
        assert!(aliases.contains(&format!("\"{word}\"")), "no item has the alias {word:?}");
    }
    for name in ["history", "publish"] {
        assert!(text.contains(&format!("pub fn {name}(")), "no method has the name {name:?}");
    }
}

#[test]
fn files_have_at_most_500_lines() {
    let mut all = sources();
    all.extend(files(&root().join("tests")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")));
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
    let long: Vec<_> = all.iter().map(|path| (path, lines(path))).filter(|(_, lines)| *lines > 500).collect();
    assert!(long.is_empty(), "{long:#?}");
}

fn cargo_tree(more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    command.args(more).output().unwrap()
}

/// The crates that a build with these features consists of.
fn crates(features: &str) -> BTreeSet<String> {
    let mut output = cargo_tree(&["--offline", "--features", features]);
    if !output.status.success() {
        // Offline, cargo refuses when crates of other platforms have never been downloaded.
        output = cargo_tree(&["--features", features]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn no_build_has_an_async_runtime_that_did_not_ask_for_it() {
    let runtimes = ["tokio", "mio", "async-std", "smol", "async-io", "polling", "futures-executor"];
    for (features, expected) in
        [("", "tungstenite"), ("prometheus", "prometheus"), ("redis", "redis"), ("redis-tls", "rustls")]
    {
        let crates = crates(features);
        assert!(crates.contains("wshub") && crates.contains(expected), "not our tree: {crates:?}");
        let found: Vec<_> = runtimes.iter().filter(|name| crates.contains(**name)).collect();
        assert!(found.is_empty(), "{features}: {found:?} in {crates:?}");
    }
    assert!(crates("nats").contains("tokio"), "this would not find one");
}

/// The manifest's lines from `[SECTION]` to the next section.
fn section<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let header = format!("[{name}]");
    manifest.lines().skip_while(move |line| *line != header).skip(1).take_while(|line| !line.starts_with('['))
}

/// What users cannot turn on by a feature, the tests must not turn on either.
#[test]
fn tests_run_the_crate_that_users_get() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let names = |name| section(&manifest, name).filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    assert!(names("features").any(|name| name == "tls") && names("dev-dependencies").any(|name| name == "proptest"));
    assert!(!names("features").any(|name| name.starts_with('_')), "a private feature");
    assert!(!names("dev-dependencies").any(|name| name == "wshub"), "a dependency on itself, with features of its own");
    // Private modules are opened by a flag that is set for the benches alone.
    let flags =
        std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default() + &std::env::var("RUSTFLAGS").unwrap_or_default();
    assert!(!flags.contains("wshub_internals") && !cfg!(wshub_internals), "{flags}");
    assert!(!root().join(".cargo").exists());
}

/// Whether a condition combines `let` and `&&`, as rustfmt formats it: in one line, or with `&&` at a line's beginning.
fn has_let_chain(code: &str) -> bool {
    let is_let = |line: &str| ["if let ", "while let "].iter().any(|start| line.contains(start));
    let lines: Vec<&str> = code.lines().map(str::trim_start).collect();
    let in_two = lines.windows(2).any(|two| is_let(two[0]) && !two[0].ends_with('{') && two[1].starts_with("&& "));
    in_two || lines.iter().any(|line| line.contains("&& let ") && !line.contains('"'))
}

#[test]
fn let_chains_are_found() {
    assert!(has_let_chain("if a\n    && let Some(b) = c\n{") && has_let_chain("if let Some(b) = c\n    && b\n{"));
    assert!(!has_let_chain("if let Some(b) = c {\n    if d\n        && b {") && !has_let_chain("let a = b\n    && c;"));
}

/// Conditions with `&& let` need Rust 1.88. Newer functions of the standard library are clippy's to find.
#[test]
fn code_is_understood_by_the_oldest_rust() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\nrust-version = \"1.85\"\n"), "is this test needed?");
    let folders = ["src", "examples", "tests"].map(|folder| files(&root().join(folder))).concat();
    let fuzz = root().join("tests/fuzz");
    let code = folders.iter().filter(|path| path.extension().is_some_and(|e| e == "rs") && !path.starts_with(&fuzz));
    let wrong: Vec<_> = code.filter(|path| has_let_chain(&fs::read_to_string(path).unwrap())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Not all processors have 64-bit atomics: `crate::atomic` has a substitute for them. Unit tests count, too.
#[test]
fn atomics_of_64_bits_are_those_that_every_processor_has() {
    let is_std = |line: &str| line.contains("atomic::") && !line.contains("crate::atomic") && !line.contains("loom");
    let has_64_bits = |line: &str| line.contains("AtomicU64") || line.contains("AtomicI64");
    let mut wrong = Vec::new();
    for path in sources().into_iter().filter(|path| !path.ends_with("src/atomic.rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| is_std(line) && has_64_bits(line));
        wrong.extend(lines.map(|line| format!("{}: {line}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_text_names_paths_of_a_machine() {
    // In two pieces, or this file would name them.
    let paths = [["/wo", "rk/"], ["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/tm", "p/wt"]].map(|p| p.concat());
    let mut wrong = Vec::new();
    for path in files(root()) {
        // What is not text is an image.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let named = text.lines().filter(|line| paths.iter().any(|p| line.contains(p)));
        wrong.extend(named.map(|line| format!("{}: {line}", path.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
