//! Reset: a run begins anew from a point of another one's history. What the other did after
//! that point is forgotten, but for what came from outside: signals, updates, and news of
//! children and of messages that were on their way at that point.

use std::collections::BTreeSet;

use everspan_proto::{
    enums::WorkflowTaskFailedCause,
    enums::{
        EventType, ResetReapplyExcludeType as Exclude, ResetReapplyType, RetryState,
        UpdateAdmittedEventOrigin,
    },
    failure::{Failure, ResetWorkflowFailureInfo, failure::FailureInfo},
    history::{
        ActivityTaskFailedEventAttributes, HistoryEvent,
        WorkflowExecutionUpdateAdmittedEventAttributes, WorkflowTaskFailedEventAttributes,
        history_event::Attributes,
    },
    update::Request,
    workflow::{PostResetOperation, post_reset_operation::Variant},
    workflowservice::ResetWorkflowExecutionRequest,
};
use everspan_types::{Error, Result, RunId, Time};
use serde::{Deserialize, Serialize};

use crate::{
    execution_options::OptionsUpdate,
    fold,
    state::{State, WorkflowTask},
    turn::{Ctx, SERVER_IDENTITY, Transition, Turn, is_close},
};

/// Who terminates a run that is reset.
const RESETTER_IDENTITY: &str = "history-resetter";

/// Request ID in the started event of a task that nobody took.
const EMPTY_REQUEST_ID: &str = "emptyUuid";

/// Where a run that was reset goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetTo {
    /// The run that goes on.
    pub run_id: RunId,
    /// The first event that it does not share.
    pub from_event_id: i64,
}

/// What a reset takes over of what came from outside.
#[derive(Clone, Copy, Debug)]
struct Takes {
    signals: bool,
    updates: bool,
}

/// A run as it stood at a point of its history, and is to begin anew from.
#[derive(Clone, Debug)]
pub struct ResetState {
    state: State,
    task: WorkflowTask,
    /// Activities with a worker, and the event that says so.
    started: Vec<(i64, i64, String)>,
    base_run_id: RunId,
}

/// The event types that are not to be taken over, after what the request says in either way.
#[must_use]
pub fn excluded(request: &ResetWorkflowExecutionRequest) -> BTreeSet<i32> {
    #[allow(deprecated)]
    let by_type: &[Exclude] = match request.reset_reapply_type() {
        ResetReapplyType::Signal => &[Exclude::Update],
        ResetReapplyType::None => &[Exclude::Signal, Exclude::Update],
        _ => &[],
    };
    let by_type = by_type.iter().map(|e| *e as i32);
    by_type.chain(request.reset_reapply_exclude_types.iter().copied()).collect()
}

/// Whether nothing at all is to be taken over.
#[must_use]
#[allow(deprecated)]
pub fn excludes_all(excluded: &BTreeSet<i32>) -> bool {
    [Exclude::Signal, Exclude::Update, Exclude::Nexus, Exclude::CancelRequest]
        .iter()
        .all(|e| excluded.contains(&(*e as i32)))
}

/// What the request wants done right after the reset.
///
/// # Errors
/// `INVALID_ARGUMENT` for anything but a change of options, as the real server;
/// `UNIMPLEMENTED` for options that this release does not have.
pub fn operations_after(request: &ResetWorkflowExecutionRequest) -> Result<Vec<OptionsUpdate>> {
    let update = |operation: &PostResetOperation| match &operation.variant {
        Some(Variant::UpdateWorkflowOptions(update)) => OptionsUpdate::new(
            update.workflow_execution_options.as_ref(),
            update.update_mask.as_ref(),
            "",
        ),
        _ => Err(Error::invalid("unsupported post reset operation")),
    };
    request.post_reset_operations.iter().map(update).collect()
}

