//! What clients and workers saw: the only thing, beside final histories, that the checker
//! believes. An answer counts from the moment at which it leaves the node, whether it arrives
//! or not, since that is what the server promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use everspan_proto::{
    enums::EventType,
    history::{HistoryEvent, history_event::Attributes},
    workflowservice as api,
};
use everspan_shard::call::{Call, Reply, Request};
use everspan_types::{Error, Result, StartedTask, TaskRef, TaskToken, Time};
use prost::Message;

use crate::{
    payload,
    sched::{Attempt, Event, PollId, Sched},
    workload::CallKind,
};

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Issuer {
    Client(usize),
    /// A worker's process, in this incarnation of it.
    Worker(usize, u64),
    /// Who ends what idles once faults have stopped.
    Closer,
}

/// An answer that left the node.
#[derive(Debug)]
pub(crate) struct Left {
    /// The node's clock.
    pub(crate) at: Time,
    pub(crate) result: Result<Box<Reply>>,
}

/// One call, with all its attempts.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) kind: &'static CallKind,
    /// Its number in the API's fields, so that it is found again in histories.
    pub(crate) name: String,
    pub(crate) issuer: Issuer,
    pub(crate) request: Request,
    pub(crate) wait: Duration,
    /// Attempts made so far.
    pub(crate) attempts: u32,
    pub(crate) attempts_max: u32,
    /// Whether the caller waits for the latest attempt.
    pub(crate) is_waiting: bool,
    /// True time of the first attempt.
    pub(crate) first_sent: Option<Time>,
    pub(crate) left: Vec<Left>,
}

impl Op {
    /// Answers that are no errors.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (Time, &Reply)> {
        self.left.iter().filter_map(|l| Some((l.at, l.result.as_deref().ok()?)))
    }
}

/// An event that left the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) hash: u64,
    /// The node's clock when it left first.
    pub(crate) node_time: Time,
}

/// A report of an activity's progress.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beats {
    /// The highest number that was acknowledged.
    acknowledged: u64,
    /// One was sent more than once, so that an earlier one may have come last.
    is_confused: bool,
}

/// An activity of a run, by its scheduled event.
pub(crate) type ActivityKey = (String, i64);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) ops: Vec<Op>,
    pub(crate) seen: BTreeMap<(String, i64), Seen>,
    /// Attempts of activities that left the node.
    pub(crate) attempts: BTreeSet<(ActivityKey, i32)>,
    beats: BTreeMap<ActivityKey, Beats>,
    tokens: BTreeSet<Vec<u8>>,
    /// Runs that clients know of, by workflow ID.
    pub(crate) known_runs: BTreeMap<String, Vec<String>>,
    /// Workflows whose activities clients may have reset: attempts count anew there.
    pub(crate) reset_activities: BTreeSet<String>,
    /// Workflows that clients may have reset: a first event there names another run.
    pub(crate) reset_runs: BTreeSet<String>,
    /// What must not be, found while it happened.
    pub(crate) violations: Vec<String>,
    /// Packets lost on the wire, of a hundred.
    pub(crate) loss: u32,
    /// The node's clock is ahead of true time by this; see [`Record::answer`].
    pub(crate) clock_ahead: Duration,
}

fn hash(event: &HistoryEvent) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

