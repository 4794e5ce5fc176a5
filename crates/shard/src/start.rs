//! Starting runs: anew, and where one is open already.

use everspan_execution::{self as execution, Ctx, Start};
use everspan_proto::{
    enums::{WorkflowExecutionStatus as Status, WorkflowIdConflictPolicy, WorkflowIdReusePolicy},
    workflowservice as api,
};
use everspan_types::{Error, NamespaceId, Result, RunId, Time};

use crate::{
    call::{Call, Reply},
    multi_operation,
    outcome::{CallId, Effect, Outcome},
    run::Run,
    shard::Shard,
};

impl Shard {
    /// Starts a new run under `new_run`. [`Shard::route`] has said that none is in the way.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for settings that make no sense; nothing changed then.
    pub fn start(
        &mut self,
        now: Time,
        id: CallId,
        namespace: NamespaceId,
        new_run: RunId,
        call: &Call,
        deadline: Time,
    ) -> Result<(Run, Outcome)> {
        let mut out = Outcome::default();
        match call {
            Call::StartWorkflowExecution(r) => {
                let start = client_start(namespace, new_run, r, None);
                let mut run = self.begin(now, start, &mut out)?;
                let reply = run.started_eagerly(self, r, &out)?;
                out.effects.push(Effect::Reply(id, Ok(reply)));
                Ok((run, out))
            }
            Call::SignalWithStartWorkflowExecution(r) => {
                let request = start_request(r);
                let start = client_start(namespace, new_run, &request, Some(r));
                let run = self.begin(now, start, &mut out)?;
                let reply = Reply::SignalWithStartWorkflowExecution(Box::new(
                    api::SignalWithStartWorkflowExecutionResponse {
                        run_id: new_run.to_string(),
                        first_execution_run_id: new_run.to_string(),
                        started: true,
                        ..Default::default()
                    },
                ));
                out.effects.push(Effect::Reply(id, Ok(reply)));
                Ok((run, out))
            }
            Call::ExecuteMultiOperation(r) => {
                self.start_multi(now, id, namespace, new_run, r, deadline)
            }
            other => Err(Error::internal(format!("{} starts no run", other.name()))),
        }
    }

    pub(crate) fn begin(&mut self, now: Time, start: Start<'_>, out: &mut Outcome) -> Result<Run> {
        let limits = self.limits.clone();
        let retention = self.retention.of(start.namespace).unwrap_or_default();
        let ctx = Ctx { now, limits: &limits, retention };
        let (state, transition) = execution::start(ctx, start)?;
        let mut run = Run::new(state);
        self.record_start(&run.state.info, &mut out.batch);
        run.record(self, &transition, out);
        Ok(run)
    }
}

impl Run {
    /// Answers a start that finds this run open, or made by the same request.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` with the run's details where the policy is to fail.
    pub(crate) fn restart(
        &mut self,
        shard: &mut Shard,
        now: Time,
        r: &api::StartWorkflowExecutionRequest,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let info = &self.state.info;
        if info.start_request_id == r.request_id {
            return self.started_eagerly(shard, r, out).map(Some);
        }
        if info.attached_requests.contains_key(&r.request_id) {
            return Ok(Some(started(self, false)));
        }
        match r.workflow_id_conflict_policy() {
            WorkflowIdConflictPolicy::UseExisting => {
                if r.on_conflict_options.is_some() {
                    self.change(shard, now, out, |turn| turn.attach_start(r))?;
                    shard.record_current(&self.state.info, &mut out.batch);
                }
                let mut reply = started(self, false);
                if let Reply::StartWorkflowExecution(response) = &mut reply {
                    // Open, which is all that this answer tells.
                    response.status = Status::Running as i32;
                }
                Ok(Some(reply))
            }
            _ => Err(Error::AlreadyStarted {
                message: format!(
                    "Workflow execution is already running. WorkflowId: {}, RunId: {}.",
                    info.workflow_id, info.first_run_id
                ),
                start_request_id: info.start_request_id.clone(),
                run_id: info.run_id.to_string(),
                first_run_id: info.first_run_id.to_string(),
            }),
        }
    }

    /// Answers the start that made this run, with the first workflow task if the caller
    /// wants it: now, or again while that task is still the worker's.
    fn started_eagerly(
        &mut self,
        shard: &Shard,
        r: &api::StartWorkflowExecutionRequest,
        out: &Outcome,
    ) -> Result<Reply> {
        let mut reply = started(self, true);
        let is_first = self
            .state
            .started_workflow_task()
            .is_some_and(|t| t.started_event_id == 3 && t.attempt == 1);
        if r.request_eager_execution
            && is_first
            && let Reply::StartWorkflowExecution(response) = &mut reply
        {
            response.eager_workflow_task = Some(self.workflow_task(shard, false, out)?);
        }
        Ok(reply)
    }

    /// Whether this run was started by, or attached to, the same request.
    #[must_use]
    pub fn is_started_by(&self, call: &Call) -> bool {
        match call {
            Call::StartWorkflowExecution(r) => {
                let info = &self.state.info;
                r.request_id == info.start_request_id
                    || info.attached_requests.contains_key(&r.request_id)
            }
            Call::SignalWithStartWorkflowExecution(r) => {
                r.request_id == self.state.info.start_request_id
            }
            Call::ExecuteMultiOperation(r) => {
                self.is_for(r)
                    || multi_operation::start_of(r)
                        .is_ok_and(|s| s.request_id == self.state.info.start_request_id)
            }
            _ => false,
        }
    }

