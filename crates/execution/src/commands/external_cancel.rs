// Workers still send what the API calls deprecated: control, namespace.
#![allow(deprecated)]

use everspan_proto::{
    command::RequestCancelExternalWorkflowExecutionCommandAttributes,
    common::WorkflowExecution,
    enums::{
        CancelExternalWorkflowExecutionFailedCause as FailedCause, EventType,
        WorkflowTaskFailedCause as Cause,
    },
    history::{
        RequestCancelExternalWorkflowExecutionInitiatedEventAttributes, history_event::Attributes,
    },
    sdk::UserMetadata,
    workflowservice::RequestCancelWorkflowExecutionRequest,
};
use everspan_types::RunId;

use super::{BadTarget, By, Failed, check_count, check_namespace, check_target};
use crate::{
    message::Body,
    turn::{SERVER_IDENTITY, Turn},
};

const CAUSE: Cause = Cause::BadRequestCancelExternalWorkflowExecutionAttributes;
const COMMAND: &str = "RequestCancelExternalWorkflowExecutionCommand";

/// Initiates a request to cancel another workflow.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &RequestCancelExternalWorkflowExecutionCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    check_namespace(turn, &a.namespace, CAUSE)?;
    let execution =
        WorkflowExecution { workflow_id: a.workflow_id.clone(), run_id: a.run_id.clone() };
    let (id, run_id, namespace) = (&a.workflow_id, &a.run_id, &a.namespace);
    check_target(turn, &execution, CAUSE, |bad| match bad {
        BadTarget::Missing => {
            format!("WorkflowId is not set on {COMMAND}. Namespace={namespace} RunId={run_id}")
        }
        BadTarget::TooLong { length, limit } => format!(
            "WorkflowId on {COMMAND} exceeds length limit. WorkflowId={id} Length={length} \
             Limit={limit} RunId={run_id} Namespace={namespace}"
        ),
        BadTarget::RunId => format!(
            "Invalid RunId set on {COMMAND}. WorkflowId={id} RunId={run_id} \
             Namespace={namespace}"
        ),
    })?;
    let is_same_task = |id: i64| id > by.completed_event_id;
    if turn
        .state
        .children
        .values()
        .any(|child| child.workflow_id == a.workflow_id && is_same_task(child.initiated_event_id))
    {
        return Err(Failed::task(
            CAUSE,
            format!(
                "Start and RequestCancel for child workflow is not allowed in same workflow task. \
                 WorkflowId={} RunId={} Namespace={}",
                a.workflow_id, a.run_id, a.namespace
            ),
        ));
    }
    check_count(
        turn.state.external_cancels.len(),
        turn.ctx.limits.pending_external_cancels_max,
        Cause::PendingRequestCancelLimitExceeded,
        "pending requests to cancel external workflows",
    )?;
    let id = turn.write_with(
        EventType::RequestCancelExternalWorkflowExecutionInitiated,
        Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(
            RequestCancelExternalWorkflowExecutionInitiatedEventAttributes {
                workflow_task_completed_event_id: by.completed_event_id,
                namespace: a.namespace.clone(),
                namespace_id: turn.state.info.namespace.to_string(),
                workflow_execution: Some(execution.clone()),
                control: a.control.clone(),
                child_workflow_only: a.child_workflow_only,
                reason: a.reason.clone(),
            },
        ),
        summary,
    );
    let info = &turn.state.info;
    if execution.workflow_id == info.workflow_id {
        // A workflow does not reach itself this way; the real server's rule.
        let failed = FailedCause::ExternalWorkflowExecutionNotFound as i32;
        let mut answer = turn.message(&execution.workflow_id, id, Body::CancelAnswer { failed });
        answer.run_id = Some(turn.state.info.run_id);
        turn.messages.push(answer);
        return Ok(());
    }
    let request = Box::new(RequestCancelWorkflowExecutionRequest {
        identity: SERVER_IDENTITY.into(),
        request_id: RunId::derived(turn.ctx.now, info.run_id, id.unsigned_abs()).to_string(),
        reason: a.reason.clone(),
        ..RequestCancelWorkflowExecutionRequest::default()
    });
    let body = Body::Cancel { request, child_only: a.child_workflow_only, answer: true };
    let mut message = turn.message(&execution.workflow_id, id, body);
    message.run_id = execution.run_id.parse().ok().map(RunId);
    turn.messages.push(message);
    Ok(())
}
