//! The house's rules, checked: who may depend on whom, what files look like, and documents
//! that say what the code does.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::FileDescriptorSet;
use toml_edit::DocumentMut;

/// Lines from which a file is to be split.
const LINES_MAX: usize = 900;

/// Who may depend on whom. `docs/architecture.md` says the same, and why.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("proto", &[]),
    ("types", &["proto"]),
    ("calendar", &["proto", "types"]),
    ("admin", &[]),
    ("storage", &["types"]),
    ("execution", &["calendar", "proto", "types"]),
    ("visibility", &["proto", "types"]),
    ("replication", &["storage", "types"]),
    ("peers", &["types"]),
    ("broker", &["peers", "proto", "types"]),
    ("meta", &["peers", "proto", "replication", "storage", "types"]),
    (
        "shard",
        &["broker", "execution", "peers", "proto", "replication", "storage", "types", "visibility"],
    ),
    ("gateway", &["broker", "execution", "meta", "proto", "shard", "types", "visibility"]),
    (
        "sim",
        &[
            "broker",
            "execution",
            "meta",
            "proto",
            "replication",
            "shard",
            "storage",
            "types",
            "visibility",
        ],
    ),
    (
        "server",
        &[
            "admin",
            "broker",
            "execution",
            "gateway",
            "meta",
            "peers",
            "proto",
            "replication",
            "shard",
            "storage",
            "types",
            "visibility",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn manifest(path: &str) -> DocumentMut {
    read(path).parse().unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The folders in `crates/`.
fn crates() -> BTreeSet<String> {
    fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Paths of the manifests of all members.
fn manifests() -> Vec<String> {
    let others = ["tests/rust", "benches", "xtask"].map(str::to_owned);
    let members = crates().into_iter().map(|name| format!("crates/{name}")).chain(others);
    members.map(|member| format!("{member}/Cargo.toml")).collect()
}

/// What a manifest depends on, in any way.
fn dependencies(manifest: &DocumentMut) -> BTreeSet<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|table| manifest.get(table)?.as_table_like())
        .flat_map(|table| table.iter().map(|(name, _)| name.to_owned()))
        .collect()
}

/// Files of the checkout that people write, with their text.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        const SKIPPED: [&str; 8] = [
            "target",
            ".git",
            ".venv",
            "node_modules",
            "__pycache__",
            "everspan-data",
            ".pytest_cache",
            "expected",
        ];
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    const WRITTEN: [&str; 9] = ["rs", "py", "md", "toml", "sh", "go", "ts", "java", "service"];
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| WRITTEN.iter().any(|w| e == *w)))
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// Rows of a Markdown file's tables: cells without their blanks.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| !line.starts_with("|---"))
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn dependencies_go_one_way() {
    let names: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(crates(), names, "ALLOWED in this file and crates/");
    for (name, allowed) in ALLOWED {
        for dependency in dependencies(&manifest(&format!("crates/{name}/Cargo.toml"))) {
            if let Some(other) = dependency.strip_prefix("everspan-") {
                assert!(allowed.contains(&other), "{name} may not depend on {other}");
            }
        }
    }
}

#[test]
fn the_architecture_page_says_who_may_depend_on_whom() {
    let page = read("docs/architecture.md");
    let table: BTreeMap<String, Vec<String>> = rows(&page)
        .into_iter()
        .filter(|row| row.len() == 3)
        .filter_map(|row| Some((code(&row[0]).first()?.clone(), code(&row[1]))))
        .collect();
    for (name, allowed) in ALLOWED {
        let said = table.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(said, allowed, "{name}");
    }
}

#[test]
fn every_dependency_is_used_and_explained() {
    let workspace = manifest("Cargo.toml");
    let declared: BTreeSet<String> = workspace["workspace"]["dependencies"]
        .as_table_like()
        .unwrap()
        .iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.starts_with("everspan-"))
        .collect();
    let used: BTreeSet<String> = manifests()
        .iter()
        .flat_map(|path| dependencies(&manifest(path)))
        .filter(|name| !name.starts_with("everspan-"))
        .collect();
    assert_eq!(declared, used, "workspace dependencies, and what members use");
    let explained: BTreeSet<String> =
        rows(&read("docs/dependencies.md")).iter().flat_map(|row| code(&row[0])).collect();
    assert_eq!(explained, used, "docs/dependencies.md, and what members use");
}

