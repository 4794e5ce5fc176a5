//! What events mean: the one place where the state follows them, both when they are made
//! and when a history is read back.

use std::collections::BTreeMap;

use everspan_proto::{
    enums::{EventType, WorkflowExecutionStatus, WorkflowTaskFailedCause},
    history::{HistoryEvent, WorkflowExecutionStartedEventAttributes, history_event::Attributes},
};
use everspan_types::Time;

use crate::{
    convert::{duration, is_nil},
    execution_options::{self, AttachedRequest},
    pause, problems,
    retry::RetryPolicy,
    state::{Activity, Child, External, ResetPoint, Root, State, UserTimer},
    update::UpdateRecord,
    versioning,
};

/// Lets the state follow one event. The event's ID matters where a later event refers to
/// it; events that are held back, and have none yet, are of no such kind.
pub fn apply(state: &mut State, event: &HistoryEvent) {
    let time = event.event_time.as_ref().map_or(Time::ZERO, Time::from_proto);
    let Some(attributes) = &event.attributes else { return };
    match attributes {
        Attributes::WorkflowExecutionStartedEventAttributes(a) => started(state, a, event, time),
        Attributes::WorkflowTaskCompletedEventAttributes(a) => {
            state.info.previous_started_event_id = a.started_event_id;
        }
        Attributes::WorkflowTaskFailedEventAttributes(a)
            // A worker may name that cause, too, but not a run.
            if a.cause() == WorkflowTaskFailedCause::ResetWorkflow && !a.new_run_id.is_empty() =>
        {
            state.begin_again(time);
        }
        Attributes::ActivityTaskScheduledEventAttributes(a) => {
            let retry = a.retry_policy.as_ref().map(|p| RetryPolicy {
                initial_interval: duration(p.initial_interval.as_ref()),
                backoff_coefficient: p.backoff_coefficient,
                maximum_interval: duration(p.maximum_interval.as_ref()),
                maximum_attempts: p.maximum_attempts,
                non_retryable_error_types: p.non_retryable_error_types.clone(),
            });
            let activity = Activity {
                scheduled_event_id: event.event_id,
                activity_id: a.activity_id.clone(),
                activity_type: a.activity_type.clone().unwrap_or_default().name,
                task_queue: a.task_queue.clone().unwrap_or_default().name,
                schedule_to_close: duration(a.schedule_to_close_timeout.as_ref()),
                schedule_to_start: duration(a.schedule_to_start_timeout.as_ref()),
                start_to_close: duration(a.start_to_close_timeout.as_ref()),
                heartbeat: duration(a.heartbeat_timeout.as_ref()),
                retry: retry.unwrap_or_default(),
                scheduled_time: time,
                retry_expiration: after(time, duration(a.schedule_to_close_timeout.as_ref())),
                attempt_scheduled_time: time,
                attempt: 1,
                stamp: 1,
                priority: a.priority.clone(),
                ..Activity::default()
            };
            state.activities.insert(event.event_id, activity);
        }
        Attributes::ActivityTaskCancelRequestedEventAttributes(a) => {
            if let Some(activity) = state.activities.get_mut(&a.scheduled_event_id) {
                activity.cancel_requested = true;
                activity.cancel_requested_event_id = event.event_id;
            }
        }
        Attributes::ActivityTaskCompletedEventAttributes(a) => {
            state.activities.remove(&a.scheduled_event_id);
        }
        Attributes::ActivityTaskFailedEventAttributes(a) => {
            state.activities.remove(&a.scheduled_event_id);
        }
        Attributes::ActivityTaskTimedOutEventAttributes(a) => {
            state.activities.remove(&a.scheduled_event_id);
        }
        Attributes::ActivityTaskCanceledEventAttributes(a) => {
            state.activities.remove(&a.scheduled_event_id);
        }
        Attributes::TimerStartedEventAttributes(a) => {
            let timer = UserTimer {
                started_event_id: event.event_id,
                fires_at: time + duration(a.start_to_fire_timeout.as_ref()),
            };
            state.timers.insert(a.timer_id.clone(), timer);
        }
        Attributes::TimerFiredEventAttributes(a) => {
            remove_timer(state, &a.timer_id, a.started_event_id);
        }
        Attributes::TimerCanceledEventAttributes(a) => {
            remove_timer(state, &a.timer_id, a.started_event_id);
        }
        Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
            let child = Child {
                initiated_event_id: event.event_id,
                workflow_id: a.workflow_id.clone(),
                workflow_type: a.workflow_type.clone().unwrap_or_default().name,
                parent_close_policy: a.parent_close_policy,
                #[allow(deprecated)]
                control: a.control.clone(),
                ..Child::default()
            };
            state.children.insert(event.event_id, child);
        }
        Attributes::ChildWorkflowExecutionStartedEventAttributes(a) => {
            if let Some(child) = state.children.get_mut(&a.initiated_event_id) {
                child.started_event_id = event.event_id;
                child.run_id = a.workflow_execution.clone().unwrap_or_default().run_id;
            }
        }
        Attributes::StartChildWorkflowExecutionFailedEventAttributes(a) => {
            state.children.remove(&a.initiated_event_id);
        }
        Attributes::ChildWorkflowExecutionCompletedEventAttributes(a) => {
            state.children.remove(&a.initiated_event_id);
        }
        Attributes::ChildWorkflowExecutionFailedEventAttributes(a) => {
            state.children.remove(&a.initiated_event_id);
        }
        Attributes::ChildWorkflowExecutionCanceledEventAttributes(a) => {
            state.children.remove(&a.initiated_event_id);
        }
        Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
            state.children.remove(&a.initiated_event_id);
        }
        Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
            state.children.remove(&a.initiated_event_id);
        }
        Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => {
            let sent = external(
                event.event_id,
                a.workflow_execution.as_ref(),
                #[allow(deprecated)]
                &a.control,
            );
            state.external_signals.insert(event.event_id, sent);
        }
        Attributes::ExternalWorkflowExecutionSignaledEventAttributes(a) => {
            state.external_signals.remove(&a.initiated_event_id);
        }
        Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
            state.external_signals.remove(&a.initiated_event_id);
        }
        Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a) => {
            let sent = external(
                event.event_id,
                a.workflow_execution.as_ref(),
                #[allow(deprecated)]
                &a.control,
            );
            state.external_cancels.insert(event.event_id, sent);
        }
        Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => {
            state.external_cancels.remove(&a.initiated_event_id);
        }
        Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => {
            state.external_cancels.remove(&a.initiated_event_id);
        }
        Attributes::WorkflowExecutionCompletedEventAttributes(a) => {
            state.info.new_run_id.clone_from(&a.new_execution_run_id);
        }
        Attributes::WorkflowExecutionFailedEventAttributes(a) => {
            state.info.new_run_id.clone_from(&a.new_execution_run_id);
        }
        Attributes::WorkflowExecutionTimedOutEventAttributes(a) => {
            state.info.new_run_id.clone_from(&a.new_execution_run_id);
        }
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(a) => {
            state.info.new_run_id.clone_from(&a.new_execution_run_id);
        }
        Attributes::WorkflowExecutionUpdateAdmittedEventAttributes(a) => {
            let request = a.request.clone().unwrap_or_default();
            let id = request.meta.unwrap_or_default().update_id;
            if !request.request_id.is_empty() {
                // Named without an event's ID by the real server, before and after acceptance.
                let event_type = EventType::WorkflowExecutionUpdateAdmitted as i32;
                let attached = AttachedRequest { event_type, event_id: 0 };
                state.info.attached_requests.insert(request.request_id, attached);
            }
            let record = UpdateRecord {
                accepted_event_id: 0,
                completed_event_id: 0,
                // The caller's request was for the run before.
                request_id: String::new(),
            };
            state.updates.insert(id.clone(), record);
            state.registry.admit(id, None, time);
        }
        Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(a) => {
            let id = &a.protocol_instance_id;
            state.registry.take(id);
            let record = UpdateRecord {
                accepted_event_id: event.event_id,
                completed_event_id: 0,
                request_id: a.accepted_request.clone().unwrap_or_default().request_id,
            };
            state.updates.insert(id.clone(), record);
        }
        Attributes::WorkflowExecutionUpdateCompletedEventAttributes(a) => {
            let id = a.meta.as_ref().map_or("", |m| m.update_id.as_str()).to_owned();
            if let Some(record) = state.updates.get_mut(&id) {
                record.completed_event_id = event.event_id;
            }
        }
        Attributes::WorkflowExecutionSignaledEventAttributes(_) => state.info.signal_count += 1,
        Attributes::WorkflowExecutionCancelRequestedEventAttributes(_) => {
            state.info.cancel_requested = true;
        }
        Attributes::UpsertWorkflowSearchAttributesEventAttributes(a) => {
            let fields = &mut state.info.search_attributes.indexed_fields;
            for (name, value) in a.search_attributes.iter().flat_map(|s| &s.indexed_fields) {
                if is_nil(value) {
                    fields.remove(name);
                } else {
                    fields.insert(name.clone(), value.clone());
                }
            }
        }
        Attributes::WorkflowPropertiesModifiedEventAttributes(a) => {
            let fields = &mut state.info.memo.fields;
            for (name, value) in a.upserted_memo.iter().flat_map(|m| &m.fields) {
                if is_nil(value) {
                    fields.remove(name);
                } else {
                    fields.insert(name.clone(), value.clone());
                }
            }
        }
        Attributes::WorkflowExecutionPausedEventAttributes(a) => pause::paused(state, a, time),
        Attributes::WorkflowExecutionUnpausedEventAttributes(_) => pause::unpaused(state),
        Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(a) => {
            execution_options::updated(state, event, a);
        }
        _ => {}
    }
    if let Some(status) = closing_status(event.event_type()) {
        state.info.status = status as i32;
        state.info.close_time = Some(time);
        // What was pending stays, as the real server shows it of a closed run.
    }
}

