//! Generates the API's types from the protobuf sources that `temporalio-protos` ships.
//!
//! The sources are not copied into this repository: cargo tells where the crate lies. The
//! descriptor set that the crate itself builds is of no use: it has lost its options, and with
//! them the `google.api.http` annotations that the HTTP routes are made of.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

type Error = Box<dyn std::error::Error>;

const SOURCES: &str = "temporalio-protos";
/// Where its files import from, in its folder `protos`.
const INCLUDES: [&str; 2] = ["api_upstream", "."];
/// What the server speaks or embeds; what these import comes with them.
const FILES: [&str; 5] = [
    "temporal/api/workflowservice/v1/service.proto",
    "temporal/api/operatorservice/v1/service.proto",
    "temporal/api/errordetails/v1/message.proto",
    "temporal/api/sdk/v1/workflow_metadata.proto",
    "google/rpc/status.proto",
];

/// `FileDescriptorSet.file`.
const FILE: u32 = 1;
/// `FileDescriptorProto.name`.
const NAME: u32 = 1;
/// `FileDescriptorProto.package`.
const PACKAGE: u32 = 2;
/// `FileDescriptorProto.dependency`.
const DEPENDENCY: u32 = 3;
/// `FileDescriptorProto.source_code_info`: comments, which make up most of the set.
const COMMENTS: u32 = 9;

/// Packages that are kept. The rest are options of other generators.
fn is_kept(package: &str) -> bool {
    ["temporal.api", "google"].iter().any(|p| {
        package.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

fn main() -> Result<(), Error> {
    println!("cargo:rerun-if-changed=build.rs");
    let protos = sources()?.join("protos");
    println!("cargo:rerun-if-changed={}", protos.display());
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(INCLUDES.map(|i| protos.join(i)))?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let mut set = compiler.file_descriptor_set();
    set.file.retain(|file| is_kept(file.package()));
    // That set's messages know no options of the API's own, so the copy for run time is
    // filtered on the wire.
    fs::write(out.join("descriptors.bin"), kept(&compiler.encode_file_descriptor_set())?)?;

    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]).enable_type_names().include_file("api.rs");
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .compile_fds_with_config(set, config)?;
    Ok(())
}

/// The folder of [`SOURCES`].
fn sources() -> Result<PathBuf, Error> {
    // What is being built was fetched already, so this seldom needs the network; it does where
    // crates that only tests need were not.
    let metadata = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let package = packages.iter().find(|p| p["name"] == SOURCES);
    let manifest = package.and_then(|p| p["manifest_path"].as_str());
    let folder = manifest.and_then(|m| Path::new(m).parent());
    Ok(folder.ok_or(format!("cargo metadata has no {SOURCES}"))?.to_owned())
}

fn metadata(flags: &[&str]) -> Result<serde_json::Value, Error> {
    let done = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
        .arg(env::var("TARGET")?)
        .args(flags)
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    if !done.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// The kept files of an encoded `FileDescriptorSet`, without comments, and without imports of
/// files that are not kept: pools of descriptors and clients of reflection refuse those.
fn kept(raw: &[u8]) -> Result<Vec<u8>, Error> {
    let mut files = Vec::new();
    for (_, body) in fields(raw)?.into_iter().filter(|(n, _)| *n == FILE) {
        let file = fields(body)?;
        let package = file.iter().find(|f| f.0 == PACKAGE).map_or(&b""[..], |f| f.1);
        if is_kept(std::str::from_utf8(package)?) {
            files.push(file);
        }
    }
    let names: HashSet<&[u8]> =
        files.iter().flatten().filter(|f| f.0 == NAME).map(|f| f.1).collect();
    let mut out = Vec::with_capacity(raw.len());
    for file in &files {
        let mut body = Vec::new();
        for (number, value) in file {
            let is_dangling = *number == DEPENDENCY && !names.contains(value);
            if !is_dangling && *number != COMMENTS {
                put(*number, value, &mut body);
            }
        }
        put(FILE, &body, &mut out);
    }
    Ok(out)
}

fn put(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Splits a message whose fields are all length-delimited into (number, body). A file has
/// others only for public and weak imports, which are counted among the imports: they are
/// refused rather than written wrongly.
fn fields(mut raw: &[u8]) -> Result<Vec<(u32, &[u8])>, Error> {
    let mut all = Vec::new();
    while !raw.is_empty() {
        let (number, wire) = decode_key(&mut raw)?;
        if wire != WireType::LengthDelimited {
            return Err(format!("field {number}: unexpected wire type {wire:?}").into());
        }
        let length = usize::try_from(decode_varint(&mut raw)?)?;
        let (value, rest) = raw.split_at_checked(length).ok_or("truncated descriptor")?;
        all.push((number, value));
        raw = rest;
    }
    Ok(all)
}
