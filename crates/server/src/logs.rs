//! Log lines: `tracing` to standard error, for people or for machines.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{Log, LogFormat};

/// Libraries whose "info" is of no use to an operator; a filter that names them wins.
const QUIET: &str = "actix_server=warn,h2=warn,raft_engine=warn,sled=warn";

/// Begins logging. Only the first call of a process has an effect.
pub(crate) fn init(log: &Log) {
    // Checked when the configuration was read.
    let filter = EnvFilter::new(format!("{QUIET},{}", log.level.as_str()));
    let is_terminal = stderr().is_terminal();
    let is_json = match log.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let begun = if is_json {
        let layer = fmt::layer().json().flatten_event(true).with_writer(stderr);
        registry.with(layer).try_init()
    } else {
        registry.with(fmt::layer().with_ansi(is_terminal).with_writer(stderr)).try_init()
    };
    // A test may have begun it before.
    drop(begun);
}
