//! The actor of one shard: everything that concerns it comes through this mailbox; what
//! concerns one run goes on to that run's own.

use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, SpawnHandle};
use bytes::Bytes;
use everspan_broker::{BacklogAsk, BacklogCounts, BacklogPage, StartError};
use everspan_replication::Event;
use everspan_storage::{Checkpoint, Page};
use everspan_types::{Error, NamespaceId, Offer, Poller, QueueKey, Result, RunId, TaskRef};
use everspan_visibility as visibility;
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::{
    call::{Reply, Request},
    client::ShardTasks,
    copy::Copy,
    core::{Caller, Core, Shared, TaskDone, fresh_run_id, spawn},
    deliver::{DeliveryDone, Inbox},
    execution_actor::{Message, Passivate},
    metrics,
    outbox::Delivery,
    outcome::{CallId, Outcome},
    routes::Routes,
    shard::Route,
};

/// Housekeeping: passivation, checkpoints.
const TICK: Duration = Duration::from_secs(1);
/// A run that nothing was sent to for this many ticks leaves memory.
const IDLE_TICKS: u64 = 10;
/// Runs woken in one go, so that a crowd of timers does not keep calls waiting.
const WAKES_AT_ONCE: usize = 256;

/// What comes for a shard from outside.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) enum Inbound {
    Call {
        request: Request,
        reply: oneshot::Sender<Result<Reply>>,
    },
    StartTask {
        offer: Offer,
        poller: Poller,
        done: TaskDone,
    },
    StickyUnavailable(Offer),
    Backlog {
        ask: BacklogAsk,
        done: Box<dyn FnOnce(Result<BacklogPage>) + Send>,
    },
    CountBacklog {
        queue: QueueKey,
        done: Box<dyn FnOnce(Result<BacklogCounts>) + Send>,
    },
    Deliver {
        delivery: Delivery,
        done: DeliveryDone,
    },
    List {
        list: ListCall,
        reply: oneshot::Sender<Result<visibility::ListPage>>,
    },
    Count {
        count: CountCall,
        reply: oneshot::Sender<Result<visibility::Counts>>,
    },
    /// Rows for another replica; see [`crate::copy`].
    Rows {
        index: u64,
        from: Bytes,
        reply: oneshot::Sender<Result<Page>>,
    },
    /// Task-queue brokers came or went with their nodes.
    OfferSoft,
    HandOver {
        to: u64,
        done: oneshot::Sender<()>,
    },
}

/// A page of a list, from one shard.
#[derive(Clone)]
pub(crate) struct ListCall {
    pub(crate) namespace: NamespaceId,
    pub(crate) query: std::sync::Arc<visibility::Query>,
    pub(crate) after: Option<visibility::Cursor>,
    pub(crate) limit: usize,
}

/// A count, from one shard.
#[derive(Clone)]
pub(crate) struct CountCall {
    pub(crate) namespace: NamespaceId,
    pub(crate) query: std::sync::Arc<visibility::Query>,
}

/// A call whose run closed before it got there: it is routed anew.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Again {
    pub(crate) id: CallId,
    pub(crate) request: Request,
}

/// News from the shard's replica.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct News(pub(crate) Vec<Event>);

/// An earlier wake-up than the armed one was stored.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Rearm;

/// A checkpoint ended.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct CheckpointDone {
    pub(crate) outcome: std::result::Result<(), String>,
    pub(crate) took: Duration,
}

/// Stop for good: write what is committed out, then tell.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Stop(pub(crate) oneshot::Sender<()>);

/// End for good: the replica is no more.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) oneshot::Sender<()>);

/// Hands a checkpoint to the thread that writes it.
pub(crate) type Checkpointer =
    Box<dyn Fn(Checkpoint, Box<dyn FnOnce(std::result::Result<(), String>, Duration) + Send>)>;

