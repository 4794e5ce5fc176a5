//! Workflow tasks: scheduled, taken by a worker, completed, failed, timed out.

// Workers still send what the API calls deprecated: binary checksums, version stamps.
#![allow(deprecated)]

use std::time::Duration;

use everspan_proto::{
    enums::{EventType, SuggestContinueAsNewReason, TimeoutType, WorkflowTaskFailedCause},
    failure::Failure,
    history::{
        HistoryEvent, WorkflowTaskCompletedEventAttributes, WorkflowTaskFailedEventAttributes,
        WorkflowTaskScheduledEventAttributes, WorkflowTaskStartedEventAttributes,
        WorkflowTaskTimedOutEventAttributes, history_event::Attributes,
    },
    taskqueue::TaskQueue,
    workflowservice::{RespondWorkflowTaskCompletedRequest, RespondWorkflowTaskFailedRequest},
};
use everspan_types::{Error, Poller, Result, TaskRef, TaskToken, Time};

use crate::{
    commands::{self, Failed},
    convert::{duration, normal_queue, proto_duration, server_failure, sticky_queue},
    problems::Problem,
    signal::closed,
    state::{State, Sticky, WorkflowTask},
    turn::Turn,
};

/// Attempts up to this one get the workflow task timeout as it is.
const BACKOFF_AFTER_ATTEMPT: i32 = 3;
/// What the next attempt's timeout grows by, doubling from there.
const BACKOFF_INITIAL: Duration = Duration::from_secs(5);
/// Most that it grows by.
const BACKOFF_MAX: Duration = Duration::from_secs(10 * 60);
/// Request ID in the started event of a task that the completion of another returned.
const INLINE_REQUEST_ID: &str = "request-from-RespondWorkflowTaskCompleted";

/// What came of a completion.
#[derive(Debug, PartialEq)]
pub struct Completion {
    /// What the worker is told. A task that was failed for its commands is a change to the
    /// run and an error to the worker.
    pub reply: Result<()>,
    /// Whether a new task was started at once and goes out with the reply.
    pub started_next: bool,
    /// Scheduled events of the activities that the worker gets with the reply; they are
    /// recorded as started.
    pub eager: Vec<i64>,
    /// The event after which the worker is to forget what it was shown, where the task
    /// left no trace; 0 otherwise.
    pub reset_history_event_id: i64,
}

impl Completion {
    fn refused(error: Error) -> Self {
        Self {
            reply: Err(error),
            started_next: false,
            eager: Vec::new(),
            reset_history_event_id: 0,
        }
    }
}

/// Events of a transient task that the worker sees and history does not have yet.
pub type TransientEvents = Vec<HistoryEvent>;

/// Scheduled and, if a worker has it, started event of a task that is not in history, as
/// readers see them past the end of history. None once something was written since, for
/// then the task will start as one of its own.
#[must_use]
pub fn transient_events(state: &State, is_for_worker: bool) -> TransientEvents {
    let Some(task) = state
        .info
        .workflow_task
        .as_ref()
        .filter(|t| t.is_unwritten() && t.scheduled_event_id == state.info.next_event_id)
    else {
        return Vec::new();
    };
    let identity = if is_for_worker { task.identity.as_str() } else { "" };
    let event = |id, time: Time, kind: EventType, attributes| HistoryEvent {
        event_id: id,
        event_time: Some(time.to_proto()),
        event_type: kind as i32,
        attributes: Some(attributes),
        ..HistoryEvent::default()
    };
    let mut events = vec![event(
        task.scheduled_event_id,
        task.scheduled_time,
        EventType::WorkflowTaskScheduled,
        scheduled_attributes(state, task),
    )];
    if let Some(started) = task.started_time {
        events.push(event(
            task.scheduled_event_id + 1,
            started,
            EventType::WorkflowTaskStarted,
            started_attributes(task, task.scheduled_event_id, identity),
        ));
    }
    events
}

