//! One loaded run: its state, and what waits on it in memory. Calls come in with the time
//! and the shard they belong to; an [`Outcome`] goes out.

use std::sync::Arc;

use bytes::Bytes;
use everspan_execution::{
    self as execution, ActivityRef, Ctx, PendingTask, State, TaskChange, Transition, Turn,
};
use everspan_proto::{
    common::{
        Link,
        link::{Variant, WorkflowEvent},
    },
    history::HistoryEvent,
    workflowservice as api,
};
use everspan_storage::Batch;
use everspan_types::{
    Error, Offer, Poller, Result, RunId, StartedTask, TaskRef, TaskToken, Time, merge_priority,
};
use everspan_visibility as visibility;

use crate::{
    call::{Call, Reply},
    index, keys,
    outcome::{CallId, Effect, Outcome},
    query::{Place, Queries},
    shard::Shard,
    update,
    wait::Waiter,
    warnings,
};

/// A run in memory.
#[derive(Debug)]
pub struct Run {
    pub(crate) state: State,
    /// The list record as last written.
    pub(crate) record: Option<visibility::Record>,
    pub(crate) queries: Queries,
    pub(crate) waiters: Vec<Waiter>,
    /// The first event, once it was needed.
    pub(crate) started: Option<Arc<HistoryEvent>>,
    pub(crate) update_waiters: Vec<update::Waiter>,
    pub(crate) is_deleted: bool,
}

