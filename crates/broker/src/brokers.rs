//! The brokers of a node, for those who call them.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, ArbiterHandle};
use bytes::Bytes;
use everspan_peers::Peers;
use everspan_types::{Error, Offer, Poller, QueueKey, Result, ShardId, StartedTask, wire};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    actor::{BrokerActor, Message},
    backlog::{BacklogAsk, BacklogCounts, BacklogPage},
    config::QueueConfigs,
    owners::{Owners, done},
    queue::QueueStatus,
    wire::{Polled, Question},
};

/// Wait before a poll goes on that was let go because its queue moved.
const POLL_AGAIN: Duration = Duration::from_millis(20);
/// How much longer than the poll itself the answer of another node may take.
const POLL_GRACE: Duration = Duration::from_secs(1);

/// Why a task was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartError {
    /// The offer does not stand any more.
    Stale,
    /// The shard could not say.
    Unavailable(String),
}

/// The shards, as brokers need them. Answers come through callbacks, on any thread.
pub trait TaskSource: Send + Sync + 'static {
    /// Records a task as started and hands it over.
    fn start(
        &self,
        offer: Offer,
        poller: Poller,
        done: Box<dyn FnOnce(Result<StartedTask, StartError>) + Send>,
    );
    /// Reads tasks that wait.
    fn backlog(
        &self,
        shard: ShardId,
        ask: BacklogAsk,
        done: Box<dyn FnOnce(Result<BacklogPage, Error>) + Send>,
    );
    /// Counts tasks that wait.
    fn count(
        &self,
        shard: ShardId,
        queue: QueueKey,
        done: Box<dyn FnOnce(Result<BacklogCounts, Error>) + Send>,
    );
    /// Takes a sticky task back.
    fn sticky_unavailable(&self, offer: Offer);
    /// All shards.
    fn shards(&self) -> Vec<ShardId>;
}

/// The brokers of the cluster: those of this node, and the way to the others. Cloning is cheap;
/// any thread of a tokio runtime may call.
#[derive(Clone)]
pub struct Brokers {
    addrs: Arc<Vec<Addr<BrokerActor>>>,
    owners: Owners,
    source: Arc<dyn TaskSource>,
    next_poll: Arc<AtomicU64>,
}

impl std::fmt::Debug for Brokers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brokers").field("actors", &self.addrs.len()).finish()
    }
}

/// Tells the broker when a poll's caller goes away.
struct PollGuard {
    addr: Addr<BrokerActor>,
    cancel: Option<(QueueKey, u64)>,
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        if let Some((queue, poll_id)) = self.cancel.take() {
            self.addr.do_send(Message::Cancel { queue, poll_id });
        }
    }
}

fn gone() -> Error {
    Error::unavailable("the task queue's broker is gone")
}

impl Brokers {
    /// Starts one actor on each of `arbiters`. `rate_max` bounds the tasks a second of each
    /// queue.
    ///
    /// # Errors
    /// If an arbiter is gone.
    pub async fn start(
        peers: Peers,
        arbiters: &[ArbiterHandle],
        source: Arc<dyn TaskSource>,
        configs: Arc<dyn QueueConfigs>,
        rate_max: f64,
    ) -> Result<Self> {
        let me = peers.me();
        let mut addrs = Vec::new();
        for arbiter in arbiters {
            let (tx, rx) = oneshot::channel();
            let (source, configs) = (source.clone(), configs.clone());
            arbiter.spawn_fn(move || {
                let _ = tx.send(BrokerActor::new(source, configs, rate_max, me).start());
            });
            addrs.push(rx.await.map_err(|_| Error::internal("an arbiter is gone"))?);
        }
        let owners = Owners::new(peers);
        Ok(Self { addrs: Arc::new(addrs), owners, source, next_poll: Arc::default() })
    }

    /// Moves queues as nodes come and go, for ever.
    pub async fn follow_nodes(self) {
        let mut views = self.owners.peers.watch();
        while views.changed().await.is_ok() {
            let view = views.borrow_and_update().clone();
            for addr in self.addrs.iter() {
                addr.do_send(Message::View(view.clone()));
            }
        }
    }

