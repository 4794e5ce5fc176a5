//! A shard's shell: what the actors of `everspan-shard` do around the pure [`Shard`] and
//! [`Run`], in the same order, on the simulated node. A loaded run is an actor with a mailbox
//! of its own here, too, so that what overtakes what there overtakes it here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use everspan_broker::BacklogAsk;
use everspan_replication::Event as LogEvent;
use everspan_shard::{
    CallId, Delivery, Effect, Outbox, Outcome, Pipeline, Route, Run, Shard, Submitted,
    call::Request,
};
use everspan_storage::Batch;
use everspan_types::{Error, NamespaceId, Offer, QueueKey, Result, RunId, ShardId, TaskRef, Time};
use uuid::{Builder, Uuid};

use crate::{
    broker::{BrokerMessage, Started},
    deliver::{Ended, Inbox, Receipt, Received},
    node::{Answer, Cx, LogMessage, Message, Post, StartTask, TaskStart},
    run::{Actor, RunMessage},
    sched::{Addr, Attempt, NodeEvent},
    setup::Mutation,
};

/// Runs woken in one go.
const WAKES_AT_ONCE: usize = 256;

#[derive(Debug)]
pub(crate) enum ShardMessage {
    Call {
        attempt: Attempt,
        request: Request,
    },
    StartTask(StartTask),
    StickyUnavailable(Offer),
    Backlog(BacklogAsk),
    Again {
        id: CallId,
        request: Request,
    },
    News(Vec<LogEvent>),
    Rearm,
    CheckpointDone(bool),
    /// Messages for these shards are committed.
    Pump(Vec<ShardId>),
    Deliver {
        delivery: Delivery,
        receipt: Receipt,
    },
    Delivered {
        to: ShardId,
        term: Option<u64>,
        taken: Result<u64>,
    },
    Received(Received),
}

/// Who waits for a call.
#[derive(Debug)]
pub(crate) enum Caller {
    Reply(Attempt),
    Task { queue: QueueKey, match_id: u64 },
}

#[derive(Debug)]
pub(crate) struct ShardShell {
    pub(crate) id: u32,
    pub(crate) shard: Shard,
    /// The actor of each loaded run, and the tick in which it was last sent to.
    pub(crate) runs: BTreeMap<RunId, (u64, u64)>,
    pub(crate) actors: BTreeMap<u64, Actor>,
    next_actor: u64,
    is_leading: bool,
    term: u64,
    tick: u64,
    armed: Time,
    timer: u64,
    pub(crate) soft_timers: u64,
    pub(crate) callers: BTreeMap<CallId, Caller>,
    next_call: u64,
    pub(crate) pipeline: Pipeline<Ended>,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    last_now: Time,
    last_checkpoint: Time,
    checkpoint_running: bool,
}

