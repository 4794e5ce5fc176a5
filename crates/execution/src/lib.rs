//! The pure state machine of one workflow run.
//!
//! What lives here: what happens to a run when it is started, called, handed to a worker,
//! answered, or woken by time. What may not: clocks, randomness, I/O, `async`, knowledge of
//! shards or storage. Every decision takes `(Ctx { now, limits, retention }, input)` and leaves a
//! [`Transition`]: the events to append, the tasks to offer or withdraw, whether the run
//! closed.
//!
//! ```text
//! request ─▶ Turn ─ checks ─▶ events ─▶ fold (state = what the events say) ─▶ Transition
//!              │                                                              events, tasks
//!              └─ error: state untouched
//! ```
//!
//! Architecture invariants: history is the truth, so [`fold`] alone changes what events
//! speak of; what is not in history (attempts, heartbeats, task stamps) is changed beside
//! it and named in [`fold::Durable`]'s documentation.
//!
//! Where things are: a file for each thing that happens (`signal`, `cancel` … in
//! [`Turn`]'s modules), a file for each command of a worker under [`commands`], time in
//! `wake`. A new command type is a file in `commands/` and a line in its table; a new kind
//! of deadline is a line in `wake::deadlines` and one in `Turn::wake`.

mod activity;
mod activity_options;
mod builds;
mod child;
mod close;
pub mod commands;
pub mod convert;
mod cron;
mod describe;
mod execution_options;
mod external;
mod field_mask;
pub mod fold;
pub mod message;
mod next;
pub mod pause;
pub mod problems;
mod proto_serde;
pub mod reset;
pub mod retry;
mod signal;
mod speculative;
mod start;
pub mod state;
mod tracked;
mod turn;
pub mod update;
pub mod versioning;
mod wake;
mod workflow_task;

pub use activity::{ActivityRef, ActivityTaken, Heartbeat};
pub use activity_options::{Original, Reset, Selector, Unpause, select};
pub use cron::validate as validate_cron;
pub use describe::{describe, visibility_status};
pub use execution_options::AttachedRequest;
pub use next::{NextRun, may_repeat};
pub use speculative::speculative_deadline;
pub use start::{Chain, Start, start};
pub use state::State;
pub use turn::{Ctx, PendingTask, TaskChange, Transition, Turn, soft_task};
pub use wake::next_deadline;
pub use workflow_task::{Completion, TransientEvents, transient_events};
