//! The shards of a node, for those who call them.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, OnceLock, mpsc},
    time::{Duration, Instant},
};

use actix::{Actor, Addr, ArbiterHandle};
use everspan_broker::{BacklogAsk, BacklogCounts, BacklogPage, Brokers, StartError, TaskSource};
use everspan_replication::Handle;
use everspan_storage::{Checkpoint, Store, Table};
use everspan_types::{
    Error, Limits, NamespaceId, Offer, Poller, QueueKey, Result, ShardId, StartedTask,
};
use everspan_visibility as visibility;
use tokio::sync::oneshot;

use crate::{
    actor::{CheckpointRule, CountCall, Inbound, ListCall, News, ShardActor, Stop},
    call::{Reply, Request},
    core::Core,
    outbox::ShardMap,
    retention::Retention,
    shard::Shard,
};

/// Operations in one write of a checkpoint.
const CHECKPOINT_BATCH: usize = 1_000;

/// How shards keep their rows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds on executions and calls.
    pub limits: Arc<Limits>,
    /// Longest time between checkpoints of a shard with changes.
    pub checkpoint_every: Duration,
    /// Rows in memory, in bytes, that bring a shard's checkpoint forward.
    pub checkpoint_bytes: usize,
    /// Rows in memory, in bytes, at which a shard refuses calls.
    pub table_bytes_max: usize,
    /// How long closed runs are kept.
    pub retention: Retention,
}

/// The shards of this node. Cloning is cheap; any thread may call.
#[derive(Clone)]
pub struct Shards {
    inner: Arc<Inner>,
}

struct Inner {
    map: ShardMap,
    addrs: Vec<Addr<ShardActor>>,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shards").field("count", &self.inner.addrs.len()).finish()
    }
}

type CheckpointJob =
    (Checkpoint, Box<dyn FnOnce(std::result::Result<(), String>, Duration) + Send>);

impl Shards {
    /// Opens `count` shards on `arbiters` and waits until all of them lead.
    ///
    /// # Errors
    /// If a shard's rows or log cannot be read.
    pub async fn start(
        count: u32,
        arbiters: &[ArbiterHandle],
        store: Arc<dyn Store>,
        log: Handle,
        brokers: Brokers,
        options: Options,
        peers: &ShardTasks,
    ) -> Result<Shards> {
        let map = ShardMap { count };
        let (jobs, inbox) = mpsc::channel::<CheckpointJob>();
        let checkpoint_store = store.clone();
        std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || {
                for (checkpoint, done) in inbox {
                    let began = Instant::now();
                    let outcome = checkpoint.write(&*checkpoint_store, CHECKPOINT_BATCH);
                    done(outcome.map_err(|e| e.to_string()), began.elapsed());
                }
            })
            .map_err(|e| Error::internal(format!("no thread for checkpoints: {e}")))?;

