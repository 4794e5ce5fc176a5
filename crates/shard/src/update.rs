//! Updates of a loaded run: the calls that wait for them, from the ask to the answer.
//!
//! A caller waits for a stage ([`Waiter`]). Where the run closes before an update is accepted,
//! a call that can start another is routed anew ([`Effect::Route`]).

use std::time::Duration;

use everspan_execution::{
    Transition,
    update::{UpdateNews, UpdateStatus},
};
use everspan_proto::{
    common::{Link, WorkflowExecution},
    enums::UpdateWorkflowExecutionLifecycleStage as Stage,
    failure::Failure,
    history::history_event::Attributes,
    update::{Outcome as UpdateOutcome, UpdateRef, WaitPolicy, outcome::Value},
    workflowservice as api,
};
use everspan_types::{Error, Result, Time};

use crate::{
    call::{Call, Reply, Request},
    multi_operation::{self, Multi},
    outcome::{CallId, Effect, Outcome},
    run::Run,
    shard::Shard,
};

/// Longest wait for a stage before the answer names the stage reached; the real server's.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Most callers waiting on the updates of one run.
const WAITERS_MAX: usize = 1_000;
/// How long an update that nobody waits for is kept until a worker takes it.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// A call that waits for an update to come so far.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) call: CallId,
    /// When it is answered with the stage reached.
    pub(crate) until: Time,
    update_id: String,
    /// A [`Stage`].
    stage: i32,
    ask: Ask,
    /// When the caller stops waiting.
    deadline: Time,
}

/// What was asked.
#[derive(Debug)]
pub(crate) enum Ask {
    Update(Box<api::UpdateWorkflowExecutionRequest>),
    Poll,
    Multi(Multi),
}

/// The stage reached, and the outcome once there is one.
pub(crate) type Reached = (Stage, Option<UpdateOutcome>);

impl Run {
    /// Admits an update and waits for it.
    pub(crate) fn update(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        r: Box<api::UpdateWorkflowExecutionRequest>,
        deadline: Time,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        self.check_first_run(&r.first_execution_run_id)?;
        self.admit_and_wait(shard, now, id, Ask::Update(r), deadline, out)
    }

    pub(crate) fn admit_and_wait(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        ask: Ask,
        deadline: Time,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let update = match &ask {
            Ask::Update(r) => Some(&**r),
            Ask::Multi(m) => m.update(),
            Ask::Poll => None,
        };
        let request = update.and_then(|r| r.request.as_ref()).cloned();
        let wanted = stage(update.and_then(|r| r.wait_policy.as_ref()));
        let request = request.ok_or_else(|| Error::internal("no update in the request"))?;
        self.change(shard, now, out, |t| t.admit_update(&request))?;
        let update_id = request.meta.unwrap_or_default().update_id;
        let until = now + WAIT_MAX;
        let waiter = Waiter { call: id, until, update_id, stage: wanted, ask, deadline };
        self.wait_for_update(shard, waiter, out)
    }

    /// Waits for an update that was asked for before.
    pub(crate) fn poll_update(
        &mut self,
        shard: &Shard,
        now: Time,
        id: CallId,
        r: &api::PollWorkflowExecutionUpdateRequest,
        deadline: Time,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let update_id = r.update_ref.as_ref().map(|u| u.update_id.clone()).unwrap_or_default();
        let waiter = Waiter {
            call: id,
            until: now + WAIT_MAX,
            update_id,
            stage: stage(r.wait_policy.as_ref()),
            ask: Ask::Poll,
            deadline,
        };
        self.wait_for_update(shard, waiter, out)
    }

    fn wait_for_update(
        &mut self,
        shard: &Shard,
        waiter: Waiter,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let reached = self.update_reached(shard, out, &waiter.update_id);
        if reached.as_ref().is_ok_and(|(stage, _)| (*stage as i32) < waiter.stage) {
            if self.update_waiters.len() >= WAITERS_MAX {
                return Err(Error::unavailable("too many callers wait on this workflow"));
            }
            self.update_waiters.push(waiter);
            return Ok(None);
        }
        self.update_reply(&waiter, reached).map(Some)
    }

    /// How far an update came, this very change included.
    ///
    /// # Errors
    /// `NOT_FOUND` if it is not known; what it was aborted with.
    pub(crate) fn update_reached(
        &self,
        shard: &Shard,
        out: &Outcome,
        update_id: &str,
    ) -> Result<Reached> {
        let status = self
            .state
            .update_status(update_id)
            .ok_or_else(|| Error::not_found(format!("update {update_id:?} not found")))?;
        Ok(match status {
            UpdateStatus::Admitted => (Stage::Admitted, None),
            UpdateStatus::Accepted => (Stage::Accepted, None),
            UpdateStatus::Failed(failure) => (Stage::Completed, Some(failed(failure))),
            UpdateStatus::Aborted(error) => return Err(error),
            UpdateStatus::Completed { event_id } => {
                let event = shard.event_with(&out.batch, self.id(), event_id)?;
                match event.attributes {
                    Some(Attributes::WorkflowExecutionUpdateCompletedEventAttributes(a)) => {
                        (Stage::Completed, Some(a.outcome.unwrap_or_default()))
                    }
                    _ => {
                        return Err(Error::internal(
                            "event pointer does not reference an update completed event",
                        ));
                    }
                }
            }
        })
    }