fn external(
    initiated_event_id: i64,
    target: Option<&everspan_proto::common::WorkflowExecution>,
    control: &str,
) -> External {
    let target = target.cloned().unwrap_or_default();
    External {
        initiated_event_id,
        workflow_id: target.workflow_id,
        run_id: target.run_id,
        control: control.to_owned(),
    }
}

/// A timer's ID is free again once it fired, even while that event is held back, so that
/// the event may come after the start of another timer of the same ID.
fn remove_timer(state: &mut State, timer_id: &str, started_event_id: i64) {
    let is_same = |t: &UserTimer| t.started_event_id == started_event_id;
    if state.timers.get(timer_id).is_some_and(is_same) {
        state.timers.remove(&timer_id.to_owned());
    }
}

fn started(
    state: &mut State,
    a: &WorkflowExecutionStartedEventAttributes,
    event: &HistoryEvent,
    time: Time,
) {
    let info = &mut state.info;
    info.continued_run_id.clone_from(&a.continued_execution_run_id);
    info.cron_schedule.clone_from(&a.cron_schedule);
    info.root = a
        .root_workflow_execution
        .clone()
        .map(|r| Root { workflow_id: r.workflow_id, run_id: r.run_id });
    #[allow(deprecated)]
    let points = a.prev_auto_reset_points.iter().flat_map(|p| &p.points).map(|p| ResetPoint {
        run_id: p.run_id.clone(),
        build_id: p.build_id.clone(),
        binary_checksum: p.binary_checksum.clone(),
        completed_event_id: p.first_workflow_task_completed_id,
        time: p.create_time.as_ref().map_or(Time::ZERO, Time::from_proto),
        expire_time: p.expire_time.as_ref().map(Time::from_proto),
    });
    info.reset_points = points.collect();
    info.workflow_type = a.workflow_type.clone().unwrap_or_default().name;
    info.task_queue = a.task_queue.clone().unwrap_or_default().name;
    info.execution_timeout = duration(a.workflow_execution_timeout.as_ref());
    info.run_timeout = duration(a.workflow_run_timeout.as_ref());
    info.run_timeout_given = a.workflow_run_timeout.is_some();
    info.task_timeout = duration(a.workflow_task_timeout.as_ref());
    info.start_time = time;
    info.execution_time = time + duration(a.first_workflow_task_backoff.as_ref());
    info.execution_expiration = a.workflow_execution_expiration_time.as_ref().map(Time::from_proto);
    info.run_expiration =
        (!info.run_timeout.is_zero()).then(|| info.execution_time + info.run_timeout);
    info.attempt = a.attempt;
    info.retry_policy = a.retry_policy.as_ref().and_then(|p| RetryPolicy::from_proto(p).ok());
    info.memo = a.memo.clone().unwrap_or_default();
    info.search_attributes = a.search_attributes.clone().unwrap_or_default();
    versioning::set(info, a.versioning_override.is_some());
    info.priority = a.priority.clone();
    info.user_metadata = event.user_metadata.clone();
}