#[test]
fn every_crate_opens_with_its_page() {
    for name in crates() {
        let text = read(&format!("crates/{name}/src/lib.rs"));
        assert!(text.starts_with("//! "), "{name}: lib.rs opens with what the crate is");
        let page: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let page = page.join("");
        for words in ["What lives here", "What may not"] {
            assert!(page.contains(words), "{name}: its page does not say {words:?}");
        }
        let toml = read(&format!("crates/{name}/Cargo.toml"));
        assert!(toml.contains("[lints]\nworkspace = true"), "{name}: workspace lints");
    }
}

#[test]
fn files_are_not_too_long_and_nothing_is_left_behind() {
    // Put together, so that this file does not have them.
    let left =
        ["TO", "FIX"].map(|head| format!("{head}{}", if head == "TO" { "DO" } else { "ME" }));
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines: split it by what happens");
        for word in &left {
            assert!(!text.contains(word.as_str()), "{name} has a {word}");
        }
        if name.ends_with(".rs") {
            assert!(text.ends_with('\n'), "{name} does not end with a line break");
        }
    }
}

#[test]
fn the_configuration_reference_is_current() {
    assert!(
        read("config/everspan.toml") == everspan_server::config::reference(),
        "config/everspan.toml is out of date: cargo xtask config"
    );
}

/// Every RPC of both services, by name.
fn rpcs() -> Vec<String> {
    let set = FileDescriptorSet::decode(everspan_proto::DESCRIPTORS).unwrap();
    set.file
        .iter()
        .flat_map(|file| file.service.iter())
        .filter(|service| ["WorkflowService", "OperatorService"].contains(&service.name()))
        .flat_map(|service| service.method.iter().map(|method| method.name().to_owned()))
        .collect()
}

#[test]
fn the_compatibility_page_has_every_rpc_once_and_tells_the_truth() {
    let page = read("docs/compatibility.md");
    let (table, _) = page.split_once("# Features").unwrap();
    let mut said = BTreeMap::new();
    for row in rows(table).into_iter().filter(|row| row.len() == 3 && row[0] != "RPC") {
        let status = row[1].clone();
        assert!(
            status == "works" || status == "not yet" || status.starts_with("partly: "),
            "{}: {status}",
            row[0]
        );
        assert!(status == "not yet" || !code(&row[2]).is_empty(), "{}: no test named", row[0]);
        assert_eq!(said.insert(row[0].clone(), status), None, "{} is there twice", row[0]);
    }
    for test in rows(&page).iter().filter_map(|row| row.get(2)).flat_map(|cell| code(cell)) {
        let there = root().join("tests").join(&test).exists() || root().join(&test).exists();
        assert!(there, "the page names {test}, which is not there");
    }
    let there: BTreeSet<String> = rpcs().into_iter().collect();
    assert_eq!(said.keys().cloned().collect::<BTreeSet<_>>(), there);
    for (_, name, works) in everspan_gateway::RPCS {
        let status = &said[*name];
        assert_eq!(status != "not yet", *works, "{name}: the page says {status:?}");
    }
    assert_eq!(everspan_gateway::RPCS.len(), there.len());
}

#[test]
fn the_metrics_page_has_every_metric() {
    let mut there = BTreeSet::new();
    for (name, text) in sources() {
        if !name.starts_with("crates/") || !name.ends_with(".rs") || !name.contains("/src/") {
            continue;
        }
        for piece in text.split('"').skip(1).step_by(2) {
            let is_name = piece.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if piece.starts_with("everspan_") && is_name && text.contains("prometheus") {
                there.insert(piece.to_owned());
            }
        }
    }
    let said: BTreeSet<String> =
        rows(&read("docs/metrics.md")).iter().flat_map(|row| code(&row[0])).collect();
    assert_eq!(said, there);
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (name, text) in sources().into_iter().filter(|(name, _)| name.ends_with(".md")) {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{name} links to {link}");
        }
    }
}
