//! What is stored of one run: a head record and one row for each pending thing, so that
//! a change to one activity of two thousand rewrites one row.

use std::{collections::BTreeMap, time::Duration};

use everspan_proto::{
    common::{Memo, Payloads, Priority, SearchAttributes, WorkerVersionStamp},
    enums::WorkflowExecutionStatus,
    failure::Failure,
    history::HistoryEvent,
    sdk::UserMetadata,
};
use everspan_types::{EnvelopeError, NamespaceId, RunId, Time, decode, encode};
use serde::{Deserialize, Serialize};

use crate::{
    execution_options::AttachedRequest,
    pause::Pause,
    proto_serde,
    reset::ResetTo,
    retry::RetryPolicy,
    tracked::Tracked,
    update::{Registry, UpdateRecord},
};

/// Format version of the rows of [`State`].
pub const VERSION: u8 = 2;

/// The state of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What every run has exactly once.
    pub info: Info,
    /// Pending activities by `scheduled_event_id`.
    pub activities: Tracked<i64, Activity>,
    /// Running user timers by timer ID.
    pub timers: Tracked<String, UserTimer>,
    /// Request IDs of signals already taken.
    pub signal_requests: Tracked<String, ()>,
    /// Events that wait for the workflow task in flight, in order of arrival.
    pub buffered: Tracked<u64, Buffered>,
    /// Pending child workflows by `initiated_event_id`.
    pub children: Tracked<i64, Child>,
    /// Signals to other workflows that were not answered yet, by `initiated_event_id`.
    pub external_signals: Tracked<i64, External>,
    /// Cancel requests to other workflows that were not answered yet, by
    /// `initiated_event_id`.
    pub external_cancels: Tracked<i64, External>,
    /// Accepted and completed updates by update ID.
    pub updates: Tracked<String, UpdateRecord>,
    /// Updates that are not accepted yet; in no row.
    pub registry: Registry,
}

