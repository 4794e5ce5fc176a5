//! The times of a schedule: calendars, intervals and cron strings, less what is excluded.

mod calendar;
mod text;

use everspan_proto::schedule::{IntervalSpec, Range, ScheduleSpec, StructuredCalendarSpec};
use everspan_types::Time;

use self::{calendar::Calendar, text::Compiled};
use crate::zone::Zone;

const YEAR_MIN: i64 = 2000;
/// No schedule is due after the end of this year.
const YEAR_MAX: i64 = 2100;
/// Bytes of a calendar's comment.
const COMMENT_BYTES_MAX: usize = 200;
/// How many excluded times in a row are passed over before a search is given up: two weeks of
/// seconds, as in a Temporal server (its setting `scheduler.specMaxIterations`).
const EXCLUDED_MAX: u32 = 2 * 7 * 24 * 60 * 60;

const SECOND: i64 = 1_000_000_000;
const SECOND_U64: u64 = 1_000_000_000;

/// A schedule's spec, checked and ready for questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    canonical: ScheduleSpec,
    calendars: Vec<Calendar>,
    excluded: Vec<Calendar>,
    /// Interval and phase, in seconds.
    intervals: Vec<(i64, i64)>,
    /// Seconds since the epoch, from which and until which, both included.
    start: i64,
    end: Option<i64>,
    jitter_ms: u64,
}

/// A time of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The time that matches the spec.
    pub nominal: Time,
    /// That, with jitter: when the action is taken.
    pub next: Time,
}

/// Why a spec is refused, in the words of a Temporal server. It answers INVALID_ARGUMENT with
/// "Invalid schedule spec: " before them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    fn new(words: &str) -> Self {
        Self(words.to_owned())
    }
}

/// So many times in a row are excluded that the search for the next was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the schedule calendar specification has too many exclusions. Please modify the specification."
)]
pub struct TooManyExcluded;

impl Spec {
    /// Checks a spec and brings it into its canonical form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(spec: &ScheduleSpec) -> Result<Self, Error> {
        let canonical = canonical(spec)?;
        let zone = zone(&canonical)?;
        let compile = |calendars: &[StructuredCalendarSpec]| {
            calendars.iter().map(|calendar| Calendar::new(calendar, &zone)).collect()
        };
        let seconds = |duration| nanos(duration) / SECOND;
        let unix = |t: &prost_types::Timestamp| {
            t.seconds.saturating_add(i64::from(t.nanos).div_euclid(SECOND))
        };
        Ok(Self {
            calendars: compile(&canonical.structured_calendar),
            excluded: compile(&canonical.exclude_structured_calendar),
            intervals: canonical
                .interval
                .iter()
                .map(|i| (seconds(i.interval.as_ref()).max(1), seconds(i.phase.as_ref()).max(0)))
                .collect(),
            // Time begins with the epoch.
            start: canonical.start_time.as_ref().map_or(0, unix).max(0),
            end: canonical.end_time.as_ref().map(unix),
            jitter_ms: u64::try_from(nanos(canonical.jitter.as_ref()) / 1_000_000).unwrap_or(0),
            canonical,
        })
    }

    /// The spec in its canonical form, which is what a schedule keeps: calendars and cron
    /// strings are structured calendars and intervals, and the time zone of cron strings is the
    /// spec's.
    #[must_use]
    pub fn canonical(&self) -> &ScheduleSpec {
        &self.canonical
    }

    /// The first time after `after`, or nothing if there is none up to the spec's end or 2100.
    ///
    /// The jitter is drawn from `seed` (a Temporal server takes `NAMESPACE_ID-SCHEDULE_ID`) and
    /// the nominal time, and ends before the nominal time that follows.
    ///
    /// # Errors
    /// Too many times in a row are excluded.
    pub fn next(&self, seed: &str, after: Time) -> Result<Option<Due>, TooManyExcluded> {
        let after = i64::try_from(after.as_nanos() / SECOND_U64).unwrap_or(i64::MAX);
        // The first second of the range is in it.
        let mut nominal = after.max(self.start - 1);
        for _ in 0..EXCLUDED_MAX {
            nominal = match self.following(nominal) {
                Some(next) if !self.is_past(next) => next,
                _ => return Ok(None),
            };
            if !self.excluded.iter().any(|calendar| calendar.matches(nominal)) {
                return Ok(self.due(seed, nominal));
            }
        }
        Err(TooManyExcluded)
    }

    /// The first time after `unix` of any calendar or interval, excluded or not.
    fn following(&self, unix: i64) -> Option<i64> {
        let calendars = self.calendars.iter().filter_map(|calendar| calendar.next(unix));
        let intervals = self.intervals.iter().map(|&(interval, phase)| {
            let count = (unix - phase) / interval + 1;
            count.saturating_mul(interval).saturating_add(phase)
        });
        calendars.chain(intervals).min().filter(|next| *next < i64::MAX)
    }

    fn is_past(&self, unix: i64) -> bool {
        self.end.is_some_and(|end| unix > end) || Zone::UTC.local(unix).year > YEAR_MAX
    }

    fn due(&self, seed: &str, nominal: i64) -> Option<Due> {
        let mut range_ms = self.jitter_ms;
        if let Some(following) = self.following(nominal) {
            let until = u64::try_from(following - nominal).unwrap_or(0);
            range_ms = range_ms.min(until.saturating_mul(1000));
        }
        let nanos = u64::try_from(nominal).ok()?.checked_mul(SECOND_U64)?;
        let jitter_ms = jitter(seed, nominal, range_ms);
        Some(Due {
            nominal: Time::from_nanos(nanos),
            next: Time::from_nanos(nanos.saturating_add(jitter_ms * 1_000_000)),
        })
    }
}

