//! Calls about updates, and those that change a run from outside: part of the table in
//! [`crate::workload`].

use everspan_proto::{
    activity::ActivityOptions,
    common::Priority,
    enums::{EventType, UpdateWorkflowExecutionLifecycleStage as Stage},
    history::history_event::Attributes,
    update as updatepb,
    workflow::WorkflowExecutionOptions,
    workflowservice::{
        self as api, execute_multi_operation_request as multi,
        execute_multi_operation_response as multi_response, pause_activity_request as pause,
        reset_activity_request as reset, unpause_activity_request as unpause,
        update_activity_options_request as options,
    },
};
use everspan_shard::call::{Call, Reply};
use prost_types::FieldMask;

use crate::{
    families::retry_policy,
    payload,
    workload::{Broken, Draft, Promise, execution, seconds, start_request},
};

fn update_request(d: &mut Draft<'_>) -> api::UpdateWorkflowExecutionRequest {
    let stage = if d.rng.chance(50) { Stage::Accepted } else { Stage::Completed };
    api::UpdateWorkflowExecutionRequest {
        workflow_execution: execution(d),
        wait_policy: Some(updatepb::WaitPolicy { lifecycle_stage: stage as i32 }),
        request: Some(updatepb::Request {
            meta: Some(updatepb::Meta {
                update_id: d.name.to_owned(),
                identity: d.name.to_owned(),
            }),
            input: Some(updatepb::Input {
                name: "change".into(),
                args: payload::text(d.name),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn update(d: &mut Draft<'_>) -> Call {
    Call::UpdateWorkflowExecution(Box::new(update_request(d)))
}

pub(crate) fn update_with_start(d: &mut Draft<'_>) -> Call {
    use multi::operation::Operation::{StartWorkflow, UpdateWorkflow};
    d.run_id.clear();
    let mut start = start_request(d);
    // Those cannot be delayed.
    (start.workflow_start_delay, start.cron_schedule) = (None, String::new());
    let operations = [StartWorkflow(start), UpdateWorkflow(update_request(d))];
    let operations = operations.map(|o| multi::Operation { operation: Some(o) }).into();
    Call::ExecuteMultiOperation(Box::new(api::ExecuteMultiOperationRequest {
        operations,
        ..Default::default()
    }))
}

pub(crate) fn poll_update(d: &mut Draft<'_>) -> Call {
    let stage = if d.rng.chance(50) { Stage::Unspecified } else { Stage::Completed };
    Call::PollWorkflowExecutionUpdate(Box::new(api::PollWorkflowExecutionUpdateRequest {
        update_ref: Some(updatepb::UpdateRef {
            workflow_execution: execution(d),
            update_id: d.update_id.clone(),
        }),
        wait_policy: Some(updatepb::WaitPolicy { lifecycle_stage: stage as i32 }),
        ..Default::default()
    }))
}

pub(crate) fn updated(p: &Promise<'_>) -> Broken {
    match (&p.op.request.call, p.reply) {
        (Call::UpdateWorkflowExecution(_), Reply::UpdateWorkflowExecution(r)) => {
            reached(p, &p.op.name, r.stage(), r.outcome.as_ref())
        }
        (Call::PollWorkflowExecutionUpdate(asked), Reply::PollWorkflowExecutionUpdate(r)) => {
            let id = asked.update_ref.as_ref().map_or("", |u| u.update_id.as_str());
            reached(p, id, r.stage(), r.outcome.as_ref())
        }
        (Call::ExecuteMultiOperation(_), Reply::ExecuteMultiOperation(r)) => {
            for response in &r.responses {
                match &response.response {
                    Some(multi_response::response::Response::StartWorkflow(r)) => {
                        p.histories.run(&r.run_id)?;
                    }
                    Some(multi_response::response::Response::UpdateWorkflow(r)) => {
                        reached(p, &p.op.name, r.stage(), r.outcome.as_ref())?;
                    }
                    None => {}
                }
            }
            Ok(())
        }
        _ => Err("another reply".into()),
    }
}

/// A stage that was told of is in a history; a refusal by the worker leaves nothing.
fn reached(p: &Promise<'_>, id: &str, stage: Stage, outcome: Option<&updatepb::Outcome>) -> Broken {
    let events = || p.histories.of(&p.op.request.workflow_id).flat_map(|run| &run.events);
    let is_accepted = events().any(|e| match &e.attributes {
        Some(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(a)) => {
            a.protocol_instance_id == id
        }
        _ => false,
    });
    let has_outcome = |outcome: &updatepb::Outcome| {
        events().any(|e| match &e.attributes {
            Some(Attributes::WorkflowExecutionUpdateCompletedEventAttributes(a)) => {
                a.meta.as_ref().is_some_and(|m| m.update_id == id)
                    && a.outcome.as_ref() == Some(outcome)
            }
            _ => false,
        })
    };
    match (stage, outcome.and_then(|o| o.value.as_ref())) {
        (Stage::Accepted, _) if !is_accepted => Err(format!("update {id} was never accepted")),
        (Stage::Completed, Some(updatepb::outcome::Value::Success(_))) => {
            let is_so = outcome.is_some_and(has_outcome);
            if is_so { Ok(()) } else { Err(format!("update {id} never had that outcome")) }
        }
        // A refusal, or the run closed over it.
        _ => Ok(()),
    }
}

pub(crate) fn reset_run(d: &mut Draft<'_>) -> Call {
    Call::ResetWorkflowExecution(Box::new(api::ResetWorkflowExecutionRequest {
        workflow_execution: execution(d),
        reason: d.name.to_owned(),
        workflow_task_finish_event_id: d.rng.between(3, 20) as i64,
        request_id: d.name.to_owned(),
        identity: d.name.to_owned(),
        ..Default::default()
    }))
}

pub(crate) fn was_reset(p: &Promise<'_>) -> Broken {
    let Reply::ResetWorkflowExecution(r) = p.reply else { return Err("another reply".into()) };
    let run = p.histories.run(&r.run_id)?;
    if run.copied_up_to == 0 {
        return Err(format!("run {} is no reset", r.run_id));
    }
    Ok(())
}

pub(crate) fn delete(d: &mut Draft<'_>) -> Call {
    Call::DeleteWorkflowExecution(Box::new(api::DeleteWorkflowExecutionRequest {
        workflow_execution: execution(d),
        ..Default::default()
    }))
}

pub(crate) fn deleted(p: &Promise<'_>) -> Broken {
    let Call::DeleteWorkflowExecution(r) = &p.op.request.call else { return Ok(()) };
    let run = r.workflow_execution.clone().unwrap_or_default().run_id;
    if p.histories.runs.contains_key(&run) {
        return Err(format!("run {run} is still there"));
    }
    Ok(())
}

const TYPE: &str = "simulated";

pub(crate) fn pause_activities(d: &mut Draft<'_>) -> Call {
    Call::PauseActivity(Box::new(api::PauseActivityRequest {
        execution: execution(d),
        identity: d.name.to_owned(),
        activity: Some(pause::Activity::Type(TYPE.into())),
        request_id: d.name.to_owned(),
        ..Default::default()
    }))
}

pub(crate) fn unpause_activities(d: &mut Draft<'_>) -> Call {
    Call::UnpauseActivity(Box::new(api::UnpauseActivityRequest {
        execution: execution(d),
        identity: d.name.to_owned(),
        activity: Some(unpause::Activity::UnpauseAll(true)),
        reset_attempts: d.rng.chance(30),
        reset_heartbeat: d.rng.chance(30),
        jitter: seconds(d.rng, &[0, 2]),
        ..Default::default()
    }))
}

pub(crate) fn reset_activities(d: &mut Draft<'_>) -> Call {
    Call::ResetActivity(Box::new(api::ResetActivityRequest {
        execution: execution(d),
        identity: d.name.to_owned(),
        activity: Some(reset::Activity::MatchAll(true)),
        reset_heartbeat: d.rng.chance(30),
        keep_paused: d.rng.chance(30),
        jitter: seconds(d.rng, &[0, 2]),
        restore_original_options: d.rng.chance(20),
        ..Default::default()
    }))
}

pub(crate) fn activity_options(d: &mut Draft<'_>) -> Call {
    let restores = d.rng.chance(30);
    let given = ActivityOptions {
        start_to_close_timeout: seconds(d.rng, &[2, 10]),
        retry_policy: Some(retry_policy(d.rng)),
        ..Default::default()
    };
    let paths = vec!["start_to_close_timeout".to_owned(), "retry_policy".to_owned()];
    Call::UpdateActivityOptions(Box::new(api::UpdateActivityOptionsRequest {
        execution: execution(d),
        identity: d.name.to_owned(),
        activity_options: (!restores).then_some(given),
        update_mask: (!restores).then_some(FieldMask { paths }),
        activity: Some(options::Activity::MatchAll(true)),
        restore_original: restores,
        ..Default::default()
    }))
}

pub(crate) fn workflow_options(d: &mut Draft<'_>) -> Call {
    let priority_key = d.rng.between(1, 5) as i32;
    let priority = Some(Priority { priority_key, ..Default::default() });
    Call::UpdateWorkflowExecutionOptions(Box::new(api::UpdateWorkflowExecutionOptionsRequest {
        workflow_execution: execution(d),
        workflow_execution_options: Some(WorkflowExecutionOptions {
            priority,
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths: vec!["priority".into()] }),
        identity: d.name.to_owned(),
        ..Default::default()
    }))
}

pub(crate) fn pause_run(d: &mut Draft<'_>) -> Call {
    Call::PauseWorkflowExecution(Box::new(api::PauseWorkflowExecutionRequest {
        workflow_id: d.workflow_id.to_owned(),
        run_id: d.run_id.clone(),
        identity: d.name.to_owned(),
        reason: d.name.to_owned(),
        request_id: d.name.to_owned(),
        ..Default::default()
    }))
}

pub(crate) fn unpause_run(d: &mut Draft<'_>) -> Call {
    Call::UnpauseWorkflowExecution(Box::new(api::UnpauseWorkflowExecutionRequest {
        workflow_id: d.workflow_id.to_owned(),
        run_id: d.run_id.clone(),
        identity: d.name.to_owned(),
        reason: d.name.to_owned(),
        request_id: d.name.to_owned(),
        ..Default::default()
    }))
}

pub(crate) fn paused(p: &Promise<'_>) -> Broken {
    has_event(p, EventType::WorkflowExecutionPaused)
}

pub(crate) fn unpaused(p: &Promise<'_>) -> Broken {
    has_event(p, EventType::WorkflowExecutionUnpaused)
}

fn has_event(p: &Promise<'_>, kind: EventType) -> Broken {
    let mut events = p.histories.of(&p.op.request.workflow_id).flat_map(|run| &run.events);
    let is_so = events.any(|e| e.event_type() == kind);
    if is_so { Ok(()) } else { Err(format!("no run has the event {kind:?}")) }
}

pub(crate) fn history_reverse(d: &mut Draft<'_>) -> Call {
    Call::GetWorkflowExecutionHistoryReverse(Box::new(
        api::GetWorkflowExecutionHistoryReverseRequest {
            execution: execution(d),
            ..Default::default()
        },
    ))
}