/// The head record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Its name, as events and messages carry it; a namespace is never renamed.
    pub namespace_name: String,
    /// The workflow ID.
    pub workflow_id: String,
    /// This run.
    pub run_id: RunId,
    /// The first run of the chain that this run belongs to.
    pub first_run_id: RunId,
    /// The run that this one follows in its chain; empty in the first.
    pub continued_run_id: String,
    /// The run that follows this one; empty while there is none.
    pub new_run_id: String,
    /// The workflow that started this one as its child.
    pub parent: Option<Parent>,
    /// The workflow at the top of the tree of parents, if it is not this one.
    pub root: Option<Root>,
    /// Cron expression by which runs follow each other; empty for none.
    pub cron_schedule: String,
    /// Workflow type name.
    pub workflow_type: String,
    /// The normal task queue.
    pub task_queue: String,
    /// Execution timeout; zero is none.
    pub execution_timeout: Duration,
    /// Run timeout; zero is none.
    pub run_timeout: Duration,
    /// Whether the start gave a run timeout, be it zero.
    pub run_timeout_given: bool,
    /// Workflow task start-to-close timeout.
    pub task_timeout: Duration,
    /// When the run was created.
    pub start_time: Time,
    /// When the first workflow task is due: start time and backoff.
    pub execution_time: Time,
    /// When the whole chain times out.
    pub execution_expiration: Option<Time>,
    /// When this run times out.
    pub run_expiration: Option<Time>,
    /// Set while the first workflow task waits for its backoff to end.
    pub first_task_at: Option<Time>,
    /// Attempt of the run under its retry policy, from 1.
    pub attempt: i32,
    /// The workflow's own retry policy.
    pub retry_policy: Option<RetryPolicy>,
    /// Status, a [`WorkflowExecutionStatus`].
    pub status: i32,
    /// When the run closed.
    pub close_time: Option<Time>,
    /// Request ID of the start call.
    pub start_request_id: String,
    /// Memo.
    #[serde(with = "proto_serde")]
    pub memo: Memo,
    /// Search attributes.
    #[serde(with = "proto_serde")]
    pub search_attributes: SearchAttributes,
    /// Summary and details given at the start.
    #[serde(with = "proto_serde::option")]
    pub user_metadata: Option<UserMetadata>,
    /// Priority of the run's tasks.
    #[serde(with = "proto_serde::option")]
    pub priority: Option<Priority>,
    /// Told to go with the current version of its workers, whatever they say of themselves.
    pub is_auto_upgrade: bool,
    /// ID of the next event that is written to history.
    pub next_event_id: i64,
    /// Bytes of history written.
    pub history_bytes: i64,
    /// `started_event_id` of the last completed workflow task; 0 before the first.
    pub previous_started_event_id: i64,
    /// The workflow task that is scheduled or with a worker.
    pub workflow_task: Option<WorkflowTask>,
    /// Attempt of the current or next workflow task, from 1; above 1 it is transient.
    pub workflow_task_attempt: i32,
    /// Counts schedulings of workflow tasks.
    pub workflow_task_stamp: u32,
    /// The sticky queue, while one is set.
    pub sticky: Option<Sticky>,
    /// Whether cancellation was requested.
    pub cancel_requested: bool,
    /// Request ID of the cancel request.
    pub cancel_request_id: String,
    /// Signals received.
    pub signal_count: i64,
    /// Changes made to the run.
    pub transitions: i64,
    /// Sum of the sizes of the buffered events.
    pub buffered_bytes: usize,
    /// Build ID stamp of the worker that last completed a workflow task.
    #[serde(with = "proto_serde::option")]
    pub worker_version: Option<WorkerVersionStamp>,
    /// The first workflow task that each build of the worker completed.
    pub reset_points: Vec<ResetPoint>,
    /// Whether the workflow tried to close and was told of events it had not seen.
    pub close_attempted: bool,
    /// The wake-up row that is stored for the run.
    pub wake_at: Option<Time>,
    /// Set while the run is paused.
    pub paused: Option<Pause>,
    /// Requests that were attached to the run after its start, by request ID.
    pub attached_requests: BTreeMap<String, AttachedRequest>,
    /// Where the workflow goes on, if it was reset to a point of this run.
    pub reset_to: Option<ResetTo>,
    /// When the history began that this run took over from the one that was reset; `start_time`
    /// is then the time of the reset.
    pub original_start_time: Option<Time>,
    /// Request ID of the reset that made this run; may be empty.
    pub reset_request_id: String,
}

/// The workflow that started another as its child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its namespace.
    pub namespace: NamespaceId,
    /// The namespace's name.
    pub namespace_name: String,
    /// Its workflow ID.
    pub workflow_id: String,
    /// The run that started the child.
    pub run_id: RunId,
    /// The event in that run that initiated the child.
    pub initiated_event_id: i64,
}

/// The workflow at the top of a tree of parents and children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its workflow ID.
    pub workflow_id: String,
    /// Its run.
    pub run_id: String,
}

/// Where a run can be reset to, before a build of the worker touched it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResetPoint {
    /// The run it is in: this one, or one before it in the chain.
    pub run_id: String,
    /// The worker's build ID.
    pub build_id: String,
    /// The worker's binary checksum.
    pub binary_checksum: String,
    /// The first workflow task that it completed.
    pub completed_event_id: i64,
    /// When.
    pub time: Time,
    /// When the run it is in is deleted, once another followed it.
    pub expire_time: Option<Time>,
}

