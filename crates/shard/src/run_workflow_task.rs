//! Workflow tasks and queries of a loaded run, as they go to workers and come back.

use std::collections::HashMap;

use bytes::Bytes;
use everspan_execution::{self as execution, convert};
use everspan_proto::{
    enums::{
        CommandType, QueryRejectCondition, QueryResultType, WorkflowExecutionStatus as Status,
    },
    history::History,
    query::{QueryRejected, WorkflowQuery},
    workflowservice as api,
};
use everspan_types::{
    Error, Offer, Poller, Priority, QueryToken, QueueKey, Result, StartedTask, TaskKind, TaskRef,
    TaskToken, Time,
};
use uuid::Uuid;

use crate::{
    call::Reply,
    history::Token,
    outcome::{CallId, Effect, Outcome},
    query::{Place, QUERIES_MAX},
    run::Run,
    shard::Shard,
};

/// From this attempt of a workflow task on, queries are refused rather than left to wait
/// for a workflow that keeps failing.
const QUERY_ATTEMPT_MAX: i32 = 3;

impl Run {
    pub(crate) fn complete_workflow_task(
        &mut self,
        shard: &mut Shard,
        now: Time,
        r: &api::RespondWorkflowTaskCompletedRequest,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let token = TaskToken::from_bytes(&r.task_token)?;
        let continues = r
            .commands
            .iter()
            .any(|c| c.command_type() == CommandType::ContinueAsNewWorkflowExecution);
        let started = self.started_event(shard, continues)?;
        let done =
            self.change_knowing(shard, now, out, started, |t| t.complete_workflow_task(&token, r))?;
        // A map comes in any order; what is decided is to be the same each time.
        let mut answers: Vec<_> = r.query_results.iter().collect();
        answers.sort_unstable_by_key(|(id, _)| *id);
        for (id, result) in answers {
            let Some(query) = query_of(id).and_then(|id| self.queries.open.remove(&id)) else {
                continue;
            };
            let reply = match result.result_type() {
                QueryResultType::Answered => {
                    Ok(Reply::QueryWorkflow(Box::new(api::QueryWorkflowResponse {
                        query_result: result.answer.clone(),
                        ..Default::default()
                    })))
                }
                _ => Err(Error::QueryFailed {
                    message: result.error_message.clone(),
                    failure: result.failure.clone().map(Box::new),
                }),
            };
            out.effects.push(Effect::Reply(query.call, reply));
        }
        self.queries.shift(Place::Attached, Place::Buffered);
        if self.state.info.workflow_task.is_none() {
            // Nothing is on its way that a query would have to wait for.
            for id in self.queries.at(Place::Buffered) {
                self.offer_query(shard, now, id, out);
            }
        }
        done.reply?;
        let mut response = api::RespondWorkflowTaskCompletedResponse {
            reset_history_event_id: done.reset_history_event_id,
            ..Default::default()
        };
        for id in done.eager {
            response.activity_tasks.push(self.eager_activity(shard, id, out)?);
        }
        // A history that this very change brought over its limit has ended the run.
        if done.started_next && self.state.started_workflow_task().is_some() {
            let mut task = self.workflow_task(shard, true, out)?;
            task.workflow_execution_task_queue =
                Some(convert::normal_queue(&self.state.info.task_queue));
            response.workflow_task = Some(task);
        }
        Ok(Some(Reply::RespondWorkflowTaskCompleted(Box::new(response))))
    }

