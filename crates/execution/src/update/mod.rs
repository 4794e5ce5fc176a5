//! Workflow updates: calls that a workflow may refuse, and answers.
//!
//! ```text
//!             admit_update          workflow task          Acceptance         Response
//! (new) ────▶ Admitted ──────────▶ Sent ─────────▶ Accepted ─────▶ Completed
//!                └────── memory ─────┘   Rejection    └───── history ─────┘
//!                                          └──▶ (no trace)
//! ```
//!
//! What was accepted is in history, and in [`State::updates`]; what was not is in the
//! [`Registry`], in memory only. So a change that only admits, sends or rejects updates
//! writes no rows ([`Transition::is_soft`](crate::Transition)).
//!
//! An update that a reset took over is in both: history says that it was admitted, and
//! workers read it there; the registry, which is filled from the rows, holds it without its
//! request.

mod message;
mod registry;

use everspan_proto::{
    enums::{ResourceExhaustedCause, ResourceExhaustedScope},
    failure::{ApplicationFailureInfo, Failure, failure::FailureInfo},
    history::{HistoryEvent, history_event::Attributes},
    update::Request,
};
use everspan_types::{EnvelopeError, Error, Result, Time, decode};
use prost::Message as _;
use serde::{Deserialize, Serialize};

pub(crate) use message::{Messages, is_rejection, take_message, take_messages};
pub use registry::{Pending, Registry, Stage};

use crate::{
    signal::closed,
    state::{State, VERSION},
    turn::Turn,
};

/// From this attempt of a workflow task on, updates are refused rather than left to wait
/// for a workflow that keeps failing; the real server's.
const ATTEMPT_MAX: i32 = 3;

/// What history says of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRecord {
    /// Event that accepted it; 0 while history only says that it was admitted.
    pub accepted_event_id: i64,
    /// Event that completed it; 0 until then.
    pub completed_event_id: i64,
    /// Request ID of the call that asked for it; may be empty.
    pub request_id: String,
}

impl UpdateRecord {
    /// Reads a row of [`State::update_row`] back.
    ///
    /// # Errors
    /// If it is damaged, or of a newer version.
    pub fn from_bytes(raw: &[u8]) -> Result<Self, EnvelopeError> {
        decode(VERSION, raw)
    }

    /// Whether it was accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.accepted_event_id > 0
    }

    /// Whether it was accepted, and not completed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_accepted() && self.completed_event_id == 0
    }
}

/// What became of an update in one change.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateChange {
    /// Which.
    pub update_id: String,
    /// What.
    pub what: UpdateNews,
}

/// See [`UpdateChange`].
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateNews {
    /// Accepted or completed; the state says more.
    Recorded,
    /// The workflow refused it.
    Rejected(Failure),
    /// It came to nothing.
    Aborted(Error),
    /// The run closed before it was accepted, and the workflow goes on in another.
    Continued,
}

/// How far an update came.
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateStatus {
    /// Not accepted yet.
    Admitted,
    /// Accepted.
    Accepted,
    /// Completed by this event, which has the outcome.
    Completed {
        /// The event.
        event_id: i64,
    },
    /// Accepted, and never completed: the workflow closed first.
    Failed(Failure),
    /// Not accepted before the workflow closed.
    Aborted(Error),
}

impl State {
    /// What is known of an update.
    #[must_use]
    pub fn update_status(&self, id: &str) -> Option<UpdateStatus> {
        if let Some(record) = self.updates.get(id).filter(|u| u.is_accepted()) {
            return Some(match record.completed_event_id {
                0 if self.is_running() => UpdateStatus::Accepted,
                0 => UpdateStatus::Failed(workflow_closed_failure()),
                event_id => UpdateStatus::Completed { event_id },
            });
        }
        Some(match self.registry.get(id)?.stage {
            Stage::Admitted | Stage::Sent => UpdateStatus::Admitted,
            Stage::Aborted { is_continued: true } => UpdateStatus::Aborted(workflow_closing()),
            Stage::Aborted { is_continued: false } => UpdateStatus::Aborted(aborted_by_close()),
        })
    }

