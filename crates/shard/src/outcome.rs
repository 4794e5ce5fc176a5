//! What a decision of a shard amounts to: rows to replicate, and what happens once they are.

use everspan_storage::Batch;
use everspan_types::{Error, Offer, Result, ShardId, StartedTask};

use crate::{
    call::{Reply, Request},
    run::Run,
};

/// A call that waits for its answer; the shell that made it knows whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// What happens when the rows of its [`Outcome`] are committed.
#[derive(Debug)]
pub enum Effect {
    /// Answer a call.
    Reply(CallId, Result<Reply>),
    /// Hand a task to the broker that asked for it, or tell it that the offer is stale.
    Task(CallId, Result<StartedTask>),
    /// Offer a task to its queue's broker.
    Offer(Offer),
    /// Deliver the messages to this shard, up to this sequence.
    Deliver(ShardId, u64),
    /// Route a call anew: the run that it waited on closed.
    Route(CallId, Box<Request>),
}

/// Rows, and effects that wait for them.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One atomic change; may be empty.
    pub batch: Batch,
    /// In order.
    pub effects: Vec<Effect>,
    /// Runs that began in this change; they are to be loaded as they are.
    pub runs: Vec<Run>,
}

impl Outcome {
    /// An answer that changes nothing.
    #[must_use]
    pub fn reply(call: CallId, reply: Result<Reply>) -> Self {
        Self { effects: vec![Effect::Reply(call, reply)], ..Self::default() }
    }

    /// A refusal.
    #[must_use]
    pub fn refuse(call: CallId, error: Error) -> Self {
        Self::reply(call, Err(error))
    }
}
