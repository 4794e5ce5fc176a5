//! Raft groups over one shared log: proposals in, committed entries out.
//!
//! What lives here: [`Node`], the groups of one node with raft-rs inside and one raft-engine
//! log under all of them, driven by `propose` and `poll` (`node.rs` has what comes from here,
//! `replicas.rs` what comes from other replicas, `turn.rs` how it is written and told); [`Runner`],
//! the thread around it;
//! [`faulty`], a file system that loses and tears what was not synced, for the simulator.
//! What may not: knowledge of what entries mean.
//!
//! ```text
//! propose(group, seq, data) ─┐             ┌─ one write and one fsync ─▶ raft-engine
//! propose(group, seq, data) ─┼─▶ Node::poll ┤   for all groups
//! propose(group, seq, data) ─┘             └─▶ Event::Committed { seq, index } to each group
//! ```
//!
//! A group has one replica or several. [`Node::tick`] is Raft's clock, [`Node::receive`] takes
//! what a peer sent, [`Node::take_messages`] gives what is for peers; how it gets there, and
//! whether it does, is not known here. A replica that lacks entries which the leader let go is told
//! so ([`Event::Behind`]), fetches rows by ways that are not known here either, and says when it has
//! them ([`Node::restored`]). Which nodes have replicas is told by [`Node::set_members`]; whoever leads
//! sees to it (`members.rs`). `tests/replicas.rs` runs three to five under faults.
//!
//! What arrives while the disk is busy waits in the channel and shares the next fsync: group
//! commit needs no timer.
//!
//! Architecture invariants: an entry is told as committed only after the write that holds it
//! was synced. A write that fails is tried again as it was; nothing after it is written
//! before. After an fsync that failed nothing is written at all, since nobody can say what is
//! on the disk. Where one proposal of a group is refused, so is every later one that may have
//! been decided on top of it.

mod error;
mod event;
pub mod faulty;
mod group;
mod guard;
mod inspect;
mod members;
mod metrics;
mod node;
mod replicas;
mod runner;
mod turn;
mod wire;

pub use error::{Error, Result};
pub use event::Event;
pub use group::Rows;
pub use members::{Members, Standing, Trace};
pub use node::{Config, Node, WAITING_BYTES_MAX};
pub use runner::{Handle, Outgoing, QUEUED_BYTES_MAX, Runner, Sink};