    /// Fills the registry, after the rows were read, with what history says was admitted.
    pub(crate) fn restore_registry(&mut self) {
        let admitted = self.updates.iter().filter(|(_, u)| !u.is_accepted());
        let ids: Vec<String> = admitted.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.registry.admit(id, None, self.info.start_time);
        }
        if !self.is_running() {
            self.registry.abort(!self.info.new_run_id.is_empty());
        }
    }

    /// Updates on their way or accepted, but not completed.
    fn updates_in_flight(&self) -> usize {
        let accepted = self.updates.values().filter(|u| u.is_open()).count();
        self.registry.len() + accepted
    }

    /// Updates that count against the limit of a run.
    pub(crate) fn updates_total(&self) -> usize {
        let accepted = self.updates.values().filter(|u| u.is_accepted()).count();
        self.registry.len() + accepted
    }
}

impl Turn<'_> {
    /// Takes an update in; one whose ID is known changes nothing. Its caller asks
    /// [`State::update_status`] what became of it.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run, `FAILED_PRECONDITION` while the workflow keeps failing
    /// or after too many updates, `RESOURCE_EXHAUSTED` while too many are in flight.
    pub fn admit_update(&mut self, request: &Request) -> Result<()> {
        let id = request.meta.as_ref().map_or("", |m| m.update_id.as_str());
        let is_known = self.state.update_status(id).is_some();
        if !self.state.is_running() {
            if !is_known {
                return Err(closed());
            }
            self.is_soft = true;
            return Ok(());
        }
        if self.state.info.workflow_task_attempt >= ATTEMPT_MAX {
            return Err(Error::WorkflowNotReady(
                "Unable to perform workflow execution update due to Workflow Task in failed state."
                    .into(),
            ));
        }
        if self.state.info.close_attempted && self.state.started_workflow_task().is_some() {
            return Err(workflow_closing());
        }
        if !is_known {
            if self.state.is_paused() {
                return Err(Error::FailedPrecondition(
                    "Workflow is paused. Cannot update the workflow.".into(),
                ));
            }
            self.check_update_limits(id, request)?;
            self.state.registry.admit(id.to_owned(), Some(request.clone()), self.ctx.now);
            if self.state.info.workflow_task.is_none() {
                self.schedule_speculative_workflow_task();
                self.offer_workflow_task();
            }
        }
        self.is_soft = true;
        Ok(())
    }

    fn check_update_limits(&self, id: &str, request: &Request) -> Result<()> {
        let limits = self.ctx.limits;
        let exhausted = |message: String| Error::ResourceExhausted {
            cause: ResourceExhaustedCause::ConcurrentLimit,
            scope: ResourceExhaustedScope::Namespace,
            message,
        };
        if self.state.updates_in_flight() >= limits.updates_in_flight_max {
            return Err(exhausted(format!(
                "limit on number of concurrent in-flight updates has been reached ({})",
                limits.updates_in_flight_max
            )));
        }
        self.check_updates_total()?;
        let bytes = self.state.registry.bytes() + id.len() + request.encoded_len();
        if bytes >= limits.updates_in_flight_bytes_max {
            return Err(exhausted(format!(
                "limit on total payload size of in-flight updates has been reached ({} bytes)",
                limits.updates_in_flight_bytes_max
            )));
        }
        Ok(())
    }

    fn check_updates_total(&self) -> Result<()> {
        let max = self.ctx.limits.updates_max;
        if self.state.updates_total() >= max {
            return Err(Error::FailedPrecondition(format!(
                "The limit on the total number of distinct updates in this workflow has been \
                 reached ({max}). Make sure any duplicate updates share an Update ID so the \
                 server can deduplicate them, and consider rejecting updates that you aren't \
                 going to process. You can also Continue-as-New to avoid this; we recommend you \
                 check Continue-as-New Suggested in your Workflow."
            )));
        }
        Ok(())
    }

    fn tell_update(&mut self, update_id: String, what: UpdateNews) {
        self.updates.push(UpdateChange { update_id, what });
    }

    /// Rejects updates that a worker was given and said nothing of: it does not know them.
    pub(crate) fn reject_unprocessed_updates(&mut self) {
        for id in self.state.registry.sent() {
            self.state.registry.take(&id);
            self.tell_update(id, UpdateNews::Rejected(unprocessed_failure()));
        }
    }

    /// Gives up on updates that a worker was given with a task that failed for what came
    /// back; those that wait for the next task go on waiting, and so do those in history,
    /// which the worker reads again.
    pub(crate) fn abort_sent_updates(&mut self) {
        for id in self.state.registry.sent() {
            if self.state.updates.get(&id).is_some() {
                continue;
            }
            self.state.registry.take(&id);
            let error = Error::WorkflowNotReady(
                "Unable to perform workflow execution update due to unexpected workflow task \
                 failure."
                    .into(),
            );
            self.tell_update(id, UpdateNews::Aborted(error));
        }
    }

    /// Ends what is in flight, for the run has just closed.
    pub(crate) fn abort_updates(&mut self) {
        let is_continued = self.events.last().is_some_and(has_new_run);
        for id in self.state.registry.ids() {
            let what = if is_continued {
                UpdateNews::Continued
            } else {
                UpdateNews::Aborted(aborted_by_close())
            };
            self.tell_update(id, what);
        }
        self.state.registry.abort(is_continued);
        let open = self.state.updates.iter().filter(|(_, u)| u.is_open());
        let open: Vec<String> = open.map(|(id, _)| id.clone()).collect();
        for id in open {
            self.tell_update(id, UpdateNews::Recorded);
        }
    }

    /// Forgets updates admitted before `before` for which `is_wanted` says no, so that one
    /// whose caller is long gone does not keep the run in memory.
    pub fn forget_updates(&mut self, before: Time, is_wanted: impl Fn(&str) -> bool) {
        self.state
            .registry
            .retain(|id, p| p.request.is_none() || p.admitted_time >= before || is_wanted(id));
        self.is_soft = true;
    }
}