/// When checkpoints are due.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointRule {
    pub(crate) every: Duration,
    pub(crate) bytes: usize,
}

/// Told once: that the shard leads, or what it cannot read for that.
pub(crate) type OnLeading = Box<dyn FnOnce(Result<()>) + Send>;

pub(crate) struct ShardActor {
    pub(crate) shared: Shared,
    /// The shards that messages go to.
    pub(crate) peers: ShardTasks,
    pub(crate) routes: Routes,
    pub(crate) inbox: Inbox,
    checkpointer: Checkpointer,
    pub(crate) rule: CheckpointRule,
    pub(crate) log: everspan_replication::Handle,
    last_checkpoint: Instant,
    checkpoint_running: bool,
    timer: Option<SpawnHandle>,
    /// Another try to lead.
    pub(crate) leads_later: Option<SpawnHandle>,
    pub(crate) on_leading: Option<OnLeading>,
    /// Another replica's rows on their way here.
    pub(crate) copy: Option<Copy>,
    /// Entries up to this index are in the rows, whatever is told of them.
    pub(crate) restored_at: u64,
    /// The leadership was handed over, and nobody was heard of yet who has it.
    pub(crate) is_handed_over: bool,
    /// For how many ticks the log could not be written while another replica could lead.
    pub(crate) stalled_ticks: u32,
    stopping: Option<oneshot::Sender<()>>,
    closing: Option<oneshot::Sender<()>>,
}

impl ShardActor {
    pub(crate) fn new(
        shared: Shared,
        peers: ShardTasks,
        routes: Routes,
        checkpointer: Checkpointer,
        rule: CheckpointRule,
        log: everspan_replication::Handle,
        on_leading: OnLeading,
    ) -> Self {
        Self {
            shared,
            peers,
            routes,
            inbox: Inbox::default(),
            checkpointer,
            rule,
            log,
            last_checkpoint: Instant::now(),
            checkpoint_running: false,
            timer: None,
            leads_later: None,
            on_leading: Some(on_leading),
            copy: None,
            restored_at: 0,
            is_handed_over: false,
            stalled_ticks: 0,
            stopping: None,
            closing: None,
        }
    }

    fn call(&mut self, request: Request, reply: oneshot::Sender<Result<Reply>>) {
        let refusal = if request.call.is_read() {
            self.shared.borrow().read_refusal()
        } else {
            self.shared.borrow().refusal()
        };
        if let Some(error) = refusal {
            let _ = reply.send(Err(error));
            return;
        }
        let id = self.shared.borrow_mut().admit(Caller::Reply(reply));
        self.route(id, request);
    }

    fn route(&mut self, id: CallId, request: Request) {
        let (namespace, workflow_id) = (request.namespace, request.workflow_id.clone());
        let route = self.shared.borrow().shard.route(namespace, &workflow_id, &request.call);
        let refused = match route {
            Ok(Route::Run(run)) => self
                .load(run, namespace, &workflow_id)
                .map(|()| self.shared.borrow_mut().send(run, Message::Call { id, request })),
            Ok(Route::Start) => self.start(id, &request),
            Err(error) => Err(error),
        };
        if let Err(error) = refused {
            self.shared.borrow_mut().submit(Outcome::refuse(id, error));
        }
    }

    fn start(&mut self, id: CallId, request: &Request) -> Result<()> {
        let run = {
            let core = &mut *self.shared.borrow_mut();
            let now = core.now();
            let (run, outcome) = core.shard.start(
                now,
                id,
                request.namespace,
                fresh_run_id(),
                &request.call,
                request.deadline,
            )?;
            core.submit(outcome);
            run
        };
        spawn(&mut self.shared.borrow_mut(), &self.shared, run);
        Ok(())
    }

