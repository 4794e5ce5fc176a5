//! Simulated workers: loops that poll, and what they make of tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use everspan_execution::convert::proto_duration;
use everspan_proto::{
    command::Command,
    enums::{QueryResultType, WorkflowTaskFailedCause},
    query::WorkflowQueryResult,
    taskqueue::StickyExecutionAttributes,
    workflowservice as api,
};
use everspan_shard::call::{Call, Reply, Request};
use everspan_types::{QueryToken, StartedTask, TaskKind, TaskToken};

use crate::{
    commands::{self, Draft, View, complete, failure},
    payload,
    record::{Issuer, Record, uncertain},
    sched::{Event, PollId, Sched},
    setup::Setup,
    updates, worker_calls as calls,
    workload::{CallKind, QUEUE, queue},
    world::new_op,
};

/// A loop of a worker that polls one queue.
#[derive(Debug)]
pub(crate) struct Poller {
    pub(crate) worker: usize,
    pub(crate) kind: TaskKind,
    pub(crate) is_sticky: bool,
    /// Its latest poll.
    pub(crate) number: u64,
}

/// A worker's process.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    /// Counts its incarnations.
    pub(crate) life: u64,
    pub(crate) is_sticky: bool,
    /// What it has in its cache, by run.
    views: BTreeMap<String, View>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    pub(crate) workers: Vec<Worker>,
    pub(crate) pollers: Vec<Poller>,
    /// Tokens of activities that were told to stop.
    pub(crate) told_to_stop: BTreeSet<Vec<u8>>,
    beats: u64,
}

impl Workers {
    pub(crate) fn new(setup: &Setup, sched: &mut Sched) -> Self {
        let mut all = Self::default();
        for worker in 0..setup.workers {
            let is_sticky = sched.rng.chance(60);
            all.workers.push(Worker { is_sticky, ..Worker::default() });
            let loops = [
                (TaskKind::Workflow, false),
                (TaskKind::Workflow, true),
                (TaskKind::Activity, false),
            ];
            for (kind, is_sticky_loop) in loops {
                if is_sticky_loop && !is_sticky {
                    continue;
                }
                all.pollers.push(Poller { worker, kind, is_sticky: is_sticky_loop, number: 1 });
                let id = PollId { poller: all.pollers.len() - 1, number: 1 };
                let wait = sched.rng.millis(0, 500);
                sched.after(wait, Event::Poll(id));
            }
        }
        all
    }

    pub(crate) fn identity(&self, worker: usize) -> String {
        format!("worker{worker}.{}", self.workers[worker].life)
    }

    /// The queue that a loop polls.
    pub(crate) fn queue_of(&self, poller: &Poller) -> String {
        if poller.is_sticky { self.sticky_queue(poller.worker) } else { QUEUE.to_owned() }
    }

    fn sticky_queue(&self, worker: usize) -> String {
        format!("sticky-{}", self.identity(worker))
    }

    /// A worker's process is replaced by a new one, which knows nothing.
    pub(crate) fn restart(&mut self, worker: usize) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.life += 1;
            worker.views.clear();
        }
    }
}

/// What a worker may use of the world.
pub(crate) struct Desk<'a> {
    pub(crate) sched: &'a mut Sched,
    pub(crate) record: &'a mut Record,
    pub(crate) setup: &'a Setup,
    /// Faults have stopped: whatever can be brought to an end is.
    pub(crate) is_calm: bool,
}

impl Desk<'_> {
    /// Whether the worker drops what it has.
    fn is_lazy(&mut self) -> bool {
        !self.is_calm && self.sched.rng.chance(self.setup.laziness)
    }

    fn think(&mut self) -> Duration {
        if self.is_calm {
            self.sched.rng.millis(1, 50)
        } else if self.sched.rng.chance(10) {
            self.sched.rng.millis(1_000, 15_000)
        } else {
            self.sched.rng.millis(1, 800)
        }
    }

    fn respond(
        &mut self,
        by: Issuer,
        kind: &'static CallKind,
        workflow_id: &str,
        wait: Duration,
        make: impl FnOnce(&str) -> Call,
    ) {
        let op = new_op(self.record, kind, by, workflow_id, Duration::from_secs(5), 4, make);
        self.sched.after(wait, Event::Send(op));
    }
}

impl Workers {
    /// A worker gets a task.
    pub(crate) fn take(&mut self, desk: &mut Desk<'_>, worker: usize, task: StartedTask) {
        match task {
            StartedTask::Workflow(task) if task.query.is_some() => {
                self.take_query(desk, worker, &task);
            }
            StartedTask::Workflow(task) => self.take_workflow_task(desk, worker, &task),
            StartedTask::Activity(task) => self.take_activity(desk, worker, &task),
        }
    }

