//! The first events of a run: of one that a client starts, of a child, and of one that
//! follows another in its chain.

use std::time::Duration;

use everspan_proto::{
    common::{Payloads, WorkflowExecution},
    enums::{ContinueAsNewInitiator as Initiator, EventType},
    failure::Failure,
    history::{HistoryEvent, WorkflowExecutionStartedEventAttributes, history_event::Attributes},
    workflow::ResetPoints,
    workflowservice::StartWorkflowExecutionRequest,
};
use everspan_types::{NamespaceId, Result, RunId};

use crate::{
    convert::{attributes_without_nil, duration, memo_without_nil, normal_queue, proto_duration},
    cron,
    retry::RetryPolicy,
    signal::Signal,
    state::{Parent, Root, State},
    turn::{Ctx, Transition, Turn},
    versioning,
};

/// What a run is started from.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The new run.
    pub run_id: RunId,
    /// The call, validated by the gateway.
    pub request: &'a StartWorkflowExecutionRequest,
    /// A signal that comes with the start.
    pub signal: Option<Signal>,
    /// The parent, and the root of its tree, where the run is a child.
    pub parent: Option<(Parent, Root)>,
    /// What the run takes over from the one before it in its chain.
    pub chain: Option<Chain>,
}

/// What a run takes over from the one before it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The run before.
    pub continued_run_id: RunId,
    /// The first run of the chain.
    pub first_run_id: RunId,
    /// Attempt under the retry policy, from 1.
    pub attempt: i32,
    /// Why there is another run.
    pub initiator: Initiator,
    /// When the whole chain times out.
    pub expiration: Option<prost_types::Timestamp>,
    /// How long the first workflow task waits.
    pub backoff: Duration,
    /// The result of the last run that had one.
    pub last_completion_result: Option<Payloads>,
    /// Why the run before failed.
    pub continued_failure: Option<Failure>,
    /// Where the runs before can be reset to.
    pub reset_points: Option<ResetPoints>,
}

