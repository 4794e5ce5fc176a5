//! What the actors of one shard share: the pure shard, the way to the log, and the effects
//! that wait for it. All of them run on one arbiter, so that a `RefCell` suffices.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    rc::Rc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use actix::Addr;
use everspan_broker::{Brokers, StartError};
use everspan_replication::Handle;
use everspan_types::{Error, Offer, Result, RunId, StartedTask, Time};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    actor::{Again, Rearm, ShardActor},
    call::Reply,
    deliver::Pump,
    execution_actor::{ExecutionActor, Message},
    lease::Lease,
    metrics,
    outbox::Outbox,
    outcome::{CallId, Effect, Outcome},
    pipeline::{Pipeline, Submitted},
    routes::Routes,
    run::Run,
    shard::Shard,
};

/// Most calls a shard holds at a time; more are refused.
const CALLS_MAX: usize = 100_000;

/// Takes a started task, or why there is none.
pub(crate) type TaskDone = Box<dyn FnOnce(Result<StartedTask, StartError>) + Send>;

/// Who waits for a call.
pub(crate) enum Caller {
    Reply(oneshot::Sender<Result<Reply>>),
    Task(TaskDone),
}

/// A loaded run's actor.
pub(crate) struct Slot {
    pub(crate) addr: Addr<ExecutionActor>,
    /// Messages sent and not yet handled.
    pub(crate) pending: Rc<Cell<usize>>,
    /// Second of the shard's life in which it was last sent to.
    pub(crate) last_used: u64,
}

/// Answers a read, or a delivery, that has seen what is not committed yet: an error if that came
/// to nothing.
pub(crate) type Read = Box<dyn FnOnce(Result<()>)>;

/// What speaks of nothing that has to be committed, but must not come from a leader that was
/// deposed without knowing it.
enum Held {
    Effects(Vec<Effect>),
    Read(Read),
}

pub(crate) struct Core {
    pub(crate) shard: Shard,
    pub(crate) runs: HashMap<RunId, Slot>,
    pub(crate) is_leading: bool,
    /// It leads still, but takes nothing new.
    pub(crate) is_handing_over: bool,
    /// In which term the shard leads, or led last.
    term: u64,
    pub(crate) tick: u64,
    pub(crate) armed: Time,
    pub(crate) addr: Option<Addr<ShardActor>>,
    pub(crate) outbox: Outbox,
    routes: Routes,
    lease: Lease<Held>,
    log: Handle,
    brokers: Brokers,
    callers: HashMap<CallId, Caller>,
    next_call: u64,
    pipeline: Pipeline<Read>,
    last_now: Time,
    /// Bound on rows in memory; calls are refused past it.
    table_bytes_max: usize,
}

pub(crate) type Shared = Rc<RefCell<Core>>;

impl Core {
    pub(crate) fn new(
        shard: Shard,
        log: Handle,
        brokers: Brokers,
        routes: Routes,
        table_bytes_max: usize,
    ) -> Self {
        let lease = Lease::new(routes.peers().is_alone());
        Self {
            shard,
            runs: HashMap::new(),
            is_leading: false,
            is_handing_over: false,
            term: 0,
            tick: 0,
            armed: Time::MAX,
            addr: None,
            outbox: Outbox::default(),
            routes,
            lease,
            log,
            brokers,
            callers: HashMap::new(),
            next_call: 0,
            pipeline: Pipeline::default(),
            last_now: Time::ZERO,
            table_bytes_max,
        }
    }

    /// Wall time that does not run backwards.
    pub(crate) fn now(&mut self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Time::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        self.last_now = self.last_now.max(now);
        self.last_now
    }

    /// Why the shard takes no calls now, if it does not.
    pub(crate) fn refusal(&self) -> Option<Error> {
        // First, since a log that needs a restart takes the leadership along.
        if let Some(reason) = self.log.stalled() {
            if !self.routes.peers().is_alone() {
                // Another replica takes over.
                return Some(Error::Moved { shard: self.shard.id, leader: 0 });
            }
            return Some(Error::unavailable(format!(
                "shard {} cannot write its log: {reason}",
                self.shard.id
            )));
        }
        if !self.is_leading || self.is_handing_over {
            return Some(self.routes.elsewhere(self.shard.id));
        }
        if self.callers.len() >= CALLS_MAX
            || self.shard.table.memory_bytes() >= self.table_bytes_max
        {
            return Some(Error::ResourceExhausted {
                cause: everspan_proto::enums::ResourceExhaustedCause::SystemOverloaded,
                scope: everspan_proto::enums::ResourceExhaustedScope::System,
                message: format!("shard {} is overloaded", self.shard.id),
            });
        }
        None
    }

