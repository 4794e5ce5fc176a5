//! Shards: the pure shard and its runs, and the actors around them.
//!
//! What lives here: [`Shard`] (which run a call concerns, rows that span runs, wake-ups,
//! backlogs, retention), [`Run`] (one loaded run: its state, and what waits on it in memory),
//! the messages from one shard to another, and the actix actors that give each a mailbox. What
//! may not: gRPC, HTTP, reading or changing another shard's rows, to which only messages go.
//!
//! ```text
//! gateway ─ Request ─▶ ShardActor ─ route ─▶ ExecutionActor ─▶ Run::handle ─▶ Outcome
//!                          ▲                                                     │ rows
//!                          │ Committed                                           ▼
//!                          └────────────── replication ◀──── propose ──── Core::submit
//!                     then: replies, tasks to pollers, offers to brokers (Effects)
//! ```
//!
//! Architecture invariants: an [`Effect`] happens only after the rows of its [`Outcome`], and
//! of every outcome before it on the shard, are committed. [`Shard`] and [`Run`] do no I/O but
//! reads of their table, and know no clock; the simulator drives the same structs.

mod actor;
mod backlog;
pub mod call;
mod client;
mod copy;
mod core;
mod delete;
mod deliver;
mod execution_actor;
#[cfg(test)]
mod golden;
mod history;
mod index;
mod keys;
mod leadership;
mod lease;
mod members;
mod metrics;
mod multi_operation;
mod outbox;
mod outcome;
mod pipeline;
mod query;
mod receive;
mod reset;
mod retention;
mod routes;
mod run;
mod run_operations;
mod run_workflow_task;
mod shard;
mod start;
mod update;
mod wait;
mod warnings;
mod wire;

pub use client::{Options, ShardTasks, Shards};
pub use members::ReplicaStanding;
pub use outbox::{Delivery, Outbox, ShardMap};
pub use outcome::{CallId, Effect, Outcome};
pub use pipeline::{Pipeline, Released, Submitted};
pub use reset::reset_base;
pub use retention::Retention;
pub use routes::{Placed, REPLICAS, Routes, placement};
pub use run::Run;
pub use shard::{Route, Shard};
