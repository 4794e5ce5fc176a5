//! Updates and speculative workflow tasks: inputs, and what follows.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use common::{NOW, begin, ctx, token};
use everspan_execution::{
    State, TaskChange, Transition, Turn, speculative_deadline,
    update::{UpdateNews, UpdateStatus},
};
use everspan_proto::{
    enums::{EventType, SuggestContinueAsNewReason},
    history::history_event::Attributes,
    protocol::Message,
    update, workflowservice as api,
};
use everspan_types::{Error, Limits, Poller, Result, Time};
use prost::Message as _;

struct Life {
    now: Time,
    limits: Limits,
    state: State,
}

impl Life {
    /// A run whose first workflow task is done.
    fn idle(limits: Limits) -> Self {
        let (state, _) = begin(&limits, api::StartWorkflowExecutionRequest::default());
        let mut life = Self { now: NOW, limits, state };
        life.take();
        life.complete(&[]);
        life
    }

    fn turn<T>(&mut self, f: impl FnOnce(&mut Turn<'_>) -> Result<T>) -> Result<(T, Transition)> {
        let mut turn = Turn::new(&mut self.state, ctx(self.now, &self.limits));
        let value = f(&mut turn)?;
        Ok((value, turn.finish()))
    }

    fn ask(&mut self, id: &str) -> Result<Transition> {
        let meta = Some(update::Meta { update_id: id.into(), ..Default::default() });
        let request = update::Request { meta, ..Default::default() };
        Ok(self.turn(|t| t.admit_update(&request))?.1)
    }

    fn take(&mut self) -> Transition {
        let stamp = self.state.info.workflow_task.as_ref().unwrap().stamp;
        self.turn(|t| t.start_workflow_task(stamp, &Poller::default())).unwrap().1
    }

    fn complete(&mut self, messages: &[Message]) -> Transition {
        let token = token(&self.state);
        let request = api::RespondWorkflowTaskCompletedRequest {
            messages: messages.to_vec(),
            ..Default::default()
        };
        self.turn(|t| t.complete_workflow_task(&token, &request)).unwrap().1
    }

    /// One update from the ask to the outcome.
    fn update(&mut self, id: &str) {
        self.ask(id).unwrap();
        self.take();
        self.complete(&[accept(id), respond(id)]);
    }

    /// What a restart of the node leaves.
    fn crash(&mut self) {
        self.state = self.state.stored();
    }
}

fn message(id: &str, kind: &str, value: Vec<u8>) -> Message {
    let type_url = format!("type.googleapis.com/temporal.api.update.v1.{kind}");
    Message {
        id: format!("{id}/{kind}"),
        protocol_instance_id: id.into(),
        body: Some(prost_types::Any { type_url, value }),
        ..Message::default()
    }
}

fn accept(id: &str) -> Message {
    let body = update::Acceptance {
        accepted_request_message_id: format!("{id}/request"),
        accepted_request_sequencing_event_id: 1,
        ..Default::default()
    };
    message(id, "Acceptance", body.encode_to_vec())
}

fn reject(id: &str) -> Message {
    message(id, "Rejection", update::Rejection::default().encode_to_vec())
}

fn respond(id: &str) -> Message {
    let meta = Some(update::Meta { update_id: id.into(), ..Default::default() });
    let body = update::Response { meta, outcome: Some(update::Outcome::default()) };
    message(id, "Response", body.encode_to_vec())
}

fn kinds(t: &Transition) -> Vec<EventType> {
    t.events.iter().map(everspan_proto::history::HistoryEvent::event_type).collect()
}

#[test]
fn a_refused_update_leaves_nothing_to_store() {
    let mut life = Life::idle(Limits::default());
    let before = life.state.stored();
    let asked = life.ask("u").unwrap();
    assert!(asked.is_soft);
    assert!(matches!(asked.tasks.as_slice(), [TaskChange::Add(_)]));
    assert!(life.take().is_soft);
    assert_eq!(life.state.registry.messages(6)[0].id, "u/request");
    let done = life.complete(&[reject("u")]);
    assert!(done.is_soft);
    assert!(matches!(done.updates[0].what, UpdateNews::Rejected(_)));
    assert_eq!(life.state.update_status("u"), None);
    let mut after = life.state.stored();
    after.info.workflow_task_stamp = before.info.workflow_task_stamp;
    assert_eq!(before, after);
}

#[test]
fn an_accepted_update_writes_the_whole_task() {
    let mut life = Life::idle(Limits::default());
    life.ask("u").unwrap();
    life.take();
    let done = life.complete(&[accept("u")]);
    assert_eq!(
        kinds(&done),
        [
            EventType::WorkflowTaskScheduled,
            EventType::WorkflowTaskStarted,
            EventType::WorkflowTaskCompleted,
            EventType::WorkflowExecutionUpdateAccepted,
        ]
    );
    assert_eq!(life.state.update_status("u"), Some(UpdateStatus::Accepted));
}

#[test]
fn a_lost_speculative_task_cannot_be_completed() {
    let mut life = Life::idle(Limits::default());
    life.ask("u").unwrap();
    life.take();
    let old = token(&life.state);
    life.crash();
    assert_eq!(life.state.update_status("u"), None);
    life.now = life.now + Duration::from_secs(1);
    life.ask("u").unwrap();
    life.take();
    let request = api::RespondWorkflowTaskCompletedRequest::default();
    let refused = life.turn(|t| t.complete_workflow_task(&old, &request));
    assert!(matches!(refused, Err(Error::NotFound(_))));
    life.complete(&[accept("u"), respond("u")]);
}

#[test]
fn a_speculative_task_waits_five_seconds() {
    let mut life = Life::idle(Limits::default());
    life.ask("u").unwrap();
    assert_eq!(speculative_deadline(&life.state), Some(life.now + Duration::from_secs(5)));
    assert_eq!(everspan_execution::next_deadline(&life.state), None, "no row for it");
    life.now = life.now + Duration::from_secs(5);
    let (_, woken) = life
        .turn(|t| {
            t.wake();
            Ok(())
        })
        .unwrap();
    assert_eq!(
        kinds(&woken),
        [
            EventType::WorkflowTaskScheduled,
            EventType::WorkflowTaskTimedOut,
            EventType::WorkflowTaskScheduled,
        ]
    );
    assert_eq!(life.state.update_status("u"), Some(UpdateStatus::Admitted));
}

#[test]
fn limits_are_kept_and_told_before() {
    let limits = Limits { updates_max: 4, suggest_continue_as_new_updates: 3, ..Limits::default() };
    let mut life = Life::idle(limits);
    for id in ["a", "b"] {
        life.update(id);
    }
    life.ask("c").unwrap();
    life.take();
    let done = life.complete(&[accept("c"), respond("c")]);
    let Some(Attributes::WorkflowTaskStartedEventAttributes(started)) = &done.events[1].attributes
    else {
        panic!("not started")
    };
    let too_many = SuggestContinueAsNewReason::TooManyUpdates as i32;
    assert_eq!(started.suggest_continue_as_new_reasons, [too_many]);
    life.update("d");
    assert!(life.ask("d").is_ok(), "a known one is not another");
    let refused = life.ask("e").unwrap_err();
    assert!(matches!(&refused, Error::FailedPrecondition(m) if m.starts_with(
        "The limit on the total number of distinct updates in this workflow has been reached (4)."
    )));
}

#[test]
fn refused_updates_do_not_count() {
    let mut life = Life::idle(Limits { updates_max: 1, ..Limits::default() });
    for id in ["a", "b", "c"] {
        life.ask(id).unwrap();
        life.take();
        life.complete(&[reject(id)]);
    }
    life.update("d");
}

#[test]
fn bytes_in_flight_are_bounded() {
    let mut life = Life::idle(Limits { updates_in_flight_bytes_max: 12, ..Limits::default() });
    life.ask("u").unwrap();
    let refused = life.ask("v").unwrap_err();
    assert!(refused.to_string().contains("total payload size of in-flight updates"), "{refused}");
}

#[test]
fn an_update_that_nobody_waits_for_is_forgotten() {
    let mut life = Life::idle(Limits::default());
    life.ask("wanted").unwrap();
    life.ask("unwanted").unwrap();
    let later = life.now + Duration::from_secs(1);
    let (_, t) = life
        .turn(|t| {
            t.forget_updates(later, |id| id == "wanted");
            Ok(())
        })
        .unwrap();
    assert!(t.is_soft);
    assert!(life.state.registry.get("wanted").is_some());
    assert!(life.state.registry.get("unwanted").is_none());
}
