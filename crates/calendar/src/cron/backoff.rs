use std::time::Duration;

use everspan_types::Time;

use super::{Cron, Kind, SECOND};

/// From how far before now the times of fields are gone through one by one. Those before it
/// make no difference, and could be very many.
const LOOK_BACK: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// How long the next run of a cron workflow waits, in whole seconds, rounded up; nothing if it
/// is never due again.
///
/// `scheduled` is when the previous run was due (its start and its first workflow task's
/// backoff), `now` when the next one is made. The next is due at the first time of the chain
/// from `scheduled` on that is not before `now`, so times that passed during a run are left out;
/// if `scheduled` is still to come, it is that.
#[must_use]
pub fn backoff(cron: &Cron, scheduled: Time, now: Time) -> Option<Duration> {
    let due = if now < scheduled { scheduled } else { due(cron, scheduled, now)? };
    let wait = due.since(now);
    // By way of a float, as the Temporal server does it: matters after 2^53 nanoseconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let seconds = wait.as_secs_f64().ceil() as u64;
    Some(Duration::from_secs(seconds))
}

fn due(cron: &Cron, scheduled: Time, now: Time) -> Option<Time> {
    if let Kind::Every(delay) = cron.0 {
        let first = cron.next(scheduled)?;
        let more = now.since(first).as_nanos().div_ceil(u128::from(delay) * u128::from(SECOND));
        let nanos = u64::try_from(more).ok()?.checked_mul(delay)?.checked_mul(SECOND)?;
        return first.as_nanos().checked_add(nanos).map(Time::from_nanos);
    }
    let mut due = cron.next(scheduled.max(now - LOOK_BACK))?;
    while due < now {
        due = cron.next(due)?;
    }
    Some(due)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since midnight, 2026-06-01.
    fn at(seconds: f64) -> Time {
        Time::from_millis(1_780_272_000_000) + Duration::from_secs_f64(seconds)
    }

    fn wait(cron: &str, scheduled: f64, now: f64) -> Option<u64> {
        let cron = Cron::parse(cron).unwrap();
        backoff(&cron, at(scheduled), at(now)).map(|wait| wait.as_secs())
    }

    #[test]
    fn times_that_passed_are_left_out() {
        assert_eq!(wait("*/10 * * * *", 0.0, 1.0), Some(599));
        assert_eq!(wait("*/10 * * * *", 0.0, 2_399.5), Some(1));
        assert_eq!(wait("*/10 * * * *", 0.0, 2_400.0), Some(0));
        assert_eq!(wait("*/10 * * * *", 0.0, 2_400.5), Some(600));
        assert_eq!(wait("@every 7s", 0.5, 20.25), Some(1));
        assert_eq!(wait("@every 7s", 0.5, 21.0), Some(0));
        assert_eq!(wait("@every 7s", 0.5, 21.5), Some(7));
        assert_eq!(wait("@every 1h", 0.5, 0.5), Some(3600));
    }

    #[test]
    fn what_is_still_to_come_is_waited_for() {
        assert_eq!(wait("@daily", 30.0, 10.25), Some(20));
    }

    #[test]
    fn a_long_run_is_no_long_search() {
        let year = 365.0 * 86_400.0;
        assert_eq!(wait("* * * * *", 0.0, 50.0 * year + 1.0), Some(59));
        assert_eq!(wait("@every 1s", 0.0, 50.0 * year + 0.5), Some(1));
        assert_eq!(wait("@yearly", 0.0, 1.0), Some(214 * 86_400 - 1));
    }

    #[test]
    fn never() {
        assert_eq!(wait("0 0 31 4 *", 0.0, 1.0), None);
    }
}