impl Turn<'_> {
    /// Makes sure that a workflow task will look at what happened.
    pub(crate) fn ensure_workflow_task(&mut self) {
        let info = &self.state.info;
        if self.state.is_running() && info.workflow_task.is_none() && info.first_task_at.is_none() {
            self.schedule_next_workflow_task();
        }
    }

    /// Schedules and offers a workflow task, unless the run is paused: what happened until
    /// then is looked at when it goes on.
    pub(crate) fn schedule_next_workflow_task(&mut self) {
        if self.state.is_paused() {
            return;
        }
        self.schedule_workflow_task(None);
        self.offer_workflow_task();
    }

    /// Schedules the next workflow task without offering it. `heartbeat_since` is when the
    /// first of a row of heartbeating tasks was scheduled.
    pub(crate) fn schedule_workflow_task(&mut self, heartbeat_since: Option<Time>) {
        if !self.state.buffered.is_empty() {
            // New events make it a task of its own rather than another try of the last.
            self.state.info.workflow_task_attempt = 1;
            self.flush_buffer();
        }
        let task = self.new_workflow_task(heartbeat_since);
        if !task.is_transient() {
            let attributes = scheduled_attributes(self.state, &task);
            self.write(EventType::WorkflowTaskScheduled, attributes);
        }
        self.state.info.workflow_task = Some(task);
    }

    /// A task as it is when it is scheduled now.
    pub(crate) fn new_workflow_task(&mut self, heartbeat_since: Option<Time>) -> WorkflowTask {
        let now = self.ctx.now;
        let info = &mut self.state.info;
        info.workflow_task_stamp = info.workflow_task_stamp.wrapping_add(1);
        let attempt = info.workflow_task_attempt;
        let (queue, schedule_to_start) = match &info.sticky {
            Some(sticky) => (sticky.queue.clone(), Some(sticky.schedule_to_start)),
            None => (info.task_queue.clone(), None),
        };
        WorkflowTask {
            scheduled_event_id: info.next_event_id,
            started_event_id: 0,
            attempt,
            stamp: info.workflow_task_stamp,
            scheduled_time: now,
            original_scheduled_time: heartbeat_since.unwrap_or(now),
            started_time: None,
            timeout: attempt_timeout(info.task_timeout, attempt),
            is_sticky: schedule_to_start.is_some(),
            schedule_to_start,
            queue,
            request_id: String::new(),
            identity: String::new(),
            worker_version: None,
            history_bytes: 0,
            suggest_continue_as_new: Vec::new(),
            is_speculative: false,
            is_for_update: false,
        }
    }

    /// Hands the workflow task to a worker.
    ///
    /// # Errors
    /// `NOT_FOUND` if the offer is stale.
    pub fn start_workflow_task(&mut self, stamp: u32, poller: &Poller) -> Result<()> {
        let stale = || Error::not_found("Workflow task not found.");
        let task = self.state.info.workflow_task.as_ref().ok_or_else(stale)?;
        if !self.state.is_running() || task.is_started() || task.stamp != stamp {
            return Err(stale());
        }
        self.withdraw_workflow_task();
        self.begin_workflow_task(
            &poller.identity,
            &poller.request_id,
            poller.worker_version.clone(),
            true,
        );
        self.is_soft = self.state.info.workflow_task.as_ref().is_some_and(|t| t.is_speculative);
        Ok(())
    }

    /// Marks the scheduled workflow task as with a worker. `resend` brings updates along that
    /// went out before with a task that came to nothing.
    pub(crate) fn begin_workflow_task(
        &mut self,
        identity: &str,
        request_id: &str,
        worker_version: Option<everspan_proto::common::WorkerVersionStamp>,
        resend: bool,
    ) {
        let Some(mut task) = self.state.info.workflow_task.take() else { return };
        let now = self.ctx.now;
        let reasons = self.continue_as_new_reasons();
        task.started_time = Some(now);
        task.identity = identity.to_owned();
        task.request_id = request_id.to_owned();
        task.worker_version = worker_version;
        task.history_bytes = self.state.info.history_bytes;
        task.suggest_continue_as_new = reasons;
        self.state.registry.send(resend);
        if task.is_unwritten() && task.scheduled_event_id != self.state.info.next_event_id {
            // Something was written since it was scheduled: a task of its own after all.
            task.attempt = 1;
            task.is_speculative = false;
            self.state.info.workflow_task_attempt = 1;
            task.scheduled_time = now;
            let attributes = scheduled_attributes(self.state, &task);
            task.scheduled_event_id = self.write(EventType::WorkflowTaskScheduled, attributes);
        }
        task.started_event_id = if task.is_unwritten() {
            task.scheduled_event_id + 1
        } else {
            let attributes = started_attributes(&task, task.scheduled_event_id, identity);
            self.write(EventType::WorkflowTaskStarted, attributes)
        };
        self.state.info.workflow_task = Some(task);
    }

    fn continue_as_new_reasons(&self) -> Vec<i32> {
        let (info, limits) = (&self.state.info, self.ctx.limits);
        let mut reasons = Vec::new();
        if info.history_bytes >= limits.suggest_continue_as_new_bytes {
            reasons.push(SuggestContinueAsNewReason::HistorySizeTooLarge as i32);
        }
        if info.next_event_id >= limits.suggest_continue_as_new_events {
            reasons.push(SuggestContinueAsNewReason::TooManyHistoryEvents as i32);
        }
        if self.state.updates_total() >= limits.suggest_continue_as_new_updates {
            reasons.push(SuggestContinueAsNewReason::TooManyUpdates as i32);
        }
        reasons
    }

    /// The task that a worker's token speaks of, if it still has it.
    fn task_of(&self, token: &TaskToken) -> Result<WorkflowTask> {
        self.state
            .started_workflow_task()
            .filter(|task| {
                self.state.is_running()
                    && token.started_event_id == task.started_event_id
                    && token.attempt == task.attempt
                    && token.task
                        == TaskRef::Workflow {
                            scheduled_event_id: task.scheduled_event_id,
                            stamp: task.stamp,
                        }
            })
            .cloned()
            .ok_or_else(|| Error::not_found("Workflow task not found."))
    }

    /// Takes a worker's commands.
    ///
    /// # Errors
    /// `NOT_FOUND` if the task is not the worker's any more; `INVALID_ARGUMENT` for bad
    /// commands of a transient task, which is left to time out; `UNIMPLEMENTED` for
    /// commands of a kind this release does not know. Bad commands of a first attempt are
    /// no error here: they fail the task, see [`Completion`].
    pub fn complete_workflow_task(
        &mut self,
        token: &TaskToken,
        request: &RespondWorkflowTaskCompletedRequest,
    ) -> Result<Completion> {
        let task = self.task_of(token)?;
        if self.state.is_paused() && request.force_create_new_workflow_task {
            return Err(Error::FailedPrecondition(
                "Workflow is paused and force create new workflow task is not allowed.".into(),
            ));
        }
        let is_heartbeat = request.force_create_new_workflow_task
            && request.commands.is_empty()
            && request.messages.is_empty();
        if is_heartbeat
            && self.ctx.now
                > task.original_scheduled_time + self.ctx.limits.workflow_task_heartbeat_max
        {
            self.time_out_workflow_task(TimeoutType::StartToClose);
            self.state.info.sticky = None;
            self.schedule_next_workflow_task();
            return Ok(Completion::refused(Error::not_found("workflow task heartbeat timeout")));
        }

        let before = (
            self.state.clone(),
            self.events.len(),
            self.tasks.len(),
            self.messages.len(),
            self.updates.len(),
        );
        let leaves_no_trace = self.leaves_no_trace(&task, request);
        let completed_event_id = if leaves_no_trace {
            self.discard_workflow_task();
            0
        } else {
            self.write_completed(&task, request)
        };
        self.state.info.sticky = request.sticky_attributes.as_ref().and_then(|sticky| {
            let queue = sticky.worker_task_queue.as_ref()?.name.clone();
            let schedule_to_start = duration(sticky.schedule_to_start_timeout.as_ref());
            Some(Sticky { queue, schedule_to_start })
        });
        let outcome = commands::apply_all(
            self,
            completed_event_id,
            &request.identity,
            &request.commands,
            &request.messages,
        );
        let mut eager = Vec::new();
        let (failed, needs_task) = match outcome {
            Ok(done) => {
                eager = done.eager;
                (None, done.needs_workflow_task)
            }
            Err(failed) => {
                let (state, events, tasks, messages, updates) = before;
                *self.state = state;
                self.events.truncate(events);
                self.tasks.truncate(tasks);
                self.messages.truncate(messages);
                self.updates.truncate(updates);
                self.next = None;
                let failed = match failed {
                    Failed::Task { cause, message, terminate } => (cause, message, terminate),
                    Failed::Call(error) => return Err(error),
                    Failed::Unimplemented(message) => return Err(Error::Unimplemented(message)),
                    Failed::Refused(message) => return Err(Error::InvalidArgument(message)),
                };
                self.abort_sent_updates();
                if task.is_transient() && failed.0 != WorkflowTaskFailedCause::UnhandledCommand {
                    // The task is left to time out; only what lives in memory changed.
                    self.is_soft = true;
                    return Ok(Completion::refused(Error::InvalidArgument(failed.1)));
                }
                (Some(failed), true)
            }
        };

        if let Some((cause, message, terminate)) = &failed {
            self.fail_workflow_task(
                *cause,
                Some(command_failure(message)),
                &request.identity,
                &request.binary_checksum,
            );
            if *terminate {
                self.flush_buffer();
                self.write_terminated(message, None, "history-service");
            }
        }
        let eager = self.start_eagerly(eager, &request.identity);
        let force = request.force_create_new_workflow_task;
        if self.state.is_running() && failed.is_none() && !force {
            self.reject_unprocessed_updates();
        }
        let is_due = needs_task || force || !self.state.buffered.is_empty();
        let returns_next = request.return_new_workflow_task && failed.is_none();
        let is_next_speculative = !is_due && returns_next;
        let mut started_next = false;
        if self.state.is_running()
            && !self.state.is_paused()
            && (is_due || self.state.registry.has_outgoing())
        {
            if is_next_speculative {
                self.schedule_speculative_workflow_task();
            } else {
                let since = is_heartbeat.then_some(task.original_scheduled_time);
                self.schedule_workflow_task(since);
            }
            if returns_next {
                self.begin_workflow_task(
                    &request.identity,
                    INLINE_REQUEST_ID,
                    request.worker_version_stamp.clone(),
                    !force,
                );
                started_next = true;
            } else {
                self.offer_workflow_task();
            }
        }
        // Nothing was written, and nothing is to be, unless the next task is in history.
        self.is_soft = leaves_no_trace && failed.is_none() && self.events.is_empty();
        let reset_history_event_id =
            if leaves_no_trace { self.state.info.previous_started_event_id } else { 0 };
        let reply = match failed {
            Some((_, message, _)) => Err(Error::InvalidArgument(message)),
            None => Ok(()),
        };
        Ok(Completion { reply, started_next, eager, reset_history_event_id })
    }

    /// Writes the completed event, and before it those that the task still owes.
    fn write_completed(
        &mut self,
        task: &WorkflowTask,
        request: &RespondWorkflowTaskCompletedRequest,
    ) -> i64 {
        let (mut scheduled, mut started) = (task.scheduled_event_id, task.started_event_id);
        if task.is_unwritten() {
            scheduled = self.write_scheduled(task);
            started = self.write_started(task, scheduled, &request.identity);
        }
        let info = &mut self.state.info;
        info.workflow_task = None;
        info.workflow_task_attempt = 1;
        // An update may have brought the first task forward.
        info.first_task_at = None;
        info.worker_version = request.worker_version_stamp.clone();
        info.close_attempted = false;
        let id = self.write(
            EventType::WorkflowTaskCompleted,
            Attributes::WorkflowTaskCompletedEventAttributes(
                WorkflowTaskCompletedEventAttributes {
                    scheduled_event_id: scheduled,
                    started_event_id: started,
                    identity: request.identity.clone(),
                    binary_checksum: request.binary_checksum.clone(),
                    worker_version: request.worker_version_stamp.clone(),
                    sdk_metadata: request.sdk_metadata.clone(),
                    metering_metadata: request.metering_metadata,
                    worker_deployment_name: request
                        .deployment_options
                        .as_ref()
                        .map(|d| d.deployment_name.clone())
                        .unwrap_or_default(),
                    ..WorkflowTaskCompletedEventAttributes::default()
                },
            ),
        );
        let build = request.worker_version_stamp.as_ref().map(|s| s.build_id.clone());
        let build = build.unwrap_or_default();
        self.state.note_build(id, build, &request.binary_checksum, self.ctx.now);
        self.forget_problems();
        id
    }

    /// Takes a worker's word that it could not do the task.
    ///
    /// # Errors
    /// `NOT_FOUND` if the task is not the worker's any more.
    pub fn respond_workflow_task_failed(
        &mut self,
        token: &TaskToken,
        request: &RespondWorkflowTaskFailedRequest,
    ) -> Result<()> {
        if !self.state.is_running() {
            return Err(closed());
        }
        self.task_of(token)?;
        if request.cause() == WorkflowTaskFailedCause::GrpcMessageTooLarge {
            // No other try would be smaller.
            self.terminate_as_too_large();
            return Ok(());
        }
        self.fail_workflow_task(
            request.cause(),
            request.failure.clone(),
            &request.identity,
            &request.binary_checksum,
        );
        self.schedule_next_workflow_task();
        Ok(())
    }

    /// Fails the task that a worker has. Only a first attempt leaves an event.
    pub(crate) fn fail_workflow_task(
        &mut self,
        cause: WorkflowTaskFailedCause,
        failure: Option<Failure>,
        identity: &str,
        binary_checksum: &str,
    ) {
        let Some(mut task) = self.state.info.workflow_task.take() else { return };
        if cause == WorkflowTaskFailedCause::UnhandledCommand {
            self.state.info.close_attempted = true;
        }
        if task.is_speculative {
            task.scheduled_event_id = self.write_scheduled(&task);
            task.started_event_id = self.write_started(&task, task.scheduled_event_id, identity);
        }
        if !task.is_transient() {
            self.write(
                EventType::WorkflowTaskFailed,
                Attributes::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
                    scheduled_event_id: task.scheduled_event_id,
                    started_event_id: task.started_event_id,
                    cause: cause as i32,
                    failure,
                    identity: identity.to_owned(),
                    binary_checksum: binary_checksum.to_owned(),
                    ..WorkflowTaskFailedEventAttributes::default()
                }),
            );
        }
        self.next_attempt(true);
        self.report_problem(Problem::Failed(cause));
    }

    /// Times the current task out: start-to-close of a worker's, or schedule-to-start of
    /// one that waits on a sticky queue, or for an update.
    pub(crate) fn time_out_workflow_task(&mut self, kind: TimeoutType) {
        self.withdraw_workflow_task();
        let Some(mut task) = self.state.info.workflow_task.take() else { return };
        if task.is_speculative {
            task.scheduled_event_id = self.write_scheduled(&task);
            if task.is_started() {
                task.worker_version = None;
                task.started_event_id = self.write_started(&task, task.scheduled_event_id, "");
            }
        }
        if !task.is_transient() {
            self.write(
                EventType::WorkflowTaskTimedOut,
                Attributes::WorkflowTaskTimedOutEventAttributes(
                    WorkflowTaskTimedOutEventAttributes {
                        scheduled_event_id: task.scheduled_event_id,
                        started_event_id: task.started_event_id,
                        timeout_type: kind as i32,
                    },
                ),
            );
        }
        self.next_attempt(kind != TimeoutType::ScheduleToStart);
        self.report_problem(Problem::TimedOut(kind));
    }

    /// A failure on the sticky queue clears stickiness first; only one on the normal queue
    /// makes the next task another attempt.
    fn next_attempt(&mut self, increment: bool) {
        let info = &mut self.state.info;
        if info.sticky.take().is_some() || !increment {
            info.workflow_task_attempt = 1;
        } else {
            info.workflow_task_attempt += 1;
        }
    }

    /// Moves a task that waits on a sticky queue without pollers to the normal queue; no
    /// event tells of it.
    pub fn leave_sticky_queue(&mut self, stamp: u32) {
        let normal = self.state.info.task_queue.clone();
        let is_waiting = self
            .state
            .info
            .workflow_task
            .as_ref()
            .is_some_and(|t| t.is_sticky && !t.is_started() && t.stamp == stamp);
        if !is_waiting {
            return;
        }
        self.withdraw_workflow_task();
        if let Some(task) = &mut self.state.info.workflow_task {
            task.is_sticky = false;
            task.queue = normal;
        }
        self.offer_workflow_task();
        self.is_soft = self.state.info.workflow_task.as_ref().is_some_and(|t| t.is_speculative);
    }

    /// Forgets the worker that has the run in its cache.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run.
    pub fn reset_sticky(&mut self) -> Result<()> {
        if !self.state.is_running() {
            return Err(closed());
        }
        // Nothing is written where there is none.
        self.is_soft = self.state.info.sticky.take().is_none();
        Ok(())
    }

    /// Refuses to hold back more events than the limits allow: the task in flight loses.
    pub(crate) fn limit_buffer(&mut self) {
        let limits = self.ctx.limits;
        if self.state.started_workflow_task().is_some()
            && (self.state.buffered.len() > limits.buffered_events_max
                || self.state.info.buffered_bytes > limits.buffered_bytes_max)
        {
            self.fail_workflow_task(
                WorkflowTaskFailedCause::ForceCloseCommand,
                None,
                "history-service",
                "",
            );
            self.schedule_next_workflow_task();
        }
    }
}