impl Run {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state,
            record: None,
            queries: Queries::default(),
            waiters: Vec::new(),
            started: None,
            update_waiters: Vec::new(),
            is_deleted: false,
        }
    }

    pub(crate) fn loaded(state: State) -> Self {
        let record = Some(index::record(&state));
        Self { record, ..Self::new(state) }
    }

    /// The run's ID.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.state.info.run_id
    }

    /// Its workflow ID.
    #[must_use]
    pub fn workflow_id(&self) -> &str {
        &self.state.info.workflow_id
    }

    /// The run's state, for checks.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether nothing in memory would be lost if the run were dropped.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queries.open.is_empty()
            && self.waiters.is_empty()
            && self.update_waiters.is_empty()
            && self.state.registry.is_idle()
            && execution::speculative_deadline(&self.state).is_none()
    }

    /// When [`Run::wake`] is due for what lives in memory only.
    #[must_use]
    pub fn soft_deadline(&self) -> Option<Time> {
        let waiters = self.waiters.iter().map(|w| w.deadline);
        waiters
            .chain(self.queries.next_deadline())
            .chain(self.update_deadline())
            .chain(execution::speculative_deadline(&self.state))
            .min()
    }

    /// Forgets calls whose callers went away.
    pub fn forget(&mut self, is_gone: impl Fn(CallId) -> bool) {
        self.waiters.retain(|w| !is_gone(w.call));
        self.queries.open.retain(|_, q| !is_gone(q.call));
        self.update_waiters.retain(|w| !is_gone(w.call));
    }

    /// Calls that wait for something to happen.
    #[must_use]
    pub fn waiting(&self) -> Vec<CallId> {
        let queries = self.queries.open.values().map(|q| q.call);
        let updates = self.update_waiters.iter().map(|w| w.call);
        self.waiters.iter().map(|w| w.call).chain(queries).chain(updates).collect()
    }

    /// Handles a call on this run.
    pub fn handle(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        call: Call,
        deadline: Time,
    ) -> Outcome {
        let mut out = Outcome::default();
        let reply = self.dispatch(shard, now, id, call, deadline, &mut out);
        match reply {
            Ok(Some(reply)) => out.effects.push(Effect::Reply(id, Ok(reply))),
            Ok(None) => {}
            Err(error) => out.effects.push(Effect::Reply(id, Err(error))),
        }
        out
    }

    /// `None` if the answer comes later, or is among the effects.
    fn dispatch(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        call: Call,
        deadline: Time,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        macro_rules! change {
            ($reply:ident, |$turn:ident| $body:expr) => {{
                self.change(shard, now, out, |$turn| $body)?;
                Ok(Some(Reply::$reply(Box::default())))
            }};
        }
        match call {
            Call::SignalWorkflowExecution(r) => {
                self.change(shard, now, out, |t| t.signal((&*r).into()))?;
                let event = WorkflowEvent { run_id: self.id().to_string(), ..Default::default() };
                let link = Link { variant: Some(Variant::WorkflowEvent(event)) };
                Ok(Some(Reply::SignalWorkflowExecution(Box::new(
                    api::SignalWorkflowExecutionResponse { link: Some(link) },
                ))))
            }
            Call::SignalWithStartWorkflowExecution(r) => {
                self.change(shard, now, out, |t| t.signal((&*r).into()))?;
                Ok(Some(Reply::SignalWithStartWorkflowExecution(Box::new(
                    api::SignalWithStartWorkflowExecutionResponse {
                        run_id: self.id().to_string(),
                        first_execution_run_id: self.state.info.first_run_id.to_string(),
                        started: false,
                        ..Default::default()
                    },
                ))))
            }
            Call::RequestCancelWorkflowExecution(r) => {
                self.check_first_run(&r.first_execution_run_id)?;
                change!(RequestCancelWorkflowExecution, |t| t.request_cancel(&r))
            }
            Call::TerminateWorkflowExecution(r) => {
                self.check_first_run(&r.first_execution_run_id)?;
                change!(TerminateWorkflowExecution, |t| t.terminate(&r))
            }
            Call::StartWorkflowExecution(r) => self.restart(shard, now, &r, out),
            Call::RespondWorkflowTaskCompleted(r) => {
                self.complete_workflow_task(shard, now, &r, out)
            }
            Call::RespondWorkflowTaskFailed(r) => {
                let token = TaskToken::from_bytes(&r.task_token)?;
                self.change(shard, now, out, |t| t.respond_workflow_task_failed(&token, &r))?;
                self.queries.shift(Place::Attached, Place::Buffered);
                Ok(Some(Reply::RespondWorkflowTaskFailed(Box::default())))
            }
            Call::ResetStickyTaskQueue(_) => change!(ResetStickyTaskQueue, |t| t.reset_sticky()),
            Call::RespondActivityTaskCompleted(r) => {
                let token = TaskToken::from_bytes(&r.task_token)?;
                #[allow(deprecated)]
                let version = r.worker_version.clone();
                change!(RespondActivityTaskCompleted, |t| t.complete_activity(
                    ActivityRef::Token(&token),
                    r.result.clone(),
                    &r.identity,
                    version
                ))
            }
            Call::RespondActivityTaskCompletedById(r) => {
                change!(RespondActivityTaskCompletedById, |t| t.complete_activity(
                    ActivityRef::Id(&r.activity_id),
                    r.result.clone(),
                    &r.identity,
                    None
                ))
            }
            Call::RespondActivityTaskFailed(r) => {
                let token = TaskToken::from_bytes(&r.task_token)?;
                #[allow(deprecated)]
                let version = r.worker_version.clone();
                change!(RespondActivityTaskFailed, |t| t.fail_activity(
                    ActivityRef::Token(&token),
                    r.failure.clone(),
                    r.last_heartbeat_details.clone(),
                    &r.identity,
                    version
                ))
            }
            Call::RespondActivityTaskFailedById(r) => {
                change!(RespondActivityTaskFailedById, |t| t.fail_activity(
                    ActivityRef::Id(&r.activity_id),
                    r.failure.clone(),
                    r.last_heartbeat_details.clone(),
                    &r.identity,
                    None
                ))
            }
            Call::RespondActivityTaskCanceled(r) => {
                let token = TaskToken::from_bytes(&r.task_token)?;
                change!(RespondActivityTaskCanceled, |t| t.cancel_activity(
                    ActivityRef::Token(&token),
                    r.details.clone(),
                    &r.identity
                ))
            }
            Call::RespondActivityTaskCanceledById(r) => {
                change!(RespondActivityTaskCanceledById, |t| t.cancel_activity(
                    ActivityRef::Id(&r.activity_id),
                    r.details.clone(),
                    &r.identity
                ))
            }
            Call::RecordActivityTaskHeartbeat(r) => {
                let token = TaskToken::from_bytes(&r.task_token)?;
                let told = self.change(shard, now, out, |t| {
                    t.heartbeat_activity(ActivityRef::Token(&token), r.details.clone(), &r.identity)
                })?;
                Ok(Some(Reply::RecordActivityTaskHeartbeat(Box::new(
                    api::RecordActivityTaskHeartbeatResponse {
                        cancel_requested: told.cancel_requested,
                        activity_paused: told.paused,
                        activity_reset: told.reset,
                    },
                ))))
            }
            Call::RecordActivityTaskHeartbeatById(r) => {
                let told = self.change(shard, now, out, |t| {
                    t.heartbeat_activity(
                        ActivityRef::Id(&r.activity_id),
                        r.details.clone(),
                        &r.identity,
                    )
                })?;
                Ok(Some(Reply::RecordActivityTaskHeartbeatById(Box::new(
                    api::RecordActivityTaskHeartbeatByIdResponse {
                        cancel_requested: told.cancel_requested,
                        activity_paused: told.paused,
                        activity_reset: told.reset,
                    },
                ))))
            }
            Call::DescribeWorkflowExecution(_) => Ok(Some(Reply::DescribeWorkflowExecution(
                Box::new(execution::describe(&self.state, now)),
            ))),
            Call::GetWorkflowExecutionHistory(r) => self.get_history(shard, now, id, &r, deadline),
            Call::GetWorkflowExecutionHistoryReverse(r) => {
                self.get_history_reverse(shard, &r).map(Some)
            }
            Call::UpdateWorkflowExecution(r) => self.update(shard, now, id, r, deadline, out),
            Call::PollWorkflowExecutionUpdate(r) => {
                self.poll_update(shard, now, id, &r, deadline, out)
            }
            Call::ExecuteMultiOperation(r) => {
                self.multi_operation(shard, now, id, r, deadline, out)
            }
            Call::QueryWorkflow(r) => self.query(shard, now, id, &r, deadline, out),
            Call::RespondQueryTaskCompleted(r) => self.answer_query(&r, out).map(Some),
            call @ (Call::PauseActivity(_)
            | Call::UnpauseActivity(_)
            | Call::ResetActivity(_)
            | Call::UpdateActivityOptions(_)
            | Call::UpdateWorkflowExecutionOptions(_)
            | Call::PauseWorkflowExecution(_)
            | Call::UnpauseWorkflowExecution(_)) => self.operate(shard, now, call, out).map(Some),
            Call::ResetWorkflowExecution(r) => self.reset(shard, now, &r, out),
            Call::DeleteWorkflowExecution(_) => self.delete(shard, now, out),
        }
    }

    pub(crate) fn check_first_run(&self, first_run_id: &str) -> Result<()> {
        if !first_run_id.is_empty() && first_run_id != self.state.info.first_run_id.to_string() {
            return Err(Error::not_found("workflow execution not found"));
        }
        Ok(())
    }

    /// Makes one change to the run and puts what follows from it into `out`.
    pub(crate) fn change<T>(
        &mut self,
        shard: &mut Shard,
        now: Time,
        out: &mut Outcome,
        decide: impl FnOnce(&mut Turn<'_>) -> Result<T>,
    ) -> Result<T> {
        let started = self.started_event(shard, false)?;
        self.change_knowing(shard, now, out, started, decide)
    }

    /// The same, with the run's first event.
    pub(crate) fn change_knowing<T>(
        &mut self,
        shard: &mut Shard,
        now: Time,
        out: &mut Outcome,
        started: Option<Arc<HistoryEvent>>,
        decide: impl FnOnce(&mut Turn<'_>) -> Result<T>,
    ) -> Result<T> {
        let limits = shard.limits.clone();
        let retention = shard.retention.of(self.state.info.namespace).unwrap_or_default();
        let ctx = Ctx { now, limits: &limits, retention };
        let mut turn = Turn::new(&mut self.state, ctx).knowing(started);
        let value = decide(&mut turn)?;
        let mut transition = turn.finish();
        let next = transition.next.take();
        self.record(shard, &transition, out);
        if let Some(next) = next {
            let mut run = Run::new(next.state);
            shard.record_start(&run.state.info, &mut out.batch);
            run.record(shard, &next.transition, out);
            out.runs.push(run);
        }
        self.notify(shard, &transition, out);
        self.notify_updates(shard, &transition, out);
        Ok(value)
    }

    /// Turns a transition into rows and offers.
    pub(crate) fn record(&mut self, shard: &mut Shard, t: &Transition, out: &mut Outcome) {
        let run_id = self.id();
        if t.is_soft {
            // Offers without a row, and so without a place in the backlog: they are as soft as
            // what they are for.
            for change in &t.tasks {
                match change {
                    TaskChange::Add(task) => {
                        let offer = Offer { sequence: 0, ..self.offer(shard, task) };
                        out.effects.push(Effect::Offer(offer));
                    }
                    TaskChange::Remove(task) => drop_offer(task, out),
                    TaskChange::Keep(_) => {}
                }
            }
            return;
        }
        if let Some(first) = t.events.first() {
            if first.event_id == 1 && execution::may_repeat(&self.state) {
                // More may be decided in the same change, before there is a row to read.
                self.started = Some(Arc::new(first.clone()));
            }
            out.batch.put(keys::history(run_id, first.event_id), t.history.clone());
        }
        for task in &t.tasks {
            self.record_task(shard, task, out);
        }
        for message in &t.messages {
            shard.post(message, out);
        }
        self.record_wake(shard, &mut out.batch);
        self.record_rows(out);
        self.record_visibility(t, &mut out.batch);
        warnings::check(shard, &self.state.info, t);
        if t.closed {
            let info = &self.state.info;
            shard.record_close(info, &mut out.batch);
        }
    }

    /// Writes what changed of the run's state.
    pub(crate) fn record_rows(&mut self, out: &mut Outcome) {
        let run_id = self.id();
        for (row, value) in self.state.take_changed_rows() {
            out.batch.set(keys::run_row(run_id, &row), value.map(Bytes::from));
        }
    }

    fn record_task(&self, shard: &mut Shard, change: &TaskChange, out: &mut Outcome) {
        let info = &self.state.info;
        match change {
            TaskChange::Add(task) | TaskChange::Keep(task) => {
                let value = keys::Backlog {
                    workflow_id: info.workflow_id.clone(),
                    priority: task.priority.clone(),
                    sticky: task.sticky,
                    task: task.task.clone(),
                };
                out.batch.put(
                    keys::backlog(info.namespace, info.run_id, task),
                    Bytes::from(value.to_bytes()),
                );
                let queue = keys::queue_of(info.namespace, task);
                shard.backlog_counts.added(&queue, &keys::place(info.run_id, task));
                if matches!(change, TaskChange::Keep(_)) {
                    return;
                }
                out.effects.push(Effect::Offer(self.offer(shard, task)));
            }
            TaskChange::Remove(task) => {
                let key = keys::backlog(info.namespace, info.run_id, task);
                let queue = keys::queue_of(info.namespace, task);
                shard.backlog_counts.removed(&queue, &keys::place(info.run_id, task));
                drop_offer(task, out);
                out.batch.set(key, None);
            }
        }
    }

    /// A task as its broker is told of it.
    pub(crate) fn offer(&self, shard: &Shard, task: &PendingTask) -> Offer {
        let info = &self.state.info;
        Offer {
            queue: keys::queue_of(info.namespace, task),
            shard: shard.id,
            workflow_id: info.workflow_id.clone(),
            run_id: info.run_id,
            task: task.task.clone(),
            sequence: task.sequence,
            priority: task.priority.clone(),
            sticky: task.sticky,
        }
    }

    /// Keeps one wake-up row for the run. A deadline that moves back leaves the row where
    /// it is: it will find nothing due and be set anew, which is cheaper than a row for
    /// every deadline that is never reached.
    /// A closed run's is when it is deleted.
    pub(crate) fn record_wake(&mut self, shard: &mut Shard, batch: &mut Batch) {
        let stored = self.state.info.wake_at;
        let wanted = if self.state.is_running() {
            match (stored, execution::next_deadline(&self.state)) {
                (Some(at), None) => Some(at),
                (Some(at), Some(next)) if at <= next => Some(at),
                (_, next) => next,
            }
        } else {
            self.expires_at(shard)
        };
        if wanted != stored {
            shard.set_wake(self.id(), stored, wanted, batch);
            self.state.info.wake_at = wanted;
        }
    }

    fn record_visibility(&mut self, t: &Transition, batch: &mut Batch) {
        let is_visible_change = self.record.is_none()
            || t.closed
            || self.record.as_ref().is_some_and(|r| index::is_outdated(r, &self.state))
            || t.events.iter().any(|e| index::is_visible(e.event_type()));
        if !is_visible_change {
            return;
        }
        let new = index::record(&self.state);
        for (key, value) in visibility::change(keys::VISIBILITY, self.record.as_ref(), Some(&new)) {
            batch.set(key, value);
        }
        self.record = Some(new);
    }

    /// Wakes the run: what time brought about, in its state and for those who wait.
    pub fn wake(&mut self, shard: &mut Shard, now: Time) -> Outcome {
        let mut out = Outcome::default();
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let is_woken = is_due(self.state.info.wake_at);
        if self.state.is_running()
            && (is_woken || is_due(execution::speculative_deadline(&self.state)))
        {
            // Read before anything changes: without it the wake-up stands, and comes again.
            if let Err(error) = self.started_event(shard, false) {
                tracing::error!(run_id = %self.id(), %error, "a run cannot be woken now");
                shard.wake_later(self.id(), now);
                return out;
            }
            if is_woken {
                // The row that brought us here is used up.
                shard.set_wake(self.id(), self.state.info.wake_at.take(), None, &mut out.batch);
            }
            let woken = self.change(shard, now, &mut out, |turn| {
                turn.wake();
                Ok(())
            });
            debug_assert!(woken.is_ok(), "waking cannot fail");
            self.after_workflow_task_change();
        } else if is_woken && !self.state.is_running() {
            self.wake_closed(shard, now, &mut out);
        }
        self.expire_waiters(now, &mut out);
        self.expire_update_waiters(shard, now, &mut out);
        self.expire_sticky_queries(shard, now, &mut out);
        out
    }

    /// Takes over what a reset of a later run wrote into this one's row.
    pub fn refresh(&mut self, shard: &Shard) {
        match shard.load_any(self.id()) {
            Ok(Some(stored)) => self.state.info.reset_to = stored.state.info.reset_to,
            // It is deleted: nothing comes to it any more.
            Ok(None) => {}
            Err(error) => {
                tracing::error!(run_id = %self.id(), %error, "a reset run cannot be read");
            }
        }
    }

    /// Queries that rode on a workflow task that is gone wait for the next.
    fn after_workflow_task_change(&mut self) {
        if self.state.started_workflow_task().is_none() {
            self.queries.shift(Place::Attached, Place::Buffered);
        }
    }

    /// Hands a task to a worker.
    pub fn start_task(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        task: &TaskRef,
        poller: &Poller,
    ) -> Outcome {
        let mut out = Outcome::default();
        let started = match task {
            TaskRef::Workflow { stamp, .. } => {
                self.start_workflow_task(shard, now, *stamp, poller, &mut out)
            }
            TaskRef::Activity { scheduled_event_id, stamp } => {
                self.start_activity(shard, now, *scheduled_event_id, *stamp, poller, &mut out)
            }
            TaskRef::Query { query_id } => self.take_query(shard, *query_id, poller),
        };
        out.effects.push(Effect::Task(id, started));
        out
    }

    fn start_workflow_task(
        &mut self,
        shard: &mut Shard,
        now: Time,
        stamp: u32,
        poller: &Poller,
        out: &mut Outcome,
    ) -> Result<StartedTask> {
        let is_sticky = self.state.info.workflow_task.as_ref().is_some_and(|t| t.is_sticky);
        self.change(shard, now, out, |turn| turn.start_workflow_task(stamp, poller))?;
        let task = self.workflow_task(shard, is_sticky, out)?;
        Ok(StartedTask::Workflow(Box::new(task)))
    }

    fn start_activity(
        &mut self,
        shard: &mut Shard,
        now: Time,
        scheduled_event_id: i64,
        stamp: u32,
        poller: &Poller,
        out: &mut Outcome,
    ) -> Result<StartedTask> {
        // Read before the change, so that a read that fails leaves the activity alone.
        let event = shard.event(self.id(), scheduled_event_id)?;
        let taken =
            self.change(shard, now, out, |t| t.start_activity(scheduled_event_id, stamp, poller))?;
        let priority = taken.activity.priority.clone();
        let mut task = self.activity_task(event, taken.activity)?;
        task.priority = merge_priority(self.state.info.priority.as_ref(), priority.as_ref());
        Ok(StartedTask::Activity(Box::new(task)))
    }

    /// Takes back an offer that no worker of the sticky queue will take.
    pub fn sticky_unavailable(&mut self, shard: &mut Shard, now: Time, task: &TaskRef) -> Outcome {
        let mut out = Outcome::default();
        match task {
            TaskRef::Workflow { stamp, .. } => {
                let moved = self.change(shard, now, &mut out, |turn| {
                    turn.leave_sticky_queue(*stamp);
                    Ok(())
                });
                debug_assert!(moved.is_ok(), "moving a task cannot fail");
            }
            TaskRef::Query { query_id } => self.offer_query_normally(shard, *query_id, &mut out),
            TaskRef::Activity { .. } => {}
        }
        out
    }

    pub(crate) fn execution(&self) -> everspan_proto::common::WorkflowExecution {
        everspan_proto::common::WorkflowExecution {
            workflow_id: self.state.info.workflow_id.clone(),
            run_id: self.id().to_string(),
        }
    }
}

/// Takes an offer back that this very change made: it has not gone out yet.
fn drop_offer(task: &PendingTask, out: &mut Outcome) {
    out.effects.retain(|effect| {
        !matches!(effect, Effect::Offer(o) if o.task == task.task && o.queue.name == task.queue)
    });
}
