//! The two textual forms of a calendar, turned into the structured one.

use everspan_proto::schedule::{CalendarSpec, IntervalSpec, Range, StructuredCalendarSpec};

use super::{Error, YEAR_MAX, YEAR_MIN};
use crate::duration;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// What a cron string stands for.
pub(super) enum Compiled {
    Calendar(StructuredCalendarSpec),
    Interval(IntervalSpec),
}

/// A field of a textual calendar.
struct Field {
    name: &'static str,
    default: &'static str,
    min: i64,
    max: i64,
    /// Names of values, the first of which is `min`, and how many letters of one are enough.
    names: (&'static [&'static str], usize),
}

impl Field {
    const fn new(name: &'static str, default: &'static str, min: i64, max: i64) -> Self {
        Self { name, default, min, max, names: (&[], 0) }
    }
}

const SECOND: Field = Field::new("Second", "0", 0, 59);
const MINUTE: Field = Field::new("Minute", "0", 0, 59);
const HOUR: Field = Field::new("Hour", "0", 0, 23);
const DAY_OF_MONTH: Field = Field::new("DayOfMonth", "*", 1, 31);
const YEAR: Field = Field::new("Year", "*", YEAR_MIN, YEAR_MAX);
const MONTH: Field = Field { names: (&MONTHS, 3), ..Field::new("Month", "*", 1, 12) };
/// 7 is Sunday, too.
const DAY_OF_WEEK: Field = Field { names: (&DAYS, 2), ..Field::new("DayOfWeek", "*", 0, 7) };

/// The structured form of a calendar.
pub(super) fn structured(calendar: &CalendarSpec) -> Result<StructuredCalendarSpec, Error> {
    let mut errors = Vec::new();
    let mut ranges = |field: &Field, text: &str| {
        field.ranges(text).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        })
    };
    let structured = StructuredCalendarSpec {
        second: ranges(&SECOND, &calendar.second),
        minute: ranges(&MINUTE, &calendar.minute),
        hour: ranges(&HOUR, &calendar.hour),
        day_of_week: ranges(&DAY_OF_WEEK, &calendar.day_of_week),
        day_of_month: ranges(&DAY_OF_MONTH, &calendar.day_of_month),
        month: ranges(&MONTH, &calendar.month),
        year: ranges(&YEAR, &calendar.year),
        comment: calendar.comment.clone(),
    };
    if errors.is_empty() { Ok(structured) } else { Err(Error(errors.join(", "))) }
}

/// What a cron string stands for, and the zone it names, which may be none.
pub(super) fn cron(text: &str) -> Result<(Compiled, String), Error> {
    let mut text = text.trim();
    let mut zone = "";
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let (name, rest) = text
            .split_once(' ')
            .ok_or_else(|| Error::new("CronString has time zone but missing fields"))?;
        zone = name.split_once('=').map_or("", |(_, zone)| zone);
        text = rest;
    }
    let (text, comment) = text.split_once('#').unwrap_or((text, ""));
    let text = text.trim();
    if text.starts_with("@every") {
        // An interval knows no zone.
        return Ok((Compiled::Interval(interval(text)?), String::new()));
    }
    let text = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    let fields: Vec<&str> = text.split_whitespace().take(8).collect();
    let (second, [minute, hour, day_of_month, month, day_of_week], year) = match *fields {
        [a, b, c, d, e] => ("", [a, b, c, d, e], ""),
        [a, b, c, d, e, year] => ("", [a, b, c, d, e], year),
        [second, a, b, c, d, e, year] => (second, [a, b, c, d, e], year),
        _ => return Err(Error::new("CronString does not have 5-7 fields")),
    };
    let calendar = structured(&CalendarSpec {
        second: second.to_owned(),
        minute: minute.to_owned(),
        hour: hour.to_owned(),
        day_of_month: day_of_month.to_owned(),
        month: month.to_owned(),
        year: year.to_owned(),
        day_of_week: day_of_week.to_owned(),
        comment: comment.trim().to_owned(),
    })?;
    Ok((Compiled::Calendar(calendar), zone.to_owned()))
}

/// `@every 14h`, or with a phase, `@every 14h/3h`.
fn interval(text: &str) -> Result<IntervalSpec, Error> {
    let (_, text) = text
        .split_once(' ')
        .ok_or_else(|| Error::new("CronString does not have interval after @every"))?;
    let (interval, phase) = text.split_once('/').unwrap_or((text, ""));
    let read = |text| {
        let nanos = duration::parse_with_days(text).map_err(|e| Error(e.to_string()))?;
        Ok(prost_types::Duration {
            seconds: nanos / 1_000_000_000,
            nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or(0),
        })
    };
    let interval = Some(read(interval)?);
    let phase = if phase.is_empty() { None } else { Some(read(phase)?) };
    Ok(IntervalSpec { interval, phase })
}

impl Field {
    fn ranges(&self, text: &str) -> Result<Vec<Range>, String> {
        let text = match text.trim() {
            "" => self.default,
            text => text,
        };
        if text == "*" && self.name == YEAR.name {
            // Every year is no range.
            return Ok(Vec::new());
        }
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (name, min, max) = (self.name, self.min, self.max);
            let mut steps = part.split('/');
            let values = steps.next().unwrap_or_default();
            let step = match (steps.next(), steps.next()) {
                (_, Some(_)) => return Err(format!("{name} has too many slashes")),
                (Some(""), _) => return Err(format!("{name} missing step value")),
                (Some(step), None) => match duration::integer(step)? {
                    ..1 => return Err(format!("{name} has invalid Step")),
                    step => Some(step),
                },
                (None, None) => None,
            };
            let (start, mut end) = if values == "*" {
                (min, max)
            } else if let Some((low, high)) = values.split_once('-') {
                if high.contains('-') {
                    return Err(format!("{name} has too many dashes"));
                }
                let start = self
                    .value(low, min)
                    .ok_or_else(|| format!("{name} Start is not in range [{min}-{max}]"))?;
                let end = self.value(high, start).ok_or_else(|| {
                    format!("{name} End is before Start or not in range [{min}-{max}]")
                })?;
                (start, end)
            } else {
                let start = self
                    .value(values, min)
                    .ok_or_else(|| format!("{name} is not in range [{min}-{max}]"))?;
                // A value with a step means from there on.
                (start, if step.is_some() { max } else { start })
            };
            let step = step.unwrap_or(1);
            if self.name == DAY_OF_WEEK.name && end == 7 {
                // Sunday is 0. It needs a range of its own, unless the range has 0 already, or
                // can begin there in its place, or steps over 7.
                if (7 - start) % step == 0 && (step > 1 || start > 1) {
                    ranges.push(Range::default());
                    if start == 7 {
                        continue;
                    }
                }
                end = 6;
            }
            // Defaults are left at zero. A step may be more than its field: it wraps there.
            #[allow(clippy::cast_possible_truncation)]
            ranges.push(Range {
                start: start as i32,
                end: if start == end { 0 } else { end as i32 },
                step: if step == 1 { 0 } else { step as i32 },
            });
        }
        Ok(ranges)
    }

    /// A number or a name, or the beginning of one, from `min` to the field's greatest.
    fn value(&self, text: &str, min: i64) -> Option<i64> {
        let (names, letters) = self.names;
        let lower = text.to_lowercase();
        let named = (self.min..)
            .zip(names)
            .find(|(_, name)| text.len() >= letters && name.starts_with(&lower))
            .map(|(value, _)| value);
        let value = named.or_else(|| duration::integer(text).ok())?;
        (min..=self.max).contains(&value).then_some(value)
    }
}
