use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use everspan_peers::{AskError, Peers, Topic};
use everspan_proto::workflowservice as api;
use everspan_replication::Handle;
use everspan_storage::Store;
use everspan_types::{Error, NamespaceId, Result, ShardId, Time, wire};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::info;
use uuid::Uuid;

use crate::{
    change::Change,
    group::{Group, Input, Standing},
    members::{MemberState, removed},
    namespace::Namespace,
    queue_config::{QueueConfig, QueueName},
    state::{AttributeTypes, Snapshot},
};

/// How long a leader is looked for.
const SEARCH_MAX: Duration = Duration::from_secs(8);
/// Wait before it is looked for again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long another node may take for a change.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// How long nodes that are there may take to see a change before it is acknowledged.
const SEEN_MAX: Duration = Duration::from_secs(2);
/// How often a node that waits for the others says so.
const REMIND: Duration = Duration::from_secs(10);

/// What nodes ask each other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// To decide on a change: `Result` of its index.
    Change(Change),
    /// To wait until the changes up to this index are to be seen: `Result` of nothing.
    See(u64),
    /// For a page of the replica's rows, as of this index or later, from this key on.
    Rows(u64, Bytes),
}

/// The cluster's own state, for everybody. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct MetaHandle {
    snapshot: Arc<ArcSwap<Snapshot>>,
    standing: watch::Receiver<Standing>,
    inputs: mpsc::UnboundedSender<Input>,
    peers: Peers,
}