impl Record {
    pub(crate) fn new(loss: u32) -> Self {
        Self { loss, ..Self::default() }
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(crate) fn is_waiting(&self, attempt: Attempt) -> bool {
        self.ops.get(attempt.op).is_some_and(|o| o.is_waiting && o.attempts == attempt.number)
    }

    /// An answer leaves the node.
    pub(crate) fn answer(
        &mut self,
        sched: &mut Sched,
        attempt: Attempt,
        result: Result<Box<Reply>, Error>,
    ) {
        let node_time = sched.now + self.clock_ahead;
        let Some(op) = self.ops.get_mut(attempt.op) else { return };
        let (name, kind) = (op.name.clone(), op.kind.name);
        sched.log(|| match &result {
            Ok(_) => format!("{name} {kind} #{} done", attempt.number),
            Err(error) => format!("{name} {kind} #{} refused: {error}", attempt.number),
        });
        op.left.push(Left { at: node_time, result: result.clone() });
        if let Ok(reply) = &result {
            let workflow_id = op.request.workflow_id.clone();
            let mut named = String::new();
            match &op.request.call {
                Call::RecordActivityTaskHeartbeat(r) => {
                    let number = payload::number(r.details.as_ref());
                    if let Some(beats) = beats_of(&mut self.beats, &r.task_token) {
                        beats.acknowledged = beats.acknowledged.max(number);
                    }
                }
                Call::GetWorkflowExecutionHistory(r) => {
                    named = r.execution.clone().unwrap_or_default().run_id;
                }
                _ => {}
            }
            self.read_reply(node_time, &workflow_id, named, reply);
        }
        if !sched.rng.chance(self.loss) {
            let wait = sched.rng.micros(50, 20_000);
            sched.after(wait, Event::Answer(attempt, result));
        }
    }

    /// A report of progress may arrive twice.
    pub(crate) fn confuse_beats(&mut self, token: &[u8]) {
        if let Some(beats) = beats_of(&mut self.beats, token) {
            beats.is_confused = true;
        }
    }

    fn read_reply(&mut self, node_time: Time, workflow_id: &str, named: String, reply: &Reply) {
        match reply {
            Reply::StartWorkflowExecution(r) => self.know(workflow_id, &r.run_id),
            Reply::SignalWithStartWorkflowExecution(r) => self.know(workflow_id, &r.run_id),
            Reply::GetWorkflowExecutionHistory(r) => {
                let events = r.history.iter().flat_map(|h| &h.events);
                let events: Vec<HistoryEvent> = events.cloned().collect();
                // The answer does not name the run; the call, or its first event, may.
                let first = events.first().and_then(|e| e.attributes.as_ref());
                let run = match first {
                    Some(Attributes::WorkflowExecutionStartedEventAttributes(a)) => {
                        a.original_execution_run_id.clone()
                    }
                    _ => named.clone(),
                };
                let run = if named.is_empty() && self.reset_runs.contains(workflow_id) {
                    String::new()
                } else if named.is_empty() {
                    run
                } else {
                    named
                };
                if !run.is_empty() {
                    // A task that is there for updates is shown, and may come to nothing.
                    let of_task = |e: &&HistoryEvent| {
                        matches!(
                            e.event_type(),
                            EventType::WorkflowTaskScheduled | EventType::WorkflowTaskStarted
                        )
                    };
                    let uncertain = events.iter().rev().take_while(of_task).count();
                    self.see(node_time, &run, &events, uncertain);
                }
            }
            Reply::RespondWorkflowTaskCompleted(r) => {
                if let Some(task) = &r.workflow_task {
                    self.workflow_task(node_time, task);
                }
            }
            _ => {}
        }
    }

    fn know(&mut self, workflow_id: &str, run: &str) {
        let runs = self.known_runs.entry(workflow_id.to_owned()).or_default();
        if !runs.iter().any(|r| r == run) {
            runs.push(run.to_owned());
        }
    }

    /// Events of a run leave the node, the last `uncertain` of which need never be history.
    fn see(&mut self, node_time: Time, run: &str, events: &[HistoryEvent], uncertain: usize) {
        let mut is_transient = false;
        for event in &events[..events.len() - uncertain.min(events.len())] {
            // Events of a transient task are shown before they are history, and may change.
            is_transient = match &event.attributes {
                Some(Attributes::WorkflowTaskScheduledEventAttributes(a)) => a.attempt > 1,
                _ => is_transient && event.event_type() == EventType::WorkflowTaskStarted,
            };
            if is_transient {
                continue;
            }
            let new = Seen { hash: hash(event), node_time };
            let seen = *self.seen.entry((run.to_owned(), event.event_id)).or_insert(new);
            if seen.hash != new.hash {
                self.fail(format!("event {} of run {run} was shown in two ways", event.event_id));
            }
        }
    }

    /// Whether a history event is the one that left the node.
    pub(crate) fn is_as_seen(&self, run: &str, event: &HistoryEvent) -> bool {
        self.seen.get(&(run.to_owned(), event.event_id)).is_none_or(|seen| seen.hash == hash(event))
    }

    /// The answer to a poll leaves the node.
    pub(crate) fn hand_out(
        &mut self,
        sched: &mut Sched,
        node_time: Time,
        poll: PollId,
        task: Option<StartedTask>,
    ) {
        match &task {
            None => {}
            Some(StartedTask::Workflow(task)) => {
                let execution = task.workflow_execution.clone().unwrap_or_default();
                sched.log(|| {
                    let what = if task.query.is_some() { "query" } else { "workflow task" };
                    let id = task.started_event_id;
                    format!(
                        "{what} {}/{} {id} to {}",
                        execution.workflow_id, execution.run_id, poll.poller
                    )
                });
                self.workflow_task(node_time, task);
            }
            Some(StartedTask::Activity(task)) => {
                let execution = task.workflow_execution.clone().unwrap_or_default();
                sched.log(|| {
                    let (id, attempt) = (&task.activity_id, task.attempt);
                    format!(
                        "activity {}/{} {id} #{attempt} to {}",
                        execution.workflow_id, execution.run_id, poll.poller
                    )
                });
                self.activity_task(task);
            }
        }
        if !sched.rng.chance(self.loss) {
            let wait = sched.rng.micros(50, 20_000);
            sched.after(wait, Event::PollAnswer(poll, task.map(Box::new)));
        }
    }

    fn workflow_task(&mut self, node_time: Time, task: &api::PollWorkflowTaskQueueResponse) {
        let run = task.workflow_execution.clone().unwrap_or_default().run_id;
        let empty = Vec::new();
        let events = task.history.as_ref().map_or(&empty, |h| &h.events);
        self.see(node_time, &run, events, uncertain(task));
        if let Some(execution) = &task.workflow_execution {
            self.know(&execution.workflow_id, &run);
        }
        let mut ids = events.iter().map(|e| e.event_id);
        if let Some(first) = ids.next() {
            if first != 1 && first != task.previous_started_event_id + 1 {
                self.fail(format!("a task of run {run} has a history from event {first}"));
            }
            if ids.zip(first + 1..).any(|(id, expected)| id != expected) {
                self.fail(format!("a task of run {run} has a history with a gap"));
            }
        }
        if task.query.is_some() {
            return;
        }
        let last = events.last().map(|e| e.event_id);
        if task.next_page_token.is_empty() && last != Some(task.started_event_id) {
            self.fail(format!(
                "task {} of run {run} has a history up to event {last:?}",
                task.started_event_id
            ));
        }
        if !self.tokens.insert(task.task_token.to_vec()) {
            self.fail(format!(
                "workflow task {} of run {run} was handed out twice",
                task.started_event_id
            ));
        }
    }

    fn activity_task(&mut self, task: &api::PollActivityTaskQueueResponse) {
        let Ok(token) = TaskToken::from_bytes(&task.task_token) else {
            return self.fail("an activity's token does not decode");
        };
        let TaskRef::Activity { scheduled_event_id, .. } = token.task else {
            return self.fail("an activity's token is not an activity's");
        };
        let key = (token.run_id.to_string(), scheduled_event_id);
        let workflow_id =
            task.workflow_execution.as_ref().map_or("", |e| e.workflow_id.as_str()).to_owned();
        if self.reset_activities.contains(&workflow_id) {
            self.attempts.insert((key, task.attempt));
            return;
        }
        let (id, attempt) = (&task.activity_id, task.attempt);
        let most = task.retry_policy.as_ref().map_or(0, |p| p.maximum_attempts);
        if most > 0 && attempt > most {
            self.fail(format!("activity {id} of run {}: attempt {attempt} of {most}", key.0));
        }
        let beat = payload::number(task.heartbeat_details.as_ref());
        let beats = self.beats.get(&key).copied().unwrap_or_default();
        if beat < beats.acknowledged && !beats.is_confused {
            self.fail(format!(
                "activity {id} of run {}: attempt {attempt} is told of heartbeat {beat}, but {} \
                 was acknowledged",
                key.0, beats.acknowledged
            ));
        }
        if !self.attempts.insert((key.clone(), attempt)) {
            self.fail(format!(
                "attempt {attempt} of activity {id} of run {} was handed out twice",
                key.0
            ));
        }
    }
}

/// How many events at the end of a task's history may never be in the run's: those of the task
/// itself, if it is there for updates.
pub(crate) fn uncertain(task: &api::PollWorkflowTaskQueueResponse) -> usize {
    if task.messages.is_empty() { 0 } else { 2 }
}

fn beats_of<'a>(
    beats: &'a mut BTreeMap<ActivityKey, Beats>,
    token: &[u8],
) -> Option<&'a mut Beats> {
    let token = TaskToken::from_bytes(token).ok()?;
    let TaskRef::Activity { scheduled_event_id, .. } = token.task else { return None };
    Some(beats.entry((token.run_id.to_string(), scheduled_event_id)).or_default())
}
