//! One seed: the node, its clients and workers, what breaks, and the end.

use std::{panic::catch_unwind, time::Duration};

use everspan_shard::call::{Call, Reply, Request};
use everspan_types::{Error, NamespaceId, Poller as BrokerPoller, QueueKey, StartedTask, Time};
use uuid::Uuid;

use crate::{
    faults::FAULTS,
    node::{Cx, Machine},
    record::{Issuer, Op, Record},
    rng::Rng,
    sched::{Attempt, BEGIN, Event, Packet, PollId, Sched},
    setup::{Mutation, Setup},
    worker::{Desk, Workers},
    workload::{CALLS, CallKind, Draft, MEDDLING},
};

/// The namespace of all workflows.
pub(crate) const NAMESPACE: NamespaceId = NamespaceId(Uuid::from_u128(1));
/// How long a run may take to end once faults have stopped: timeouts of workflow tasks that
/// fail again and again grow to minutes.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(3_000);
/// Events after which a seed is taken to run in circles.
const EVENTS_MAX: u64 = 500_000;

/// What came of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What must not be, in words; empty if all is well.
    pub violations: Vec<String>,
    /// A number that the same seed gives again.
    pub digest: u64,
    /// What happened, line by line, if it was asked for.
    pub lines: Vec<String>,
    /// Runs of workflows, calls made, lives of the node.
    pub counts: Counts,
}

impl Report {
    fn failed(seed: u64, what: String) -> Self {
        let counts = Counts::default();
        Self { seed, violations: vec![what], digest: 0, lines: Vec::new(), counts }
    }
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs of workflows.
    pub runs: u64,
    /// Calls that were made.
    pub calls: u64,
    /// Calls of which an answer left the node that is no error.
    pub acknowledged: u64,
    /// Times that the node crashed.
    pub crashes: u64,
    /// Attempts of activities that were handed out.
    pub activities: u64,
}

impl Counts {
    /// Adds another seed's.
    pub fn add(&mut self, other: &Counts) {
        self.runs += other.runs;
        self.calls += other.calls;
        self.acknowledged += other.acknowledged;
        self.crashes += other.crashes;
        self.activities += other.activities;
    }
}

/// The world of one seed.
pub(crate) struct World {
    seed: u64,
    pub(crate) sched: Sched,
    pub(crate) setup: Setup,
    pub(crate) record: Record,
    pub(crate) machine: Machine,
    pub(crate) workers: Workers,
    pub(crate) is_calm: bool,
    /// Nobody calls or polls any more.
    pub(crate) is_over: bool,
}

/// Puts a call into the record; its name is `op` and its number.
pub(crate) fn new_op(
    record: &mut Record,
    kind: &'static CallKind,
    issuer: Issuer,
    workflow_id: &str,
    wait: Duration,
    attempts_max: u32,
    make: impl FnOnce(&str) -> Call,
) -> usize {
    let number = record.ops.len();
    let name = format!("op{number}");
    let request = Request {
        namespace: NAMESPACE,
        workflow_id: workflow_id.to_owned(),
        call: make(&name),
        deadline: Time::MAX,
    };
    record.ops.push(Op {
        kind,
        name,
        issuer,
        request,
        wait,
        attempts: 0,
        attempts_max,
        is_waiting: false,
        first_sent: None,
        left: Vec::new(),
    });
    number
}

/// Runs one seed. A panic of what is simulated is a violation like any other.
#[must_use]
pub fn run(seed: u64, mutation: Option<Mutation>, keeps_lines: bool) -> Report {
    catch_unwind(|| simulate(seed, mutation, keeps_lines)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        Report::failed(seed, format!("panic: {text}"))
    })
}

fn simulate(seed: u64, mutation: Option<Mutation>, keeps_lines: bool) -> Report {
    let mut sched = Sched::new(seed, keeps_lines);
    let mut rng = Rng::new(seed ^ 0x5EED);
    let setup = Setup::draw(&mut rng, mutation);
    sched.log(|| format!("{setup:?}"));
    let machine = match Machine::new() {
        Ok(machine) => machine,
        Err(error) => return Report::failed(seed, error),
    };
    sched.trace.hide(machine.directory());
    let workers = Workers::new(&setup, &mut sched);
    let record = Record::new(setup.loss);
    let mut world =
        World { seed, sched, setup, record, machine, workers, is_calm: false, is_over: false };
    world.live();
    world.report()
}

