//! What a node keeps on disk beside the log.
//!
//! What lives here: [`Batch`] (one atomic change), the narrow [`Store`] trait with its two
//! implementations ([`SledStore`], which ships, and [`MemStore`], which forgets what was not
//! flushed), and [`Table`] (a shard's view: what is proposed, committed, being checkpointed
//! and stored, newest first). What may not: knowledge of what rows mean, threads, clocks.
//!
//! ```text
//! stage(seq, batch) ─▶ staged ─ commit(seq) ─▶ committed ─ begin_checkpoint ─▶ frozen
//!                                                                                │ write, flush
//!            get, scan: staged, committed, frozen, store                        ▼
//!                                                                              store
//! ```
//!
//! Architecture invariants: the store is never on the way of a call's change, since a write to
//! sled costs tens of microseconds a record; the log makes changes durable. The index up to
//! which a shard is applied is written once its rows are flushed, so that a crash at any point,
//! and a write that failed half way, are mended by applying the log from that index again.

mod batch;
mod copy;
mod mem;
mod sled_store;
mod store;
mod table;

pub use batch::Batch;
pub use copy::{Copying, Page};
pub use mem::MemStore;
pub use sled_store::{Mode, SledOptions, SledStore};
pub use store::{Error, Ops, Result, Store, conformance};
pub use table::{Checkpoint, Table, remove_rows};
