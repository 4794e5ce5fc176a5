//! Where the shards are to be: this node's part of it, and, where the meta group is led, the
//! driver's. What is to be done is decided by [`everspan_meta::plan`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use everspan_meta::{Action, MetaHandle, NodeFacts, ShardFacts, Snapshot, plan};
use everspan_peers::Peers;
use everspan_shard::{Placed, ReplicaStanding, Routes, Shards};
use everspan_types::{Error, ShardId};
use tracing::{info, warn};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long until a node is to lead a shard again that it was to lead before.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What the driver needs. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) meta: MetaHandle,
    pub(crate) shards: Shards,
    pub(crate) routes: Routes,
    pub(crate) peers: Peers,
    pub(crate) founders: Vec<u64>,
    /// How long a node may be away until what it has is to be elsewhere.
    pub(crate) replace_after: Duration,
}

/// What the driver remembers for as long as its node leads the meta group.
#[derive(Debug, Default)]
struct Memory {
    /// Since when a node is away.
    away: BTreeMap<u64, Instant>,
    /// When a node was to lead a shard.
    tried: BTreeMap<(ShardId, u64), Instant>,
}

/// What the meta group says of where shards are.
pub(crate) fn placed(snapshot: &Snapshot) -> BTreeMap<ShardId, Placed> {
    let placements = snapshot.placements.iter();
    let placed = placements.map(|(id, placement)| {
        let (wanted, before) = (placement.replicas.clone(), placement.before.clone());
        (*id, Placed { wanted, before })
    });
    placed.collect()
}

impl Placement {
    /// Does this node's part, for ever.
    pub(crate) async fn run(self) {
        let mut memory = Memory::default();
        loop {
            self.routes.set_placed(placed(&self.meta.snapshot()));
            self.shards.tend().await;
            if self.meta.leader() == self.peers.me() {
                self.drive(&mut memory).await;
            } else {
                memory = Memory::default();
            }
            tokio::select! {
                () = self.meta.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn nodes(
        &self,
        standings: &BTreeMap<u64, Vec<ReplicaStanding>>,
        away: &mut BTreeMap<u64, Instant>,
    ) -> BTreeMap<u64, NodeFacts> {
        let view = self.peers.view();
        let states = self.meta.snapshot().states(&self.founders);
        away.retain(|node, _| !view.has(*node));
        let facts = |(node, state)| {
            let is_there = view.has(node);
            let is_lost = !is_there
                && away.entry(node).or_insert_with(Instant::now).elapsed() >= self.replace_after;
            let all = standings.get(&node);
            let can_take = all.is_some_and(|all| all.iter().all(|s| s.can_write));
            (node, NodeFacts { state, is_there, can_take, is_lost })
        };
        states.into_iter().map(facts).collect()
    }

    /// What the replicas on all nodes that are there say of themselves, by node.
    pub(crate) async fn standings(&self) -> BTreeMap<u64, Vec<ReplicaStanding>> {
        let view = self.peers.view();
        self.shards.standings(view.nodes()).await
    }

    /// What is known of each shard, by what its leader says.
    pub(crate) fn facts(
        &self,
        standings: &BTreeMap<u64, Vec<ReplicaStanding>>,
    ) -> BTreeMap<ShardId, ShardFacts> {
        let mut facts: BTreeMap<ShardId, ShardFacts> = BTreeMap::new();
        for id in self.routes.shards() {
            let wanted = self.routes.wanted(id);
            let voters: BTreeSet<u64> = wanted.iter().copied().collect();
            let leader = leader(standings, id);
            facts.insert(
                id,
                ShardFacts {
                    leader: leader.map_or(0, |(node, _)| node),
                    is_settled: leader.is_some_and(|(_, s)| s.is_settled && s.voters == voters),
                    close: leader.map(|(_, s)| s.close.clone()).unwrap_or_default(),
                    wanted,
                },
            );
        }
        facts
    }

    async fn drive(&self, memory: &mut Memory) {
        let standings = self.standings().await;
        let facts = self.facts(&standings);
        let nodes = self.nodes(&standings, &mut memory.away);
        memory.tried.retain(|_, at| at.elapsed() < TRY_AGAIN);
        for action in plan(&nodes, &facts, &memory.tried.keys().copied().collect()) {
            info!(?action, "placement");
            let done = match &action {
                Action::Place { shard, before, replicas } => {
                    self.meta.place(*shard, before, replicas).await
                }
                Action::Lead { shard, leader, to } => {
                    memory.tried.insert((*shard, *to), Instant::now());
                    self.shards.transfer(*shard, *leader, *to).await
                }
            };
            match done {
                Ok(()) | Err(Error::FailedPrecondition(_)) => {}
                Err(error) => warn!(?action, %error, "placement"),
            }
        }
    }
}

/// Who leads a shard, of those who say so the one of the latest term, and what it says.
pub(crate) fn leader(
    standings: &BTreeMap<u64, Vec<ReplicaStanding>>,
    shard: ShardId,
) -> Option<(u64, &ReplicaStanding)> {
    let all = standings.iter().flat_map(|(node, all)| all.iter().map(move |s| (*node, s)));
    let own = all.filter(|(node, s)| s.shard == shard && s.leader == *node);
    own.max_by_key(|(_, s)| s.term)
}
