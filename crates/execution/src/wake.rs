//! Time: what a run waits for, and what happens when it comes. The shard keeps one wake-up
//! for each run, at the earliest of these; one that comes too early finds nothing due.

use everspan_proto::{
    enums::{EventType, RetryState, TimeoutType},
    history::{TimerFiredEventAttributes, history_event::Attributes},
};
use everspan_types::Time;

use crate::{
    activity::timeouts,
    state::{Activity, State},
    turn::Turn,
};

/// The next instant at which time alone changes the run.
#[must_use]
pub fn next_deadline(state: &State) -> Option<Time> {
    if !state.is_running() {
        return None;
    }
    deadlines(state).min()
}

fn deadlines(state: &State) -> impl Iterator<Item = Time> + '_ {
    let info = &state.info;
    // A speculative task's is kept by whoever keeps the task.
    let task = info.workflow_task.as_ref().filter(|t| !t.is_speculative);
    let task = task.and_then(|task| match task.started_time {
        Some(started) => Some(started + task.timeout),
        None => Some(task.scheduled_time + task.schedule_to_start?),
    });
    [info.run_expiration, info.execution_expiration, info.first_task_at, task]
        .into_iter()
        .flatten()
        .chain(state.timers.values().map(|t| t.fires_at))
        .chain(
            state
                .activities
                .values()
                .flat_map(|a| timeouts(a).map(|(at, _)| at).chain(a.backoff_end())),
        )
}

impl Turn<'_> {
    /// Does everything that is due.
    pub fn wake(&mut self) {
        if !self.state.is_running() {
            return;
        }
        let before = (self.events.len(), self.tasks.len(), self.state.buffered.len());
        self.wake_due();
        if before == (self.events.len(), self.tasks.len(), self.state.buffered.len()) {
            // Woken too early: no reason for a speculative task to be written.
            self.speculative_stamp = None;
        }
    }

    fn wake_due(&mut self) {
        let now = self.ctx.now;
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if due(self.state.info.execution_expiration) {
            return self.time_out(RetryState::Timeout, String::new());
        }
        if due(self.state.info.run_expiration) {
            return self.time_out_run();
        }
        if due(self.state.info.first_task_at) {
            self.state.info.first_task_at = None;
            self.ensure_workflow_task();
        }
        self.wake_workflow_task();
        self.wake_timers();
        self.wake_activities();
    }

    fn wake_workflow_task(&mut self) {
        let Some(task) = &self.state.info.workflow_task else { return };
        let (at, kind) = match (task.started_time, task.schedule_to_start) {
            (Some(started), _) => (started + task.timeout, TimeoutType::StartToClose),
            // Also of one that moved to the normal queue, as with the real server: it times out, and
            // the next one is scheduled there.
            (None, Some(wait)) => (task.scheduled_time + wait, TimeoutType::ScheduleToStart),
            (None, None) => return,
        };
        if at <= self.ctx.now {
            self.time_out_workflow_task(kind);
            self.schedule_next_workflow_task();
        }
    }

    fn wake_timers(&mut self) {
        let mut due: Vec<(Time, i64, String)> = self
            .state
            .timers
            .iter()
            .filter(|(_, t)| t.fires_at <= self.ctx.now)
            .map(|(id, t)| (t.fires_at, t.started_event_id, id.clone()))
            .collect();
        if due.is_empty() {
            return;
        }
        due.sort_unstable();
        for (_, started_event_id, timer_id) in due {
            self.hold(
                EventType::TimerFired,
                Attributes::TimerFiredEventAttributes(TimerFiredEventAttributes {
                    timer_id,
                    started_event_id,
                }),
            );
        }
        self.ensure_workflow_task();
    }

    /// Lets a timeout take effect, and with it what is overdue of the attempt that follows:
    /// shortened options may end the whole activity while its retries would go on. True if
    /// the activity closed.
    fn time_out_overdue_activity(&mut self, id: i64, kind: TimeoutType) -> bool {
        let now = self.ctx.now;
        let mut next = Some(kind);
        while let Some(kind) = next {
            if self.time_out_activity(id, kind) {
                return true;
            }
            let activity = self.state.activities.get(&id);
            let overdue = activity.and_then(|a| timeouts(a).filter(|(at, _)| *at <= now).min());
            next = overdue.map(|(_, kind)| kind);
        }
        false
    }

    fn wake_activities(&mut self) {
        let now = self.ctx.now;
        let overdue = |activity: &Activity| {
            let first = timeouts(activity).min_by_key(|(at, kind)| (*at, rank(*kind)));
            first.filter(|(at, _)| *at <= now)
        };
        let mut due: Vec<(Time, i64, Option<TimeoutType>)> = Vec::new();
        for activity in self.state.activities.values() {
            let id = activity.scheduled_event_id;
            let timeout = overdue(activity).map(|(at, kind)| (at, id, Some(kind)));
            let backoff = activity.backoff_end().filter(|at| *at <= now).map(|at| (at, id, None));
            due.extend(timeout.into_iter().chain(backoff));
        }
        due.sort_unstable();
        let mut closed_any = false;
        for (_, id, what) in due {
            let kind = what.or_else(|| {
                self.end_activity_backoff(id);
                // Woken late, it may have waited too long already.
                self.state.activities.get(&id).and_then(overdue).map(|(_, kind)| kind)
            });
            if let Some(kind) = kind {
                closed_any |= self.time_out_overdue_activity(id, kind);
            }
        }
        if closed_any {
            self.ensure_workflow_task();
        }
    }
}

/// Which of two timeouts at the same moment counts. An eager activity starts in the moment in which
/// it is scheduled; with the real server a little later, so that there its schedule ends first.
const fn rank(kind: TimeoutType) -> u8 {
    match kind {
        TimeoutType::ScheduleToStart => 0,
        TimeoutType::ScheduleToClose => 1,
        TimeoutType::StartToClose => 2,
        TimeoutType::Heartbeat | TimeoutType::Unspecified => 3,
    }
}
