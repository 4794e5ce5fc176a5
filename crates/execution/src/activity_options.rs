//! What operators do to pending activities: pause, unpause, reset, other options. None of it
//! is an event; all of it is gone when the activity closes.

use std::{collections::BTreeSet, time::Duration};

use everspan_proto::{
    activity::ActivityOptions,
    command::ScheduleActivityTaskCommandAttributes,
    common::{ActivityType, RetryPolicy as ProtoPolicy},
    history::ActivityTaskScheduledEventAttributes,
    taskqueue::TaskQueue,
    workflowservice::UpdateActivityOptionsRequest,
};
use everspan_types::{Error, Poller, RESERVED_QUEUE, Result, Time};

use crate::{
    commands::activity_schedule::Timeouts,
    convert::{duration, normal_queue, proto_duration},
    execution_options::merge_priority,
    field_mask,
    pause::Pause,
    retry::RetryPolicy,
    signal::closed,
    state::{Activity, State},
    turn::Turn,
};

/// The activities that a call is about.
#[derive(Clone, Copy, Debug)]
pub enum Selector<'a> {
    /// The one of this ID.
    Id(&'a str),
    /// All of this type.
    Type(&'a str),
    /// All that are pending.
    All,
}

/// Scheduled events of the activities that a call is about, in order.
///
/// # Errors
/// `NOT_FOUND` if there is none.
pub fn select(state: &State, which: Selector<'_>) -> Result<Vec<i64>> {
    let is_meant = |a: &Activity| match which {
        Selector::Id(id) => a.activity_id == id,
        Selector::Type(name) => a.activity_type == name,
        Selector::All => true,
    };
    let ids: Vec<i64> =
        state.activities.iter().filter(|(_, a)| is_meant(a)).map(|(id, _)| *id).collect();
    if ids.is_empty() {
        return Err(Error::not_found(
            "Can't find pending activity with such ID. Invalid activityID or activity already \
             completed",
        ));
    }
    Ok(ids)
}

/// An activity as its scheduled event has it.
#[derive(Clone, Debug)]
pub struct Original {
    /// The event.
    pub scheduled_event_id: i64,
    /// What it says.
    pub attributes: ActivityTaskScheduledEventAttributes,
}

/// How activities are unpaused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unpause {
    /// Begin again with attempt 1.
    pub reset_attempts: bool,
    /// Forget what was reported of progress.
    pub reset_heartbeat: bool,
    /// The next attempt comes within this time.
    pub jitter: Duration,
}

/// How activities are reset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reset {
    /// Forget what was reported of progress.
    pub reset_heartbeat: bool,
    /// Leave paused ones paused.
    pub keep_paused: bool,
    /// The next attempt comes within this time.
    pub jitter: Duration,
}

impl Activity {
    /// When the backoff ends, if that counts: the backoff of a paused activity has no end.
    pub(crate) fn backoff_end(&self) -> Option<Time> {
        self.backoff_until.filter(|_| self.paused.is_none())
    }

    /// Whether no worker has it and none is asked to give it up.
    fn is_scheduled(&self) -> bool {
        self.started.is_none() && !self.cancel_requested
    }

    /// A new attempt is on its way: what a reset asked of it is done.
    pub(crate) fn forget_reset(&mut self) {
        if self.reset_heartbeats {
            self.forget_heartbeat();
        }
        self.reset = false;
        self.reset_heartbeats = false;
    }

    fn forget_heartbeat(&mut self) {
        self.heartbeat_details = None;
        self.last_heartbeat_time = None;
    }

    fn unpause(&mut self) {
        self.paused = None;
        if self.started.is_none() {
            self.stamp += 1;
        }
    }

    /// When the current attempt is due by the policy as it now is.
    fn due_by_policy(&self) -> Time {
        let interval = self.retry.interval(self.attempt);
        match self.last_attempt_complete_time {
            Some(ended) if self.attempt > 1 && !interval.is_zero() => ended + interval,
            _ => self.attempt_scheduled_time,
        }
    }

    fn options(&self) -> ActivityOptions {
        ActivityOptions {
            task_queue: Some(TaskQueue { name: self.task_queue.clone(), ..Default::default() }),
            schedule_to_close_timeout: Some(proto_duration(self.schedule_to_close)),
            schedule_to_start_timeout: Some(proto_duration(self.schedule_to_start)),
            start_to_close_timeout: Some(proto_duration(self.start_to_close)),
            heartbeat_timeout: Some(proto_duration(self.heartbeat)),
            retry_policy: Some(ProtoPolicy {
                non_retryable_error_types: Vec::new(),
                ..self.retry.to_proto()
            }),
            priority: self.priority.clone(),
            ..Default::default()
        }
    }

