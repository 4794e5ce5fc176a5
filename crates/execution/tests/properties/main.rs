//! Random lives of a run. After every step: history folds back to the state, rows read back
//! to the state, offers match what the state says is waiting, and a refused input changed
//! nothing.

#![allow(clippy::unwrap_used, missing_docs)]

mod commands;
mod operations;
mod steps;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use commands::messages;
use everspan_execution::{
    ActivityRef, Ctx, Start, State, TaskChange, Transition, Turn,
    convert::proto_duration,
    fold,
    message::{Body, Message},
    next_deadline, start,
    state::{Parent, Root},
};
use everspan_proto::{
    common::{RetryPolicy, WorkflowType},
    enums::WorkflowTaskFailedCause,
    failure::{ApplicationFailureInfo, Failure, failure::FailureInfo},
    history::HistoryEvent,
    taskqueue::{StickyExecutionAttributes, TaskQueue},
    workflowservice as api,
};
use everspan_types::{
    Limits, NamespaceId, Poller, Result, RunId, TaskKind, TaskRef, TaskToken, Time,
};
use proptest::prelude::*;
use steps::{Ask, Step, step};

/// A run with everything that a store would hold of it.
struct Model {
    now: Time,
    limits: Limits,
    state: State,
    history: Vec<HistoryEvent>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    offers: Vec<(TaskKind, TaskRef, String)>,
    token: Option<TaskToken>,
    activity_tokens: BTreeMap<i64, TaskToken>,
    /// Messages that were sent and not answered.
    messages: Vec<Message>,
}

impl Model {
    fn new() -> Self {
        let limits = Limits {
            buffered_events_max: 5,
            updates_in_flight_max: 4,
            updates_max: 6,
            ..Limits::default()
        };
        let now = Time::from_millis(1_700_000_000_000);
        let request = api::StartWorkflowExecutionRequest {
            workflow_id: "w".into(),
            request_id: "r".into(),
            task_queue: Some(TaskQueue { name: "q".into(), ..TaskQueue::default() }),
            workflow_run_timeout: Some(proto_duration(Duration::from_secs(300))),
            retry_policy: Some(RetryPolicy { maximum_attempts: 2, ..RetryPolicy::default() }),
            workflow_type: Some(WorkflowType { name: "w".into() }),
            ..Default::default()
        };
        let begin = Start {
            namespace: NamespaceId(uuid::Uuid::nil()),
            run_id: RunId(uuid::Uuid::from_u128(1)),
            request: &request,
            signal: None,
            parent: Some((
                Parent {
                    namespace: NamespaceId(uuid::Uuid::nil()),
                    namespace_name: "n".into(),
                    workflow_id: "parent".into(),
                    run_id: RunId(uuid::Uuid::from_u128(2)),
                    initiated_event_id: 5,
                },
                Root { workflow_id: "root".into(), run_id: "r".into() },
            )),
            chain: None,
        };
        let (state, t) =
            start(Ctx { now, limits: &limits, retention: Duration::ZERO }, begin).unwrap();
        let mut model = Self {
            now,
            limits,
            state,
            history: Vec::new(),
            rows: BTreeMap::new(),
            offers: Vec::new(),
            token: None,
            activity_tokens: BTreeMap::new(),
            messages: Vec::new(),
        };
        model.keep(t);
        model
    }