impl State {
    /// A reset's run begins at `now`, with its timeouts whole, whatever its first event says, and
    /// so do its pending activities.
    pub(crate) fn begin_again(&mut self, now: Time) {
        let info = &mut self.info;
        info.original_start_time.get_or_insert(info.start_time);
        info.start_time = now;
        let timeout = |d: std::time::Duration| (!d.is_zero()).then(|| now + d);
        info.execution_expiration = timeout(info.execution_timeout);
        info.run_expiration = match (timeout(info.run_timeout), info.execution_expiration) {
            (Some(run), Some(execution)) => Some(run.min(execution)),
            (run, _) => run,
        };
        let ids: Vec<i64> = self.activities.iter().map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(activity) = self.activities.get_mut(&id) {
                activity.scheduled_time = now;
                activity.attempt_scheduled_time = now;
            }
        }
    }
}

impl ResetState {
    /// The state of `base` after `events`, its first ones, as that of `run_id`.
    /// `history_bytes` is what the events take.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where no workflow task waits or is with a worker after them.
    pub fn new(
        ctx: Ctx<'_>,
        base: &State,
        run_id: RunId,
        events: &[HistoryEvent],
        history_bytes: i64,
    ) -> Result<Self> {
        let mut state = fold::replay(events, []);
        let next = state.info.next_event_id;
        let of_base = &base.info;
        let info = &mut state.info;
        info.namespace = of_base.namespace;
        info.namespace_name.clone_from(&of_base.namespace_name);
        info.workflow_id.clone_from(&of_base.workflow_id);
        info.run_id = run_id;
        info.first_run_id = of_base.first_run_id;
        info.start_request_id.clone_from(&of_base.start_request_id);
        info.parent.clone_from(&of_base.parent);
        info.history_bytes = history_bytes;
        state.begin_again(ctx.now);
        let mut task = None;
        let mut started: Vec<(i64, i64, String)> = Vec::new();
        for event in events {
            match &event.attributes {
                Some(Attributes::WorkflowTaskScheduledEventAttributes(_)) => {
                    task = Some((event.event_id, 0));
                }
                Some(Attributes::WorkflowTaskStartedEventAttributes(_)) => {
                    if let Some((_, started)) = &mut task {
                        *started = event.event_id;
                    }
                }
                Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => {
                    task = None;
                    #[allow(deprecated)]
                    let (stamp, checksum) = (a.worker_version.as_ref(), &a.binary_checksum);
                    let build = stamp.map(|s| s.build_id.clone()).unwrap_or_default();
                    let time = event.event_time.as_ref().map_or(Time::ZERO, Time::from_proto);
                    state.note_build(event.event_id, build, checksum, time);
                }
                Some(
                    Attributes::WorkflowTaskFailedEventAttributes(_)
                    | Attributes::WorkflowTaskTimedOutEventAttributes(_),
                ) => task = None,
                Some(Attributes::ActivityTaskStartedEventAttributes(a)) => {
                    started.push((a.scheduled_event_id, event.event_id, a.identity.clone()));
                }
                Some(Attributes::WorkflowExecutionSignaledEventAttributes(a))
                    if !a.request_id.is_empty() =>
                {
                    state.signal_requests.insert(a.request_id.clone(), ());
                }
                _ => {}
            }
        }
        let Some((scheduled_event_id, started_event_id)) = task else {
            return Err(Error::invalid(format!(
                "Can only reset workflow to event ID in range [WorkflowTaskScheduled +1, \
                 WorkflowTaskStarted + 1]: {next}"
            )));
        };
        started.retain(|(scheduled, ..)| state.activities.get(scheduled).is_some());
        let task = WorkflowTask {
            scheduled_event_id,
            started_event_id,
            // It is in history, which a later attempt would not be.
            attempt: 1,
            stamp: 0,
            scheduled_time: ctx.now,
            original_scheduled_time: ctx.now,
            started_time: None,
            timeout: state.info.task_timeout,
            schedule_to_start: None,
            queue: state.info.task_queue.clone(),
            is_sticky: false,
            request_id: String::new(),
            identity: String::new(),
            worker_version: None,
            history_bytes: 0,
            suggest_continue_as_new: Vec::new(),
            is_speculative: false,
            is_for_update: false,
        };
        Ok(Self { state, task, started, base_run_id: of_base.run_id })
    }