impl Default for Info {
    fn default() -> Self {
        let nil = uuid::Uuid::nil();
        Self {
            namespace: NamespaceId(nil),
            namespace_name: String::new(),
            workflow_id: String::new(),
            run_id: RunId(nil),
            first_run_id: RunId(nil),
            continued_run_id: String::new(),
            new_run_id: String::new(),
            parent: None,
            root: None,
            cron_schedule: String::new(),
            workflow_type: String::new(),
            task_queue: String::new(),
            execution_timeout: Duration::ZERO,
            run_timeout: Duration::ZERO,
            run_timeout_given: false,
            task_timeout: Duration::ZERO,
            start_time: Time::ZERO,
            execution_time: Time::ZERO,
            execution_expiration: None,
            run_expiration: None,
            first_task_at: None,
            attempt: 1,
            retry_policy: None,
            status: WorkflowExecutionStatus::Running as i32,
            close_time: None,
            start_request_id: String::new(),
            memo: Memo::default(),
            search_attributes: SearchAttributes::default(),
            user_metadata: None,
            priority: None,
            is_auto_upgrade: false,
            next_event_id: 1,
            history_bytes: 0,
            previous_started_event_id: 0,
            workflow_task: None,
            workflow_task_attempt: 1,
            workflow_task_stamp: 0,
            sticky: None,
            cancel_requested: false,
            cancel_request_id: String::new(),
            signal_count: 0,
            transitions: 0,
            buffered_bytes: 0,
            worker_version: None,
            reset_points: Vec::new(),
            close_attempted: false,
            wake_at: None,
            paused: None,
            attached_requests: BTreeMap::new(),
            reset_to: None,
            original_start_time: None,
            reset_request_id: String::new(),
        }
    }
}

/// A workflow task that is scheduled or started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowTask {
    /// Its scheduled event; of a transient task, the ID that event would have.
    pub scheduled_event_id: i64,
    /// Its started event; 0 until started.
    pub started_event_id: i64,
    /// From 1; above 1 the task is transient.
    pub attempt: i32,
    /// See [`Info::workflow_task_stamp`].
    pub stamp: u32,
    /// When this task was scheduled.
    pub scheduled_time: Time,
    /// When the first of a row of heartbeating tasks was scheduled.
    pub original_scheduled_time: Time,
    /// When a worker took it.
    pub started_time: Option<Time>,
    /// Start-to-close timeout.
    pub timeout: Duration,
    /// Schedule-to-start timeout, for tasks of a sticky queue.
    pub schedule_to_start: Option<Duration>,
    /// The queue it was offered on.
    pub queue: String,
    /// Whether that is the sticky queue.
    pub is_sticky: bool,
    /// Request ID of the poll that took it.
    pub request_id: String,
    /// Who took it.
    pub identity: String,
    /// Worker version stamp of the poll that took it.
    #[serde(with = "proto_serde::option")]
    pub worker_version: Option<WorkerVersionStamp>,
    /// As told to the worker in the started event.
    pub history_bytes: i64,
    /// As told to the worker in the started event.
    pub suggest_continue_as_new: Vec<i32>,
    /// Whether it only brings updates and is in no event and no row; see `speculative`.
    pub is_speculative: bool,
    /// Whether it was scheduled for updates: then it may not wait long on any queue.
    pub is_for_update: bool,
}

impl WorkflowTask {
    /// Whether its scheduled and started events are left out of history until it completes.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.attempt > 1
    }
    /// Whether history does not have its scheduled and started events yet.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        self.is_transient() || self.is_speculative
    }
    /// Whether a worker has it.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started_time.is_some()
    }
}

/// The queue of the worker that has the run in its cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sticky {
    /// Its name.
    pub queue: String,
    /// How long a task may wait there before it goes to the normal queue.
    pub schedule_to_start: Duration,
}

