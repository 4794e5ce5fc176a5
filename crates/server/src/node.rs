//! One node: the log, the store, the shards, the gateway, in the order in which they start
//! and stop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actix_rt::Arbiter;
use everspan_admin::AdminServer;
use everspan_broker::Brokers;
use everspan_gateway::{Frontend, Gateway, MetaQueueConfigs};
use everspan_meta::{GROUP as META_GROUP, MetaHandle};
use everspan_peers::{Listening, Peers};
use everspan_replication::{Config as LogConfig, Node as Log, Runner};
use everspan_shard::{Retention, Routes, ShardTasks, Shards};
use everspan_storage::{SledOptions, SledStore, Store};
use tokio::runtime::Runtime;

use crate::{
    Config, DataDir,
    admin::AdminService,
    cluster::{self, Parts},
    placement::{self, Placement},
};

/// How long a node that starts waits for its shards to be led before it takes calls all the same.
const LEADERS_MAX: Duration = Duration::from_secs(3);

/// Why a node does not start or stop well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("{0}")]
    Listen(String),
    /// The log, the store or a shard does not open, or does not close.
    #[error("{0}")]
    State(String),
}

/// A node that serves.
#[derive(Debug)]
pub struct Node {
    gateway: Gateway,
    peers: Peers,
    /// Where other nodes speak to this one, if there are any.
    listening: Option<Listening>,
    brokers: Brokers,
    shards: Shards,
    log: Runner,
    arbiters: Vec<Arbiter>,
    runtime: Rpc,
    shutdown_timeout: Duration,
}

/// The runtime under gRPC. Let go without waiting wherever it is dropped: tokio panics when a
/// runtime is dropped inside another, as a start that fails or is interrupted does.
#[derive(Debug)]
struct Rpc(Option<Runtime>);