    fn by(&self, worker: usize) -> Issuer {
        Issuer::Worker(worker, self.workers[worker].life)
    }

    fn take_query(
        &self,
        desk: &mut Desk<'_>,
        worker: usize,
        task: &api::PollWorkflowTaskQueueResponse,
    ) {
        if desk.is_lazy() {
            return;
        }
        let wait = desk.think();
        let execution = task.workflow_execution.clone().unwrap_or_default();
        let args = task.query.as_ref().and_then(|q| q.query_args.clone());
        let task_token = task.task_token.clone();
        debug_assert!(QueryToken::from_bytes(&task_token).is_ok());
        let id = execution.workflow_id;
        desk.respond(self.by(worker), &calls::ANSWER_QUERY, &id, wait, |_| {
            Call::RespondQueryTaskCompleted(Box::new(api::RespondQueryTaskCompletedRequest {
                task_token,
                completed_type: QueryResultType::Answered as i32,
                query_result: args,
                ..Default::default()
            }))
        });
    }

    pub(crate) fn take_workflow_task(
        &mut self,
        desk: &mut Desk<'_>,
        worker: usize,
        task: &api::PollWorkflowTaskQueueResponse,
    ) {
        let execution = task.workflow_execution.clone().unwrap_or_default();
        let events = task.history.as_ref().map_or(&[][..], |h| &h.events);
        let by = self.by(worker);
        let sticky_queue = self.sticky_queue(worker);
        let state = &mut self.workers[worker];
        let is_cached = state.is_sticky;
        let mut view = state.views.remove(&execution.run_id).unwrap_or_default();
        if events.first().is_some_and(|e| e.event_id == 1) {
            view = View::default();
        }
        // What a transient task shows is not history yet.
        let is_shown_early = task.attempt > 1 || uncertain(task) > 0;
        let known = if is_shown_early { events.len().saturating_sub(2) } else { events.len() };
        let is_whole = view.extend(&events[..known]) && view.last_event > 0;
        view.shown_up_to = events.last().map_or(0, |e| e.event_id);
        view.started = task.started_event_id;
        if desk.is_lazy() {
            return;
        }
        let wait = desk.think();
        let task_token = task.task_token.clone();
        if !is_whole || (!desk.is_calm && desk.sched.rng.chance(4)) {
            // It cannot go on from here; what the next attempt shows begins at the beginning.
            return desk.respond(by, &calls::FAIL_TASK, &execution.workflow_id, wait, |name| {
                Call::RespondWorkflowTaskFailed(Box::new(api::RespondWorkflowTaskFailedRequest {
                    task_token,
                    cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure as i32,
                    failure: failure("lost its place", false),
                    identity: name.to_owned(),
                    ..Default::default()
                }))
            });
        }
        let is_paged = !task.next_page_token.is_empty();
        let query_results = answers(task);
        let force = !desk.is_calm && desk.sched.rng.chance(8);
        let inline = desk.sched.rng.chance(50);
        let stays = is_cached && !is_paged && (desk.is_calm || desk.sched.rng.chance(80));
        let wait_sticky = Duration::from_millis(desk.sched.rng.between(200, 5_000));
        let calm = desk.is_calm;
        let mut rng = desk.sched.rng.clone();
        let decided = &view;
        let updates = updates::decide(&mut rng, task, decided, calm);
        desk.respond(by, &calls::COMPLETE_TASK, &execution.workflow_id, wait, |name| {
            let mut commands = updates.commands;
            let more: Vec<Command> = if !calm {
                commands::draw(&mut rng, decided, name)
            } else if (decided.is_quiet() && updates.open == 0) || is_paged {
                // Of a history that comes in pages it knows the first one only.
                let draft = &mut Draft { rng: &mut rng, view: decided, name: name.to_owned() };
                complete(draft).into_iter().collect()
            } else {
                Vec::new()
            };
            commands.extend(more);
            Call::RespondWorkflowTaskCompleted(Box::new(api::RespondWorkflowTaskCompletedRequest {
                task_token,
                commands,
                messages: updates.messages,
                identity: name.to_owned(),
                sticky_attributes: stays.then(|| StickyExecutionAttributes {
                    worker_task_queue: queue(&sticky_queue),
                    schedule_to_start_timeout: Some(proto_duration(wait_sticky)),
                }),
                return_new_workflow_task: inline,
                force_create_new_workflow_task: force,
                query_results,
                ..Default::default()
            }))
        });
        desk.sched.rng = rng;
        if stays {
            self.workers[worker].views.insert(execution.run_id, view);
        }
    }