/// A pending activity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Event that scheduled it.
    pub scheduled_event_id: i64,
    /// The workflow's name for it.
    pub activity_id: String,
    /// Activity type name.
    pub activity_type: String,
    /// Its task queue.
    pub task_queue: String,
    /// Zero is none.
    pub schedule_to_close: Duration,
    /// Zero is none.
    pub schedule_to_start: Duration,
    /// Zero is none.
    pub start_to_close: Duration,
    /// Zero is none.
    pub heartbeat: Duration,
    /// How failures are retried.
    pub retry: RetryPolicy,
    /// When the first attempt was scheduled.
    pub scheduled_time: Time,
    /// When the current attempt was, or will be, offered to workers.
    pub attempt_scheduled_time: Time,
    /// From 1.
    pub attempt: i32,
    /// Counts offers of the activity.
    pub stamp: u32,
    /// Set while the next attempt waits for its backoff to end.
    pub backoff_until: Option<Time>,
    /// Set while a worker has it.
    pub started: Option<ActivityStarted>,
    /// When progress was last reported, in any attempt.
    pub last_heartbeat_time: Option<Time>,
    /// What was last reported, in any attempt.
    #[serde(with = "proto_serde::option")]
    pub heartbeat_details: Option<Payloads>,
    /// Whether the workflow asked to cancel it.
    pub cancel_requested: bool,
    /// The event of that request.
    pub cancel_requested_event_id: i64,
    /// Why the previous attempt failed.
    #[serde(with = "proto_serde::option")]
    pub last_failure: Option<Failure>,
    /// Who last worked on it.
    pub last_worker_identity: String,
    /// When the previous attempt ended.
    pub last_attempt_complete_time: Option<Time>,
    /// Whether a worker said so; a description tells of no other.
    pub last_attempt_reported: bool,
    /// Priority of its tasks.
    #[serde(with = "proto_serde::option")]
    pub priority: Option<Priority>,
    /// No attempt follows past this instant: the schedule-to-close timeout as it was when
    /// the activity was scheduled. As in the real server, later changes of that timeout
    /// leave it.
    pub retry_expiration: Option<Time>,
    /// Set while the activity is paused: it is not offered, and none of its timeouts runs.
    pub paused: Option<Pause>,
    /// Not offered though nothing of its own stands against it: the whole run is paused, or
    /// the worker that asked for it is about to get it without a poll.
    pub withheld: bool,
    /// It was reset while a worker had it; heartbeats are answered so until the next attempt.
    pub reset: bool,
    /// The next attempt starts without the heartbeat details of this one.
    pub reset_heartbeats: bool,
}

/// An attempt of an activity that is with a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivityStarted {
    /// When.
    pub time: Time,
    /// Who.
    pub identity: String,
    /// Request ID of the poll.
    pub request_id: String,
    /// [`Activity::stamp`] as it was then: tokens carry it, and later changes of options
    /// leave them good.
    pub stamp: u32,
    /// Worker version stamp of the poll.
    #[serde(with = "proto_serde::option")]
    pub worker_version: Option<WorkerVersionStamp>,
}

impl Activity {
    /// When the whole activity times out.
    #[must_use]
    pub fn expiration(&self) -> Option<Time> {
        (!self.schedule_to_close.is_zero()).then(|| self.scheduled_time + self.schedule_to_close)
    }

    /// Whether no worker has the activity and no backoff holds it.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.started.is_none() && self.backoff_until.is_none()
    }

    /// Whether the activity waits for a worker now.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.is_due() && self.paused.is_none() && !self.withheld
    }
}

/// A running user timer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserTimer {
    /// Event that started it.
    pub started_event_id: i64,
    /// When it fires.
    pub fires_at: Time,
}

/// A child workflow that was initiated and has not closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// Event that initiated it.
    pub initiated_event_id: i64,
    /// The child's workflow ID.
    pub workflow_id: String,
    /// The child's workflow type.
    pub workflow_type: String,
    /// A `ParentClosePolicy`.
    pub parent_close_policy: i32,
    /// The parent's own word for it, handed back where the start fails.
    pub control: String,
    /// Event that tells of its start; 0 before it is in history.
    pub started_event_id: i64,
    /// The child's first run; empty until it is known to have started.
    pub run_id: String,
}

/// A signal or cancel request on its way to another workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct External {
    /// Event that initiated it.
    pub initiated_event_id: i64,
    /// The target's workflow ID.
    pub workflow_id: String,
    /// The target's run as the command named it; may be empty.
    pub run_id: String,
    /// The sender's own word for it, handed back in the answer.
    pub control: String,
}

/// An event that is not in history yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffered(#[serde(with = "proto_serde")] pub HistoryEvent);

/// Kinds of rows; the first byte of a row's key within its run.
const INFO: u8 = 0;
const ACTIVITY: u8 = 1;
const TIMER: u8 = 2;
const SIGNAL_REQUEST: u8 = 3;
const BUFFERED: u8 = 4;
const CHILD: u8 = 5;
const EXTERNAL_SIGNAL: u8 = 6;
const EXTERNAL_CANCEL: u8 = 7;
const UPDATE: u8 = 10;

/// A row of a run: key within the run, and its new value or none if it goes.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

