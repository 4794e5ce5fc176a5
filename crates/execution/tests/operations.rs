//! Pauses, resets, options and eager tasks: inputs, and what follows from them.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use common::{NOW, begin, ctx};
use everspan_execution::{
    ActivityRef, Completion, Selector, State, TaskChange, Transition, Turn, Unpause,
    convert::proto_duration, next_deadline, pause::Pause,
};
use everspan_proto::{
    command::{Command, ScheduleActivityTaskCommandAttributes, command::Attributes},
    common::ActivityType,
    enums::{CommandType, EventType},
    failure::Failure,
    taskqueue::TaskQueue,
    workflowservice as api,
};
use everspan_types::{Error, Limits, Poller, Result, TaskRef, TaskToken, Time};

struct Life {
    now: Time,
    limits: Limits,
    state: State,
    last: Transition,
    events: Vec<EventType>,
}

impl Life {
    fn new(request: api::StartWorkflowExecutionRequest) -> Self {
        let limits = Limits::default();
        let request = api::StartWorkflowExecutionRequest { request_id: "r".into(), ..request };
        let (state, last) = begin(&limits, request);
        let events = last.events.iter().map(|e| e.event_type()).collect();
        Self { now: NOW, limits, state, last, events }
    }

    fn turn<T>(&mut self, decide: impl FnOnce(&mut Turn<'_>) -> Result<T>) -> Result<T> {
        let mut turn = Turn::new(&mut self.state, ctx(self.now, &self.limits));
        let value = decide(&mut turn)?;
        self.last = turn.finish();
        self.events.extend(self.last.events.iter().map(|e| e.event_type()));
        Ok(value)
    }

    /// Completes the workflow task with activities, the first of them eager.
    fn schedule(&mut self, activities: &[(&str, &str)]) -> Completion {
        if self.state.started_workflow_task().is_none() {
            let stamp = self.state.info.workflow_task_stamp;
            self.turn(|t| t.start_workflow_task(stamp, &Poller::default())).unwrap();
        }
        let task = self.state.started_workflow_task().unwrap();
        let token = TaskToken {
            namespace: self.state.info.namespace,
            workflow_id: "w".into(),
            run_id: self.state.info.run_id,
            task: TaskRef::Workflow {
                scheduled_event_id: task.scheduled_event_id,
                stamp: task.stamp,
            },
            attempt: task.attempt,
            started_event_id: task.started_event_id,
        };
        let command = |(n, (id, queue)): (usize, &(&str, &str))| Command {
            command_type: CommandType::ScheduleActivityTask as i32,
            attributes: Some(Attributes::ScheduleActivityTaskCommandAttributes(
                ScheduleActivityTaskCommandAttributes {
                    activity_id: (*id).to_owned(),
                    activity_type: Some(ActivityType { name: "act".into() }),
                    task_queue: Some(TaskQueue { name: (*queue).to_owned(), ..Default::default() }),
                    start_to_close_timeout: Some(proto_duration(Duration::from_secs(5))),
                    request_eager_execution: n == 0,
                    ..Default::default()
                },
            )),
            ..Default::default()
        };
        let r = api::RespondWorkflowTaskCompletedRequest {
            commands: activities.iter().enumerate().map(command).collect(),
            identity: "worker".into(),
            ..Default::default()
        };
        self.turn(|t| t.complete_workflow_task(&token, &r)).unwrap()
    }

    fn offers(&self) -> usize {
        self.last.tasks.iter().filter(|t| matches!(t, TaskChange::Add(_))).count()
    }
}

fn by(request_id: &str) -> Pause {
    Pause { request_id: request_id.into(), ..Pause::default() }
}

#[test]
fn an_eager_activity_is_started_with_the_completion() {
    let mut life = Life::new(Default::default());
    let done = life.schedule(&[("a", "q"), ("b", "q")]);
    assert_eq!(done.eager.len(), 1);
    let activity = life.state.activities.get(&done.eager[0]).unwrap();
    assert_eq!(activity.started.as_ref().unwrap().identity, "worker");
    assert_eq!(life.offers(), 1, "only the other waits for a worker");
}

#[test]
fn an_activity_of_another_queue_is_never_eager() {
    let mut life = Life::new(Default::default());
    let done = life.schedule(&[("a", "elsewhere")]);
    assert_eq!((done.eager.len(), life.offers()), (0, 1));
}

#[test]
fn an_eager_start_has_its_task_started() {
    let eager =
        api::StartWorkflowExecutionRequest { request_eager_execution: true, ..Default::default() };
    let life = Life::new(eager.clone());
    assert_eq!(life.state.started_workflow_task().unwrap().started_event_id, 3);
    assert!(life.last.tasks.is_empty(), "nothing is offered");
    let delayed = api::StartWorkflowExecutionRequest {
        workflow_start_delay: Some(proto_duration(Duration::from_secs(9))),
        ..eager
    };
    assert!(Life::new(delayed).state.info.workflow_task.is_none());
}

#[test]
fn a_paused_activity_has_no_deadline_and_no_last_attempt() {
    let mut life = Life::new(Default::default());
    let done = life.schedule(&[("a", "q")]);
    assert!(next_deadline(&life.state).is_some());
    life.turn(|t| t.pause_activities(Selector::All, &by("one"))).unwrap();
    assert_eq!(next_deadline(&life.state), None);
    let refused = life.turn(|t| t.pause_activities(Selector::Id("a"), &by("two")));
    assert!(matches!(refused, Err(Error::FailedPrecondition(_))));
    let id = ActivityRef::Id("a");
    life.turn(|t| t.fail_activity(id, Some(Failure::default()), None, "worker", None)).unwrap();
    assert_eq!((life.offers(), next_deadline(&life.state)), (0, None));
    let how = Unpause { jitter: Duration::from_secs(8), ..Unpause::default() };
    life.turn(|t| t.unpause_activities(Selector::Type("act"), how)).unwrap();
    let at = next_deadline(&life.state).unwrap();
    assert!(at > life.now && at < life.now + how.jitter, "within the jitter");
    assert_eq!(life.state.activities.get(&done.eager[0]).unwrap().attempt, 2);
}

#[test]
fn a_paused_run_records_and_offers_nothing() {
    let mut life = Life::new(Default::default());
    let pause = api::PauseWorkflowExecutionRequest::default();
    life.turn(|t| t.pause(&pause)).unwrap();
    assert!(life.state.is_paused() && life.state.is_running());
    assert_eq!(
        life.events[1..],
        [
            EventType::WorkflowTaskScheduled,
            EventType::WorkflowTaskFailed,
            EventType::WorkflowExecutionPaused
        ]
    );
    let signal =
        api::SignalWorkflowExecutionRequest { signal_name: "s".into(), ..Default::default() };
    life.turn(|t| t.signal((&signal).into())).unwrap();
    assert_eq!(life.offers(), 0);
    life.turn(|t| t.unpause(&Default::default())).unwrap();
    assert_eq!(life.offers(), 1);
    assert_eq!(*life.events.last().unwrap(), EventType::WorkflowTaskScheduled);
    assert!(!life.state.is_paused());
    let refused = life.turn(|t| t.unpause(&Default::default()));
    assert_eq!(refused, Err(Error::FailedPrecondition("workflow is not paused.".into())));
}

#[test]
fn a_completion_in_a_paused_run_schedules_but_offers_nothing() {
    let mut life = Life::new(Default::default());
    let stamp = life.state.info.workflow_task_stamp;
    life.turn(|t| t.start_workflow_task(stamp, &Poller::default())).unwrap();
    life.turn(|t| t.pause(&Default::default())).unwrap();
    let done = life.schedule(&[("a", "q"), ("b", "q")]);
    assert_eq!((done.eager.len(), life.offers()), (0, 0));
    life.turn(|t| t.unpause(&Default::default())).unwrap();
    assert_eq!(life.offers(), 3, "two activities and a workflow task");
}

#[test]
fn a_request_is_attached_with_the_event_that_tells_of_it() {
    let mut life = Life::new(Default::default());
    let stamp = life.state.info.workflow_task_stamp;
    life.turn(|t| t.start_workflow_task(stamp, &Poller::default())).unwrap();
    let r = api::StartWorkflowExecutionRequest {
        request_id: "again".into(),
        on_conflict_options: Some(everspan_proto::workflow::OnConflictOptions {
            attach_request_id: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    life.turn(|t| t.attach_start(&r)).unwrap();
    assert_eq!(life.state.info.attached_requests["again"].event_id, 0, "held back");
    life.schedule(&[]);
    assert_eq!(life.state.info.attached_requests["again"].event_id, 5);
}

#[test]
fn a_new_priority_of_the_run_moves_the_activities_that_wait() {
    let mut life = Life::new(Default::default());
    life.schedule(&[("a", "elsewhere"), ("b", "elsewhere")]);
    let added: Vec<_> = life.last.tasks.clone();
    let options = everspan_proto::workflow::WorkflowExecutionOptions {
        priority: Some(everspan_proto::common::Priority {
            priority_key: 1,
            fairness_key: "tenant".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = api::UpdateWorkflowExecutionOptionsRequest {
        workflow_execution_options: Some(options),
        update_mask: Some(prost_types::FieldMask { paths: vec!["priority".into()] }),
        ..Default::default()
    };
    life.turn(|t| t.update_options(&request)).unwrap();
    // What is taken back is exactly what was offered: its row stands under the old priority.
    for change in &added {
        let TaskChange::Add(task) = change else { continue };
        assert!(life.last.tasks.contains(&TaskChange::Remove(task.clone())));
    }
    let moved = life.last.tasks.iter().filter(|change| match change {
        TaskChange::Add(task) => {
            task.queue == "elsewhere"
                && (task.priority.key, &*task.priority.fairness_key) == (1, "tenant")
        }
        TaskChange::Remove(_) | TaskChange::Keep(_) => false,
    });
    assert_eq!(moved.count(), 2);
}