    fn turn<T>(&mut self, decide: impl FnOnce(&mut Turn<'_>) -> Result<T>) -> Option<T> {
        let before = self.state.clone();
        let limits = self.limits.clone();
        let started = self.history.first().cloned().map(Arc::new);
        let ctx = Ctx { now: self.now, limits: &limits, retention: Duration::ZERO };
        let mut turn = Turn::new(&mut self.state, ctx).knowing(started);
        match decide(&mut turn) {
            Ok(value) => {
                let t = turn.finish();
                self.keep(t);
                Some(value)
            }
            Err(_) => {
                drop(turn);
                assert_eq!(before, self.state, "a refused input changed the state");
                None
            }
        }
    }

    fn keep(&mut self, mut t: Transition) {
        let next = t.next.take();
        if t.closed {
            let told = t.messages.iter().any(|m| matches!(m.body, Body::ChildClosed { .. }));
            assert_eq!(told, next.is_none(), "the parent hears of the last run's close");
        }
        self.messages.append(&mut t.messages);
        for event in &t.events {
            let expected = self.history.last().map_or(1, |e| e.event_id + 1);
            assert_eq!(event.event_id, expected, "event IDs have no gaps");
            self.history.push(event.clone());
        }
        for change in t.tasks {
            let key = |p: &everspan_execution::PendingTask| {
                (p.kind, p.task.clone(), format!("{}/{}", p.queue, p.sequence))
            };
            match change {
                TaskChange::Keep(task) => assert!(self.offers.contains(&key(&task))),
                TaskChange::Add(task) => self.offers.push(key(&task)),
                TaskChange::Remove(task) => {
                    let key = key(&task);
                    let at = self.offers.iter().position(|o| *o == key);
                    self.offers.remove(at.expect("only an offer that stands is withdrawn"));
                }
            }
        }
        if t.is_soft {
            assert!(t.events.is_empty() && !t.closed);
            return self.check();
        }
        for (key, value) in self.state.take_changed_rows() {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
        self.check();
        if let Some(next) = next {
            assert_eq!(self.state.info.new_run_id, next.state.info.run_id.to_string());
            assert_eq!(self.state.info.first_run_id, next.state.info.first_run_id);
            let (now, limits) = (self.now, self.limits.clone());
            *self = Self {
                now,
                limits,
                state: next.state,
                history: Vec::new(),
                rows: BTreeMap::new(),
                offers: Vec::new(),
                token: None,
                activity_tokens: BTreeMap::new(),
                messages: Vec::new(),
            };
            self.keep(next.transition);
        }
    }

    fn check(&self) {
        let held = self.state.buffered.values().map(|b| &b.0);
        let folded = fold::replay(&self.history, held);
        assert_eq!(fold::durable(&folded), fold::durable(&self.state), "history == state");
        let read =
            State::from_rows(self.rows.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))).unwrap();
        let mut stored = self.state.stored();
        // What a soft change may have left there.
        stored.info.workflow_task_stamp = read.info.workflow_task_stamp;
        stored.info.sticky.clone_from(&read.info.sticky);
        assert_eq!(read, stored, "rows == state");
        if !self.state.is_running() {
            assert!(self.state.registry.is_idle(), "a closed run has no updates in flight");
        } else if !self.state.registry.is_idle() && !self.state.is_paused() {
            let task = self.state.info.workflow_task.is_some();
            assert!(task, "an update on its way has a workflow task to travel on");
        }
        let accepted = self.state.updates.values().filter(|u| u.completed_event_id == 0).count();
        assert!(self.state.registry.len() + accepted <= self.limits.updates_in_flight_max);
        let mut expected = Vec::new();
        if self.state.is_running() {
            if let Some(t) = self.state.info.workflow_task.as_ref().filter(|t| !t.is_started()) {
                let (scheduled_event_id, stamp) = (t.scheduled_event_id, t.stamp);
                let task = TaskRef::Workflow { scheduled_event_id, stamp };
                let place = format!("{}/{}", t.queue, t.scheduled_time.as_nanos());
                expected.push((TaskKind::Workflow, task, place));
            }
            for a in self.state.activities.values().filter(|a| a.is_offered()) {
                let (scheduled_event_id, stamp) = (a.scheduled_event_id, a.stamp);
                let task = TaskRef::Activity { scheduled_event_id, stamp };
                let place = format!("{}/{}", a.task_queue, a.attempt_scheduled_time.as_nanos());
                expected.push((TaskKind::Activity, task, place));
            }
            let progress =
                self.state.info.workflow_task.is_some() || self.state.buffered.is_empty();
            if self.state.is_paused() {
                let task = self.state.info.workflow_task.as_ref();
                assert!(task.is_none_or(|t| t.is_started()), "a paused run offers no task");
            }
            assert!(progress, "held-back events have a workflow task to wait for");
        }
        let sort = |mut v: Vec<(TaskKind, TaskRef, String)>| {
            v.sort_by_key(|o| format!("{o:?}"));
            v
        };
        assert_eq!(sort(self.offers.clone()), sort(expected), "offers == what waits");
    }

    fn nth_activity(&self, n: u8) -> Option<i64> {
        self.state.activities.iter().map(|(id, _)| *id).nth(usize::from(n))
    }

