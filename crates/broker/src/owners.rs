//! Which node's broker holds a queue, and the way there.
//!
//! Nodes that see the same others agree on the owner of each queue. While they do not, two of
//! them may hold a queue: tasks are then handed out by either, each once, since their shard
//! records it. When a node comes or goes, queues that another owns now let their polls go, and
//! those that stay ask all shards anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use everspan_peers::{AskError, Peers, Topic, View};
use everspan_types::{Error, Offer, QueueKey, Result, ShardId, TaskKind, wire};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::wire::Question;

/// How long a question waits that is no poll.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Offers on their way to one node; what is more is found by asking its shard.
const OFFERS_MAX: usize = 50_000;
/// Offers in one message.
const OFFERS_AT_ONCE: usize = 512;
/// How often an offer is sent, and the wait between. After that queues are told to ask its shard.
const SEND: (u32, Duration) = (10, Duration::from_millis(100));

/// The owners of queues. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    pub(crate) peers: Peers,
    lanes: Arc<Mutex<BTreeMap<u64, Lane>>>,
}

/// Offers on their way to one node.
#[derive(Debug)]
struct Lane {
    offers: mpsc::Sender<Offer>,
    /// Shards of which some did not fit: queues there are to ask them.
    unsent: Arc<Mutex<BTreeSet<ShardId>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What places a queue among the nodes.
pub(crate) fn hash(queue: &QueueKey) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(queue.namespace.0.as_bytes());
    hasher.update(&[match queue.kind {
        TaskKind::Workflow => 1,
        TaskKind::Activity => 2,
    }]);
    hasher.update(queue.name.as_bytes());
    hasher.finalize()
}

/// Whether a node owns a queue, as it sees it. Where nobody is to own anything, as when all are
/// about to stop, everybody does.
pub(crate) fn is_own(view: &View, me: u64, queue: &QueueKey) -> bool {
    view.owner(hash(queue)).is_none_or(|owner| owner == me)
}

impl Owners {
    pub(crate) fn new(peers: Peers) -> Self {
        Self { peers, lanes: Arc::default() }
    }

    /// The other node that owns a queue; none if it is this one's.
    pub(crate) fn elsewhere(&self, queue: &QueueKey) -> Option<u64> {
        if self.peers.is_alone() {
            return None;
        }
        self.peers.view().owner(hash(queue)).filter(|owner| *owner != self.peers.me())
    }

    /// Asks a node.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        node: u64,
        question: &Question,
        wait: Duration,
    ) -> Result<T, AskError> {
        let question = wire::to_bytes(question);
        let answer = self.peers.ask(node, Topic::Brokers, question, wait).await?;
        let bad = |e| AskError::Unknown(format!("node {node} answered with {e}"));
        wire::from_bytes(&answer).map_err(bad)
    }

    /// Asks a node something that changes nothing.
    ///
    /// # Errors
    /// `UNAVAILABLE` if there is no answer.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        node: u64,
        question: &Question,
    ) -> Result<T> {
        let answer = self.ask(node, question, ANSWER_MAX).await;
        answer.map_err(|e| Error::unavailable(e.to_string()))
    }

    /// Tells a node something, in the background.
    pub(crate) fn tell(&self, node: u64, question: Question) {
        let this = self.clone();
        tokio::spawn(async move { this.insist(node, &question).await });
    }

    /// Tells every other node something, in the background.
    pub(crate) fn tell_all(&self, question: impl Fn() -> Question) {
        for node in self.peers.view().nodes().filter(|node| *node != self.peers.me()) {
            self.tell(node, question());
        }
    }

    async fn insist(&self, node: u64, question: &Question) -> bool {
        for _ in 0..SEND.0 {
            if self.ask::<()>(node, question, ANSWER_MAX).await.is_ok() {
                return true;
            }
            tokio::time::sleep(SEND.1).await;
        }
        false
    }

    /// Sends an offer to another node's broker. What comes while a message is on its way goes
    /// with the next.
    pub(crate) fn offer(&self, node: u64, offer: Offer) {
        let mut lanes = locked(&self.lanes);
        let lane = lanes.entry(node).or_insert_with(|| {
            let (offers, rx) = mpsc::channel(OFFERS_MAX);
            let unsent = Arc::default();
            tokio::spawn(self.clone().feed(node, rx, Arc::clone(&unsent)));
            Lane { offers, unsent }
        });
        // The receiver is gone when its arbiter is: as the node stops.
        if let Err(TrySendError::Full(offer)) = lane.offers.try_send(offer) {
            locked(&lane.unsent).insert(offer.shard);
        }
    }

    async fn feed(
        self,
        node: u64,
        mut offers: mpsc::Receiver<Offer>,
        unsent: Arc<Mutex<BTreeSet<ShardId>>>,
    ) {
        let mut batch = Vec::new();
        while offers.recv_many(&mut batch, OFFERS_AT_ONCE).await > 0 {
            for shard in std::mem::take(&mut *locked(&unsent)) {
                self.tell(node, Question::Refresh { shard });
            }
            let offers = std::mem::take(&mut batch);
            let question = Question::Offers { offers, is_passed_on: false };
            if self.ask::<()>(node, &question, ANSWER_MAX).await.is_err() {
                // The next must not wait for a node that may be gone.
                let this = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(SEND.1).await;
                    let Question::Offers { offers, .. } = question else { return };
                    this.again(offers).await;
                });
            }
        }
    }

    /// Offers that did not get there go to whoever owns their queues by now.
    async fn again(&self, offers: Vec<Offer>) {
        let mut left = offers;
        for _ in 0..SEND.0 {
            let mut by_node: BTreeMap<u64, Vec<Offer>> = BTreeMap::new();
            for offer in std::mem::take(&mut left) {
                let node = self.elsewhere(&offer.queue).unwrap_or(self.peers.me());
                by_node.entry(node).or_default().push(offer);
            }
            for (node, offers) in by_node {
                if node == self.peers.me() {
                    // This node owns it since a moment: it asked all shards then.
                    continue;
                }
                let question = Question::Offers { offers, is_passed_on: false };
                if self.ask::<()>(node, &question, ANSWER_MAX).await.is_err()
                    && let Question::Offers { offers, .. } = question
                {
                    left.extend(offers);
                }
            }
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(SEND.1).await;
        }
        let shards: BTreeSet<ShardId> = left.iter().map(|offer| offer.shard).collect();
        for shard in shards {
            self.tell_all(|| Question::Refresh { shard });
        }
    }
}

/// The answer to what needs none.
pub(crate) fn done() -> Bytes {
    wire::to_bytes(&())
}