    fn take_activity(
        &mut self,
        desk: &mut Desk<'_>,
        worker: usize,
        task: &api::PollActivityTaskQueueResponse,
    ) {
        let by = self.by(worker);
        let id = task.workflow_execution.clone().unwrap_or_default().workflow_id;
        let token = &task.task_token;
        let mut wait = desk.think();
        if desk.is_lazy() {
            return;
        }
        while desk.sched.rng.chance(if desk.is_calm { 10 } else { 35 }) {
            self.beats += 1;
            let (task_token, details) = (token.clone(), payload::text(&self.beats.to_string()));
            desk.respond(by, &calls::HEARTBEAT, &id, wait, |name| {
                Call::RecordActivityTaskHeartbeat(Box::new(
                    api::RecordActivityTaskHeartbeatRequest {
                        task_token,
                        details,
                        identity: name.to_owned(),
                        ..Default::default()
                    },
                ))
            });
            wait += desk.sched.rng.millis(500, 3_000);
        }
        if desk.is_lazy() {
            return;
        }
        let task_token = token.clone();
        let fails = !desk.is_calm && desk.sched.rng.chance(30);
        if fails {
            let is_final = desk.sched.rng.chance(25);
            return desk.respond(by, &calls::FAIL_ACTIVITY, &id, wait, |name| {
                Call::RespondActivityTaskFailed(Box::new(api::RespondActivityTaskFailedRequest {
                    task_token,
                    failure: failure(name, is_final),
                    identity: name.to_owned(),
                    ..Default::default()
                }))
            });
        }
        if desk.sched.rng.chance(8)
            && let Ok(run) = TaskToken::from_bytes(token).map(|t| t.run_id)
        {
            let activity_id = task.activity_id.clone();
            return desk.respond(by, &calls::COMPLETE_ACTIVITY_BY_ID, &id, wait, |name| {
                Call::RespondActivityTaskCompletedById(Box::new(
                    api::RespondActivityTaskCompletedByIdRequest {
                        workflow_id: id.clone(),
                        run_id: run.to_string(),
                        activity_id,
                        result: payload::text(name),
                        identity: name.to_owned(),
                        ..Default::default()
                    },
                ))
            });
        }
        desk.respond(by, &calls::COMPLETE_ACTIVITY, &id, wait, |name| {
            Call::RespondActivityTaskCompleted(Box::new(api::RespondActivityTaskCompletedRequest {
                task_token,
                result: payload::text(name),
                identity: name.to_owned(),
                ..Default::default()
            }))
        });
    }

    /// A worker gets an answer to a call that it made.
    pub(crate) fn answered(
        &mut self,
        desk: &mut Desk<'_>,
        worker: usize,
        call: &Call,
        reply: &Reply,
    ) {
        match (call, reply) {
            (Call::RecordActivityTaskHeartbeat(r), Reply::RecordActivityTaskHeartbeat(reply))
                if reply.cancel_requested =>
            {
                self.told_to_stop.insert(r.task_token.to_vec());
            }
            (_, Reply::RespondWorkflowTaskCompleted(reply)) => {
                if let Some(task) = &reply.workflow_task {
                    self.take_workflow_task(desk, worker, task);
                }
            }
            _ => {}
        }
    }

    /// What is about to be sent, unless the activity was told to stop meanwhile.
    pub(crate) fn reconsider(
        &self,
        name: &str,
        request: &mut Request,
    ) -> Option<&'static CallKind> {
        let Call::RespondActivityTaskCompleted(r) = &request.call else { return None };
        if !self.told_to_stop.contains(&r.task_token.to_vec()) {
            return None;
        }
        request.call =
            Call::RespondActivityTaskCanceled(Box::new(api::RespondActivityTaskCanceledRequest {
                task_token: r.task_token.clone(),
                identity: name.to_owned(),
                ..Default::default()
            }));
        Some(&calls::CANCEL_ACTIVITY)
    }
}

/// Answers to the queries that ride on a task.
fn answers(
    task: &api::PollWorkflowTaskQueueResponse,
) -> std::collections::HashMap<String, WorkflowQueryResult> {
    let answer = |args| WorkflowQueryResult {
        result_type: QueryResultType::Answered as i32,
        answer: args,
        ..Default::default()
    };
    task.queries.iter().map(|(id, q)| (id.clone(), answer(q.query_args.clone()))).collect()
}