    fn activity_token(&self, n: u8) -> Option<TaskToken> {
        self.activity_tokens.values().nth(usize::from(n)).cloned()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Signal(n) => {
                let r = api::SignalWorkflowExecutionRequest {
                    signal_name: "s".into(),
                    request_id: if n < 2 { format!("same-{n}") } else { String::new() },
                    ..Default::default()
                };
                self.turn(|t| t.signal((&r).into()));
            }
            Step::Update(n) => {
                let r = everspan_proto::update::Request {
                    meta: Some(everspan_proto::update::Meta {
                        update_id: format!("u{n}"),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                if self.turn(|t| t.admit_update(&r)).is_some() {
                    assert!(self.state.update_status(&format!("u{n}")).is_some());
                }
            }
            Step::Crash => {
                let rows = self.rows.iter().map(|(k, v)| (k.as_slice(), v.as_slice()));
                self.state = State::from_rows(rows).unwrap();
                // What was offered from memory is stale.
                self.offers.retain(|(kind, ..)| *kind == TaskKind::Activity);
                let waiting = self.state.info.workflow_task.as_ref().filter(|t| !t.is_started());
                if let Some(t) = waiting.filter(|_| self.state.is_running()) {
                    let (scheduled_event_id, stamp) = (t.scheduled_event_id, t.stamp);
                    let task = TaskRef::Workflow { scheduled_event_id, stamp };
                    let place = format!("{}/{}", t.queue, t.scheduled_time.as_nanos());
                    self.offers.push((TaskKind::Workflow, task, place));
                }
                self.check();
            }
            Step::Cancel => {
                self.turn(|t| t.request_cancel(&Default::default()));
            }
            Step::StartTask => {
                let Some(stamp) = self.state.info.workflow_task.as_ref().map(|t| t.stamp) else {
                    return;
                };
                let poller = Poller { identity: "worker".into(), ..Poller::default() };
                if self.turn(|t| t.start_workflow_task(stamp, &poller)).is_some() {
                    self.token = self.current_token();
                }
            }
            Step::StaleTask => {
                let poller = Poller::default();
                self.turn(|t| t.start_workflow_task(u32::MAX, &poller));
            }
            Step::Complete { commands, sticky, force, inline } => {
                let Some(token) = self.token.clone() else { return };
                let messages = commands.iter().flat_map(messages).collect();
                let commands = commands
                    .into_iter()
                    .filter(|a| !matches!(a, Ask::Say(..)))
                    .map(|a| self.command(a))
                    .collect();
                let queue = TaskQueue { name: "sticky".into(), ..TaskQueue::default() };
                let r = api::RespondWorkflowTaskCompletedRequest {
                    commands,
                    messages,
                    force_create_new_workflow_task: force,
                    return_new_workflow_task: inline,
                    sticky_attributes: sticky.then(|| StickyExecutionAttributes {
                        worker_task_queue: Some(queue),
                        schedule_to_start_timeout: Some(proto_duration(Duration::from_secs(5))),
                    }),
                    ..Default::default()
                };
                if let Some(done) = self.turn(|t| t.complete_workflow_task(&token, &r)) {
                    self.token = self.current_token();
                    for id in done.eager {
                        let activity = self.state.activities.get(&id).unwrap();
                        assert!(activity.started.is_some(), "an eager activity is started");
                        self.keep_activity_token(id);
                    }
                }
            }
            Step::FailTask => {
                let Some(token) = self.token.take() else { return };
                let r = api::RespondWorkflowTaskFailedRequest {
                    cause: WorkflowTaskFailedCause::NonDeterministicError as i32,
                    ..Default::default()
                };
                self.turn(|t| t.respond_workflow_task_failed(&token, &r));
            }
            Step::StartActivity(n) => {
                let Some(id) = self.nth_activity(n) else { return };
                let Some(stamp) = self.state.activities.get(&id).map(|a| a.stamp) else { return };
                let poller = Poller { identity: "worker".into(), ..Poller::default() };
                if self.turn(|t| t.start_activity(id, stamp, &poller)).is_some() {
                    self.keep_activity_token(id);
                }
            }
            Step::CompleteActivity(n) => {
                let Some(token) = self.activity_token(n) else { return };
                let which = ActivityRef::Token(&token);
                self.turn(|t| t.complete_activity(which, None, "worker", None));
            }
            Step::FailActivity(n, is_final) => {
                let Some(token) = self.activity_token(n) else { return };
                let failure = Failure {
                    message: "no".into(),
                    failure_info: Some(FailureInfo::ApplicationFailureInfo(
                        ApplicationFailureInfo { non_retryable: is_final, ..Default::default() },
                    )),
                    ..Failure::default()
                };
                let which = ActivityRef::Token(&token);
                self.turn(|t| t.fail_activity(which, Some(failure), None, "worker", None));
            }
            Step::CancelActivity(n) => {
                let Some(token) = self.activity_token(n) else { return };
                self.turn(|t| t.cancel_activity(ActivityRef::Token(&token), None, "worker"));
            }
            Step::Heartbeat(n) => {
                let Some(token) = self.activity_token(n) else { return };
                self.turn(|t| t.heartbeat_activity(ActivityRef::Token(&token), None, "worker"));
            }
            Step::CompleteById(n) => {
                let id = format!("a{n}");
                self.turn(|t| t.complete_activity(ActivityRef::Id(&id), None, "cli", None));
            }
            Step::Pass(millis) => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.turn(|t| {
                    t.wake();
                    Ok(())
                });
                let next = next_deadline(&self.state);
                assert!(next.is_none_or(|at| at > self.now), "nothing due is left undone");
                let next = everspan_execution::speculative_deadline(&self.state);
                assert!(next.is_none_or(|at| at > self.now), "nothing due is left undone");
            }
            Step::LeaveSticky => {
                let stamp = self.state.info.workflow_task_stamp;
                self.turn(|t| {
                    t.leave_sticky_queue(stamp);
                    Ok(())
                });
            }
            Step::Answer(n, taken) => {
                if self.messages.is_empty() {
                    return;
                }
                let message = self.messages.remove(usize::from(n) % self.messages.len());
                let id = message.sender.initiated_event_id;
                let child = RunId(uuid::Uuid::from_u128(id.unsigned_abs().into()));
                self.turn(|t| {
                    match message.body {
                        Body::StartChild { .. } if taken => t.child_started(id, child, None),
                        Body::StartChild { .. } => t.child_not_started(id, 1),
                        Body::Signal { .. } => t.signal_answered(id, i32::from(!taken)),
                        Body::Cancel { .. } => t.cancel_answered(id, i32::from(!taken)),
                        Body::SignalAnswer { failed } => t.signal_answered(id, failed),
                        Body::CancelAnswer { failed } => t.cancel_answered(id, failed),
                        _ => {}
                    }
                    Ok(())
                });
            }
            Step::CloseChild(n) => {
                let Some((id, run)) = self
                    .state
                    .children
                    .values()
                    .filter(|c| !c.run_id.is_empty())
                    .nth(usize::from(n))
                    .map(|c| (c.initiated_event_id, c.run_id.parse().map(RunId).unwrap()))
                else {
                    return;
                };
                let event = HistoryEvent::default();
                self.turn(|t| {
                    t.child_closed(id, run, run, &event);
                    Ok(())
                });
            }
            Step::Terminate => {
                self.turn(|t| t.terminate(&Default::default()));
            }
            Step::Operate(operation) => self.operate(operation),
        }
    }

    fn keep_activity_token(&mut self, id: i64) {
        let activity = self.state.activities.get(&id).unwrap();
        let stamp = activity.started.as_ref().unwrap().stamp;
        let token = TaskToken {
            namespace: self.state.info.namespace,
            workflow_id: "w".into(),
            run_id: self.state.info.run_id,
            task: TaskRef::Activity { scheduled_event_id: id, stamp },
            attempt: activity.attempt,
            started_event_id: 0,
        };
        self.activity_tokens.insert(id, token);
    }

    fn current_token(&self) -> Option<TaskToken> {
        let task = self.state.started_workflow_task()?;
        Some(TaskToken {
            namespace: self.state.info.namespace,
            workflow_id: "w".into(),
            run_id: self.state.info.run_id,
            task: TaskRef::Workflow {
                scheduled_event_id: task.scheduled_event_id,
                stamp: task.stamp,
            },
            attempt: task.attempt,
            started_event_id: task.started_event_id,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_life_of_a_run_keeps_history_and_state_equal(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step);
        }
    }
}
