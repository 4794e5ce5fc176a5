//! Resets: a history and a point of it in, the new run's events out.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use common::{NOW, begin, ctx};
use everspan_execution::{
    Ctx, State, Turn,
    reset::{ResetState, ResetTo},
    update::UpdateStatus,
};
use everspan_proto::{
    enums::{EventType, ResetReapplyExcludeType},
    history::{
        HistoryEvent, WorkflowExecutionUpdateAcceptedEventAttributes, history_event::Attributes,
    },
    update, workflowservice as api,
};
use everspan_types::{Error, Limits, Poller, RunId, Time};

const NEW: RunId = RunId(uuid::Uuid::from_u128(2));

struct Base {
    now: Time,
    limits: Limits,
    state: State,
    events: Vec<HistoryEvent>,
}

impl Base {
    /// A run whose first workflow task is with a worker, and a signal that waits behind it.
    fn new() -> Self {
        let limits = Limits::default();
        let request =
            api::StartWorkflowExecutionRequest { request_id: "r".into(), ..Default::default() };
        let (state, last) = begin(&limits, request);
        let mut base = Self { now: NOW, limits, state, events: last.events };
        let stamp = base.state.info.workflow_task_stamp;
        base.turn(|t| t.start_workflow_task(stamp, &Poller::default()).unwrap());
        let signal = api::SignalWorkflowExecutionRequest {
            signal_name: "s".into(),
            request_id: "once".into(),
            ..Default::default()
        };
        base.turn(|t| t.signal((&signal).into()).unwrap());
        base
    }

    /// A minute later.
    fn ctx(&self) -> Ctx<'_> {
        ctx(self.now + Duration::from_secs(60), &self.limits)
    }

    fn turn(&mut self, decide: impl FnOnce(&mut Turn<'_>)) {
        let mut turn = Turn::new(&mut self.state, ctx(self.now, &self.limits));
        decide(&mut turn);
        self.events.extend(turn.finish().events);
    }

    /// Ends the run, and begins another from its first `kept` events.
    fn reset(
        &mut self,
        kept: usize,
        request: &api::ResetWorkflowExecutionRequest,
    ) -> (State, Vec<HistoryEvent>) {
        let begun = ResetState::new(self.ctx(), &self.state, NEW, &self.events[..kept], 0);
        let begun = begun.unwrap();
        let to = ResetTo { run_id: NEW, from_event_id: 4 };
        self.turn(|t| t.terminate_for_reset("why", Some(to)));
        let (state, transition) = begun.begin(self.ctx(), request, &self.events[kept..], &[]);
        (state, transition.events)
    }
}

fn kinds(events: &[HistoryEvent]) -> Vec<EventType> {
    events.iter().map(HistoryEvent::event_type).collect()
}

#[test]
fn signals_since_the_point_are_taken_over_once() {
    let mut base = Base::new();
    let (state, events) = base.reset(3, &api::ResetWorkflowExecutionRequest::default());
    assert_eq!(
        kinds(&events),
        [
            EventType::WorkflowTaskFailed,
            EventType::WorkflowExecutionSignaled,
            EventType::WorkflowTaskScheduled
        ]
    );
    assert_eq!(events[0].event_id, 4);
    assert!(state.is_running() && state.signal_requests.contains(&"once".to_owned()));
    let info = &state.info;
    assert_eq!((info.run_id, info.first_run_id.0.as_u128()), (NEW, 1));
    assert_eq!(info.original_start_time, Some(base.now));
    assert_eq!(base.state.info.reset_to.as_ref().unwrap().run_id, NEW);
    assert_eq!(base.events.last().unwrap().event_type(), EventType::WorkflowExecutionTerminated);
}

#[test]
fn signals_can_be_left_behind() {
    let request = api::ResetWorkflowExecutionRequest {
        reset_reapply_exclude_types: vec![ResetReapplyExcludeType::Signal as i32],
        ..Default::default()
    };
    let (_, events) = Base::new().reset(3, &request);
    assert_eq!(kinds(&events), [EventType::WorkflowTaskFailed, EventType::WorkflowTaskScheduled]);
}

#[test]
fn a_task_that_only_waited_is_started_and_failed() {
    let (_, events) = Base::new().reset(2, &api::ResetWorkflowExecutionRequest::default());
    assert_eq!(
        kinds(&events)[..2],
        [EventType::WorkflowTaskStarted, EventType::WorkflowTaskFailed]
    );
    let Some(Attributes::WorkflowTaskFailedEventAttributes(a)) = &events[1].attributes else {
        panic!("{events:?}");
    };
    assert_eq!((a.scheduled_event_id, a.started_event_id), (2, 3));
    assert_eq!(a.new_run_id, NEW.to_string());
}

