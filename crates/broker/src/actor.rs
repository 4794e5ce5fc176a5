//! The actors that hold the queues of a node.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use everspan_peers::View;
use everspan_types::{Error, Offer, Poller, QueueKey, Result, ShardId, StartedTask, Time};
use tokio::sync::oneshot;

use crate::{
    backlog::{BACKLOG_PAGE, BacklogAsk, BacklogPage},
    brokers::{StartError, TaskSource, count},
    config::QueueConfigs,
    metrics,
    owners::is_own,
    queue::{Action, Queue, QueueStatus, Started},
    wire::Polled,
};

/// How often gauges are set and idle queues forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Queues whose shards are asked for counts at each housekeeping.
const COUNTED_MAX: usize = 100;
/// How long polls of a worker that shut down are refused; the real server's.
const SHUT_DOWN_MEMORY: Duration = Duration::from_secs(30);
/// Workers that shut down of which is known; the real server's.
const SHUT_DOWN_MAX: usize = 10_000;

#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) enum Message {
    Offer(Offer),
    Poll {
        queue: QueueKey,
        poll_id: u64,
        poller: Poller,
        wait: Duration,
        tx: oneshot::Sender<Polled>,
    },
    Cancel {
        queue: QueueKey,
        poll_id: u64,
    },
    Started {
        queue: Arc<QueueKey>,
        match_id: u64,
        outcome: Result<StartedTask, StartError>,
    },
    Backlog {
        queue: Arc<QueueKey>,
        shard: ShardId,
        page: Result<BacklogPage, Error>,
    },
    Counted {
        queue: Arc<QueueKey>,
        count: u64,
    },
    Describe {
        queue: QueueKey,
        tx: oneshot::Sender<QueueStatus>,
    },
    Reconfigure(QueueKey),
    ReconfigureAll,
    ShutDown {
        worker_instance_key: String,
    },
    EndPolls {
        queue: QueueKey,
        worker_instance_key: String,
        identity: String,
    },
    Abandon(QueueKey),
    ReleaseAll,
    Refresh(ShardId),
    /// Nodes came or went.
    View(Arc<View>),
}

struct Slot {
    queue: Queue,
    /// When the queue is to be ticked, as in the heap of ticks.
    tick: Option<Time>,
    /// Another node owns the queue: nothing is to wait here.
    is_foreign: bool,
}

