//! The cluster's own state: its nodes and what is placed on them, namespaces, search attributes,
//! configuration of task queues.
//!
//! What lives here: [`Meta`], the pure rules; [`MetaHandle`], what everybody reads from (a
//! snapshot, swapped as a whole) and changes through; this node's replica of Raft group 0 under
//! it. What may not: anything that concerns one execution.
//!
//! ```text
//! gateway ─ register ─▶ MetaHandle ─ Change ─▶ leader of group 0 ─ Meta ─▶ rows ─▶ log
//!                           ▲                                                      │
//! gateway ─ every call ─▶ snapshot ◀─── on every node, what is committed ◀─────────┘
//! ```
//!
//! Architecture invariant: a snapshot holds only what group 0 has committed.

mod change;
mod group;
mod handle;
mod members;
mod namespace;
mod plan;
mod queue_config;
mod state;

pub use group::GROUP;
pub use handle::MetaHandle;
pub use members::{Member, MemberState, Placement};
pub use namespace::{Namespace, State};
pub use plan::{Action, NodeFacts, ShardFacts, plan};
pub use queue_config::{QueueConfig, QueueName, RateLimit};
pub use state::{AttributeTypes, Meta, Snapshot};
