//! The command line, and how its flags become a [`Config`].

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Error, LogFormat, LogLevel, NamespaceName, SearchAttribute};

/// A durable-execution server that speaks the Temporal API.
#[derive(Debug, Parser)]
#[command(name = "everspan", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start one node for development, or a cluster of some, on loopback addresses
    Dev(Box<DevArgs>),
    /// Start a node from a configuration file
    Server(ServerArgs),
    /// Look at a cluster, and change it
    Cluster(ClusterArgs),
    /// Print a commented configuration file with every setting and its default
    Config,
}

/// Flags of `everspan dev`. What is not given comes from the environment
/// (`EVERSPAN_SECTION_KEY`) or is the default.
#[derive(Debug, Default, Args)]
pub struct DevArgs {
    /// Where data is kept [default: ./everspan-data]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub data_dir: Option<PathBuf>,
    /// Keep data in a temporary directory that goes when the server stops
    #[arg(long)]
    pub ephemeral: bool,
    /// Address to listen on, for gRPC and HTTP [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<IpAddr>,
    /// Start so many nodes, each a process of its own, with ports that follow each other: three
    /// nodes serve gRPC on 7233, 7234 and 7235 by default
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// Port on which the first of several nodes listens to the others [default: 7253]
    #[arg(long, value_name = "PORT")]
    pub peer_port: Option<u16>,
    /// Port of the gRPC API [default: 7233]
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of the HTTP API, metrics and health pages [default: 7243]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Register this namespace beside `default`; may be given several times
    #[arg(long, value_name = "NAME", value_parser = NamespaceName::parse)]
    pub namespace: Vec<NamespaceName>,
    /// Register this search attribute; may be given several times. Types: Text, Keyword, Int,
    /// Double, Bool, Datetime, KeywordList
    #[arg(long, value_name = "NAME=TYPE", value_parser = SearchAttribute::parse)]
    pub search_attribute: Vec<SearchAttribute>,
    /// How log lines look [default: auto: pretty on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or a filter such as info,everspan_shard=debug [default: info]
    #[arg(long, value_name = "FILTER", value_parser = LogLevel::parse)]
    pub log_level: Option<LogLevel>,
    /// Shards that executions are divided among; only when the data directory is new
    /// [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub shards: Option<u32>,
}

/// Flags of `everspan server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The configuration file; `everspan config` prints one
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub stop_at_eof: bool,
}

/// Flags of `everspan cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Where any node of the cluster serves gRPC
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7233", global = true)]
    pub address: String,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// The subcommands of `everspan cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Say how the cluster is
    Status,
    /// List its nodes
    Nodes,
    /// List its shards, and where they are
    Shards,
    /// Have what a node has go to others, and wait until it has no replicas
    Drain {
        /// The node's number
        node: u64,
        /// Have the node take its part again, instead
        #[arg(long)]
        undo: bool,
        /// Come back at once; `everspan cluster nodes` shows how far it is
        #[arg(long)]
        no_wait: bool,
    },
    /// Take a node out of the cluster, for ever; it must have no replicas
    RemoveNode {
        /// The node's number
        node: u64,
    },
    /// Have a node lead a shard
    TransferLeader {
        /// The shard's number
        shard: u32,
        /// The node's number
        node: u64,
    },
}

impl DevArgs {
    /// The configuration that these flags and the environment give.
    ///
    /// # Errors
    /// What the environment has that is not taken, or settings that contradict each other.
    pub fn config(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Error> {
        let mut config = Config::load(None, environment)?;
        if let Some(dir) = &self.data_dir {
            config.node.data_dir.clone_from(dir);
        }
        if let Some(ip) = self.ip {
            config.grpc.address.set_ip(ip);
            config.http.address.set_ip(ip);
        }
        if let Some(port) = self.port {
            config.grpc.address.set_port(port);
        }
        if let Some(port) = self.peer_port {
            config.cluster.address.set_port(port);
        }
        if let Some(port) = self.http_port {
            config.http.address.set_port(port);
        }
        for name in &self.namespace {
            if !config.namespaces.create.contains(name) {
                config.namespaces.create.push(name.clone());
            }
        }
        config.search_attributes.create.extend(self.search_attribute.iter().cloned());
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        if let Some(level) = &self.log_level {
            config.log.level = level.clone();
        }
        if let Some(shards) = self.shards {
            config.shards.count = shards;
        }
        let ports = [config.grpc.address, config.http.address, config.cluster.address];
        if self.nodes > 1 && ports.iter().any(|address| address.port() == 0) {
            return Err(Error::Conflict {
                key: "--nodes".into(),
                message: "several nodes need ports that are known: 0 is none".into(),
            });
        }
        config.check()?;
        Ok(config)
    }
}

/// An address for people to connect to: a node that listens everywhere is here as well.
#[must_use]
pub fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut shown = address;
    if shown.ip().is_unspecified() {
        shown.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    fn dev(flags: &[&str]) -> Config {
        let line = ["everspan", "dev"].iter().chain(flags);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Dev(args) => args.config([]).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(dev(&[]), Config::default());
        assert!(Config::default().grpc.address.ip().is_loopback());
        assert!(Config::default().http.address.ip().is_loopback());
    }

    #[test]
    fn flags_win() {
        let config = dev(&[
            "--data-dir",
            "d",
            "--ip",
            "::1",
            "--port",
            "1",
            "--http-port",
            "2",
            "--namespace",
            "a",
            "--namespace=default",
            "--search-attribute",
            "S=int",
            "--log-format",
            "json",
            "--log-level",
            "debug",
            "--shards",
            "7",
        ]);
        assert_eq!(config.node.data_dir, PathBuf::from("d"));
        assert_eq!(config.grpc.address.to_string(), "[::1]:1");
        assert_eq!(config.http.address.to_string(), "[::1]:2");
        let names: Vec<&str> = config.namespaces.create.iter().map(NamespaceName::as_str).collect();
        assert_eq!(names, ["default", "a"]);
        assert_eq!(config.search_attributes.create[0].to_string(), "S=Int");
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.log.level.as_str(), "debug");
        assert_eq!(config.shards.count, 7);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for flags in [
            &["--ephemeral", "--data-dir", "d"][..],
            &["--shards", "0"],
            &["--search-attribute", "S"],
            &["--search-attribute", "S=Blob"],
            &["--log-level", "loud"],
            &["--namespace", ""],
            &["--port", "70000"],
        ] {
            let line = ["everspan", "dev"].iter().chain(flags);
            assert!(Cli::try_parse_from(line).is_err(), "{flags:?}");
        }
    }
}