pub(crate) struct BrokerActor {
    source: Arc<dyn TaskSource>,
    configs: Arc<dyn QueueConfigs>,
    rate_max: f64,
    /// This node's number.
    me: u64,
    queues: HashMap<Arc<QueueKey>, Slot>,
    polls: HashMap<u64, oneshot::Sender<Polled>>,
    /// Queues to be ticked; those that a queue's slot does not know of are of the past.
    ticks: BinaryHeap<Reverse<(Time, Arc<QueueKey>)>>,
    timer: Option<(Time, SpawnHandle)>,
    shut_down: HashMap<String, Time>,
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl BrokerActor {
    pub(crate) fn new(
        source: Arc<dyn TaskSource>,
        configs: Arc<dyn QueueConfigs>,
        rate_max: f64,
        me: u64,
    ) -> Self {
        Self {
            source,
            configs,
            rate_max,
            me,
            queues: HashMap::new(),
            polls: HashMap::new(),
            ticks: BinaryHeap::new(),
            timer: None,
            shut_down: HashMap::new(),
        }
    }

    fn with(
        &mut self,
        key: &QueueKey,
        ctx: &mut Context<Self>,
        f: impl FnOnce(&mut Queue, Time) -> Vec<Action>,
    ) {
        let now = now();
        if !self.queues.contains_key(key) {
            let shards = self.source.shards();
            if shards.is_empty() {
                // The node is starting. What is offered now is found by the first poll; a
                // queue that knew of no shards would never ask them.
                return;
            }
            let config = self.configs.config(key);
            let queue = Queue::new(now, &shards, config, self.rate_max);
            let slot = Slot { queue, tick: None, is_foreign: false };
            self.queues.insert(Arc::new(key.clone()), slot);
        }
        if self.queues.get_mut(key).is_some_and(|s| std::mem::take(&mut s.is_foreign)) {
            // It was another node's for a while, who knows of tasks that this one does not.
            self.ask_all(key, now, ctx);
        }
        self.with_known(key, now, ctx, f);
    }

    /// Has a queue ask every shard for the tasks that it holds.
    fn ask_all(&mut self, key: &QueueKey, now: Time, ctx: &mut Context<Self>) {
        for shard in self.source.shards() {
            self.with_known(key, now, ctx, |q, now| q.refresh(now, shard));
        }
    }

    /// Nodes came or went: polls of queues that others own go there.
    fn view(&mut self, view: &View, ctx: &mut Context<Self>) {
        let now = now();
        let keys: Vec<Arc<QueueKey>> = self.queues.keys().cloned().collect();
        for key in keys {
            let is_own = is_own(view, self.me, &key);
            if let Some(slot) = self.queues.get_mut(&key) {
                slot.is_foreign = !is_own;
            }
            if is_own {
                self.ask_all(&key, now, ctx);
            } else {
                self.with_known(&key, now, ctx, |_, _| Vec::new());
            }
        }
    }

    fn with_known(
        &mut self,
        key: &QueueKey,
        now: Time,
        ctx: &mut Context<Self>,
        f: impl FnOnce(&mut Queue, Time) -> Vec<Action>,
    ) {
        let Some((key, _)) = self.queues.get_key_value(key) else { return };
        let key = key.clone();
        let Some(slot) = self.queues.get_mut(&key) else { return };
        let mut actions = f(&mut slot.queue, now);
        if slot.is_foreign {
            actions.extend(slot.queue.release(|_| true));
        }
        let is_foreign = slot.is_foreign;
        let next = slot.queue.next_tick();
        // A tick that turns out to be too early does no harm, and is cheaper than its removal.
        let earlier = next.filter(|at| slot.tick.is_none_or(|old| *at < old));
        if earlier.is_some() {
            slot.tick = earlier;
        }
        for action in actions {
            self.act(&key, action, is_foreign, ctx);
        }
        if let Some(at) = earlier {
            self.ticks.push(Reverse((at, key)));
            self.arm(at, ctx);
        }
    }

    fn act(
        &mut self,
        key: &Arc<QueueKey>,
        action: Action,
        is_foreign: bool,
        ctx: &mut Context<Self>,
    ) {
        match action {
            Action::Start { match_id, offer, poller } => {
                let (addr, queue) = (ctx.address(), key.clone());
                self.source.start(
                    offer,
                    poller,
                    Box::new(move |outcome| {
                        addr.do_send(Message::Started { queue, match_id, outcome });
                    }),
                );
            }
            Action::Answer { poll_id, task, is_sync } => {
                let Some(tx) = self.polls.remove(&poll_id) else { return };
                let counters = match (&task, is_sync) {
                    (None, _) => [metrics::POLLS_EMPTY.as_ref(), None],
                    (_, true) => {
                        [metrics::TASKS_STARTED.as_ref(), metrics::TASKS_SYNC_MATCHED.as_ref()]
                    }
                    (_, false) => [metrics::TASKS_STARTED.as_ref(), None],
                };
                for counter in counters.into_iter().flatten() {
                    counter.with_label_values(&[metrics::kind_label(key.kind)]).inc();
                }
                let _ = tx.send(match task {
                    Some(task) => Polled::Task(task),
                    None if is_foreign => Polled::Moved,
                    None => Polled::Empty,
                });
            }
            Action::Read(read) => {
                let (addr, queue, shard) = (ctx.address(), key.clone(), read.shard);
                let ask = BacklogAsk {
                    queue: (**key).clone(),
                    lanes: read.lanes,
                    survey: read.survey,
                    limit: BACKLOG_PAGE,
                    lane_limit: read.lane_limit,
                };
                self.source.backlog(
                    shard,
                    ask,
                    Box::new(move |page| addr.do_send(Message::Backlog { queue, shard, page })),
                );
            }
            Action::StickyUnavailable(offer) => self.source.sticky_unavailable(offer),
        }
    }

    /// Sees to it that queues are ticked at `at`.
    fn arm(&mut self, at: Time, ctx: &mut Context<Self>) {
        if let Some((armed, handle)) = self.timer {
            if armed <= at {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(at.since(now()), |actor, ctx| {
            actor.timer = None;
            actor.tick(ctx);
        });
        self.timer = Some((at, handle));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = now();
        while let Some(Reverse((at, _))) = self.ticks.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((at, key))) = self.ticks.pop() else { break };
            match self.queues.get_mut(&key) {
                Some(slot) if slot.tick == Some(at) => slot.tick = None,
                _ => continue,
            }
            self.with_known(&key, now, ctx, Queue::tick);
        }
        if let Some(Reverse((at, _))) = self.ticks.peek() {
            self.arm((*at).max(now + Duration::from_millis(1)), ctx);
        }
    }

    fn keep_house(&mut self, ctx: &mut Context<Self>) {
        let now = now();
        self.shut_down.retain(|_, until| *until > now);
        let mut uncounted = Vec::new();
        self.queues.retain(|key, slot| {
            let is_kept = !slot.queue.is_idle(now);
            if !is_kept {
                remove_gauge(key);
            } else if slot.queue.has_unread() && !is_sticky_name(&key.name) {
                uncounted.push(key.clone());
            } else {
                set_gauge(key, slot.queue.in_memory() as u64);
            }
            is_kept
        });
        for queue in uncounted.into_iter().take(COUNTED_MAX) {
            let (addr, source) = (ctx.address(), self.source.clone());
            actix::spawn(async move {
                // Shards that cannot say now are asked again.
                if let Ok(counts) = count(&*source, &queue).await {
                    addr.do_send(Message::Counted { queue, count: counts.total() });
                }
            });
        }
        if let Some(gauge) = metrics::QUEUES.as_ref() {
            gauge.set(i64::try_from(self.queues.len()).unwrap_or(i64::MAX));
        }
    }

    fn poll(
        &mut self,
        key: &QueueKey,
        poll_id: u64,
        poller: Poller,
        wait: Duration,
        tx: oneshot::Sender<Polled>,
        ctx: &mut Context<Self>,
    ) {
        let is_shut_down =
            self.shut_down.get(&poller.worker_instance_key).is_some_and(|until| *until > now());
        if is_shut_down {
            let _ = tx.send(Polled::Empty);
            return;
        }
        self.polls.insert(poll_id, tx);
        self.with(key, ctx, |queue, now| queue.poll(now, poll_id, poller, now + wait));
    }

    fn shut_down(&mut self, worker_instance_key: String) {
        if self.shut_down.len() < SHUT_DOWN_MAX && !worker_instance_key.is_empty() {
            self.shut_down.insert(worker_instance_key, now() + SHUT_DOWN_MEMORY);
        }
    }
}

fn set_gauge(key: &QueueKey, count: u64) {
    if is_sticky_name(&key.name) {
        return;
    }
    if let Some(gauge) = metrics::BACKLOG.as_ref() {
        let namespace = key.namespace.to_string();
        gauge
            .with_label_values(&[namespace.as_str(), &key.name, metrics::kind_label(key.kind)])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn remove_gauge(key: &QueueKey) {
    if let Some(gauge) = metrics::BACKLOG.as_ref() {
        let namespace = key.namespace.to_string();
        // It has none if it was forgotten before it was counted.
        let _ = gauge.remove_label_values(&[
            namespace.as_str(),
            &key.name,
            metrics::kind_label(key.kind),
        ]);
    }
}

/// Sticky queues bear names that workers make up; SDKs put a UUID or PID in them. They would
/// flood the metrics.
fn is_sticky_name(name: &str) -> bool {
    name.len() > 32 && name.bytes().filter(|b| *b == b'-' || *b == b'@' || *b == b':').count() > 3
}

impl Actor for BrokerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Offers and polls are bounded by the queues themselves.
        ctx.set_mailbox_capacity(usize::MAX >> 4);
        ctx.run_interval(HOUSEKEEPING, Self::keep_house);
    }
}

impl Handler<Message> for BrokerActor {
    type Result = ();

