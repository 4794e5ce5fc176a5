//! The side that speaks: ways to every other node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use everspan_types::{Time, wire::PROTOCOL};
use futures::stream;
use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::AbortHandle,
};
use tonic::{
    Code, Request, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};
use tracing::{info, warn};

use crate::{
    Topic, View,
    messages::{Envelope, Hello},
    server::{CLUSTER, FOUNDED, MESSAGE_MAX, NODE, PROTOCOL_HEADER},
    stubs::peers_client::PeersClient,
    view::Watch,
};

/// How long a connection may take, and a sign of life.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
/// How often signs of life are asked for.
const HELLO_EVERY: Duration = Duration::from_millis(200);
/// Wait before a stream that broke is begun anew.
const RECONNECT: Duration = Duration::from_millis(100);
/// Bytes of the log's messages on their way to one node; more are dropped, and Raft sends them
/// again.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// What a node says of those that do not know it.
const STRANGER: &str = "a node does not know this one: it is yet to join, or was removed";

/// Who this node is, and who the others are.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node's number.
    pub me: u64,
    /// `HOST:PORT` of every other node that is known from the start. These hold: what the cluster
    /// has noted may be older, where addresses changed while no node was there.
    pub others: BTreeMap<u64, String>,
    /// What all nodes of the cluster have in common, and those of others have not.
    pub cluster: String,
    /// The ID of the cluster, if this node knows it from before.
    pub founded: Option<String>,
    /// Whether this node took part in a cluster before, so that others may count on what it said.
    pub is_old: bool,
}

/// What another node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The ID of the cluster that it knows; empty if it does not.
    pub founded: String,
    /// Whether it took part in a cluster before it started.
    pub is_old: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The other node did not do anything.
    #[error("{0}")]
    NotAsked(String),
    /// Nobody knows what it did.
    #[error("{0}")]
    Unknown(String),
}

/// The other nodes. Cloning is cheap; any thread may call.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    me: u64,
    cluster: String,
    is_alone: bool,
    /// Nodes whose addresses are known from the start.
    fixed: BTreeSet<u64>,
    links: RwLock<BTreeMap<u64, Link>>,
    /// Where links live; none for a node that is alone.
    runtime: Option<Handle>,
    is_leaving: AtomicBool,
    founded: Mutex<String>,
    is_old: bool,
    watch: Mutex<Watch>,
    view: watch::Sender<Arc<View>>,
    head: Option<Head>,
}

/// What every call says of its sender.
struct Head {
    cluster: AsciiMetadataValue,
    protocol: AsciiMetadataValue,
    node: AsciiMetadataValue,
}

struct Link {
    address: String,
    /// Its tasks.
    tasks: [AbortHandle; 2],
    /// For all but the log and signs of life, which have a way of their own.
    freight: PeersClient<Channel>,
    log: mpsc::UnboundedSender<Bytes>,
    queued: Arc<AtomicUsize>,
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: BTreeSet<u64> = self.inner.links.read().keys().copied().collect();
        f.debug_struct("Peers").field("me", &self.inner.me).field("others", &others).finish()
    }
}

