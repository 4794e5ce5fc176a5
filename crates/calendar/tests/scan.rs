//! Every time that is found matches, and none before it does: compared with a scan, minute by
//! minute, that shares no code with the search.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use everspan_calendar::Cron;
use everspan_types::Time;
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};
use proptest::prelude::*;

/// Zones whose changes leave no midnight out (there the library, and so we, may skip a day), and
/// are of whole hours (on Lord Howe's day of half an hour less, `* 2 * * *` is first at 02:30).
const ZONES: [&str; 6] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Pacific/Auckland",
    "Asia/Kathmandu",
];
/// How far the scan goes, in minutes.
const SCAN: u64 = 100 * 24 * 60;

/// A field: its text, its values, and whether it is a star.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: BTreeSet<i8>,
    starred: bool,
}

fn field(min: i8, max: i8) -> impl Strategy<Value = Field> {
    let range = (min..=max, min..=max, 1..=max).prop_map(move |(a, b, step)| {
        let (low, high) = (a.min(b), a.max(b));
        let set = (low..=high).step_by(usize::try_from(step).unwrap()).collect::<BTreeSet<_>>();
        (format!("{low}-{high}/{step}"), set)
    });
    let value = (min..=max).prop_map(|value| (value.to_string(), BTreeSet::from([value])));
    let list = prop::collection::vec(prop_oneof![range, value], 1..4).prop_map(|parts| Field {
        text: parts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(","),
        values: parts.into_iter().flat_map(|(_, values)| values).collect(),
        starred: false,
    });
    let star = Just(Field { text: "*".to_owned(), values: (min..=max).collect(), starred: true });
    prop_oneof![star, list]
}

fn matches(fields: &[Field; 5], zone: &TimeZone, second: i64) -> bool {
    let at = zone.to_datetime(Timestamp::from_second(second).unwrap());
    let [minute, hour, day_of_month, month, day_of_week] = fields;
    let of_month = day_of_month.values.contains(&at.day());
    let of_week = day_of_week.values.contains(&at.weekday().to_sunday_zero_offset());
    let day = if day_of_month.starred || day_of_week.starred {
        of_month && of_week
    } else {
        of_month || of_week
    };
    at.second() == 0
        && minute.values.contains(&at.minute())
        && hour.values.contains(&at.hour())
        && month.values.contains(&at.month())
        && day
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_missed(
        fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)),
        zone in prop::sample::select(&ZONES),
        // 2015 to 2035.
        after in 1_420_070_400_000_u64..2_051_222_400_000,
    ) {
        let fields = [fields.0, fields.1, fields.2, fields.3, fields.4];
        let texts: Vec<&str> = fields.iter().map(|field| field.text.as_str()).collect();
        let cron = Cron::parse(&format!("CRON_TZ={zone} {}", texts.join(" "))).unwrap();
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();

        let next = cron.next(Time::from_millis(after)).map(|next| next.as_nanos());
        if let Some(next) = next {
            prop_assert_eq!(next % 60_000_000_000, 0);
            prop_assert!(next / 1_000_000 > after);
            let second = i64::try_from(next / 1_000_000_000).unwrap();
            prop_assert!(matches(&fields, &zone, second));
        }
        let first = after / 60_000 + 1;
        let scanned = (first..first + SCAN)
            .find(|minute| matches(&fields, &zone, i64::try_from(minute * 60).unwrap()))
            .map(|minute| minute * 60_000_000_000);
        match (scanned, next) {
            (Some(_), _) => prop_assert_eq!(scanned, next),
            (None, Some(next)) => prop_assert!(next / 60_000_000_000 >= first + SCAN),
            (None, None) => {}
        }
    }
}