    /// The workflow task that was just started, as the worker is to get it. A worker with
    /// the run in its cache gets what is new to it, others all.
    pub(crate) fn workflow_task(
        &mut self,
        shard: &Shard,
        is_sticky: bool,
        out: &Outcome,
    ) -> Result<api::PollWorkflowTaskQueueResponse> {
        let info = &self.state.info;
        let task = self
            .state
            .started_workflow_task()
            .ok_or_else(|| Error::internal("no workflow task was started"))?;
        let token = TaskToken {
            namespace: info.namespace,
            workflow_id: info.workflow_id.clone(),
            run_id: info.run_id,
            task: TaskRef::Workflow {
                scheduled_event_id: task.scheduled_event_id,
                stamp: task.stamp,
            },
            attempt: task.attempt,
            started_event_id: task.started_event_id,
        };
        let from = if is_sticky { info.previous_started_event_id + 1 } else { 1 };
        let (history, next_page_token) = self.task_history(shard, from, out)?;
        let queries: HashMap<String, WorkflowQuery> = self
            .queries
            .open
            .iter()
            .filter(|(_, q)| q.place == Place::Buffered)
            .map(|(id, q)| (query_key(*id), q.query.clone()))
            .collect();
        let response = api::PollWorkflowTaskQueueResponse {
            task_token: token.to_bytes(),
            workflow_execution: Some(self.execution()),
            workflow_type: Some(everspan_proto::common::WorkflowType {
                name: info.workflow_type.clone(),
            }),
            previous_started_event_id: info.previous_started_event_id,
            started_event_id: task.started_event_id,
            attempt: task.attempt,
            history: Some(history),
            next_page_token,
            workflow_execution_task_queue: Some(convert::normal_queue(&info.task_queue)),
            scheduled_time: Some(task.scheduled_time.to_proto()),
            started_time: task.started_time.map(Time::to_proto),
            queries,
            messages: self.state.registry.messages(task.started_event_id),
            ..Default::default()
        };
        self.queries.shift(Place::Buffered, Place::Attached);
        Ok(response)
    }

    /// A first page of history from `from`, rows of this very change included, and where
    /// the rest is.
    fn task_history(&self, shard: &Shard, from: i64, out: &Outcome) -> Result<(History, Bytes)> {
        let to = self.state.info.next_event_id;
        let limit = shard.limits.history_page_default;
        let mut events = shard.events_with(&out.batch, self.id(), from..to, limit)?;
        let reached = events.last().map_or(from, |e| e.event_id + 1);
        if reached < to {
            let token = Token { run_id: self.id(), from: reached, to, is_running: true };
            return Ok((History { events }, token.to_bytes()));
        }
        events.extend(execution::transient_events(&self.state, true));
        Ok((History { events }, Bytes::new()))
    }

    pub(crate) fn query(
        &mut self,
        shard: &mut Shard,
        now: Time,
        id: CallId,
        r: &api::QueryWorkflowRequest,
        deadline: Time,
        out: &mut Outcome,
    ) -> Result<Option<Reply>> {
        let info = &self.state.info;
        let is_running = self.state.is_running();
        let is_rejected = match r.query_reject_condition() {
            QueryRejectCondition::NotOpen => !is_running,
            QueryRejectCondition::NotCompletedCleanly => {
                !is_running && info.status != Status::Completed as i32
            }
            _ => false,
        };
        if is_rejected {
            return Ok(Some(Reply::QueryWorkflow(Box::new(api::QueryWorkflowResponse {
                query_rejected: Some(QueryRejected { status: info.status }),
                ..Default::default()
            }))));
        }
        if self.state.is_paused() {
            // As the real server does, whatever the condition says.
            return Ok(Some(Reply::QueryWorkflow(Box::new(api::QueryWorkflowResponse {
                query_rejected: Some(QueryRejected { status: Status::Paused as i32 }),
                ..Default::default()
            }))));
        }
        let has_completed_task = info.previous_started_event_id > 0;
        if !is_running && !has_completed_task {
            return Err(Error::WorkflowNotReady(
                "Workflow execution closed before WorkflowTaskStarted event".into(),
            ));
        }
        if !has_completed_task && info.first_task_at.is_some_and(|at| deadline < at) {
            return Err(Error::WorkflowNotReady("Workflow task is not scheduled yet.".into()));
        }
        if info.workflow_task_attempt >= QUERY_ATTEMPT_MAX {
            return Err(Error::WorkflowNotReady(
                "Unable to query workflow due to Workflow Task in failed state.".into(),
            ));
        }
        if self.queries.open.len() >= QUERIES_MAX {
            return Err(Error::ResourceExhausted {
                cause: everspan_proto::enums::ResourceExhaustedCause::BusyWorkflow,
                scope: everspan_proto::enums::ResourceExhaustedScope::Namespace,
                message: "consistent query buffer is full, cannot accept new consistent queries"
                    .into(),
            });
        }
        let query = r.query.clone().unwrap_or_default();
        let is_quiet = !is_running || info.workflow_task.is_none();
        let query_id = self.queries.add(now, id, query, Place::Buffered);
        if has_completed_task && is_quiet {
            self.offer_query(shard, now, query_id, out);
        }
        Ok(None)
    }