    /// Takes options over, but for the priority.
    fn set_options(&mut self, options: &ActivityOptions) {
        self.task_queue = options.task_queue.as_ref().map(|q| q.name.clone()).unwrap_or_default();
        self.schedule_to_close = duration(options.schedule_to_close_timeout.as_ref());
        self.schedule_to_start = duration(options.schedule_to_start_timeout.as_ref());
        self.start_to_close = duration(options.start_to_close_timeout.as_ref());
        self.heartbeat = duration(options.heartbeat_timeout.as_ref());
        let policy = options.retry_policy.clone().unwrap_or_default();
        self.retry = RetryPolicy {
            initial_interval: duration(policy.initial_interval.as_ref()),
            backoff_coefficient: policy.backoff_coefficient,
            maximum_interval: duration(policy.maximum_interval.as_ref()),
            maximum_attempts: policy.maximum_attempts,
            non_retryable_error_types: std::mem::take(&mut self.retry.non_retryable_error_types),
        };
    }
}

impl Turn<'_> {
    /// Pauses activities. An attempt that a worker has goes on, and is told so when it
    /// reports; no other follows.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none of that kind or the run is closed; `FAILED_PRECONDITION`
    /// if another request paused one of them.
    pub fn pause_activities(&mut self, which: Selector<'_>, pause: &Pause) -> Result<()> {
        let ids = self.selected(which)?;
        let is_others = |a: &Activity| {
            a.paused.as_ref().is_some_and(|other| other.request_id != pause.request_id)
        };
        if ids.iter().filter_map(|id| self.state.activities.get(id)).any(is_others) {
            return Err(Error::FailedPrecondition("activity is already paused".into()));
        }
        for id in ids {
            self.withdraw_activity(id);
            if let Some(activity) = self.state.activities.get_mut(&id)
                && activity.paused.is_none()
            {
                if activity.is_scheduled() {
                    activity.stamp += 1;
                }
                activity.paused = Some(pause.clone());
            }
        }
        self.update_pause_attribute();
        Ok(())
    }

    /// Lets paused activities go on; those that are not paused are left alone.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none of that kind or the run is closed.
    pub fn unpause_activities(&mut self, which: Selector<'_>, how: Unpause) -> Result<()> {
        for id in self.selected(which)? {
            let at = self.ctx.now + jitter(self.ctx.now, id, how.jitter);
            let Some(activity) = self.state.activities.get_mut(&id) else { continue };
            if activity.paused.is_none() {
                continue;
            }
            activity.unpause();
            if how.reset_attempts {
                activity.attempt = 1;
            }
            if how.reset_heartbeat {
                activity.forget_heartbeat();
            }
            if activity.is_scheduled() {
                self.reschedule_activity(id, at);
            }
        }
        self.update_pause_attribute();
        Ok(())
    }

    /// Sets activities back to their first attempt: at once if none is with a worker,
    /// otherwise from the next on. `originals` restore the options of those they name.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none of that kind or the run is closed.
    pub fn reset_activities(
        &mut self,
        which: Selector<'_>,
        how: Reset,
        originals: &[Original],
    ) -> Result<()> {
        for id in self.selected(which)? {
            let at = self.ctx.now + jitter(self.ctx.now, id, how.jitter);
            self.withdraw_activity(id);
            let Some(activity) = self.state.activities.get_mut(&id) else { continue };
            activity.attempt = 1;
            activity.reset = true;
            activity.reset_heartbeats |= how.reset_heartbeat;
            if let Some(original) = originals.iter().find(|o| o.scheduled_event_id == id) {
                activity.set_options(&original_options(&original.attributes));
            }
            if activity.paused.is_some() && !how.keep_paused {
                activity.unpause();
            }
            if activity.paused.is_none() && activity.is_scheduled() {
                if how.reset_heartbeat {
                    activity.forget_heartbeat();
                }
                activity.stamp += 1;
                self.reschedule_activity(id, at);
            }
        }
        self.update_pause_attribute();
        Ok(())
    }

    /// Changes options of activities; answers with those of the last. `originals` are needed
    /// where the call restores them.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none of that kind or the run is closed, `INVALID_ARGUMENT` if
    /// the options make no sense.
    pub fn update_activity_options(
        &mut self,
        which: Selector<'_>,
        request: &UpdateActivityOptionsRequest,
        originals: &[Original],
    ) -> Result<ActivityOptions> {
        let changes = if request.restore_original {
            let ids = select(self.state, which)?;
            let of = |id: &i64| originals.iter().find(|o| o.scheduled_event_id == *id);
            ids.iter()
                .filter_map(of)
                .map(|o| (o.scheduled_event_id, original_options(&o.attributes)))
                .collect()
        } else {
            self.merged_options(which, request)?
        };
        let mut last = ActivityOptions::default();
        for (id, options) in changes {
            self.withdraw_activity(id);
            let Some(activity) = self.state.activities.get_mut(&id) else { continue };
            activity.set_options(&options);
            activity.priority.clone_from(&options.priority);
            activity.stamp += 1;
            if activity.is_scheduled() {
                let at = activity.due_by_policy();
                self.reschedule_activity(id, at);
            }
            last = options;
        }
        Ok(last)
    }

    /// What each activity's options would be.
    fn merged_options(
        &self,
        which: Selector<'_>,
        request: &UpdateActivityOptionsRequest,
    ) -> Result<Vec<(i64, ActivityOptions)>> {
        if !self.state.is_running() {
            return Err(closed());
        }
        let Some(given) = &request.activity_options else {
            return Err(Error::invalid("ActivityOptions are not provided"));
        };
        let ids = select(self.state, which)?;
        let Some(mask) = &request.update_mask else {
            return Err(Error::invalid("UpdateMask is not provided"));
        };
        let mask = field_mask::paths(mask);
        let mut changes = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(activity) = self.state.activities.get(&id) else { continue };
            let mut options = activity.options();
            merge(&mut options, given, &mask)?;
            if mask.iter().any(|path| path.starts_with("retryPolicy.")) {
                check_policy(options.retry_policy.as_ref())?;
            }
            self.adjust(activity, &mut options)?;
            changes.push((id, options));
        }
        Ok(changes)
    }

    /// Checks options and derives the timeouts that are left out, as when an activity is
    /// scheduled, but for the run's timeout, which does not count here.
    fn adjust(&self, activity: &Activity, options: &mut ActivityOptions) -> Result<()> {
        let limit = self.ctx.limits.id_length_max;
        let queue = options.task_queue.as_ref().map_or("", |q| q.name.as_str());
        if queue.is_empty() {
            return Err(Error::invalid("missing task queue name"));
        }
        if queue.len() > limit {
            return Err(Error::invalid("taskQueue length exceeds limit"));
        }
        if queue.starts_with(RESERVED_QUEUE) && queue != self.state.info.task_queue {
            return Err(Error::invalid(format!(
                "task queue name cannot start with reserved prefix {RESERVED_QUEUE}"
            )));
        }
        let command = ScheduleActivityTaskCommandAttributes {
            activity_id: activity.activity_id.clone(),
            activity_type: Some(ActivityType { name: activity.activity_type.clone() }),
            schedule_to_close_timeout: options.schedule_to_close_timeout,
            schedule_to_start_timeout: options.schedule_to_start_timeout,
            start_to_close_timeout: options.start_to_close_timeout,
            heartbeat_timeout: options.heartbeat_timeout,
            ..Default::default()
        };
        let timeouts = Timeouts::derive(&command, Duration::ZERO).map_err(Error::invalid)?;
        options.task_queue = Some(normal_queue(queue));
        options.schedule_to_close_timeout = Some(proto_duration(timeouts.schedule_to_close));
        options.schedule_to_start_timeout = Some(proto_duration(timeouts.schedule_to_start));
        options.start_to_close_timeout = Some(proto_duration(timeouts.start_to_close));
        options.heartbeat_timeout = Some(proto_duration(timeouts.heartbeat));
        Ok(())
    }

    fn selected(&self, which: Selector<'_>) -> Result<Vec<i64>> {
        if !self.state.is_running() {
            return Err(closed());
        }
        select(self.state, which)
    }

    /// Sets the next offer of an activity that no worker has; one that stood was withdrawn.
    fn reschedule_activity(&mut self, id: i64, at: Time) {
        let now = self.ctx.now;
        let Some(activity) = self.state.activities.get_mut(&id) else { return };
        activity.attempt_scheduled_time = at;
        activity.backoff_until = (at > now).then_some(at);
        activity.last_failure = None;
        // It goes on even if its run is paused, as with the real server.
        activity.withheld = false;
        activity.forget_reset();
        self.offer_activity(id);
    }

    /// Records as started the activities that a worker takes without a poll, and answers
    /// which those are: what was cancelled since, or closed with the run, is not among them.
    pub(crate) fn start_eagerly(&mut self, ids: Vec<i64>, identity: &str) -> Vec<i64> {
        let mut started = Vec::with_capacity(ids.len());
        // A run that closed in the same change has no use for them.
        let is_running = self.state.is_running();
        for id in ids.into_iter().filter(|_| is_running) {
            let Some(activity) = self.state.activities.get_mut(&id) else { continue };
            activity.withheld = false;
            let stamp = activity.stamp;
            let poller = Poller {
                identity: identity.to_owned(),
                request_id: eager_request_id(self.state, id),
                ..Poller::default()
            };
            self.take_activity(id, stamp, &poller);
            started.push(id);
        }
        started
    }
}

