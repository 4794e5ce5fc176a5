//! One change to a run: events are added to it, the state follows, and at its end the
//! whole is handed out as a [`Transition`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use everspan_proto::{
    enums::EventType,
    history::{History, HistoryEvent, history_event::Attributes},
    sdk::UserMetadata,
};
use everspan_types::{Limits, Priority, TaskKind, TaskRef, Time};
use prost::Message as _;

use crate::{
    execution_options, fold,
    message::Message,
    next::NextRun,
    state::{Activity, Buffered, State, WorkflowTask},
    update::UpdateChange,
};

/// What a decision may know of the world.
#[derive(Clone, Copy, Debug)]
pub struct Ctx<'a> {
    /// The instant at which it happens.
    pub now: Time,
    /// The bounds in force.
    pub limits: &'a Limits,
    /// How long closed runs of the namespace are kept; zero where it is not known.
    pub retention: Duration,
}

/// A task that waits for a worker; lives in the run's shard as one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingTask {
    /// Workflow or activity.
    pub kind: TaskKind,
    /// Name of the task queue.
    pub queue: String,
    /// Order within the queue: nanoseconds of the time it was offered.
    pub sequence: u64,
    /// The task within the run.
    pub task: TaskRef,
    /// What orders it among the others of the queue beside the time.
    pub priority: Priority,
    /// Whether the queue is a worker's own.
    pub sticky: bool,
}

/// A change to the tasks that wait for workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskChange {
    /// Offer it.
    Add(PendingTask),
    /// It was taken, or is needed no more.
    Remove(PendingTask),
    /// It was offered by a soft change and is to outlive the memory it was in.
    Keep(PendingTask),
}

/// What one change to a run amounts to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transition {
    /// Events appended to history, with their IDs.
    pub events: Vec<HistoryEvent>,
    /// The same, encoded as a `History` message; empty if there are none.
    pub history: Bytes,
    /// Changes to pending tasks, in order.
    pub tasks: Vec<TaskChange>,
    /// Whether this change closed the run.
    pub closed: bool,
    /// Messages to other executions, in order.
    pub messages: Vec<Message>,
    /// The run that follows this one.
    pub next: Option<Box<NextRun>>,
    /// Whether only what lives in memory changed: then there is nothing to store, and tasks
    /// are offered without a row.
    pub is_soft: bool,
    /// What became of updates, in order.
    pub updates: Vec<UpdateChange>,
}

/// A change to a run in the making. Methods that fail leave state and turn untouched.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) ctx: Ctx<'a>,
    pub(crate) events: Vec<HistoryEvent>,
    pub(crate) tasks: Vec<TaskChange>,
    pub(crate) messages: Vec<Message>,
    pub(crate) next: Option<Box<NextRun>>,
    /// The run's first event, where it may be needed: see [`Turn::knowing`].
    pub(crate) started: Option<Arc<HistoryEvent>>,
    /// ID of the first event that this change can have written.
    pub(crate) first_event_id: i64,
    pub(crate) updates: Vec<UpdateChange>,
    /// See [`Transition::is_soft`].
    pub(crate) is_soft: bool,
    /// The speculative task that was there before this change.
    pub(crate) speculative_stamp: Option<u32>,
    was_running: bool,
}

/// Who acts when the server does.
pub(crate) const SERVER_IDENTITY: &str = "history-service";

impl<'a> Turn<'a> {
    /// Begins a change at `ctx.now`.
    pub fn new(state: &'a mut State, ctx: Ctx<'a>) -> Self {
        let was_running = state.is_running();
        let first_event_id = state.info.next_event_id;
        let task = state.info.workflow_task.as_ref();
        let speculative_stamp = task.filter(|t| t.is_speculative).map(|t| t.stamp);
        Self {
            state,
            ctx,
            events: Vec::new(),
            tasks: Vec::new(),
            messages: Vec::new(),
            next: None,
            started: None,
            first_event_id,
            updates: Vec::new(),
            is_soft: false,
            speculative_stamp,
            was_running,
        }
    }

    /// Gives the change the run's first event. It is needed where the run may close and
    /// another follow it (see [`crate::may_repeat`], and continue-as-new).
    #[must_use]
    pub fn knowing(mut self, started: Option<Arc<HistoryEvent>>) -> Self {
        self.started = started;
        self
    }

    /// The state as it stands in this turn.
    #[must_use]
    pub fn state(&self) -> &State {
        self.state
    }

