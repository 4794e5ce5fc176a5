//! What nodes ask each other about task queues. The answer to each question is written beside it.

use everspan_types::{Offer, Poller, QueueKey, ShardId, StartedTask};
use serde::{Deserialize, Serialize};

/// A question. Those that went to a node that is not the owner (whoever asked saw other nodes
/// than it does) are passed on, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// [`Polled`].
    Poll {
        queue: QueueKey,
        poller: Poller,
        /// In nanoseconds.
        wait: u64,
        is_passed_on: bool,
    },
    /// Nothing.
    Offers { offers: Vec<Offer>, is_passed_on: bool },
    /// Nothing.
    Refresh { shard: ShardId },
    /// `QueueStatus`.
    Describe { queue: QueueKey },
    /// Nothing.
    ShutDown { queues: Vec<QueueKey>, worker_instance_key: String, identity: String },
    /// Nothing.
    Abandon { sticky: QueueKey },
}

/// What came of a poll.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Polled {
    /// A task.
    Task(StartedTask),
    /// Nothing, in all the time.
    Empty,
    /// The queue is another node's now.
    Moved,
}