/// A number of milliseconds below `range_ms`, the same for the same seed and time.
///
/// The hash is of the time, as Go encodes it (version, big-endian seconds since the year 1,
/// nanoseconds, and -1 for UTC), and the seed; it scales the range, which is at most 32 bits.
fn jitter(seed: &str, unix: i64, range_ms: u64) -> u64 {
    const YEAR_ONE_TO_EPOCH: i64 = 62_135_596_800;
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(unix + YEAR_ONE_TO_EPOCH).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0, 0xff, 0xff]);
    bytes.extend_from_slice(seed.as_bytes());
    let hash = u64::from(farmhash::fingerprint32(&bytes));
    (hash * range_ms.min(u32::MAX.into())) >> 32
}

/// Nanoseconds of a duration, which are zero if there is none, and saturate.
fn nanos(duration: Option<&prost_types::Duration>) -> i64 {
    let Some(duration) = duration else { return 0 };
    duration.seconds.saturating_mul(SECOND).saturating_add(duration.nanos.into())
}

#[allow(deprecated)] // exclude_calendar: clients may still send it
fn canonical(spec: &ScheduleSpec) -> Result<ScheduleSpec, Error> {
    let conflict = || Error::new("conflicting timezone names");
    let mut spec = spec.clone();
    for calendar in std::mem::take(&mut spec.calendar) {
        spec.structured_calendar.push(text::structured(&calendar)?);
    }
    for calendar in std::mem::take(&mut spec.exclude_calendar) {
        spec.exclude_structured_calendar.push(text::structured(&calendar)?);
    }
    // All cron strings must name the same zone, or none of them any.
    let mut cron_zone: Option<String> = None;
    for cron in std::mem::take(&mut spec.cron_string) {
        let (compiled, zone) = text::cron(&cron)?;
        if cron_zone.as_ref().is_some_and(|other| *other != zone) {
            return Err(conflict());
        }
        cron_zone = Some(zone);
        match compiled {
            Compiled::Calendar(calendar) => spec.structured_calendar.push(calendar),
            Compiled::Interval(interval) => spec.interval.push(interval),
        }
    }
    if let Some(zone) = cron_zone.filter(|zone| !zone.is_empty()) {
        let is_other = !spec.timezone_name.is_empty() && spec.timezone_name != zone;
        if is_other || !spec.timezone_data.is_empty() {
            return Err(conflict());
        }
        spec.timezone_name = zone;
    }
    spec.structured_calendar.iter().try_for_each(check_calendar)?;
    spec.exclude_structured_calendar.iter().try_for_each(check_steps)?;
    spec.interval.iter().try_for_each(check_interval)?;
    Ok(spec)
}

