// Workers still send what the API calls deprecated: control, namespace.
#![allow(deprecated)]

use everspan_proto::{
    command::SignalExternalWorkflowExecutionCommandAttributes,
    enums::{
        EventType, SignalExternalWorkflowExecutionFailedCause as FailedCause,
        WorkflowTaskFailedCause as Cause,
    },
    history::{SignalExternalWorkflowExecutionInitiatedEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
    workflowservice::SignalWorkflowExecutionRequest,
};
use everspan_types::RunId;

use super::{BadTarget, By, Failed, check_count, check_namespace, check_size, check_target};
use crate::{
    message::Body,
    turn::{SERVER_IDENTITY, Turn},
};

const CAUSE: Cause = Cause::BadSignalWorkflowExecutionAttributes;
const COMMAND: &str = "SignalExternalWorkflowExecutionCommand";

/// Initiates a signal to another workflow.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &SignalExternalWorkflowExecutionCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    let Some(execution) = &a.execution else {
        return Err(Failed::task(CAUSE, format!("Execution is not set on {COMMAND}.")));
    };
    check_namespace(turn, &a.namespace, CAUSE)?;
    let (id, run_id, namespace) = (&execution.workflow_id, &execution.run_id, &a.namespace);
    let signal = &a.signal_name;
    check_target(turn, execution, CAUSE, |bad| match bad {
        BadTarget::Missing => format!(
            "WorkflowId is not set on {COMMAND}. Namespace={namespace} RunId={run_id} \
             SignalName={signal}"
        ),
        BadTarget::TooLong { length, limit } => format!(
            "WorkflowId on {COMMAND} exceeds length limit. WorkflowId={id} Length={length} \
             Limit={limit} Namespace={namespace} RunId={run_id} SignalName={signal}"
        ),
        BadTarget::RunId => format!(
            "Invalid RunId set on {COMMAND}. WorkflowId={id} Namespace={namespace} \
             RunId={run_id} SignalName={signal}"
        ),
    })?;
    if a.signal_name.is_empty() {
        return Err(Failed::task(
            CAUSE,
            format!(
                "SignalName is not set on {COMMAND}. WorkflowId={} Namespace={} RunId={}",
                execution.workflow_id, a.namespace, execution.run_id
            ),
        ));
    }
    check_count(
        turn.state.external_signals.len(),
        turn.ctx.limits.pending_external_signals_max,
        Cause::PendingSignalsLimitExceeded,
        "pending signals to external workflows",
    )?;
    check_size(
        turn,
        a.input.as_ref(),
        CAUSE,
        "SignalExternalWorkflowExecutionCommandAttributes.Input exceeds size limit.",
    )?;
    let id = turn.write_with(
        EventType::SignalExternalWorkflowExecutionInitiated,
        Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(
            SignalExternalWorkflowExecutionInitiatedEventAttributes {
                workflow_task_completed_event_id: by.completed_event_id,
                namespace: a.namespace.clone(),
                namespace_id: turn.state.info.namespace.to_string(),
                workflow_execution: Some(execution.clone()),
                signal_name: a.signal_name.clone(),
                input: a.input.clone(),
                control: a.control.clone(),
                child_workflow_only: a.child_workflow_only,
                header: a.header.clone(),
            },
        ),
        summary,
    );
    let info = &turn.state.info;
    if execution.workflow_id == info.workflow_id {
        // A workflow does not reach itself this way; the real server's rule.
        let failed = FailedCause::ExternalWorkflowExecutionNotFound as i32;
        let mut answer = turn.message(&execution.workflow_id, id, Body::SignalAnswer { failed });
        answer.run_id = Some(turn.state.info.run_id);
        turn.messages.push(answer);
        return Ok(());
    }
    let request = Box::new(SignalWorkflowExecutionRequest {
        signal_name: a.signal_name.clone(),
        input: a.input.clone(),
        identity: SERVER_IDENTITY.into(),
        request_id: RunId::derived(turn.ctx.now, info.run_id, id.unsigned_abs()).to_string(),
        header: a.header.clone(),
        ..SignalWorkflowExecutionRequest::default()
    });
    let body = Body::Signal { request, child_only: a.child_workflow_only };
    let mut message = turn.message(&execution.workflow_id, id, body);
    message.run_id = execution.run_id.parse().ok().map(RunId);
    turn.messages.push(message);
    Ok(())
}
