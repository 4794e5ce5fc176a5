//! Rows of a shard, by the first byte of their keys:
//!
//! | kind | key | value |
//! |---|---|---|
//! | `c` | namespace, workflow ID | [`Current`]: the latest run of the ID |
//! | `r` | run, row within the run | `everspan_execution::State` rows |
//! | `h` | run, first event ID | a batch of events as an encoded `History` |
//! | `t` | time, run | nothing: when the run is to be woken, or deleted once it is closed |
//! | `q` | queue, priority, lane, sequence, run, task | [`Backlog`]: a task that waits for a worker |
//! | `v` | see `everspan_visibility` | list index |
//! | `o` | receiving shard, sequence | a message that is on its way: `execution::message` |
//! | `O` | | sequence of the last message sent |
//! | `i` | sending shard | sequence of the last message taken from it |
//! | `n` | nothing | how many runs are open, 64 bits |
//!
//! Numbers are big-endian, so that rows stand in the order in which they are read.

use everspan_broker::{Lane, Place};
use everspan_execution::PendingTask;
use everspan_types::{
    EnvelopeError, Error, NamespaceId, Priority, QueueKey, RunId, ShardId, TaskKind, TaskRef, Time,
    decode, encode,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const VERSION: u8 = 1;

/// Key of the number of open runs.
pub(crate) const OPEN_RUNS: &[u8] = b"n";

/// Prefix of the list index.
pub(crate) const VISIBILITY: &[u8] = b"v";

/// The latest run of a workflow ID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Current {
    pub(crate) run_id: RunId,
    pub(crate) first_run_id: RunId,
    pub(crate) start_request_id: String,
    /// Request IDs of starts that were attached to the run.
    pub(crate) attached_request_ids: Vec<String>,
    /// A `WorkflowExecutionStatus`; a paused run is `Running` here.
    pub(crate) status: i32,
}

impl Current {
    /// Whether a start of this request ID was answered with this run.
    pub(crate) fn is_of_request(&self, request_id: &str) -> bool {
        self.start_request_id == request_id
            || self.attached_request_ids.iter().any(|id| id == request_id)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        encode(VERSION, self)
    }
    pub(crate) fn from_bytes(raw: &[u8]) -> Result<Self, EnvelopeError> {
        decode(VERSION, raw)
    }
}

impl Current {
    /// Whether the run is open.
    pub(crate) fn is_running(&self) -> bool {
        use everspan_proto::enums::WorkflowExecutionStatus as Status;
        self.status == Status::Running as i32 || self.status == Status::Paused as i32
    }

    /// Whether the ID of this run, which is closed, may be used again.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` with the run's details.
    pub(crate) fn check_reuse(
        &self,
        workflow_id: &str,
        policy: everspan_proto::enums::WorkflowIdReusePolicy,
    ) -> everspan_types::Result<()> {
        use everspan_proto::enums::{
            WorkflowExecutionStatus as Status, WorkflowIdReusePolicy as Policy,
        };
        let run = self.first_run_id;
        let reason = match policy {
            Policy::RejectDuplicate => format!(
                "Workflow execution already finished. WorkflowId: {workflow_id}, RunId: {run}. \
                 Workflow Id reuse policy: reject duplicate workflow Id."
            ),
            Policy::AllowDuplicateFailedOnly
                if self.status == Status::Completed as i32
                    || self.status == Status::ContinuedAsNew as i32 =>
            {
                format!(
                    "Workflow execution already finished successfully. WorkflowId: {workflow_id}, \
                     RunId: {run}. Workflow Id reuse policy: allow duplicate workflow Id if last run \
                     failed."
                )
            }
            _ => return Ok(()),
        };
        Err(Error::AlreadyStarted {
            message: reason,
            start_request_id: self.start_request_id.clone(),
            run_id: self.run_id.to_string(),
            first_run_id: self.first_run_id.to_string(),
        })
    }
}

/// What the backlog knows of a waiting task beside its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Backlog {
    pub(crate) workflow_id: String,
    pub(crate) priority: Priority,
    pub(crate) sticky: bool,
    pub(crate) task: TaskRef,
}

impl Backlog {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        encode(VERSION, self)
    }
    pub(crate) fn from_bytes(raw: &[u8]) -> Result<Self, EnvelopeError> {
        decode(VERSION, raw)
    }
}

pub(crate) fn current(namespace: NamespaceId, workflow_id: &str) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend(namespace.0.as_bytes());
    key.extend(workflow_id.as_bytes());
    key
}

pub(crate) fn run(run: RunId) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.push(b'r');
    key.extend(run.0.as_bytes());
    key
}

pub(crate) fn run_row(run_id: RunId, row: &[u8]) -> Vec<u8> {
    let mut key = run(run_id);
    key.extend(row);
    key
}