impl State {
    /// Rows changed since the last call: the head record always, others if touched.
    pub fn take_changed_rows(&mut self) -> Vec<Row> {
        let mut rows = vec![(vec![INFO], Some(self.encoded_info()))];
        self.activities.take_changed(ACTIVITY, |k| k.to_be_bytes().to_vec(), &mut rows);
        self.timers.take_changed(TIMER, |k| k.as_bytes().to_vec(), &mut rows);
        self.signal_requests.take_changed(SIGNAL_REQUEST, |k| k.as_bytes().to_vec(), &mut rows);
        self.buffered.take_changed(BUFFERED, |k| k.to_be_bytes().to_vec(), &mut rows);
        let event = |k: &i64| k.to_be_bytes().to_vec();
        self.children.take_changed(CHILD, event, &mut rows);
        self.external_signals.take_changed(EXTERNAL_SIGNAL, event, &mut rows);
        self.external_cancels.take_changed(EXTERNAL_CANCEL, event, &mut rows);
        self.updates.take_changed(UPDATE, |k| k.as_bytes().to_vec(), &mut rows);
        rows
    }

    /// The head record as stored: a speculative task is not.
    fn encoded_info(&self) -> Vec<u8> {
        match &self.info.workflow_task {
            Some(task) if task.is_speculative => {
                let info = Info { workflow_task: None, ..self.info.clone() };
                encode(VERSION, &info)
            }
            _ => encode(VERSION, &self.info),
        }
    }

    /// The key within the run of an update's row.
    #[must_use]
    pub fn update_row(update_id: &str) -> Vec<u8> {
        [&[UPDATE], update_id.as_bytes()].concat()
    }

    /// The state as its rows give it back: without what lives in memory only.
    #[must_use]
    pub fn stored(&self) -> State {
        let mut state = State { registry: Registry::default(), ..self.clone() };
        state.info.workflow_task.take_if(|t| t.is_speculative);
        state.restore_registry();
        state
    }

    /// Reads a run back from its rows, in any order.
    ///
    /// # Errors
    /// If a row is damaged, of a newer version, or the head record is missing.
    pub fn from_rows<'a>(
        rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<State, EnvelopeError> {
        let bad = || EnvelopeError::Body("unexpected key".into());
        let mut state = State::default();
        let mut has_info = false;
        for (key, value) in rows {
            let (kind, key) = key.split_first().ok_or_else(bad)?;
            let text = || String::from_utf8(key.to_vec()).map_err(|_| bad());
            let event = || Ok(i64::from_be_bytes(key.try_into().map_err(|_| bad())?));
            match *kind {
                INFO => {
                    state.info = decode(VERSION, value)?;
                    has_info = true;
                }
                ACTIVITY => state.activities.load(event()?, decode(VERSION, value)?),
                CHILD => state.children.load(event()?, decode(VERSION, value)?),
                EXTERNAL_SIGNAL => {
                    state.external_signals.load(event()?, decode(VERSION, value)?);
                }
                EXTERNAL_CANCEL => {
                    state.external_cancels.load(event()?, decode(VERSION, value)?);
                }
                TIMER => state.timers.load(text()?, decode(VERSION, value)?),
                SIGNAL_REQUEST => state.signal_requests.load(text()?, decode(VERSION, value)?),
                BUFFERED => {
                    let n = u64::from_be_bytes(key.try_into().map_err(|_| bad())?);
                    state.buffered.load(n, decode(VERSION, value)?);
                }
                UPDATE => state.updates.load(text()?, decode(VERSION, value)?),
                _ => return Err(bad()),
            }
        }
        if !has_info {
            return Err(EnvelopeError::Body("no head record".into()));
        }
        state.restore_registry();
        Ok(state)
    }

    /// Whether the run is open, paused or not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.info.status == WorkflowExecutionStatus::Running as i32 || self.is_paused()
    }

    /// Whether the run is open and paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.info.status == WorkflowExecutionStatus::Paused as i32
    }

    /// The workflow task with a worker, if any.
    #[must_use]
    pub fn started_workflow_task(&self) -> Option<&WorkflowTask> {
        self.info.workflow_task.as_ref().filter(|t| t.is_started())
    }
}