    /// Offers a query alone, on the sticky queue while there is one.
    fn offer_query(&mut self, shard: &Shard, now: Time, query_id: u64, out: &mut Outcome) {
        let info = &self.state.info;
        let sticky = info.sticky.clone().filter(|_| self.state.is_running());
        let sticky_until = sticky.as_ref().map(|s| now + s.schedule_to_start);
        let queue = sticky.map_or_else(|| info.task_queue.clone(), |s| s.queue);
        self.push_query_offer(shard, query_id, queue, sticky_until, out);
    }

    pub(crate) fn offer_query_normally(&mut self, shard: &Shard, query_id: u64, out: &mut Outcome) {
        let is_waiting = self
            .queries
            .open
            .get(&query_id)
            .is_some_and(|q| matches!(q.place, Place::Direct { sticky_until: Some(_) }));
        if is_waiting {
            let queue = self.state.info.task_queue.clone();
            self.push_query_offer(shard, query_id, queue, None, out);
        }
    }

    fn push_query_offer(
        &mut self,
        shard: &Shard,
        query_id: u64,
        queue: String,
        sticky_until: Option<Time>,
        out: &mut Outcome,
    ) {
        if let Some(query) = self.queries.open.get_mut(&query_id) {
            query.place = Place::Direct { sticky_until };
        }
        let info = &self.state.info;
        out.effects.push(Effect::Offer(Offer {
            queue: QueueKey { namespace: info.namespace, kind: TaskKind::Workflow, name: queue },
            shard: shard.id,
            workflow_id: info.workflow_id.clone(),
            run_id: info.run_id,
            task: TaskRef::Query { query_id },
            sequence: 0,
            priority: Priority::of(None, info.priority.as_ref()),
            sticky: sticky_until.is_some(),
        }));
    }

    /// Offers again what no row tells a broker of: queries, and a task for updates alone. What a
    /// broker knew of them went with its node.
    pub(crate) fn offer_soft(&mut self, shard: &Shard) -> Outcome {
        let mut out = Outcome::default();
        for (id, place) in
            self.queries.open.iter().map(|(id, q)| (*id, q.place)).collect::<Vec<_>>()
        {
            if let Place::Direct { sticky_until } = place {
                let info = &self.state.info;
                let sticky = info.sticky.as_ref().filter(|_| sticky_until.is_some());
                let queue = sticky.map_or_else(|| info.task_queue.clone(), |s| s.queue.clone());
                self.push_query_offer(shard, id, queue, sticky_until, &mut out);
            }
        }
        if let Some(task) = execution::soft_task(&self.state) {
            let offer = Offer { sequence: 0, ..self.offer(shard, &task) };
            out.effects.push(Effect::Offer(offer));
        }
        out
    }

    /// Moves queries that waited too long on the sticky queue to the normal one.
    pub(crate) fn expire_sticky_queries(&mut self, shard: &Shard, now: Time, out: &mut Outcome) {
        let is_due = |place| matches!(place, Place::Direct { sticky_until: Some(at) } if at <= now);
        let due: Vec<u64> =
            self.queries.open.iter().filter(|(_, q)| is_due(q.place)).map(|(id, _)| *id).collect();
        for id in due {
            self.offer_query_normally(shard, id, out);
        }
    }

