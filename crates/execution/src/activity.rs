//! Activities after they were scheduled: taken, reported on, closed, retried.

use everspan_proto::{
    common::{Payloads, WorkerVersionStamp},
    enums::{EventType, RetryState, TimeoutType},
    failure::{ApplicationFailureInfo, Failure, ServerFailureInfo, failure::FailureInfo},
    history::{
        ActivityTaskCanceledEventAttributes, ActivityTaskCompletedEventAttributes,
        ActivityTaskFailedEventAttributes, ActivityTaskStartedEventAttributes,
        ActivityTaskTimedOutEventAttributes, HistoryEvent, history_event::Attributes,
    },
};
use everspan_types::{Error, Poller, Result, TaskRef, TaskToken, Time};
use prost::Message;

use crate::{
    convert::{server_failure, timeout_failure},
    retry::is_retryable,
    signal::closed,
    state::{Activity, ActivityStarted},
    turn::Turn,
};

/// Which activity a caller means.
#[derive(Clone, Copy, Debug)]
pub enum ActivityRef<'a> {
    /// The holder of this task token.
    Token(&'a TaskToken),
    /// The workflow's own name for it.
    Id(&'a str),
}

/// What a heartbeat is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The workflow asked to cancel it.
    pub cancel_requested: bool,
    /// It was paused from outside.
    pub paused: bool,
    /// It was reset from outside.
    pub reset: bool,
}

/// What a worker is given with an activity beside its scheduled event.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivityTaken {
    /// The activity as it now stands.
    pub activity: Activity,
}

/// A started event's ID before it is known.
const PENDING_STARTED_EVENT_ID: i64 = 0;

/// Deadlines of an activity, without the end of its backoff. A paused one has none.
pub(crate) fn timeouts(a: &Activity) -> impl Iterator<Item = (Time, TimeoutType)> + use<> {
    let after = |from: Time, wait: std::time::Duration| (!wait.is_zero()).then(|| from + wait);
    let is_live = a.paused.is_none();
    let started = a.started.as_ref().map(|s| s.time);
    let beat = started.map(|s| a.last_heartbeat_time.map_or(s, |h| h.max(s)));
    [
        a.expiration().map(|at| (at, TimeoutType::ScheduleToClose)),
        a.is_due()
            .then(|| after(a.attempt_scheduled_time, a.schedule_to_start))
            .flatten()
            .map(|at| (at, TimeoutType::ScheduleToStart)),
        started.and_then(|s| after(s, a.start_to_close)).map(|at| (at, TimeoutType::StartToClose)),
        beat.and_then(|b| after(b, a.heartbeat)).map(|at| (at, TimeoutType::Heartbeat)),
    ]
    .into_iter()
    .flatten()
    .filter(move |_| is_live)
}

