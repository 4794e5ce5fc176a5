//! The histories of all runs at the end, read for what calls were promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use everspan_execution::State;
use everspan_proto::{
    enums::{EventType, WorkflowExecutionStatus as Status, WorkflowTaskFailedCause},
    history::{HistoryEvent, history_event::Attributes},
};
use everspan_types::Time;

use crate::payload;

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) workflow_id: String,
    pub(crate) events: Vec<HistoryEvent>,
    /// As stored.
    pub(crate) state: State,
    /// The call that started it.
    pub(crate) started_by: String,
    pub(crate) started_at: Time,
    pub(crate) closed_at: Option<Time>,
    /// A `WorkflowExecutionStatus`, as its last event says.
    pub(crate) status: i32,
    pub(crate) cancel_requested: Option<Time>,
    /// Reason of its termination.
    pub(crate) terminated_for: String,
    /// Names of the signals it has, in order.
    pub(crate) signals: Vec<String>,
    /// The run that it follows in its chain; empty for a first run.
    pub(crate) follows: String,
    /// The run whose child it is, and the event there that asked for it.
    pub(crate) parent: Option<(String, i64)>,
    /// Its events up to this one are those of the run that was reset; 0 if it is no reset's.
    pub(crate) copied_up_to: i64,
}

/// All runs, by run ID.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    pub(crate) runs: BTreeMap<String, Run>,
    /// Workflow IDs of which a run may have been deleted: of those nothing is promised.
    pub(crate) deleted: BTreeSet<String>,
}

pub(crate) fn time(event: &HistoryEvent) -> Time {
    event.event_time.as_ref().map_or(Time::ZERO, Time::from_proto)
}

/// The status that a closing event brings.
pub(crate) fn closing(kind: EventType) -> Option<Status> {
    Some(match kind {
        EventType::WorkflowExecutionCompleted => Status::Completed,
        EventType::WorkflowExecutionFailed => Status::Failed,
        EventType::WorkflowExecutionCanceled => Status::Canceled,
        EventType::WorkflowExecutionTerminated => Status::Terminated,
        EventType::WorkflowExecutionTimedOut => Status::TimedOut,
        EventType::WorkflowExecutionContinuedAsNew => Status::ContinuedAsNew,
        _ => return None,
    })
}

/// The completed workflow task whose command left an event.
pub(crate) fn completed_by(event: &HistoryEvent) -> Option<i64> {
    Some(match event.attributes.as_ref()? {
        Attributes::ActivityTaskScheduledEventAttributes(a) => a.workflow_task_completed_event_id,
        Attributes::ActivityTaskCancelRequestedEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::TimerStartedEventAttributes(a) => a.workflow_task_completed_event_id,
        Attributes::TimerCanceledEventAttributes(a) => a.workflow_task_completed_event_id,
        Attributes::MarkerRecordedEventAttributes(a) => a.workflow_task_completed_event_id,
        Attributes::WorkflowPropertiesModifiedEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::UpsertWorkflowSearchAttributesEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::WorkflowExecutionCompletedEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        Attributes::WorkflowExecutionFailedEventAttributes(a) => a.workflow_task_completed_event_id,
        Attributes::WorkflowExecutionCanceledEventAttributes(a) => {
            a.workflow_task_completed_event_id
        }
        _ => return None,
    })
}

/// The scheduled and the started event that an activity's close names.
pub(crate) fn closes_activity(event: &HistoryEvent) -> Option<(i64, i64)> {
    Some(match event.attributes.as_ref()? {
        Attributes::ActivityTaskCompletedEventAttributes(a) => {
            (a.scheduled_event_id, a.started_event_id)
        }
        Attributes::ActivityTaskFailedEventAttributes(a) => {
            (a.scheduled_event_id, a.started_event_id)
        }
        Attributes::ActivityTaskTimedOutEventAttributes(a) => {
            (a.scheduled_event_id, a.started_event_id)
        }
        Attributes::ActivityTaskCanceledEventAttributes(a) => {
            (a.scheduled_event_id, a.started_event_id)
        }
        _ => return None,
    })
}

/// What another execution's answer is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) initiated_event_id: i64,
    /// That of a child's start, for a child's close.
    pub(crate) started_event_id: i64,
    /// Nothing more is to come; a child that started will close.
    pub(crate) is_last: bool,
}

