//! What passes between shards, which own pending tasks, and task-queue brokers, which
//! match them to polls.

use everspan_proto::workflowservice::{
    PollActivityTaskQueueResponse, PollWorkflowTaskQueueResponse,
};
use serde::{Deserialize, Serialize};

use crate::{NamespaceId, Priority, RunId, ShardId, wire};

/// How the names of queues begin that are the server's own.
pub const RESERVED_QUEUE: &str = "/_sys/";

/// What kind of task a queue holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum TaskKind {
    /// Workflow tasks, and queries.
    Workflow,
    /// Activity tasks.
    Activity,
}

/// One task queue of one namespace and kind. A sticky queue is a queue of its own, under
/// the name that its worker made up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct QueueKey {
    /// The namespace.
    pub namespace: NamespaceId,
    /// What the queue holds.
    pub kind: TaskKind,
    /// The queue's name.
    pub name: String,
}

/// Names one pending task inside its execution.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum TaskRef {
    /// The workflow task scheduled by this event, in this attempt.
    Workflow {
        /// `scheduled_event_id` of the task.
        scheduled_event_id: i64,
        /// Counts every (re)scheduling of the run's workflow task, so that an offer of an
        /// earlier one is known as stale.
        stamp: u32,
    },
    /// The activity scheduled by this event, in this attempt.
    Activity {
        /// `scheduled_event_id` of the activity.
        scheduled_event_id: i64,
        /// Counts every (re)scheduling of the activity.
        stamp: u32,
    },
    /// A query that travels alone; lives in memory only.
    Query {
        /// Identifies the query within its run while the run stays loaded.
        query_id: u64,
    },
}

/// A pending task offered by its shard to the broker of its queue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The queue it is for.
    pub queue: QueueKey,
    /// The shard that owns the execution.
    pub shard: ShardId,
    /// The execution's workflow ID.
    pub workflow_id: String,
    /// The execution's run.
    pub run_id: RunId,
    /// The task within the run.
    pub task: TaskRef,
    /// Position in the shard's backlog of this queue and priority: ascending in the order
    /// of scheduling, nanoseconds since the epoch. Queries, which have no row, have 0.
    pub sequence: u64,
    /// What orders it among the others beside the time.
    pub priority: Priority,
    /// True for a task of a sticky queue: if nobody has polled that queue for 10 s, the
    /// broker gives it back (see `TaskSource::sticky_unavailable`).
    pub sticky: bool,
}

/// Who polls.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Poller {
    /// The worker's identity.
    pub identity: String,
    /// Made by the gateway for each poll; recorded in the started event.
    pub request_id: String,
    /// The queue name that the poll asked for.
    pub queue: String,
    /// Worker version stamp as the poll gave it (deployment options or build ID).
    #[serde(with = "wire::optional")]
    pub worker_version: Option<everspan_proto::common::WorkerVersionStamp>,
    /// Names the worker's process for as long as it lives; empty from old SDKs.
    pub worker_instance_key: String,
    /// The rate of the queue that the worker asks for, in tasks a second.
    pub tasks_per_second_max: Option<f64>,
    /// What the worker says of its deployment.
    #[serde(with = "wire::optional")]
    pub deployment_options: Option<everspan_proto::deployment::WorkerDeploymentOptions>,
}

/// A task recorded as started, in the form in which it goes to the worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum StartedTask {
    /// A workflow task or a query.
    Workflow(#[serde(with = "wire::message")] Box<PollWorkflowTaskQueueResponse>),
    /// An activity task.
    Activity(#[serde(with = "wire::message")] Box<PollActivityTaskQueueResponse>),
}