    /// Hands a query to a worker.
    pub(crate) fn take_query(
        &mut self,
        shard: &Shard,
        query_id: u64,
        poller: &Poller,
    ) -> Result<StartedTask> {
        let stale = || Error::not_found("query task not found, or already expired");
        let query = self.queries.open.get(&query_id).ok_or_else(stale)?;
        let Place::Direct { sticky_until } = query.place else { return Err(stale()) };
        let query = query.query.clone();
        let info = &self.state.info;
        let token = QueryToken {
            namespace: info.namespace,
            workflow_id: info.workflow_id.clone(),
            run_id: info.run_id,
            query_id,
        };
        let is_sticky =
            sticky_until.is_some() && info.sticky.as_ref().is_some_and(|s| s.queue == poller.queue);
        let (history, next_page_token) = if is_sticky {
            (History::default(), Bytes::new())
        } else {
            let limit = shard.limits.history_page_default;
            let to = info.next_event_id;
            let events = shard.events(info.run_id, 1..to, limit)?;
            let reached = events.last().map_or(1, |e| e.event_id + 1);
            let token = Token { run_id: info.run_id, from: reached, to, is_running: false };
            let next = if reached < to { token.to_bytes() } else { Bytes::new() };
            (History { events }, next)
        };
        let response = api::PollWorkflowTaskQueueResponse {
            task_token: token.to_bytes(),
            workflow_execution: Some(self.execution()),
            workflow_type: Some(everspan_proto::common::WorkflowType {
                name: info.workflow_type.clone(),
            }),
            previous_started_event_id: info.previous_started_event_id,
            started_event_id: 0,
            attempt: 1,
            history: Some(history),
            next_page_token,
            query: Some(query),
            workflow_execution_task_queue: Some(convert::normal_queue(&info.task_queue)),
            ..Default::default()
        };
        if let Some(query) = self.queries.open.get_mut(&query_id) {
            query.place = Place::Taken;
        }
        Ok(StartedTask::Workflow(Box::new(response)))
    }

    /// Takes a worker's answer to a query that went alone.
    pub(crate) fn answer_query(
        &mut self,
        r: &api::RespondQueryTaskCompletedRequest,
        out: &mut Outcome,
    ) -> Result<Reply> {
        let token = QueryToken::from_bytes(&r.task_token)?;
        let query = self
            .queries
            .open
            .remove(&token.query_id)
            .ok_or_else(|| Error::not_found("query task not found, or already expired"))?;
        let answer = match r.completed_type() {
            QueryResultType::Answered => {
                Ok(Reply::QueryWorkflow(Box::new(api::QueryWorkflowResponse {
                    query_result: r.query_result.clone(),
                    ..Default::default()
                })))
            }
            _ => Err(Error::QueryFailed {
                message: r.error_message.clone(),
                failure: r.failure.clone().map(Box::new),
            }),
        };
        out.effects.push(Effect::Reply(query.call, answer));
        Ok(Reply::RespondQueryTaskCompleted(Box::default()))
    }
}

/// A query's key in a workflow task: a UUID, as the real server's.
fn query_key(id: u64) -> String {
    // The version and variant of a random UUID, around the ID.
    Uuid::from_u64_pair((id & !0xf000) | 0x4000, (id & (u64::MAX >> 2)) | (1 << 63)).to_string()
}

/// The query of such a key.
fn query_of(key: &str) -> Option<u64> {
    let (high, low) = key.parse::<Uuid>().ok()?.as_u64_pair();
    // What the version took from the one half is in the other.
    let id = (high & !0xf000) | (low & 0xf000);
    (query_key(id) == key).then_some(id)
}
