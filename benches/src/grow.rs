//! How calls fare while a fourth node joins three, takes its part of the shards, and leads some.

use std::time::Duration;

use clap::Args;

use crate::{
    Result,
    failover::watch,
    server::{self, Place, Server},
};

/// How long calls are watched, before and while the node takes its part.
const WATCHED: Duration = Duration::from_secs(20);

/// What is run.
#[derive(Debug, Args)]
pub(crate) struct Grow {
    /// Seconds of starts before: what is to be copied
    #[arg(long, default_value_t = 10)]
    fill: u64,
    #[command(flatten)]
    server: server::Options,
}

impl Grow {
    pub(crate) async fn run(&self) -> Result {
        let mut server = Server::start_nodes(&self.server, Place::Disk, self.server.shards, 3)?;
        let filled = watch(&server, 1, Duration::from_secs(self.fill), || Ok(())).await?;
        let quiet = watch(&server, 1, WATCHED, || Ok(())).await?;
        let mut fourth = None;
        let mut join = server.join(&self.server)?;
        let moving = watch(&server, 1, WATCHED, || {
            fourth = Some(join.command.spawn()?);
            Ok(())
        })
        .await?;
        if let Some(child) = &fourth {
            server.adopt(child.id());
        }
        let leads = server::value(join.http, "everspan_shard_actors");
        if let Some(mut child) = fourth {
            let _ = child.kill();
            let _ = child.wait();
        }
        let errors = filled.errors + quiet.errors + moving.errors;
        let (quiet, during) = (quiet.calls.sorted(), moving.calls.sorted());
        let (before, p99) = (quiet.quantile_ms(0.99), during.quantile_ms(0.99));
        println!(
            "a call: p99 {before:.1} ms before, {p99:.1} ms while the fourth node takes its part, \
             {:.0} ms the longest; it leads {leads} of {} shards; errors {errors}",
            moving.longest.as_secs_f64() * 1000.0,
            self.server.shards,
        );
        println!(
            "{:8.2}  p99 of a call while a node takes its part / before",
            p99 / before.max(1e-9)
        );
        Ok(())
    }
}
