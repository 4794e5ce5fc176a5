//! Commands about other executions, and the one that goes on as another run: part of the table
//! in [`crate::commands`].

use std::time::Duration;

use everspan_execution::convert::proto_duration;
use everspan_proto::{
    command::{self as commandpb, Command, command::Attributes},
    common::{Payload, RetryPolicy, SearchAttributes, WorkflowExecution, WorkflowType},
    enums::{CommandType, ParentClosePolicy, WorkflowIdReusePolicy as Reuse},
};

use crate::{
    commands::{Draft, command, millis},
    payload,
    rng::Rng,
    workload::{QUEUE, queue},
};

/// How a run that may fail is tried again.
pub(crate) fn retry_policy(rng: &mut Rng) -> RetryPolicy {
    RetryPolicy {
        initial_interval: millis(rng, 100, 2_000),
        backoff_coefficient: 1.5,
        maximum_interval: millis(rng, 2_000, 5_000),
        maximum_attempts: rng.between(2, 3) as i32,
        ..RetryPolicy::default()
    }
}

/// Another workflow: a child's ID, or one that clients start, too.
fn other(rng: &mut Rng) -> String {
    let kind = if rng.chance(70) { "child" } else { "workflow" };
    format!("{kind}{}", rng.below(3))
}

pub(crate) fn child(d: &mut Draft<'_>) -> Option<Command> {
    const POLICIES: [ParentClosePolicy; 3] = [
        ParentClosePolicy::Terminate,
        ParentClosePolicy::Abandon,
        ParentClosePolicy::RequestCancel,
    ];
    const REUSES: [Reuse; 4] = [
        Reuse::AllowDuplicate,
        Reuse::AllowDuplicate,
        Reuse::AllowDuplicateFailedOnly,
        Reuse::RejectDuplicate,
    ];
    let workflow_id = other(d.rng);
    let retries = d.rng.chance(25).then(|| retry_policy(d.rng));
    command(
        CommandType::StartChildWorkflowExecution,
        Attributes::StartChildWorkflowExecutionCommandAttributes(
            commandpb::StartChildWorkflowExecutionCommandAttributes {
                workflow_id,
                workflow_type: Some(WorkflowType { name: "simulated".into() }),
                task_queue: queue(QUEUE),
                input: payload::text(&d.name),
                workflow_run_timeout: d.rng.chance(30).then(|| seconds(d.rng, 20, 60)),
                workflow_task_timeout: Some(seconds(d.rng, 1, 10)),
                parent_close_policy: d.rng.pick(&POLICIES).map_or(0, |p| *p as i32),
                workflow_id_reuse_policy: d.rng.pick(&REUSES).map_or(0, |p| *p as i32),
                retry_policy: retries,
                cron_schedule: if d.rng.chance(5) { "@every 3s".into() } else { String::new() },
                ..Default::default()
            },
        ),
    )
}

fn seconds(rng: &mut Rng, low: u64, high: u64) -> prost_types::Duration {
    proto_duration(Duration::from_secs(rng.between(low, high)))
}

pub(crate) fn signal_external(d: &mut Draft<'_>) -> Option<Command> {
    let workflow_id = other(d.rng);
    command(
        CommandType::SignalExternalWorkflowExecution,
        Attributes::SignalExternalWorkflowExecutionCommandAttributes(
            commandpb::SignalExternalWorkflowExecutionCommandAttributes {
                execution: Some(WorkflowExecution { workflow_id, run_id: String::new() }),
                signal_name: "poke".into(),
                input: payload::text(&d.name),
                child_workflow_only: d.rng.chance(20),
                ..Default::default()
            },
        ),
    )
}

pub(crate) fn cancel_external(d: &mut Draft<'_>) -> Option<Command> {
    let workflow_id = other(d.rng);
    command(
        CommandType::RequestCancelExternalWorkflowExecution,
        Attributes::RequestCancelExternalWorkflowExecutionCommandAttributes(
            commandpb::RequestCancelExternalWorkflowExecutionCommandAttributes {
                workflow_id,
                child_workflow_only: d.rng.chance(20),
                reason: d.name.clone(),
                ..Default::default()
            },
        ),
    )
}

pub(crate) fn continue_as_new(d: &mut Draft<'_>) -> Option<Command> {
    command(
        CommandType::ContinueAsNewWorkflowExecution,
        Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(
            commandpb::ContinueAsNewWorkflowExecutionCommandAttributes {
                workflow_type: Some(WorkflowType { name: "simulated".into() }),
                task_queue: queue(QUEUE),
                input: payload::text(&d.name),
                workflow_task_timeout: Some(seconds(d.rng, 1, 10)),
                backoff_start_interval: d.rng.chance(30).then(|| seconds(d.rng, 1, 5)),
                ..Default::default()
            },
        ),
    )
}

pub(crate) fn search_attributes(d: &mut Draft<'_>) -> Option<Command> {
    // One field of one entry: the order of a map's entries on the wire is chance of another kind.
    let metadata = [("type".to_owned(), "Keyword".into())].into();
    let data = format!("\"{}\"", d.name).into();
    let value = Payload { metadata, data, ..Payload::default() };
    let indexed_fields = [("CustomKeywordField".to_owned(), value)].into();
    command(
        CommandType::UpsertWorkflowSearchAttributes,
        Attributes::UpsertWorkflowSearchAttributesCommandAttributes(
            commandpb::UpsertWorkflowSearchAttributesCommandAttributes {
                search_attributes: Some(SearchAttributes { indexed_fields }),
            },
        ),
    )
}