    fn of(&self, queue: &QueueKey) -> &Addr<BrokerActor> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(queue);
        let count = self.addrs.len() as u64;
        &self.addrs[usize::try_from(hash % count).unwrap_or(0)]
    }

    /// Offers tasks; never waits.
    pub fn offer(&self, offers: Vec<Offer>) {
        for offer in offers {
            match self.owners.elsewhere(&offer.queue) {
                Some(node) => self.owners.offer(node, offer),
                None => self.of(&offer.queue).do_send(Message::Offer(offer)),
            }
        }
    }

    /// Waits for a task, at most `wait`. Dropping the future takes the poll back.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the broker is gone.
    pub async fn poll(
        &self,
        queue: QueueKey,
        poller: Poller,
        wait: Duration,
    ) -> Result<Option<StartedTask>> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let polled = match self.owners.elsewhere(&queue) {
                Some(node) => self.poll_there(node, &queue, &poller, left, false).await,
                None => self.poll_here(&queue, &poller, left).await?,
            };
            match polled {
                Polled::Task(task) => return Ok(Some(task)),
                Polled::Empty => return Ok(None),
                Polled::Moved if Instant::now() >= until => return Ok(None),
                Polled::Moved => tokio::time::sleep(POLL_AGAIN).await,
            }
        }
    }

    async fn poll_here(&self, queue: &QueueKey, poller: &Poller, wait: Duration) -> Result<Polled> {
        let addr = self.of(queue).clone();
        let poll_id = self.next_poll.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        let mut guard = PollGuard { addr: addr.clone(), cancel: Some((queue.clone(), poll_id)) };
        let (queue, poller) = (queue.clone(), poller.clone());
        addr.do_send(Message::Poll { queue, poll_id, poller, wait, tx });
        let answer = rx.await;
        guard.cancel = None;
        answer.map_err(|_| gone())
    }

    /// What is lost on the way there, or back, times out.
    async fn poll_there(
        &self,
        node: u64,
        queue: &QueueKey,
        poller: &Poller,
        wait: Duration,
        is_passed_on: bool,
    ) -> Polled {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        let (queue, poller) = (queue.clone(), poller.clone());
        let question = Question::Poll { queue, poller, wait: nanos, is_passed_on };
        self.owners.ask(node, &question, wait + POLL_GRACE).await.unwrap_or(Polled::Moved)
    }

    /// Answers what another node asks of this one's brokers.
    ///
    /// # Errors
    /// If it is no question, or the broker is gone.
    pub async fn answer(&self, question: Bytes) -> Result<Bytes, String> {
        let question: Question = wire::from_bytes(&question).map_err(|e| e.to_string())?;
        match question {
            Question::Poll { queue, poller, wait, is_passed_on } => {
                let wait = Duration::from_nanos(wait);
                let polled = match self.owners.elsewhere(&queue).filter(|_| !is_passed_on) {
                    Some(node) => self.poll_there(node, &queue, &poller, wait, true).await,
                    None => {
                        let polled = self.poll_here(&queue, &poller, wait).await;
                        polled.map_err(|e| e.to_string())?
                    }
                };
                return Ok(wire::to_bytes(&polled));
            }
            Question::Offers { offers, is_passed_on } => {
                for offer in offers {
                    match self.owners.elsewhere(&offer.queue).filter(|_| !is_passed_on) {
                        Some(node) => {
                            let offers = vec![offer];
                            self.owners.tell(node, Question::Offers { offers, is_passed_on: true });
                        }
                        None => self.of(&offer.queue).do_send(Message::Offer(offer)),
                    }
                }
            }
            Question::Refresh { shard } => self.refresh_here(shard),
            Question::Describe { queue } => {
                let status = self.describe_here(queue).await.map_err(|e| e.to_string())?;
                return Ok(wire::to_bytes(&status));
            }
            Question::ShutDown { queues, worker_instance_key, identity } => {
                self.shut_down_here(queues, &worker_instance_key, &identity);
            }
            Question::Abandon { sticky } => {
                self.of(&sticky).do_send(Message::Abandon(sticky));
            }
        }
        Ok(done())
    }

    /// What a queue says of itself.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the broker is gone.
    pub async fn describe(&self, queue: QueueKey) -> Result<QueueStatus> {
        match self.owners.elsewhere(&queue) {
            Some(node) => self.owners.read(node, &Question::Describe { queue }).await,
            None => self.describe_here(queue).await,
        }
    }

    async fn describe_here(&self, queue: QueueKey) -> Result<QueueStatus> {
        let (tx, rx) = oneshot::channel();
        self.of(&queue).do_send(Message::Describe { queue, tx });
        rx.await.map_err(|_| gone())
    }

    /// How many tasks of a queue wait, in all shards.
    ///
    /// # Errors
    /// If a shard cannot say.
    pub async fn backlog(&self, queue: &QueueKey) -> Result<BacklogCounts> {
        count(&*self.source, queue).await
    }

    /// A queue's configuration changed.
    pub fn reconfigure(&self, queue: QueueKey) {
        self.of(&queue).do_send(Message::Reconfigure(queue));
    }

    /// The configuration of any queue of this node may have changed.
    pub fn reconfigure_all(&self) {
        for addr in self.addrs.iter() {
            addr.do_send(Message::ReconfigureAll);
        }
    }

    /// A worker shuts down: its waiting polls of `queues` are answered empty, and so is what
    /// it still sends.
    pub fn shut_down(&self, queues: Vec<QueueKey>, worker_instance_key: &str, identity: &str) {
        self.owners.tell_all(|| Question::ShutDown {
            queues: queues.clone(),
            worker_instance_key: worker_instance_key.to_owned(),
            identity: identity.to_owned(),
        });
        self.shut_down_here(queues, worker_instance_key, identity);
    }

    fn shut_down_here(&self, queues: Vec<QueueKey>, worker_instance_key: &str, identity: &str) {
        for addr in self.addrs.iter() {
            addr.do_send(Message::ShutDown { worker_instance_key: worker_instance_key.to_owned() });
        }
        for queue in queues {
            self.of(&queue).do_send(Message::EndPolls {
                queue,
                worker_instance_key: worker_instance_key.to_owned(),
                identity: identity.to_owned(),
            });
        }
    }

    /// The worker of a sticky queue is gone: its polls are answered empty, and tasks go back.
    pub fn abandon(&self, sticky: QueueKey) {
        match self.owners.elsewhere(&sticky) {
            Some(node) => self.owners.tell(node, Question::Abandon { sticky }),
            None => self.of(&sticky).do_send(Message::Abandon(sticky)),
        }
    }

    /// Has every queue, on every node, ask a shard that leads anew for the tasks that it holds.
    pub fn refresh(&self, shard: ShardId) {
        self.owners.tell_all(|| Question::Refresh { shard });
        self.refresh_here(shard);
    }

    fn refresh_here(&self, shard: ShardId) {
        for addr in self.addrs.iter() {
            addr.do_send(Message::Refresh(shard));
        }
    }

    /// Answers every waiting poll empty, before the server stops.
    pub fn release_all(&self) {
        for addr in self.addrs.iter() {
            addr.do_send(Message::ReleaseAll);
        }
    }
}

/// Counts a queue's tasks in all shards.
pub(crate) async fn count(source: &dyn TaskSource, queue: &QueueKey) -> Result<BacklogCounts> {
    let mut pending = source.shards();
    let mut all = BacklogCounts { is_complete: true, ..BacklogCounts::default() };
    while !pending.is_empty() {
        let asked: Vec<_> = pending
            .drain(..)
            .map(|shard| {
                let (tx, rx) = oneshot::channel();
                let done = Box::new(move |counts| {
                    // Nobody waits any more if the caller went away.
                    let _ = tx.send(counts);
                });
                source.count(shard, queue.clone(), done);
                (shard, rx)
            })
            .collect();
        for (shard, rx) in asked {
            let counts = rx.await.map_err(|_| Error::unavailable("a shard went away"))??;
            if counts.is_complete {
                all.add(&counts);
            } else {
                pending.push(shard);
            }
        }
    }
    Ok(all)
}