impl ShardShell {
    pub(crate) fn new(id: u32, shard: Shard, now: Time) -> Self {
        Self {
            id,
            shard,
            runs: BTreeMap::new(),
            actors: BTreeMap::new(),
            next_actor: 0,
            is_leading: false,
            term: 0,
            tick: 0,
            armed: Time::MAX,
            timer: 0,
            soft_timers: 0,
            callers: BTreeMap::new(),
            next_call: 0,
            pipeline: Pipeline::default(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            last_now: Time::ZERO,
            last_checkpoint: now,
            checkpoint_running: false,
        }
    }

    /// Wall time that does not run backwards.
    pub(crate) fn now(&mut self, cx: &Cx<'_>) -> Time {
        self.last_now = self.last_now.max(cx.now());
        self.last_now
    }

    /// The term in which decisions are made now, if any are.
    pub(crate) fn leads_in(&self) -> Option<u64> {
        self.is_leading.then_some(self.term)
    }

    /// Whether a run's state may rest on changes that were never committed.
    pub(crate) fn is_stale(&self, cx: &Cx<'_>, actor: &Actor) -> bool {
        let is_of_now = actor.term.is_some() && actor.term == self.leads_in();
        !is_of_now && !cx.mutated(Mutation::KeepRuns)
    }

    pub(crate) fn me(&self) -> Addr {
        Addr::Shard(self.id)
    }

    pub(crate) fn refusal(&self, post: &Post, cx: &Cx<'_>) -> Option<Error> {
        if !self.is_leading {
            return Some(Error::unavailable("the shard is starting"));
        }
        if let Some(reason) = &post.stalled {
            return Some(Error::unavailable(format!("the log cannot be written: {reason}")));
        }
        if self.shard.table.memory_bytes() >= cx.setup.table_bytes_max {
            return Some(Error::unavailable("the shard is overloaded"));
        }
        None
    }

    fn admit(&mut self, caller: Caller) -> CallId {
        self.next_call += 1;
        let id = CallId(self.next_call);
        self.callers.insert(id, caller);
        id
    }

    /// Handles a message; `Err` where the real shard would panic.
    pub(crate) fn handle(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        message: ShardMessage,
    ) -> Result<(), String> {
        match message {
            ShardMessage::Call { attempt, request } => {
                if let Some(error) = self.refusal(post, cx) {
                    cx.record.answer(cx.sched, attempt, Err(error));
                    return Ok(());
                }
                let id = self.admit(Caller::Reply(attempt));
                self.route(post, cx, id, request);
            }
            ShardMessage::Again { id, request } => {
                if self.is_leading {
                    self.route(post, cx, id, request);
                }
            }
            ShardMessage::StartTask(start) => self.start_task(post, cx, start),
            ShardMessage::StickyUnavailable(offer) => {
                if self.is_leading
                    && self.load(offer.run_id, offer.queue.namespace, &offer.workflow_id).is_ok()
                {
                    let message = RunMessage::StickyUnavailable(offer.task);
                    self.send(post, cx, offer.run_id, message);
                }
            }
            ShardMessage::Backlog(ask) => {
                let page = match self.refusal(post, cx) {
                    Some(_) => None,
                    None => self.shard.backlog(&ask).ok(),
                };
                let queue = ask.queue;
                let message = BrokerMessage::Backlog { queue, shard: self.shard.id, page };
                post.send(cx, Addr::Broker, Message::Broker(message));
            }
            ShardMessage::News(events) => {
                for event in events {
                    self.news(post, cx, event)?;
                }
            }
            ShardMessage::Rearm => self.rearm(cx),
            ShardMessage::Pump(lanes) => {
                for to in lanes {
                    self.pump(post, cx, to);
                }
            }
            ShardMessage::Deliver { delivery, receipt } => {
                self.deliver(post, cx, delivery, receipt);
            }
            ShardMessage::Delivered { to, term, taken } => {
                self.delivered(post, cx, to, term, taken);
            }
            ShardMessage::Received(received) => self.received(post, cx, received),
            ShardMessage::CheckpointDone(is_written) => {
                self.checkpoint_running = false;
                self.shard.table.end_checkpoint(is_written);
                if is_written {
                    let index = self.shard.table.durable();
                    let message = LogMessage::Compact { shard: self.id, index };
                    post.send(cx, Addr::Log, Message::Log(message));
                }
            }
        }
        Ok(())
    }

    fn route(&mut self, post: &mut Post, cx: &mut Cx<'_>, id: CallId, request: Request) {
        let (namespace, workflow_id) = (request.namespace, request.workflow_id.clone());
        let routed = self.shard.route(namespace, &workflow_id, &request.call);
        let refused = match routed {
            Ok(Route::Run(run)) => self
                .load(run, namespace, &workflow_id)
                .map(|()| self.send(post, cx, run, RunMessage::Call { id, request })),
            Ok(Route::Start) => self.start(post, cx, id, &request),
            Err(error) => Err(error),
        };
        if let Err(error) = refused {
            self.submit(post, cx, Outcome::refuse(id, error));
        }
    }

    fn start(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        id: CallId,
        request: &Request,
    ) -> Result<()> {
        let (now, run_id) = (self.now(cx), self.fresh_run_id(cx));
        let Request { namespace, call, deadline, .. } = request;
        let (run, outcome) = self.shard.start(now, id, *namespace, run_id, call, *deadline)?;
        self.submit(post, cx, outcome);
        self.spawn(run);
        Ok(())
    }

    pub(crate) fn fresh_run_id(&mut self, cx: &mut Cx<'_>) -> RunId {
        let millis = self.now(cx).as_nanos() / 1_000_000;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&cx.sched.rng.next().to_be_bytes());
        let id: Uuid = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        RunId(id)
    }

