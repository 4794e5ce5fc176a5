//! What clients do: a table of calls. A new kind of call is a row in [`CALLS`], with a function
//! that makes one and a function that says what an acknowledged one must have left behind.

use std::time::Duration;

use everspan_execution::convert::proto_duration;
use everspan_proto::{
    common::{WorkflowExecution, WorkflowType},
    enums::{
        HistoryEventFilterType, WorkflowIdConflictPolicy as Conflict,
        WorkflowIdReusePolicy as Reuse,
    },
    query::WorkflowQuery,
    taskqueue::TaskQueue,
    workflowservice as api,
};
use everspan_shard::call::{Call, Reply};
use everspan_types::Time;

use crate::{
    families::retry_policy,
    histories::Histories,
    operations::{
        activity_options, delete, deleted, history_reverse, pause_activities, pause_run, paused,
        poll_update, reset_activities, reset_run, unpause_activities, unpause_run, unpaused,
        update, update_with_start, updated, was_reset, workflow_options,
    },
    payload,
    record::Op,
    rng::Rng,
};

/// The queue that all workflows and activities are on.
pub(crate) const QUEUE: &str = "work";

/// What a call is made from.
pub(crate) struct Draft<'a> {
    pub(crate) rng: &'a mut Rng,
    /// Unlike any other call's.
    pub(crate) name: &'a str,
    pub(crate) workflow_id: &'a str,
    /// A run of that ID to be named, or the latest.
    pub(crate) run_id: String,
    /// An update that was asked for before, if any was.
    pub(crate) update_id: String,
}

/// What must be so if a call was acknowledged.
pub(crate) struct Promise<'a> {
    pub(crate) op: &'a Op,
    /// The node's clock when the answer left.
    pub(crate) at: Time,
    pub(crate) reply: &'a Reply,
    pub(crate) histories: &'a Histories,
}

/// What a check finds wrong.
pub(crate) type Broken = Result<(), String>;

