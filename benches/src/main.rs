//! Figures of the server and of its storage, printed at any time.
//!
//! What lives here: a client that drives the real binary, one process with a directory of its
//! own for each measurement; what the operating system says of that process; small loops over
//! the storage crates. What may not: assertions. A slow machine is no failure, so that nothing
//! here runs in CI; what must hold is a test elsewhere.
//!
//! ```text
//! main ─▶ server: starts `everspan dev`, reads /proc/PID and /metrics
//!   │
//!   ├─▶ load: echo, timer, signal, bare ─▶ report ─▶ one line each
//!   ├─▶ ratios: several of these runs, divided by one another
//!   ├─▶ failover: nodes of a cluster killed under calls; the longest waits
//!   ├─▶ grow: a node that joins a cluster under calls; how long those take
//!   ├─▶ churn: echo for minutes, disk and memory over time
//!   └─▶ storage: checkpoints to sled, writes of the log; no server
//! ```

mod churn;
mod failover;
mod grow;
mod load;
mod ratios;
mod report;
mod server;
mod storage;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{
    load::{Load, Scenario},
    server::{Place, Server},
};

/// Why a measurement cannot be made.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T = (), E = Error> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Workflows of one activity: start, task, activity, task, close
    Echo(Run),
    /// Workflows that start a timer of an hour and stay open
    Timer(Run),
    /// Signals to a few workflows; a task for each batch that the server makes
    Signal(Run),
    /// Calls that ask nothing of any workflow (GetSystemInfo)
    Bare(Run),
    /// Echo, timer and signal, each on a server of its own
    All(Run),
    /// What the same work costs with and without a disk, with one shard and many, and beside a
    /// bare call
    Ratios(Run),
    /// The longest call while the node that leads the most of three is killed, again and again
    Failover(failover::Failover),
    /// Calls while a fourth node joins three and takes its part
    Grow(grow::Grow),
    /// Echo for a while; prints the server's disk and memory over time
    Churn(churn::Churn),
    /// Checkpoints to the database and writes of the log, without a server
    Storage(storage::Storage),
}

/// What is run, and on which server.
#[derive(Clone, Debug, Args)]
struct Run {
    /// Workflows, signals or calls
    #[arg(short, default_value_t = 10_000)]
    n: u64,
    /// Starters at once; for `signal`, workflows
    #[arg(short, default_value_t = 64)]
    c: usize,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    server: server::Options,
}

/// How the load looks.
#[derive(Clone, Debug, Args)]
struct LoadArgs {
    /// Polls for workflow tasks, and as many for activities
    #[arg(long, default_value_t = 32)]
    pollers: usize,
    /// Bytes of each payload
    #[arg(long, default_value_t = 100)]
    size: usize,
}

impl Run {
    fn load(&self, scenario: Scenario) -> Load {
        Load {
            scenario,
            n: self.n,
            starters: self.c,
            pollers: self.load.pollers,
            size: self.load.size,
        }
    }

    /// Runs one scenario on a new server (or the one that was named) and prints its line.
    async fn one(&self, scenario: Scenario) -> Result {
        let server = Server::start(&self.server, Place::Disk, self.server.shards)?;
        println!("{}", self.load(scenario).run(&server).await?);
        Ok(())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result {
    if cfg!(debug_assertions) {
        eprintln!("a build without --release: the figures say nothing");
    }
    match command {
        Command::Echo(run) => run.one(Scenario::Echo).await,
        Command::Timer(run) => run.one(Scenario::Timer).await,
        Command::Signal(run) => run.one(Scenario::Signal).await,
        Command::Bare(run) => run.one(Scenario::Bare).await,
        Command::All(run) => {
            for scenario in [Scenario::Echo, Scenario::Timer, Scenario::Signal] {
                run.one(scenario).await?;
            }
            Ok(())
        }
        Command::Ratios(run) => ratios::print(&run).await,
        Command::Failover(failover) => failover.run().await,
        Command::Grow(grow) => grow.run().await,
        Command::Churn(churn) => churn.run().await,
        Command::Storage(storage) => storage.run(),
    }
}