    pub(crate) fn load(
        &mut self,
        run: RunId,
        namespace: NamespaceId,
        workflow_id: &str,
    ) -> Result<()> {
        if !self.runs.contains_key(&run) {
            let loaded = self.shard.load(namespace, workflow_id, run)?;
            self.spawn(loaded);
        }
        Ok(())
    }

    pub(crate) fn spawn(&mut self, run: Run) {
        self.next_actor += 1;
        self.runs.insert(run.id(), (self.next_actor, self.tick));
        self.actors.insert(self.next_actor, Actor { run, soft: None, term: self.leads_in() });
    }

    pub(crate) fn send(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        run: RunId,
        message: RunMessage,
    ) {
        let (tick, id) = (self.tick, self.id);
        if let Some((actor, last_used)) = self.runs.get_mut(&run) {
            *last_used = tick;
            post.send(cx, Addr::Run(id, *actor), Message::Run(message));
        }
    }

    fn start_task(&mut self, post: &mut Post, cx: &mut Cx<'_>, start: StartTask) {
        let StartTask { offer, poller, queue, match_id } = start;
        let refused = if self.refusal(post, cx).is_some() {
            Some(Started::Unavailable)
        } else if matches!(offer.task, TaskRef::Query { .. })
            && !self.runs.contains_key(&offer.run_id)
        {
            // It lived in memory and is gone.
            Some(Started::Stale)
        } else {
            match self.load(offer.run_id, offer.queue.namespace, &offer.workflow_id) {
                Ok(()) => None,
                Err(Error::NotFound(_)) => Some(Started::Stale),
                Err(_) => Some(Started::Unavailable),
            }
        };
        if let Some(outcome) = refused {
            let message = BrokerMessage::Started { queue, match_id, outcome };
            return post.send(cx, Addr::Broker, Message::Broker(message));
        }
        let id = self.admit(Caller::Task { queue, match_id });
        let start = TaskStart { task: offer.task, poller };
        self.send(post, cx, offer.run_id, RunMessage::Start { id, start });
    }

    fn wake_due(&mut self, post: &mut Post, cx: &mut Cx<'_>) {
        if !self.is_leading {
            return;
        }
        let mut now = self.now(cx);
        if cx.mutated(Mutation::EarlyTimers) {
            now = now + Duration::from_millis(500);
        }
        // The simulated store does not fail to read.
        for run in self.shard.take_due(now, WAKES_AT_ONCE).unwrap_or_default() {
            if cx.mutated(Mutation::ForgetWakes) && cx.sched.rng.chance(10) {
                continue;
            }
            if !self.runs.contains_key(&run) {
                let Ok(Some(loaded)) = self.shard.load_any(run) else { continue };
                self.spawn(loaded);
            }
            self.send(post, cx, run, RunMessage::Wake);
        }
    }

    fn rearm(&mut self, cx: &mut Cx<'_>) {
        let now = self.now(cx);
        self.armed = self.shard.next_wake();
        self.timer += 1;
        if !self.is_leading {
            return;
        }
        let mut wait = self.armed.since(now);
        if cx.mutated(Mutation::EarlyTimers) {
            wait = wait.saturating_sub(Duration::from_millis(500));
        }
        cx.after(wait.max(Duration::from_micros(1)), NodeEvent::ShardTimer(self.id, self.timer));
    }