impl Turn<'_> {
    /// Hands an activity to a worker.
    ///
    /// # Errors
    /// `NOT_FOUND` if the offer is stale.
    pub fn start_activity(
        &mut self,
        scheduled_event_id: i64,
        stamp: u32,
        poller: &Poller,
    ) -> Result<ActivityTaken> {
        let stale = || Error::not_found("Activity task not found.");
        let activity = self.state.activities.get(&scheduled_event_id).ok_or_else(stale)?;
        if !self.state.is_running() || !activity.is_offered() || activity.stamp != stamp {
            return Err(stale());
        }
        self.withdraw_activity(scheduled_event_id);
        self.take_activity(scheduled_event_id, stamp, poller);
        let activity = self.state.activities.get(&scheduled_event_id).ok_or_else(stale)?;
        Ok(ActivityTaken { activity: activity.clone() })
    }

    /// Marks an activity, whose offer was withdrawn, as with a worker.
    pub(crate) fn take_activity(&mut self, id: i64, stamp: u32, poller: &Poller) {
        let now = self.ctx.now;
        let Some(activity) = self.state.activities.get_mut(&id) else { return };
        activity.started = Some(ActivityStarted {
            time: now,
            identity: poller.identity.clone(),
            request_id: poller.request_id.clone(),
            stamp,
            worker_version: poller.worker_version.clone(),
        });
        activity.last_worker_identity.clone_from(&poller.identity);
    }

    /// Finds the activity that a report is about. `must_be_started` is false only for a
    /// completion by ID, which may come before any worker took it.
    fn reported(&self, which: ActivityRef<'_>, must_be_started: bool) -> Result<&Activity> {
        if !self.state.is_running() {
            return Err(closed());
        }
        let gone = || {
            Error::not_found(
                "invalid activityID or activity already timed out or invoking workflow is \
                 completed",
            )
        };
        let activity = match which {
            ActivityRef::Token(token) => {
                let TaskRef::Activity { scheduled_event_id, stamp } = token.task else {
                    return Err(Error::invalid("Error deserializing task token."));
                };
                let activity = self.state.activities.get(&scheduled_event_id).ok_or_else(gone)?;
                let started = activity.started.as_ref().ok_or_else(gone)?;
                if activity.attempt != token.attempt || started.stamp != stamp {
                    return Err(gone());
                }
                activity
            }
            ActivityRef::Id(id) => {
                self.state.activities.values().find(|a| a.activity_id == id).ok_or_else(|| {
                    Error::not_found(format!(
                        "cannot find pending activity with ActivityID {id}, check workflow \
                         execution history for more details"
                    ))
                })?
            }
        };
        if must_be_started && activity.started.is_none() {
            return Err(gone());
        }
        Ok(activity)
    }

    /// Takes an activity's result.
    ///
    /// # Errors
    /// `NOT_FOUND` if the activity, this attempt of it, or the run is over.
    pub fn complete_activity(
        &mut self,
        which: ActivityRef<'_>,
        result: Option<Payloads>,
        identity: &str,
        worker_version: Option<WorkerVersionStamp>,
    ) -> Result<()> {
        let by_id = matches!(which, ActivityRef::Id(_));
        let id = self.reported(which, !by_id)?.scheduled_event_id;
        self.withdraw_activity(id);
        let now = self.ctx.now;
        if let Some(activity) = self.state.activities.get_mut(&id)
            && activity.started.is_none()
        {
            // Completed from outside before any worker took it: it starts now.
            activity.started = Some(ActivityStarted {
                time: now,
                identity: identity.to_owned(),
                ..ActivityStarted::default()
            });
        }
        self.hold_started_event(id);
        self.hold(
            EventType::ActivityTaskCompleted,
            Attributes::ActivityTaskCompletedEventAttributes(
                #[allow(deprecated)]
                ActivityTaskCompletedEventAttributes {
                    result,
                    scheduled_event_id: id,
                    started_event_id: PENDING_STARTED_EVENT_ID,
                    identity: identity.to_owned(),
                    worker_version,
                },
            ),
        );
        self.ensure_workflow_task();
        Ok(())
    }

    /// Takes an activity's failure: another attempt follows, or the activity closes.
    ///
    /// # Errors
    /// `NOT_FOUND` if the activity, this attempt of it, or the run is over.
    pub fn fail_activity(
        &mut self,
        which: ActivityRef<'_>,
        failure: Option<Failure>,
        last_heartbeat_details: Option<Payloads>,
        identity: &str,
        worker_version: Option<WorkerVersionStamp>,
    ) -> Result<()> {
        let id = self.reported(which, true)?.scheduled_event_id;
        let now = self.ctx.now;
        if let Some(activity) = self.state.activities.get_mut(&id) {
            if last_heartbeat_details.is_some() {
                activity.heartbeat_details = last_heartbeat_details;
                activity.last_heartbeat_time = Some(now);
            }
            activity.last_attempt_complete_time = Some(now);
            activity.last_attempt_reported = true;
        }
        let failure_or_empty = failure.clone().unwrap_or_default();
        let Err(retry_state) = self.retry_activity(id, &failure_or_empty, true) else {
            return Ok(());
        };
        self.hold_started_event(id);
        self.hold(
            EventType::ActivityTaskFailed,
            Attributes::ActivityTaskFailedEventAttributes(
                #[allow(deprecated)]
                ActivityTaskFailedEventAttributes {
                    failure,
                    scheduled_event_id: id,
                    started_event_id: PENDING_STARTED_EVENT_ID,
                    identity: identity.to_owned(),
                    retry_state: retry_state as i32,
                    worker_version,
                    ..ActivityTaskFailedEventAttributes::default()
                },
            ),
        );
        self.ensure_workflow_task();
        Ok(())
    }

    /// Takes an activity's word that it stopped because it was asked to.
    ///
    /// # Errors
    /// `NOT_FOUND` if the activity, this attempt of it, or the run is over;
    /// `INVALID_ARGUMENT` if nobody asked.
    pub fn cancel_activity(
        &mut self,
        which: ActivityRef<'_>,
        details: Option<Payloads>,
        identity: &str,
    ) -> Result<()> {
        let activity = self.reported(which, true)?;
        if !activity.cancel_requested {
            return Err(Error::invalid(
                "unable to mark activity as canceled without activity being request canceled \
                 first",
            ));
        }
        let id = activity.scheduled_event_id;
        self.close_canceled_activity(id, details, identity);
        self.ensure_workflow_task();
        Ok(())
    }

    /// Closes an activity as canceled.
    pub(crate) fn close_canceled_activity(
        &mut self,
        id: i64,
        details: Option<Payloads>,
        identity: &str,
    ) {
        self.withdraw_activity(id);
        let requested = self.state.activities.get(&id).map_or(0, |a| a.cancel_requested_event_id);
        self.hold_started_event(id);
        self.hold(
            EventType::ActivityTaskCanceled,
            Attributes::ActivityTaskCanceledEventAttributes(
                #[allow(deprecated)]
                ActivityTaskCanceledEventAttributes {
                    details,
                    latest_cancel_requested_event_id: requested,
                    scheduled_event_id: id,
                    started_event_id: PENDING_STARTED_EVENT_ID,
                    identity: identity.to_owned(),
                    ..ActivityTaskCanceledEventAttributes::default()
                },
            ),
        );
    }

    /// Takes an activity's progress; answers what was asked of it meanwhile.
    ///
    /// # Errors
    /// `NOT_FOUND` if the activity, this attempt of it, or the run is over.
    pub fn heartbeat_activity(
        &mut self,
        which: ActivityRef<'_>,
        details: Option<Payloads>,
        identity: &str,
    ) -> Result<Heartbeat> {
        let id = self.reported(which, true)?.scheduled_event_id;
        let now = self.ctx.now;
        let Some(activity) = self.state.activities.get_mut(&id) else {
            return Ok(Heartbeat::default());
        };
        activity.last_heartbeat_time = Some(now);
        activity.heartbeat_details = details;
        if !identity.is_empty() {
            identity.clone_into(&mut activity.last_worker_identity);
        }
        Ok(Heartbeat {
            cancel_requested: activity.cancel_requested,
            paused: activity.paused.is_some(),
            reset: activity.reset,
        })
    }

    /// Lets an activity's timeout take effect; true if the activity closed.
    pub(crate) fn time_out_activity(&mut self, id: i64, kind: TimeoutType) -> bool {
        let Some(activity) = self.state.activities.get(&id) else { return false };
        let (details, cause) = (activity.heartbeat_details.clone(), activity.last_failure.clone());
        let name = match kind {
            TimeoutType::StartToClose => "StartToClose",
            TimeoutType::ScheduleToStart => "ScheduleToStart",
            TimeoutType::ScheduleToClose => "ScheduleToClose",
            _ => "Heartbeat",
        };
        let mut failure = timeout_failure(format!("activity {name} timeout"), kind);
        let Err(retry_state) = self.retry_activity(id, &failure, false) else { return false };
        if retry_state == RetryState::Timeout && kind != TimeoutType::ScheduleToStart {
            failure = timeout_failure(
                "Not enough time to schedule next retry before activity ScheduleToClose \
                 timeout, giving up retrying",
                TimeoutType::ScheduleToClose,
            );
        }
        if let Some(FailureInfo::TimeoutFailureInfo(info)) = &mut failure.failure_info {
            info.last_heartbeat_details = details;
        }
        failure.cause = cause.map(Box::new);
        self.withdraw_activity(id);
        self.hold_started_event(id);
        self.hold(
            EventType::ActivityTaskTimedOut,
            Attributes::ActivityTaskTimedOutEventAttributes(ActivityTaskTimedOutEventAttributes {
                failure: Some(failure),
                scheduled_event_id: id,
                started_event_id: PENDING_STARTED_EVENT_ID,
                retry_state: retry_state as i32,
            }),
        );
        true
    }

    /// Sets the next attempt up, or says why there is none. A worker may report a timeout, too.
    fn retry_activity(
        &mut self,
        id: i64,
        failure: &Failure,
        is_reported: bool,
    ) -> Result<(), RetryState> {
        let now = self.ctx.now;
        let limit = self.ctx.limits.activity_failure_bytes_max;
        let Some(activity) = self.state.activities.get(&id) else {
            return Err(RetryState::InternalServerError);
        };
        if activity.cancel_requested {
            return Err(RetryState::CancelRequested);
        }
        if let Some(FailureInfo::TimeoutFailureInfo(info)) = &failure.failure_info
            && matches!(
                info.timeout_type(),
                TimeoutType::ScheduleToStart | TimeoutType::ScheduleToClose
            )
        {
            return Err(RetryState::Timeout);
        }
        let is_paused = activity.paused.is_some();
        let wait = if is_paused {
            // No count of attempts ends one that is paused; it waits for as long as it is.
            if !is_retryable(failure, &activity.retry.non_retryable_error_types) {
                return Err(RetryState::NonRetryableFailure);
            }
            None
        } else {
            let expiration = activity.retry_expiration;
            Some(activity.retry.next(now, activity.attempt, expiration, failure)?)
        };
        let Some(activity) = self.state.activities.get_mut(&id) else {
            return Err(RetryState::InternalServerError);
        };
        activity.attempt += 1;
        activity.stamp += 1;
        activity.started = None;
        if let Some(wait) = wait {
            activity.backoff_until = Some(now + wait);
            activity.attempt_scheduled_time = now + wait;
            activity.forget_reset();
        }
        activity.last_attempt_complete_time = Some(now);
        activity.last_attempt_reported = is_reported;
        activity.last_failure = Some(truncate(failure, limit));
        Ok(())
    }

    /// Offers an activity whose backoff is over.
    pub(crate) fn end_activity_backoff(&mut self, id: i64) {
        let now = self.ctx.now;
        let Some(activity) = self.state.activities.get_mut(&id) else { return };
        if activity.backoff_until.take().is_some_and(|at| at <= now) {
            self.offer_activity(id);
        }
    }

    /// The started event, which is written only when the activity closes, so that attempts
    /// leave no trace in history. It bears the time of the start.
    fn hold_started_event(&mut self, id: i64) {
        let Some(activity) = self.state.activities.get(&id) else { return };
        let Some(started) = &activity.started else { return };
        let event = HistoryEvent {
            event_time: Some(started.time.to_proto()),
            event_type: EventType::ActivityTaskStarted as i32,
            attributes: Some(Attributes::ActivityTaskStartedEventAttributes(
                #[allow(deprecated)]
                ActivityTaskStartedEventAttributes {
                    scheduled_event_id: id,
                    identity: started.identity.clone(),
                    request_id: started.request_id.clone(),
                    attempt: activity.attempt,
                    last_failure: activity.last_failure.clone(),
                    worker_version: started.worker_version.clone(),
                    ..ActivityTaskStartedEventAttributes::default()
                },
            )),
            ..HistoryEvent::default()
        };
        self.hold_event(event);
    }
}

