//! Replicas that come to this node, and those that leave it.
//!
//! The meta group says which nodes are to have which shards. [`Shards::tend`] opens what is to be
//! here, tells the log who the members are, and removes what is not to be here once the members
//! are others: it is silent for a while first, so that nothing that it said is on its way any more
//! (`everspan_replication` says why).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use everspan_replication::{Members, Standing};
use everspan_storage::remove_rows;
use everspan_types::{Error, Result, ShardId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    actor::{Close, Inbound},
    client::Shards,
    wire::Question,
};

/// How long a replica is silent before it is removed: longer than any message travels, since a
/// connection that is silent for two seconds ends.
const SILENCE: Duration = Duration::from_secs(10);
/// How long another node may take to say where its replicas stand.
const STANDINGS_MAX: Duration = Duration::from_secs(2);

/// How often a node that starts looks whether its shards are led.
const LEADERS_LOOK: Duration = Duration::from_millis(20);

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStanding {
    /// Its shard.
    pub shard: ShardId,
    /// The node that leads, as the replica's node knows; 0 for none.
    pub leader: u64,
    /// Raft's term.
    pub term: u64,
    /// Index of the last entry that is known to be committed.
    pub committed: u64,
    /// Nodes that vote.
    pub voters: BTreeSet<u64>,
    /// Nodes that do not vote yet, or no more.
    pub learners: BTreeSet<u64>,
    /// Whether the members are as they are to be; only a leader knows.
    pub is_settled: bool,
    /// Nodes that answer and have all entries, but for the latest; only a leader knows.
    pub close: BTreeSet<u64>,
    /// Whether its node can write its log.
    pub can_write: bool,
}

impl ReplicaStanding {
    fn new(standing: Standing, can_write: bool) -> Option<Self> {
        let Standing { group, leader, term, committed, voters, learners, is_settled, close } =
            standing;
        let shard = ShardId(u32::try_from(group).ok().filter(|id| *id > 0)?);
        Some(Self {
            shard,
            leader,
            term,
            committed,
            voters,
            learners,
            is_settled,
            close,
            can_write,
        })
    }
}

/// Replicas that are about to be removed, and since when they are silent.
#[derive(Debug, Default)]
pub(crate) struct Leaving(Mutex<BTreeMap<ShardId, Instant>>);

impl Shards {
    /// Where the replicas on this node stand.
    pub async fn standings_here(&self) -> Vec<ReplicaStanding> {
        let (tx, rx) = oneshot::channel();
        self.log().standings(move |standings| drop(tx.send(standings)));
        let standings = rx.await.unwrap_or_default();
        let can_write = self.log().stalled().is_none();
        standings.into_iter().filter_map(|s| ReplicaStanding::new(s, can_write)).collect()
    }

