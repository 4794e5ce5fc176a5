// Workers still send what the API calls deprecated: control, namespace.
#![allow(deprecated)]

use everspan_types::merge_priority;

use super::{
    By, Failed, check_count, check_memo, check_namespace, check_search_attributes, check_size,
    queue_name, shown_queue,
};
use crate::{
    convert::{
        attributes_without_nil, checked_duration, memo_without_nil, normal_queue, proto_duration,
    },
    message::Body,
    retry::RetryPolicy,
    start::timeouts,
    state::Root,
    turn::Turn,
};
use everspan_proto::{
    command::StartChildWorkflowExecutionCommandAttributes,
    enums::{
        EventType, ParentClosePolicy, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
        WorkflowTaskFailedCause as Cause,
    },
    history::{StartChildWorkflowExecutionInitiatedEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
    workflowservice::StartWorkflowExecutionRequest,
};

const CAUSE: Cause = Cause::BadStartChildExecutionAttributes;
const COMMAND: &str = "StartChildWorkflowExecutionCommand";

/// Initiates a child workflow.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &StartChildWorkflowExecutionCommandAttributes,
    summary: Option<UserMetadata>,
) -> Result<(), Failed> {
    check_namespace(turn, &a.namespace, CAUSE)?;
    let request = request(turn, a, summary.clone())?;
    let policy = match a.parent_close_policy() {
        ParentClosePolicy::Unspecified => ParentClosePolicy::Terminate,
        other => other,
    };
    let id = turn.write_with(
        EventType::StartChildWorkflowExecutionInitiated,
        Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(
            StartChildWorkflowExecutionInitiatedEventAttributes {
                namespace: request.namespace.clone(),
                namespace_id: turn.state.info.namespace.to_string(),
                workflow_id: request.workflow_id.clone(),
                workflow_type: request.workflow_type.clone(),
                task_queue: request.task_queue.clone(),
                input: request.input.clone(),
                workflow_execution_timeout: request.workflow_execution_timeout,
                workflow_run_timeout: request.workflow_run_timeout,
                workflow_task_timeout: request.workflow_task_timeout,
                parent_close_policy: policy as i32,
                control: a.control.clone(),
                workflow_task_completed_event_id: by.completed_event_id,
                workflow_id_reuse_policy: request.workflow_id_reuse_policy,
                retry_policy: request.retry_policy.clone(),
                cron_schedule: request.cron_schedule.clone(),
                header: request.header.clone(),
                memo: memo_without_nil(request.memo.as_ref()),
                search_attributes: attributes_without_nil(request.search_attributes.as_ref()),
                inherit_build_id: a.inherit_build_id,
                priority: a.priority.clone(),
                ..StartChildWorkflowExecutionInitiatedEventAttributes::default()
            },
        ),
        summary,
    );
    let info = &turn.state.info;
    let root = info.root.clone().unwrap_or_else(|| Root {
        workflow_id: info.workflow_id.clone(),
        run_id: info.run_id.to_string(),
    });
    let request = Box::new(StartWorkflowExecutionRequest {
        // Run, event and, where the real server has it, the event's failover version.
        request_id: format!("{}:{id}:0", info.run_id),
        priority: merge_priority(info.priority.as_ref(), a.priority.as_ref()),
        ..request
    });
    let message = turn.message(&a.workflow_id, id, Body::StartChild { request, root });
    turn.messages.push(message);
    Ok(())
}