/// Starts a run. An open run under the same workflow ID is the caller's business.
///
/// # Errors
/// `INVALID_ARGUMENT` for a retry policy or cron schedule that makes no sense.
pub fn start(ctx: Ctx<'_>, start: Start<'_>) -> Result<(State, Transition)> {
    let request = start.request;
    let retry_policy = request.retry_policy.as_ref().map(RetryPolicy::from_proto).transpose()?;
    let mut state = State::default();
    let first_run_id = start.chain.as_ref().map_or(start.run_id, |c| c.first_run_id);
    state.info.namespace = start.namespace;
    state.info.namespace_name = request.namespace.clone();
    state.info.workflow_id = request.workflow_id.clone();
    state.info.run_id = start.run_id;
    state.info.first_run_id = first_run_id;
    state.info.start_request_id = request.request_id.clone();
    let (parent, root) = start.parent.unzip();
    // The event names the parent's run as text only; these are its IDs.
    state.info.parent.clone_from(&parent);

    let execution_timeout = duration(request.workflow_execution_timeout.as_ref());
    let (run_timeout, task_timeout) = timeouts(ctx, request);
    let backoff = match &start.chain {
        Some(chain) => chain.backoff,
        None if !request.cron_schedule.is_empty() => {
            cron::backoff(&request.cron_schedule, ctx.now, ctx.now).unwrap_or_default()
        }
        None => duration(request.workflow_start_delay.as_ref()),
    };
    // A worker cannot hold its slot for a task that comes later.
    let is_eager = request.request_eager_execution && backoff.is_zero();
    let expiration = match &start.chain {
        Some(chain) => chain.expiration,
        None => (!execution_timeout.is_zero()).then(|| {
            let delay = duration(request.workflow_start_delay.as_ref());
            (ctx.now + execution_timeout + delay).to_proto()
        }),
    };
    let chain = start.chain;
    let initiator = match &chain {
        Some(chain) => chain.initiator,
        None if !request.cron_schedule.is_empty() => Initiator::CronSchedule,
        None => Initiator::Unspecified,
    };

    let mut turn = Turn::new(&mut state, ctx);
    let attributes = WorkflowExecutionStartedEventAttributes {
        workflow_type: request.workflow_type.clone(),
        parent_workflow_namespace: parent
            .as_ref()
            .map(|p| p.namespace_name.clone())
            .unwrap_or_default(),
        parent_workflow_namespace_id: parent
            .as_ref()
            .map(|p| p.namespace.to_string())
            .unwrap_or_default(),
        parent_workflow_execution: parent.as_ref().map(|p| WorkflowExecution {
            workflow_id: p.workflow_id.clone(),
            run_id: p.run_id.to_string(),
        }),
        parent_initiated_event_id: parent.as_ref().map_or(0, |p| p.initiated_event_id),
        root_workflow_execution: root
            .map(|r| WorkflowExecution { workflow_id: r.workflow_id, run_id: r.run_id }),
        task_queue: request.task_queue.as_ref().map(|q| normal_queue(&q.name)),
        input: request.input.clone(),
        workflow_execution_timeout: request.workflow_execution_timeout,
        workflow_run_timeout: (!run_timeout.is_zero())
            .then(|| proto_duration(run_timeout))
            .or(request.workflow_run_timeout),
        workflow_task_timeout: Some(proto_duration(task_timeout)),
        continued_execution_run_id: chain
            .as_ref()
            .map(|c| c.continued_run_id.to_string())
            .unwrap_or_default(),
        initiator: initiator as i32,
        continued_failure: chain
            .as_ref()
            .map_or_else(|| request.continued_failure.clone(), |c| c.continued_failure.clone()),
        last_completion_result: chain.as_ref().map_or_else(
            || request.last_completion_result.clone(),
            |c| c.last_completion_result.clone(),
        ),
        original_execution_run_id: start.run_id.to_string(),
        first_execution_run_id: first_run_id.to_string(),
        identity: request.identity.clone(),
        retry_policy: retry_policy.as_ref().map(RetryPolicy::to_proto),
        attempt: chain.as_ref().map_or(1, |c| c.attempt),
        workflow_execution_expiration_time: expiration,
        cron_schedule: request.cron_schedule.clone(),
        first_workflow_task_backoff: Some(proto_duration(backoff)),
        versioning_override: request
            .versioning_override
            .as_ref()
            .map(|_| versioning::auto_upgrade()),
        memo: memo_without_nil(request.memo.as_ref()),
        search_attributes: attributes_without_nil(request.search_attributes.as_ref()),
        prev_auto_reset_points: chain.and_then(|c| c.reset_points),
        header: request.header.clone(),
        workflow_id: request.workflow_id.clone(),
        priority: request.priority.clone(),
        eager_execution_accepted: is_eager,
        ..WorkflowExecutionStartedEventAttributes::default()
    };
    turn.write_event(HistoryEvent {
        event_time: Some(ctx.now.to_proto()),
        event_type: EventType::WorkflowExecutionStarted as i32,
        user_metadata: request.user_metadata.clone(),
        links: request.links.clone(),
        attributes: Some(Attributes::WorkflowExecutionStartedEventAttributes(attributes)),
        ..HistoryEvent::default()
    });
    if let Some(signal) = start.signal {
        turn.take_signal(signal);
        turn.flush_buffer();
    }
    if is_eager {
        turn.schedule_workflow_task(None);
        turn.begin_workflow_task(&request.identity, &request.request_id, None, false);
    } else if backoff.is_zero() {
        turn.ensure_workflow_task();
    } else {
        turn.state.info.first_task_at = Some(ctx.now + backoff);
    }
    let transition = turn.finish();
    Ok((state, transition))
}

/// Run and workflow task timeout of a start, with defaults, and capped: the run's by the
/// execution's, the task's by the run's.
pub(crate) fn timeouts(
    ctx: Ctx<'_>,
    request: &StartWorkflowExecutionRequest,
) -> (Duration, Duration) {
    let run = cap(
        duration(request.workflow_run_timeout.as_ref()),
        duration(request.workflow_execution_timeout.as_ref()),
    );
    let mut task = duration(request.workflow_task_timeout.as_ref());
    if task.is_zero() {
        task = ctx.limits.workflow_task_timeout_default;
    }
    (run, cap(task.min(ctx.limits.workflow_task_timeout_max), run))
}

/// `timeout`, but not over `max`; zero is unlimited in both.
fn cap(timeout: Duration, max: Duration) -> Duration {
    match (timeout.is_zero(), max.is_zero()) {
        (_, true) => timeout,
        (true, false) => max,
        (false, false) => timeout.min(max),
    }
}