/// What an event tells of a child, or of a signal or cancel request to another execution.
pub(crate) fn answer(event: &HistoryEvent) -> Option<Answer> {
    let last =
        |initiated_event_id| Answer { initiated_event_id, started_event_id: 0, is_last: true };
    let closed = |initiated_event_id, started_event_id| Answer {
        initiated_event_id,
        started_event_id,
        is_last: true,
    };
    Some(match event.attributes.as_ref()? {
        Attributes::ChildWorkflowExecutionStartedEventAttributes(a) => {
            Answer { is_last: false, ..last(a.initiated_event_id) }
        }
        Attributes::StartChildWorkflowExecutionFailedEventAttributes(a) => {
            last(a.initiated_event_id)
        }
        Attributes::ChildWorkflowExecutionCompletedEventAttributes(a) => {
            closed(a.initiated_event_id, a.started_event_id)
        }
        Attributes::ChildWorkflowExecutionFailedEventAttributes(a) => {
            closed(a.initiated_event_id, a.started_event_id)
        }
        Attributes::ChildWorkflowExecutionCanceledEventAttributes(a) => {
            closed(a.initiated_event_id, a.started_event_id)
        }
        Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
            closed(a.initiated_event_id, a.started_event_id)
        }
        Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
            closed(a.initiated_event_id, a.started_event_id)
        }
        Attributes::ExternalWorkflowExecutionSignaledEventAttributes(a) => {
            last(a.initiated_event_id)
        }
        Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
            last(a.initiated_event_id)
        }
        Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => {
            last(a.initiated_event_id)
        }
        Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => {
            last(a.initiated_event_id)
        }
        _ => return None,
    })
}

impl Run {
    pub(crate) fn new(
        id: String,
        workflow_id: String,
        events: Vec<HistoryEvent>,
        state: State,
    ) -> Self {
        let mut run = Self {
            id,
            workflow_id,
            state,
            started_by: String::new(),
            started_at: events.first().map_or(Time::ZERO, time),
            closed_at: None,
            status: Status::Running as i32,
            cancel_requested: None,
            terminated_for: String::new(),
            signals: Vec::new(),
            follows: String::new(),
            parent: None,
            copied_up_to: 0,
            events: Vec::new(),
        };
        for event in &events {
            if let Some(status) = closing(event.event_type()) {
                run.status = status as i32;
                run.closed_at = Some(time(event));
            }
            match &event.attributes {
                Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) => {
                    run.started_by = payload::read(a.input.as_ref());
                    run.follows.clone_from(&a.continued_execution_run_id);
                    run.parent = a
                        .parent_workflow_execution
                        .as_ref()
                        .map(|parent| (parent.run_id.clone(), a.parent_initiated_event_id));
                }
                Some(Attributes::WorkflowTaskFailedEventAttributes(a))
                    if a.cause() == WorkflowTaskFailedCause::ResetWorkflow
                        && a.new_run_id == run.id =>
                {
                    run.copied_up_to = event.event_id - 1;
                    run.started_at = time(event);
                }
                Some(Attributes::WorkflowExecutionCancelRequestedEventAttributes(_)) => {
                    run.cancel_requested = Some(time(event));
                }
                Some(Attributes::WorkflowExecutionTerminatedEventAttributes(a)) => {
                    run.terminated_for.clone_from(&a.reason);
                }
                Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) => {
                    run.signals.push(payload::read(a.input.as_ref()));
                }
                _ => {}
            }
        }
        run.events = events;
        run
    }

    /// Whether a client's call began it, and nothing that was there before.
    pub(crate) fn is_first(&self) -> bool {
        self.follows.is_empty() && self.parent.is_none() && self.copied_up_to == 0
    }

    /// Events of its own.
    pub(crate) fn own_events(&self) -> impl Iterator<Item = &HistoryEvent> {
        self.events.iter().filter(|e| e.event_id > self.copied_up_to)
    }

    /// Whether it was closed when the node's clock said `at`.
    pub(crate) fn is_closed_by(&self, at: Time) -> bool {
        self.closed_at.is_some_and(|closed| closed <= at)
    }

    pub(crate) fn activity_close(&self, scheduled_event_id: i64) -> Option<&HistoryEvent> {
        self.events
            .iter()
            .find(|e| closes_activity(e).is_some_and(|(id, _)| id == scheduled_event_id))
    }
}

/// For the trace of a seed that fails.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "history of {}/{}:", self.workflow_id, self.id)?;
        self.events.iter().try_for_each(|e| write!(f, " {}:{:?}", e.event_id, e.event_type()))
    }
}

impl Histories {
    pub(crate) fn run(&self, id: &str) -> Result<&Run, String> {
        self.runs.get(id).ok_or_else(|| format!("run {id} does not exist"))
    }

    /// The runs of a workflow ID.
    pub(crate) fn of(&self, workflow_id: &str) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(move |r| r.workflow_id == workflow_id)
    }

    pub(crate) fn must_have_signal(
        &self,
        workflow_id: &str,
        named: &str,
        signal: &str,
    ) -> Result<(), String> {
        let is_meant = |r: &&Run| named.is_empty() || r.id == named;
        if self.of(workflow_id).filter(is_meant).any(|r| r.signals.iter().any(|s| s == signal)) {
            return Ok(());
        }
        Err(format!("no run of {workflow_id} has the signal"))
    }
}
