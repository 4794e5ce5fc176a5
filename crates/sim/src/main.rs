//! Runs seeds, and says which fail.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use clap::Parser;
use everspan_sim::{Counts, MUTATIONS, Mutation, Report, run};

/// Simulates whole nodes, one for each seed, and checks what became of them.
#[derive(Debug, Parser)]
#[command(name = "everspan-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Runs this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Begins no seed after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Prints what happens, line by line.
    #[arg(long)]
    trace: bool,
    /// Threads; one a core unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Builds a bug in, by its name, to see that it is found.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let names = || MUTATIONS.map(|m| format!("{m:?}")).join(", ");
    MUTATIONS
        .into_iter()
        .find(|m| format!("{m:?}") == name)
        .ok_or_else(|| format!("none of {}", names()))
}

fn tell(report: &Report, arguments: &Arguments) {
    for line in &report.lines {
        println!("{line}");
    }
    if report.violations.is_empty() {
        return;
    }
    println!("seed {} fails:", report.seed);
    for what in report.violations.iter().take(10) {
        println!("    {what}");
    }
    let mutation = arguments.mutation.map_or_else(String::new, |m| format!(" --mutation {m:?}"));
    println!("    replay: cargo run -p everspan-sim -- --seed {}{mutation} --trace", report.seed);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.first, arguments.seeds),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(cores).max(1);
    let limit = arguments.seconds.map(Duration::from_secs);
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let work = || {
        let (mut failed, mut done, mut counts) = (0u64, 0u64, Counts::default());
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count || limit.is_some_and(|limit| began.elapsed() >= limit) {
                return (failed, done, counts);
            }
            let report = run(first + n, arguments.mutation, arguments.trace);
            tell(&report, &arguments);
            done += 1;
            failed += u64::from(!report.violations.is_empty());
            counts.add(&report.counts);
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|w| w.join().ok()).collect()
    });
    let (mut failed, mut done, mut counts) = (0, 0, Counts::default());
    for (f, d, c) in results {
        failed += f;
        done += d;
        counts.add(&c);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{done} seeds in {seconds:.1} s, {:.1} a second: {} workflow runs, {} calls ({} \
         acknowledged), {} activity attempts, {} crashes; {failed} seeds failed",
        done as f64 / seconds,
        counts.runs,
        counts.calls,
        counts.acknowledged,
        counts.activities,
        counts.crashes
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
