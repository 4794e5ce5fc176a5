//! Task queues: polls matched to offered tasks.
//!
//! What lives here: [`Queue`], the pure matcher of one task queue, and [`Brokers`], the actors
//! that hold the queues of a node. What may not: any copy of the backlog that would have to
//! survive. A pending task lives in its execution's shard; what is here is soft and rebuilt by
//! asking the shards.
//!
//! ```text
//! shard ─ Offer ─▶ Queue ◀─ poll ─ gateway
//!                    │ match: priority, then turns of fairness keys, then time; rate limits
//!                    ▼
//!          TaskSource::start ─▶ shard records the start ─▶ StartedTask ─▶ poll's answer
//!
//! Brokers on another node ─ Question ─▶ Brokers::answer: the owner of the queue
//!
//! Queue = waiting (tasks in memory, in order) + unread (where shards go on)
//!       + pollers + config and rate (limits)
//! ```
//!
//! Architecture invariants: a poll is answered once; an offer is started once for each time it
//! is made; no startable offer waits beside a waiting poll, but for rate limits and while a
//! better one may be on its way from a shard; memory is bounded by [`queue::OFFERS_MAX`] a
//! queue, and what it keeps are the best, while `unread` says where the others are.

mod actor;
mod backlog;
mod brokers;
mod config;
mod metrics;
mod owners;
mod pollers;
pub mod queue;
mod rate;
#[cfg(test)]
mod tests;
mod unread;
mod waiting;
mod wire;

pub use backlog::{BACKLOG_PAGE, BacklogAsk, BacklogCounts, BacklogPage, Lane, Place, Read};
pub use brokers::{Brokers, StartError, TaskSource};
pub use config::{QueueConfig, QueueConfigs};
pub use metrics::count_eager;
pub use pollers::{POLLER_MEMORY, POLLERS_MAX, POLLS_MAX, PollerInfo};
pub use queue::{Queue, QueueStatus};
