//! What the tests of a run's inputs share.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use everspan_execution::{Ctx, Start, State, Transition, start};
use everspan_proto::{taskqueue::TaskQueue, workflowservice as api};
use everspan_types::{Limits, NamespaceId, RunId, TaskRef, TaskToken, Time};

pub(crate) const NOW: Time = Time::from_millis(1_700_000_000_000);

pub(crate) fn ctx(now: Time, limits: &Limits) -> Ctx<'_> {
    Ctx { now, limits, retention: Duration::ZERO }
}

/// The token of the workflow task that a worker of workflow "w" has.
pub(crate) fn token(state: &State) -> TaskToken {
    let task = state.started_workflow_task().unwrap();
    TaskToken {
        namespace: state.info.namespace,
        workflow_id: "w".into(),
        run_id: state.info.run_id,
        task: TaskRef::Workflow { scheduled_event_id: task.scheduled_event_id, stamp: task.stamp },
        attempt: task.attempt,
        started_event_id: task.started_event_id,
    }
}

/// Starts run 1 of workflow "w" on queue "q", at `NOW`.
pub(crate) fn begin(
    limits: &Limits,
    request: api::StartWorkflowExecutionRequest,
) -> (State, Transition) {
    let request = api::StartWorkflowExecutionRequest {
        workflow_id: "w".into(),
        task_queue: Some(TaskQueue { name: "q".into(), ..TaskQueue::default() }),
        ..request
    };
    let begin = Start {
        namespace: NamespaceId(uuid::Uuid::nil()),
        run_id: RunId(uuid::Uuid::from_u128(1)),
        request: &request,
        signal: None,
        parent: None,
        chain: None,
    };
    start(ctx(NOW, limits), begin).unwrap()
}
