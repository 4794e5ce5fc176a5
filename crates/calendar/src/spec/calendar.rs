//! One calendar of a schedule: which seconds match it, and which is the next.

use everspan_proto::schedule::{Range, StructuredCalendarSpec};

use super::YEAR_MAX;
use crate::{civil, zone::Zone};

const HOUR: i64 = 3600;

/// A calendar with its ranges as sets, a bit for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    zone: Zone,
    /// No year means every year; no value in any other field matches nothing.
    years: Vec<Range>,
    month: u64,
    day_of_month: u64,
    day_of_week: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// Whether a range, with the defaults of what it leaves at zero, has the value.
fn has(range: &Range, value: i64) -> bool {
    let (start, step) = (i64::from(range.start), i64::from(range.step.max(1)));
    let end = i64::from(range.end).max(start);
    (start..=end).contains(&value) && (value - start) % step == 0
}

fn set(ranges: &[Range]) -> u64 {
    (0..63)
        .filter(|value| ranges.iter().any(|range| has(range, *value)))
        .fold(0, |bits, value| bits | 1 << value)
}

fn bit(bits: u64, value: i64) -> bool {
    u32::try_from(value).is_ok_and(|value| bits.checked_shr(value).is_some_and(|b| b & 1 == 1))
}

impl Calendar {
    pub(super) fn new(calendar: &StructuredCalendarSpec, zone: &Zone) -> Self {
        Self {
            zone: zone.clone(),
            years: calendar.year.clone(),
            month: set(&calendar.month),
            day_of_month: set(&calendar.day_of_month),
            day_of_week: set(&calendar.day_of_week),
            hour: set(&calendar.hour),
            minute: set(&calendar.minute),
            second: set(&calendar.second),
        }
    }

    fn has_year(&self, year: i64) -> bool {
        self.years.is_empty() || self.years.iter().any(|range| has(range, year))
    }

    /// Whether that second matches.
    pub(super) fn matches(&self, unix: i64) -> bool {
        let t = self.zone.local(unix);
        self.has_year(t.year)
            && bit(self.month, t.month)
            && bit(self.day_of_month, t.day)
            && bit(self.day_of_week, t.weekday)
            && bit(self.hour, t.hour)
            && bit(self.minute, t.minute)
            && bit(self.second, t.second)
    }

    /// The first second after `unix` that matches, up to the end of [`YEAR_MAX`].
    ///
    /// By the fields that the zone shows, from the year inwards. In an hour that comes twice it
    /// finds both; a time that is left out is passed over.
    pub(super) fn next(&self, unix: i64) -> Option<i64> {
        // What matches nothing would be looked for through every second of those years.
        let sets =
            [self.month, self.day_of_month, self.day_of_week, self.hour, self.minute, self.second];
        if sets.contains(&0) {
            return None;
        }
        let zone = &self.zone;
        let t = zone.local(unix);
        let (mut y, mut mo, mut d) = (t.year, t.month, t.day);
        let (mut h, mut m, mut s) = (t.hour, t.minute, t.second + 1);
        // An hour while in the second copy of one that is repeated.
        let mut again = if zone.local(unix - HOUR).hour == h { HOUR } else { 0 };

        'fields: loop {
            if s >= 60 {
                (m, s) = (m + 1, 0);
            }
            if m >= 60 {
                let this = zone.instant(y, mo, d, (h, 0, 0));
                let next = zone.instant(y, mo, d, (h + 1, 0, 0));
                m = 0;
                if again == 0 && next - this > HOUR {
                    // The next one shown is two hours on: this one comes once more before it.
                    again = HOUR;
                } else {
                    h += 1;
                    again = 0;
                }
            }
            if h >= 24 {
                (d, h) = (d + 1, 0);
            }
            if d > civil::days_in_month(y, mo) {
                (mo, d) = (mo + 1, 1);
            }
            if mo > 12 {
                (y, mo) = (y + 1, 1);
            }
            if y > YEAR_MAX {
                return None;
            }
            if !self.has_year(y) {
                (y, mo, d, h, m, s, again) = (y + 1, 1, 1, 0, 0, 0, 0);
                continue 'fields;
            }
            while !bit(self.month, mo) {
                (mo, d, h, m, s, again) = (mo + 1, 1, 0, 0, 0, 0);
                if mo > 12 {
                    continue 'fields;
                }
            }
            while !(bit(self.day_of_month, d)
                && bit(self.day_of_week, zone.local(zone.instant(y, mo, d, (h, m, s))).weekday))
            {
                (d, h, m, s, again) = (d + 1, 0, 0, 0, 0);
                if d > civil::days_in_month(y, mo) {
                    continue 'fields;
                }
            }
            while !bit(self.hour, h) {
                (h, m, s, again) = (h + 1, 0, 0, 0);
                if h >= 24 {
                    continue 'fields;
                }
            }
            while !bit(self.minute, m) {
                (m, s) = (m + 1, 0);
                if m >= 60 {
                    continue 'fields;
                }
            }
            while !bit(self.second, s) {
                s += 1;
                if s >= 60 {
                    continue 'fields;
                }
            }
            let found = zone.instant(y, mo, d, (h, m, s));
            if zone.local(found).hour != h {
                // The zone never shows this.
                (h, m, s) = (h + 1, 0, 0);
                continue 'fields;
            }
            return Some(found + again);
        }
    }
}