    fn update_reply(&self, waiter: &Waiter, reached: Result<Reached>) -> Result<Reply> {
        match &waiter.ask {
            Ask::Update(_) => {
                let response = self.update_response(&waiter.update_id, reached?);
                Ok(Reply::UpdateWorkflowExecution(Box::new(response)))
            }
            Ask::Poll => {
                let (stage, outcome) = reached?;
                let response = api::PollWorkflowExecutionUpdateResponse {
                    outcome,
                    stage: stage as i32,
                    update_ref: Some(self.update_ref(&waiter.update_id)),
                };
                Ok(Reply::PollWorkflowExecutionUpdate(Box::new(response)))
            }
            Ask::Multi(multi) => {
                let reached = reached.map_err(|e| multi.update_failed(e))?;
                let response = self.update_response(&waiter.update_id, reached);
                Ok(multi_operation::reply(multi.start.clone(), response))
            }
        }
    }

    /// An answer to an update; its link is filled in where the names are known.
    pub(crate) fn update_response(
        &self,
        update_id: &str,
        (stage, outcome): Reached,
    ) -> api::UpdateWorkflowExecutionResponse {
        api::UpdateWorkflowExecutionResponse {
            update_ref: Some(self.update_ref(update_id)),
            outcome,
            stage: stage as i32,
            link: (stage >= Stage::Accepted).then(Link::default),
        }
    }

    fn update_ref(&self, update_id: &str) -> UpdateRef {
        UpdateRef {
            workflow_execution: Some(WorkflowExecution {
                workflow_id: self.workflow_id().to_owned(),
                run_id: self.id().to_string(),
            }),
            update_id: update_id.to_owned(),
        }
    }

    /// Answers callers whose update came as far as they wait for.
    pub(crate) fn notify_updates(&mut self, shard: &Shard, t: &Transition, out: &mut Outcome) {
        if t.updates.is_empty() || self.update_waiters.is_empty() {
            return;
        }
        for waiter in std::mem::take(&mut self.update_waiters) {
            let news = t.updates.iter().rev().find(|u| u.update_id == waiter.update_id);
            let reached = match news.map(|u| &u.what) {
                None => {
                    self.update_waiters.push(waiter);
                    continue;
                }
                Some(UpdateNews::Recorded) => self.update_reached(shard, out, &waiter.update_id),
                Some(UpdateNews::Rejected(f)) => Ok((Stage::Completed, Some(failed(f.clone())))),
                Some(UpdateNews::Aborted(error)) => Err(error.clone()),
                Some(UpdateNews::Continued) => {
                    // Says that the workflow is closing.
                    self.update_reached(shard, out, &waiter.update_id)
                }
            };
            if reached.as_ref().is_ok_and(|(stage, _)| (*stage as i32) < waiter.stage) {
                self.update_waiters.push(waiter);
                continue;
            }
            let is_aborted = matches!(news.map(|u| &u.what), Some(UpdateNews::Aborted(_)));
            let again = if t.closed && is_aborted { self.again(&waiter) } else { None };
            let effect = match again {
                Some(request) => Effect::Route(waiter.call, Box::new(request)),
                None => Effect::Reply(waiter.call, self.update_reply(&waiter, reached)),
            };
            out.effects.push(effect);
        }
    }

    /// The call again, if it can start a run of its own for its update; the real server tries
    /// so, too. A run that goes on in another is the caller's to find.
    fn again(&self, waiter: &Waiter) -> Option<Request> {
        let Ask::Multi(multi) = &waiter.ask else { return None };
        let info = &self.state.info;
        (!multi.start.started).then(|| Request {
            namespace: info.namespace,
            workflow_id: info.workflow_id.clone(),
            call: Call::ExecuteMultiOperation(multi.request.clone()),
            deadline: waiter.deadline,
        })
    }

    /// Answers callers who waited long enough with the stage reached.
    pub(crate) fn expire_update_waiters(
        &mut self,
        shard: &mut Shard,
        now: Time,
        out: &mut Outcome,
    ) {
        let waiters = std::mem::take(&mut self.update_waiters);
        let (due, rest): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|w| w.until <= now);
        self.update_waiters = rest;
        for waiter in due {
            let reached = self.update_reached(shard, out, &waiter.update_id);
            let reply = self.update_reply(&waiter, reached);
            out.effects.push(Effect::Reply(waiter.call, reply));
        }
        if self.forgotten_updates_due().is_some_and(|at| at <= now) {
            let wanted: Vec<String> =
                self.update_waiters.iter().map(|w| w.update_id.clone()).collect();
            let forgotten = self.change(shard, now, out, |t| {
                t.forget_updates(now - KEPT, |id| wanted.iter().any(|w| w == id));
                Ok(())
            });
            debug_assert!(forgotten.is_ok(), "forgetting cannot fail");
        }
    }

    /// When the first update that nobody waits for is forgotten.
    fn forgotten_updates_due(&self) -> Option<Time> {
        let is_wanted = |id: &str| self.update_waiters.iter().any(|w| w.update_id == id);
        let alone = self.state.registry.alive().filter(|(_, p)| p.request.is_some());
        let alone = alone.filter(|(id, _)| !is_wanted(id));
        alone.map(|(_, p)| p.admitted_time + KEPT).min()
    }

    /// When something of updates that lives in memory is due.
    pub(crate) fn update_deadline(&self) -> Option<Time> {
        let waiters = self.update_waiters.iter().map(|w| w.until);
        waiters.chain(self.forgotten_updates_due()).min()
    }
}

/// The stage that a call waits for.
fn stage(policy: Option<&WaitPolicy>) -> i32 {
    policy.map_or(0, |p| p.lifecycle_stage)
}

fn failed(failure: Failure) -> UpdateOutcome {
    UpdateOutcome { value: Some(Value::Failure(failure)) }
}