impl Rpc {
    fn start(threads: usize) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("grpc")
            .enable_all()
            .build()
            .map_err(state)?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a task there to its end.
    async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.0 {
            Some(runtime) => runtime.spawn(task).await.map_err(state),
            None => Err(Error::State("the runtime is gone".into())),
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn state(e: impl std::fmt::Display) -> Error {
    Error::State(e.to_string())
}

/// 0 stands for as many as there are cores.
fn threads(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    }
}

impl Node {
    /// Starts a node, on the actix system of this thread, and comes back when it serves.
    ///
    /// # Errors
    /// See [`Error`]; everything that was started is stopped then.
    pub async fn start(config: &Config, data: &DataDir) -> Result<Self, Error> {
        // Addresses first: what is most often wrong is told before anything is opened.
        let mut addresses = vec![("gRPC", config.grpc.address), ("HTTP", config.http.address)];
        if config.cluster.is_set() {
            addresses.push(("peers", config.cluster.address));
        }
        for (what, address) in addresses {
            std::net::TcpListener::bind(address).map_err(|e| {
                Error::Listen(format!("cannot listen on {address} for {what}: {e}"))
            })?;
        }
        let cache = SledOptions { cache_bytes: config.storage.cache_bytes };
        let store: Arc<dyn Store> =
            Arc::new(SledStore::open(&data.store_path(), &cache).map_err(state)?);
        let count = data.identity().shards;
        let runtime = Rpc::start(threads(config.threads.grpc))?;
        let log = Log::open(&LogConfig {
            dir: data.log_path(),
            node_id: if config.cluster.is_set() { config.cluster.node_id } else { 1 },
            file_bytes: config.storage.log_file_bytes,
            purge_bytes: config.storage.log_purge_bytes,
            lag_bytes_max: config.cluster.lag_bytes_max,
        })
        .map_err(state)?;
        let parts = Parts::default();
        let (peers, listening, nodes) = if config.cluster.is_set() {
            let is_old = log.has_entries(META_GROUP);
            if data.cluster_id().is_some() && !is_old {
                return Err(Error::State(format!(
                    "the log of this node is gone: {}; it may have acknowledged what it does not \
                     have any more",
                    data.log_path().display()
                )));
            }
            let options = cluster::options(config, data, is_old);
            let (address, service) = (config.cluster.address, parts.clone());
            let started = runtime.run(async move {
                let peers = Peers::start(options)?;
                let listening = Listening::start(address, peers.clone(), service).await?;
                Ok::<_, String>((peers, Some(listening)))
            });
            let (peers, listening) = started.await?.map_err(Error::Listen)?;
            (peers, listening, config.cluster.node_ids())
        } else {
            (Peers::alone(), None, vec![1])
        };
        let outgoing = peers.clone();
        let log = Runner::start(log, Box::new(move |to, batch| outgoing.send(to, batch)))
            .map_err(state)?;
        if config.cluster.is_set() {
            cluster::enter(&peers, data, config).await.map_err(Error::State)?;
        }
        let _ = parts.log.set(log.handle());

        let opening = {
            let (handle, store, peers, nodes) =
                (log.handle(), store.clone(), peers.clone(), nodes.clone());
            let is_system = everspan_gateway::is_system_attribute;
            runtime
                .run(async move { MetaHandle::open(handle, store, peers, &nodes, is_system).await })
        };
        let meta = opening.await?.map_err(state)?;
        let cluster_id = meta.snapshot().cluster_id.to_string();
        let _ = parts.meta.set(meta.clone());
        if config.cluster.is_set() {
            if data.cluster_id().is_none() {
                data.join(&cluster_id).map_err(state)?;
            }
            peers.set_founded(cluster_id);
            let address = config.cluster.own_address();
            meta.joined(data.identity().node_id, &address).await.map_err(state)?;
        }
        for name in &config.namespaces.create {
            meta.ensure(name.as_str()).await.map_err(state)?;
        }
        let attributes = config
            .search_attributes
            .create
            .iter()
            .map(|a| (a.name.clone(), a.kind as i32))
            .collect::<everspan_meta::AttributeTypes>();
        if !attributes.is_empty() {
            meta.add_attributes(&attributes).await.map_err(state)?;
        }

        let arbiters: Vec<Arbiter> =
            (0..threads(config.threads.shards)).map(|_| Arbiter::new()).collect();
        let handles: Vec<_> = arbiters.iter().map(Arbiter::handle).collect();
        let tasks = ShardTasks::default();
        let limits = Arc::new(config.limits());
        let configs = Arc::new(MetaQueueConfigs::new(meta.clone()));
        // A rate that no f64 holds exactly does not matter.
        let rate_max = limits.queue_tasks_per_second_max as f64;
        let source = Arc::new(tasks.clone());
        let brokers = Brokers::start(peers.clone(), &handles, source, configs, rate_max)
            .await
            .map_err(state)?;
        let namespaces = meta.clone();
        let options = everspan_shard::Options {
            retention: Retention::new(move |id| namespaces.snapshot().kept_for(id)),
            limits: limits.clone(),
            checkpoint_every: config.storage.checkpoint_interval_ms,
            checkpoint_bytes: config.storage.checkpoint_bytes,
            table_bytes_max: config.storage.table_bytes_max,
        };
        let routes = Routes::new(peers.clone(), nodes.clone(), count);
        routes.set_placed(placement::placed(&meta.snapshot()));
        let (handle, known) = (log.handle(), brokers.clone());
        let shards =
            Shards::start(count, routes.clone(), &handles, store, handle, known, options, &tasks)
                .await
                .map_err(state)?;
        let _ = parts.shards.set(shards.clone());
        let _ = parts.brokers.set(brokers.clone());
        let mut others = tonic::service::Routes::default();
        if config.cluster.is_set() {
            let (brokers, meta, known) = (brokers.clone(), meta.clone(), shards.clone());
            let placement = Placement {
                meta: meta.clone(),
                shards: shards.clone(),
                routes,
                peers: peers.clone(),
                founders: nodes,
                replace_after: config.cluster.replace_after_ms,
            };
            let name = config.cluster.name.as_str().to_owned();
            others = others
                .add_service(AdminServer::new(AdminService { name, placement: placement.clone() }));
            runtime
                .run(async move {
                    tokio::spawn(placement.run());
                    tokio::spawn(brokers.clone().follow_nodes());
                    // Calls that come now would wait for elections.
                    known.await_leaders(LEADERS_MAX).await;
                    tokio::spawn(known.follow_nodes());
                    tokio::spawn(async move {
                        loop {
                            meta.changed().await;
                            brokers.reconfigure_all();
                        }
                    });
                })
                .await?;
        }

        let frontend = Frontend::new(shards.clone(), brokers.clone(), meta, limits, count);
        let options = everspan_gateway::Options {
            grpc: config.grpc.address,
            http: config.http.address,
            message_bytes_max: config.grpc.message_bytes_max,
            body_bytes_max: config.http.body_bytes_max,
            http_threads: threads(config.threads.http),
        };
        let gateway = runtime
            .run(async move { Gateway::start(frontend, &options, others).await })
            .await?
            .map_err(|e| Error::Listen(e.to_string()))?;
        let shutdown_timeout = config.node.shutdown_timeout_ms;
        Ok(Self {
            gateway,
            peers,
            listening,
            brokers,
            shards,
            log,
            arbiters,
            runtime,
            shutdown_timeout,
        })
    }

    /// Where gRPC is served; the port is the real one where 0 was configured.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.gateway.grpc()
    }

    /// Where HTTP is served; the port is the real one where 0 was configured.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.gateway.http()
    }

    /// Stops taking calls, lets those under way end (for `node.shutdown_timeout_ms` at most),
    /// and writes out what is committed.
    ///
    /// # Errors
    /// If something could not be written; the log has it.
    pub async fn shutdown(self) -> Result<(), Error> {
        let Self { gateway, peers, listening, brokers, shards, log, arbiters, runtime, .. } = self;
        let shutdown_timeout = self.shutdown_timeout;
        let leaving = shards.clone();
        let stopped = runtime.run(async move {
            if listening.is_some() {
                // What is new goes to the others from here on.
                peers.leave();
                leaving.hand_over().await;
            }
            gateway.unready().await;
            // Polls would wait for work until their deadlines.
            brokers.release_all();
            gateway.stop(shutdown_timeout).await;
            if let Some(listening) = listening {
                listening.stop();
            }
        });
        stopped.await?;
        shards.stop().await;
        log.stop();
        for arbiter in arbiters {
            arbiter.stop();
        }
        Ok(())
    }
}
