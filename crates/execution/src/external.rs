//! Signals and cancel requests between workflows: what the sender hears of them, and what
//! the receiver does.

// Events still carry what the API calls deprecated: control.
#![allow(deprecated)]

use everspan_proto::{
    common::WorkflowExecution,
    enums::EventType,
    history::{
        ExternalWorkflowExecutionCancelRequestedEventAttributes,
        ExternalWorkflowExecutionSignaledEventAttributes,
        RequestCancelExternalWorkflowExecutionFailedEventAttributes,
        SignalExternalWorkflowExecutionFailedEventAttributes, history_event::Attributes,
    },
    workflowservice::{
        RequestCancelWorkflowExecutionRequest, SignalWorkflowExecutionRequest,
        TerminateWorkflowExecutionRequest,
    },
};
use everspan_types::{Error, Result};

use crate::{
    signal::Signal,
    state::{External, Parent},
    turn::{SERVER_IDENTITY, Turn},
};

/// Why a close policy ends a child; the real server's word.
const CLOSED_BY_PARENT: &str = "by parent close policy";

impl Turn<'_> {
    /// Notes what became of a signal to another workflow; `failed` is a
    /// `SignalExternalWorkflowExecutionFailedCause`, 0 if it was taken.
    pub fn signal_answered(&mut self, initiated_event_id: i64, failed: i32) {
        let Some(sent) = self.state.external_signals.get(&initiated_event_id).cloned() else {
            return;
        };
        if !self.state.is_running() {
            return;
        }
        let info = &self.state.info;
        let (namespace, namespace_id) = (info.namespace_name.clone(), info.namespace.to_string());
        let workflow_execution = Some(target(&sent));
        if failed == 0 {
            self.hold(
                EventType::ExternalWorkflowExecutionSignaled,
                Attributes::ExternalWorkflowExecutionSignaledEventAttributes(
                    ExternalWorkflowExecutionSignaledEventAttributes {
                        initiated_event_id,
                        namespace,
                        namespace_id,
                        workflow_execution,
                        control: sent.control,
                    },
                ),
            );
        } else {
            self.hold(
                EventType::SignalExternalWorkflowExecutionFailed,
                Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(
                    SignalExternalWorkflowExecutionFailedEventAttributes {
                        cause: failed,
                        // The real server leaves it empty here.
                        workflow_task_completed_event_id: 0,
                        namespace,
                        namespace_id,
                        workflow_execution,
                        initiated_event_id,
                        control: sent.control,
                    },
                ),
            );
        }
        self.ensure_workflow_task();
    }

    /// Notes what became of a cancel request to another workflow; `failed` is a
    /// `CancelExternalWorkflowExecutionFailedCause`, 0 if it was taken.
    pub fn cancel_answered(&mut self, initiated_event_id: i64, failed: i32) {
        let Some(sent) = self.state.external_cancels.get(&initiated_event_id).cloned() else {
            return;
        };
        if !self.state.is_running() {
            return;
        }
        let info = &self.state.info;
        let (namespace, namespace_id) = (info.namespace_name.clone(), info.namespace.to_string());
        let workflow_execution = Some(target(&sent));
        if failed == 0 {
            self.hold(
                EventType::ExternalWorkflowExecutionCancelRequested,
                Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(
                    ExternalWorkflowExecutionCancelRequestedEventAttributes {
                        initiated_event_id,
                        namespace,
                        namespace_id,
                        workflow_execution,
                    },
                ),
            );
        } else {
            self.hold(
                EventType::RequestCancelExternalWorkflowExecutionFailed,
                Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(
                    RequestCancelExternalWorkflowExecutionFailedEventAttributes {
                        cause: failed,
                        workflow_task_completed_event_id: 0,
                        namespace,
                        namespace_id,
                        workflow_execution,
                        initiated_event_id,
                        control: String::new(),
                    },
                ),
            );
        }
        self.ensure_workflow_task();
    }

    /// Takes a signal from another workflow.
    ///
    /// # Errors
    /// As [`Turn::signal`]; `NOT_FOUND` if only a child is meant and this is none.
    pub fn signal_from(
        &mut self,
        sender: &Parent,
        request: &SignalWorkflowExecutionRequest,
        child_only: bool,
    ) -> Result<()> {
        self.check_parent(sender, child_only)?;
        self.signal(Signal { sender: Some(as_execution(sender)), ..request.into() })
    }

    /// Takes a cancel request from another workflow.
    ///
    /// # Errors
    /// As [`Turn::request_cancel`]; `NOT_FOUND` if only a child is meant and this is none, or
    /// another first run.
    pub fn cancel_from(
        &mut self,
        sender: &Parent,
        request: &RequestCancelWorkflowExecutionRequest,
        child_only: bool,
        answer: bool,
    ) -> Result<()> {
        if !self.state.is_running() {
            return Ok(());
        }
        self.check_first_run(&request.first_execution_run_id)?;
        self.check_parent(sender, child_only)?;
        // A close policy has no event that asked for it.
        let event_id = if answer { sender.initiated_event_id } else { 0 };
        self.request_cancel_from(request, Some((as_execution(sender), event_id)))
    }

    /// Ends a child whose parent closed.
    ///
    /// # Errors
    /// `NOT_FOUND` if it is closed, or not that child.
    pub fn terminate_from(&mut self, sender: &Parent, first_run_id: &str) -> Result<()> {
        self.check_first_run(first_run_id)?;
        self.check_parent(sender, true)?;
        self.terminate(&TerminateWorkflowExecutionRequest {
            reason: CLOSED_BY_PARENT.into(),
            identity: SERVER_IDENTITY.into(),
            ..Default::default()
        })
    }

    fn check_parent(&self, sender: &Parent, child_only: bool) -> Result<()> {
        let is_parent = self
            .state
            .info
            .parent
            .as_ref()
            .is_some_and(|p| p.workflow_id == sender.workflow_id && p.run_id == sender.run_id);
        if !child_only || is_parent || !self.state.is_running() {
            return Ok(());
        }
        Err(Error::not_found("workflow parent does not match"))
    }

    fn check_first_run(&self, first_run_id: &str) -> Result<()> {
        if first_run_id.is_empty() || first_run_id == self.state.info.first_run_id.to_string() {
            return Ok(());
        }
        Err(Error::not_found("workflow execution not found"))
    }
}

fn target(sent: &External) -> WorkflowExecution {
    WorkflowExecution { workflow_id: sent.workflow_id.clone(), run_id: sent.run_id.clone() }
}

fn as_execution(sender: &Parent) -> WorkflowExecution {
    WorkflowExecution { workflow_id: sender.workflow_id.clone(), run_id: sender.run_id.to_string() }
}
