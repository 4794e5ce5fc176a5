use std::time::Duration;

use everspan_proto::{
    command::ScheduleActivityTaskCommandAttributes,
    enums::{EventType, WorkflowTaskFailedCause as Cause},
    history::{ActivityTaskScheduledEventAttributes, history_event::Attributes},
    sdk::UserMetadata,
};

use super::{By, Done, Failed, check_internal_queue, check_size};
use crate::{
    convert::{checked_duration, normal_queue, proto_duration},
    retry::RetryPolicy,
    turn::Turn,
};

const CAUSE: Cause = Cause::BadScheduleActivityAttributes;

/// Schedules an activity.
pub(super) fn apply(
    turn: &mut Turn<'_>,
    by: By<'_>,
    a: &ScheduleActivityTaskCommandAttributes,
    summary: Option<UserMetadata>,
    done: &mut Done,
) -> Result<(), Failed> {
    let bad = |reason: String| Failed::task(CAUSE, reason);
    let limits = turn.ctx.limits;
    let Some(queue) = &a.task_queue else { return Err(bad("taskQueue is not set".into())) };
    let queue = &queue.name;
    if queue.is_empty() {
        return Err(bad("missing task queue name".into()));
    }
    let kind = a.activity_type.clone().unwrap_or_default().name;
    if queue.len() > limits.id_length_max {
        return Err(bad("taskQueue length exceeds limit".into()));
    }
    check_internal_queue(queue, &turn.state.info.task_queue).map_err(bad)?;
    if a.activity_id.is_empty() {
        return Err(bad("activityId is not set".into()));
    }
    if kind.is_empty() {
        return Err(bad("activityType is not set".into()));
    }
    let retry = RetryPolicy::from_proto(&a.retry_policy.clone().unwrap_or_default())
        .map_err(|e| bad(e.to_string()))?;
    for (id, field) in [(&a.activity_id, "activityId"), (&kind, "activityType")] {
        if id.len() > limits.id_length_max {
            return Err(bad(format!(
                "{field} exceeds length limit. Length={} Limit={}",
                id.len(),
                limits.id_length_max
            )));
        }
    }
    everspan_types::check_priority(a.priority.as_ref())
        .map_err(|e| bad(format!("invalid priorities: {e}")))?;
    let timeouts = Timeouts::derive(a, turn.state.info.run_timeout).map_err(bad)?;
    check_size(
        turn,
        a.input.as_ref(),
        CAUSE,
        "ScheduleActivityTaskCommandAttributes.Input exceeds size limit.",
    )?;
    if turn.state.activities.len() >= limits.pending_activities_max {
        return Err(Failed::task(
            Cause::PendingActivitiesLimitExceeded,
            format!(
                "the number of pending activities, {}, has reached the per-workflow limit of {}",
                turn.state.activities.len(),
                limits.pending_activities_max
            ),
        ));
    }
    if turn.state.activities.values().any(|other| other.activity_id == a.activity_id) {
        return Err(Failed::task(
            Cause::ScheduleActivityDuplicateId,
            format!(
                "invalid history builder state for action: add-activitytask-scheduled-event, \
                 ActivityID: {}",
                a.activity_id
            ),
        ));
    }
    let task_queue = normal_queue(queue);
    let id = turn.write_with(
        EventType::ActivityTaskScheduled,
        Attributes::ActivityTaskScheduledEventAttributes(
            #[allow(deprecated)]
            ActivityTaskScheduledEventAttributes {
                activity_id: a.activity_id.clone(),
                activity_type: a.activity_type.clone(),
                task_queue: Some(task_queue),
                header: a.header.clone(),
                input: a.input.clone(),
                schedule_to_close_timeout: Some(proto_duration(timeouts.schedule_to_close)),
                schedule_to_start_timeout: Some(proto_duration(timeouts.schedule_to_start)),
                start_to_close_timeout: Some(proto_duration(timeouts.start_to_close)),
                heartbeat_timeout: Some(proto_duration(timeouts.heartbeat)),
                workflow_task_completed_event_id: by.completed_event_id,
                retry_policy: Some(retry.to_proto()),
                use_workflow_build_id: a.use_workflow_build_id,
                priority: a.priority.clone(),
            },
        ),
        summary,
    );
    // A worker can take eagerly only what it works on: the activities of its own queue.
    let is_eager = a.request_eager_execution && *queue == turn.state.info.task_queue;
    let is_paused = turn.state.is_paused();
    if is_eager && !is_paused {
        done.eager.push(id);
    }
    if is_eager || is_paused {
        turn.withhold_activity(id);
    } else {
        turn.offer_activity(id);
    }
    Ok(())
}

/// An activity's four timeouts; zero is none.
pub(crate) struct Timeouts {
    pub(crate) schedule_to_close: Duration,
    pub(crate) schedule_to_start: Duration,
    pub(crate) start_to_close: Duration,
    pub(crate) heartbeat: Duration,
}

impl Timeouts {
    /// Fills in what the command leaves out and caps all by the run timeout.
    pub(crate) fn derive(
        a: &ScheduleActivityTaskCommandAttributes,
        run_timeout: Duration,
    ) -> Result<Self, String> {
        let read = |d: &Option<prost_types::Duration>, name: &str| {
            checked_duration(d.as_ref()).map_err(|e| format!("invalid {name}: {e}"))
        };
        let mut t = Self {
            schedule_to_close: read(&a.schedule_to_close_timeout, "ScheduleToCloseTimeout")?,
            schedule_to_start: read(&a.schedule_to_start_timeout, "ScheduleToStartTimeout")?,
            start_to_close: read(&a.start_to_close_timeout, "StartToCloseTimeout")?,
            heartbeat: read(&a.heartbeat_timeout, "HeartbeatTimeout")?,
        };
        let or = |d: Duration, other: Duration| if d.is_zero() { other } else { d.min(other) };
        if !t.schedule_to_close.is_zero() {
            t.schedule_to_start = or(t.schedule_to_start, t.schedule_to_close);
            t.start_to_close = or(t.start_to_close, t.schedule_to_close);
        } else if !t.start_to_close.is_zero() {
            t.schedule_to_close = run_timeout;
            if t.schedule_to_start.is_zero() {
                t.schedule_to_start = run_timeout;
            }
        } else {
            return Err(format!(
                "a valid StartToCloseTimeout or ScheduleToCloseTimeout must be set on the \
                 activity. ActivityId={} ActivityType={}",
                a.activity_id,
                a.activity_type.as_ref().map_or("", |t| t.name.as_str())
            ));
        }
        if !run_timeout.is_zero() {
            t.schedule_to_close = t.schedule_to_close.min(run_timeout);
            t.schedule_to_start = t.schedule_to_start.min(run_timeout);
            t.start_to_close = t.start_to_close.min(run_timeout);
            t.heartbeat = t.heartbeat.min(run_timeout);
        }
        t.heartbeat = t.heartbeat.min(t.start_to_close);
        Ok(t)
    }
}
