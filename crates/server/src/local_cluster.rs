//! `everspan dev --nodes N`: a cluster on this machine, each node a process of its own.
//!
//! Each child is `everspan server` with a file that is written for it, and keeps its log in a file
//! beside. It stops when its standard input ends: however this process goes, no child stays.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Config,
    config::{self, ClusterNode},
};

/// How long nodes may take until they serve.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of a node's log that are shown when it ends before it serves.
const TAIL: usize = 5;

/// Why the cluster does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file system refused, or no process can be had.
    #[error("{what}: {reason}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// A node ended.
    #[error("node {node} ended before it was ready; the end of {}:\n{tail}", log.display())]
    Ended {
        /// The node.
        node: u64,
        /// Its log.
        log: PathBuf,
        /// The log's end.
        tail: String,
    },
    /// Nodes take too long.
    #[error("the nodes are not ready after {} s; see their logs in {}", READY_MAX.as_secs(), dir.display())]
    Late {
        /// Where the logs are.
        dir: PathBuf,
    },
}

/// One node.
#[derive(Debug)]
pub(crate) struct LocalNode {
    /// Its number.
    pub(crate) id: u64,
    /// Where gRPC is served.
    pub(crate) grpc: SocketAddr,
    /// Where HTTP is served.
    pub(crate) http: SocketAddr,
    /// Its log.
    pub(crate) log: PathBuf,
    child: Child,
    is_gone: bool,
}

/// Nodes that run.
#[derive(Debug)]
pub(crate) struct LocalCluster {
    /// The nodes.
    pub(crate) nodes: Vec<LocalNode>,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |e| Error::Io { what, reason: e.to_string() }
}

fn shifted(address: SocketAddr, by: u64) -> SocketAddr {
    let mut address = address;
    address.set_port(address.port().saturating_add(u16::try_from(by).unwrap_or(u16::MAX)));
    address
}

/// The configuration of each node: ports that follow each other, directories of their own.
#[must_use]
pub(crate) fn configs(base: &Config, count: u64) -> Vec<Config> {
    let nodes: Vec<ClusterNode> = (1..=count)
        .map(|id| ClusterNode { id, address: shifted(base.cluster.address, id - 1).to_string() })
        .collect();
    let node = |id: u64| {
        let mut config = base.clone();
        config.node.data_dir = base.node.data_dir.join(format!("node-{id}"));
        config.grpc.address = shifted(base.grpc.address, id - 1);
        config.http.address = shifted(base.http.address, id - 1);
        config.cluster.address = shifted(base.cluster.address, id - 1);
        config.cluster.node_id = id;
        config.cluster.nodes.clone_from(&nodes);
        config
    };
    (1..=count).map(node).collect()
}

impl LocalCluster {
    /// Starts the nodes; they are not ready yet.
    ///
    /// # Errors
    /// If files cannot be written or processes started.
    pub(crate) fn start(configs: &[Config]) -> Result<Self, Error> {
        let mut cluster = Self { nodes: Vec::new() };
        for config in configs {
            cluster.nodes.push(spawn(config)?);
        }
        Ok(cluster)
    }

    /// Waits until all nodes serve.
    ///
    /// # Errors
    /// If one ends, or it takes too long.
    pub(crate) fn await_ready(&mut self) -> Result<(), Error> {
        let until = Instant::now() + READY_MAX;
        for n in 0..self.nodes.len() {
            while !is_ready(self.nodes[n].http) {
                if let Some(node) = self.ended().first() {
                    let node = &self.nodes[*node];
                    let (node, log) = (node.id, node.log.clone());
                    return Err(Error::Ended { node, tail: tail(&log), log });
                }
                if Instant::now() > until {
                    let dir = self.nodes[n].log.parent().unwrap_or(Path::new(".")).to_owned();
                    return Err(Error::Late { dir });
                }
                thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// The places of nodes that ended since the last call.
    pub(crate) fn ended(&mut self) -> Vec<usize> {
        let mut ended = Vec::new();
        for (n, node) in self.nodes.iter_mut().enumerate() {
            if !node.is_gone && !matches!(node.child.try_wait(), Ok(None)) {
                node.is_gone = true;
                ended.push(n);
            }
        }
        ended
    }

    /// Has all nodes stop, and waits until they have, or until `gives_up` says so.
    pub(crate) fn stop(&mut self, mut gives_up: impl FnMut() -> bool) {
        for node in &mut self.nodes {
            drop(node.child.stdin.take());
        }
        while self.nodes.iter().any(|node| !node.is_gone) {
            if gives_up() {
                return;
            }
            self.ended();
            thread::sleep(LOOK);
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_gone) {
            // What has ended meanwhile cannot be killed.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

fn spawn(config: &Config) -> Result<LocalNode, Error> {
    let (id, dir) = (config.cluster.node_id, &config.node.data_dir);
    let parent = dir.parent().unwrap_or(Path::new(".")).to_owned();
    fs::create_dir_all(&parent).map_err(failed(format!("cannot make {}", parent.display())))?;
    let file = parent.join(format!("node-{id}.toml"));
    let mut text = format!("# Written by `everspan dev` for node {id}.\n");
    let _ = write!(text, "{}", config::to_toml(config));
    fs::write(&file, text).map_err(failed(format!("cannot write {}", file.display())))?;
    let path = parent.join(format!("node-{id}.log"));
    let cannot = || failed(format!("cannot write {}", path.display()));
    let log = File::options().create(true).append(true).open(&path).map_err(cannot())?;
    let other = log.try_clone().map_err(cannot())?;
    let binary = std::env::current_exe().map_err(failed("cannot find the server's binary"))?;
    let mut command = Command::new(binary);
    command.arg("server").arg("--stop-at-eof").arg("--config").arg(&file);
    for (variable, _) in std::env::vars_os() {
        // They are in the file already.
        if variable.to_str().is_some_and(config::is_setting) {
            command.env_remove(&variable);
        }
    }
    let child = command
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(other)
        // Ctrl-C is for this process, which has them stop one way.
        .process_group(0)
        .spawn()
        .map_err(failed(format!("cannot start node {id}")))?;
    let (grpc, http) = (config.grpc.address, config.http.address);
    Ok(LocalNode { id, grpc, http, log: path, child, is_gone: false })
}

/// Whether a node says that it takes calls.
fn is_ready(http: SocketAddr) -> bool {
    let address = crate::cli::reachable(http);
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_node_has_its_own_and_all_know_the_others() {
        let all = configs(&Config::default(), 3);
        let third = &all[2];
        assert_eq!(third.cluster.node_id, 3);
        assert_eq!(third.grpc.address.port(), 7235);
        assert_eq!(third.http.address.port(), 7245);
        assert_eq!(third.cluster.address.port(), 7255);
        assert!(third.node.data_dir.ends_with("everspan-data/node-3"));
        assert_eq!(third.cluster.nodes, all[0].cluster.nodes);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        fs::write(&file, config::to_toml(third)).unwrap();
        assert_eq!(Config::load(Some(&file), []).unwrap(), *third);
    }
}