        let mut addrs = Vec::new();
        let mut leading = Vec::new();
        for n in 0..count {
            let id = ShardId(n + 1);
            let table = Table::open(id, store.clone())
                .map_err(|e| Error::internal(format!("shard {id}: {e}")))?;
            let applied = table.applied();
            let (tx, rx) = oneshot::channel();
            leading.push(rx);
            let arbiter = &arbiters[n as usize % arbiters.len()];
            let shard = Shard::new(id, table, options.limits.clone(), map)
                .with_retention(options.retention.clone());
            let addr =
                Self::spawn(arbiter, shard, &log, &brokers, &options, peers, &jobs, tx).await?;
            let sink = addr.clone();
            log.register(
                u64::from(id.0),
                applied,
                Box::new(move |events| sink.do_send(News(events))),
            )
            .map_err(|e| Error::internal(format!("shard {id}: {e}")))?;
            addrs.push(addr);
        }
        for (n, rx) in leading.into_iter().enumerate() {
            rx.await
                .map_err(|_| Error::internal("a shard stopped while starting"))?
                .map_err(|e| Error::internal(format!("shard {}: {e}", n + 1)))?;
        }
        let shards = Shards { inner: Arc::new(Inner { map, addrs }) };
        peers.set(shards.clone());
        Ok(shards)
    }

    async fn spawn(
        arbiter: &ArbiterHandle,
        shard: Shard,
        log: &Handle,
        brokers: &Brokers,
        options: &Options,
        peers: &ShardTasks,
        jobs: &mpsc::Sender<CheckpointJob>,
        leading: oneshot::Sender<Result<()>>,
    ) -> Result<Addr<ShardActor>> {
        let (tx, rx) = oneshot::channel();
        let (log, brokers, options, jobs, peers) =
            (log.clone(), brokers.clone(), options.clone(), jobs.clone(), peers.clone());
        let spawned = arbiter.spawn_fn(move || {
            let core = Core::new(shard, log.clone(), brokers, options.table_bytes_max);
            let rule =
                CheckpointRule { every: options.checkpoint_every, bytes: options.checkpoint_bytes };
            let actor = ShardActor::new(
                Rc::new(RefCell::new(core)),
                peers,
                Box::new(move |checkpoint, done| {
                    if let Err(mpsc::SendError((_, done))) = jobs.send((checkpoint, done)) {
                        done(Err("the checkpoint thread is gone".into()), Duration::ZERO);
                    }
                }),
                rule,
                log,
                Box::new(move |leads| {
                    // Nobody waits any more if starting was given up.
                    let _ = leading.send(leads);
                }),
            );
            let _ = tx.send(actor.start());
        });
        let gone = || Error::internal("an arbiter is gone");
        if !spawned {
            return Err(gone());
        }
        rx.await.map_err(|_| gone())
    }

    /// The shard that owns a workflow ID.
    #[must_use]
    pub fn of(&self, namespace: NamespaceId, workflow_id: &str) -> ShardId {
        self.inner.map.of(namespace, workflow_id)
    }

    fn addr(&self, shard: ShardId) -> Option<&Addr<ShardActor>> {
        self.inner.addrs.get(usize::try_from(shard.0).ok()?.checked_sub(1)?)
    }

    /// Asks the shard that owns the request's workflow.
    ///
    /// # Errors
    /// The shard's, or `UNAVAILABLE` if it went away meanwhile.
    pub async fn call(&self, request: Request) -> Result<Reply> {
        let shard = self.of(request.namespace, &request.workflow_id);
        let (reply, answer) = oneshot::channel();
        let gone = || Error::unavailable(format!("shard {shard} is not here"));
        self.addr(shard).ok_or_else(gone)?.do_send(Inbound::Call { request, reply });
        answer.await.map_err(|_| gone())?
    }

    /// A page of a list over all shards.
    ///
    /// # Errors
    /// If any shard cannot answer.
    pub async fn list(
        &self,
        namespace: NamespaceId,
        query: Arc<visibility::Query>,
        after: Option<visibility::Cursor>,
        limit: usize,
    ) -> Result<visibility::ListPage> {
        let list = ListCall { namespace, query, after, limit };
        let pages = self.ask_all(|reply| Inbound::List { list: list.clone(), reply }).await?;
        Ok(visibility::merge_pages(pages, limit))
    }

    /// Counts over all shards.
    ///
    /// # Errors
    /// If any shard cannot answer.
    pub async fn count(
        &self,
        namespace: NamespaceId,
        query: Arc<visibility::Query>,
    ) -> Result<visibility::Counts> {
        let count = CountCall { namespace, query };
        let counts = self.ask_all(|reply| Inbound::Count { count: count.clone(), reply }).await?;
        Ok(visibility::merge_counts(counts))
    }

    async fn ask_all<T>(
        &self,
        message: impl Fn(oneshot::Sender<Result<T>>) -> Inbound,
    ) -> Result<Vec<T>> {
        let answers: Vec<_> = self
            .inner
            .addrs
            .iter()
            .map(|addr| {
                let (tx, rx) = oneshot::channel();
                addr.do_send(message(tx));
                rx
            })
            .collect();
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.push(answer.await.map_err(|_| Error::unavailable("a shard went away"))??);
        }
        Ok(all)
    }

    /// Refuses further calls and writes out what is committed.
    pub async fn stop(&self) {
        let mut ends = Vec::new();
        for addr in &self.inner.addrs {
            let (tx, rx) = oneshot::channel();
            addr.do_send(Stop(tx));
            ends.push(rx);
        }
        for end in ends {
            let _ = end.await;
        }
    }
}

/// The shards as brokers know them: there before the shards are, since each needs the
/// other.
#[derive(Clone, Debug, Default)]
pub struct ShardTasks {
    shards: Arc<OnceLock<Shards>>,
}

impl ShardTasks {
    /// Fills in the shards once they lead.
    pub fn set(&self, shards: Shards) {
        // A second call would be a bug of the wiring; the first one stands.
        let _ = self.shards.set(shards);
    }

    pub(crate) fn addr(&self, shard: ShardId) -> Option<Addr<ShardActor>> {
        self.shards.get()?.addr(shard).cloned()
    }
}

impl TaskSource for ShardTasks {
    fn start(
        &self,
        offer: Offer,
        poller: Poller,
        done: Box<dyn FnOnce(Result<StartedTask, StartError>) + Send>,
    ) {
        match self.addr(offer.shard) {
            Some(addr) => addr.do_send(Inbound::StartTask { offer, poller, done }),
            None => done(Err(StartError::Unavailable("the shard is starting".into()))),
        }
    }

    fn backlog(
        &self,
        shard: ShardId,
        ask: BacklogAsk,
        done: Box<dyn FnOnce(Result<BacklogPage, Error>) + Send>,
    ) {
        match self.addr(shard) {
            Some(addr) => addr.do_send(Inbound::Backlog { ask, done }),
            None => done(Err(Error::unavailable("the shard is starting"))),
        }
    }

    fn count(
        &self,
        shard: ShardId,
        queue: QueueKey,
        done: Box<dyn FnOnce(Result<BacklogCounts, Error>) + Send>,
    ) {
        match self.addr(shard) {
            Some(addr) => addr.do_send(Inbound::CountBacklog { queue, done }),
            None => done(Err(Error::unavailable("the shard is starting"))),
        }
    }

    fn sticky_unavailable(&self, offer: Offer) {
        if let Some(addr) = self.addr(offer.shard) {
            addr.do_send(Inbound::StickyUnavailable(offer));
        }
    }

    fn shards(&self) -> Vec<ShardId> {
        let count = self.shards.get().map_or(0, |s| s.inner.addrs.len());
        (1..=count).filter_map(|n| u32::try_from(n).ok()).map(ShardId).collect()
    }
}