fn after(time: Time, wait: std::time::Duration) -> Option<Time> {
    (!wait.is_zero()).then(|| time + wait)
}

/// The status that an event of this type closes a run with.
#[must_use]
pub fn closing_status(kind: EventType) -> Option<WorkflowExecutionStatus> {
    Some(match kind {
        EventType::WorkflowExecutionCompleted => WorkflowExecutionStatus::Completed,
        EventType::WorkflowExecutionFailed => WorkflowExecutionStatus::Failed,
        EventType::WorkflowExecutionCanceled => WorkflowExecutionStatus::Canceled,
        EventType::WorkflowExecutionTerminated => WorkflowExecutionStatus::Terminated,
        EventType::WorkflowExecutionTimedOut => WorkflowExecutionStatus::TimedOut,
        EventType::WorkflowExecutionContinuedAsNew => WorkflowExecutionStatus::ContinuedAsNew,
        _ => return None,
    })
}

/// The part of a state that its history determines: everything but what workers do
/// between events (attempts, heartbeats, started marks, offers), what operators do to activities
/// (pauses, resets, options), what calls carry for
/// deduplication (request IDs), and the bookkeeping of the workflow task.
#[derive(Debug, PartialEq)]
pub struct Durable {
    head: String,
    activities: BTreeMap<i64, String>,
    timers: BTreeMap<String, UserTimer>,
    children: BTreeMap<i64, Child>,
    external_signals: BTreeMap<i64, External>,
    external_cancels: BTreeMap<i64, External>,
    updates: BTreeMap<String, UpdateRecord>,
}