    fn handle(&mut self, message: Message, ctx: &mut Self::Context) {
        match message {
            Message::Offer(offer) => {
                let key = offer.queue.clone();
                self.with(&key, ctx, |queue, now| queue.offer(now, offer));
            }
            Message::Poll { queue, poll_id, poller, wait, tx } => {
                self.poll(&queue, poll_id, poller, wait, tx, ctx);
            }
            Message::Cancel { queue, poll_id } => {
                self.polls.remove(&poll_id);
                if let Some(slot) = self.queues.get_mut(&queue) {
                    slot.queue.cancel(poll_id);
                }
            }
            Message::Started { queue, match_id, outcome } => {
                let outcome = match outcome {
                    Ok(task) => Started::Task(task),
                    Err(StartError::Stale) => Started::Stale,
                    Err(StartError::Unavailable(_)) => Started::Unavailable,
                };
                self.with_known(&queue, now(), ctx, |q, now| q.started(now, match_id, outcome));
            }
            Message::Backlog { queue, shard, page } => {
                self.with_known(&queue, now(), ctx, |q, now| match page {
                    Ok(page) => q.backlog(now, shard, page),
                    Err(_) => q.backlog_failed(now, shard),
                });
            }
            Message::Counted { queue, count } => {
                if self.queues.contains_key(&queue) {
                    set_gauge(&queue, count);
                }
            }
            Message::Refresh(shard) => {
                let keys: Vec<Arc<QueueKey>> = self.queues.keys().cloned().collect();
                for key in keys {
                    self.with_known(&key, now(), ctx, |q, now| q.refresh(now, shard));
                }
            }
            Message::Describe { queue, tx } => {
                self.with(&queue, ctx, |q, now| {
                    let _ = tx.send(q.status(now));
                    Vec::new()
                });
            }
            Message::Reconfigure(queue) => {
                let config = self.configs.config(&queue);
                self.with_known(&queue, now(), ctx, |q, now| q.configure(now, config));
            }
            Message::ReconfigureAll => {
                let keys: Vec<Arc<QueueKey>> = self.queues.keys().cloned().collect();
                for key in keys {
                    let config = self.configs.config(&key);
                    self.with_known(&key, now(), ctx, |q, now| q.configure(now, config));
                }
            }
            Message::View(view) => self.view(&view, ctx),
            Message::ShutDown { worker_instance_key } => self.shut_down(worker_instance_key),
            Message::EndPolls { queue, worker_instance_key, identity } => {
                self.with_known(&queue, now(), ctx, |q, _| {
                    q.shut_down(&worker_instance_key, &identity)
                });
            }
            Message::Abandon(queue) => {
                self.with_known(&queue, now(), ctx, Queue::abandon);
            }
            Message::ReleaseAll => {
                let keys: Vec<Arc<QueueKey>> = self.queues.keys().cloned().collect();
                for key in keys {
                    self.with_known(&key, now(), ctx, |q, _| q.release(|_| true));
                }
            }
        }
    }
}