pub(crate) fn history(run: RunId, first_event_id: i64) -> Vec<u8> {
    let mut key = Vec::with_capacity(25);
    key.push(b'h');
    key.extend(run.0.as_bytes());
    key.extend(first_event_id.to_be_bytes());
    key
}

/// Prefix of a run's history.
pub(crate) fn histories(run: RunId) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(b'h');
    key.extend(run.0.as_bytes());
    key
}

pub(crate) fn timer(at: Time, run: RunId) -> Vec<u8> {
    let mut key = Vec::with_capacity(25);
    key.push(b't');
    key.extend(at.as_nanos().to_be_bytes());
    key.extend(run.0.as_bytes());
    key
}

/// The first possible timer key at `at`.
pub(crate) fn timers_from(at: Time) -> Vec<u8> {
    let mut key = vec![b't'];
    key.extend(at.as_nanos().to_be_bytes());
    key
}

pub(crate) fn parse_timer(key: &[u8]) -> Option<(Time, RunId)> {
    let nanos = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    let run = Uuid::from_slice(key.get(9..25)?).ok()?;
    Some((Time::from_nanos(nanos), RunId(run)))
}

pub(crate) fn queue(queue: &QueueKey) -> Vec<u8> {
    let mut key = vec![b'q'];
    key.extend(queue.namespace.0.as_bytes());
    key.push(match queue.kind {
        TaskKind::Workflow => 0,
        TaskKind::Activity => 1,
    });
    // The length in front keeps one queue's rows apart from those of a longer name.
    key.extend((queue.name.len() as u64).to_be_bytes());
    key.extend(queue.name.as_bytes());
    key
}

/// The queue of a task.
pub(crate) fn queue_of(namespace: NamespaceId, task: &PendingTask) -> QueueKey {
    QueueKey { namespace, kind: task.kind, name: task.queue.clone() }
}

/// Where a task stands in its queue.
pub(crate) fn place(run: RunId, task: &PendingTask) -> Place {
    let event = match &task.task {
        TaskRef::Workflow { scheduled_event_id, .. }
        | TaskRef::Activity { scheduled_event_id, .. } => *scheduled_event_id,
        TaskRef::Query { .. } => 0,
    };
    let lane = Lane { priority: task.priority.key, lane: task.priority.lane() };
    Place { lane, sequence: task.sequence, run, event }
}

pub(crate) fn backlog(namespace: NamespaceId, run: RunId, task: &PendingTask) -> Vec<u8> {
    let mut key = backlog_place(&queue(&queue_of(namespace, task)), &place(run, task));
    if let TaskRef::Workflow { stamp, .. } | TaskRef::Activity { stamp, .. } = &task.task {
        key.extend(stamp.to_be_bytes());
    }
    key
}

/// The first key at a place of a queue whose keys begin with `prefix`.
pub(crate) fn backlog_place(prefix: &[u8], place: &Place) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 40);
    key.extend(prefix);
    key.push(place.lane.priority);
    key.extend(place.lane.lane.to_be_bytes());
    key.extend(place.sequence.to_be_bytes());
    key.extend(place.run.0.as_bytes());
    key.extend(place.event.to_be_bytes());
    key
}

/// Where a backlog key of a queue whose keys begin with `prefix` stands.
pub(crate) fn parse_backlog(prefix: &[u8], key: &[u8]) -> Option<Place> {
    let rest = key.strip_prefix(prefix)?;
    let lane = u16::from_be_bytes(rest.get(1..3)?.try_into().ok()?);
    Some(Place {
        lane: Lane { priority: *rest.first()?, lane },
        sequence: u64::from_be_bytes(rest.get(3..11)?.try_into().ok()?),
        run: RunId(Uuid::from_slice(rest.get(11..27)?).ok()?),
        event: i64::from_be_bytes(rest.get(27..35)?.try_into().ok()?),
    })
}

/// Prefix of the messages to a shard.
pub(crate) fn outbox(to: ShardId) -> Vec<u8> {
    let mut key = vec![b'o'];
    key.extend(to.0.to_be_bytes());
    key
}

pub(crate) fn outbox_message(to: ShardId, sequence: u64) -> Vec<u8> {
    let mut key = outbox(to);
    key.extend(sequence.to_be_bytes());
    key
}

/// Receiving shard and sequence of a message's key.
pub(crate) fn parse_outbox(key: &[u8]) -> Option<(ShardId, u64)> {
    let to = u32::from_be_bytes(key.get(1..5)?.try_into().ok()?);
    let sequence = u64::from_be_bytes(key.get(5..13)?.try_into().ok()?);
    Some((ShardId(to), sequence))
}

/// Where the sequence of the last message sent is kept.
pub(crate) const SENT: &[u8] = b"O";

/// Where the sequence of the last message taken from a shard is kept.
pub(crate) fn taken(from: ShardId) -> Vec<u8> {
    let mut key = vec![b'i'];
    key.extend(from.0.to_be_bytes());
    key
}

/// The first key past every key that begins with `prefix`.
pub(crate) fn past(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}
