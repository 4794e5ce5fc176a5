//! Deterministic simulation of a node: the shards, brokers, log and rows of the server on a
//! virtual clock and a disk that breaks.
//!
//! What lives here: a shell around the same pure structs that the actors drive
//! ([`everspan_shard::Shard`], [`everspan_shard::Run`], [`everspan_shard::Pipeline`],
//! [`everspan_broker::Queue`]), the real log over [`everspan_replication::faulty`], simulated
//! clients and workers, faults, and a checker. What may not: a real clock, threads or chance
//! within a seed, decisions about runs, and knowledge of the implementation in the checker, but
//! for one check: that a history folds to the stored state.
//!
//! ```text
//! clients ─┐  lost, late, twice   ┌───────────── Life ─────────────┐  synced, torn, lost
//!          ├──────── Packet ─────▶│ ShardShell   Broker   log  rows │◀───── FaultyFs, SimStore
//! workers ─┘◀─ answers ─ Record ◀─│  mailboxes, each at its pace    │       power off, restart
//!                          │      └────────────────────────────────┘
//!                          ▼ what left the node
//!                        check ◀─ histories, after all is over
//! ```
//!
//! Everything that happens is an event of one agenda, and chance comes from the seed alone: a
//! seed that fails, fails again. `docs/simulation.md` says how to run it, and what is checked.

mod broker;
mod check;
mod check_messages;
mod commands;
mod deliver;
mod ending;
mod families;
mod faults;
mod histories;
mod node;
mod operations;
mod payload;
mod record;
mod rng;
mod run;
mod sched;
mod setup;
mod shard;
mod store;
mod trace;
mod updates;
mod worker;
mod worker_calls;
mod workload;
mod world;

pub use setup::{MUTATIONS, Mutation};
pub use world::{Counts, Report, run};
