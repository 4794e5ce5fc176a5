//! A run as DescribeWorkflowExecution shows it.

use std::collections::HashMap;

use everspan_proto::{
    common::{RetryPolicy, WorkflowExecution},
    enums::{EventType, PendingActivityState, PendingWorkflowTaskState, WorkflowExecutionStatus},
    taskqueue::TaskQueue,
    workflow::{
        PendingActivityInfo, PendingChildExecutionInfo, PendingWorkflowTaskInfo, RequestIdInfo,
        ResetPointInfo, ResetPoints, WorkflowExecutionConfig, WorkflowExecutionExtendedInfo,
        WorkflowExecutionInfo, WorkflowExecutionPauseInfo, WorkflowExecutionVersioningInfo,
        pending_activity_info::{
            PauseInfo,
            pause_info::{Manual, PausedBy},
        },
    },
    workflowservice::DescribeWorkflowExecutionResponse,
};
use everspan_types::Time;

use crate::{
    convert::{normal_queue, proto_duration},
    state::{Activity, State},
    versioning,
};

/// The status as lists show it.
#[must_use]
pub fn visibility_status(state: &State) -> WorkflowExecutionStatus {
    WorkflowExecutionStatus::try_from(state.info.status)
        .unwrap_or(WorkflowExecutionStatus::Unspecified)
}

/// The answer to DescribeWorkflowExecution at `now`.
#[must_use]
pub fn describe(state: &State, now: Time) -> DescribeWorkflowExecutionResponse {
    let i = &state.info;
    let execution =
        WorkflowExecution { workflow_id: i.workflow_id.clone(), run_id: i.run_id.to_string() };
    DescribeWorkflowExecutionResponse {
        execution_config: Some(WorkflowExecutionConfig {
            task_queue: Some(normal_queue(&i.task_queue)),
            workflow_execution_timeout: some_duration(i.execution_timeout),
            workflow_run_timeout: i.run_timeout_given.then(|| proto_duration(i.run_timeout)),
            default_workflow_task_timeout: Some(proto_duration(i.task_timeout)),
            user_metadata: i.user_metadata.clone(),
        }),
        workflow_execution_info: Some(
            #[allow(deprecated)]
            WorkflowExecutionInfo {
                execution: Some(execution.clone()),
                r#type: Some(everspan_proto::common::WorkflowType {
                    name: i.workflow_type.clone(),
                }),
                start_time: Some(i.start_time.to_proto()),
                close_time: i.close_time.map(Time::to_proto),
                status: i.status,
                history_length: i.next_event_id - 1,
                execution_time: Some(i.execution_time.to_proto()),
                memo: Some(i.memo.clone()),
                search_attributes: Some(i.search_attributes.clone()),
                auto_reset_points: Some(reset_points(state)),
                task_queue: i.task_queue.clone(),
                state_transition_count: i.transitions,
                history_size_bytes: i.history_bytes,
                versioning_info: i.is_auto_upgrade.then(|| WorkflowExecutionVersioningInfo {
                    versioning_override: Some(versioning::described()),
                    ..Default::default()
                }),
                most_recent_worker_version_stamp: i.worker_version.clone(),
                execution_duration: i
                    .close_time
                    .map(|closed| proto_duration(closed.since(i.execution_time))),
                parent_namespace_id: i
                    .parent
                    .as_ref()
                    .map(|p| p.namespace.to_string())
                    .unwrap_or_default(),
                parent_execution: i.parent.as_ref().map(|p| WorkflowExecution {
                    workflow_id: p.workflow_id.clone(),
                    run_id: p.run_id.to_string(),
                }),
                root_execution: Some(i.root.as_ref().map_or(execution, |r| WorkflowExecution {
                    workflow_id: r.workflow_id.clone(),
                    run_id: r.run_id.clone(),
                })),
                first_run_id: i.first_run_id.to_string(),
                priority: i.priority.clone(),
                ..WorkflowExecutionInfo::default()
            },
        ),
        pending_activities: state.activities.values().map(|a| pending_activity(a, now)).collect(),
        pending_children: state
            .children
            .values()
            .map(|c| PendingChildExecutionInfo {
                workflow_id: c.workflow_id.clone(),
                run_id: c.run_id.clone(),
                workflow_type_name: c.workflow_type.clone(),
                initiated_id: c.initiated_event_id,
                parent_close_policy: c.parent_close_policy,
            })
            .collect(),
        pending_workflow_task: i.workflow_task.as_ref().map(|t| PendingWorkflowTaskInfo {
            state: if t.is_started() {
                PendingWorkflowTaskState::Started as i32
            } else {
                PendingWorkflowTaskState::Scheduled as i32
            },
            scheduled_time: Some(t.scheduled_time.to_proto()),
            original_scheduled_time: Some(t.original_scheduled_time.to_proto()),
            started_time: t.started_time.map(Time::to_proto),
            attempt: t.attempt,
        }),
        workflow_extended_info: Some(WorkflowExecutionExtendedInfo {
            execution_expiration_time: i.execution_expiration.map(Time::to_proto),
            run_expiration_time: Some(i.run_expiration.map_or(ZERO_TIME, Time::to_proto)),
            cancel_requested: i.cancel_requested,
            original_start_time: Some(i.original_start_time.unwrap_or(i.start_time).to_proto()),
            last_reset_time: i.original_start_time.map(|_| i.start_time.to_proto()),
            reset_run_id: i.reset_to.as_ref().map(|to| to.run_id.to_string()).unwrap_or_default(),
            request_id_infos: request_ids(state),
            pause_info: i.paused.as_ref().map(|pause| WorkflowExecutionPauseInfo {
                identity: pause.identity.clone(),
                paused_time: Some(pause.time.to_proto()),
                reason: pause.reason.clone(),
            }),
            ..WorkflowExecutionExtendedInfo::default()
        }),
        ..DescribeWorkflowExecutionResponse::default()
    }
}

