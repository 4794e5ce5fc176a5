//! The brokers of a node, for those who call them.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Addr, ArbiterHandle};
use everspan_types::{Error, Offer, Poller, QueueKey, Result, ShardId, StartedTask};
use tokio::sync::oneshot;

use crate::{
    actor::{BrokerActor, Message},
    backlog::{BacklogAsk, BacklogCounts, BacklogPage},
    config::QueueConfigs,
    queue::QueueStatus,
};

/// Why a task was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The brokers of a node. Cloning is cheap; any thread may call.
#[derive(Clone)]
pub struct Brokers {
    addrs: Arc<Vec<Addr<BrokerActor>>>,
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
        arbiters: &[ArbiterHandle],
        source: Arc<dyn TaskSource>,
        configs: Arc<dyn QueueConfigs>,
        rate_max: f64,
    ) -> Result<Self> {
        let mut addrs = Vec::new();
        for arbiter in arbiters {
            let (tx, rx) = oneshot::channel();
            let (source, configs) = (source.clone(), configs.clone());
            arbiter.spawn_fn(move || {
                let _ = tx.send(BrokerActor::new(source, configs, rate_max).start());
            });
            addrs.push(rx.await.map_err(|_| Error::internal("an arbiter is gone"))?);
        }
        Ok(Self { addrs: Arc::new(addrs), source, next_poll: Arc::default() })
    }

    fn of(&self, queue: &QueueKey) -> &Addr<BrokerActor> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(queue);
        let count = self.addrs.len() as u64;
        &self.addrs[usize::try_from(hash % count).unwrap_or(0)]
    }

    /// Offers tasks; never waits.
    pub fn offer(&self, offers: Vec<Offer>) {
        for offer in offers {
            self.of(&offer.queue).do_send(Message::Offer(offer));
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
        let addr = self.of(&queue).clone();
        let poll_id = self.next_poll.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        let mut guard = PollGuard { addr: addr.clone(), cancel: Some((queue.clone(), poll_id)) };
        addr.do_send(Message::Poll { queue, poll_id, poller, wait, tx });
        let answer = rx.await;
        guard.cancel = None;
        answer.map_err(|_| gone())
    }

    /// What a queue says of itself.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the broker is gone.
    pub async fn describe(&self, queue: QueueKey) -> Result<QueueStatus> {
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

    /// A worker shuts down: its waiting polls of `queues` are answered empty, and so is what
    /// it still sends.
    pub fn shut_down(&self, queues: Vec<QueueKey>, worker_instance_key: &str, identity: &str) {
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
        self.of(&sticky).do_send(Message::Abandon(sticky));
    }

    /// Has every queue ask a shard that leads anew for the tasks that it holds.
    pub fn refresh(&self, shard: ShardId) {
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
