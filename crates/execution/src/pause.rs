//! A paused run: what happens to it is recorded, and nobody is given any of its tasks until
//! it goes on.

use std::collections::BTreeSet;

use everspan_proto::{
    enums::{EventType, WorkflowExecutionStatus, WorkflowTaskFailedCause},
    history::{
        HistoryEvent, WorkflowExecutionPausedEventAttributes,
        WorkflowExecutionUnpausedEventAttributes, history_event::Attributes,
    },
    workflowservice::{PauseWorkflowExecutionRequest, UnpauseWorkflowExecutionRequest},
};
use everspan_types::{Error, Result, Time};
use serde::{Deserialize, Serialize};

use crate::{
    convert::keyword_list,
    signal::closed,
    state::State,
    turn::{SERVER_IDENTITY, Turn},
};

/// The search attribute that says what of a run is paused.
pub const ATTRIBUTE: &str = "TemporalPauseInfo";

/// Who paused a run or an activity, when and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When.
    pub time: Time,
    /// Who.
    pub identity: String,
    /// Why, in the caller's words.
    pub reason: String,
    /// Request ID of the call: the same call again changes nothing.
    pub request_id: String,
}

impl Turn<'_> {
    /// Pauses the run. A workflow task that a worker has goes on; one that waits fails, and
    /// another is made when the run goes on.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run, `FAILED_PRECONDITION` on one that another request paused.
    pub fn pause(&mut self, request: &PauseWorkflowExecutionRequest) -> Result<()> {
        if !self.state.is_running() {
            return Err(closed());
        }
        if self.state.is_paused() {
            let is_same =
                |p: &Pause| !p.request_id.is_empty() && p.request_id == request.request_id;
            return match &self.state.info.paused {
                Some(pause) if is_same(pause) => Ok(()),
                _ => Err(Error::FailedPrecondition("workflow is already paused.".into())),
            };
        }
        self.hold_ignorable(
            EventType::WorkflowExecutionPaused,
            Attributes::WorkflowExecutionPausedEventAttributes(
                WorkflowExecutionPausedEventAttributes {
                    identity: request.identity.clone(),
                    reason: request.reason.clone(),
                    request_id: request.request_id.clone(),
                },
            ),
        );
        // One that a worker has may be tried again even so, as in the real server.
        let waiting = self.state.activities.iter().filter(|(_, a)| a.started.is_none());
        let ids: Vec<i64> = waiting.map(|(id, _)| *id).collect();
        for id in ids {
            self.withdraw_activity(id);
            self.withhold_activity(id);
        }
        if self.state.info.workflow_task.as_ref().is_some_and(|t| !t.is_started()) {
            self.withdraw_workflow_task();
            let cause = WorkflowTaskFailedCause::WorkflowPauseRequestedBeforeTaskStarted;
            self.fail_workflow_task(cause, None, SERVER_IDENTITY, "");
            self.state.info.workflow_task_attempt = 1;
        }
        self.update_pause_attribute();
        Ok(())
    }

    /// Lets the run go on, with a workflow task for what happened meanwhile.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run, `FAILED_PRECONDITION` on one that is not paused.
    pub fn unpause(&mut self, request: &UnpauseWorkflowExecutionRequest) -> Result<()> {
        if !self.state.is_running() {
            return Err(closed());
        }
        if !self.state.is_paused() {
            return Err(Error::FailedPrecondition("workflow is not paused.".into()));
        }
        self.hold_ignorable(
            EventType::WorkflowExecutionUnpaused,
            Attributes::WorkflowExecutionUnpausedEventAttributes(
                WorkflowExecutionUnpausedEventAttributes {
                    identity: request.identity.clone(),
                    reason: request.reason.clone(),
                    request_id: request.request_id.clone(),
                },
            ),
        );
        let withheld = self.state.activities.iter().filter(|(_, a)| a.withheld);
        let ids: Vec<i64> = withheld.map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(activity) = self.state.activities.get_mut(&id) {
                activity.withheld = false;
                activity.stamp += 1;
            }
            self.offer_activity(id);
        }
        self.update_pause_attribute();
        // As in the real server, this ends a start delay, too.
        self.state.info.first_task_at = None;
        self.ensure_workflow_task();
        Ok(())
    }

    /// Takes in an event that workers may pass over.
    fn hold_ignorable(&mut self, kind: EventType, attributes: Attributes) {
        self.hold_event(HistoryEvent {
            event_time: Some(self.ctx.now.to_proto()),
            event_type: kind as i32,
            worker_may_ignore: true,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        });
    }

    /// Keeps an activity that is not offered from being offered.
    pub(crate) fn withhold_activity(&mut self, id: i64) {
        if let Some(activity) = self.state.activities.get_mut(&id) {
            activity.withheld = true;
        }
    }

    /// Lets the search attribute follow what is paused.
    pub(crate) fn update_pause_attribute(&mut self) {
        let names = paused_things(self.state);
        let fields = &mut self.state.info.search_attributes.indexed_fields;
        if names.is_empty() {
            fields.remove(ATTRIBUTE);
            return;
        }
        fields.insert(ATTRIBUTE.to_owned(), keyword_list(&names));
    }
}

/// What is paused, in the search attribute's words.
fn paused_things(state: &State) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(pause) = &state.info.paused {
        names.push(format!("Workflow:{}", state.info.workflow_id));
        if !pause.reason.is_empty() {
            names.push(format!("Reason:{}", pause.reason));
        }
    }
    let types: BTreeSet<&str> = state
        .activities
        .values()
        .filter(|a| a.paused.is_some())
        .map(|a| a.activity_type.as_str())
        .collect();
    names.extend(types.into_iter().map(|name| format!("property:activityType={name}")));
    names
}

/// The state follows a paused event.
pub(crate) fn paused(state: &mut State, a: &WorkflowExecutionPausedEventAttributes, time: Time) {
    state.info.status = WorkflowExecutionStatus::Paused as i32;
    state.info.paused = Some(Pause {
        time,
        identity: a.identity.clone(),
        reason: a.reason.clone(),
        request_id: a.request_id.clone(),
    });
}

/// The state follows an unpaused event.
pub(crate) fn unpaused(state: &mut State) {
    state.info.status = WorkflowExecutionStatus::Running as i32;
    state.info.paused = None;
}