/// A row of a table of calls.
#[derive(Debug)]
pub(crate) struct CallKind {
    pub(crate) name: &'static str,
    /// How often clients make it; 0 for calls that workers make.
    pub(crate) weight: u32,
    /// None for calls that answer a task: they are made by the worker that has it.
    pub(crate) make: Option<fn(&mut Draft<'_>) -> Call>,
    pub(crate) check: fn(&Promise<'_>) -> Broken,
}

/// The calls of clients.
pub(crate) const CALLS: &[CallKind] = &[
    CallKind { name: "start", weight: 20, make: Some(start), check: started },
    CallKind { name: "signal", weight: 25, make: Some(signal), check: signaled },
    CallKind { name: "signal-with-start", weight: 12, make: Some(signal_with_start), check: both },
    CallKind { name: "cancel", weight: 6, make: Some(cancel), check: cancel_requested },
    CallKind { name: "terminate", weight: 2, make: Some(terminate), check: terminated },
    CallKind { name: "query", weight: 8, make: Some(query), check: answered },
    CallKind { name: "describe", weight: 8, make: Some(describe), check: described },
    CallKind { name: "history", weight: 8, make: Some(history), check: nothing },
    CallKind { name: "history-poll", weight: 8, make: Some(history_poll), check: nothing },
    CallKind { name: "reset-sticky", weight: 2, make: Some(reset_sticky), check: nothing },
    CallKind { name: "history-reverse", weight: 2, make: Some(history_reverse), check: nothing },
    CallKind { name: "update", weight: 10, make: Some(update), check: updated },
    CallKind { name: "update-poll", weight: 5, make: Some(poll_update), check: updated },
    CallKind {
        name: "update-with-start",
        weight: 5,
        make: Some(update_with_start),
        check: updated,
    },
    CallKind { name: "reset", weight: 3, make: Some(reset_run), check: was_reset },
    CallKind { name: "workflow-options", weight: 2, make: Some(workflow_options), check: nothing },
    CallKind { name: "pause", weight: 2, make: Some(pause_run), check: paused },
    CallKind { name: "unpause", weight: 4, make: Some(unpause_run), check: unpaused },
];

/// The calls of clients in some seeds only: after them less is promised.
pub(crate) const MEDDLING: &[CallKind] = &[
    CallKind { name: "delete", weight: 2, make: Some(delete), check: deleted },
    CallKind { name: "pause-activities", weight: 3, make: Some(pause_activities), check: nothing },
    CallKind {
        name: "unpause-activities",
        weight: 4,
        make: Some(unpause_activities),
        check: nothing,
    },
    CallKind { name: "reset-activities", weight: 3, make: Some(reset_activities), check: nothing },
    CallKind { name: "activity-options", weight: 3, make: Some(activity_options), check: nothing },
];

const fn closer(name: &'static str, make: fn(&mut Draft<'_>) -> Call) -> CallKind {
    CallKind { name, weight: 0, make: Some(make), check: nothing }
}

/// The signal that ends a workflow which waits for nothing else.
pub(crate) const CLOSER: CallKind =
    CallKind { check: signaled, ..closer("closing signal", signal) };
/// Ends what has no end by itself.
pub(crate) const TERMINATOR: CallKind =
    CallKind { check: terminated, ..closer("closing terminate", terminate) };
pub(crate) const UNPAUSE: CallKind = closer("closing unpause", unpause_run);
pub(crate) const UNPAUSE_ACTIVITIES: CallKind =
    closer("closing unpause of activities", unpause_activities);

pub(crate) fn execution(d: &Draft<'_>) -> Option<WorkflowExecution> {
    let (workflow_id, run_id) = (d.workflow_id.to_owned(), d.run_id.clone());
    Some(WorkflowExecution { workflow_id, run_id })
}

pub(crate) fn seconds(rng: &mut Rng, choices: &[u64]) -> Option<prost_types::Duration> {
    let chosen = *rng.pick(choices)?;
    (chosen > 0).then(|| proto_duration(Duration::from_secs(chosen)))
}

pub(crate) fn queue(name: &str) -> Option<TaskQueue> {
    Some(TaskQueue { name: name.to_owned(), ..TaskQueue::default() })
}

fn start(d: &mut Draft<'_>) -> Call {
    Call::StartWorkflowExecution(Box::new(start_request(d)))
}

pub(crate) fn start_request(d: &mut Draft<'_>) -> api::StartWorkflowExecutionRequest {
    const CONFLICTS: [Conflict; 6] = [
        Conflict::Unspecified,
        Conflict::Fail,
        Conflict::UseExisting,
        Conflict::UseExisting,
        Conflict::Fail,
        Conflict::TerminateExisting,
    ];
    const REUSES: [Reuse; 5] = [
        Reuse::Unspecified,
        Reuse::AllowDuplicate,
        Reuse::AllowDuplicate,
        Reuse::AllowDuplicateFailedOnly,
        Reuse::RejectDuplicate,
    ];
    api::StartWorkflowExecutionRequest {
        workflow_id: d.workflow_id.to_owned(),
        workflow_type: Some(WorkflowType { name: "simulated".into() }),
        task_queue: queue(QUEUE),
        input: payload::text(d.name),
        request_id: d.name.to_owned(),
        identity: d.name.to_owned(),
        retry_policy: d.rng.chance(20).then(|| retry_policy(d.rng)),
        cron_schedule: if d.rng.chance(5) { "@every 3s".into() } else { String::new() },
        workflow_execution_timeout: seconds(d.rng, &[0, 0, 0, 90]),
        workflow_run_timeout: seconds(d.rng, &[0, 0, 20, 60]),
        workflow_task_timeout: seconds(d.rng, &[1, 3, 10]),
        workflow_start_delay: seconds(d.rng, &[0, 0, 0, 0, 0, 5]),
        workflow_id_conflict_policy: d.rng.pick(&CONFLICTS).map_or(0, |p| *p as i32),
        workflow_id_reuse_policy: d.rng.pick(&REUSES).map_or(0, |p| *p as i32),
        ..Default::default()
    }
}

fn signal(d: &mut Draft<'_>) -> Call {
    Call::SignalWorkflowExecution(Box::new(api::SignalWorkflowExecutionRequest {
        workflow_execution: execution(d),
        signal_name: "poke".into(),
        input: payload::text(d.name),
        identity: d.name.to_owned(),
        request_id: d.name.to_owned(),
        ..Default::default()
    }))
}

fn signal_with_start(d: &mut Draft<'_>) -> Call {
    let conflicts = if d.rng.chance(20) {
        [Conflict::TerminateExisting; 2]
    } else {
        [Conflict::Unspecified, Conflict::UseExisting]
    };
    Call::SignalWithStartWorkflowExecution(Box::new(api::SignalWithStartWorkflowExecutionRequest {
        workflow_id: d.workflow_id.to_owned(),
        workflow_type: Some(WorkflowType { name: "simulated".into() }),
        task_queue: queue(QUEUE),
        input: payload::text(d.name),
        request_id: d.name.to_owned(),
        identity: d.name.to_owned(),
        signal_name: "poke".into(),
        signal_input: payload::text(d.name),
        workflow_run_timeout: seconds(d.rng, &[0, 20, 60]),
        workflow_task_timeout: seconds(d.rng, &[1, 3, 10]),
        workflow_id_conflict_policy: d.rng.pick(&conflicts).map_or(0, |p| *p as i32),
        ..Default::default()
    }))
}

fn cancel(d: &mut Draft<'_>) -> Call {
    Call::RequestCancelWorkflowExecution(Box::new(api::RequestCancelWorkflowExecutionRequest {
        workflow_execution: execution(d),
        identity: d.name.to_owned(),
        request_id: d.name.to_owned(),
        reason: d.name.to_owned(),
        ..Default::default()
    }))
}

fn terminate(d: &mut Draft<'_>) -> Call {
    Call::TerminateWorkflowExecution(Box::new(api::TerminateWorkflowExecutionRequest {
        workflow_execution: execution(d),
        reason: d.name.to_owned(),
        identity: d.name.to_owned(),
        ..Default::default()
    }))
}

fn query(d: &mut Draft<'_>) -> Call {
    Call::QueryWorkflow(Box::new(api::QueryWorkflowRequest {
        execution: execution(d),
        query: Some(WorkflowQuery {
            query_type: "echo".into(),
            query_args: payload::text(d.name),
            ..Default::default()
        }),
        ..Default::default()
    }))
}

fn describe(d: &mut Draft<'_>) -> Call {
    Call::DescribeWorkflowExecution(Box::new(api::DescribeWorkflowExecutionRequest {
        execution: execution(d),
        ..Default::default()
    }))
}

fn history(d: &mut Draft<'_>) -> Call {
    Call::GetWorkflowExecutionHistory(Box::new(api::GetWorkflowExecutionHistoryRequest {
        execution: execution(d),
        ..Default::default()
    }))
}

fn history_poll(d: &mut Draft<'_>) -> Call {
    let filter = if d.rng.chance(50) {
        HistoryEventFilterType::CloseEvent
    } else {
        HistoryEventFilterType::AllEvent
    };
    Call::GetWorkflowExecutionHistory(Box::new(api::GetWorkflowExecutionHistoryRequest {
        execution: execution(d),
        wait_new_event: true,
        history_event_filter_type: filter as i32,
        ..Default::default()
    }))
}

fn reset_sticky(d: &mut Draft<'_>) -> Call {
    Call::ResetStickyTaskQueue(Box::new(api::ResetStickyTaskQueueRequest {
        execution: execution(d),
        ..Default::default()
    }))
}

pub(crate) fn nothing(_: &Promise<'_>) -> Broken {
    Ok(())
}

fn started(p: &Promise<'_>) -> Broken {
    let Reply::StartWorkflowExecution(r) = p.reply else { return Err("another reply".into()) };
    let run = p.histories.run(&r.run_id)?;
    if run.workflow_id != p.op.request.workflow_id {
        return Err(format!("run {} is of workflow {}", r.run_id, run.workflow_id));
    }
    if r.started && run.started_by != p.op.name {
        return Err(format!("run {} was started by {}", r.run_id, run.started_by));
    }
    Ok(())
}

fn signaled(p: &Promise<'_>) -> Broken {
    let Call::SignalWorkflowExecution(r) = &p.op.request.call else { return Ok(()) };
    let named = r.workflow_execution.clone().unwrap_or_default().run_id;
    p.histories.must_have_signal(&p.op.request.workflow_id, &named, &p.op.name)
}

fn both(p: &Promise<'_>) -> Broken {
    let Reply::SignalWithStartWorkflowExecution(r) = p.reply else {
        return Err("another reply".into());
    };
    if r.started && p.histories.run(&r.run_id)?.started_by != p.op.name {
        return Err(format!("run {} was started by another call", r.run_id));
    }
    p.histories.must_have_signal(&p.op.request.workflow_id, &r.run_id, &p.op.name)
}

fn cancel_requested(p: &Promise<'_>) -> Broken {
    // Asking a run that is closed, or asking again, is answered with success.
    let is_so = p
        .histories
        .of(&p.op.request.workflow_id)
        .any(|run| run.is_closed_by(p.at) || run.cancel_requested.is_some_and(|at| at <= p.at));
    if is_so { Ok(()) } else { Err("no run was asked to cancel".into()) }
}

fn terminated(p: &Promise<'_>) -> Broken {
    let is_so =
        p.histories.of(&p.op.request.workflow_id).any(|run| run.terminated_for == p.op.name);
    if is_so { Ok(()) } else { Err("no run was terminated".into()) }
}

fn answered(p: &Promise<'_>) -> Broken {
    let Reply::QueryWorkflow(r) = p.reply else { return Err("another reply".into()) };
    if r.query_rejected.is_some() {
        // The run is paused.
        return Ok(());
    }
    let answer = payload::read(r.query_result.as_ref());
    if answer == p.op.name { Ok(()) } else { Err(format!("got the answer to {answer}")) }
}

fn described(p: &Promise<'_>) -> Broken {
    let Reply::DescribeWorkflowExecution(r) = p.reply else { return Err("another reply".into()) };
    let Some(info) = &r.workflow_execution_info else { return Err("nothing described".into()) };
    let run = p.histories.run(&info.execution.clone().unwrap_or_default().run_id)?;
    // Open, or closed as it is to this day.
    if [RUNNING, PAUSED].contains(&info.status) || info.status == run.status {
        return Ok(());
    }
    Err(format!("status was {}, and is {}", info.status, run.status))
}

const PAUSED: i32 = everspan_proto::enums::WorkflowExecutionStatus::Paused as i32;
const RUNNING: i32 = everspan_proto::enums::WorkflowExecutionStatus::Running as i32;