impl World {
    fn live(&mut self) {
        self.start_node();
        for client in 0..self.setup.clients {
            self.sched.after(Duration::ZERO, Event::Client(client));
        }
        let wait = self.sched.rng.millis(100, self.setup.fault_every_ms);
        self.sched.after(wait, Event::Fault);
        self.sched.after(self.setup.turmoil, Event::Settle(0));
        let end = BEGIN + self.setup.turmoil + SETTLE_MAX + Duration::from_secs(60);
        let mut events = 0;
        while !self.is_over && self.record.violations.is_empty() {
            let Some(event) = self.sched.pop(end) else { break };
            events += 1;
            if events > EVENTS_MAX {
                self.record.fail(format!("it runs in circles: {event:?}"));
            }
            self.handle(event);
        }
        if self.record.violations.is_empty() {
            self.audit();
        }
    }

    pub(crate) fn start_node(&mut self) {
        if self.machine.up.is_some() {
            return;
        }
        let Self { sched, setup, record, machine, .. } = self;
        let (life, clock_ahead) = (machine.life, machine.clock_ahead);
        sched.log(|| format!("life {life} of the node begins"));
        let mut cx = Cx { sched, record, setup, life, clock_ahead };
        match machine.start(&mut cx) {
            Ok(()) => {}
            Err(error) if machine.is_broken => {
                sched.log(|| format!("the node does not start: {error}"));
                self.lose_power();
            }
            Err(error) => record.fail(error),
        }
    }

    fn lose_power(&mut self) {
        self.machine.power_off(&mut self.sched);
        let wait = self.sched.rng.millis(1, 8_000);
        let life = self.machine.life;
        self.sched.after(wait, Event::Restart(life));
    }

