//! What simulated workflows ask for: a table of commands. A new kind of command is a row in
//! [`COMMANDS`], with a function that makes one and the type of the event it leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use everspan_execution::convert::proto_duration;
use everspan_proto::{
    command::{self as commandpb, Command, command::Attributes},
    common::{ActivityType, Memo, Payload, RetryPolicy},
    enums::{CommandType, EventType},
    failure::{ApplicationFailureInfo, Failure, failure::FailureInfo},
    history::{HistoryEvent, history_event::Attributes as EventAttributes},
};

use crate::{
    families::{cancel_external, child, continue_as_new, search_attributes, signal_external},
    histories::answer,
    payload,
    rng::Rng,
    workload::{QUEUE, queue},
};

/// What a worker knows of a run from its history.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) last_event: i64,
    pub(crate) started: i64,
    /// Scheduled events of activities that are not closed.
    pub(crate) activities: BTreeSet<i64>,
    /// Timers that run, by their started events.
    pub(crate) timers: BTreeMap<i64, String>,
    /// Initiated events of what other executions have not answered yet: children that are open,
    /// signals and cancel requests.
    pub(crate) others: BTreeSet<i64>,
    /// Updates that are accepted and wait for their outcome.
    pub(crate) updates: BTreeSet<String>,
    pub(crate) cancel_requested: bool,
    /// The last event of a task that was shown before it is history; it may never be.
    pub(crate) shown_up_to: i64,
}

impl View {
    /// Takes in what is new; false if events are missing before it.
    pub(crate) fn extend(&mut self, events: &[HistoryEvent]) -> bool {
        for event in events {
            if event.event_id <= self.last_event {
                continue;
            }
            // A task that was not history yet is now, and its events are not shown again.
            let became_so =
                self.shown_up_to > self.last_event && event.event_id == self.shown_up_to + 1;
            if event.event_id != self.last_event + 1 && !became_so {
                return false;
            }
            self.last_event = event.event_id;
            self.see(event);
        }
        true
    }

    fn see(&mut self, event: &HistoryEvent) {
        match &event.attributes {
            Some(EventAttributes::ActivityTaskScheduledEventAttributes(_)) => {
                self.activities.insert(event.event_id);
            }
            Some(EventAttributes::ActivityTaskCompletedEventAttributes(a)) => {
                self.activities.remove(&a.scheduled_event_id);
            }
            Some(EventAttributes::ActivityTaskFailedEventAttributes(a)) => {
                self.activities.remove(&a.scheduled_event_id);
            }
            Some(EventAttributes::ActivityTaskTimedOutEventAttributes(a)) => {
                self.activities.remove(&a.scheduled_event_id);
            }
            Some(EventAttributes::ActivityTaskCanceledEventAttributes(a)) => {
                self.activities.remove(&a.scheduled_event_id);
            }
            Some(EventAttributes::TimerStartedEventAttributes(a)) => {
                self.timers.insert(event.event_id, a.timer_id.clone());
            }
            Some(EventAttributes::TimerFiredEventAttributes(a)) => {
                self.timers.remove(&a.started_event_id);
            }
            Some(EventAttributes::TimerCanceledEventAttributes(a)) => {
                self.timers.remove(&a.started_event_id);
            }
            Some(EventAttributes::WorkflowExecutionCancelRequestedEventAttributes(_)) => {
                self.cancel_requested = true;
            }
            Some(EventAttributes::WorkflowExecutionUpdateAcceptedEventAttributes(a)) => {
                self.updates.insert(a.protocol_instance_id.clone());
            }
            Some(EventAttributes::WorkflowExecutionUpdateCompletedEventAttributes(a)) => {
                self.updates.remove(&a.meta.clone().unwrap_or_default().update_id);
            }
            Some(
                EventAttributes::StartChildWorkflowExecutionInitiatedEventAttributes(_)
                | EventAttributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(_)
                | EventAttributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_),
            ) => {
                self.others.insert(event.event_id);
            }
            _ => {
                if let Some(answer) = answer(event)
                    && answer.is_last
                {
                    self.others.remove(&answer.initiated_event_id);
                }
            }
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.activities.is_empty()
            && self.timers.is_empty()
            && self.others.is_empty()
            && self.updates.is_empty()
    }
}

