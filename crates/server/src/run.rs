//! From the command line to an exit code.

use std::{io::Write, panic::AssertUnwindSafe, path::PathBuf, process::ExitCode};

use clap::Parser;
use tracing::{info, warn};

use crate::{
    Config, DataDir, Node,
    cli::{Cli, Command, DevArgs, ServerArgs, reachable},
    cluster, cluster_cli, config,
    local_cluster::{self, LocalCluster},
    logs, node, panics,
    signals::Signals,
};

/// What ends a process before it serves, or as it stops.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    DataDir(#[from] crate::data_dir::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error("the data directory {} cannot be served: {reason}", dir.display())]
    State { dir: PathBuf, reason: String },
    #[error(transparent)]
    Cluster(#[from] local_cluster::Error),
    #[error("{0}")]
    Admin(String),
    #[error("no temporary directory can be made: {0}")]
    Temporary(std::io::Error),
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
    #[error("an internal error while starting; run with --log-level debug to see it")]
    Panicked,
}

/// Runs the process: reads the command line, does what it says.
pub fn run() -> ExitCode {
    panics::install_hook();
    let outcome = match Cli::parse().command {
        Command::Config => {
            // A closed pipe is the reader's choice.
            let _ = std::io::stdout().write_all(config::reference().as_bytes());
            Ok(())
        }
        Command::Cluster(args) => cluster_cli::run(&args).map_err(Error::Admin),
        Command::Dev(args) => dev(&args),
        Command::Server(args) => server(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "everspan: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Variables of the environment; those that are no text cannot be meant for us.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn dev(args: &DevArgs) -> Result<(), Error> {
    let config = args.config(environment())?;
    logs::init(&config.log);
    if args.nodes > 1 {
        return dev_cluster(args, config);
    }
    let shards = asked_for(&config);
    let data = if args.ephemeral {
        DataDir::ephemeral(shards)?
    } else {
        DataDir::open(&config.node.data_dir, shards)?
    };
    serve(&config, data, false, |node, data| {
        let (grpc, http) = (reachable(node.grpc_address()), reachable(node.http_address()));
        let kept = if data.is_ephemeral() { " (ephemeral)" } else { "" };
        println(&format!(
            "\nEverspan {version} is ready.\n\n  \
             gRPC  {grpc}\n  \
             HTTP  http://{http}\n  \
             Data  {dir}{kept}\n\n\
             Stop it with Ctrl-C.\n",
            version = env!("CARGO_PKG_VERSION"),
            dir = std::path::absolute(data.path()).unwrap_or(data.path().to_owned()).display(),
        ));
    })
}

/// Several nodes, each a process of its own.
fn dev_cluster(args: &DevArgs, mut config: Config) -> Result<(), Error> {
    let temporary = args.ephemeral.then(|| tempfile::Builder::new().prefix("everspan-").tempdir());
    let temporary = temporary.transpose().map_err(Error::Temporary)?;
    if let Some(dir) = &temporary {
        config.node.data_dir = dir.path().to_owned();
    }
    let system = actix_rt::System::new();
    let mut signals = system.block_on(async { Signals::catch() }).map_err(Error::Signals)?;
    let mut cluster = LocalCluster::start(&local_cluster::configs(&config, args.nodes))?;
    cluster.await_ready()?;
    let mut lines = String::new();
    for node in &cluster.nodes {
        let (grpc, http) = (reachable(node.grpc), reachable(node.http));
        lines += &format!("  Node {}  gRPC {grpc}  HTTP http://{http}\n", node.id);
    }
    let dir = std::path::absolute(&config.node.data_dir).unwrap_or(config.node.data_dir);
    println(&format!(
        "\nEverspan {version} is ready, as a cluster of {} nodes.\n\n\
         {lines}  Data, logs  {}{}\n\nStop it with Ctrl-C.\n",
        args.nodes,
        dir.display(),
        if args.ephemeral { " (ephemeral)" } else { "" },
        version = env!("CARGO_PKG_VERSION"),
    ));
    system.block_on(async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(500));
        loop {
            tokio::select! {
                () = signals.first() => break,
                _ = looks.tick() => for n in cluster.ended() {
                    let node = &cluster.nodes[n];
                    println(&format!(
                        "Node {} ended; the others go on. Its log is {}; start it again with\n  \
                         everspan server --config {}",
                        node.id, node.log.display(), node.log.with_extension("toml").display(),
                    ));
                },
            }
        }
        let ended = tokio::task::spawn_blocking(move || {
            cluster.stop(|| false);
        });
        tokio::select! {
            _ = ended => {}
            code = signals.second() => std::process::exit(code),
        }
    });
    drop(temporary);
    Ok(())
}