/// How a task that failed for its commands is put in history.
fn command_failure(message: &str) -> Failure {
    Failure { source: String::new(), ..server_failure(message, false) }
}

/// The first three attempts get the plain timeout; from there on it grows, so that a
/// workflow that keeps failing costs less and less.
fn attempt_timeout(timeout: Duration, attempt: i32) -> Duration {
    if attempt <= BACKOFF_AFTER_ATTEMPT {
        return timeout;
    }
    let doublings = u32::try_from(attempt - BACKOFF_AFTER_ATTEMPT - 1).unwrap_or(0).min(16);
    timeout + BACKOFF_INITIAL.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

fn task_queue(state: &State, task: &WorkflowTask) -> TaskQueue {
    // Where a sticky task moved to the normal queue, its event keeps the queue it had.
    match task.schedule_to_start {
        Some(_) if task.is_sticky => sticky_queue(&task.queue, &state.info.task_queue),
        _ => normal_queue(&state.info.task_queue),
    }
}

pub(crate) fn scheduled_attributes(state: &State, task: &WorkflowTask) -> Attributes {
    Attributes::WorkflowTaskScheduledEventAttributes(WorkflowTaskScheduledEventAttributes {
        task_queue: Some(task_queue(state, task)),
        start_to_close_timeout: Some(proto_duration(task.timeout)),
        attempt: task.attempt,
    })
}

pub(crate) fn started_attributes(
    task: &WorkflowTask,
    scheduled: i64,
    identity: &str,
) -> Attributes {
    Attributes::WorkflowTaskStartedEventAttributes(WorkflowTaskStartedEventAttributes {
        scheduled_event_id: scheduled,
        identity: identity.to_owned(),
        request_id: task.request_id.clone(),
        suggest_continue_as_new: !task.suggest_continue_as_new.is_empty(),
        suggest_continue_as_new_reasons: task.suggest_continue_as_new.clone(),
        history_size_bytes: task.history_bytes,
        worker_version: task.worker_version.clone(),
        ..WorkflowTaskStartedEventAttributes::default()
    })
}