/// What a command is made from.
pub(crate) struct Draft<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) view: &'a View,
    /// Unlike any other command's of the simulation.
    pub(crate) name: String,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct CommandKind {
    /// Part of the IDs that its commands have.
    pub(crate) name: &'static str,
    pub(crate) weight: u32,
    /// None if the run has nothing that it could be about.
    pub(crate) make: fn(&mut Draft<'_>) -> Option<Command>,
    pub(crate) command: CommandType,
    /// What it leaves in history if the task that it is part of is acknowledged.
    pub(crate) event: EventType,
    /// Whether it ends the run, and so comes last.
    pub(crate) closes: bool,
}

macro_rules! row {
    ($name:literal, $weight:literal, $make:ident, $command:ident => $event:ident) => {
        row!($name, $weight, $make, $command => $event, false)
    };
    ($name:literal, $weight:literal, $make:ident, $command:ident => $event:ident, $closes:literal) => {
        CommandKind {
            name: $name,
            weight: $weight,
            make: $make,
            command: CommandType::$command,
            event: EventType::$event,
            closes: $closes,
        }
    };
}

/// What workflows ask for.
pub(crate) const COMMANDS: &[CommandKind] = &[
    row!("activity", 30, activity, ScheduleActivityTask => ActivityTaskScheduled),
    row!("activity-cancel", 8, activity_cancel, RequestCancelActivityTask => ActivityTaskCancelRequested),
    row!("timer", 20, timer, StartTimer => TimerStarted),
    row!("timer-cancel", 8, timer_cancel, CancelTimer => TimerCanceled),
    row!("marker", 8, marker, RecordMarker => MarkerRecorded),
    row!("memo", 4, memo, ModifyWorkflowProperties => WorkflowPropertiesModified),
    row!("attributes", 3, search_attributes, UpsertWorkflowSearchAttributes => UpsertWorkflowSearchAttributes),
    row!("child", 12, child, StartChildWorkflowExecution => StartChildWorkflowExecutionInitiated),
    row!("signal-other", 8, signal_external, SignalExternalWorkflowExecution => SignalExternalWorkflowExecutionInitiated),
    row!("cancel-other", 4, cancel_external, RequestCancelExternalWorkflowExecution => RequestCancelExternalWorkflowExecutionInitiated),
    row!("bad-activity", 2, bad_activity, ScheduleActivityTask => ActivityTaskScheduled),
    row!("bad-timer", 2, bad_timer, CancelTimer => TimerCanceled),
    row!("complete", 4, complete, CompleteWorkflowExecution => WorkflowExecutionCompleted, true),
    row!("fail", 2, fail, FailWorkflowExecution => WorkflowExecutionFailed, true),
    row!("fail-once", 3, fail_once, FailWorkflowExecution => WorkflowExecutionFailed, true),
    row!("continue", 4, continue_as_new, ContinueAsNewWorkflowExecution => WorkflowExecutionContinuedAsNew, true),
    row!("cancel", 2, cancel, CancelWorkflowExecution => WorkflowExecutionCanceled, true),
];

/// The row of a command, by its type.
pub(crate) fn event_of(command: CommandType) -> Option<EventType> {
    COMMANDS.iter().find(|k| k.command == command).map(|k| k.event)
}

pub(crate) fn command(kind: CommandType, attributes: Attributes) -> Option<Command> {
    Some(Command { command_type: kind as i32, attributes: Some(attributes), ..Command::default() })
}

pub(crate) fn millis(rng: &mut Rng, low: u64, high: u64) -> Option<prost_types::Duration> {
    Some(proto_duration(Duration::from_millis(rng.between(low, high))))
}

fn activity(d: &mut Draft<'_>) -> Option<Command> {
    let attempts = [0, 1, 1, 2, 5][d.rng.below(5)];
    let heartbeat = d.rng.chance(40).then(|| millis(d.rng, 500, 5_000)).flatten();
    let close = d.rng.chance(60).then(|| millis(d.rng, 1_000, 40_000)).flatten();
    let start = d.rng.chance(30).then(|| millis(d.rng, 500, 20_000)).flatten();
    command(
        CommandType::ScheduleActivityTask,
        Attributes::ScheduleActivityTaskCommandAttributes(
            commandpb::ScheduleActivityTaskCommandAttributes {
                activity_id: d.name.clone(),
                activity_type: Some(ActivityType { name: "simulated".into() }),
                task_queue: queue(QUEUE),
                input: payload::text(&d.name),
                schedule_to_close_timeout: close,
                schedule_to_start_timeout: start,
                start_to_close_timeout: millis(d.rng, 500, 20_000),
                heartbeat_timeout: heartbeat,
                retry_policy: Some(RetryPolicy {
                    initial_interval: millis(d.rng, 100, 2_000),
                    backoff_coefficient: 1.5,
                    maximum_interval: millis(d.rng, 2_000, 5_000),
                    maximum_attempts: attempts,
                    ..RetryPolicy::default()
                }),
                ..Default::default()
            },
        ),
    )
}

fn activity_cancel(d: &mut Draft<'_>) -> Option<Command> {
    let open: Vec<i64> = d.view.activities.iter().copied().collect();
    let scheduled_event_id = *d.rng.pick(&open)?;
    command(
        CommandType::RequestCancelActivityTask,
        Attributes::RequestCancelActivityTaskCommandAttributes(
            commandpb::RequestCancelActivityTaskCommandAttributes { scheduled_event_id },
        ),
    )
}

fn timer(d: &mut Draft<'_>) -> Option<Command> {
    // Few names, so that they are used again.
    let timer_id = format!("timer{}", d.rng.below(4));
    if d.view.timers.values().any(|t| *t == timer_id) && d.rng.chance(90) {
        return None;
    }
    let start_to_fire_timeout = millis(d.rng, 1, 15_000);
    command(
        CommandType::StartTimer,
        Attributes::StartTimerCommandAttributes(commandpb::StartTimerCommandAttributes {
            timer_id,
            start_to_fire_timeout,
        }),
    )
}

fn timer_cancel(d: &mut Draft<'_>) -> Option<Command> {
    let running: Vec<&String> = d.view.timers.values().collect();
    let timer_id = (*d.rng.pick(&running)?).clone();
    command(
        CommandType::CancelTimer,
        Attributes::CancelTimerCommandAttributes(commandpb::CancelTimerCommandAttributes {
            timer_id,
        }),
    )
}

fn marker(d: &mut Draft<'_>) -> Option<Command> {
    command(
        CommandType::RecordMarker,
        Attributes::RecordMarkerCommandAttributes(commandpb::RecordMarkerCommandAttributes {
            marker_name: d.name.clone(),
            ..Default::default()
        }),
    )
}

fn memo(d: &mut Draft<'_>) -> Option<Command> {
    // One field at a time: the order of a map's fields on the wire is chance of another kind.
    let value = Payload { data: d.name.clone().into(), ..Payload::default() };
    let upserted_memo = Some(Memo { fields: [("memo".to_owned(), value)].into() });
    command(
        CommandType::ModifyWorkflowProperties,
        Attributes::ModifyWorkflowPropertiesCommandAttributes(
            commandpb::ModifyWorkflowPropertiesCommandAttributes { upserted_memo },
        ),
    )
}

fn bad_activity(d: &mut Draft<'_>) -> Option<Command> {
    command(
        CommandType::ScheduleActivityTask,
        Attributes::ScheduleActivityTaskCommandAttributes(
            commandpb::ScheduleActivityTaskCommandAttributes {
                activity_id: d.name.clone(),
                activity_type: Some(ActivityType { name: "without timeouts".into() }),
                task_queue: queue(QUEUE),
                ..Default::default()
            },
        ),
    )
}

fn bad_timer(_: &mut Draft<'_>) -> Option<Command> {
    command(
        CommandType::CancelTimer,
        Attributes::CancelTimerCommandAttributes(commandpb::CancelTimerCommandAttributes {
            timer_id: "never started".into(),
        }),
    )
}

pub(crate) fn complete(d: &mut Draft<'_>) -> Option<Command> {
    command(
        CommandType::CompleteWorkflowExecution,
        Attributes::CompleteWorkflowExecutionCommandAttributes(
            commandpb::CompleteWorkflowExecutionCommandAttributes {
                result: payload::text(&d.name),
            },
        ),
    )
}

/// A failure that says this.
pub(crate) fn failure(message: &str, non_retryable: bool) -> Option<Failure> {
    Some(Failure {
        message: message.to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
            r#type: "Simulated".into(),
            non_retryable,
            ..Default::default()
        })),
        ..Failure::default()
    })
}

