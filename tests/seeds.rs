//! The guide for users of five Go packages contains each of their public names, and no others.
//!
//! The names are in `tests/seeds/`: `NAME.txt` has those that `extract.py` finds in the package's documentation page,
//! `NAME.more.txt` the package's other names. With `SEEDS_DIR=FOLDER`, where `FOLDER` holds the five pages as text
//! files whose names begin with `000` to `004`, the names are extracted again and compared.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In the order of the documents.
const PACKAGES: [&str; 5] = ["relay", "events", "feed", "hub", "rooms"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn list(file: &str) -> BTreeSet<String> {
    let path = root().join("tests/seeds").join(file);
    if path.exists() { read(&path).lines().map(str::to_owned).collect() } else { BTreeSet::new() }
}

fn names(package: &str) -> BTreeSet<String> {
    let mut names = list(&format!("{package}.txt"));
    assert!(!names.is_empty(), "{package} has no list");
    names.extend(list(&format!("{package}.more.txt")));
    names
}

/// One row of a table: the names of the first column, what stands for them, the remark.
#[derive(Debug, PartialEq)]
struct Row {
    names: Vec<String>,
    here: String,
    remark: String,
}

impl Row {
    /// `None` for lines that are no rows, and for the two lines of a table's head.
    fn new(line: &str) -> Option<Self> {
        let inside = line.trim_end().strip_prefix('|')?.strip_suffix('|')?;
        let columns: Vec<&str> = inside.split('|').map(str::trim).collect();
        let [first, here, remark] = columns[..] else { panic!("not three columns: {line}") };
        if first == "there" || first.starts_with("---") {
            return None;
        }
        Some(Self { names: first.split(", ").map(name).collect(), here: here.into(), remark: remark.into() })
    }

    fn is_planned(&self) -> bool {
        self.remark.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "planned")
    }

    /// What is wrong with the second and the third column.
    fn fault(&self) -> Option<&'static str> {
        let has_link = self.here.contains("[`");
        match self.here.as_str() {
            "" => Some("the second column is empty"),
            "none" if self.remark.is_empty() => Some("why is there none?"),
            "none" => None,
            _ if self.is_planned() => has_link.then_some("what is planned cannot be linked: is it there?"),
            here if here.starts_with("`examples/") || here.starts_with("`benches/") => {
                let exist = here.split(", ").map(name).all(|path| root().join(path).exists());
                (!exist).then_some("no such file")
            }
            _ => (!has_link).then_some("nothing is linked"),
        }
    }
}

/// A name out of its backticks.
fn name(span: &str) -> String {
    let inside = span.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    inside.filter(|name| !name.contains('`')).unwrap_or_else(|| panic!("not one name in backticks: {span}")).to_owned()
}

fn rows(package: &str) -> Vec<Row> {
    read(&root().join(format!("docs/from-go/{package}.md"))).lines().filter_map(Row::new).collect()
}

#[test]
fn every_name_has_one_row_and_every_row_a_name() {
    let mut wrong = Vec::new();
    for package in PACKAGES {
        let names = names(package);
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for name in rows(package).into_iter().flat_map(|row| row.names) {
            *found.entry(name).or_default() += 1;
        }
        wrong.extend(names.iter().filter(|n| !found.contains_key(*n)).map(|n| format!("{package}: {n} is missing")));
        wrong.extend(found.keys().filter(|n| !names.contains(*n)).map(|n| format!("{package}: {n} is in no list")));
        wrong
            .extend(found.iter().filter(|(_, count)| **count > 1).map(|(n, _)| format!("{package}: {n} stands twice")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_row_says_what_stands_for_its_names() {
    let mut wrong = Vec::new();
    for package in PACKAGES {
        let rows = rows(package);
        wrong.extend(rows.iter().filter_map(|row| row.fault().map(|why| format!("{package}: {:?}: {why}", row.names))));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_only_planned() {
    let planned: Vec<Row> = PACKAGES.iter().flat_map(|package| rows(package)).filter(Row::is_planned).collect();
    assert!(planned.is_empty(), "{planned:#?}");
}

#[test]
fn rows_are_read_exactly() {
    let row = Row::new("| `Hub.Join`, `\"join\"` | [`Hub::join`] | idempotent |").unwrap();
    assert_eq!(row.names, ["Hub.Join", "\"join\""]);
    assert!(row.fault().is_none() && !row.is_planned());
    let fault = |here: &str, remark: &str| Row::new(&format!("| `X` | {here} | {remark} |")).unwrap().fault();
    assert!(fault("", "").is_some() && fault("none", "").is_some() && fault("`Feed`", "").is_some());
    assert!(fault("[`Hub`]", "planned").is_some() && fault("`examples/no.rs`", "").is_some());
    assert!(fault("`Feed`", "planned; later").is_none() && fault("`examples/echo.rs`", "").is_none());
    assert_eq!(Row::new("| there | here | remark |"), None);
    assert_eq!(Row::new("text"), None);
}

#[test]
fn lists_are_sorted_and_without_repetition() {
    for package in PACKAGES {
        for file in [format!("{package}.txt"), format!("{package}.more.txt")] {
            let path = root().join("tests/seeds").join(&file);
            if path.exists() {
                let sorted: Vec<String> = list(&file).into_iter().collect();
                assert_eq!(read(&path), sorted.join("\n") + "\n", "{file}");
            }
        }
        let both: Vec<_> =
            list(&format!("{package}.more.txt")).intersection(&list(&format!("{package}.txt"))).cloned().collect();
        assert!(both.is_empty(), "{package}: in both lists: {both:?}");
    }
}

/// The document of a package: the file whose name begins with its number.
fn document(folder: &Path, number: usize) -> PathBuf {
    let prefix = format!("{number:03}_");
    let mut paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    paths.find(is_it).unwrap_or_else(|| panic!("no {prefix}… in {}", folder.display()))
}

#[test]
fn lists_are_what_the_documents_say() {
    // Only where the documents are; the lists are committed.
    let Some(folder) = std::env::var_os("SEEDS_DIR").map(PathBuf::from) else { return };
    for (number, package) in PACKAGES.iter().enumerate() {
        let mut extract = Command::new("python3");
        extract.arg(root().join("tests/seeds/extract.py")).arg(document(&folder, number));
        let output = extract.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let extracted: BTreeSet<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        let listed = list(&format!("{package}.txt"));
        let wrong: Vec<_> = extracted.symmetric_difference(&listed).collect();
        assert!(wrong.is_empty(), "{package}: {wrong:#?}");
    }
}
