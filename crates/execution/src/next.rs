//! The run after this one: by its own wish, by its retry policy, or by its cron schedule.
//! The close of the one run and the start of the next are one change.

use std::time::Duration;

use everspan_proto::{
    command::ContinueAsNewWorkflowExecutionCommandAttributes,
    common::Payloads,
    enums::{ContinueAsNewInitiator as Initiator, RetryState},
    failure::Failure,
    history::{WorkflowExecutionStartedEventAttributes, history_event::Attributes},
    workflow::ResetPoints,
    workflowservice::StartWorkflowExecutionRequest,
};
use everspan_types::{Result, RunId, Time};

use crate::{
    convert::{normal_queue, proto_duration},
    cron,
    describe::reset_points,
    start::{Chain, Start, start},
    state::{Root, State},
    turn::{Transition, Turn},
};

/// Least time from one run's first task to that of the next, against tight loops.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A run that begins in the change that closes the one before it.
#[derive(Clone, Debug, PartialEq)]
pub struct NextRun {
    /// Its state.
    pub state: State,
    /// Its first events and tasks.
    pub transition: Transition,
}

/// That another run follows, and how.
#[derive(Clone, Debug)]
pub(crate) struct Next {
    run_id: RunId,
    initiator: Initiator,
    backoff: Duration,
    failure: Option<Failure>,
    last_completion_result: Option<Payloads>,
}

/// Whether a close of this run may need its first event.
#[must_use]
pub fn may_repeat(state: &State) -> bool {
    state.is_running()
        && (state.info.retry_policy.is_some() || !state.info.cron_schedule.is_empty())
}

/// As the closing event names it.
pub(crate) fn next_run_id(next: Option<&Next>) -> String {
    next.map(|n| n.run_id.to_string()).unwrap_or_default()
}