    /// Whether a call that came here is not for this run any more: it named no run, and this
    /// one closed, or was followed by another, since it was sent here.
    #[must_use]
    pub fn is_overtaken(&self, shard: &Shard, call: &Call) -> bool {
        match call {
            Call::StartWorkflowExecution(_)
            | Call::SignalWithStartWorkflowExecution(_)
            | Call::ExecuteMultiOperation(_) => {
                !self.state.is_running() && !self.is_started_by(call)
            }
            call => !self.state.is_running() && !call.names_run() && self.is_replaced(shard),
        }
    }

    /// Whether another run of the workflow ID came after this one.
    #[must_use]
    pub fn is_replaced(&self, shard: &Shard) -> bool {
        let info = &self.state.info;
        !self.state.is_running()
            && matches!(shard.current(info.namespace, &info.workflow_id),
                Ok(Some(current)) if current.run_id != info.run_id)
    }

    /// Whether a start is to end this run and take its place.
    #[must_use]
    pub fn is_replaced_by(&self, call: &Call) -> bool {
        if !self.state.is_running() {
            return false;
        }
        let terminates = |conflict, reuse| {
            conflict == WorkflowIdConflictPolicy::TerminateExisting || reuse == TERMINATE_IF_RUNNING
        };
        match call {
            Call::StartWorkflowExecution(r) => {
                !self.is_started_by(call)
                    && terminates(r.workflow_id_conflict_policy(), r.workflow_id_reuse_policy)
            }
            Call::SignalWithStartWorkflowExecution(r) => {
                terminates(r.workflow_id_conflict_policy(), r.workflow_id_reuse_policy)
            }
            Call::ExecuteMultiOperation(r) => {
                !self.is_for(r)
                    && multi_operation::start_of(r).is_ok_and(|s| {
                        terminates(s.workflow_id_conflict_policy(), s.workflow_id_reuse_policy)
                    })
            }
            _ => false,
        }
    }

    /// Terminates this run and starts `new_run` in its place, in one change.
    ///
    /// # Errors
    /// As [`Shard::start`]; this run goes on then.
    pub fn replace(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        new_run: RunId,
        call: &Call,
        deadline: Time,
    ) -> Result<(Run, Outcome)> {
        let namespace = self.state.info.namespace;
        let (run, started) = shard.start(now, id, namespace, new_run, call, deadline)?;
        let mut out = Outcome::default();
        let text = new_run.to_string();
        self.change(shard, now, &mut out, |turn| {
            turn.terminate_for_new_run(&text);
            Ok(())
        })?;
        // The new run's rows come last, so that it is the latest of its ID.
        out.batch.ops.extend(started.batch.ops);
        out.effects.extend(started.effects);
        Ok((run, out))
    }
}

/// A start as a client asks for it.
pub(crate) fn client_start<'a>(
    namespace: NamespaceId,
    run_id: RunId,
    request: &'a api::StartWorkflowExecutionRequest,
    signal: Option<&api::SignalWithStartWorkflowExecutionRequest>,
) -> Start<'a> {
    Start { namespace, run_id, request, signal: signal.map(Into::into), parent: None, chain: None }
}

#[allow(deprecated)]
pub(crate) const TERMINATE_IF_RUNNING: i32 = WorkflowIdReusePolicy::TerminateIfRunning as i32;

fn started(run: &Run, is_new: bool) -> Reply {
    Reply::StartWorkflowExecution(Box::new(api::StartWorkflowExecutionResponse {
        run_id: run.id().to_string(),
        first_execution_run_id: run.state.info.first_run_id.to_string(),
        started: is_new,
        status: run.state.info.status,
        ..Default::default()
    }))
}

/// The start half of a signal-with-start.
fn start_request(
    r: &api::SignalWithStartWorkflowExecutionRequest,
) -> api::StartWorkflowExecutionRequest {
    api::StartWorkflowExecutionRequest {
        namespace: r.namespace.clone(),
        workflow_id: r.workflow_id.clone(),
        workflow_type: r.workflow_type.clone(),
        task_queue: r.task_queue.clone(),
        input: r.input.clone(),
        workflow_execution_timeout: r.workflow_execution_timeout,
        workflow_run_timeout: r.workflow_run_timeout,
        workflow_task_timeout: r.workflow_task_timeout,
        identity: r.identity.clone(),
        request_id: r.request_id.clone(),
        workflow_id_reuse_policy: r.workflow_id_reuse_policy,
        workflow_id_conflict_policy: r.workflow_id_conflict_policy,
        retry_policy: r.retry_policy.clone(),
        cron_schedule: r.cron_schedule.clone(),
        memo: r.memo.clone(),
        search_attributes: r.search_attributes.clone(),
        header: r.header.clone(),
        workflow_start_delay: r.workflow_start_delay,
        user_metadata: r.user_metadata.clone(),
        links: r.links.clone(),
        versioning_override: r.versioning_override.clone(),
        priority: r.priority.clone(),
        ..Default::default()
    }
}
