//! The `everspan` binary, as a library so that tests and chores can look into it.
//!
//! What lives here: the command line, the configuration, logs, the data directory's lock and
//! identity, signals, and the wiring of a [`Node`]. What may not: anything that decides what
//! happens to a workflow, and any knowledge of what calls mean.
//!
//! ```text
//! main ─▶ cli ─▶ Config (defaults ◀ file ◀ environment ◀ flags)
//!                  │
//!                  ├─▶ logs, panic hook
//!                  ├─▶ DataDir   (lock, everspan.json)
//!                  └─▶ Node::start ─▶ ready ─▶ signal ─▶ Node::shutdown
//! ```
//!
//! Architecture invariants: whatever a user got wrong ends the process with exit code 1 and
//! one message that names it, before anything listens. Once a node serves, a panic on any
//! thread ends the process: recovery from the log is the only way back, so that there is no
//! half-dead node.

mod admin;
pub mod cli;
mod cluster;
mod cluster_cli;
pub mod config;
pub mod data_dir;
mod local_cluster;
mod logs;
pub mod node;
mod panics;
mod placement;
mod run;
mod signals;

pub use config::Config;
pub use data_dir::DataDir;
pub use node::Node;
pub use run::run;