    pub(crate) fn power_off(&mut self) {
        if self.machine.up.is_some() {
            self.lose_power();
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        match event {
            Event::Node(life, event) => {
                if life == self.machine.life {
                    self.node_event(event);
                }
            }
            Event::Arrive(packet) => self.arrive(*packet),
            Event::Answer(attempt, result) => self.answer(attempt, result),
            Event::PollAnswer(id, task) => self.poll_answer(id, task.map(|t| *t)),
            Event::GiveUp(attempt) => {
                if self.record.is_waiting(attempt) {
                    self.again(attempt.op);
                }
            }
            Event::Send(op) => self.send(op),
            Event::Client(client) => self.client(client),
            Event::Poll(id) => self.poll(id),
            Event::PollGiveUp(id) => self.poll_give_up(id),
            Event::Fault => self.fault(),
            Event::Mend => self.mend(),
            Event::Restart(life) => {
                if life == self.machine.life {
                    self.start_node();
                }
            }
            Event::PowerOff(life) => {
                if life == self.machine.life {
                    self.power_off();
                }
            }
            Event::Settle(step) => self.settle(step),
        }
    }

    fn node_event(&mut self, event: crate::sched::NodeEvent) {
        let Self { sched, setup, record, machine, .. } = self;
        let (life, clock_ahead) = (machine.life, machine.clock_ahead);
        let mut cx = Cx { sched, record, setup, life, clock_ahead };
        let store = machine.store.clone();
        let Some(up) = &mut machine.up else { return };
        match up.handle(&mut cx, &store, event) {
            Ok(true) => {}
            Ok(false) if machine.dies_on_error => self.power_off(),
            Ok(false) => {}
            Err(panic) => record.fail(format!("the node panics: {panic}")),
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let Self { sched, setup, record, machine, .. } = self;
        let (life, clock_ahead) = (machine.life, machine.clock_ahead);
        if let Some(up) = &mut machine.up {
            let mut cx = Cx { sched, record, setup, life, clock_ahead };
            return up.arrive(&mut cx, packet);
        }
        // Nobody listens, and the caller is told so.
        let wait = sched.rng.micros(50, 2_000);
        match packet {
            Packet::Call { attempt, .. } => {
                let error = Error::unavailable("connection refused");
                sched.after(wait, Event::Answer(attempt, Err(error)));
            }
            Packet::Poll { id, .. } => {
                sched.after(wait + Duration::from_secs(1), Event::PollAnswer(id, None));
            }
            Packet::CancelPoll { .. } => {}
        }
    }

    /// A packet goes out, and may be lost or come twice.
    fn transmit(&mut self, packet: Packet) {
        let (loss, duplication) =
            if self.is_calm { (0, 0) } else { (self.setup.loss, self.setup.duplication) };
        let is_poll = matches!(packet, Packet::Poll { .. });
        if !is_poll && self.sched.rng.chance(duplication) {
            if let Packet::Call { request, .. } = &packet
                && let Call::RecordActivityTaskHeartbeat(r) = &request.call
            {
                let token = r.task_token.clone();
                self.record.confuse_beats(&token);
            }
            let wait = self.sched.rng.micros(50, 2_000_000);
            self.sched.after(wait, Event::Arrive(Box::new(packet.clone())));
        }
        if !self.sched.rng.chance(loss) {
            let wait = self.sched.rng.micros(50, 20_000);
            self.sched.after(wait, Event::Arrive(Box::new(packet)));
        }
    }

    pub(crate) fn send(&mut self, number: usize) {
        if self.is_over {
            return;
        }
        let op = &mut self.record.ops[number];
        if let Issuer::Worker(worker, life) = op.issuer
            && self.workers.workers[worker].life != life
        {
            // The process that had the task is gone.
            return;
        }
        if op.attempts == 0 {
            let name = op.name.clone();
            if let Some(kind) = self.workers.reconsider(&name, &mut op.request) {
                op.kind = kind;
            }
        }
        op.attempts += 1;
        op.is_waiting = true;
        op.first_sent.get_or_insert(self.sched.now);
        op.request.deadline = self.sched.now + self.machine.clock_ahead + op.wait;
        let attempt = Attempt { op: number, number: op.attempts };
        let (request, wait) = (op.request.clone(), op.wait);
        let again = op.attempts > 1;
        let (name, kind) = (op.name.clone(), op.kind.name);
        self.sched.log(|| format!("{name} {kind} #{}", attempt.number));
        if again && let Call::RecordActivityTaskHeartbeat(r) = &request.call {
            self.record.confuse_beats(&r.task_token);
        }
        self.transmit(Packet::Call { attempt, request });
        self.sched.after(wait + Duration::from_millis(200), Event::GiveUp(attempt));
    }

    /// The latest attempt of a call came to nothing.
    fn again(&mut self, number: usize) {
        let op = &mut self.record.ops[number];
        op.is_waiting = false;
        if op.attempts < op.attempts_max || self.is_calm {
            let wait = self.sched.rng.millis(10, 1_000);
            self.sched.after(wait, Event::Send(number));
        } else {
            self.finished(number);
        }
    }

    fn answer(&mut self, attempt: Attempt, result: Result<Box<Reply>, Error>) {
        if !self.record.is_waiting(attempt) {
            return;
        }
        let op = &mut self.record.ops[attempt.op];
        op.is_waiting = false;
        match result {
            Err(Error::Unavailable(_) | Error::ResourceExhausted { .. }) => self.again(attempt.op),
            Err(_) => self.finished(attempt.op),
            Ok(reply) => {
                if let Issuer::Worker(worker, life) = op.issuer
                    && self.workers.workers[worker].life == life
                {
                    let call = op.request.call.clone();
                    let Self { sched, record, setup, workers, is_calm, .. } = self;
                    let mut desk = Desk { sched, record, setup, is_calm: *is_calm };
                    workers.answered(&mut desk, worker, &call, &reply);
                }
                self.finished(attempt.op);
            }
        }
    }

    fn finished(&mut self, number: usize) {
        if let Issuer::Client(client) = self.record.ops[number].issuer {
            let wait = self.sched.rng.millis(1, self.setup.think_ms);
            self.sched.after(wait, Event::Client(client));
        }
    }

    fn client(&mut self, client: usize) {
        if self.is_calm {
            return;
        }
        let Self { sched, record, setup, .. } = self;
        let meddles = setup.meddles && sched.rng.chance(15);
        let kind = sched.rng.weighted(if meddles { MEDDLING } else { CALLS }, |k| k.weight);
        let workflow_id = if sched.rng.chance(10) {
            format!("child{}", sched.rng.below(3))
        } else {
            format!("workflow{}", sched.rng.below(setup.workflow_ids))
        };
        let known = record.known_runs.get(&workflow_id);
        let run_id = match known.and_then(|runs| sched.rng.pick(runs).cloned()) {
            Some(run) if sched.rng.chance(30) => run,
            _ => String::new(),
        };
        let run_id = if kind.name == "delete" && run_id.is_empty() {
            // Without a run the caller would not know what is gone.
            known.and_then(|runs| sched.rng.pick(runs).cloned()).unwrap_or_default()
        } else {
            run_id
        };
        let is_update =
            |op: &&Op| op.request.workflow_id == workflow_id && op.kind.name.starts_with("update");
        let updates: Vec<String> =
            record.ops.iter().filter(is_update).map(|op| op.name.clone()).collect();
        let update_id = sched.rng.pick(&updates).cloned().unwrap_or_default();
        match kind.name {
            "reset" => drop(record.reset_runs.insert(workflow_id.clone())),
            "unpause-activities" | "reset-activities" | "activity-options" => {
                record.reset_activities.insert(workflow_id.clone());
            }
            _ => {}
        }
        let wait = sched.rng.millis(1_000, 12_000);
        let attempts = 1 + sched.rng.below(8) as u32;
        let by = Issuer::Client(client);
        let op = new_op(record, kind, by, &workflow_id, wait, attempts, |name| {
            let workflow_id = &workflow_id;
            let mut draft = Draft { rng: &mut sched.rng, name, workflow_id, run_id, update_id };
            // Workers' calls have no weight.
            kind.make.map_or_else(|| Call::ResetStickyTaskQueue(Box::default()), |f| f(&mut draft))
        });
        self.send(op);
    }

    fn poll(&mut self, id: PollId) {
        let Some(poller) = self.workers.pollers.get(id.poller) else { return };
        if self.is_over || poller.number != id.number {
            return;
        }
        let name = self.workers.queue_of(poller);
        let queue = QueueKey { namespace: NAMESPACE, kind: poller.kind, name: name.clone() };
        let identity = self.workers.identity(poller.worker);
        let request_id = format!("poll{}.{}", id.poller, id.number);
        let poller = BrokerPoller { identity, request_id, queue: name, ..Default::default() };
        let wait = self.sched.rng.millis(5_000, 30_000);
        self.transmit(Packet::Poll { id, queue, poller, wait });
        self.sched.after(wait + Duration::from_secs(2), Event::PollGiveUp(id));
    }

    fn next_poll(&mut self, id: PollId, wait: Duration) {
        if let Some(poller) = self.workers.pollers.get_mut(id.poller) {
            poller.number = id.number + 1;
            let next = PollId { poller: id.poller, number: poller.number };
            self.sched.after(wait, Event::Poll(next));
        }
    }

    fn poll_give_up(&mut self, id: PollId) {
        let Some(poller) = self.workers.pollers.get(id.poller) else { return };
        if poller.number != id.number {
            return;
        }
        let (kind, name) = (poller.kind, self.workers.queue_of(poller));
        if self.sched.rng.chance(50) {
            let queue = QueueKey { namespace: NAMESPACE, kind, name };
            self.transmit(Packet::CancelPoll { id, queue });
        }
        self.next_poll(id, Duration::ZERO);
    }

    fn poll_answer(&mut self, id: PollId, task: Option<StartedTask>) {
        let Some(poller) = self.workers.pollers.get(id.poller) else { return };
        if poller.number != id.number {
            return;
        }
        let worker = poller.worker;
        let wait = self.sched.rng.millis(1, 100);
        self.next_poll(id, wait);
        if let Some(task) = task {
            let Self { sched, record, setup, workers, is_calm, .. } = self;
            let mut desk = Desk { sched, record, setup, is_calm: *is_calm };
            workers.take(&mut desk, worker, task);
        }
    }

    fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        let kind = self.sched.rng.weighted(FAULTS, |f| f.weight);
        self.sched.log(|| format!("fault: {}", kind.name));
        (kind.strike)(self);
        let wait = self.sched.rng.millis(10, self.setup.fault_every_ms);
        self.sched.after(wait, Event::Fault);
    }

    pub(crate) fn mend(&mut self) {
        self.machine.fs.set_capacity(None);
        self.machine.fs.fail_writes(None);
        self.machine.fs.fail_syncs(None);
        self.machine.store.mend();
        self.machine.is_broken = self.machine.dies_on_error;
    }

    fn report(mut self) -> Report {
        let mut violations = std::mem::take(&mut self.record.violations);
        violations.dedup();
        for what in &mut violations {
            *what = self.sched.trace.clean(what);
        }
        for what in &violations {
            self.sched.log(|| format!("violation: {what}"));
        }
        let ops = &self.record.ops;
        let runs: usize = self.record.known_runs.values().map(Vec::len).sum();
        let counts = Counts {
            runs: runs as u64,
            calls: ops.iter().filter(|op| op.attempts > 0).count() as u64,
            acknowledged: ops.iter().filter(|op| op.acknowledged().next().is_some()).count() as u64,
            crashes: self.machine.life,
            activities: self.record.attempts.len() as u64,
        };
        let digest = self.sched.trace.digest();
        let lines = self.sched.trace.take_lines();
        Report { seed: self.seed, violations, digest, lines, counts }
    }
}
