//! The histories of all runs at the end, read for what calls were promised.

use std::collections::BTreeMap;

use everspan_execution::State;
use everspan_proto::{
    enums::{EventType, WorkflowExecutionStatus as Status},
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
}

/// All runs, by run ID.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    pub(crate) runs: BTreeMap<String, Run>,
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