/// Takes the [`Durable`] part of a state.
#[must_use]
pub fn durable(state: &State) -> Durable {
    let i = &state.info;
    let sorted = |fields: &std::collections::HashMap<String, everspan_proto::common::Payload>| {
        fields
            .iter()
            .filter(|(k, _)| {
                !["BuildIds", pause::ATTRIBUTE, problems::ATTRIBUTE].contains(&k.as_str())
            })
            .map(|(k, v)| format!("{k}={v:?}"))
            .collect::<std::collections::BTreeSet<_>>()
    };
    Durable {
        head: format!(
            "{:?}",
            (
                (&i.workflow_type, &i.task_queue, i.execution_timeout, i.run_timeout),
                (i.task_timeout, i.start_time, i.execution_time, i.execution_expiration),
                (i.run_expiration, i.attempt, &i.retry_policy, i.status, i.close_time),
                (sorted(&i.memo.fields), sorted(&i.search_attributes.indexed_fields)),
                (i.next_event_id, i.previous_started_event_id, i.cancel_requested),
                (i.signal_count, &i.user_metadata, &i.priority),
                (&i.continued_run_id, &i.new_run_id, &i.root, &i.cron_schedule),
                (&i.paused, i.is_auto_upgrade, i.attached_requests.keys().collect::<Vec<_>>()),
            )
        ),
        activities: state
            .activities
            .iter()
            // One that the very completion cancelled which closed the run is gone without an event.
            .filter(|(_, a)| state.is_running() || !a.cancel_requested)
            .map(|(id, a)| {
                let text = format!(
                    "{:?}",
                    (
                        (&a.activity_id, &a.activity_type, a.retry_expiration),
                        (a.scheduled_time, a.cancel_requested, a.cancel_requested_event_id),
                    )
                );
                (*id, text)
            })
            .collect(),
        timers: state.timers.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        children: state.children.iter().map(|(k, v)| (*k, v.clone())).collect(),
        external_signals: state.external_signals.iter().map(|(k, v)| (*k, v.clone())).collect(),
        external_cancels: state.external_cancels.iter().map(|(k, v)| (*k, v.clone())).collect(),
        updates: state.updates.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

/// Reads a history back: the state that its events determine. `held` are events that wait
/// for the workflow task in flight.
#[must_use]
pub fn replay<'a>(
    events: impl IntoIterator<Item = &'a HistoryEvent>,
    held: impl IntoIterator<Item = &'a HistoryEvent>,
) -> State {
    let mut state = State::default();
    for event in events {
        apply(&mut state, event);
        state.info.next_event_id = event.event_id + 1;
    }
    for event in held {
        apply(&mut state, event);
    }
    state
}
