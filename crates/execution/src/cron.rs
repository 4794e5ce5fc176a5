//! When a cron schedule's next run begins.

use std::time::Duration;

use everspan_calendar::Cron;
use everspan_types::Time;

/// Backoff of the run after one that was due at `scheduled`, decided at `now`; none without
/// a schedule, or when no time fits it.
#[must_use]
pub(crate) fn backoff(schedule: &str, scheduled: Time, now: Time) -> Option<Duration> {
    if schedule.is_empty() {
        return None;
    }
    let cron = Cron::parse(schedule).ok()?;
    everspan_calendar::backoff(&cron, scheduled, now)
}

/// Checks a cron schedule; an empty one is none.
///
/// # Errors
/// What is wrong, in the real server's words.
pub fn validate(schedule: &str, now: Time) -> Result<(), String> {
    if schedule.is_empty() {
        return Ok(());
    }
    everspan_calendar::validate(schedule, now).map_err(|e| e.to_string())
}
