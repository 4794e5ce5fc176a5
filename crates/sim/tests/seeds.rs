//! What CI runs of the simulation: some thousands of seeds, that a seed replays, and that the
//! checker finds bugs which were put in.

#![allow(clippy::unwrap_used)]

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use everspan_sim::{Mutation, Report, run};

/// Seeds that a run of the tests goes through, if time allows; `EVERSPAN_SIM_SEEDS` has another
/// number.
const SEEDS: u64 = 3_000;
/// Seconds after which no seed is begun; `EVERSPAN_SIM_SECONDS` has another number.
const SECONDS: u64 = 90;

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Runs seeds from `first` on over all cores, until one of them fails or `seconds` are over.
/// Returns how many were run, and what failed first.
fn search(
    first: u64,
    count: u64,
    seconds: u64,
    mutation: Option<Mutation>,
) -> (u64, Option<Report>) {
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let (began, limit) = (Instant::now(), Duration::from_secs(seconds));
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count || n > stop.load(Ordering::Relaxed) || began.elapsed() >= limit {
                return None;
            }
            let report = run(first + n, mutation, false);
            done.fetch_add(1, Ordering::Relaxed);
            if !report.violations.is_empty() {
                stop.fetch_min(n, Ordering::Relaxed);
                return Some(report);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|t| t.join().unwrap()).min_by_key(|r| r.seed)
    });
    (done.into_inner(), failed)
}

#[test]
fn seeds_pass() {
    let first = number("EVERSPAN_SIM_FIRST", 0);
    let seeds = number("EVERSPAN_SIM_SEEDS", SEEDS);
    let (done, failed) = search(first, seeds, number("EVERSPAN_SIM_SECONDS", SECONDS), None);
    println!("{done} seeds from {first} on");
    if let Some(report) = failed {
        panic!(
            "seed {} fails: {:#?}\nreplay: cargo run -p everspan-sim -- --seed {} --trace",
            report.seed, report.violations, report.seed
        );
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..40 {
        let (one, other) = (run(seed, None, true), run(seed, None, true));
        let differ = one.lines.iter().zip(&other.lines).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one, other, "seed {seed}");
        assert!(one.lines.len() > 10, "seed {seed} is about nothing");
    }
}

#[test]
fn bugs_that_were_put_in_are_found() {
    // Within how many seeds; several times what it takes, since every change of the code deals
    // the seeds anew. `AnyTerm` takes thousands and is left to longer runs.
    const FOUND_WITHIN: [(Mutation, u64); 14] = [
        (Mutation::EffectsBeforeCommit, 100),
        (Mutation::ReadsBeforeCommit, 1_000),
        (Mutation::ForgetDedupe, 100),
        (Mutation::SkipFsync, 100),
        (Mutation::SkipFlush, 100),
        (Mutation::EarlyTimers, 100),
        (Mutation::KeepStaged, 500),
        (Mutation::ForgetWakes, 100),
        (Mutation::KeepWakes, 2_000),
        (Mutation::ForgetOffers, 2_000),
        (Mutation::KeepRuns, 2_000),
        (Mutation::ForgetStarts, 100),
        (Mutation::ForgetMessages, 2_000),
        (Mutation::ForgetReceipts, 10_000),
    ];
    for (mutation, seeds) in FOUND_WITHIN {
        let (done, found) = search(0, seeds, u64::MAX, Some(mutation));
        let found = found.unwrap_or_else(|| panic!("{mutation:?} is not found in {done} seeds"));
        println!("{mutation:?}: seed {}: {}", found.seed, found.violations[0]);
    }
}