    /// The timer, as armed the `armed`-th time, is over.
    pub(crate) fn timer(&mut self, post: &mut Post, cx: &mut Cx<'_>, armed: u64) {
        if armed == self.timer {
            self.wake_due(post, cx);
            self.rearm(cx);
        }
    }

    fn news(&mut self, post: &mut Post, cx: &mut Cx<'_>, event: LogEvent) -> Result<(), String> {
        match event {
            LogEvent::Committed { index, seq: Some(seq), .. } => {
                for released in self.pipeline.committed(&mut self.shard.table, seq, index) {
                    self.perform(post, cx, released.effects);
                    for ended in &released.reads {
                        self.ended(post, cx, ended);
                    }
                }
            }
            LogEvent::Committed { index, seq: None, data, .. } => {
                if !data.is_empty() {
                    let batch = Batch::decode(&data).map_err(|e| {
                        format!("shard {}: entry {index} cannot be applied: {e}", self.id)
                    })?;
                    self.shard.table.apply(index, batch);
                }
            }
            // A group of one replica has nobody to follow or to ask.
            LogEvent::Follows { .. } | LogEvent::Confirmed { .. } | LogEvent::Behind { .. } => {}
            LogEvent::Leader { term } => {
                let now = self.now(cx);
                self.shard.load_wakes(now).map_err(|e| e.to_string())?;
                self.load_outbox(post, cx).map_err(|e| e.to_string())?;
                self.shard.load_open_runs().map_err(|e| e.to_string())?;
                self.is_leading = true;
                self.term = term;
                if !cx.mutated(Mutation::ForgetOffers) {
                    let refresh = BrokerMessage::Refresh(self.shard.id);
                    post.send(cx, Addr::Broker, Message::Broker(refresh));
                }
                let id = self.id;
                cx.sched.log(|| format!("shard {id} leads in term {term}"));
                self.wake_due(post, cx);
                self.rearm(cx);
            }
            LogEvent::Refused { .. } | LogEvent::Lost => self.abandon(post, cx),
        }
        Ok(())
    }

    fn abandon(&mut self, post: &mut Post, cx: &mut Cx<'_>) {
        let id = self.id;
        cx.sched.log(|| format!("shard {id} lost its leadership"));
        self.refuse_deliveries(post, cx);
        self.is_leading = false;
        for (actor, _) in std::mem::take(&mut self.runs).into_values() {
            post.send(cx, Addr::Run(id, actor), Message::Run(RunMessage::Abandon));
        }
        match cx.setup.mutation {
            Some(Mutation::KeepStaged) => {}
            Some(Mutation::KeepWakes) => self.shard.table.discard_staged(),
            _ => self.shard.forget_proposed(),
        }
        for ended in self.pipeline.clear() {
            self.lost(post, cx, &ended);
        }
        for caller in std::mem::take(&mut self.callers).into_values() {
            match caller {
                Caller::Reply(attempt) => {
                    let error = Error::unavailable("leadership of the shard was lost");
                    cx.record.answer(cx.sched, attempt, Err(error));
                }
                Caller::Task { queue, match_id } => {
                    let outcome = Started::Unavailable;
                    let message = BrokerMessage::Started { queue, match_id, outcome };
                    post.send(cx, Addr::Broker, Message::Broker(message));
                }
            }
        }
    }

