//! Which node to ask about a shard.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use everspan_peers::{AskError, Peers, Topic};
use everspan_types::{Error, Result, ShardId, wire};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::wire::Question;

/// Replicas of a shard, where there are enough nodes.
pub const REPLICAS: usize = 3;
/// How long a leader is looked for before whoever asks is told that there is none.
const SEARCH_MAX: Duration = Duration::from_secs(8);
/// First and longest wait before a shard is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// How long one question waits that names no time itself.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The nodes that hold a shard's replicas, of all `nodes` in order; the one that comes first
/// stands for election first, so that leaders spread. Never changes for the same nodes.
#[must_use]
pub fn placement(nodes: &[u64], shard: ShardId) -> Vec<u64> {
    let count = nodes.len().min(REPLICAS);
    let first = (shard.0 as usize).saturating_sub(1);
    (0..count).map(|n| nodes[(first + n) % nodes.len()]).collect()
}

/// Nodes that are to have replicas of a shard, and those that were to before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Which are to.
    pub wanted: Vec<u64>,
    /// Which were to, and may still lead.
    pub before: Vec<u64>,
}

/// Where the shards are, as far as this node knows. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Routes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    peers: Peers,
    /// The nodes that founded the cluster.
    founders: Vec<u64>,
    placed: RwLock<BTreeMap<ShardId, Placed>>,
    /// Who leads each shard; 0 if nobody is known to.
    leaders: Vec<AtomicU64>,
    next: AtomicUsize,
}

impl Routes {
    /// Of `count` shards on the nodes that founded the cluster, which are the same, in the same
    /// order, everywhere.
    #[must_use]
    pub fn new(peers: Peers, founders: Vec<u64>, count: u32) -> Self {
        let leaders = (0..count).map(|_| AtomicU64::new(0)).collect();
        let (placed, next) = (RwLock::default(), AtomicUsize::new(0));
        Self { inner: Arc::new(Inner { peers, founders, placed, leaders, next }) }
    }

    /// Shards that are elsewhere than they were founded.
    pub fn set_placed(&self, placed: BTreeMap<ShardId, Placed>) {
        *self.inner.placed.write() = placed;
    }

    /// The nodes on which a shard was founded.
    #[must_use]
    pub fn founding(&self, shard: ShardId) -> Vec<u64> {
        placement(&self.inner.founders, shard)
    }

    /// The nodes that are to have a replica of a shard.
    #[must_use]
    pub fn wanted(&self, shard: ShardId) -> Vec<u64> {
        let placed = self.inner.placed.read();
        placed.get(&shard).map_or_else(|| self.founding(shard), |placed| placed.wanted.clone())
    }

    /// Of a node that is its own cluster.
    #[must_use]
    pub fn alone(count: u32) -> Self {
        Self::new(Peers::alone(), vec![1], count)
    }

    /// The other nodes.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// The nodes that may have a replica of a shard: those that are to, and those that were.
    #[must_use]
    pub fn replicas(&self, shard: ShardId) -> Vec<u64> {
        let placed = self.inner.placed.read();
        let Some(placed) = placed.get(&shard) else { return self.founding(shard) };
        let others = placed.before.iter().filter(|node| !placed.wanted.contains(node));
        placed.wanted.iter().chain(others).copied().collect()
    }

    /// How many of how many replicas can be reached, if those are too few to go on. While a shard
    /// moves, either most of those that are to have it may do, or most of those that were.
    fn lacks_quorum(&self, shard: ShardId) -> Option<(usize, usize)> {
        let reachable = |nodes: &[u64]| {
            let there = nodes.iter().filter(|node| self.is_reachable(**node)).count();
            (there, nodes.len())
        };
        let is_lacking = |(there, of): &(usize, usize)| *there <= of / 2;
        let found = reachable(&self.wanted(shard));
        let before = match self.inner.placed.read().get(&shard) {
            Some(placed) => reachable(&placed.before),
            None => found,
        };
        Some(found).filter(|found| is_lacking(found) && is_lacking(&before))
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        (1..=self.inner.leaders.len()).filter_map(|n| u32::try_from(n).ok()).map(ShardId)
    }

    fn slot(&self, shard: ShardId) -> Option<&AtomicU64> {
        self.inner.leaders.get((shard.0 as usize).checked_sub(1)?)
    }

    /// Who leads a shard; 0 if nobody is known to.
    #[must_use]
    pub fn leader(&self, shard: ShardId) -> u64 {
        self.slot(shard).map_or(0, |slot| slot.load(Ordering::SeqCst))
    }

    /// A node leads a shard, or, with 0, none does.
    pub fn learn(&self, shard: ShardId, leader: u64) {
        if let Some(slot) = self.slot(shard) {
            slot.store(leader, Ordering::SeqCst);
        }
    }