    /// Begins the new run. `after` is what happened since that point, `operations` what the
    /// caller wants done before the workflow goes on.
    #[must_use]
    pub fn begin<'a>(
        self,
        ctx: Ctx<'_>,
        request: &ResetWorkflowExecutionRequest,
        after: impl IntoIterator<Item = &'a HistoryEvent>,
        operations: &[OptionsUpdate],
    ) -> (State, Transition) {
        let Self { mut state, task, started, base_run_id } = self;
        state.info.reset_request_id.clone_from(&request.request_id);
        let run_id = state.info.run_id;
        let is_started = task.started_event_id > 0;
        let scheduled_event_id = task.scheduled_event_id;
        let mut started_event_id = task.started_event_id;
        state.info.workflow_task = Some(task);
        let mut turn = Turn::new(&mut state, ctx);
        if !is_started {
            turn.begin_workflow_task(SERVER_IDENTITY, EMPTY_REQUEST_ID, None, false);
            started_event_id = turn.state.info.next_event_id - 1;
        }
        turn.state.info.workflow_task = None;
        turn.state.info.workflow_task_attempt = 1;
        turn.write(
            EventType::WorkflowTaskFailed,
            Attributes::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
                scheduled_event_id,
                started_event_id,
                cause: WorkflowTaskFailedCause::ResetWorkflow as i32,
                failure: Some(reset_failure(&request.reason)),
                identity: SERVER_IDENTITY.into(),
                base_run_id: base_run_id.to_string(),
                new_run_id: run_id.to_string(),
                ..WorkflowTaskFailedEventAttributes::default()
            }),
        );
        turn.fail_started_activities(&started, &request.reason);
        let excluded = excluded(request);
        if !excludes_all(&excluded) {
            let takes = |exclude: Exclude| !excluded.contains(&(exclude as i32));
            let takes = Takes { signals: takes(Exclude::Signal), updates: takes(Exclude::Update) };
            for event in after {
                turn.reapply(event, takes);
            }
        }
        // With the priority that the run has by what was taken over; operations offer them anew
        // where they change it.
        turn.offer_activities();
        for operation in operations {
            turn.apply_options(operation);
        }
        turn.flush_buffer();
        turn.schedule_next_workflow_task();
        let transition = turn.finish();
        (state, transition)
    }
}

