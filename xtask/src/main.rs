//! Chores: `cargo xtask COMMAND`. Standard library only, so that it builds in a moment.
//!
//! What lives here: what people and CI do with the checkout as a whole. What may not: knowledge
//! of the server; a chore that needs it calls the binary.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

const HELP: &str = "\
cargo xtask COMMAND

  test [--no-rust] [--no-sdk] [-- PYTEST…]
            all tests: the crates', then the whole server's from the Python SDK;
            what follows -- goes to pytest
  ci        what a change must pass: formatting, lints, dependencies, then `test`
  config    writes config/everspan.toml
  golden    writes the golden files of stored bytes: of versions that were never released only
";

type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test", flags @ ..] => test(flags),
        ["ci"] => ci(),
        ["config"] => config(),
        ["golden"] => golden(),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("what to do?\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The checkout.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo put this binary, and puts the server's.
fn binaries() -> Result<PathBuf> {
    let own = env::current_exe().map_err(|e| format!("where am I? {e}"))?;
    own.parent().map(Path::to_owned).ok_or_else(|| "where am I?".into())
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end, saying which and how long it took.
fn run(command: &mut Command) -> Result {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    if let Some(name) = Path::new(&shown).file_name() {
        shown = name.to_string_lossy().into_owned();
    }
    for argument in command.get_args() {
        shown.push(' ');
        shown.push_str(&argument.to_string_lossy());
    }
    eprintln!("── {shown}");
    let began = Instant::now();
    let status = command.status().map_err(|e| format!("{shown}: {e}"))?;
    eprintln!("── {:.0} s: {shown}", began.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Whether a command ends well, without showing what it says.
fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn test(flags: &[&str]) -> Result {
    let (mut rust, mut sdk, mut pytest) = (true, true, &[][..]);
    for (at, flag) in flags.iter().enumerate() {
        match *flag {
            "--no-rust" => rust = false,
            "--no-sdk" => sdk = false,
            "--" => {
                pytest = &flags[at + 1..];
                break;
            }
            other => return Err(format!("test: {other:?} is not known\n\n{HELP}")),
        }
    }
    // The whole workspace, as the tests need it, so that nothing is built twice.
    run(cargo().args(["build", "--workspace", "--bin", "everspan"]))?;
    if rust {
        run(cargo().args(["test", "--workspace"]))?;
    }
    if sdk {
        let python = python()?;
        run(Command::new(python)
            .args(["-m", "pytest"])
            .args(pytest)
            .current_dir(root().join("tests"))
            .env("EVERSPAN_BIN", binaries()?.join("everspan")))?;
    }
    Ok(())
}

/// The interpreter of a virtual environment with what the tests need, beside the build; made
/// again when the requirements change.
fn python() -> Result<PathBuf> {
    let binaries = binaries()?;
    let venv = binaries.parent().unwrap_or(&binaries).join("venv");
    let python = venv.join("bin").join("python");
    let requirements = root().join("tests/sdk/requirements.txt");
    let wanted = fs::read(&requirements).map_err(|e| format!("{}: {e}", requirements.display()))?;
    let marker = venv.join("requirements.txt");
    if python.exists() && fs::read(&marker).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&requirements))?;
    fs::write(&marker, wanted).map_err(|e| format!("{}: {e}", marker.display()))?;
    Ok(python)
}

fn ci() -> Result {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    deny()?;
    test(&[])
}

/// Dependencies: licences, sources, bans; and known vulnerabilities where their database can
/// be fetched.
fn deny() -> Result {
    if !succeeds(cargo().args(["deny", "--version"])) {
        return Err("cargo-deny is missing: cargo install cargo-deny --locked".into());
    }
    run(cargo().args(["deny", "--all-features", "check", "bans", "licenses", "sources"]))?;
    if succeeds(cargo().args(["deny", "fetch", "db"])) {
        run(cargo().args(["deny", "--all-features", "check", "advisories"]))
    } else {
        eprintln!("── advisories: NOT checked, the RustSec database cannot be fetched from here");
        Ok(())
    }
}

/// Writes the golden files of the versions that are written now; see CONTRIBUTING.md.
fn golden() -> Result {
    // As `test` builds, so that nothing is built twice.
    run(cargo().args(["test", "--workspace", "golden_"]).env("EVERSPAN_GOLDEN", "write"))?;
    run(Command::new("git")
        .args(["status", "--short", "--", "crates/*/tests/golden"])
        .current_dir(root()))
}

/// Writes the reference of the configuration.
fn config() -> Result {
    run(cargo().args(["build", "--workspace", "--bin", "everspan"]))?;
    let output = Command::new(binaries()?.join("everspan"))
        .arg("config")
        .output()
        .map_err(|e| format!("everspan config: {e}"))?;
    if !output.status.success() {
        return Err(format!("everspan config: {}", output.status));
    }
    let file = root().join("config/everspan.toml");
    fs::write(&file, output.stdout).map_err(|e| format!("{}: {e}", file.display()))?;
    eprintln!("wrote {}", file.display());
    Ok(())
}
