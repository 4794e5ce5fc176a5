//! The real binary, and what the operating system says of it.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use tempfile::TempDir;

use crate::Result;

/// How long a start may take.
const READY: Duration = Duration::from_secs(60);
/// Ticks of /proc/PID/stat in a second: what Linux shows to programs, on any machine.
const TICKS: f64 = 100.0;

/// Which server is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The binary [default: EVERSPAN_BIN, or a release build made now]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Measure this running server instead (its gRPC address)
    #[arg(long, value_name = "HOST:PORT", requires = "pid")]
    address: Option<SocketAddr>,
    /// The process of the running server
    #[arg(long)]
    pid: Option<u32>,
    /// Shards of the server
    #[arg(long, default_value_t = 4)]
    pub(crate) shards: u32,
    /// Where data directories are made [default: the build's directory, which is on a disk]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A directory in memory, for what is measured without a disk
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    memory: PathBuf,
}

/// Where a server keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where fsync is one.
    Disk,
    /// Where it costs nothing.
    Memory,
}

/// A server, ended with its data when dropped, unless it ran before.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where each of its nodes serves gRPC.
    pub(crate) grpc: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    pids: Vec<u32>,
    child: Option<Child>,
    data: Option<TempDir>,
}

/// A node that is to join.
pub(crate) struct Join {
    /// What starts it.
    pub(crate) command: Command,
    /// Where it serves HTTP.
    pub(crate) http: SocketAddr,
}

/// What a process has used and holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds of processor time since its start.
    pub(crate) cpu_s: f64,
    /// Bytes of memory now.
    pub(crate) rss: u64,
    /// Bytes on disk now.
    pub(crate) disk: u64,
    /// Writes of the log, each with an fsync.
    pub(crate) log_writes: f64,
}

impl Server {
    /// Starts a server on a new directory and waits until it is ready.
    pub(crate) fn start(options: &Options, place: Place, shards: u32) -> Result<Self> {
        if let (Some(grpc), Some(pid)) = (options.address, options.pid) {
            let (grpc, pids) = (vec![grpc], vec![pid]);
            return Ok(Self { grpc, http: Vec::new(), pids, child: None, data: None });
        }
        Self::start_nodes(options, place, shards, 1)
    }

