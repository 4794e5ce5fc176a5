//! The shards of a node, for those who call them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, OnceLock, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::{Actor, Addr, ArbiterHandle};
use bytes::Bytes;
use everspan_broker::{BacklogAsk, BacklogCounts, BacklogPage, Brokers, StartError, TaskSource};
use everspan_replication::{Handle, Rows, Trace};
use everspan_storage::{Checkpoint, Page, Store, Table, remove_rows};
use everspan_types::{
    Error, Limits, NamespaceId, Offer, Poller, QueueKey, Result, ShardId, StartedTask, Time, wire,
};
use everspan_visibility as visibility;
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    actor::{CheckpointRule, Close, CountCall, Inbound, ListCall, News, ShardActor, Stop},
    call::{Reply, Request},
    core::Core,
    deliver::DeliveryDone,
    members::Leaving,
    outbox::{Delivery, ShardMap},
    retention::Retention,
    routes::{ANSWER_MAX, Routes},
    shard::Shard,
    wire::{Question, SentCall, SentDelivery},
};

/// Operations in one write of a checkpoint.
const CHECKPOINT_BATCH: usize = 1_000;
/// How long nodes may take to see what this one saw already.
const SETTLE: Duration = Duration::from_millis(300);
/// Longest wait for other replicas to lead what a node that stops has led.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

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

/// The shards of the cluster: the replicas on this node, and the way to the others. Cloning is
/// cheap; any thread may call.
#[derive(Clone)]
pub struct Shards {
    inner: Arc<Inner>,
}

struct Inner {
    map: ShardMap,
    routes: Routes,
    /// Replicas on this node, by shard.
    addrs: RwLock<BTreeMap<ShardId, Addr<ShardActor>>>,
    host: Host,
    leaving: Leaving,
}

/// What the replicas on this node are made of.
struct Host {
    arbiters: Vec<ArbiterHandle>,
    store: Arc<dyn Store>,
    log: Handle,
    brokers: Brokers,
    options: Options,
    tasks: ShardTasks,
    jobs: mpsc::Sender<CheckpointJob>,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.inner.map.count;
        f.debug_struct("Shards").field("count", &count).finish_non_exhaustive()
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A time of the wall's clock on the one that does not jump.
fn instant(time: Time) -> tokio::time::Instant {
    let left = time.since(now()).min(Duration::from_secs(24 * 60 * 60));
    tokio::time::Instant::now() + left
}

type CheckpointJob =
    (Checkpoint, Box<dyn FnOnce(std::result::Result<(), String>, Duration) + Send>);

impl Shards {
    /// Opens this node's replicas of `count` shards on `arbiters`. A node that is alone waits until
    /// all of them lead.
    ///
    /// # Errors
    /// If a shard's rows or log cannot be read.
    pub async fn start(
        count: u32,
        routes: Routes,
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

        let host = Host {
            arbiters: arbiters.to_vec(),
            store,
            log,
            brokers,
            options,
            tasks: peers.clone(),
            jobs,
        };
        let me = routes.peers().me();
        let (addrs, leaving) = (RwLock::default(), Leaving::default());
        let shards = Shards { inner: Arc::new(Inner { map, routes, addrs, host, leaving }) };
        let routes = &shards.inner.routes;
        let mut leading = Vec::new();
        for id in routes.shards() {
            // One that is to leave is needed until it may.
            let trace = shards.log().trace(u64::from(id.0));
            let trace = trace.map_err(|e| Error::internal(format!("shard {id}: {e}")))?;
            if trace != Trace::Replica && !routes.wanted(id).contains(&me) {
                if trace == Trace::Removed {
                    // A crash may have come before they went.
                    remove_rows(&*shards.store(), id)
                        .map_err(|e| Error::internal(format!("shard {id}: {e}")))?;
                }
                continue;
            }
            leading.push((id, shards.open_replica(id).await?));
        }
        if routes.peers().is_alone() {
            for (id, rx) in leading {
                rx.await
                    .map_err(|_| Error::internal("a shard stopped while starting"))?
                    .map_err(|e| Error::internal(format!("shard {id}: {e}")))?;
            }
        }
        peers.set(shards.clone());
        Ok(shards)
    }