    /// Why the shard answers no reads now, if it does not. What it has committed can be read
    /// while the log cannot be written, unless the answer would have to wait for a write.
    pub(crate) fn read_refusal(&self) -> Option<Error> {
        let is_alone = self.routes.peers().is_alone();
        if self.is_leading && is_alone && self.pipeline.is_idle() {
            return None;
        }
        if let Some(reason) = self.log.stalled() {
            if !is_alone {
                // Nothing is certain of the others, and one of them takes over.
                return Some(Error::Moved { shard: self.shard.id, leader: 0 });
            }
            let shard = self.shard.id;
            let what = format!("shard {shard} has changes that it cannot write: {reason}");
            return Some(Error::unavailable(what));
        }
        if self.is_leading { None } else { Some(self.routes.elsewhere(self.shard.id)) }
    }

    pub(crate) fn admit(&mut self, caller: Caller) -> CallId {
        self.next_call += 1;
        let id = CallId(self.next_call);
        self.callers.insert(id, caller);
        id
    }

    /// Whether the caller went away.
    pub(crate) fn is_gone(&self, id: CallId) -> bool {
        match self.callers.get(&id) {
            None => true,
            Some(Caller::Reply(tx)) => tx.is_closed(),
            Some(Caller::Task(_)) => false,
        }
    }

    pub(crate) fn drop_callers(&mut self, ids: &[CallId]) {
        for id in ids {
            self.callers.remove(id);
        }
    }

    /// Begins to lead.
    pub(crate) fn lead(&mut self, term: u64) {
        self.is_leading = true;
        self.term = term;
        // Offers that were under way when leadership was lost reached nobody.
        self.brokers.refresh(self.shard.id);
    }

    /// The term in which decisions are made now, if any are.
    pub(crate) fn term(&self) -> Option<u64> {
        self.is_leading.then_some(self.term)
    }

    /// Proposes an outcome's rows; its effects follow their commit. What is decided while the
    /// shard does not lead comes to nothing: whoever waited for it was told. Runs that began in
    /// it are the caller's to load: see [`submit`].
    pub(crate) fn submit(&mut self, outcome: Outcome) {
        if !self.is_leading {
            return;
        }
        let mut outcome = outcome;
        let open_runs = self.shard.open_runs();
        self.shard.count_open_runs(&mut outcome.batch);
        match self.pipeline.submit(&mut self.shard.table, outcome) {
            Submitted::Perform(effects) => self.perform_leading(effects),
            Submitted::Waits => {}
            Submitted::Propose { seq, data } => {
                self.log.propose_in(u64::from(self.shard.id.0), self.term, seq, data);
            }
        }
        let delta = self.shard.open_runs() - open_runs;
        if delta != 0 {
            metrics::add(&metrics::OPEN_EXECUTIONS, delta);
        }
        if self.shard.next_wake() < self.armed
            && let Some(addr) = &self.addr
        {
            self.armed = self.shard.next_wake();
            addr.do_send(Rearm);
        }
    }

    /// Proposal `seq` is on disk on a majority.
    pub(crate) fn committed(&mut self, seq: u64, index: u64) {
        for released in self.pipeline.committed(&mut self.shard.table, seq, index) {
            self.perform(released.effects);
            for read in released.reads {
                read(Ok(()));
            }
        }
    }

    /// Does `answer` once everything proposed so far is committed, and it is certain that this
    /// replica led when it was read.
    pub(crate) fn after_pending(&mut self, answer: Read) {
        if let Some(answer) = self.pipeline.after_pending(answer) {
            if !self.is_leading || self.is_certain() {
                answer(Ok(()));
            } else {
                self.lease.hold(Instant::now(), Held::Read(answer));
            }
        }
    }

    fn perform_leading(&mut self, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        if self.is_certain() {
            self.perform(effects);
        } else {
            self.lease.hold(Instant::now(), Held::Effects(effects));
        }
    }