    /// Makes sure that a run has an actor.
    pub(crate) fn load(
        &mut self,
        run: RunId,
        namespace: NamespaceId,
        workflow_id: &str,
    ) -> Result<()> {
        if self.shared.borrow().runs.contains_key(&run) {
            return Ok(());
        }
        let loaded = self.shared.borrow().shard.load(namespace, workflow_id, run)?;
        spawn(&mut self.shared.borrow_mut(), &self.shared, loaded);
        Ok(())
    }

    fn start_task(&mut self, offer: Offer, poller: Poller, done: TaskDone) {
        let refusal = self.shared.borrow().refusal();
        if let Some(error) = refusal {
            done(Err(StartError::Unavailable(error.to_string())));
            return;
        }
        let is_query = matches!(offer.task, TaskRef::Query { .. });
        let is_loaded = self.shared.borrow().runs.contains_key(&offer.run_id);
        if is_query && !is_loaded {
            // It lived in memory and is gone.
            done(Err(StartError::Stale));
            return;
        }
        match self.load(offer.run_id, offer.queue.namespace, &offer.workflow_id) {
            Ok(()) => {
                let mut core = self.shared.borrow_mut();
                let id = core.admit(Caller::Task(done));
                core.send(offer.run_id, Message::Start { id, task: offer.task, poller });
            }
            Err(Error::NotFound(_)) => done(Err(StartError::Stale)),
            Err(error) => {
                error!(shard = %self.shared.borrow().shard.id, workflow_id = offer.workflow_id,
                    run_id = %offer.run_id, %error, "a task's run cannot be read");
                done(Err(StartError::Unavailable(error.to_string())));
            }
        }
    }

    pub(crate) fn wake_due(&mut self) {
        let due = {
            let core = &mut *self.shared.borrow_mut();
            if !core.is_leading {
                return;
            }
            let now = core.now();
            match core.shard.take_due(now, WAKES_AT_ONCE) {
                Ok(due) => due,
                Err(error) => {
                    error!(shard = %core.shard.id, %error, "wake-ups cannot be read");
                    return;
                }
            }
        };
        for run in due {
            if !self.shared.borrow().runs.contains_key(&run) {
                let loaded = self.shared.borrow().shard.load_any(run);
                match loaded {
                    Ok(Some(loaded)) => {
                        spawn(&mut self.shared.borrow_mut(), &self.shared, loaded);
                    }
                    Ok(None) => continue,
                    Err(error) => {
                        error!(run_id = %run, %error, "a run to be woken cannot be read");
                        let core = &mut *self.shared.borrow_mut();
                        let now = core.now();
                        core.shard.wake_later(run, now);
                        continue;
                    }
                }
            }
            self.shared.borrow_mut().send(run, Message::Wake);
        }
    }

    pub(crate) fn rearm(&mut self, ctx: &mut Context<Self>) {
        let wait = {
            let core = &mut *self.shared.borrow_mut();
            let now = core.now();
            core.armed = core.shard.next_wake();
            core.is_leading.then(|| core.armed.since(now))
        };
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        // A shard that does not lead wakes nobody; it arms itself once it leads.
        let Some(wait) = wait else { return };
        self.timer = Some(ctx.run_later(wait, |actor, ctx| {
            actor.timer = None;
            actor.wake_due();
            actor.rearm(ctx);
        }));
    }

    fn news(&mut self, event: Event, ctx: &mut Context<Self>) {
        match event {
            Event::Committed { index, seq: Some(seq), .. } => {
                self.shared.borrow_mut().committed(seq, index);
            }
            Event::Committed { index, .. } if index <= self.restored_at => {}
            Event::Committed { index, seq: None, data, .. } => {
                if let Err(error) = self.replay(index, &data) {
                    // Going on would serve a state with a hole in it.
                    let shard = self.shared.borrow().shard.id;
                    error!(%shard, index, %error, "a committed entry cannot be applied");
                    self.shared.borrow_mut().is_leading = false;
                    panic!("shard {shard}: committed entry {index} cannot be applied: {error}");
                }
            }
            Event::Leader { term } => self.lead(term, ctx),
            Event::Behind { index, term, from } => self.begin_copy(index, term, from, ctx),
            Event::Confirmed { token } => self.shared.borrow_mut().confirmed(token),
            Event::Follows { leader } => self.follow(leader),
            other @ (Event::Refused { .. } | Event::Lost) => {
                // Nothing is known of proposals in flight: drop what was decided on them.
                warn!(shard = %self.shared.borrow().shard.id, ?other, "leadership lost");
                let error = Error::unavailable("leadership of the shard was lost");
                self.abandon(&error, ctx);
            }
        }
    }

