//! A node's way into its cluster: it listens to the others, and takes part only where that is
//! safe.
//!
//! A node that lost its disk must not come back as if it were new: it may have acknowledged what
//! the others count on. So a new data directory first hears most nodes. If one of them knows the
//! cluster already, that cluster notes the directory before the node takes part; it refuses a
//! second directory of the same node. One that took part before and does not know the cluster yet
//! is waited for. If there is none of either, the founders found the cluster, all of them with the
//! same list of voters, so that no two majorities can. A node that is no founder only ever joins.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use everspan_broker::Brokers;
use everspan_meta::MetaHandle;
use everspan_peers::{Answer, Options, Peers, Service, Topic};
use everspan_replication::Handle;
use everspan_shard::Shards;
use everspan_types::Error;
use futures::{FutureExt, future::BoxFuture};
use tracing::info;

use crate::{Config, DataDir, data_dir::Membership};

/// Wait between two looks at who is there.
const LOOK: Duration = Duration::from_millis(100);
/// How often a node that waits for the others says so, in looks.
const REMIND: u32 = 100;

/// The node's place in its cluster, if it is part of one.
#[must_use]
pub(crate) fn membership(config: &Config) -> Option<Membership> {
    let cluster = &config.cluster;
    cluster.is_set().then(|| Membership {
        cluster: cluster.name.as_str().to_owned(),
        node: cluster.node_id,
        nodes: cluster.node_ids(),
    })
}

/// Who the others are.
pub(crate) fn options(config: &Config, data: &DataDir, is_old: bool) -> Options {
    let cluster = &config.cluster;
    let (name, ids) = (cluster.name.as_str(), cluster.node_ids());
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let others = cluster.nodes.iter().filter(|node| node.id != cluster.node_id);
    Options {
        me: cluster.node_id,
        others: others.map(|node| (node.id, node.address.clone())).collect(),
        cluster: format!(
            "{name} with {} shards on nodes {}",
            data.identity().shards,
            ids.join(",")
        ),
        founded: data.cluster_id(),
        is_old,
    }
}

/// What the others speak to; its parts come as they open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) log: Arc<OnceLock<Handle>>,
    pub(crate) meta: Arc<OnceLock<MetaHandle>>,
    pub(crate) shards: Arc<OnceLock<Shards>>,
    pub(crate) brokers: Arc<OnceLock<Brokers>>,
}

impl Service for Parts {
    fn log(&self, batch: Bytes) {
        if let Some(log) = self.log.get() {
            log.receive(batch);
        }
    }

    fn ask(&self, topic: Topic, question: Bytes) -> BoxFuture<'static, Answer> {
        let parts = self.clone();
        async move {
            let starting = || "the node is starting".to_owned();
            match topic {
                Topic::Shards => parts.shards.get().ok_or_else(starting)?.answer(question).await,
                Topic::Brokers => parts.brokers.get().ok_or_else(starting)?.answer(question).await,
                Topic::Meta => parts.meta.get().ok_or_else(starting)?.answer(question).await,
            }
        }
        .boxed()
    }
}

/// Waits until this node may take part in the cluster, and notes that it does.
///
/// # Errors
/// If it was part of it with another data directory, or its own cannot be written.
pub(crate) async fn enter(peers: &Peers, data: &DataDir, config: &Config) -> Result<(), String> {
    let founders = config.cluster.node_ids();
    let nodes = founders.len();
    let founds = founders.contains(&peers.me());
    let address = config.cluster.own_address();
    let mut looks = 0;
    while !data.has_joined() {
        let there = peers.standings();
        let known = there.iter().filter(|(_, standing)| !standing.founded.is_empty());
        let founded: Vec<u64> = known.map(|(node, _)| *node).collect();
        let is_new = !there.values().any(|standing| standing.is_old);
        if founds && founded.is_empty() && is_new && there.len() + 1 > nodes / 2 {
            data.join("").map_err(|e| e.to_string())?;
        } else if !founded.is_empty() {
            match MetaHandle::join(peers, &founded, data.identity().node_id, &address).await {
                Ok(()) => data.join("").map_err(|e| e.to_string())?,
                Err(Error::FailedPrecondition(reason)) => return Err(reason),
                Err(_) => {}
            }
        }
        if looks % REMIND == 1 {
            let there: Vec<u64> = there.into_keys().collect();
            if founds {
                info!(?there, of = nodes, "waiting for most of the cluster's nodes");
            } else {
                info!(?there, ?founders, "waiting for the cluster to take this node in");
            }
        }
        looks += 1;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