    /// Ends the change: releases held-back events if nothing holds them, applies the limits
    /// on history, and encodes.
    #[must_use]
    pub fn finish(mut self) -> Transition {
        if self.is_soft {
            debug_assert!(self.events.is_empty(), "a soft change writes no events");
            return Transition {
                tasks: self.tasks,
                is_soft: true,
                updates: self.updates,
                ..Transition::default()
            };
        }
        if self.state.is_running() {
            self.settle_speculative_workflow_task();
            self.limit_buffer();
            if self.state.started_workflow_task().is_none() {
                self.flush_buffer();
            }
            self.limit_history();
        }
        if !self.state.is_running() {
            if self.was_running {
                self.abort_updates();
            }
            // What a closed run did not take in, it never will.
            self.state.buffered.clear();
            self.state.info.buffered_bytes = 0;
            if self.state.info.workflow_task.as_ref().is_some_and(|t| t.is_speculative) {
                self.state.info.workflow_task = None;
            }
            if self.was_running {
                self.tell_of_close();
            }
        }
        let info = &mut self.state.info;
        info.transitions += 1;
        let history = if self.events.is_empty() {
            Bytes::new()
        } else {
            let message = History { events: std::mem::take(&mut self.events) };
            let raw = Bytes::from(message.encode_to_vec());
            self.events = message.events;
            raw
        };
        info.history_bytes += i64::try_from(history.len()).unwrap_or(i64::MAX);
        Transition {
            events: self.events,
            history,
            tasks: self.tasks,
            closed: self.was_running && !self.state.is_running(),
            messages: self.messages,
            next: self.next,
            is_soft: false,
            updates: self.updates,
        }
    }

    fn event(&self, kind: EventType, attributes: Attributes) -> HistoryEvent {
        HistoryEvent {
            event_time: Some(self.ctx.now.to_proto()),
            event_type: kind as i32,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        }
    }

    /// Writes an event that comes from a command, a workflow task or a close.
    pub(crate) fn write(&mut self, kind: EventType, attributes: Attributes) -> i64 {
        let event = self.event(kind, attributes);
        self.write_event(event)
    }

    /// The same with a summary from the command or call.
    pub(crate) fn write_with(
        &mut self,
        kind: EventType,
        attributes: Attributes,
        user_metadata: Option<UserMetadata>,
    ) -> i64 {
        let mut event = self.event(kind, attributes);
        event.user_metadata = user_metadata;
        self.write_event(event)
    }

    pub(crate) fn write_event(&mut self, mut event: HistoryEvent) -> i64 {
        event.event_id = self.state.info.next_event_id;
        fold::apply(self.state, &event);
        self.number(event)
    }

    /// Appends an event whose meaning is already in the state.
    fn number(&mut self, mut event: HistoryEvent) -> i64 {
        let id = self.state.info.next_event_id;
        event.event_id = id;
        self.state.info.next_event_id = id + 1;
        self.events.push(event);
        id
    }

    /// Takes in an event from outside the workflow. It enters history when no workflow task
    /// is with a worker, since a worker answers to the history that it was given.
    pub(crate) fn hold(&mut self, kind: EventType, attributes: Attributes) {
        let event = self.event(kind, attributes);
        self.hold_event(event);
    }

    pub(crate) fn hold_event(&mut self, event: HistoryEvent) {
        fold::apply(self.state, &event);
        self.state.info.buffered_bytes += event.encoded_len();
        let n = self.state.buffered.last_key().map_or(0, |n| n + 1);
        self.state.buffered.insert(n, Buffered(event));
    }

    /// Writes what was held back: in order of arrival, but closes of activities and children
    /// after everything else, so that each follows its start.
    pub(crate) fn flush_buffer(&mut self) {
        if self.state.buffered.is_empty() {
            return;
        }
        let (mut first, mut closes) = (Vec::new(), Vec::new());
        for Buffered(event) in self.state.buffered.values() {
            let list = if is_close(event) { &mut closes } else { &mut first };
            list.push(event.clone());
        }
        self.state.buffered.clear();
        self.state.info.buffered_bytes = 0;
        first.append(&mut closes);
        let mut started: HashMap<i64, i64> = HashMap::new();
        for mut event in first {
            if let Some((scheduled, id)) = close_ids(&mut event)
                && let Some(started_id) = started.get(&scheduled)
            {
                *id = *started_id;
            }
            let scheduled = match &event.attributes {
                Some(Attributes::ActivityTaskStartedEventAttributes(a)) => {
                    Some(a.scheduled_event_id)
                }
                Some(Attributes::ChildWorkflowExecutionStartedEventAttributes(a)) => {
                    Some(a.initiated_event_id)
                }
                _ => None,
            };
            let id = self.number(event);
            if let Some(event) = self.events.last() {
                execution_options::numbered(self.state, event);
            }
            if let Some(scheduled) = scheduled {
                started.insert(scheduled, id);
                if let Some(child) = self.state.children.get_mut(&scheduled) {
                    child.started_event_id = id;
                }
            }
        }
    }

    /// Offers the run's workflow task to workers.
    pub(crate) fn offer_workflow_task(&mut self) {
        if let Some(task) = pending_workflow_task(self.state) {
            self.tasks.push(TaskChange::Add(task));
        }
    }