impl Turn<'_> {
    /// Terminates the run because another takes its place from a point of its history, or of
    /// that of a run before it. `to` says which where it is this very run's.
    pub fn terminate_for_reset(&mut self, reason: &str, to: Option<ResetTo>) {
        self.abandon_workflow_task();
        self.state.info.reset_to = to;
        self.write_terminated(reason, None, RESETTER_IDENTITY);
    }

    /// Activities with a worker fail; the others begin to wait anew.
    fn fail_started_activities(&mut self, started: &[(i64, i64, String)], reason: &str) {
        for (scheduled_event_id, started_event_id, identity) in started {
            let attributes = ActivityTaskFailedEventAttributes {
                failure: Some(reset_failure(reason)),
                scheduled_event_id: *scheduled_event_id,
                started_event_id: *started_event_id,
                identity: identity.clone(),
                retry_state: RetryState::NonRetryableFailure as i32,
                ..ActivityTaskFailedEventAttributes::default()
            };
            self.write(
                EventType::ActivityTaskFailed,
                Attributes::ActivityTaskFailedEventAttributes(attributes),
            );
        }
    }

    /// Offers the activities that go on in the new run.
    fn offer_activities(&mut self) {
        let ids: Vec<i64> = self.state.activities.iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.offer_activity(id);
        }
    }

    /// Takes over one event of what happened after the point of the reset.
    fn reapply(&mut self, event: &HistoryEvent, takes: Takes) {
        let mut attributes = match &event.attributes {
            Some(attributes) => attributes.clone(),
            None => return,
        };
        let is_due = match &mut attributes {
            Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(a) => {
                self.readmit(a.request.as_ref(), takes);
                false
            }
            Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
                self.readmit(a.accepted_request.as_ref(), takes);
                false
            }
            Attributes::WorkflowExecutionSignaledEventAttributes(a) => {
                if takes.signals && !a.request_id.is_empty() {
                    self.state.signal_requests.insert(a.request_id.clone(), ());
                }
                a.external_workflow_execution = None;
                takes.signals
            }
            Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(_) => true,
            Attributes::StartChildWorkflowExecutionFailedEventAttributes(a) => {
                a.workflow_task_completed_event_id = 0;
                self.child_started_event(a.initiated_event_id).is_some()
            }
            Attributes::ChildWorkflowExecutionStartedEventAttributes(a) => {
                self.child_started_event(a.initiated_event_id) == Some(0)
            }
            Attributes::ChildWorkflowExecutionCompletedEventAttributes(a) => {
                self.follows_start(a.initiated_event_id, &mut a.started_event_id)
            }
            Attributes::ChildWorkflowExecutionFailedEventAttributes(a) => {
                self.follows_start(a.initiated_event_id, &mut a.started_event_id)
            }
            Attributes::ChildWorkflowExecutionCanceledEventAttributes(a) => {
                self.follows_start(a.initiated_event_id, &mut a.started_event_id)
            }
            Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
                self.follows_start(a.initiated_event_id, &mut a.started_event_id)
            }
            Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
                self.follows_start(a.initiated_event_id, &mut a.started_event_id)
            }
            Attributes::ExternalWorkflowExecutionSignaledEventAttributes(a) => {
                self.state.external_signals.get(&a.initiated_event_id).is_some()
            }
            Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
                self.state.external_signals.get(&a.initiated_event_id).is_some()
            }
            Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => {
                self.state.external_cancels.get(&a.initiated_event_id).is_some()
            }
            Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => {
                self.state.external_cancels.get(&a.initiated_event_id).is_some()
            }
            _ => false,
        };
        if !is_due {
            return;
        }
        let event = HistoryEvent {
            event_time: Some(self.ctx.now.to_proto()),
            event_type: event.event_type,
            links: event.links.clone(),
            worker_may_ignore: event.worker_may_ignore,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        };
        if is_close(&event) {
            // They come after all else, as whenever events were held back.
            self.hold_event(event);
        } else {
            self.write_event(event);
        }
    }

    /// Admits an update anew, for the workflow to take it in or refuse it once more. One that
    /// the new run knows already stays as it is.
    fn readmit(&mut self, request: Option<&Request>, takes: Takes) {
        let Some(request) = request.filter(|_| takes.updates) else { return };
        let id = request.meta.as_ref().map_or("", |m| m.update_id.as_str());
        if self.state.updates.get(id).is_some() {
            return;
        }
        self.write(
            EventType::WorkflowExecutionUpdateAdmitted,
            Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(
                WorkflowExecutionUpdateAdmittedEventAttributes {
                    request: Some(request.clone()),
                    origin: UpdateAdmittedEventOrigin::Reapply as i32,
                },
            ),
        );
    }

    /// The event that tells of the start of a pending child; 0 while there is none.
    fn child_started_event(&self, initiated_event_id: i64) -> Option<i64> {
        self.state.children.get(&initiated_event_id).map(|c| c.started_event_id)
    }

    /// Lets the close of a pending child name the event of its start in this run.
    fn follows_start(&self, initiated_event_id: i64, started_event_id: &mut i64) -> bool {
        let Some(id) = self.child_started_event(initiated_event_id) else { return false };
        *started_event_id = id;
        true
    }
}

fn reset_failure(reason: &str) -> Failure {
    Failure {
        message: reason.to_owned(),
        failure_info: Some(FailureInfo::ResetWorkflowFailureInfo(
            ResetWorkflowFailureInfo::default(),
        )),
        ..Failure::default()
    }
}

/// Whether a run was terminated by a reset: its workflow goes on, so that nobody is told.
pub(crate) fn is_reset(event: &HistoryEvent) -> bool {
    matches!(&event.attributes,
        Some(Attributes::WorkflowExecutionTerminatedEventAttributes(a))
            if a.identity == RESETTER_IDENTITY)
}