#[test]
fn a_point_without_a_workflow_task_is_refused() {
    let base = Base::new();
    let refused = ResetState::new(base.ctx(), &base.state, NEW, &base.events[..1], 0);
    assert!(matches!(refused, Err(Error::InvalidArgument(m)) if m.ends_with("+ 1]: 2")));
}

/// An event that accepted an update, as it may stand after the point of a reset.
fn accepted(id: &str) -> HistoryEvent {
    let meta = Some(update::Meta { update_id: id.into(), ..Default::default() });
    let attributes = WorkflowExecutionUpdateAcceptedEventAttributes {
        protocol_instance_id: id.into(),
        accepted_request: Some(update::Request { meta, ..Default::default() }),
        ..Default::default()
    };
    HistoryEvent {
        event_type: EventType::WorkflowExecutionUpdateAccepted as i32,
        attributes: Some(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(attributes)),
        ..Default::default()
    }
}

#[test]
fn updates_since_the_point_are_admitted_anew() {
    let mut base = Base::new();
    base.events.extend([accepted("u"), accepted("v"), accepted("u")]);
    let (mut state, events) = base.reset(3, &api::ResetWorkflowExecutionRequest::default());
    assert_eq!(
        kinds(&events),
        [
            EventType::WorkflowTaskFailed,
            EventType::WorkflowExecutionUpdateAdmitted,
            EventType::WorkflowExecutionUpdateAdmitted,
            EventType::WorkflowExecutionSignaled,
            EventType::WorkflowTaskScheduled
        ]
    );
    assert_eq!(state.update_status("u"), Some(UpdateStatus::Admitted));
    // They are in the rows, and keep no run in memory.
    let rows = state.take_changed_rows();
    let rows = rows.iter().filter_map(|(key, value)| Some((&**key, value.as_deref()?)));
    let read = State::from_rows(rows).unwrap();
    assert_eq!(read.update_status("v"), Some(UpdateStatus::Admitted));
    assert!(read.registry.is_idle() && read.registry.len() == 2);
    // Workers read them from history, not from messages.
    let stamp = read.info.workflow_task_stamp;
    base.state = read;
    base.turn(|t| t.start_workflow_task(stamp, &Poller::default()).unwrap());
    let started = base.state.started_workflow_task().unwrap().started_event_id;
    assert_eq!(base.state.registry.messages(started), []);
}

#[test]
fn updates_can_be_left_behind() {
    let request = api::ResetWorkflowExecutionRequest {
        reset_reapply_exclude_types: vec![ResetReapplyExcludeType::Update as i32],
        ..Default::default()
    };
    let mut base = Base::new();
    base.events.push(accepted("u"));
    let (state, events) = base.reset(3, &request);
    assert!(!kinds(&events).contains(&EventType::WorkflowExecutionUpdateAdmitted));
    assert_eq!(state.update_status("u"), None);
}

#[test]
fn what_a_worker_says_of_an_admitted_update_counts_after_a_failed_task_too() {
    let mut base = Base::new();
    base.events.push(accepted("u"));
    let (state, _) = base.reset(3, &api::ResetWorkflowExecutionRequest::default());
    base.state = state;
    let started = |base: &mut Base| {
        let stamp = base.state.info.workflow_task_stamp;
        base.turn(|t| t.start_workflow_task(stamp, &Poller::default()).unwrap());
        common::token(&base.state)
    };
    let token = started(&mut base);
    base.turn(|t| {
        t.respond_workflow_task_failed(&token, &api::RespondWorkflowTaskFailedRequest::default())
            .unwrap();
    });
    assert_eq!(base.state.update_status("u"), Some(UpdateStatus::Admitted));
    let token = started(&mut base);
    let acceptance = update::Acceptance {
        accepted_request_message_id: "u/request".into(),
        accepted_request_sequencing_event_id: 5,
        ..Default::default()
    };
    let request = api::RespondWorkflowTaskCompletedRequest {
        messages: vec![everspan_proto::protocol::Message {
            id: "u/accept".into(),
            protocol_instance_id: "u".into(),
            body: Some(prost_types::Any {
                type_url: "type.googleapis.com/temporal.api.update.v1.Acceptance".into(),
                value: prost::Message::encode_to_vec(&acceptance),
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    base.turn(|t| {
        t.complete_workflow_task(&token, &request).unwrap();
    });
    assert_eq!(base.state.update_status("u"), Some(UpdateStatus::Accepted));
}