    /// Starts a cluster of so many nodes, all on this machine and this disk.
    pub(crate) fn start_nodes(
        options: &Options,
        place: Place,
        shards: u32,
        nodes: u16,
    ) -> Result<Self> {
        let binary = binary(options)?;
        let beside = binary.parent().unwrap_or(Path::new("."));
        let dir = match place {
            Place::Disk => options.dir.as_deref().unwrap_or(beside),
            Place::Memory => &options.memory,
        };
        let data = tempfile::Builder::new()
            .prefix("everspan-bench-")
            .tempdir_in(dir)
            .map_err(|e| format!("{}: {e}", dir.display()))?;
        let (grpc, http, peers) = (free(nodes)?, free(nodes)?, free(nodes)?);
        let port = |addresses: &[SocketAddr]| addresses[0].port().to_string();
        let mut child = Command::new(&binary)
            .args(["dev", "--log-level", "warn", "--nodes", &nodes.to_string()])
            .args(["--port", &port(&grpc), "--http-port", &port(&http)])
            .args(["--peer-port", &port(&peers)])
            .args(["--shards", &shards.to_string(), "--data-dir"])
            .arg(data.path().join("data"))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", binary.display()))?;
        let began = Instant::now();
        while !http.iter().all(|at| is_ready(*at)) {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the server ended while starting: {status}").into());
            }
            if began.elapsed() > READY {
                let _ = child.kill();
                return Err(format!("the server is not ready after {READY:?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut pids = vec![child.id()];
        if nodes > 1 {
            pids = children(child.id())?;
        }
        Ok(Self { grpc, http, pids, child: Some(child), data: Some(data) })
    }

    /// The node that leads the most shards.
    pub(crate) fn leader_of_most(&self) -> usize {
        let led = |node: &usize| value(self.http[*node], "everspan_shard_actors") as u64;
        (0..self.http.len()).max_by_key(led).unwrap_or(0)
    }

    /// How many shards the nodes lead together.
    pub(crate) fn shards_led(&self) -> u64 {
        self.http.iter().map(|at| value(*at, "everspan_shard_actors") as u64).sum()
    }

    /// Kills a node as a power cut would; what starts it again.
    pub(crate) fn kill(&self, options: &Options, node: usize) -> Result<Command> {
        let data = self.data.as_ref().ok_or("the server is not ours to kill")?;
        let (mut pid, config) = (None, data.path().join(format!("data/node-{}.toml", node + 1)));
        for candidate in &self.pids {
            let line = fs::read(format!("/proc/{candidate}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&*config.to_string_lossy()) {
                pid = Some(*candidate);
            }
        }
        let pid = match pid {
            Some(pid) if Path::new(&format!("/proc/{pid}")).exists() => pid,
            _ => return Err(format!("node {} does not run", node + 1).into()),
        };
        Command::new("kill").args(["-9", &pid.to_string()]).status()?;
        let mut again = Command::new(binary(options)?);
        again.args(["server", "--config"]).arg(config).stderr(Stdio::null());
        Ok(again)
    }

    /// One more node, that joins the others.
    pub(crate) fn join(&self, options: &Options) -> Result<Join> {
        let data = self.data.as_ref().ok_or("the server is not ours to join")?;
        let at = |count: u16| Ok::<_, crate::Error>(free(count)?[0]);
        let (grpc, http, peers) = (at(1)?, at(1)?, at(1)?);
        let mut command = Command::new(binary(options)?);
        command
            .args(["server", "--config"])
            .arg(data.path().join("data/node-1.toml"))
            .env("EVERSPAN_CLUSTER_NODE_ID", (self.grpc.len() + 1).to_string())
            .env("EVERSPAN_CLUSTER_ADDRESS", peers.to_string())
            .env("EVERSPAN_GRPC_ADDRESS", grpc.to_string())
            .env("EVERSPAN_HTTP_ADDRESS", http.to_string())
            .env("EVERSPAN_NODE_DATA_DIR", data.path().join("data/joins"))
            .stderr(Stdio::null());
        Ok(Join { command, http })
    }

    /// Whether a node takes calls.
    pub(crate) fn is_ready(&self, node: usize) -> bool {
        is_ready(self.http[node])
    }

    /// A process that became one of the nodes.
    pub(crate) fn adopt(&mut self, pid: u32) {
        self.pids.push(pid);
    }

    /// What it has used until now, all nodes together.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut all = Usage {
            disk: self.data.as_ref().map_or(0, |d| bytes_in(d.path())),
            log_writes: self
                .http
                .iter()
                .map(|at| value(*at, "everspan_log_write_seconds_count"))
                .sum(),
            ..Usage::default()
        };
        for pid in &self.pids {
            let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
            let stat = read("stat").map_err(|e| format!("the server's process is gone: {e}"))?;
            // The name before it may hold anything, blanks too.
            let fields: Vec<&str> =
                stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
            let ticks =
                |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
            let kib = |l: &str| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok();
            let rss_kib: u64 = read("status")?.lines().find_map(kib).unwrap_or(0);
            all.cpu_s += (ticks(11) + ticks(12)) / TICKS;
            all.rss += rss_kib * 1024;
        }
        Ok(all)
    }
}

/// The value of a metric without labels; 0 if there is none.
pub(crate) fn value(http: SocketAddr, name: &str) -> f64 {
    let text = get(http, "/metrics").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or(0.0)
}

fn is_ready(http: SocketAddr) -> bool {
    get(http, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The processes that a process started and that run.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(found)
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Bytes that the files under a directory take on disk.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(m) if m.is_dir() => bytes_in(&entry.path()),
            Ok(m) => m.blocks() * 512,
            // A file that went meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// Ports that follow each other and that nobody listens on now.
fn free(count: u16) -> Result<Vec<SocketAddr>> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let all: Vec<SocketAddr> = (0..count)
            .map(|n| SocketAddr::new(first.ip(), first.port().saturating_add(n)))
            .collect();
        if all.iter().all(|address| TcpListener::bind(address).is_ok()) {
            return Ok(all);
        }
    }
    Err("no free ports that follow each other".into())
}

/// The binary that was named, or a release build made now, beside this program.
fn binary(options: &Options) -> Result<PathBuf> {
    let named = options.server.clone().or_else(|| std::env::var_os("EVERSPAN_BIN").map(Into::into));
    if let Some(path) = named {
        return Ok(path);
    }
    let own = std::env::current_exe()?;
    let binary = own.parent().unwrap_or(Path::new(".")).join("everspan");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "everspan-server", "--bin", "everspan"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .map_err(|e| format!("cargo build: {e}; name a binary with --server"))?;
    if !status.success() {
        return Err(format!("cargo build: {status}").into());
    }
    Ok(binary)
}

/// One HTTP GET, its answer as it is.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