impl MetaHandle {
    /// Opens this node's replica of the group, whose `replicas` are these nodes, and waits until
    /// the cluster is founded: until it was there before, or most of them are. Its task stays on
    /// the runtime on which this is called.
    ///
    /// # Errors
    /// If the rows are damaged or the group cannot be written.
    pub async fn open(
        log: Handle,
        store: Arc<dyn Store>,
        peers: Peers,
        replicas: &[u64],
        is_system: fn(&str) -> bool,
    ) -> Result<Self> {
        let (tx, inputs) = mpsc::unbounded_channel();
        let group = Group::open(peers.clone(), replicas, log, store, tx.clone(), is_system)?;
        let (snapshot, standing) = (group.snapshot(), group.standing());
        tokio::spawn(group.run(inputs));
        let this = Self { snapshot, standing, inputs: tx, peers };
        let is_open = |standing: &Standing| {
            // A node that is alone leads in a moment, and takes no calls before.
            standing.is_founded && (standing.leader != 0 || !this.peers.is_alone())
        };
        let mut standing = this.standing.clone();
        loop {
            match tokio::time::timeout(REMIND, standing.wait_for(is_open)).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return Err(Error::internal("the meta group ended")),
                Err(_) => {
                    let there: Vec<u64> = this.peers.view().nodes().collect();
                    info!(?there, ?replicas, "waiting for most of the cluster's nodes");
                }
            }
        }
        Ok(this)
    }

    /// What is committed now.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Waits for the next change of the state.
    pub async fn changed(&self) {
        let mut standing = self.standing.clone();
        let before = standing.borrow_and_update().applied;
        if standing.wait_for(|now| now.applied != before).await.is_err() {
            // The group ended: so does the process.
            std::future::pending::<()>().await;
        }
    }

    /// The node that leads the group; 0 if none is known to.
    #[must_use]
    pub fn leader(&self) -> u64 {
        self.standing.borrow().leader
    }

    /// Notes that this node takes part in the cluster. To be called before the group is opened,
    /// where another node has it already: `founded` are the nodes that say so.
    ///
    /// # Errors
    /// See [`crate::Meta::join`]; `UNAVAILABLE` if none of them can say now.
    pub async fn join(peers: &Peers, founded: &[u64], dir: Uuid, address: &str) -> Result<()> {
        let change = Change::Join(peers.me(), dir, address.to_owned());
        let question = wire::to_bytes(&Question::Change(change));
        for node in founded {
            let answer = peers.ask(*node, Topic::Meta, question.clone(), CHANGE_MAX).await;
            let Ok(answer) = answer else { continue };
            match wire::from_bytes::<Result<u64>>(&answer) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error @ Error::FailedPrecondition(_))) => return Err(error),
                // It does not lead, or cannot say now.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(Error::unavailable("the meta group has no leader now"))
    }

    /// Notes that this node takes part in the cluster, once its own replica is open.
    ///
    /// # Errors
    /// See [`crate::Meta::join`].
    pub async fn joined(&self, dir: Uuid, address: &str) -> Result<()> {
        let me = self.peers.me();
        let is_known = {
            let snapshot = self.snapshot();
            let member = snapshot.members.get(&me);
            if member.is_some_and(|m| m.state == MemberState::Removed) {
                return Err(removed(me));
            }
            snapshot.nodes.get(&me) == Some(&dir) && member.is_some_and(|m| m.address == address)
        };
        if is_known {
            return Ok(());
        }
        self.change(Change::Join(me, dir, address.to_owned())).await
    }

    /// Says what is to become of a node; `founding` are those that founded the cluster.
    ///
    /// # Errors
    /// See [`crate::Meta::set_member`].
    pub async fn set_member(&self, node: u64, state: MemberState, founding: &[u64]) -> Result<()> {
        self.change(Change::SetMember(node, state, founding.to_vec())).await
    }

    /// Says which nodes are to have replicas of a shard.
    ///
    /// # Errors
    /// See [`crate::Meta::place`].
    pub async fn place(&self, shard: ShardId, before: &[u64], replicas: &[u64]) -> Result<()> {
        self.change(Change::Place(shard, before.to_vec(), replicas.to_vec())).await
    }

    /// Has the leader decide on a change. Once it is acknowledged, every node that is there sees
    /// it, but for those that take very long.
    async fn change(&self, change: Change) -> Result<()> {
        let index = self.decide(change).await?;
        let mut standing = self.standing.clone();
        let seen = standing.wait_for(|now| now.applied >= index);
        // A node that lags far behind sees it when it can.
        let _ = tokio::time::timeout(SEEN_MAX, seen).await;
        if !self.peers.is_alone() {
            let question = wire::to_bytes(&Question::See(index));
            let view = self.peers.view();
            let others = view.nodes().filter(|node| *node != self.peers.me());
            let seen =
                others.map(|node| self.peers.ask(node, Topic::Meta, question.clone(), SEEN_MAX));
            // Who cannot be asked now sees it when it can.
            let _ = futures::future::join_all(seen).await;
        }
        Ok(())
    }

    async fn decide(&self, change: Change) -> Result<u64> {
        let until = Instant::now() + SEARCH_MAX;
        loop {
            let leader = self.leader();
            let outcome = if leader == self.peers.me() || self.peers.is_alone() {
                self.decide_here(change.clone()).await
            } else {
                self.decide_there(leader, &change).await
            };
            match outcome {
                Err(Error::Moved { .. }) if Instant::now() < until => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(Error::Moved { .. }) => {
                    return Err(Error::unavailable("the meta group has no leader now"));
                }
                other => return other,
            }
        }
    }

    async fn decide_here(&self, change: Change) -> Result<u64> {
        let gone = || Error::unavailable("the meta group ended");
        let (done, outcome) = oneshot::channel();
        self.inputs.send(Input::Change(change, done)).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    async fn decide_there(&self, leader: u64, change: &Change) -> Result<u64> {
        let question = wire::to_bytes(&Question::Change(change.clone()));
        let answer = self.peers.ask(leader, Topic::Meta, question, CHANGE_MAX).await;
        let answer = answer.map_err(|e| match e {
            AskError::NotAsked(_) => Error::Moved { shard: ShardId(0), leader: 0 },
            AskError::Unknown(reason) => Error::unavailable(reason),
        })?;
        wire::from_bytes::<Result<u64>>(&answer)
            .map_err(|e| Error::internal(format!("node {leader} answered with {e}")))?
    }

    /// Answers what another node asks.
    ///
    /// # Errors
    /// If it is no question.
    pub async fn answer(&self, question: Bytes) -> Result<Bytes, String> {
        let question: Question = wire::from_bytes(&question).map_err(|e| e.to_string())?;
        Ok(match question {
            // Who is new does not know the leader, if that is newer than the founders.
            Question::Change(change @ Change::Join(..)) => {
                wire::to_bytes(&self.decide(change).await)
            }
            Question::Change(change) => wire::to_bytes(&self.decide_here(change).await),
            Question::Rows(index, from) => {
                let (done, page) = oneshot::channel();
                let gone = || "the meta group ended".to_owned();
                self.inputs.send(Input::Rows(index, from, done)).map_err(|_| gone())?;
                wire::to_bytes(&page.await.map_err(|_| gone())?)
            }
            Question::See(index) => {
                let mut standing = self.standing.clone();
                let _ = standing.wait_for(|now| now.applied >= index).await;
                wire::to_bytes(&Ok::<_, Error>(()))
            }
        })
    }

    /// Registers a namespace.
    ///
    /// # Errors
    /// See [`Meta::register`].
    pub async fn register(&self, r: &api::RegisterNamespaceRequest) -> Result<()> {
        self.change(Change::Register(NamespaceId(Uuid::new_v4()), Box::new(r.clone()))).await
    }

    /// Registers a namespace with defaults unless it is there.
    ///
    /// # Errors
    /// See [`Meta::ensure`].
    pub async fn ensure(&self, name: &str) -> Result<()> {
        self.change(Change::Ensure(NamespaceId(Uuid::new_v4()), name.to_owned())).await
    }

    /// Changes a namespace.
    ///
    /// # Errors
    /// See [`Meta::update`].
    pub async fn update(&self, r: &api::UpdateNamespaceRequest) -> Result<Arc<Namespace>> {
        self.change(Change::Update(Box::new(r.clone()))).await?;
        self.snapshot().namespace(&r.namespace)
    }

    /// Marks a namespace as one to be left.
    ///
    /// # Errors
    /// See [`Meta::deprecate`].
    pub async fn deprecate(&self, name: &str) -> Result<()> {
        self.change(Change::Deprecate(name.to_owned())).await
    }

    /// Changes the configuration of a task queue.
    ///
    /// # Errors
    /// See [`Meta::configure_queue`].
    pub async fn configure_queue(
        &self,
        now: Time,
        queue: QueueName,
        r: &api::UpdateTaskQueueConfigRequest,
        id_length_max: usize,
    ) -> Result<Arc<QueueConfig>> {
        let name = queue.clone();
        let (request, id_length_max) = (Box::new(r.clone()), id_length_max as u64);
        self.change(Change::ConfigureQueue { now, queue, request, id_length_max }).await?;
        Ok(self.snapshot().queue_configs.get(&name).cloned().unwrap_or_default())
    }

    /// Adds custom search attributes.
    ///
    /// # Errors
    /// See [`Meta::add_attributes`].
    pub async fn add_attributes(&self, new: &AttributeTypes) -> Result<()> {
        self.change(Change::AddAttributes(new.clone())).await
    }

    /// Removes custom search attributes.
    ///
    /// # Errors
    /// See [`Meta::remove_attributes`].
    pub async fn remove_attributes(&self, names: &[String]) -> Result<()> {
        self.change(Change::RemoveAttributes(names.to_vec())).await
    }
}