    pub(crate) fn tick(&mut self, post: &mut Post, cx: &mut Cx<'_>) {
        self.tick += 1;
        let (id, tick) = (self.id, self.tick);
        for (actor, last_used) in self.runs.values() {
            if tick - last_used >= cx.setup.idle_ticks {
                post.send(cx, Addr::Run(id, *actor), Message::Run(RunMessage::Passivate));
            }
        }
        let bytes = self.shard.table.memory_bytes();
        let waited = cx.sched.now.since(self.last_checkpoint);
        let is_due = bytes >= cx.setup.checkpoint_bytes
            || (bytes > 0 && waited >= cx.setup.checkpoint_every);
        if self.checkpoint_running || !is_due {
            return;
        }
        if let Some(checkpoint) = self.shard.table.begin_checkpoint() {
            self.checkpoint_running = true;
            self.last_checkpoint = cx.sched.now;
            post.send(cx, Addr::Checkpoint, Message::Checkpoint(id, checkpoint));
        }
    }

    pub(crate) fn submit(&mut self, post: &mut Post, cx: &mut Cx<'_>, mut outcome: Outcome) {
        if !self.is_leading {
            return;
        }
        if cx.mutated(Mutation::EffectsBeforeCommit)
            || (cx.mutated(Mutation::ReadsBeforeCommit) && outcome.batch.is_empty())
        {
            let effects = std::mem::take(&mut outcome.effects);
            self.perform(post, cx, effects);
        }
        if cx.mutated(Mutation::ForgetStarts)
            && outcome.effects.iter().any(|e| matches!(e, Effect::Task(..)))
            && cx.sched.rng.chance(20)
        {
            outcome.batch = Batch::default();
        }
        let runs = std::mem::take(&mut outcome.runs);
        self.shard.count_open_runs(&mut outcome.batch);
        match self.pipeline.submit(&mut self.shard.table, outcome) {
            Submitted::Perform(effects) => self.perform(post, cx, effects),
            Submitted::Waits => {}
            Submitted::Propose { seq, data } => {
                let term = (!cx.mutated(Mutation::AnyTerm)).then_some(self.term);
                let message = LogMessage::Propose { shard: self.id, term, seq, data };
                post.send(cx, Addr::Log, Message::Log(message));
                if self.shard.next_wake() < self.armed {
                    self.armed = self.shard.next_wake();
                    post.send(cx, self.me(), Message::Shard(ShardMessage::Rearm));
                }
            }
        }
        for run in runs {
            self.spawn(run);
        }
    }

    /// Whether everything that was decided is committed.
    pub(crate) fn is_committed(&self) -> bool {
        self.pipeline.is_idle()
    }

    fn perform(&mut self, post: &mut Post, cx: &mut Cx<'_>, effects: Vec<Effect>) {
        let mut lanes = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Reply(id, reply) => {
                    if let Some(Caller::Reply(attempt)) = self.callers.remove(&id) {
                        let reply: Answer = reply;
                        cx.record.answer(cx.sched, attempt, reply.map(Box::new));
                    }
                }
                Effect::Task(id, task) => {
                    if let Some(Caller::Task { queue, match_id }) = self.callers.remove(&id) {
                        let outcome = match task {
                            Ok(task) => Started::Task(task),
                            Err(Error::Unavailable(_)) => Started::Unavailable,
                            Err(_) => Started::Stale,
                        };
                        let message = BrokerMessage::Started { queue, match_id, outcome };
                        post.send(cx, Addr::Broker, Message::Broker(message));
                    }
                }
                Effect::Offer(offer) => {
                    let message = BrokerMessage::Offer(offer);
                    post.send(cx, Addr::Broker, Message::Broker(message));
                }
                Effect::Route(id, request) => {
                    let again = ShardMessage::Again { id, request: *request };
                    post.send(cx, self.me(), Message::Shard(again));
                }
                Effect::Deliver(to, sequence) => {
                    self.outbox.committed(to, sequence);
                    lanes.insert(to);
                }
            }
        }
        if !lanes.is_empty() {
            let pump = ShardMessage::Pump(lanes.into_iter().collect());
            post.send(cx, self.me(), Message::Shard(pump));
        }
    }
}