fn server(args: &ServerArgs) -> Result<(), Error> {
    let config = Config::load(Some(&args.config), environment())?;
    logs::init(&config.log);
    let data = DataDir::open(&config.node.data_dir, asked_for(&config))?;
    serve(&config, data, args.stop_at_eof, |_, _| {})
}

/// Prints without minding a reader that went away.
fn println(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Standard input, to be waited for until whoever started this process closes it, or ends.
struct Input(Option<tokio::sync::watch::Receiver<bool>>);

impl Input {
    /// Watches it, if it matters, on a thread that nobody waits for.
    fn watch(matters: bool) -> Self {
        Self(matters.then(|| {
            let (tx, rx) = tokio::sync::watch::channel(false);
            std::thread::spawn(move || {
                // An input that cannot be read has ended.
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                let _ = tx.send(true);
            });
            rx
        }))
    }

    async fn ends(&self) {
        match &self.0 {
            Some(ended) => drop(ended.clone().wait_for(|ended| *ended).await),
            None => std::future::pending().await,
        }
    }
}

fn asked_for(config: &Config) -> Option<u32> {
    Some(config.shards.count).filter(|count| *count > 0)
}

/// Names the directory where a message about what is in it does not.
fn unusable(error: node::Error, data: &DataDir) -> Error {
    let dir = data.path();
    match error {
        node::Error::State(reason) if !reason.contains(&*dir.to_string_lossy()) => {
            Error::State { dir: dir.to_owned(), reason }
        }
        other => other.into(),
    }
}

/// Starts a node, tells that it is ready, and stops it at the first signal.
fn serve(
    config: &Config,
    mut data: DataDir,
    stops_at_eof: bool,
    ready: impl FnOnce(&Node, &DataDir),
) -> Result<(), Error> {
    data.take(cluster::membership(config).as_ref())?;
    for (what, address) in [("gRPC", config.grpc.address), ("HTTP", config.http.address)] {
        if !address.ip().is_loopback() {
            warn!(%address, "{what} is reachable from other machines, without authentication");
        }
    }
    let input = Input::watch(stops_at_eof);
    // Arbiters, on which shards and brokers live, belong to the system of this thread.
    let system = actix_rt::System::new();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        system.block_on(async {
            let mut signals = Signals::catch().map_err(Error::Signals)?;
            let node = tokio::select! {
                started = Node::start(config, &data) => started.map_err(|e| unusable(e, &data))?,
                () = signals.first() => return Ok(()),
                () = input.ends() => return Ok(()),
            };
            panics::serving();
            info!(
                grpc = %node.grpc_address(),
                http = %node.http_address(),
                data_dir = %data.path().display(),
                shards = data.identity().shards,
                version = env!("CARGO_PKG_VERSION"),
                "ready"
            );
            ready(&node, &data);
            tokio::select! {
                () = signals.first() => {}
                () = input.ends() => info!("standard input ended: stopping"),
            }
            tokio::select! {
                stopped = node.shutdown() => stopped?,
                code = signals.second() => {
                    data.discard();
                    std::process::exit(code);
                }
            }
            info!("stopped");
            Ok(())
        })
    }));
    // An ephemeral directory goes here.
    drop(data);
    outcome.unwrap_or(Err(Error::Panicked))
}
