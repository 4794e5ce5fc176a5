use std::time::Duration;

use everspan_proto::{
    command::ContinueAsNewWorkflowExecutionCommandAttributes,
    common::WorkflowType,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{WorkflowExecutionContinuedAsNewEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
    workflowservice::StartWorkflowExecutionRequest,
};

use super::{By, Failed, check_memo, check_search_attributes, check_size, queue_name, shown_queue};
use crate::{
    convert::{
        attributes_without_nil, checked_duration, memo_without_nil, normal_queue, proto_duration,
    },
    retry::RetryPolicy,
    start::timeouts,
    turn::Turn,
};

const CAUSE: Cause = Cause::BadContinueAsNewAttributes;
const COMMAND: &str = "ContinueAsNewWorkflowExecutionCommand";

/// Closes the run and starts the next.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &ContinueAsNewWorkflowExecutionCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    let a = complete(turn, a)?;
    let run_id = turn.next_run_id();
    turn.continue_as(&a, run_id).map_err(|e| Failed::task(CAUSE, e))?;
    turn.withdraw_all();
    turn.write_with(
        EventType::WorkflowExecutionContinuedAsNew,
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(
            #[allow(deprecated)]
            WorkflowExecutionContinuedAsNewEventAttributes {
                new_execution_run_id: run_id.to_string(),
                workflow_type: a.workflow_type,
                task_queue: a.task_queue,
                input: a.input,
                workflow_run_timeout: a.workflow_run_timeout,
                workflow_task_timeout: a.workflow_task_timeout,
                workflow_task_completed_event_id: by.completed_event_id,
                backoff_start_interval: a.backoff_start_interval,
                initiator: a.initiator,
                failure: a.failure,
                last_completion_result: a.last_completion_result,
                header: a.header,
                memo: memo_without_nil(a.memo.as_ref()),
                search_attributes: attributes_without_nil(a.search_attributes.as_ref()),
                inherit_build_id: a.inherit_build_id,
                ..WorkflowExecutionContinuedAsNewEventAttributes::default()
            },
        ),
        summary,
    );
    Ok(())
}

/// The command with what it leaves out taken from this run, checked.
fn complete(
    turn: &Turn<'_>,
    a: &ContinueAsNewWorkflowExecutionCommandAttributes,
) -> Result<ContinueAsNewWorkflowExecutionCommandAttributes, Failed> {
    let mut a = a.clone();
    let info = &turn.state.info;
    let limit = turn.ctx.limits.id_length_max;
    let kind = match a.workflow_type.take().map(|t| t.name) {
        Some(name) if !name.is_empty() => name,
        _ => info.workflow_type.clone(),
    };
    if kind.len() > limit {
        return Err(Failed::task(
            CAUSE,
            format!(
                "WorkflowType on {COMMAND} exceeds length limit. WorkflowType={kind} Length={} \
                 Limit={limit}",
                kind.len()
            ),
        ));
    }
    let queue = queue_name(a.task_queue.as_ref(), &info.task_queue, limit).map_err(|e| {
        Failed::task(
            CAUSE,
            format!(
                "error validating {COMMAND} TaskQueue: {e}. WorkflowType={kind} TaskQueue={}",
                shown_queue(a.task_queue.as_ref(), &info.task_queue)
            ),
        )
    })?;
    let shown = shown_queue(a.task_queue.as_ref(), &info.task_queue);
    for (timeout, name) in [
        (&a.workflow_run_timeout, "WorkflowRunTimeout"),
        (&a.workflow_task_timeout, "WorkflowTaskTimeout"),
        (&a.backoff_start_interval, "BackoffStartInterval"),
    ] {
        checked_duration(timeout.as_ref()).map_err(|e| {
            Failed::task(
                CAUSE,
                format!("Invalid {name} on {COMMAND}: {e}. WorkflowType={kind} TaskQueue={shown}"),
            )
        })?;
    }
    if let Some(policy) = &a.retry_policy {
        RetryPolicy::from_proto(policy).map_err(|e| {
            Failed::task(
                CAUSE,
                format!(
                    "invalid WorkflowRetryPolicy on {COMMAND}: {e}. WorkflowType={kind} \
                     TaskQueue={shown}"
                ),
            )
        })?;
    }
    check_search_attributes(a.search_attributes.as_ref())?;
    check_size(
        turn,
        a.input.as_ref(),
        CAUSE,
        "ContinueAsNewWorkflowExecutionCommandAttributes. Input exceeds size limit.",
    )?;
    check_memo(
        turn,
        a.memo.as_ref(),
        CAUSE,
        "ContinueAsNewWorkflowExecutionCommandAttributes. Memo exceeds size limit.",
    )?;
    let or = |d: Option<prost_types::Duration>, inherited: Duration| match d {
        Some(d) if d.seconds != 0 || d.nanos != 0 => Some(d),
        _ => Some(proto_duration(inherited)),
    };
    let (run_timeout, task_timeout) = timeouts(
        turn.ctx,
        &StartWorkflowExecutionRequest {
            workflow_execution_timeout: Some(proto_duration(info.execution_timeout)),
            workflow_run_timeout: or(a.workflow_run_timeout, info.run_timeout),
            workflow_task_timeout: or(a.workflow_task_timeout, info.task_timeout),
            ..StartWorkflowExecutionRequest::default()
        },
    );
    a.workflow_run_timeout = Some(proto_duration(run_timeout));
    a.workflow_task_timeout = Some(proto_duration(task_timeout));
    a.workflow_type = Some(WorkflowType { name: kind });
    a.task_queue = Some(normal_queue(&queue));
    Ok(a)
}
