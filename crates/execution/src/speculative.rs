//! Speculative workflow tasks: one that only brings updates to the worker is in no row and no
//! event until something comes of it, so that an update that is refused leaves no trace.
//!
//! It becomes a task like others as soon as anything else is written; it is lost with the
//! memory it lives in, and tokens of a lost one are stale.

use std::time::Duration;

use everspan_proto::{
    enums::EventType, history::HistoryEvent, workflowservice::RespondWorkflowTaskCompletedRequest,
};
use everspan_types::Time;

use crate::{
    state::{State, WorkflowTask},
    turn::{TaskChange, Turn},
    update::is_rejection,
    workflow_task::{scheduled_attributes, started_attributes},
};

/// How long a task scheduled for updates may wait on the normal queue before it is
/// scheduled anew; the real server's.
const SCHEDULE_TO_START: Duration = Duration::from_secs(5);
/// Most events that a speculative task may have shown to the worker if it is to leave no
/// trace; the real server's. More would be sent again and again.
const DISCARDED_EVENTS_MAX: i64 = 10;

/// When the run's speculative task times out; kept by whoever keeps the run in memory.
#[must_use]
pub fn speculative_deadline(state: &State) -> Option<Time> {
    let task = state.info.workflow_task.as_ref().filter(|t| t.is_speculative)?;
    match task.started_time {
        Some(started) => Some(started + task.timeout),
        None => task.schedule_to_start.map(|wait| task.scheduled_time + wait),
    }
}

impl Turn<'_> {
    /// Schedules a task for the updates that wait, without offering it.
    pub(crate) fn schedule_speculative_workflow_task(&mut self) {
        let mut task = self.new_workflow_task(None);
        task.is_speculative = true;
        task.is_for_update = true;
        task.schedule_to_start.get_or_insert(SCHEDULE_TO_START);
        // Counting is forgotten with the task; the time tells two lost ones apart.
        task.stamp = (self.ctx.now.as_nanos() / 1_000) as u32;
        self.state.info.workflow_task_stamp = task.stamp;
        self.state.info.workflow_task = Some(task);
    }

    /// Makes a speculative task that was there before this change one like others, since
    /// the change writes. Its events come before those that are held back.
    pub(crate) fn settle_speculative_workflow_task(&mut self) {
        let stamp = self.speculative_stamp;
        let Some(mut task) =
            self.state.info.workflow_task.take_if(|t| t.is_speculative && Some(t.stamp) == stamp)
        else {
            return;
        };
        debug_assert_eq!(task.scheduled_event_id, self.state.info.next_event_id);
        task.is_speculative = false;
        task.worker_version = None;
        self.write_scheduled(&task);
        if task.is_started() {
            self.write_started(&task, task.scheduled_event_id, "");
        }
        self.state.info.workflow_task = Some(task);
        if let Some(task) = self.waiting_workflow_task() {
            self.tasks.push(TaskChange::Keep(task));
        }
    }

    /// Whether a completion leaves nothing to remember.
    pub(crate) fn leaves_no_trace(
        &self,
        task: &WorkflowTask,
        request: &RespondWorkflowTaskCompletedRequest,
    ) -> bool {
        let info = &self.state.info;
        let can_discard_events =
            request.capabilities.is_some_and(|c| c.discard_speculative_workflow_task_with_events);
        let spare = if can_discard_events { DISCARDED_EVENTS_MAX } else { 0 };
        task.is_speculative
            && request.commands.is_empty()
            && !request.force_create_new_workflow_task
            && info.next_event_id <= info.previous_started_event_id + 2 + spare
            && request.messages.iter().all(is_rejection)
    }

    /// Forgets the task that a worker completed without a trace.
    pub(crate) fn discard_workflow_task(&mut self) {
        self.state.info.workflow_task = None;
        self.state.info.workflow_task_attempt = 1;
        self.state.info.close_attempted = false;
    }

    /// Writes the scheduled event of a task that has none yet, at the time it tells of.
    pub(crate) fn write_scheduled(&mut self, task: &WorkflowTask) -> i64 {
        self.write_event(HistoryEvent {
            event_time: Some(task.scheduled_time.to_proto()),
            event_type: EventType::WorkflowTaskScheduled as i32,
            attributes: Some(scheduled_attributes(self.state, task)),
            ..HistoryEvent::default()
        })
    }

    /// Writes the started event of a task that has none yet, at the time it tells of.
    pub(crate) fn write_started(
        &mut self,
        task: &WorkflowTask,
        scheduled_event_id: i64,
        identity: &str,
    ) -> i64 {
        self.write_event(HistoryEvent {
            event_time: task.started_time.map(Time::to_proto),
            event_type: EventType::WorkflowTaskStarted as i32,
            attributes: Some(started_attributes(task, scheduled_event_id, identity)),
            ..HistoryEvent::default()
        })
    }
}