    /// Whether this replica leads for certain; if it is time to make sure, it is asked for.
    fn is_certain(&mut self) -> bool {
        let now = Instant::now();
        if let Some(token) = self.lease.renew(now) {
            self.log.confirm(u64::from(self.shard.id.0), self.term, token);
        }
        self.lease.is_valid(now)
    }

    /// A majority said that this replica led when it asked with `token`.
    pub(crate) fn confirmed(&mut self, token: u64) {
        for held in self.lease.confirmed(token) {
            match held {
                Held::Effects(effects) => self.perform(effects),
                Held::Read(read) => read(Ok(())),
            }
        }
        if self.lease.holds() {
            self.is_certain();
        }
    }

    /// Whether everything that was decided is committed and answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.pipeline.is_idle() && !self.lease.holds()
    }

    /// Refuses everybody who waits.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        for read in self.pipeline.clear() {
            read(Err(error.clone()));
        }
        for held in self.lease.end() {
            if let Held::Read(read) = held {
                read(Err(error.clone()));
            }
        }
        for (_, caller) in self.callers.drain() {
            match caller {
                Caller::Reply(tx) => drop(tx.send(Err(error.clone()))),
                Caller::Task(done) => done(Err(StartError::Unavailable(error.to_string()))),
            }
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut offers: Vec<Offer> = Vec::new();
        let mut lanes = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Reply(id, reply) => {
                    if let Some(Caller::Reply(tx)) = self.callers.remove(&id) {
                        // A caller that went away does not want to know.
                        let _ = tx.send(reply);
                    }
                }
                Effect::Task(id, task) => {
                    if let Some(Caller::Task(done)) = self.callers.remove(&id) {
                        done(task.map_err(|e| match e {
                            Error::Unavailable(reason) => StartError::Unavailable(reason),
                            _ => StartError::Stale,
                        }));
                    }
                }
                Effect::Offer(offer) => offers.push(offer),
                Effect::Deliver(to, sequence) => {
                    self.outbox.committed(to, sequence);
                    lanes.insert(to);
                }
                Effect::Route(id, request) => {
                    if self.is_gone(id) {
                        self.callers.remove(&id);
                    } else if let Some(addr) = &self.addr {
                        addr.do_send(Again { id, request: *request });
                    }
                }
            }
        }
        if !offers.is_empty() {
            self.brokers.offer(offers);
        }
        if let Some(addr) = self.addr.as_ref().filter(|_| !lanes.is_empty()) {
            addr.do_send(Pump(lanes.into_iter().collect()));
        }
    }

    /// The actor of a run, loaded if it is not.
    pub(crate) fn slot(&mut self, run: RunId) -> Option<&mut Slot> {
        let tick = self.tick;
        let slot = self.runs.get_mut(&run)?;
        slot.last_used = tick;
        Some(slot)
    }

    /// Has a loaded run offer again what stands in no row; it may leave memory all the same.
    pub(crate) fn offer_soft(&mut self, run: RunId) {
        if let Some(slot) = self.runs.get_mut(&run) {
            slot.pending.set(slot.pending.get() + 1);
            slot.addr.do_send(Message::OfferSoft);
        }
    }

    pub(crate) fn send(&mut self, run: RunId, message: Message) {
        if let Some(slot) = self.slot(run) {
            slot.pending.set(slot.pending.get() + 1);
            slot.addr.do_send(message);
        }
    }
}

/// Proposes an outcome, and gives the runs that began in it actors of their own.
pub(crate) fn submit(shared: &Shared, mut outcome: Outcome) {
    let runs = std::mem::take(&mut outcome.runs);
    let core = &mut *shared.borrow_mut();
    core.submit(outcome);
    let is_leading = core.is_leading;
    for run in runs.into_iter().filter(|_| is_leading) {
        spawn(core, shared, run);
    }
}

/// Gives a run an actor of its own.
pub(crate) fn spawn(core: &mut Core, shared: &Shared, run: Run) {
    let id = run.id();
    let pending = Rc::new(Cell::new(0));
    let addr = ExecutionActor::spawn(shared.clone(), core.term(), run, pending.clone());
    let last_used = core.tick;
    core.runs.insert(id, Slot { addr, pending, last_used });
    metrics::add(&metrics::EXECUTION_ACTORS, 1);
}

/// A new run's ID.
pub(crate) fn fresh_run_id() -> RunId {
    RunId(Uuid::now_v7())
}