/// Time since some moment of this process: the wall's clock may jump.
fn now() -> Time {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Time::from_nanos(u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn client(address: &str) -> Result<PeersClient<Channel>, String> {
    let bad = |e: tonic::transport::Error| format!("{address} is no address of a node: {e}");
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(bad)?
        .connect_timeout(TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(TIMEOUT)
        .keep_alive_timeout(TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(16 << 20)
        .initial_stream_window_size(4 << 20);
    Ok(PeersClient::new(endpoint.connect_lazy())
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX))
}

impl Peers {
    /// Of a node that is its own cluster.
    #[must_use]
    pub fn alone() -> Self {
        let (me, cluster) = (1, String::new());
        let view = Arc::new(View::of([me]));
        let inner = Inner {
            me,
            cluster,
            is_alone: true,
            fixed: BTreeSet::new(),
            links: RwLock::default(),
            runtime: None,
            is_leaving: AtomicBool::new(false),
            founded: Mutex::default(),
            is_old: false,
            watch: Mutex::new(Watch::new(me, [])),
            view: watch::Sender::new(view),
            head: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins to look for the others. To be called on a tokio runtime, where it stays.
    ///
    /// # Errors
    /// If an address is none.
    pub fn start(options: Options) -> Result<Self, String> {
        let Options { me, others, cluster, founded, is_old } = options;
        let bad = |e| format!("the cluster's name cannot be sent: {e}");
        let head = Head {
            cluster: cluster.parse().map_err(bad)?,
            protocol: AsciiMetadataValue::from(u64::from(PROTOCOL)),
            node: AsciiMetadataValue::from(me),
        };
        let inner = Inner {
            me,
            cluster,
            is_alone: false,
            fixed: others.keys().copied().collect(),
            links: RwLock::default(),
            runtime: Some(Handle::current()),
            is_leaving: AtomicBool::new(false),
            founded: Mutex::new(founded.unwrap_or_default()),
            is_old,
            watch: Mutex::new(Watch::new(me, [])),
            view: watch::Sender::new(Arc::new(View::of([me]))),
            head: Some(head),
        };
        let peers = Self { inner: Arc::new(inner) };
        for (node, address) in &others {
            peers.know(*node, address)?;
        }
        Ok(peers)
    }

    /// Begins to look for a node at an address, if it does not yet; of one that was known from the
    /// start, at the address from then.
    ///
    /// # Errors
    /// If the address is none.
    pub fn know(&self, node: u64, address: &str) -> Result<(), String> {
        let Some(runtime) = self.inner.runtime.as_ref().filter(|_| node != self.inner.me) else {
            return Ok(());
        };
        let mut links = self.inner.links.write();
        let is_fixed = self.inner.fixed.contains(&node);
        if links.get(&node).is_some_and(|link| is_fixed || link.address == address) {
            return Ok(());
        }
        let (express, freight) = (client(address)?, client(address)?);
        let (log, batches) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        self.inner.watch.lock().know(node);
        let feeding = self.clone().feed(express.clone(), batches, queued.clone());
        let greeting = self.clone().greet(node, express);
        let tasks = [runtime.spawn(feeding), runtime.spawn(greeting)].map(|t| t.abort_handle());
        let address = address.to_owned();
        links.insert(node, Link { address, tasks, freight, log, queued });
        Ok(())
    }

    /// Speaks to a node no more, nor listens to it.
    pub fn forget(&self, node: u64) {
        let forgotten = self.inner.links.write().remove(&node);
        if forgotten.is_some() {
            self.look(|watch| watch.forget(node));
        }
    }

    /// This node's number.
    #[must_use]
    pub fn me(&self) -> u64 {
        self.inner.me
    }

    /// Whether this node is its own cluster.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.inner.is_alone
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    pub(crate) fn knows(&self, node: u64) -> bool {
        self.inner.links.read().contains_key(&node)
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            node: self.inner.me,
            is_leaving: self.inner.is_leaving.load(Ordering::SeqCst),
            founded: self.inner.founded.lock().clone(),
            is_old: self.inner.is_old,
            release: env!("CARGO_PKG_VERSION").into(),
            is_stranger: false,
        }
    }

    /// Which nodes are there now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.inner.view.borrow().clone()
    }

    /// The same, and what becomes of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.inner.view.subscribe()
    }

    /// The nodes that answer, and what they say of themselves.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<u64, Standing> {
        self.inner.watch.lock().standings(now())
    }

    pub(crate) fn founded(&self) -> String {
        self.inner.founded.lock().clone()
    }

    /// Says to everybody, from now on, which cluster this node is part of.
    pub fn set_founded(&self, cluster_id: String) {
        *self.inner.founded.lock() = cluster_id;
    }

    /// Says to everybody, from now on, that this node is about to stop: nothing new is its own.
    pub fn leave(&self) {
        self.inner.is_leaving.store(true, Ordering::SeqCst);
        self.look(Watch::leave);
    }

    fn look(&self, change: impl FnOnce(&mut Watch)) {
        let view = {
            let mut watch = self.inner.watch.lock();
            change(&mut watch);
            watch.view(now())
        };
        self.inner.view.send_if_modified(|old| {
            let is_other = **old != view;
            if is_other {
                let nodes: Vec<u64> = view.nodes().collect();
                info!(?nodes, "nodes that are there");
                *old = Arc::new(view);
            }
            is_other
        });
    }

    fn head<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        if let Some(head) = &self.inner.head {
            let map = request.metadata_mut();
            map.insert(CLUSTER, head.cluster.clone());
            map.insert(PROTOCOL_HEADER, head.protocol.clone());
            map.insert(NODE, head.node.clone());
            if let Ok(founded) = self.founded().parse() {
                map.insert(FOUNDED, founded);
            }
        }
        request
    }

    /// Sends what the log has for another node. Never waits: what does not get there is dropped.
    pub fn send(&self, to: u64, batch: Bytes) {
        let links = self.inner.links.read();
        let Some(link) = links.get(&to) else { return };
        let size = batch.len();
        if link.queued.fetch_add(size, Ordering::Relaxed) + size > QUEUED_BYTES_MAX
            || link.log.send(batch).is_err()
        {
            link.queued.fetch_sub(size, Ordering::Relaxed);
        }
    }

    /// Asks another node, and waits for its answer, for `wait` at most.
    ///
    /// # Errors
    /// If there is none: see [`AskError`].
    pub async fn ask(
        &self,
        to: u64,
        topic: Topic,
        question: Bytes,
        wait: Duration,
    ) -> Result<Bytes, AskError> {
        let freight = self.inner.links.read().get(&to).map(|link| link.freight.clone());
        let mut freight =
            freight.ok_or_else(|| AskError::NotAsked(format!("there is no node {to}")))?;
        if !self.is_reachable(to) {
            return Err(AskError::NotAsked(format!("node {to} cannot be reached")));
        }
        let envelope = Envelope { topic: topic.number(), body: question };
        match tokio::time::timeout(wait, freight.ask(self.head(envelope))).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().body),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                Err(AskError::NotAsked(status.message().to_owned()))
            }
            Ok(Err(status)) => {
                Err(AskError::Unknown(format!("node {to} did not answer: {}", cause(&status))))
            }
            Err(_) => Err(AskError::Unknown(format!("node {to} did not answer in time"))),
        }
    }

    /// Whether a node can be asked: one that is about to stop can.
    #[must_use]
    pub fn is_reachable(&self, node: u64) -> bool {
        self.inner.watch.lock().is_reachable(now(), node)
    }

    /// Keeps a stream to a node open, and sends what the log has for it.
    async fn feed(
        self,
        mut express: PeersClient<Channel>,
        mut batches: mpsc::UnboundedReceiver<Bytes>,
        queued: Arc<AtomicUsize>,
    ) {
        loop {
            let (tx, rx) = mpsc::channel::<Envelope>(64);
            let stream = stream::unfold(rx, |mut rx| async move { Some((rx.recv().await?, rx)) });
            let mut call = std::pin::pin!(express.log(self.head(stream)));
            loop {
                tokio::select! {
                    // It ends when the connection does.
                    _ = &mut call => break,
                    batch = batches.recv() => {
                        let Some(body) = batch else { return };
                        queued.fetch_sub(body.len(), Ordering::Relaxed);
                        // Full, where the other does not read: Raft sends it again.
                        let _ = tx.try_send(Envelope { topic: 0, body });
                    }
                }
            }
            tokio::time::sleep(RECONNECT).await;
            // What is from before is old news.
            while let Ok(body) = batches.try_recv() {
                queued.fetch_sub(body.len(), Ordering::Relaxed);
            }
        }
    }

    /// Asks a node for signs of life, for ever.
    async fn greet(self, node: u64, mut express: PeersClient<Channel>) {
        let mut refused = String::new();
        loop {
            let answer =
                tokio::time::timeout(TIMEOUT, express.hello(self.head(self.hello()))).await;
            match answer {
                Ok(Ok(hello)) => {
                    let hello = hello.into_inner();
                    if hello.node == node {
                        if hello.is_stranger && refused != STRANGER {
                            STRANGER.clone_into(&mut refused);
                            warn!(node, "{STRANGER}");
                        } else if !hello.is_stranger {
                            refused.clear();
                        }
                        let Hello { is_leaving, founded, is_old, .. } = hello;
                        let standing = Standing { founded, is_old };
                        self.look(|watch| watch.heard(now(), node, is_leaving, standing));
                    } else {
                        warn!(node, found = hello.node, "another node answers at its address");
                        self.look(|watch| watch.missed(node));
                    }
                }
                other => {
                    if let Ok(Err(status)) = &other
                        && status.code() == Code::FailedPrecondition
                        && status.message() != refused
                    {
                        status.message().clone_into(&mut refused);
                        warn!(node, reason = refused, "a node does not take this one in");
                    }
                    self.look(|watch| watch.missed(node));
                }
            }
            tokio::time::sleep(HELLO_EVERY).await;
        }
    }
}

/// What is behind a transport error, which says little by itself.
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}
