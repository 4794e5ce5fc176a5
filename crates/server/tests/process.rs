//! The binary as an operator meets it when something is wrong: one message that names it,
//! exit code 1, no panic.

#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use everspan_server::DataDir;

fn everspan(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_everspan"));
    command.args(arguments);
    // What the caller's environment says of tests is not meant for the process.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("EVERSPAN_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Checks that it was refused, by a message with these words.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    for word in ["panicked", "backtrace", "RUST_BACKTRACE"] {
        assert!(!said.contains(word), "{said}");
    }
}

fn dev(dir: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["dev", "--port", "0", "--http-port", "0", "--data-dir"];
    arguments.push(dir.to_str().unwrap());
    arguments.extend(more);
    everspan(&arguments).output().unwrap()
}

#[test]
fn version() {
    let output = everspan(&["--version"]).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("everspan {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn flags() {
    refused(&everspan(&["dev", "--no-such"]).output().unwrap(), 2, &["--no-such"]);
    refused(&everspan(&["server"]).output().unwrap(), 2, &["--config"]);
    let output = everspan(&["dev", "--search-attribute", "A=Blob"]).output().unwrap();
    refused(&output, 2, &["Blob", "KeywordList"]);
}

#[test]
fn configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let path = file.to_str().unwrap();
    let server = || everspan(&["server", "--config", path]).output().unwrap();
    refused(&server(), 1, &[path, "No such file"]);
    std::fs::write(&file, "\n[grpc]\nadress = '127.0.0.1:1'\n").unwrap();
    refused(&server(), 1, &["node.toml:3:", "grpc.adress", "did you mean `address`?"]);
    std::fs::write(&file, "").unwrap();
    let output = everspan(&["server", "--config", path])
        .env("EVERSPAN_GRPC_ADDRESS", "everywhere")
        .output()
        .unwrap();
    refused(&output, 1, &["EVERSPAN_GRPC_ADDRESS", "everywhere"]);
}

#[test]
fn the_printed_configuration_is_the_reference() {
    let output = everspan(&["config"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), everspan_server::config::reference());
}

#[test]
fn data_directories() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mine = DataDir::open(&data, Some(2)).unwrap();
    let pid = std::process::id().to_string();
    refused(&dev(&data, &[]), 1, &["in use", data.to_str().unwrap(), &pid]);
    drop(mine);
    refused(&dev(&data, &["--shards", "3"]), 1, &["2 shards, not 3", data.to_str().unwrap()]);
    let foreign = dir.path();
    refused(&dev(foreign, &[]), 1, &["neither empty nor", foreign.to_str().unwrap()]);
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    refused(&dev(&file, &[]), 1, &[file.to_str().unwrap(), "cannot make it"]);
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let other = ["dev", "--ephemeral", "--http-port", "0", "--port", &port];
    refused(&everspan(&other).output().unwrap(), 1, &[&port, "gRPC", "in use"]);
}
