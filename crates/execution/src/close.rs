//! Closes that the workflow has no say in: terminate, time-out, limits.

use everspan_proto::{
    common::{Link, Payloads},
    enums::{EventType, RetryState, TimeoutType, WorkflowTaskFailedCause},
    history::{
        HistoryEvent, WorkflowExecutionTerminatedEventAttributes,
        WorkflowExecutionTimedOutEventAttributes, history_event::Attributes,
    },
    workflowservice::TerminateWorkflowExecutionRequest,
};
use everspan_types::Result;

use crate::{
    convert::timeout_failure,
    next::next_run_id,
    signal::closed,
    turn::{SERVER_IDENTITY, Turn},
};

impl Turn<'_> {
    /// Terminates the run at once; no worker is asked.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run.
    pub fn terminate(&mut self, request: &TerminateWorkflowExecutionRequest) -> Result<()> {
        if !self.state.is_running() {
            return Err(closed());
        }
        self.abandon_workflow_task();
        self.withdraw_all();
        let event = self.terminated_event(
            &request.reason,
            request.details.clone(),
            &request.identity,
            request.links.clone(),
        );
        self.write_event(event);
        Ok(())
    }

    /// Terminates the run to make room for a new one under the same workflow ID.
    pub fn terminate_for_new_run(&mut self, new_run_id: &str) {
        self.abandon_workflow_task();
        self.withdraw_all();
        let reason = "TerminateIfRunning WorkflowIdReusePolicy";
        let details = Payloads {
            payloads: vec![everspan_proto::common::Payload {
                metadata: [("encoding".to_owned(), bytes::Bytes::from_static(b"json/plain"))]
                    .into(),
                data: format!("\"terminated by new runID: {new_run_id}\"").into(),
                ..Default::default()
            }],
        };
        let event = self.terminated_event(reason, Some(details), SERVER_IDENTITY, Vec::new());
        self.write_event(event);
    }

    /// Terminates the run because its worker's answer is larger than a message may be.
    pub(crate) fn terminate_as_too_large(&mut self) {
        self.abandon_workflow_task();
        self.write_terminated("GrpcMessageTooLarge", None, SERVER_IDENTITY);
    }

    /// Terminates the run because it is about to be deleted.
    pub fn terminate_for_delete(&mut self) {
        self.abandon_workflow_task();
        self.write_terminated("Delete workflow execution", None, SERVER_IDENTITY);
    }

    pub(crate) fn write_terminated(
        &mut self,
        reason: &str,
        details: Option<Payloads>,
        identity: &str,
    ) {
        self.withdraw_all();
        let event = self.terminated_event(reason, details, identity, Vec::new());
        self.write_event(event);
    }

    fn terminated_event(
        &self,
        reason: &str,
        details: Option<Payloads>,
        identity: &str,
        links: Vec<Link>,
    ) -> HistoryEvent {
        HistoryEvent {
            event_time: Some(self.ctx.now.to_proto()),
            event_type: EventType::WorkflowExecutionTerminated as i32,
            links,
            attributes: Some(Attributes::WorkflowExecutionTerminatedEventAttributes(
                WorkflowExecutionTerminatedEventAttributes {
                    reason: reason.to_owned(),
                    details,
                    identity: identity.to_owned(),
                },
            )),
            ..HistoryEvent::default()
        }
    }

    /// Closes the run because its time is over; another may follow.
    pub(crate) fn time_out_run(&mut self) {
        let failure = timeout_failure("workflow timeout", TimeoutType::StartToClose);
        let (retry_state, next) = self.after_failure(&failure, true);
        self.time_out(retry_state, next_run_id(next.as_ref()));
        if let Some(next) = next {
            self.repeat(next);
        }
    }

    /// Closes the run because its time is over.
    pub(crate) fn time_out(&mut self, retry_state: RetryState, new_execution_run_id: String) {
        self.abandon_workflow_task();
        self.withdraw_all();
        self.write(
            EventType::WorkflowExecutionTimedOut,
            Attributes::WorkflowExecutionTimedOutEventAttributes(
                WorkflowExecutionTimedOutEventAttributes {
                    retry_state: retry_state as i32,
                    new_execution_run_id,
                },
            ),
        );
    }

    /// Fails a workflow task that is with a worker, so that held-back events and the close
    /// can be written.
    pub(crate) fn abandon_workflow_task(&mut self) {
        if self.state.started_workflow_task().is_some() {
            let cause = WorkflowTaskFailedCause::ForceCloseCommand;
            self.fail_workflow_task(cause, None, SERVER_IDENTITY, "");
        }
        self.flush_buffer();
    }

    /// Withdraws every task that the run offers.
    pub(crate) fn withdraw_all(&mut self) {
        self.withdraw_workflow_task();
        let ids: Vec<i64> = self.state.activities.iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.withdraw_activity(id);
        }
        self.state.info.first_task_at = None;
    }

    /// Terminates a run whose history grew over the limits.
    pub(crate) fn limit_history(&mut self) {
        let (info, limits) = (&self.state.info, self.ctx.limits);
        let reason = if info.next_event_id - 1 > limits.history_events_max {
            "Workflow history count exceeds limit."
        } else if info.history_bytes > limits.history_bytes_max {
            "Workflow history size exceeds limit."
        } else {
            return;
        };
        self.abandon_workflow_task();
        self.write_terminated(reason, None, SERVER_IDENTITY);
    }
}
