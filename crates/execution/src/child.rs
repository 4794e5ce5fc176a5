//! Child workflows, as their parent sees them: news of their start and close.

// Events still carry what the API calls deprecated: control.
#![allow(deprecated)]

use everspan_proto::{
    common::{Header, WorkflowExecution, WorkflowType},
    enums::{EventType, ParentClosePolicy, StartChildWorkflowExecutionFailedCause},
    history::{
        ChildWorkflowExecutionCanceledEventAttributes,
        ChildWorkflowExecutionCompletedEventAttributes,
        ChildWorkflowExecutionFailedEventAttributes, ChildWorkflowExecutionStartedEventAttributes,
        ChildWorkflowExecutionTerminatedEventAttributes,
        ChildWorkflowExecutionTimedOutEventAttributes, HistoryEvent,
        StartChildWorkflowExecutionFailedEventAttributes, history_event::Attributes,
    },
    workflowservice::RequestCancelWorkflowExecutionRequest,
};
use everspan_types::RunId;

use crate::{
    fold::closing_status,
    message::{Body, Message},
    state::{Child, Parent},
    turn::{SERVER_IDENTITY, Turn},
};

impl Turn<'_> {
    /// Notes that a child runs. Told twice, or of a child that is pending no more, nothing
    /// changes.
    pub fn child_started(
        &mut self,
        initiated_event_id: i64,
        run_id: RunId,
        header: Option<Header>,
    ) {
        let is_pending = |c: &&Child| c.run_id.is_empty();
        let Some(child) = self.state.children.get(&initiated_event_id).filter(is_pending).cloned()
        else {
            return;
        };
        if !self.state.is_running() {
            return;
        }
        self.hold(
            EventType::ChildWorkflowExecutionStarted,
            Attributes::ChildWorkflowExecutionStartedEventAttributes(
                ChildWorkflowExecutionStartedEventAttributes {
                    namespace: self.state.info.namespace_name.clone(),
                    namespace_id: self.state.info.namespace.to_string(),
                    initiated_event_id,
                    workflow_execution: Some(execution(&child.workflow_id, run_id)),
                    workflow_type: Some(WorkflowType { name: child.workflow_type }),
                    header,
                },
            ),
        );
        self.ensure_workflow_task();
    }

    /// Notes that a child could not be started. Of one that runs, nothing changes.
    pub fn child_not_started(&mut self, initiated_event_id: i64, cause: i32) {
        let is_pending = |c: &&Child| c.run_id.is_empty();
        let Some(child) = self.state.children.get(&initiated_event_id).filter(is_pending).cloned()
        else {
            return;
        };
        if !self.state.is_running() {
            return;
        }
        let cause = StartChildWorkflowExecutionFailedCause::try_from(cause).unwrap_or_default();
        self.hold(
            EventType::StartChildWorkflowExecutionFailed,
            Attributes::StartChildWorkflowExecutionFailedEventAttributes(
                StartChildWorkflowExecutionFailedEventAttributes {
                    namespace: self.state.info.namespace_name.clone(),
                    namespace_id: self.state.info.namespace.to_string(),
                    workflow_id: child.workflow_id,
                    workflow_type: Some(WorkflowType { name: child.workflow_type }),
                    cause: cause as i32,
                    control: child.control,
                    initiated_event_id,
                    // The real server leaves it empty here.
                    workflow_task_completed_event_id: 0,
                },
            ),
        );
        self.ensure_workflow_task();
    }

    /// Notes that a child closed, with the event that closed the last of its runs.
    pub fn child_closed(
        &mut self,
        initiated_event_id: i64,
        first_run_id: RunId,
        run_id: RunId,
        event: &HistoryEvent,
    ) {
        let is_same = |c: &&Child| c.run_id == first_run_id.to_string();
        let Some(child) = self.state.children.get(&initiated_event_id).filter(is_same).cloned()
        else {
            return;
        };
        if !self.state.is_running() {
            return;
        }
        let namespace = self.state.info.namespace_name.clone();
        let namespace_id = self.state.info.namespace.to_string();
        let workflow_execution = Some(execution(&child.workflow_id, run_id));
        let workflow_type = Some(WorkflowType { name: child.workflow_type.clone() });
        let started_event_id = child.started_event_id;
        macro_rules! closed {
            ($kind:ident, $variant:ident, $attributes:ident { $($field:ident: $value:expr),* }) => {
                (EventType::$kind, Attributes::$variant($attributes {
                    namespace,
                    namespace_id,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    started_event_id,
                    $($field: $value),*
                }))
            };
        }
        let (kind, attributes) = match &event.attributes {
            Some(Attributes::WorkflowExecutionCompletedEventAttributes(a)) => closed!(
                ChildWorkflowExecutionCompleted,
                ChildWorkflowExecutionCompletedEventAttributes,
                ChildWorkflowExecutionCompletedEventAttributes { result: a.result.clone() }
            ),
            Some(Attributes::WorkflowExecutionFailedEventAttributes(a)) => closed!(
                ChildWorkflowExecutionFailed,
                ChildWorkflowExecutionFailedEventAttributes,
                ChildWorkflowExecutionFailedEventAttributes {
                    failure: a.failure.clone(),
                    retry_state: a.retry_state
                }
            ),
            Some(Attributes::WorkflowExecutionCanceledEventAttributes(a)) => closed!(
                ChildWorkflowExecutionCanceled,
                ChildWorkflowExecutionCanceledEventAttributes,
                ChildWorkflowExecutionCanceledEventAttributes { details: a.details.clone() }
            ),
            Some(Attributes::WorkflowExecutionTimedOutEventAttributes(a)) => closed!(
                ChildWorkflowExecutionTimedOut,
                ChildWorkflowExecutionTimedOutEventAttributes,
                ChildWorkflowExecutionTimedOutEventAttributes { retry_state: a.retry_state }
            ),
            _ => closed!(
                ChildWorkflowExecutionTerminated,
                ChildWorkflowExecutionTerminatedEventAttributes,
                ChildWorkflowExecutionTerminatedEventAttributes {}
            ),
        };
        self.hold(kind, attributes);
        self.ensure_workflow_task();
    }

    /// What a close makes known to others: to the parent, unless another run follows, and
    /// to the children, by their policies.
    pub(crate) fn tell_of_close(&mut self) {
        // A child whose start never left this change is not started at all.
        self.messages.retain(|m| !m.is_start());
        let is_reset = self.events.iter().any(crate::reset::is_reset);
        let is_last = self.state.info.new_run_id.is_empty() && !is_reset;
        if let Some(parent) = self.state.info.parent.clone().filter(|_| is_last)
            && let Some(event) =
                self.events.iter().rev().find(|e| closing_status(e.event_type()).is_some())
        {
            let info = &self.state.info;
            let body = Body::ChildClosed {
                first_run_id: info.first_run_id,
                run_id: info.run_id,
                event: Box::new(event.clone()),
            };
            let sender =
                Parent { initiated_event_id: parent.initiated_event_id, ..self.as_sender(0) };
            self.messages.push(Message {
                namespace: parent.namespace,
                workflow_id: parent.workflow_id,
                run_id: Some(parent.run_id),
                sender,
                body,
            });
        }
        if is_reset && self.state.info.reset_to.is_some() {
            // The run that goes on has the children.
            return;
        }
        let initiated_now = self.first_event_id;
        let children: Vec<Child> = self.state.children.values().cloned().collect();
        for child in children {
            if child.run_id.is_empty() && child.initiated_event_id >= initiated_now {
                continue;
            }
            let body = match ParentClosePolicy::try_from(child.parent_close_policy) {
                Ok(ParentClosePolicy::Abandon) => continue,
                Ok(ParentClosePolicy::RequestCancel) => Body::Cancel {
                    request: Box::new(RequestCancelWorkflowExecutionRequest {
                        identity: SERVER_IDENTITY.into(),
                        first_execution_run_id: child.run_id.clone(),
                        ..Default::default()
                    }),
                    child_only: true,
                    answer: false,
                },
                _ => Body::Terminate { first_run_id: child.run_id.clone() },
            };
            let message = self.message(&child.workflow_id, child.initiated_event_id, body);
            self.messages.push(message);
        }
    }

    /// This run, as the sender of messages on account of an event.
    pub(crate) fn as_sender(&self, initiated_event_id: i64) -> Parent {
        let info = &self.state.info;
        Parent {
            namespace: info.namespace,
            namespace_name: info.namespace_name.clone(),
            workflow_id: info.workflow_id.clone(),
            run_id: info.run_id,
            initiated_event_id,
        }
    }

    /// A message to the latest run of a workflow of the same namespace.
    pub(crate) fn message(&self, workflow_id: &str, event_id: i64, body: Body) -> Message {
        Message {
            namespace: self.state.info.namespace,
            workflow_id: workflow_id.to_owned(),
            run_id: None,
            sender: self.as_sender(event_id),
            body,
        }
    }
}

fn execution(workflow_id: &str, run_id: RunId) -> WorkflowExecution {
    WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: run_id.to_string() }
}