    /// What a node that does not lead a shard says.
    #[must_use]
    pub fn elsewhere(&self, shard: ShardId) -> Error {
        if self.inner.peers.is_alone() {
            return Error::unavailable(format!("shard {shard} is starting"));
        }
        let leader = match self.leader(shard) {
            me if me == self.inner.peers.me() => 0,
            leader => leader,
        };
        Error::Moved { shard, leader }
    }

    /// Whether a node answers; one that is about to stop does.
    fn is_reachable(&self, node: u64) -> bool {
        node == self.inner.peers.me() || self.inner.peers.is_reachable(node)
    }

    /// Whom to ask next.
    fn target(&self, shard: ShardId) -> Option<u64> {
        let leader = self.leader(shard);
        if leader != 0 && self.is_reachable(leader) {
            return Some(leader);
        }
        let mut there = self.replicas(shard);
        there.retain(|node| self.is_reachable(*node));
        let next = self.inner.next.fetch_add(1, Ordering::Relaxed);
        (!there.is_empty()).then(|| there[next % there.len()])
    }

    /// Asks the leader of a shard, looking for it if need be: `ask` is given the node to ask.
    /// Where nobody knows what came of an attempt, another is made only if the question
    /// `repeats` without harm.
    ///
    /// # Errors
    /// What the leader said; `UNAVAILABLE` at once if most replicas cannot be reached, and after
    /// a while, or at `until`, if there is no leader.
    pub(crate) async fn find<T, F: Future<Output = Result<T>>>(
        &self,
        shard: ShardId,
        until: Instant,
        repeats: bool,
        ask: impl Fn(u64) -> F,
    ) -> Result<T> {
        let me = self.inner.peers.me();
        if self.inner.peers.is_alone() {
            return ask(me).await;
        }
        let until = until.min(Instant::now() + SEARCH_MAX);
        let mut pause = PAUSES.0;
        loop {
            let target = self.target(shard);
            let outcome = match target {
                Some(node) => ask(node).await,
                None => Err(Error::Moved { shard, leader: 0 }),
            };
            match outcome {
                Err(Error::Moved { leader, .. }) => {
                    let known = self.leader(shard);
                    if leader != 0 && Some(leader) != target {
                        self.learn(shard, leader);
                    } else if Some(known) == target {
                        // Also where that is this node: it leads, but cannot write.
                        self.learn(shard, 0);
                    }
                }
                Err(Error::Unavailable(_)) if repeats => {}
                other => return other,
            }
            if let Some((there, of)) = self.lacks_quorum(shard) {
                return Err(Error::unavailable(format!(
                    "shard {shard} has no quorum: {there} of its {of} replicas can be reached"
                )));
            }
            if Instant::now() + pause >= until {
                return Err(Error::unavailable(format!("shard {shard} has no leader now")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Asks another node a question about a shard, once.
    pub(crate) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        node: u64,
        shard: ShardId,
        question: &Question,
        wait: Duration,
    ) -> Result<T> {
        let question = wire::to_bytes(question);
        let answer = self.inner.peers.ask(node, Topic::Shards, question, wait).await;
        let answer = answer.map_err(|e| match e {
            AskError::NotAsked(_) => Error::Moved { shard, leader: 0 },
            AskError::Unknown(reason) => Error::unavailable(reason),
        })?;
        wire::from_bytes::<Result<T>>(&answer)
            .map_err(|e| Error::internal(format!("node {node} answered with {e}")))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_and_first_leaders_spread() {
        let at = |nodes: &[u64]| (1..=4).map(|n| placement(nodes, ShardId(n))).collect::<Vec<_>>();
        assert_eq!(at(&[1]), [[1]; 4]);
        assert_eq!(at(&[1, 2, 3]), [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
        assert_eq!(at(&[1, 2, 3, 4, 5])[3], [4, 5, 1]);
    }

    #[test]
    fn who_had_a_shard_may_have_it_still() {
        let routes = Routes::new(Peers::alone(), vec![1, 2, 3], 2);
        let placed = Placed { wanted: vec![2, 3, 4], before: vec![1, 2, 3] };
        routes.set_placed([(ShardId(1), placed)].into());
        assert_eq!(routes.wanted(ShardId(1)), [2, 3, 4]);
        assert_eq!(routes.replicas(ShardId(1)), [2, 3, 4, 1]);
        assert_eq!(routes.founding(ShardId(1)), [1, 2, 3]);
        assert_eq!(routes.wanted(ShardId(2)), [2, 3, 1]);
        assert_eq!(routes.lacks_quorum(ShardId(1)), Some((0, 3)));
    }

    #[tokio::test]
    async fn a_node_that_is_alone_is_asked_once() {
        let routes = Routes::alone(4);
        let shard = ShardId(2);
        let refused = || async { Err::<(), _>(routes.elsewhere(shard)) };
        let far = Instant::now() + Duration::from_secs(60);
        let answer = routes.find(shard, far, true, |_| refused()).await;
        assert_eq!(answer, Err(Error::unavailable("shard 2 is starting")));
        routes.learn(shard, 9);
        assert_eq!(routes.leader(shard), 9);
    }
}
