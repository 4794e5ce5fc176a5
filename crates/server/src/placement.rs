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
        // Since when a node is away, as long as this one leads the meta group.
        let mut away: BTreeMap<u64, Instant> = BTreeMap::new();
        loop {
            self.routes.set_placed(placed(&self.meta.snapshot()));
            self.shards.tend().await;
            if self.meta.leader() == self.peers.me() {
                self.drive(&mut away).await;
            } else {
                away.clear();
            }
            tokio::select! {
                () = self.meta.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn nodes(&self, away: &mut BTreeMap<u64, Instant>) -> BTreeMap<u64, NodeFacts> {
        let view = self.peers.view();
        let states = self.meta.snapshot().states(&self.founders);
        away.retain(|node, _| !view.has(*node));
        let facts = |(node, state)| {
            let is_there = view.has(node);
            let is_lost = !is_there
                && away.entry(node).or_insert_with(Instant::now).elapsed() >= self.replace_after;
            (node, NodeFacts { state, is_there, is_lost })
        };
        states.into_iter().map(facts).collect()
    }

    /// What is known of each shard, by what its leader says.
    pub(crate) async fn facts(&self) -> BTreeMap<ShardId, ShardFacts> {
        let view = self.peers.view();
        let standings = self.shards.standings(view.nodes()).await;
        let mut facts: BTreeMap<ShardId, ShardFacts> = BTreeMap::new();
        for id in self.routes.shards() {
            let wanted = self.routes.wanted(id);
            let voters: BTreeSet<u64> = wanted.iter().copied().collect();
            let leader = leader(&standings, id);
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

    async fn drive(&self, away: &mut BTreeMap<u64, Instant>) {
        let facts = self.facts().await;
        let nodes = self.nodes(away);
        for action in plan(&nodes, &facts) {
            info!(?action, "placement");
            let done = match &action {
                Action::Place { shard, before, replicas } => {
                    self.meta.place(*shard, before, replicas).await
                }
                Action::Lead { shard, leader, to } => {
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