/// Cuts a failure that is kept between attempts to `limit` bytes: type and message first,
/// then the stack, then causes.
fn truncate(failure: &Failure, limit: usize) -> Failure {
    if failure.encoded_len() <= limit {
        return failure.clone();
    }
    let mut left = limit;
    let mut wrapped = server_failure("Failure exceeds size limit.", false);
    wrapped.cause = Some(Box::new(cut(failure, &mut left, 20)));
    wrapped
}

fn cut(failure: &Failure, left: &mut usize, depth: usize) -> Failure {
    fn text(s: &str, left: &mut usize) -> String {
        let mut end = s.len().min(*left);
        while !s.is_char_boundary(end) {
            end -= 1;
        }
        *left = left.saturating_sub(end + 4);
        s[..end].to_owned()
    }
    let failure_info = match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(i)) => {
            Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
                r#type: text(&i.r#type, left),
                non_retryable: i.non_retryable,
                ..ApplicationFailureInfo::default()
            }))
        }
        Some(FailureInfo::ServerFailureInfo(i)) => {
            Some(FailureInfo::ServerFailureInfo(ServerFailureInfo {
                non_retryable: i.non_retryable,
            }))
        }
        _ => None,
    };
    Failure {
        failure_info,
        source: text(&failure.source, left),
        message: text(&failure.message, left),
        stack_trace: text(&failure.stack_trace, left),
        cause: match &failure.cause {
            Some(cause) if *left > 4 && depth > 0 => Some(Box::new(cut(cause, left, depth - 1))),
            _ => None,
        },
        ..Failure::default()
    }
}