/// What a start of an activity is known by when no poll names it: like a poll's, a UUID.
fn eager_request_id(state: &State, id: i64) -> String {
    let run = state.info.run_id.0.as_u128();
    uuid::Uuid::from_u128(run ^ u128::from(id.unsigned_abs()) << 64).to_string()
}

/// A delay below `most`, spread over activities and calls. Decisions have no randomness of
/// their own; time and event stand in for it.
fn jitter(now: Time, id: i64, most: Duration) -> Duration {
    let Ok(most) = u64::try_from(most.as_nanos()) else { return Duration::ZERO };
    if most == 0 {
        return Duration::ZERO;
    }
    // Steele, Lea and Flood's mixing of 64 bits (SplitMix64).
    let mut z = now.as_nanos() ^ id.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_nanos((z ^ (z >> 31)) % most)
}

fn original_options(a: &ActivityTaskScheduledEventAttributes) -> ActivityOptions {
    ActivityOptions {
        task_queue: a
            .task_queue
            .as_ref()
            .map(|q| TaskQueue { name: q.name.clone(), ..Default::default() }),
        schedule_to_close_timeout: a.schedule_to_close_timeout,
        schedule_to_start_timeout: a.schedule_to_start_timeout,
        start_to_close_timeout: a.start_to_close_timeout,
        heartbeat_timeout: a.heartbeat_timeout,
        retry_policy: a.retry_policy.clone(),
        priority: a.priority.clone(),
        ..Default::default()
    }
}