    /// Where the replicas on some nodes stand, by node, of those that answer.
    pub async fn standings(
        &self,
        nodes: impl IntoIterator<Item = u64>,
    ) -> BTreeMap<u64, Vec<ReplicaStanding>> {
        let me = self.routes().peers().me();
        let asked = nodes.into_iter().map(|node| async move {
            if node == me {
                return Some((node, self.standings_here().await));
            }
            let question = &Question::Standings;
            let answer = self.routes().ask(node, ShardId(0), question, STANDINGS_MAX).await;
            answer.ok().map(|standings| (node, standings))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Has another node lead a shard which this one leads.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if it does not.
    pub async fn hand_over_one(&self, shard: ShardId, to: u64) -> Result<()> {
        let is_here = self.routes().leader(shard) == self.routes().peers().me();
        let Some(addr) = self.addr(shard).filter(|_| is_here) else {
            return Err(Error::FailedPrecondition(format!("shard {shard} is not led here")));
        };
        let (done, end) = oneshot::channel();
        addr.do_send(Inbound::HandOver { to, done });
        let _ = end.await;
        Ok(())
    }

    /// Has a node lead a shard, wherever it is led now.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if no leader of it is known, or what the leader's node says.
    pub async fn transfer(&self, shard: ShardId, leader: u64, to: u64) -> Result<()> {
        if leader == self.routes().peers().me() {
            return self.hand_over_one(shard, to).await;
        }
        let question = Question::HandOver { shard, to };
        self.routes().ask(leader, shard, &question, STANDINGS_MAX).await
    }

    /// Waits until somebody leads each shard of which a replica is here, for a while at most: with too
    /// few nodes nobody does.
    pub async fn await_leaders(&self, at_most: Duration) {
        let routes = self.routes();
        let here = routes.shards().filter(|id| self.addr(*id).is_some());
        let mut left: Vec<ShardId> = here.collect();
        let all = async {
            loop {
                left.retain(|id| routes.leader(*id) == 0);
                if left.is_empty() {
                    return;
                }
                tokio::time::sleep(LEADERS_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(at_most, all).await;
    }

    /// Has on this node what is to be here, by what the routes say, and nothing else. To be called
    /// every now and then.
    pub async fn tend(&self) {
        let routes = self.routes();
        let me = routes.peers().me();
        let mut elsewhere = Vec::new();
        for id in routes.shards() {
            let (wanted, group) = (routes.wanted(id), u64::from(id.0));
            let is_mine = wanted.contains(&me);
            if is_mine && self.addr(id).is_none() {
                match self.open_replica(id).await {
                    Ok(_) => info!(shard = %id, "a replica comes here"),
                    Err(error) => warn!(shard = %id, %error, "a replica cannot be opened"),
                }
            }
            if self.addr(id).is_none() {
                continue;
            }
            let voters = wanted.into_iter().collect();
            let members = Members { voters, waits_to_transfer: true, ..Members::default() };
            self.log().set_members(group, members);
            if is_mine {
                if self.leaving().0.lock().remove(&id).is_some() {
                    self.log().silence(group, false);
                }
            } else {
                elsewhere.push(id);
            }
        }
        if elsewhere.is_empty() {
            return;
        }
        self.hand_over_to_stay(&elsewhere).await;
        let nodes: BTreeSet<u64> = elsewhere.iter().flat_map(|id| routes.wanted(*id)).collect();
        let standings = self.standings(nodes).await;
        for id in elsewhere {
            let wanted: BTreeSet<u64> = routes.wanted(id).into_iter().collect();
            // Whoever leads knows the members; one that led before and does not know it would have
            // to be settled with those very members, too.
            let settled =
                standings.iter().flat_map(|(node, all)| all.iter().map(move |s| (node, s)));
            let settled = settled.filter(|(node, s)| {
                s.shard == id && s.leader == **node && s.is_settled && s.voters == wanted
            });
            if let Some(committed) = settled.map(|(_, s)| s.committed).max() {
                self.leave(id, committed).await;
            }
        }
    }

    /// Hands over what this node leads and is not to have, once those that are to have it do.
    async fn hand_over_to_stay(&self, shards: &[ShardId]) {
        let me = self.routes().peers().me();
        for standing in self.standings_here().await {
            let id = standing.shard;
            if standing.leader != me || !shards.contains(&id) {
                continue;
            }
            let wanted = self.routes().wanted(id);
            let is_ready = wanted.iter().all(|node| standing.voters.contains(node));
            let heir = wanted.into_iter().find(|node| standing.close.contains(node));
            if let Some(to) = heir.filter(|_| is_ready)
                && let Err(error) = self.hand_over_one(id, to).await
            {
                warn!(shard = %id, to, %error, "the shard cannot be handed over");
            }
        }
    }

    /// Removes a replica, after a while of silence.
    async fn leave(&self, id: ShardId, committed: u64) {
        let group = u64::from(id.0);
        let since = *self.leaving().0.lock().entry(id).or_insert_with(Instant::now);
        self.log().silence(group, true);
        if since.elapsed() < SILENCE {
            return;
        }
        let (tx, rx) = oneshot::channel();
        self.log().remove(group, committed, move |removed| drop(tx.send(removed)));
        if !matches!(rx.await, Ok(Ok(()))) {
            return warn!(shard = %id, "a replica cannot be removed now; it is tried again");
        }
        self.leaving().0.lock().remove(&id);
        if let Some(addr) = self.take_addr(id) {
            let (tx, rx) = oneshot::channel();
            addr.do_send(Close(tx));
            let _ = rx.await;
        }
        let store = self.store();
        let removed = tokio::task::spawn_blocking(move || remove_rows(&*store, id)).await;
        match removed {
            Ok(Ok(())) => info!(shard = %id, "the replica here is no more"),
            // They go before it is opened anew.
            Ok(Err(error)) => warn!(shard = %id, %error, "rows of a removed replica are left"),
            Err(error) => warn!(shard = %id, %error, "rows of a removed replica are left"),
        }
    }
}