/// The start that the command asks for, checked, with what it leaves out filled in.
fn request(
    turn: &Turn<'_>,
    a: &StartChildWorkflowExecutionCommandAttributes,
    user_metadata: Option<UserMetadata>,
) -> Result<StartWorkflowExecutionRequest, Failed> {
    let info = &turn.state.info;
    let limit = turn.ctx.limits.id_length_max;
    let bad = |reason: String| Err(Failed::task(CAUSE, reason));
    let namespace = &info.namespace_name;
    let (id, kind) = (&a.workflow_id, a.workflow_type.clone().unwrap_or_default().name);
    let named = format!("WorkflowId={id} WorkflowType={kind} Namespace={namespace}");
    if id.is_empty() {
        return bad(format!(
            "Required field WorkflowId is not set on {COMMAND}. WorkflowType={kind} \
             Namespace={namespace}"
        ));
    }
    if kind.is_empty() {
        return bad(format!(
            "Required field WorkflowType is not set on {COMMAND}. WorkflowId={id} \
             Namespace={namespace}"
        ));
    }
    if id.len() > limit {
        return bad(format!(
            "WorkflowId on {COMMAND} exceeds length limit. WorkflowId={id} Length={} \
             Limit={limit} WorkflowType={kind} Namespace={namespace}",
            id.len()
        ));
    }
    if kind.len() > limit {
        return bad(format!(
            "WorkflowType on {COMMAND} exceeds length limit. WorkflowId={id} \
             WorkflowType={kind} Length={} Limit={limit} Namespace={namespace}",
            kind.len()
        ));
    }
    for (timeout, name) in [
        (&a.workflow_execution_timeout, "WorkflowExecutionTimeout"),
        (&a.workflow_run_timeout, "WorkflowRunTimeout"),
        (&a.workflow_task_timeout, "WorkflowTaskTimeout"),
    ] {
        if let Err(e) = checked_duration(timeout.as_ref()) {
            return bad(format!("Invalid {name} on {COMMAND}: {e}. {named}"));
        }
    }
    let retry_policy = match &a.retry_policy {
        None => None,
        Some(policy) => match RetryPolicy::from_proto(policy) {
            Ok(policy) => Some(policy.to_proto()),
            Err(e) => {
                return bad(format!("invalid WorkflowRetryPolicy on {COMMAND}: {e}. {named}"));
            }
        },
    };
    if let Err(e) = crate::cron::validate(&a.cron_schedule, turn.ctx.now) {
        return bad(format!("invalid CronSchedule on {COMMAND}: {e}. {named}"));
    }
    check_search_attributes(a.search_attributes.as_ref())?;
    let queue = match queue_name(a.task_queue.as_ref(), &info.task_queue, limit) {
        Ok(queue) => queue,
        Err(e) => {
            let shown = shown_queue(a.task_queue.as_ref(), &info.task_queue);
            return bad(format!("invalid TaskQueue on {COMMAND}: {e}. {named} TaskQueue={shown}"));
        }
    };
    if a.versioning_override.is_some() {
        return Err(Failed::Unimplemented(
            "versioning_override of a child is not implemented by Everspan yet".into(),
        ));
    }
    check_size(
        turn,
        a.input.as_ref(),
        CAUSE,
        "StartChildWorkflowExecutionCommandAttributes. Input exceeds size limit.",
    )?;
    check_memo(
        turn,
        a.memo.as_ref(),
        CAUSE,
        "StartChildWorkflowExecutionCommandAttributes.Memo exceeds size limit.",
    )?;
    check_count(
        turn.state.children.len(),
        turn.ctx.limits.pending_children_max,
        Cause::PendingChildWorkflowsLimitExceeded,
        "pending child workflow executions",
    )?;
    let reuse = match a.workflow_id_reuse_policy() {
        WorkflowIdReusePolicy::Unspecified => WorkflowIdReusePolicy::AllowDuplicate,
        other => other,
    };
    let mut request = StartWorkflowExecutionRequest {
        namespace: namespace.clone(),
        workflow_id: id.clone(),
        workflow_type: a.workflow_type.clone(),
        task_queue: Some(normal_queue(&queue)),
        input: a.input.clone(),
        workflow_execution_timeout: a.workflow_execution_timeout,
        workflow_run_timeout: a.workflow_run_timeout,
        workflow_task_timeout: a.workflow_task_timeout,
        workflow_id_reuse_policy: reuse as i32,
        workflow_id_conflict_policy: WorkflowIdConflictPolicy::Fail as i32,
        retry_policy,
        cron_schedule: a.cron_schedule.clone(),
        memo: a.memo.clone(),
        search_attributes: a.search_attributes.clone(),
        header: a.header.clone(),
        user_metadata,
        ..StartWorkflowExecutionRequest::default()
    };
    let (run_timeout, task_timeout) = timeouts(turn.ctx, &request);
    request.workflow_run_timeout = Some(proto_duration(run_timeout));
    request.workflow_task_timeout = Some(proto_duration(task_timeout));
    Ok(request)
}