/// Whether a closing event names a run that goes on.
fn has_new_run(event: &HistoryEvent) -> bool {
    let new_run = match &event.attributes {
        Some(Attributes::WorkflowExecutionContinuedAsNewEventAttributes(a)) => {
            &a.new_execution_run_id
        }
        Some(Attributes::WorkflowExecutionCompletedEventAttributes(a)) => &a.new_execution_run_id,
        Some(Attributes::WorkflowExecutionFailedEventAttributes(a)) => &a.new_execution_run_id,
        Some(Attributes::WorkflowExecutionTimedOutEventAttributes(a)) => &a.new_execution_run_id,
        _ => return false,
    };
    !new_run.is_empty()
}

fn aborted_by_close() -> Error {
    Error::not_found("workflow update was aborted by closing workflow")
}

/// Asking again finds the workflow's next run, or that there is none.
pub(crate) fn workflow_closing() -> Error {
    Error::ResourceExhausted {
        cause: ResourceExhaustedCause::BusyWorkflow,
        scope: ResourceExhaustedScope::Namespace,
        message: "workflow operation can not be applied because workflow is closing".into(),
    }
}

fn unprocessed_failure() -> Failure {
    server_application_failure(
        "Workflow Update is rejected because it wasn't processed by worker. Probably, Workflow \
         Update is not supported by the worker.",
        "UnprocessedUpdate",
    )
}

fn workflow_closed_failure() -> Failure {
    server_application_failure(
        "Workflow Update failed because the Workflow completed before the Update completed.",
        "AcceptedUpdateCompletedWorkflow",
    )
}

fn server_application_failure(message: &str, kind: &str) -> Failure {
    Failure {
        message: message.into(),
        source: "Server".into(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
            r#type: kind.into(),
            non_retryable: true,
            ..ApplicationFailureInfo::default()
        })),
        ..Failure::default()
    }
}