impl Turn<'_> {
    /// The ID of the run after this one.
    pub(crate) fn next_run_id(&self) -> RunId {
        RunId::derived(self.ctx.now, self.state.info.run_id, 0)
    }

    /// What follows a failure: a retry, or else the next run of the cron schedule.
    pub(crate) fn after_failure(
        &self,
        failure: &Failure,
        keep_result: bool,
    ) -> (RetryState, Option<Next>) {
        let info = &self.state.info;
        let state = match &info.retry_policy {
            None => RetryState::RetryPolicyNotSet,
            Some(policy) => {
                match policy.next(self.ctx.now, info.attempt, info.execution_expiration, failure) {
                    Ok(backoff) => {
                        let result = keep_result.then(|| self.started_result()).flatten();
                        let next = self.next(Initiator::Retry, backoff, Some(failure), result);
                        return (RetryState::InProgress, next);
                    }
                    Err(state) => state,
                }
            }
        };
        let result = self.started_result();
        (state, self.after_cron(Some(failure), result))
    }

    /// What follows a completion: the next run of the cron schedule, if there is one.
    pub(crate) fn after_completion(&self, result: Option<Payloads>) -> Option<Next> {
        self.after_cron(None, result)
    }

    fn after_cron(&self, failure: Option<&Failure>, result: Option<Payloads>) -> Option<Next> {
        let info = &self.state.info;
        let backoff = cron::backoff(&info.cron_schedule, info.execution_time, self.ctx.now)?;
        self.next(Initiator::CronSchedule, backoff, failure, result)
    }

    fn next(
        &self,
        initiator: Initiator,
        backoff: Duration,
        failure: Option<&Failure>,
        last_completion_result: Option<Payloads>,
    ) -> Option<Next> {
        // Without the first event there is nothing to repeat.
        self.started_attributes()?;
        Some(Next {
            run_id: self.next_run_id(),
            initiator,
            backoff,
            failure: failure.cloned(),
            last_completion_result,
        })
    }

    fn started_attributes(&self) -> Option<&WorkflowExecutionStartedEventAttributes> {
        match self.started.as_ref()?.attributes.as_ref()? {
            Attributes::WorkflowExecutionStartedEventAttributes(a) => Some(a),
            _ => None,
        }
    }

    fn started_result(&self) -> Option<Payloads> {
        self.started_attributes()?.last_completion_result.clone()
    }

    /// Begins the run that repeats this one.
    pub(crate) fn repeat(&mut self, next: Next) {
        let Some(a) = self.started_attributes() else { return };
        let request = StartWorkflowExecutionRequest {
            workflow_type: a.workflow_type.clone(),
            task_queue: a.task_queue.clone(),
            input: a.input.clone(),
            header: a.header.clone(),
            workflow_run_timeout: a.workflow_run_timeout,
            workflow_task_timeout: a.workflow_task_timeout,
            retry_policy: a.retry_policy.clone(),
            cron_schedule: a.cron_schedule.clone(),
            memo: a.memo.clone(),
            search_attributes: a.search_attributes.clone(),
            priority: a.priority.clone(),
            ..StartWorkflowExecutionRequest::default()
        };
        let begun = self.begin_next(request, next);
        debug_assert!(begun.is_ok(), "what ran once can run again: {begun:?}");
    }

    /// Begins the run that the workflow asked for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a retry policy that makes no sense.
    pub(crate) fn continue_as(
        &mut self,
        a: &ContinueAsNewWorkflowExecutionCommandAttributes,
        run_id: RunId,
    ) -> Result<()> {
        let request = StartWorkflowExecutionRequest {
            workflow_type: a.workflow_type.clone(),
            task_queue: a.task_queue.as_ref().map(|q| normal_queue(&q.name)),
            input: a.input.clone(),
            header: a.header.clone(),
            workflow_run_timeout: a.workflow_run_timeout,
            workflow_task_timeout: a.workflow_task_timeout,
            retry_policy: a.retry_policy.clone(),
            cron_schedule: a.cron_schedule.clone(),
            memo: a.memo.clone(),
            search_attributes: a.search_attributes.clone(),
            priority: self.state.info.priority.clone(),
            ..StartWorkflowExecutionRequest::default()
        };
        let initiator = match a.initiator() {
            Initiator::Unspecified => Initiator::Workflow,
            other => other,
        };
        let next = Next {
            run_id,
            initiator,
            backoff: crate::convert::duration(a.backoff_start_interval.as_ref()),
            failure: a.failure.clone(),
            last_completion_result: a.last_completion_result.clone(),
        };
        self.begin_next(request, next)
    }

    fn begin_next(&mut self, mut request: StartWorkflowExecutionRequest, next: Next) -> Result<()> {
        let passed_on = self.passed_on_reset_points();
        let info = &self.state.info;
        request.namespace.clone_from(&info.namespace_name);
        request.workflow_id.clone_from(&info.workflow_id);
        request.links = self.started.as_ref().map(|e| e.links.clone()).unwrap_or_default();
        request.request_id = RunId::derived(self.ctx.now, info.run_id, 1).to_string();
        request.workflow_execution_timeout =
            (!info.execution_timeout.is_zero()).then(|| proto_duration(info.execution_timeout));
        let root = info.root.clone().unwrap_or_else(|| Root {
            workflow_id: info.workflow_id.clone(),
            run_id: info.run_id.to_string(),
        });
        let chain = Chain {
            continued_run_id: info.run_id,
            first_run_id: info.first_run_id,
            attempt: match next.initiator {
                Initiator::Retry => info.attempt + 1,
                _ => 1,
            },
            initiator: next.initiator,
            expiration: info.execution_expiration.map(Time::to_proto),
            backoff: self.spread(next.backoff),
            last_completion_result: next.last_completion_result,
            continued_failure: next.failure,
            reset_points: Some(passed_on),
        };
        let begin = Start {
            namespace: info.namespace,
            run_id: next.run_id,
            request: &request,
            signal: None,
            parent: info.parent.clone().map(|parent| (parent, root)),
            chain: Some(chain),
        };
        let (state, transition) = start(self.ctx, begin)?;
        self.next = Some(Box::new(NextRun { state, transition }));
        Ok(())
    }

    /// Where the runs so far can be reset to, but for those that are deleted by now. This run
    /// is kept for the retention from now on, which it notes of its own points, too.
    fn passed_on_reset_points(&mut self) -> ResetPoints {
        let now = self.ctx.now;
        let info = &mut self.state.info;
        let own = info.run_id.to_string();
        if !self.ctx.retention.is_zero() {
            for point in info.reset_points.iter_mut().filter(|p| p.run_id == own) {
                point.expire_time = Some(now + self.ctx.retention);
            }
        }
        let mut points = reset_points(self.state);
        points
            .points
            .retain(|p| p.expire_time.as_ref().is_none_or(|at| Time::from_proto(at) >= now));
        points
    }

    /// The backoff before the next run, at least so long that runs do not follow each other
    /// faster than [`MIN_INTERVAL`].
    fn spread(&self, backoff: Duration) -> Duration {
        let info = &self.state.info;
        let began =
            if self.ctx.now >= info.execution_time { info.execution_time } else { info.start_time };
        let lifetime = self.ctx.now.since(began);
        if lifetime + backoff < MIN_INTERVAL { MIN_INTERVAL - lifetime } else { backoff }
    }
}
