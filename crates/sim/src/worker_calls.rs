//! The calls that answer tasks, and what an acknowledged one must have left in history. The
//! worker that has the task makes them, see [`crate::worker`].

use everspan_proto::{
    enums::CommandType,
    history::{HistoryEvent, history_event::Attributes},
    workflowservice::RespondWorkflowTaskCompletedRequest,
};
use everspan_shard::call::{Call, Reply};
use everspan_types::{TaskRef, TaskToken};

use crate::{
    commands,
    histories::{Run, completed_by},
    workload::{Broken, CallKind, Promise, nothing},
};

const fn row(name: &'static str, check: fn(&Promise<'_>) -> Broken) -> CallKind {
    CallKind { name, weight: 0, make: None, check }
}

pub(crate) const COMPLETE_TASK: CallKind = row("complete-task", completed);
pub(crate) const FAIL_TASK: CallKind = row("fail-task", nothing);
pub(crate) const ANSWER_QUERY: CallKind = row("answer-query", nothing);
pub(crate) const COMPLETE_ACTIVITY: CallKind = row("complete-activity", activity_completed);
pub(crate) const COMPLETE_ACTIVITY_BY_ID: CallKind = row("complete-activity-by-id", nothing);
pub(crate) const FAIL_ACTIVITY: CallKind = row("fail-activity", activity_failed);
pub(crate) const CANCEL_ACTIVITY: CallKind = row("cancel-activity", activity_canceled);
pub(crate) const HEARTBEAT: CallKind = row("heartbeat", heartbeat);

fn run_of<'a>(p: &'a Promise<'_>, token: &[u8]) -> Result<(&'a Run, TaskToken), String> {
    let token = TaskToken::from_bytes(token).map_err(|e| e.to_string())?;
    Ok((p.histories.run(&token.run_id.to_string())?, token))
}

fn completed(p: &Promise<'_>) -> Broken {
    let Call::RespondWorkflowTaskCompleted(r) = &p.op.request.call else { return Ok(()) };
    let (run, _) = run_of(p, &r.task_token)?;
    let is_it = |e: &&HistoryEvent| match &e.attributes {
        Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => a.identity == p.op.name,
        _ => false,
    };
    let Some(completed) = run.events.iter().find(is_it) else {
        // Of a task that was made for updates alone, and refused them all, nothing stays.
        let is_right = refuses_only(r);
        return is_right.then_some(()).ok_or(format!("run {} has no such completion", run.id));
    };
    let count = |kind: CommandType| r.commands.iter().filter(|c| c.command_type() == kind).count();
    for kind in r.commands.iter().map(|c| c.command_type()) {
        let Some(event) = commands::event_of(kind) else { continue };
        let is_effect = |e: &&HistoryEvent| {
            e.event_type() == event && completed_by(e) == Some(completed.event_id)
        };
        let found = run.events.iter().filter(is_effect).count();
        if found != count(kind) {
            return Err(format!(
                "{} commands {kind:?} of event {} of run {} left {found} events",
                count(kind),
                completed.event_id,
                run.id
            ));
        }
    }
    Ok(())
}

/// Whether a completion does nothing but refuse updates.
fn refuses_only(r: &RespondWorkflowTaskCompletedRequest) -> bool {
    let mut messages = r.messages.iter().filter_map(|m| m.body.as_ref()).peekable();
    r.commands.is_empty()
        && messages.peek().is_some()
        && messages.all(|body| body.type_url.ends_with("Rejection"))
}

/// The close of the activity that a token is about.
fn close_of(p: &Promise<'_>, token: &[u8]) -> Result<HistoryEvent, String> {
    let (run, token) = run_of(p, token)?;
    let TaskRef::Activity { scheduled_event_id, .. } = token.task else {
        return Err("the token is not an activity's".into());
    };
    run.activity_close(scheduled_event_id)
        .cloned()
        .ok_or_else(|| format!("activity {scheduled_event_id} of run {} never closed", run.id))
}

fn activity_completed(p: &Promise<'_>) -> Broken {
    let Call::RespondActivityTaskCompleted(r) = &p.op.request.call else { return Ok(()) };
    match close_of(p, &r.task_token)?.attributes {
        Some(Attributes::ActivityTaskCompletedEventAttributes(a)) if a.identity == p.op.name => {
            Ok(())
        }
        other => Err(format!("the activity closed otherwise: {other:?}")),
    }
}

fn activity_failed(p: &Promise<'_>) -> Broken {
    use everspan_proto::failure::failure::FailureInfo;
    let Call::RespondActivityTaskFailed(r) = &p.op.request.call else { return Ok(()) };
    let is_final = r.failure.as_ref().is_some_and(|f| {
        matches!(&f.failure_info,
            Some(FailureInfo::ApplicationFailureInfo(i)) if i.non_retryable)
    });
    if !is_final {
        return Ok(());
    }
    match close_of(p, &r.task_token)?.attributes {
        Some(Attributes::ActivityTaskFailedEventAttributes(a)) if a.identity == p.op.name => Ok(()),
        other => Err(format!("the activity closed otherwise: {other:?}")),
    }
}

fn activity_canceled(p: &Promise<'_>) -> Broken {
    let Call::RespondActivityTaskCanceled(r) = &p.op.request.call else { return Ok(()) };
    match close_of(p, &r.task_token)?.attributes {
        Some(Attributes::ActivityTaskCanceledEventAttributes(a)) if a.identity == p.op.name => {
            Ok(())
        }
        other => Err(format!("the activity closed otherwise: {other:?}")),
    }
}

fn heartbeat(p: &Promise<'_>) -> Broken {
    let Call::RecordActivityTaskHeartbeat(r) = &p.op.request.call else { return Ok(()) };
    let Reply::RecordActivityTaskHeartbeat(reply) = p.reply else {
        return Err("another reply".into());
    };
    if !reply.cancel_requested {
        return Ok(());
    }
    let (run, token) = run_of(p, &r.task_token)?;
    let TaskRef::Activity { scheduled_event_id, .. } = token.task else { return Ok(()) };
    let was_asked = run.events.iter().any(|e| match &e.attributes {
        Some(Attributes::ActivityTaskCancelRequestedEventAttributes(a)) => {
            a.scheduled_event_id == scheduled_event_id
        }
        _ => false,
    });
    if was_asked { Ok(()) } else { Err("nobody asked the activity to stop".into()) }
}