    fn replay(&mut self, index: u64, data: &bytes::Bytes) -> std::result::Result<(), String> {
        if let Some(copy) = &mut self.copy {
            copy.restart();
        }
        let mut core = self.shared.borrow_mut();
        if data.is_empty() {
            core.shard.table.skip(index);
            return Ok(());
        }
        let batch = everspan_storage::Batch::decode(data).map_err(|e| e.to_string())?;
        core.shard.table.apply(index, batch);
        Ok(())
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.sign_of_copy();
        self.give_up_if_stalled();
        {
            let core = &mut *self.shared.borrow_mut();
            core.tick += 1;
            let tick = core.tick;
            for slot in core.runs.values() {
                if tick - slot.last_used >= IDLE_TICKS {
                    slot.addr.do_send(Passivate);
                }
            }
        }
        self.checkpoint_if_due(ctx);
    }

    pub(crate) fn checkpoint_if_due(&mut self, ctx: &mut Context<Self>) {
        let bytes = self.shared.borrow().shard.table.memory_bytes();
        let is_due = self.stopping.is_some()
            || self.copy.as_ref().is_some_and(Copy::is_done)
            || bytes >= self.rule.bytes
            || (bytes > 0 && self.last_checkpoint.elapsed() >= self.rule.every);
        if self.checkpoint_running || !is_due || self.closing.is_some() {
            return;
        }
        let Some(checkpoint) = self.shared.borrow_mut().shard.table.begin_checkpoint() else {
            self.finish_stop();
            return;
        };
        self.checkpoint_running = true;
        self.last_checkpoint = Instant::now();
        let addr = ctx.address();
        (self.checkpointer)(
            checkpoint,
            Box::new(move |outcome, took| addr.do_send(CheckpointDone { outcome, took })),
        );
    }

