//! Echo for a while, with the server's disk and memory over time.

use std::time::{Duration, Instant};

use clap::Args;

use crate::{
    LoadArgs, Result,
    load::{Load, Scenario},
    report::mib,
    server::{self, Place, Server},
};

/// How long, and how it looks.
#[derive(Clone, Debug, Args)]
pub(crate) struct Churn {
    /// How long
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Workflows between two lines
    #[arg(long, default_value_t = 5_000)]
    step: u64,
    /// Starters at once
    #[arg(short, default_value_t = 64)]
    c: usize,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    server: server::Options,
}

impl Churn {
    pub(crate) async fn run(&self) -> Result {
        let server = Server::start(&self.server, Place::Disk, self.server.shards)?;
        let load = Load {
            scenario: Scenario::Echo,
            n: self.step,
            starters: self.c,
            pollers: self.load.pollers,
            size: self.load.size,
        };
        let began = Instant::now();
        let mut closed = 0;
        println!("seconds  closed  per second  cpu ms each  RSS MiB  disk MiB  disk bytes each");
        loop {
            let report = load.run(&server).await?;
            closed += report.done;
            let seconds = began.elapsed().as_secs_f64();
            println!(
                "{seconds:7.0} {closed:7} {:11.0} {:12.3} {:8.0} {:9.0} {:16.0}",
                report.per_second(),
                report.cpu_ms(),
                mib(report.after.rss),
                mib(report.after.disk),
                report.after.disk as f64 / closed.max(1) as f64,
            );
            if report.lost > 0 {
                return Err(format!("{report}").into());
            }
            if began.elapsed() >= Duration::from_secs(self.seconds) {
                return Ok(());
            }
        }
    }
}