    /// Opens this node's replica of a shard. It is told once whether it leads, when it does.
    pub(crate) async fn open_replica(&self, id: ShardId) -> Result<oneshot::Receiver<Result<()>>> {
        let Host { store, log, options, .. } = &self.inner.host;
        let routes = &self.inner.routes;
        let failed = |e: String| Error::internal(format!("shard {id}: {e}"));
        let group = u64::from(id.0);
        if log.trace(group).map_err(|e| failed(e.to_string()))? == Trace::Removed {
            // It may have been stopped half way.
            remove_rows(&**store, id).map_err(|e| failed(e.to_string()))?;
        }
        let table = Table::open(id, store.clone()).map_err(|e| failed(e.to_string()))?;
        let restored = table.restored().map_err(|e| failed(e.to_string()))?;
        let rows = Rows { applied: table.applied(), restored };
        let shard = Shard::new(id, table, options.limits.clone(), self.inner.map)
            .with_retention(options.retention.clone());
        let (tx, rx) = oneshot::channel();
        let addr = self.spawn(shard, tx).await?;
        let sink = addr.clone();
        let sink = Box::new(move |events| sink.do_send(News(events)));
        let registered = log.register(group, rows, &routes.founding(id), sink);
        if let Err(error) = registered {
            let (closed, _) = oneshot::channel();
            addr.do_send(Close(closed));
            return Err(failed(error.to_string()));
        }
        self.inner.addrs.write().insert(id, addr);
        Ok(rx)
    }

