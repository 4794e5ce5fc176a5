//! What the code of the Temporal server answered about specs of Schedules and about the backoff
//! of cron schedules, and what we answer.

#![allow(clippy::unwrap_used)]

use std::str::FromStr;

use everspan_calendar::{Cron, Spec, backoff, fill_defaults};
use everspan_proto::schedule::ScheduleSpec;
use everspan_types::Time;
use prost::Message;

const SEED: &str = "0a1b2c3d-0000-4000-8000-000000000001-nightly";

fn number<T: FromStr>(text: &str) -> T {
    text.parse().ok().unwrap_or_else(|| panic!("{text:?} is no number"))
}

fn spec(hexadecimal: &str) -> ScheduleSpec {
    let bytes: Vec<u8> = hexadecimal
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    ScheduleSpec::decode(bytes.as_slice()).unwrap()
}

/// How a spec or a cron schedule answers one of the questions.
fn spec_answer(spec: &Spec, after: i64) -> String {
    let start = Time::from_millis(u64::try_from(after).unwrap() * 1000);
    match spec.next(SEED, start) {
        Ok(Some(due)) => {
            let nominal = i64::try_from(due.nominal.as_nanos() / 1_000_000_000).unwrap();
            let jitter = due.next.since(due.nominal).as_millis();
            format!("{after} {} {jitter}", nominal - after)
        }
        Ok(None) => format!("{after} -"),
        Err(_) => format!("{after} x"),
    }
}

fn cron_answer(cron: &Cron, scheduled: u64, now: u64) -> String {
    match backoff(cron, Time::from_nanos(scheduled), Time::from_nanos(now)) {
        Some(wait) => format!("{scheduled} {now} {}", wait.as_secs()),
        None => format!("{scheduled} {now} -"),
    }
}

enum Asked {
    Nothing,
    Spec(ScheduleSpec),
    Compiled(Box<Spec>),
    Cron(Cron),
}

#[test]
fn as_the_temporal_server() {
    let (mut refused, mut compared, mut wrong) = (0, 0, Vec::new());
    let mut asked = Asked::Nothing;
    for line in include_str!("temporal.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some(bytes) = line.strip_prefix('=') {
            asked = Asked::Spec(spec(bytes));
            continue;
        }
        if let Some(cron) = line.strip_prefix('?') {
            asked = Asked::Cron(Cron::parse(cron).unwrap());
            continue;
        }
        if let (Some(words), Asked::Spec(spec)) = (line.strip_prefix('!'), &asked) {
            let said = Spec::compile(spec).map(drop).map_err(|e| e.to_string());
            if said != Err(words.to_owned()) {
                wrong.push(format!("{spec:?}: {said:?}, not {words:?}"));
            }
            refused += 1;
            continue;
        }
        if let (Some(bytes), Asked::Spec(given)) = (line.strip_prefix('~'), &asked) {
            match Spec::compile(given) {
                Ok(compiled) => {
                    let mut canonical = compiled.canonical().clone();
                    fill_defaults(&mut canonical);
                    let expected = spec(bytes);
                    if canonical != expected {
                        wrong.push(format!("{canonical:?}, not {expected:?}"));
                    }
                    asked = Asked::Compiled(Box::new(compiled));
                }
                Err(error) => {
                    wrong.push(format!("{given:?}: {error}"));
                    asked = Asked::Nothing;
                }
            }
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match &asked {
            Asked::Compiled(spec) => spec_answer(spec, number(words[0])),
            Asked::Cron(cron) => cron_answer(cron, number(words[0]), number(words[1])),
            _ => continue,
        };
        compared += 1;
        if answer != line {
            let what = match &asked {
                Asked::Compiled(spec) => format!("{:?}", spec.canonical()),
                Asked::Cron(cron) => format!("{cron:?}"),
                _ => continue,
            };
            wrong.push(format!("{answer}, not {line}: {what}"));
        }
    }
    assert!(refused > 50 && compared > 1400, "{refused} refused, {compared} compared");
    let some = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {compared}:\n{some}", wrong.len());
}