    /// The workflow task, if it waits for a worker.
    pub(crate) fn waiting_workflow_task(&self) -> Option<PendingTask> {
        pending_workflow_task(self.state)
    }

    /// Takes the offer of the run's workflow task back.
    pub(crate) fn withdraw_workflow_task(&mut self) {
        if let Some(task) = pending_workflow_task(self.state) {
            self.tasks.push(TaskChange::Remove(task));
        }
    }

    /// Offers an activity to workers.
    pub(crate) fn offer_activity(&mut self, scheduled_event_id: i64) {
        if let Some(task) = self.pending_activity(scheduled_event_id) {
            self.tasks.push(TaskChange::Add(task));
        }
    }

    /// Takes the offer of an activity back.
    pub(crate) fn withdraw_activity(&mut self, scheduled_event_id: i64) {
        if let Some(task) = self.pending_activity(scheduled_event_id) {
            self.tasks.push(TaskChange::Remove(task));
        }
    }

    fn pending_activity(&self, scheduled_event_id: i64) -> Option<PendingTask> {
        let activity = self.state.activities.get(&scheduled_event_id)?;
        activity.is_offered().then(|| activity_task(self.state, activity))
    }
}

fn pending_workflow_task(state: &State) -> Option<PendingTask> {
    // A closed run keeps what was pending, for those who describe it; it offers nothing.
    let task =
        state.info.workflow_task.as_ref().filter(|t| !t.is_started() && state.is_running())?;
    Some(workflow_task(state, task))
}

/// The run's workflow task, if it waits for a worker and stands in no row.
#[must_use]
pub fn soft_task(state: &State) -> Option<PendingTask> {
    let task = state.info.workflow_task.as_ref()?;
    (task.is_speculative && !task.is_started()).then(|| workflow_task(state, task))
}

fn workflow_task(state: &State, task: &WorkflowTask) -> PendingTask {
    PendingTask {
        kind: TaskKind::Workflow,
        queue: task.queue.clone(),
        sequence: task.scheduled_time.as_nanos(),
        task: TaskRef::Workflow { scheduled_event_id: task.scheduled_event_id, stamp: task.stamp },
        priority: Priority::of(None, state.info.priority.as_ref()),
        sticky: task.is_sticky,
    }
}

fn activity_task(state: &State, activity: &Activity) -> PendingTask {
    PendingTask {
        kind: TaskKind::Activity,
        queue: activity.task_queue.clone(),
        sequence: activity.attempt_scheduled_time.as_nanos(),
        task: TaskRef::Activity {
            scheduled_event_id: activity.scheduled_event_id,
            stamp: activity.stamp,
        },
        priority: Priority::of(activity.priority.as_ref(), state.info.priority.as_ref()),
        sticky: false,
    }
}

/// Whether it closes an activity or a child.
pub(crate) fn is_close(event: &HistoryEvent) -> bool {
    matches!(
        event.event_type(),
        EventType::ActivityTaskCompleted
            | EventType::ActivityTaskFailed
            | EventType::ActivityTaskTimedOut
            | EventType::ActivityTaskCanceled
            | EventType::ChildWorkflowExecutionCompleted
            | EventType::ChildWorkflowExecutionFailed
            | EventType::ChildWorkflowExecutionTimedOut
            | EventType::ChildWorkflowExecutionCanceled
            | EventType::ChildWorkflowExecutionTerminated
    )
}

/// The event that scheduled what a close ends, and its started event to be filled in.
fn close_ids(event: &mut HistoryEvent) -> Option<(i64, &mut i64)> {
    match event.attributes.as_mut()? {
        Attributes::ActivityTaskCompletedEventAttributes(a) => {
            Some((a.scheduled_event_id, &mut a.started_event_id))
        }
        Attributes::ActivityTaskFailedEventAttributes(a) => {
            Some((a.scheduled_event_id, &mut a.started_event_id))
        }
        Attributes::ActivityTaskTimedOutEventAttributes(a) => {
            Some((a.scheduled_event_id, &mut a.started_event_id))
        }
        Attributes::ActivityTaskCanceledEventAttributes(a) => {
            Some((a.scheduled_event_id, &mut a.started_event_id))
        }
        Attributes::ChildWorkflowExecutionCompletedEventAttributes(a) => {
            Some((a.initiated_event_id, &mut a.started_event_id))
        }
        Attributes::ChildWorkflowExecutionFailedEventAttributes(a) => {
            Some((a.initiated_event_id, &mut a.started_event_id))
        }
        Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
            Some((a.initiated_event_id, &mut a.started_event_id))
        }
        Attributes::ChildWorkflowExecutionCanceledEventAttributes(a) => {
            Some((a.initiated_event_id, &mut a.started_event_id))
        }
        Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
            Some((a.initiated_event_id, &mut a.started_event_id))
        }
        _ => None,
    }
}
