//! Words shared by every crate.
//!
//! What lives here: time, identifiers, slots, task tokens, the versioned envelope around
//! stored and sent bytes, limits, and the error that a call is answered with. What may not: I/O,
//! clocks, randomness, decisions. Everything is plain data with total functions on it; but for
//! [`golden`], which is for tests alone and reads and writes files.

mod envelope;
mod error;
pub mod golden;
mod id;
mod limits;
mod priority;
mod task;
mod time;
mod token;
pub mod wire;

pub use envelope::{EnvelopeError, decode, encode};
pub use error::{Error, Result};
pub use id::{NamespaceId, RunId, SLOTS, ShardId, slot};
pub use limits::Limits;
pub use priority::{
    FAIRNESS_KEY_MAX, PRIORITY_DEFAULT, PRIORITY_LAST, Priority, WEIGHT_DEFAULT, check_priority,
    lane, merge_priority, weight_thousandths,
};
pub use task::{Offer, Poller, QueueKey, RESERVED_QUEUE, StartedTask, TaskKind, TaskRef};
pub use time::Time;
pub use token::{QueryToken, TaskToken};