/// Ranges of a calendar, with the field's name and bounds.
fn fields(c: &StructuredCalendarSpec) -> [(&'static str, &[Range], i64, i64); 7] {
    [
        ("Second", &c.second, 0, 59),
        ("Minute", &c.minute, 0, 59),
        ("Hour", &c.hour, 0, 23),
        ("DayOfMonth", &c.day_of_month, 1, 31),
        ("Month", &c.month, 1, 12),
        ("Year", &c.year, YEAR_MIN, YEAR_MAX),
        ("DayOfWeek", &c.day_of_week, 0, 6),
    ]
}

fn refuse(errors: &[String]) -> Result<(), Error> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error(format!("invalid calendar spec: {}", errors.join(", "))))
}

fn check_calendar(calendar: &StructuredCalendarSpec) -> Result<(), Error> {
    let mut errors = Vec::new();
    for (name, ranges, min, max) in fields(calendar) {
        for range in ranges {
            let (start, end) = (i64::from(range.start), i64::from(range.end));
            if start < min || start > max {
                errors.push(format!("{name} Start is not in range [{min}-{max}]"));
            }
            if end != 0 && (end < start || end > max) {
                errors.push(format!("{name} End is before Start or not in range [{min}-{max}]"));
            }
            if range.step < 0 {
                errors.push(format!("{name} has invalid Step"));
            }
        }
    }
    if calendar.comment.len() > COMMENT_BYTES_MAX {
        errors.push("comment is too long".to_owned());
    }
    refuse(&errors)
}

/// Of excluded calendars a Temporal server checks nothing, and never comes back from a step
/// below zero; here that alone is refused.
fn check_steps(calendar: &StructuredCalendarSpec) -> Result<(), Error> {
    let errors: Vec<String> = fields(calendar)
        .iter()
        .flat_map(|(name, ranges, ..)| ranges.iter().map(move |range| (name, range)))
        .filter(|(_, range)| range.step < 0)
        .map(|(name, _)| format!("{name} has invalid Step"))
        .collect();
    refuse(&errors)
}

fn check_interval(interval: &IntervalSpec) -> Result<(), Error> {
    let (interval, phase) = (nanos(interval.interval.as_ref()), nanos(interval.phase.as_ref()));
    Err(Error::new(if interval < SECOND {
        "interval is too small"
    } else if phase < 0 {
        "phase is negative"
    } else if phase >= interval {
        "phase cannot be greater than Interval"
    } else {
        return Ok(());
    }))
}

fn zone(spec: &ScheduleSpec) -> Result<Zone, Error> {
    let name = spec.timezone_name.as_str();
    if !spec.timezone_data.is_empty() {
        return Zone::from_data(name, &spec.timezone_data)
            .ok_or_else(|| Error::new("malformed time zone information"));
    }
    Zone::named(name).ok_or_else(|| {
        if name.contains("..") || name.starts_with(['/', '\\']) {
            Error::new("time: invalid location name")
        } else {
            Error(format!("unknown time zone {name}"))
        }
    })
}

/// Writes the defaults into the ranges of a spec, as a schedule's description shows them.
pub fn fill_defaults(spec: &mut ScheduleSpec) {
    let calendars =
        spec.structured_calendar.iter_mut().chain(&mut spec.exclude_structured_calendar);
    for calendar in calendars {
        let fields = [
            &mut calendar.second,
            &mut calendar.minute,
            &mut calendar.hour,
            &mut calendar.day_of_month,
            &mut calendar.month,
            &mut calendar.year,
            &mut calendar.day_of_week,
        ];
        for range in fields.into_iter().flatten() {
            range.end = range.end.max(range.start);
            if range.step == 0 {
                range.step = 1;
            }
        }
    }
}