/// Request IDs and the events that they made: the start, what was attached to it, updates.
fn request_ids(state: &State) -> HashMap<String, RequestIdInfo> {
    let info = |event_type: EventType, event_id| RequestIdInfo {
        event_type: event_type as i32,
        event_id,
        buffered: false,
    };
    let start = (state.info.start_request_id.clone(), info(EventType::WorkflowExecutionStarted, 1));
    let updates = state.updates.values().filter(|u| !u.request_id.is_empty()).map(|u| {
        let kind = EventType::WorkflowExecutionUpdateAccepted;
        (u.request_id.clone(), info(kind, u.accepted_event_id))
    });
    let attached = state.info.attached_requests.iter().map(|(id, request)| {
        let info = RequestIdInfo {
            event_type: request.event_type,
            event_id: request.event_id,
            buffered: request.event_id == 0,
        };
        (id.clone(), info)
    });
    attached.chain([start]).chain(updates).collect()
}

/// How the real server writes "no time": year one.
const ZERO_TIME: prost_types::Timestamp =
    prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 };

fn some_duration(d: std::time::Duration) -> Option<prost_types::Duration> {
    (!d.is_zero()).then(|| proto_duration(d))
}

pub(crate) fn reset_points(state: &State) -> ResetPoints {
    let points = state.info.reset_points.iter().map(|p| {
        #[allow(deprecated)]
        ResetPointInfo {
            build_id: p.build_id.clone(),
            binary_checksum: p.binary_checksum.clone(),
            run_id: p.run_id.clone(),
            first_workflow_task_completed_id: p.completed_event_id,
            create_time: Some(p.time.to_proto()),
            expire_time: p.expire_time.map(Time::to_proto),
            resettable: true,
        }
    });
    ResetPoints { points: points.collect() }
}

fn pending_activity(a: &Activity, now: Time) -> PendingActivityInfo {
    let state = match &a.started {
        Some(_) if a.cancel_requested => PendingActivityState::CancelRequested,
        Some(_) if a.paused.is_some() => PendingActivityState::PauseRequested,
        Some(_) => PendingActivityState::Started,
        None if a.paused.is_some() => PendingActivityState::Paused,
        None => PendingActivityState::Scheduled,
    };
    let backoff = a.backoff_end().filter(|at| *at > now);
    let reported = a.last_attempt_complete_time.filter(|_| a.last_attempt_reported);
    #[allow(deprecated)]
    PendingActivityInfo {
        activity_id: a.activity_id.clone(),
        activity_type: Some(everspan_proto::common::ActivityType { name: a.activity_type.clone() }),
        state: state as i32,
        heartbeat_details: a.heartbeat_details.clone(),
        last_heartbeat_time: a.last_heartbeat_time.map(Time::to_proto),
        last_started_time: a.started.as_ref().map(|s| s.time.to_proto()),
        attempt: a.attempt,
        maximum_attempts: a.retry.maximum_attempts,
        scheduled_time: Some(a.attempt_scheduled_time.to_proto()),
        expiration_time: a.retry_expiration.map(Time::to_proto),
        last_failure: a.last_failure.clone(),
        last_worker_identity: a.last_worker_identity.clone(),
        current_retry_interval: backoff
            .zip(reported)
            .map(|(at, from)| proto_duration(at.since(from))),
        last_attempt_complete_time: reported.map(Time::to_proto),
        next_attempt_schedule_time: backoff.map(Time::to_proto),
        priority: a.priority.clone(),
        paused: a.paused.is_some(),
        pause_info: a.paused.as_ref().map(|pause| PauseInfo {
            pause_time: Some(pause.time.to_proto()),
            paused_by: Some(PausedBy::Manual(Manual {
                identity: pause.identity.clone(),
                reason: pause.reason.clone(),
            })),
        }),
        activity_options: Some(everspan_proto::activity::ActivityOptions {
            task_queue: Some(TaskQueue {
                name: a.task_queue.clone(),
                normal_name: a.task_queue.clone(),
                ..TaskQueue::default()
            }),
            schedule_to_close_timeout: Some(proto_duration(a.schedule_to_close)),
            schedule_to_start_timeout: Some(proto_duration(a.schedule_to_start)),
            start_to_close_timeout: Some(proto_duration(a.start_to_close)),
            heartbeat_timeout: Some(proto_duration(a.heartbeat)),
            // As the real server has it here: its scheduled event has the types.
            retry_policy: Some(RetryPolicy {
                non_retryable_error_types: Vec::new(),
                ..a.retry.to_proto()
            }),
            priority: a.priority.clone(),
            ..Default::default()
        }),
        ..PendingActivityInfo::default()
    }
}
