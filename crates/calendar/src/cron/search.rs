//! The search for the next time that five fields allow.

use super::field::Set;
use crate::zone::Zone;

/// How many years ahead of its beginning's year a search goes.
const YEARS: i64 = 5;
/// How many steps a search takes. Five years of days, with the hours and minutes of the last
/// one, are a few thousand; the limit is for zones that leave out a whole day, where the search
/// may come back to where it was.
const STEPS_MAX: u32 = 100_000;
/// How many minutes to begin later, one by one, if a search ends no later than it began.
const RETRIES_MAX: i64 = 2 * 24 * 60;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// The five fields, and the zone that they speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) minute: Set,
    pub(super) hour: Set,
    pub(super) day_of_month: Set,
    pub(super) month: Set,
    pub(super) day_of_week: Set,
    pub(super) zone: Zone,
}

/// How far a pass through the fields came.
enum Pass {
    Found,
    /// A field wrapped around: those before it are to be looked at again.
    Again,
    OutOfSteps,
}

/// Where a search stands.
struct Search<'a> {
    fields: &'a Fields,
    at: i64,
    /// Whether a field was moved. The first that moves sets the smaller ones to their least.
    moved: bool,
    steps: u32,
}

impl Fields {
    /// The first second after `after` (in seconds since the Unix epoch) that matches.
    ///
    /// Around changes of the offset it follows the library that the Temporal server uses: from
    /// the outermost field inwards, months and days in the zone's calendar, hours and minutes
    /// as elapsed time. So an hour that comes twice is due twice, and a time that is left out
    /// is not made up for. Where midnight itself is left out, that day may be, too. Unlike the
    /// library, it never answers an earlier time (as where 0:01 once became 23:01).
    pub(super) fn next(&self, after: i64) -> Option<i64> {
        if self.minute.is_empty() || self.hour.is_empty() || self.month.is_empty() {
            return None;
        }
        for retry in 0..RETRIES_MAX {
            let found = self.search(after + retry * MINUTE)?;
            if found > after {
                return Some(found);
            }
        }
        None
    }

    fn search(&self, after: i64) -> Option<i64> {
        let mut search = Search { fields: self, at: after + 1, moved: false, steps: 0 };
        let last_year = self.zone.local(search.at).year + YEARS;
        while self.zone.local(search.at).year <= last_year {
            match search.pass() {
                Pass::Found => return Some(search.at),
                Pass::Again => {}
                Pass::OutOfSteps => return None,
            }
        }
        None
    }

    /// If either of the two day fields has a star, both must match; else one is enough.
    fn is_day(&self, day: i64, weekday: i64) -> bool {
        let (of_month, of_week) = (self.day_of_month.has(day), self.day_of_week.has(weekday));
        if self.day_of_month.is_starred() || self.day_of_week.is_starred() {
            of_month && of_week
        } else {
            of_month || of_week
        }
    }
}

impl Search<'_> {
    fn pass(&mut self) -> Pass {
        let fields = self.fields;
        let zone = &fields.zone;

        loop {
            let t = zone.local(self.at);
            if fields.month.has(t.month) {
                break;
            }
            if self.is_first_move() {
                self.at = zone.instant(t.year, t.month, 1, (0, 0, 0));
            }
            let t = zone.local(self.at);
            let clock = (t.hour, t.minute, t.second);
            self.at = zone.instant(t.year, t.month + 1, t.day, clock);
            if zone.local(self.at).month == 1 {
                return Pass::Again;
            }
            if self.is_out_of_steps() {
                return Pass::OutOfSteps;
            }
        }

        loop {
            let t = zone.local(self.at);
            if fields.is_day(t.day, t.weekday) {
                break;
            }
            if self.is_first_move() {
                self.at = zone.instant(t.year, t.month, t.day, (0, 0, 0));
            }
            let t = zone.local(self.at);
            let clock = (t.hour, t.minute, t.second);
            self.at = zone.instant(t.year, t.month, t.day + 1, clock);
            // Midnight may be left out, or the last step may have begun beside it.
            let hour = zone.local(self.at).hour;
            self.at += if hour > 12 { (24 - hour) * HOUR } else { -hour * HOUR };
            if zone.local(self.at).day == 1 {
                return Pass::Again;
            }
            if self.is_out_of_steps() {
                return Pass::OutOfSteps;
            }
        }

        loop {
            let t = zone.local(self.at);
            if fields.hour.has(t.hour) {
                break;
            }
            if self.is_first_move() {
                self.at = zone.instant(t.year, t.month, t.day, (t.hour, 0, 0));
            }
            self.at += HOUR;
            if zone.local(self.at).hour == 0 {
                return Pass::Again;
            }
            if self.is_out_of_steps() {
                return Pass::OutOfSteps;
            }
        }

        loop {
            if fields.minute.has(zone.local(self.at).minute) {
                break;
            }
            if self.is_first_move() {
                // By the instant, whatever the zone shows: some were off by half a minute.
                self.at -= self.at.rem_euclid(MINUTE);
            }
            self.at += MINUTE;
            if zone.local(self.at).minute == 0 {
                return Pass::Again;
            }
            if self.is_out_of_steps() {
                return Pass::OutOfSteps;
            }
        }

        // The sixth field of the library, the second, is always zero here.
        loop {
            if zone.local(self.at).second == 0 {
                return Pass::Found;
            }
            self.moved = true;
            self.at += 1;
            if zone.local(self.at).second == 0 {
                return Pass::Again;
            }
        }
    }

    fn is_first_move(&mut self) -> bool {
        !std::mem::replace(&mut self.moved, true)
    }

    fn is_out_of_steps(&mut self) -> bool {
        self.steps += 1;
        self.steps > STEPS_MAX
    }
}
