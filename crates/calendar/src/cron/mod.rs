//! A workflow's cron schedule: what it may be, and when it is due.

mod backoff;
mod field;
mod search;

use everspan_types::Time;

pub use self::backoff::backoff;
use self::search::Fields;
use crate::{duration, zone::Zone};

const SECOND: u64 = 1_000_000_000;

/// A cron schedule: five fields, a named one such as `@daily`, or `@every 1h30m`; with
/// `CRON_TZ=Europe/Berlin` or `TZ=…` and a blank before it, in that zone instead of UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Fields(Fields),
    /// Seconds from one time to the next, at least one.
    Every(u64),
}

/// Why a text is no cron schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is empty.
    #[error("the cron schedule is empty")]
    Empty,
    /// No zone has that name, or nothing follows it.
    #[error("bad time zone in the cron schedule: {0}")]
    Zone(String),
    /// It begins with `@` and is none of those.
    #[error("unknown descriptor in the cron schedule: {0}")]
    Descriptor(String),
    /// What follows `@every ` is no duration.
    #[error("bad duration in the cron schedule: {0}")]
    Duration(String),
    /// It has not five fields.
    #[error("a cron schedule has 5 fields, this one has {0}")]
    Fields(usize),
    /// A field is not a list of ranges within its bounds.
    #[error("bad {name} in the cron schedule: {text}")]
    Field {
        /// Which field.
        name: &'static str,
        /// What stands there.
        text: String,
    },
}

/// Why a start with this cron schedule is refused: the Temporal server's own words, for a
/// status of INVALID_ARGUMENT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is no cron schedule.
    #[error("invalid CronSchedule.")]
    Unreadable(#[source] Error),
    /// It is one that is never due.
    #[error("invalid CronSchedule, no time can be found to satisfy the schedule")]
    Never,
}

impl Cron {
    /// Reads a cron schedule.
    ///
    /// # Errors
    /// What of it cannot be read.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        let (zone, text) = match text.strip_prefix("CRON_TZ=").or(text.strip_prefix("TZ=")) {
            Some(rest) => {
                // A Temporal server answers INTERNAL if nothing follows the zone.
                let (name, rest) =
                    rest.split_once(' ').ok_or_else(|| Error::Zone(rest.to_owned()))?;
                let zone = Zone::named(name).ok_or_else(|| Error::Zone(name.to_owned()))?;
                (zone, rest.trim())
            }
            None => (Zone::UTC, text),
        };
        if text.starts_with('@') {
            return descriptor(text, zone).map(Self);
        }
        let fields: Vec<&str> = text.split_whitespace().take(6).collect();
        let &[minute, hour, day_of_month, month, day_of_week] = fields.as_slice() else {
            return Err(Error::Fields(text.split_whitespace().count()));
        };
        Ok(Self(Kind::Fields(Fields {
            minute: field::MINUTE.parse(minute)?,
            hour: field::HOUR.parse(hour)?,
            day_of_month: field::DAY_OF_MONTH.parse(day_of_month)?,
            month: field::MONTH.parse(month)?,
            day_of_week: field::DAY_OF_WEEK.parse(day_of_week)?,
            zone,
        })))
    }

    /// The first time at which it is due that is later than `after`, a whole second; nothing if
    /// none is found before the end of the fifth year from then.
    ///
    /// `@every` counts from `after`, whose fraction of a second is dropped.
    #[must_use]
    pub fn next(&self, after: Time) -> Option<Time> {
        let second = after.as_nanos() / SECOND;
        let next = match &self.0 {
            Kind::Fields(fields) => {
                u64::try_from(fields.next(i64::try_from(second).ok()?)?).ok()?
            }
            Kind::Every(delay) => second.checked_add(*delay)?,
        };
        next.checked_mul(SECOND).map(Time::from_nanos)
    }
}

/// Whether a start may have this cron schedule. An empty one is none, and fine.
///
/// # Errors
/// Why not, in the words of the Temporal server.
pub fn validate(text: &str, now: Time) -> Result<(), Invalid> {
    if text.is_empty() {
        return Ok(());
    }
    let cron = Cron::parse(text).map_err(Invalid::Unreadable)?;
    cron.next(now).map(|_| ()).ok_or(Invalid::Never)
}

fn descriptor(text: &str, zone: Zone) -> Result<Kind, Error> {
    if let Some(delay) = text.strip_prefix("@every ") {
        let nanos = duration::parse(delay).map_err(|_| Error::Duration(delay.to_owned()))?;
        // Rounded down to a second, and no less than one.
        return Ok(Kind::Every((u64::try_from(nanos).unwrap_or(0) / SECOND).max(1)));
    }
    let mut fields = Fields {
        minute: field::Set::one(0),
        hour: field::Set::one(0),
        day_of_month: field::DAY_OF_MONTH.all(),
        month: field::MONTH.all(),
        day_of_week: field::DAY_OF_WEEK.all(),
        zone,
    };
    match text {
        "@yearly" | "@annually" => {
            fields.day_of_month = field::Set::one(1);
            fields.month = field::Set::one(1);
        }
        "@monthly" => fields.day_of_month = field::Set::one(1),
        "@weekly" => fields.day_of_week = field::Set::one(0),
        "@daily" | "@midnight" => {}
        "@hourly" => fields.hour = field::HOUR.all(),
        _ => return Err(Error::Descriptor(text.to_owned())),
    }
    Ok(Kind::Fields(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_is_refused_with() {
        let now = Time::from_millis(1_790_000_000_000);
        let said = |text| validate(text, now).map_err(|e| e.to_string());
        assert_eq!(said(""), Ok(()));
        assert_eq!(said("CRON_TZ=Asia/Tokyo 0 9 * * MON-FRI"), Ok(()));
        for text in ["nonsense", "* * * *", "60 * * * *", "TZ=Mars/Base * * * * *", "TZ=UTC", "@x"]
        {
            assert_eq!(said(text), Err("invalid CronSchedule.".into()), "{text}");
        }
        let never = "invalid CronSchedule, no time can be found to satisfy the schedule";
        for text in ["0 0 30 2 *", ", * * * *", "* , * * *", "* * , * *", "* * * , *"] {
            assert_eq!(said(text), Err(never.into()), "{text}");
        }
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let daily = Cron::parse("@daily").unwrap();
        assert_eq!(daily.next(Time::MAX), None);
        let every = Cron::parse("@every 2562047h").unwrap();
        assert_eq!(every.next(Time::MAX), None);
        assert!(every.next(Time::ZERO).is_some());
    }
}
