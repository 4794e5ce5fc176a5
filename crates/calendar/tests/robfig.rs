//! What the cron library of the Temporal server answered, and what we answer.

#![allow(clippy::unwrap_used)]

use everspan_calendar::Cron;
use everspan_types::Time;

fn seconds(text: &str) -> i64 {
    text.parse().unwrap()
}

#[test]
fn as_the_library_of_the_temporal_server() {
    let (mut refused, mut compared, mut wrong) = (0, 0, Vec::new());
    let mut current = ("", None);
    for line in include_str!("robfig.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some(text) = line.strip_prefix('!') {
            assert!(Cron::parse(text).is_err(), "{text:?} is to be refused");
            refused += 1;
        } else if let Some(text) = line.strip_prefix('=') {
            let cron = Cron::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            current = (text, Some(cron));
        } else {
            let (after, wait) = line.split_once(' ').unwrap();
            let after = seconds(after);
            let expected = (wait != "-").then(|| after + seconds(wait));
            let start = Time::from_millis(u64::try_from(after).unwrap() * 1000);
            let next = current.1.as_ref().unwrap().next(start);
            let next = next.map(|next| i64::try_from(next.as_nanos() / 1_000_000_000).unwrap());
            compared += 1;
            // Where offsets change at 0:01, the library may answer a time before: we do not.
            let right = match expected {
                Some(expected) if expected <= after => next > Some(after),
                _ => next == expected,
            };
            if !right {
                wrong.push(format!("{} after {after}: {next:?}, not {expected:?}", current.0));
            }
        }
    }
    assert!(refused > 50 && compared > 4000, "{refused} refused, {compared} compared");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
}
