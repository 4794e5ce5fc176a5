//! Signals and cancel requests from outside the workflow.

use everspan_proto::{
    common::{Header, Link, Payloads, WorkflowExecution},
    enums::EventType,
    history::{
        HistoryEvent, WorkflowExecutionCancelRequestedEventAttributes,
        WorkflowExecutionSignaledEventAttributes, history_event::Attributes,
    },
    workflowservice::{
        RequestCancelWorkflowExecutionRequest, SignalWithStartWorkflowExecutionRequest,
        SignalWorkflowExecutionRequest,
    },
};
use everspan_types::{Error, Result};

use crate::turn::Turn;

/// A signal on its way into a run.
#[derive(Clone, Debug)]
pub struct Signal {
    /// The signal's name.
    pub name: String,
    /// Its arguments.
    pub input: Option<Payloads>,
    /// Who sent it.
    pub identity: String,
    /// Headers of the sender.
    pub header: Option<Header>,
    /// Deduplicates repeated sends; may be empty.
    pub request_id: String,
    /// Links to what sent it.
    pub links: Vec<Link>,
    /// The workflow that sent it, if one did.
    pub sender: Option<WorkflowExecution>,
}

impl From<&SignalWorkflowExecutionRequest> for Signal {
    fn from(r: &SignalWorkflowExecutionRequest) -> Self {
        Self {
            name: r.signal_name.clone(),
            input: r.input.clone(),
            identity: r.identity.clone(),
            header: r.header.clone(),
            request_id: r.request_id.clone(),
            links: r.links.clone(),
            sender: None,
        }
    }
}

impl From<&SignalWithStartWorkflowExecutionRequest> for Signal {
    fn from(r: &SignalWithStartWorkflowExecutionRequest) -> Self {
        Self {
            name: r.signal_name.clone(),
            input: r.signal_input.clone(),
            identity: r.identity.clone(),
            header: r.header.clone(),
            request_id: r.request_id.clone(),
            links: r.links.clone(),
            sender: None,
        }
    }
}

/// The answer to whatever comes for a run that is closed.
pub(crate) fn closed() -> Error {
    Error::not_found("workflow execution already completed")
}

impl Turn<'_> {
    /// Takes a signal; one with a request ID already seen changes nothing.
    ///
    /// # Errors
    /// `NOT_FOUND` on a closed run; `INVALID_ARGUMENT` over the limit of signals.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.state.is_running() {
            return Err(closed());
        }
        if !signal.request_id.is_empty() && self.state.signal_requests.contains(&signal.request_id)
        {
            // Nothing is written, not even a task that an update waits for.
            self.is_soft = true;
            return Ok(());
        }
        if self.state.info.signal_count >= self.ctx.limits.signals_max {
            return Err(Error::invalid("exceeded workflow execution limit for signal events"));
        }
        if self.state.info.close_attempted && self.state.started_workflow_task().is_some() {
            // A workflow that tries to close is not to be kept from it for ever.
            return Err(crate::update::workflow_closing());
        }
        self.take_signal(signal);
        self.ensure_workflow_task();
        Ok(())
    }

    pub(crate) fn take_signal(&mut self, signal: Signal) {
        if !signal.request_id.is_empty() {
            self.state.signal_requests.insert(signal.request_id.clone(), ());
        }
        self.hold_event(HistoryEvent {
            event_time: Some(self.ctx.now.to_proto()),
            event_type: EventType::WorkflowExecutionSignaled as i32,
            links: signal.links,
            attributes: Some(Attributes::WorkflowExecutionSignaledEventAttributes(
                #[allow(deprecated)]
                WorkflowExecutionSignaledEventAttributes {
                    signal_name: signal.name,
                    input: signal.input,
                    identity: signal.identity,
                    header: signal.header,
                    request_id: signal.request_id,
                    external_workflow_execution: signal.sender,
                    ..WorkflowExecutionSignaledEventAttributes::default()
                },
            )),
            ..HistoryEvent::default()
        });
    }

    /// Asks the workflow to cancel itself. Asking again, or asking a closed run, is answered
    /// with success and changes nothing.
    ///
    /// # Errors
    /// None, so far.
    pub fn request_cancel(
        &mut self,
        request: &RequestCancelWorkflowExecutionRequest,
    ) -> Result<()> {
        self.request_cancel_from(request, None)
    }

    /// The same, from another workflow on account of the event of that ID.
    pub(crate) fn request_cancel_from(
        &mut self,
        request: &RequestCancelWorkflowExecutionRequest,
        sender: Option<(WorkflowExecution, i64)>,
    ) -> Result<()> {
        // Asking a closed run, or asking again, is answered with success; measured.
        if !self.state.is_running() || self.state.info.cancel_requested {
            self.is_soft = true;
            return Ok(());
        }
        // Unlike a signal, it does not wait for a start delay to end.
        self.state.info.first_task_at = None;
        self.state.info.cancel_request_id.clone_from(&request.request_id);
        let (external_workflow_execution, initiated) = sender.unzip();
        self.hold_event(HistoryEvent {
            event_time: Some(self.ctx.now.to_proto()),
            event_type: EventType::WorkflowExecutionCancelRequested as i32,
            links: request.links.clone(),
            attributes: Some(Attributes::WorkflowExecutionCancelRequestedEventAttributes(
                WorkflowExecutionCancelRequestedEventAttributes {
                    cause: request.reason.clone(),
                    identity: request.identity.clone(),
                    external_initiated_event_id: initiated.unwrap_or_default(),
                    external_workflow_execution,
                },
            )),
            ..HistoryEvent::default()
        });
        self.ensure_workflow_task();
        Ok(())
    }
}
