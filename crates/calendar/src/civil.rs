//! Dates of the proleptic Gregorian calendar, and days since the Unix epoch.

/// Days from 0001-01-01 to 1970-01-01.
const DAYS_TO_EPOCH: i64 = 719_162;
/// Days in 400 years, after which the calendar repeats.
const DAYS_IN_CYCLE: i64 = 146_097;

/// A day: its year, month (from 1) and day of the month (from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
}

pub(crate) fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days in `month`, which is 1 to 12.
pub(crate) fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The day, counted from the Unix epoch, on which `year` begins.
fn first_day(year: i64) -> i64 {
    let past = year - 1;
    let leaps = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400);
    past * 365 + leaps - DAYS_TO_EPOCH
}

/// Days since the Unix epoch. A month or day outside its range is carried over: the 31st of
/// April is the 1st of May, month 13 is January of the next year.
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year + (month - 1).div_euclid(12);
    let month = (month - 1).rem_euclid(12) + 1;
    let before: i64 = (1..month).map(|m| days_in_month(year, m)).sum();
    first_day(year) + before + day - 1
}

/// The date that is `days` after the Unix epoch.
pub(crate) fn date(days: i64) -> Date {
    // Near, and then stepped into place.
    let mut year = 1970 + (days * 400).div_euclid(DAYS_IN_CYCLE);
    while first_day(year) > days {
        year -= 1;
    }
    while first_day(year + 1) <= days {
        year += 1;
    }
    let (mut month, mut day) = (1, days - first_day(year) + 1);
    while day > days_in_month(year, month) {
        day -= days_in_month(year, month);
        month += 1;
    }
    Date { year, month, day }
}

/// 0 is Sunday.
pub(crate) fn weekday(days: i64) -> i64 {
    // The epoch was a Thursday.
    (days + 4).rem_euclid(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        // From 1600 to 2800, by days: past every kind of leap year.
        let mut expected = Date { year: 1600, month: 1, day: 1 };
        for day in days(1600, 1, 1)..days(2800, 1, 1) {
            assert_eq!(date(day), expected);
            assert_eq!(days(expected.year, expected.month, expected.day), day);
            expected.day += 1;
            if expected.day > days_in_month(expected.year, expected.month) {
                (expected.month, expected.day) = (expected.month + 1, 1);
            }
            if expected.month > 12 {
                (expected.year, expected.month) = (expected.year + 1, 1);
            }
        }
    }

    #[test]
    fn known_days() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(weekday(days(1970, 1, 1)), 4);
        assert_eq!(weekday(days(2026, 11, 1)), 0);
        assert_eq!(days(2026, 13, 1), days(2027, 1, 1));
        assert_eq!(days(2025, 2, 29), days(2025, 3, 1));
        assert_eq!(days(2026, 0, 1), days(2025, 12, 1));
    }
}