/// Takes over what the mask names.
fn merge(
    into: &mut ActivityOptions,
    from: &ActivityOptions,
    mask: &BTreeSet<String>,
) -> Result<()> {
    let missing = |what: &str| Error::invalid(format!("{what} is not provided"));
    if mask.contains("taskQueue.name") {
        let queue = from.task_queue.as_ref().ok_or_else(|| missing("TaskQueue"))?;
        into.task_queue.get_or_insert_default().name.clone_from(&queue.name);
    }
    if mask.contains("scheduleToCloseTimeout") {
        into.schedule_to_close_timeout = from.schedule_to_close_timeout;
    }
    if mask.contains("scheduleToStartTimeout") {
        into.schedule_to_start_timeout = from.schedule_to_start_timeout;
    }
    if mask.contains("startToCloseTimeout") {
        into.start_to_close_timeout = from.start_to_close_timeout;
    }
    if mask.contains("heartbeatTimeout") {
        into.heartbeat_timeout = from.heartbeat_timeout;
    }
    if from.priority.is_none() && mask.iter().any(|path| PRIORITY_PARTS.contains(&path.as_str())) {
        return Err(missing("Priority"));
    }
    into.priority = merge_priority(into.priority.take(), from.priority.as_ref(), mask);
    let policy = || from.retry_policy.clone().ok_or_else(|| missing("RetryPolicy"));
    if mask.contains("retryPolicy") {
        into.retry_policy = Some(policy()?);
    }
    let merged = into.retry_policy.get_or_insert_default();
    if mask.contains("retryPolicy.initialInterval") {
        merged.initial_interval = policy()?.initial_interval;
    }
    if mask.contains("retryPolicy.backoffCoefficient") {
        merged.backoff_coefficient = policy()?.backoff_coefficient;
    }
    if mask.contains("retryPolicy.maximumInterval") {
        merged.maximum_interval = policy()?.maximum_interval;
    }
    if mask.contains("retryPolicy.maximumAttempts") {
        merged.maximum_attempts = policy()?.maximum_attempts;
    }
    if mask.contains("startDelay") {
        into.start_delay = from.start_delay;
    }
    Ok(())
}

const PRIORITY_PARTS: [&str; 3] =
    ["priority.priorityKey", "priority.fairnessKey", "priority.fairnessWeight"];

/// Checks a policy as it stands: nothing is filled in here.
fn check_policy(policy: Option<&ProtoPolicy>) -> Result<()> {
    let Some(policy) = policy else { return Ok(()) };
    if policy.maximum_attempts != 1 && policy.backoff_coefficient < 1.0 {
        return Err(Error::invalid("BackoffCoefficient cannot be less than 1 on retry policy."));
    }
    // Zero durations stand for none here, where a start's would stand for the defaults;
    // both pass the checks that are left.
    RetryPolicy::from_proto(policy).map(drop)
}