fn fail(d: &mut Draft<'_>) -> Option<Command> {
    command(
        CommandType::FailWorkflowExecution,
        Attributes::FailWorkflowExecutionCommandAttributes(
            commandpb::FailWorkflowExecutionCommandAttributes { failure: failure(&d.name, true) },
        ),
    )
}

/// A retry policy, if there is one, makes another run of it.
fn fail_once(d: &mut Draft<'_>) -> Option<Command> {
    command(
        CommandType::FailWorkflowExecution,
        Attributes::FailWorkflowExecutionCommandAttributes(
            commandpb::FailWorkflowExecutionCommandAttributes { failure: failure(&d.name, false) },
        ),
    )
}

fn cancel(d: &mut Draft<'_>) -> Option<Command> {
    if !d.view.cancel_requested {
        return None;
    }
    command(
        CommandType::CancelWorkflowExecution,
        Attributes::CancelWorkflowExecutionCommandAttributes(Default::default()),
    )
}

/// Some commands, the closing one, if any, last.
pub(crate) fn draw(rng: &mut Rng, view: &View, name: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    for n in 0..rng.below(4) {
        let kind = rng.weighted(COMMANDS, |k| k.weight);
        let mut draft = Draft { rng, view, name: format!("{name}.{n}.{}", kind.name) };
        if let Some(command) = (kind.make)(&mut draft) {
            commands.push(command);
            if kind.closes {
                break;
            }
        }
    }
    commands
}
