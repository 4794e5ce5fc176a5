use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

use crate::civil;

const DAY: i64 = 86_400;

/// A time zone: from an instant to the date and clock there, and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(Option<TimeZone>);

/// Date and clock at an instant, in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) year: i64,
    /// 1 is January.
    pub(crate) month: i64,
    pub(crate) day: i64,
    /// 0 is Sunday.
    pub(crate) weekday: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone(None);

    /// The zone of that IANA name, spelt exactly so; the empty name and `UTC` are UTC.
    ///
    /// So is `Local`, which a Temporal server takes for the zone of its machine: those run in
    /// UTC, and this one looks at no machine.
    #[must_use]
    pub fn named(name: &str) -> Option<Zone> {
        if matches!(name, "" | "UTC" | "Local") {
            return Some(Zone::UTC);
        }
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        // The database finds names in any case, and has one for "unknown".
        let exact = zone.iana_name() == Some(name) && !zone.is_unknown();
        exact.then_some(Zone(Some(zone)))
    }

    /// The zone that `data` describes, a file of the zone database (TZif).
    #[must_use]
    pub fn from_data(name: &str, data: &[u8]) -> Option<Zone> {
        TimeZone::tzif(name, data).ok().map(|zone| Zone(Some(zone)))
    }

    /// Seconds that the zone is ahead of UTC at `unix`, an instant in seconds since the epoch.
    pub(crate) fn offset(&self, unix: i64) -> i64 {
        let Zone(Some(zone)) = self else { return 0 };
        Timestamp::from_second(unix).map_or(0, |at| zone.to_offset(at).seconds().into())
    }

    pub(crate) fn local(&self, unix: i64) -> Local {
        let shown = unix + self.offset(unix);
        let (days, seconds) = (shown.div_euclid(DAY), shown.rem_euclid(DAY));
        let civil::Date { year, month, day } = civil::date(days);
        Local {
            year,
            month,
            day,
            weekday: civil::weekday(days),
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// The instant at which the zone shows this; fields outside their range are carried over.
    ///
    /// For what the zone shows twice, or never, the choice is that of Go's `time.Date`: the
    /// offset in force at the wrong instant that one gets by taking the fields for UTC, and if
    /// it is not zero, the one in force where that leads.
    pub(crate) fn instant(&self, year: i64, month: i64, day: i64, clock: (i64, i64, i64)) -> i64 {
        let (hour, minute, second) = clock;
        let shown = civil::days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
        match self.offset(shown) {
            0 => shown,
            offset => shown - self.offset(shown - offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        for name in ["", "UTC", "Local", "Europe/Berlin", "Etc/GMT+5", "EST5EDT", "Asia/Kolkata"] {
            assert!(Zone::named(name).is_some(), "{name}");
        }
        for name in ["utc", "europe/berlin", "Europe", "Mars/Base", "Etc/Unknown", "../UTC", " "] {
            assert!(Zone::named(name).is_none(), "{name}");
        }
    }

    #[test]
    fn gaps_and_overlaps() {
        let zone = Zone::named("America/New_York").unwrap();
        let clock = |unix| {
            let local = zone.local(unix);
            (local.day, local.hour, local.minute)
        };
        // 2026-03-08 02:30 is skipped; 2026-11-01 01:30 comes twice, and the first is meant.
        let skipped = zone.instant(2026, 3, 8, (2, 30, 0));
        assert_eq!(clock(skipped), (8, 1, 30));
        let twice = zone.instant(2026, 11, 1, (1, 30, 0));
        assert_eq!((clock(twice), clock(twice + 3600)), ((1, 1, 30), (1, 1, 30)));
        assert_eq!(clock(zone.instant(2026, 11, 1, (2, 0, 0))), (1, 2, 0));
    }
}