    async fn spawn(
        &self,
        shard: Shard,
        leading: oneshot::Sender<Result<()>>,
    ) -> Result<Addr<ShardActor>> {
        let (tx, rx) = oneshot::channel();
        let host = &self.inner.host;
        let arbiter = &host.arbiters[shard.id.0 as usize % host.arbiters.len()];
        let (log, brokers, routes) =
            (host.log.clone(), host.brokers.clone(), self.inner.routes.clone());
        let (options, jobs, peers) = (host.options.clone(), host.jobs.clone(), host.tasks.clone());
        let spawned = arbiter.spawn_fn(move || {
            let (bytes_max, known) = (options.table_bytes_max, routes.clone());
            let core = Core::new(shard, log.clone(), brokers, known, bytes_max);
            let rule =
                CheckpointRule { every: options.checkpoint_every, bytes: options.checkpoint_bytes };
            let actor = ShardActor::new(
                Rc::new(RefCell::new(core)),
                peers,
                routes,
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

    pub(crate) fn addr(&self, shard: ShardId) -> Option<Addr<ShardActor>> {
        self.inner.addrs.read().get(&shard).cloned()
    }

    pub(crate) fn take_addr(&self, shard: ShardId) -> Option<Addr<ShardActor>> {
        self.inner.addrs.write().remove(&shard)
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.inner.routes
    }

    pub(crate) fn log(&self) -> &Handle {
        &self.inner.host.log
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.inner.host.store.clone()
    }

    pub(crate) fn leaving(&self) -> &Leaving {
        &self.inner.leaving
    }

    /// The replicas on this node.
    fn addrs(&self) -> Vec<(ShardId, Addr<ShardActor>)> {
        self.inner.addrs.read().iter().map(|(id, addr)| (*id, addr.clone())).collect()
    }

    /// Asks this node's replica of a shard.
    async fn here<T>(
        &self,
        shard: ShardId,
        message: impl FnOnce(oneshot::Sender<Result<T>>) -> Inbound,
    ) -> Result<T> {
        let addr = self.addr(shard).ok_or_else(|| self.inner.routes.elsewhere(shard))?;
        let (reply, answer) = oneshot::channel();
        addr.do_send(message(reply));
        answer.await.map_err(|_| Error::unavailable(format!("shard {shard} is not here")))?
    }

    /// Asks the shard that owns the request's workflow, wherever its leader is.
    ///
    /// # Errors
    /// The shard's, or `UNAVAILABLE` if it has no leader.
    pub async fn call(&self, request: Request) -> Result<Reply> {
        let shard = self.of(request.namespace, &request.workflow_id);
        let routes = &self.inner.routes;
        if routes.peers().is_alone() {
            return self.here(shard, |reply| Inbound::Call { request, reply }).await;
        }
        let (me, until) = (routes.peers().me(), instant(request.deadline));
        let mut request = request;
        request.call.identify(|| Uuid::new_v4().to_string());
        let repeats = request.call.is_repeatable();
        let request = &request;
        let ask = |node| async move {
            if node == me {
                let request = request.clone();
                return self.here(shard, |reply| Inbound::Call { request, reply }).await;
            }
            let now = now();
            let question = Question::Call(SentCall::new(shard, request, now));
            let wait = request.deadline.since(now);
            let body: Bytes = routes.ask(node, shard, &question, wait).await?;
            Reply::from_bytes(request.call.name(), body)
        };
        routes.find(shard, until, repeats, ask).await
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
        let question = |shard| Question::List {
            shard,
            namespace,
            query: (*list.query).clone(),
            after: list.after,
            limit: limit as u64,
        };
        let here = |reply| Inbound::List { list: list.clone(), reply };
        let pages = self.ask_all(here, question).await?;
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
        let question = |shard| Question::Count { shard, namespace, query: (*count.query).clone() };
        let here = |reply| Inbound::Count { count: count.clone(), reply };
        let counts = self.ask_all(here, question).await?;
        Ok(visibility::merge_counts(counts))
    }

    async fn ask_all<T: DeserializeOwned>(
        &self,
        here: impl Fn(oneshot::Sender<Result<T>>) -> Inbound,
        question: impl Fn(ShardId) -> Question,
    ) -> Result<Vec<T>> {
        let routes = &self.inner.routes;
        let me = routes.peers().me();
        let (here, question) = (&here, &question);
        let asked = routes.shards().map(|shard| {
            let ask = move |node| async move {
                if node == me {
                    self.here(shard, here).await
                } else {
                    routes.ask(node, shard, &question(shard), ANSWER_MAX).await
                }
            };
            routes.find(shard, tokio::time::Instant::now() + ANSWER_MAX, true, ask)
        });
        futures::future::try_join_all(asked).await
    }

    /// Answers what another node asks of this one's replicas.
    ///
    /// # Errors
    /// If it is no question.
    pub async fn answer(&self, question: Bytes) -> std::result::Result<Bytes, String> {
        let question: Question = wire::from_bytes(&question).map_err(|e| e.to_string())?;
        Ok(match question {
            Question::Call(sent) => {
                let shard = sent.shard;
                let answer = match sent.request(now()) {
                    Ok(request) => self.here(shard, |reply| Inbound::Call { request, reply }).await,
                    Err(error) => Err(error),
                };
                wire::to_bytes(&answer.map(|reply| reply.to_bytes()))
            }
            Question::Start { offer, poller } => {
                let shard = offer.shard;
                let started = self.here(shard, |reply| Inbound::StartTask {
                    offer,
                    poller,
                    done: Box::new(move |started| drop(reply.send(Ok(started)))),
                });
                wire::to_bytes(&started.await)
            }
            Question::StickyUnavailable { offer } => {
                if let Some(addr) = self.addr(offer.shard) {
                    addr.do_send(Inbound::StickyUnavailable(offer));
                }
                wire::to_bytes(&Ok::<_, Error>(()))
            }
            Question::Backlog { shard, ask } => {
                let page = self.here(shard, |reply| Inbound::Backlog {
                    ask,
                    done: Box::new(move |page| drop(reply.send(page))),
                });
                wire::to_bytes(&page.await)
            }
            Question::CountBacklog { shard, queue } => {
                let counts = self.here(shard, |reply| Inbound::CountBacklog {
                    queue,
                    done: Box::new(move |counts| drop(reply.send(counts))),
                });
                wire::to_bytes(&counts.await)
            }
            Question::Deliver { shard, delivery } => {
                let taken = match delivery.delivery() {
                    Ok(delivery) => {
                        let deliver = |reply: oneshot::Sender<Result<u64>>| Inbound::Deliver {
                            delivery,
                            done: Box::new(move |taken| drop(reply.send(taken))),
                        };
                        self.here(shard, deliver).await
                    }
                    Err(error) => Err(error),
                };
                wire::to_bytes(&taken)
            }
            Question::Rows { shard, index, from } => {
                let page = self.here(shard, |reply| Inbound::Rows { index, from, reply });
                wire::to_bytes(&page.await)
            }
            Question::List { shard, namespace, query, after, limit } => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let list = ListCall { namespace, query: Arc::new(query), after, limit };
                wire::to_bytes(&self.here(shard, |reply| Inbound::List { list, reply }).await)
            }
            Question::Standings => wire::to_bytes(&Ok::<_, Error>(self.standings_here().await)),
            Question::HandOver { shard, to } => {
                wire::to_bytes(&self.hand_over_one(shard, to).await)
            }
            Question::Count { shard, namespace, query } => {
                let count = CountCall { namespace, query: Arc::new(query) };
                wire::to_bytes(&self.here(shard, |reply| Inbound::Count { count, reply }).await)
            }
        })
    }

    /// Offers tasks anew as nodes, and the brokers on them, come and go; for ever.
    pub async fn follow_nodes(self) {
        let mut views = self.inner.routes.peers().watch();
        while views.changed().await.is_ok() {
            // Brokers first see it, too.
            tokio::time::sleep(SETTLE).await;
            views.borrow_and_update();
            for (_, addr) in self.addrs() {
                addr.do_send(Inbound::OfferSoft);
            }
        }
    }

    /// Has other nodes lead what this one leads, where they can. To be called before it stops,
    /// so that nobody waits for an election.
    pub async fn hand_over(&self) {
        let routes = &self.inner.routes;
        let me = routes.peers().me();
        let view = routes.peers().view();
        let mut ends = Vec::new();
        for (shard, addr) in self.addrs() {
            let others = routes.wanted(shard).into_iter().filter(|node| *node != me);
            let Some(to) = others.into_iter().find(|node| view.has(*node)) else { continue };
            let (done, end) = oneshot::channel();
            addr.do_send(Inbound::HandOver { to, done });
            ends.push((shard, end));
        }
        let all = async {
            for (shard, end) in ends {
                let _ = end.await;
                // The next one has been heard of.
                while [0, me].contains(&routes.leader(shard)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        // Elections do what cannot be done in time.
        let _ = tokio::time::timeout(HAND_OVER_MAX, all).await;
    }

    /// Refuses further calls and writes out what is committed.
    pub async fn stop(&self) {
        let mut ends = Vec::new();
        for (_, addr) in self.addrs() {
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

    /// The replica on this node, if it leads as far as is known.
    fn leading(&self, shard: ShardId) -> Option<Addr<ShardActor>> {
        let shards = self.shards.get()?;
        let routes = &shards.inner.routes;
        let peers = routes.peers();
        let is_here = peers.is_alone() || routes.leader(shard) == peers.me();
        is_here.then(|| shards.addr(shard)).flatten()
    }

    /// A page of the rows of the replica on another node.
    pub(crate) async fn rows(
        &self,
        node: u64,
        shard: ShardId,
        index: u64,
        from: Bytes,
    ) -> Result<Page> {
        let shards = self.shards.get();
        let shards = shards.ok_or_else(|| Error::unavailable("the node is starting"))?;
        let question = Question::Rows { shard, index, from };
        shards.inner.routes.ask(node, shard, &question, ANSWER_MAX).await
    }

    /// Hands messages to the shard that they are for.
    pub(crate) fn deliver(&self, to: ShardId, delivery: Delivery, done: DeliveryDone) {
        if let Some(addr) = self.leading(to) {
            return addr.do_send(Inbound::Deliver { delivery, done });
        }
        let delivery = SentDelivery::new(&delivery);
        self.far(to, Question::Deliver { shard: to, delivery }, done);
    }

    /// Asks a shard whose leader is elsewhere, in the background.
    fn far<T: DeserializeOwned + Send + 'static>(
        &self,
        shard: ShardId,
        question: Question,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let Some(shards) = self.shards.get().cloned() else {
            return done(Err(Error::unavailable("the shard is starting")));
        };
        tokio::spawn(async move { done(shards.far(shard, &question).await) });
    }
}

impl Shards {
    /// Asks a shard whose leader is elsewhere, once it is found; what is unknown is not asked again.
    async fn far<T: DeserializeOwned>(&self, shard: ShardId, question: &Question) -> Result<T> {
        let routes = &self.inner.routes;
        let me = routes.peers().me();
        let ask = |node| async move {
            if node == me {
                // It came here since: whoever asks does so again, the short way.
                return Err(Error::unavailable(format!("shard {shard} moved here")));
            }
            routes.ask(node, shard, question, ANSWER_MAX).await
        };
        routes.find(shard, tokio::time::Instant::now() + ANSWER_MAX, false, ask).await
    }
}

impl TaskSource for ShardTasks {
    fn start(
        &self,
        offer: Offer,
        poller: Poller,
        done: Box<dyn FnOnce(Result<StartedTask, StartError>) + Send>,
    ) {
        let shard = offer.shard;
        if let Some(addr) = self.leading(shard) {
            return addr.do_send(Inbound::StartTask { offer, poller, done });
        }
        self.far(shard, Question::Start { offer, poller }, |started: Result<_>| {
            done(started.unwrap_or_else(|e| Err(StartError::Unavailable(e.to_string()))));
        });
    }

    fn backlog(
        &self,
        shard: ShardId,
        ask: BacklogAsk,
        done: Box<dyn FnOnce(Result<BacklogPage, Error>) + Send>,
    ) {
        match self.leading(shard) {
            Some(addr) => addr.do_send(Inbound::Backlog { ask, done }),
            None => self.far(shard, Question::Backlog { shard, ask }, done),
        }
    }

    fn count(
        &self,
        shard: ShardId,
        queue: QueueKey,
        done: Box<dyn FnOnce(Result<BacklogCounts, Error>) + Send>,
    ) {
        match self.leading(shard) {
            Some(addr) => addr.do_send(Inbound::CountBacklog { queue, done }),
            None => self.far(shard, Question::CountBacklog { shard, queue }, done),
        }
    }

    fn sticky_unavailable(&self, offer: Offer) {
        let shard = offer.shard;
        match self.leading(shard) {
            Some(addr) => addr.do_send(Inbound::StickyUnavailable(offer)),
            // If it is lost, the task times out of its sticky queue.
            None => self.far(shard, Question::StickyUnavailable { offer }, |_: Result<()>| {}),
        }
    }

    fn shards(&self) -> Vec<ShardId> {
        self.shards.get().map_or_else(Vec::new, |s| s.inner.routes.shards().collect())
    }
}