    fn finish_stop(&mut self) {
        if let Some(done) = self.stopping.take() {
            let _ = done.send(());
        }
    }
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Messages wait in memory while a burst is worked off; calls are bounded by
        // `Core::refusal` instead.
        ctx.set_mailbox_capacity(usize::MAX >> 4);
        self.shared.borrow_mut().addr = Some(ctx.address());
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Handler<Inbound> for ShardActor {
    type Result = ();

    fn handle(&mut self, message: Inbound, ctx: &mut Self::Context) {
        match message {
            Inbound::Rows { index, from, reply } => {
                let _ = reply.send(self.rows(index, &from));
            }
            Inbound::OfferSoft => {
                let core = &mut *self.shared.borrow_mut();
                let runs: Vec<RunId> = core.runs.keys().copied().collect();
                for run in runs {
                    core.offer_soft(run);
                }
            }
            Inbound::HandOver { to, done } => self.hand_over(to, done, ctx),
            Inbound::Call { request, reply } => self.call(request, reply),
            Inbound::StartTask { offer, poller, done } => self.start_task(offer, poller, done),
            Inbound::Deliver { delivery, done } => self.deliver(delivery, done),
            Inbound::StickyUnavailable(offer) => {
                if !self.shared.borrow().is_leading {
                    return;
                }
                if self.load(offer.run_id, offer.queue.namespace, &offer.workflow_id).is_ok() {
                    let message = Message::StickyUnavailable(offer.task);
                    self.shared.borrow_mut().send(offer.run_id, message);
                }
            }
            Inbound::Backlog { ask, done } => {
                let core = self.shared.borrow();
                done(core.refusal().map_or_else(|| core.shard.backlog(&ask), Err));
            }
            Inbound::CountBacklog { queue, done } => {
                let core = &mut *self.shared.borrow_mut();
                done(core.readable().and_then(|()| core.shard.count_backlog(&queue)));
            }
            Inbound::List { list, reply } => {
                let core = &mut *self.shared.borrow_mut();
                let page = core.readable().and_then(|()| {
                    core.shard.list(list.namespace, &list.query, list.after.as_ref(), list.limit)
                });
                core.after_pending(Box::new(move |read| drop(reply.send(read.and(page)))));
            }
            Inbound::Count { count, reply } => {
                let core = &mut *self.shared.borrow_mut();
                let counts =
                    core.readable().and_then(|()| core.shard.count(count.namespace, &count.query));
                core.after_pending(Box::new(move |read| drop(reply.send(read.and(counts)))));
            }
        }
    }
}

impl Handler<Again> for ShardActor {
    type Result = ();
    fn handle(&mut self, again: Again, _: &mut Self::Context) {
        if !self.shared.borrow().is_leading {
            // Its caller was told when leadership was lost.
            return;
        }
        self.route(again.id, again.request);
    }
}

impl Handler<News> for ShardActor {
    type Result = ();
    fn handle(&mut self, news: News, ctx: &mut Self::Context) {
        for event in news.0 {
            self.news(event, ctx);
        }
    }
}

impl Handler<Rearm> for ShardActor {
    type Result = ();
    fn handle(&mut self, _: Rearm, ctx: &mut Self::Context) {
        self.rearm(ctx);
    }
}

impl Handler<CheckpointDone> for ShardActor {
    type Result = ();
    fn handle(&mut self, done: CheckpointDone, ctx: &mut Self::Context) {
        self.checkpoint_running = false;
        if let Some(closing) = self.closing.take() {
            ctx.stop();
            let _ = closing.send(());
            return;
        }
        self.end_checkpoint(done);
        self.copy_is_written();
    }
}

impl ShardActor {
    fn end_checkpoint(&mut self, done: CheckpointDone) {
        let core = &mut *self.shared.borrow_mut();
        core.shard.table.end_checkpoint(done.outcome.is_ok());
        match done.outcome {
            Ok(()) => {
                if let Some(histogram) = metrics::CHECKPOINT_SECONDS.as_ref() {
                    histogram.observe(done.took.as_secs_f64());
                }
                self.log.compact(u64::from(core.shard.id.0), core.shard.table.durable());
            }
            Err(error) => {
                error!(shard = %core.shard.id, %error, "checkpoint failed; it will be tried again");
            }
        }
        if let Some(stopping) = self.stopping.take() {
            let _ = stopping.send(());
        }
    }
}

impl Handler<Close> for ShardActor {
    type Result = ();
    fn handle(&mut self, close: Close, ctx: &mut Self::Context) {
        self.abandon(&Error::unavailable("the replica was removed"), ctx);
        if self.checkpoint_running {
            self.closing = Some(close.0);
            return;
        }
        ctx.stop();
        let _ = close.0.send(());
    }
}

impl Handler<Stop> for ShardActor {
    type Result = ();
    fn handle(&mut self, stop: Stop, ctx: &mut Self::Context) {
        {
            let core = &mut *self.shared.borrow_mut();
            core.is_leading = false;
            core.fail_all(&Error::unavailable("the server is stopping"));
        }
        self.inbox.refuse("the server is stopping");
        self.stopping = Some(stop.0);
        if !self.checkpoint_running {
            self.checkpoint_if_due(ctx);
        }
    }
}

impl Core {
    fn readable(&self) -> Result<()> {
        self.read_refusal().map_or(Ok(()), Err)
    }
}
