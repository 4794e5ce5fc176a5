//! The actor of one loaded run: its mailbox, and the timer for what waits in memory.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, SpawnHandle};
use everspan_execution as execution;
use everspan_types::{Error, Poller, ShardId, TaskRef, Time};

use crate::{
    actor::Again,
    call::{Call, Request},
    core::{Core, Shared, fresh_run_id, spawn, submit},
    deliver::Received,
    metrics,
    outcome::{CallId, Effect, Outcome},
    reset::reset_base,
    run::Run,
    shard::Shard,
};

/// How often callers that went away are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(10);

/// What comes for a run.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) enum Message {
    Call {
        id: CallId,
        request: Request,
    },
    Start {
        id: CallId,
        task: TaskRef,
        poller: Poller,
    },
    StickyUnavailable(TaskRef),
    Wake,
    /// Brokers came or went.
    OfferSoft,
    /// A reset of a later run changed the row of this one.
    Refresh,
    /// A message from another execution, and its place among those of its sender.
    Receive {
        from: ShardId,
        sequence: u64,
        message: Box<execution::message::Message>,
    },
}

/// Asks the actor to leave memory if nothing needs it.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Passivate;

/// Ends the actor: its state is not to be trusted any more.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Abandon;

pub(crate) struct ExecutionActor {
    shared: Shared,
    run: Run,
    pending: Rc<Cell<usize>>,
    soft: Option<(Time, SpawnHandle)>,
    /// The term of the shard in which the run was loaded. In any other its state may rest on
    /// changes that were never committed.
    term: Option<u64>,
}

impl ExecutionActor {
    pub(crate) fn spawn(
        shared: Shared,
        term: Option<u64>,
        run: Run,
        pending: Rc<Cell<usize>>,
    ) -> actix::Addr<Self> {
        Self { shared, run, pending, soft: None, term }.start()
    }

    fn handle_message(&mut self, message: Message) -> Option<Outcome> {
        let shared = self.shared.clone();
        let core = &mut *shared.borrow_mut();
        if self.term.is_none() || core.term() != self.term {
            // Leadership was lost since the message was sent, and its caller was told.
            return None;
        }
        if self.run.is_deleted() {
            self.refuse(core, message);
            return None;
        }
        let now = core.now();
        let (run, shard) = (&mut self.run, &mut core.shard);
        Some(match message {
            Message::Call { id, request } => {
                let Request { namespace, workflow_id, call, deadline } = request;
                if run.is_replaced_by(&call) {
                    return Some(self.replace(core, now, id, &call, deadline));
                }
                if run.is_overtaken(shard, &call) {
                    // It closed since the call was sent here: the shard is to look again.
                    let request = Request { namespace, workflow_id, call, deadline };
                    if let Some(addr) = &core.addr {
                        addr.do_send(Again { id, request });
                    }
                    return None;
                }
                let base = reset_base(&call);
                let outcome = run.handle(shard, now, id, call, deadline);
                if let Some(base) = base.filter(|base| *base != run.id()) {
                    // Its row changed behind its back. By the time it looks, this is staged.
                    core.send(base, Message::Refresh);
                }
                outcome
            }
            Message::Start { id, task, poller } => run.start_task(shard, now, id, &task, &poller),
            Message::StickyUnavailable(task) => run.sticky_unavailable(shard, now, &task),
            Message::Wake => run.wake(shard, now),
            Message::OfferSoft => run.offer_soft(shard),
            Message::Refresh => {
                run.refresh(shard);
                return None;
            }
            Message::Receive { from, sequence, message } => {
                return self.receive(core, now, from, sequence, &message);
            }
        })
    }

    /// What was sent before the run was deleted is for its shard to look at again.
    fn refuse(&self, core: &mut Core, message: Message) {
        let Some(addr) = core.addr.clone() else { return };
        match message {
            Message::Call { id, request } => addr.do_send(Again { id, request }),
            Message::Start { id, .. } => {
                let stale = Error::not_found("Workflow task not found.");
                let effects = vec![Effect::Task(id, Err(stale))];
                core.submit(Outcome { effects, ..Outcome::default() });
            }
            Message::Receive { .. } => addr.do_send(Received::Again),
            Message::StickyUnavailable(_)
            | Message::Wake
            | Message::OfferSoft
            | Message::Refresh => {}
        }
    }

    /// Leaves once the run is deleted and nothing sent to it is left.
    fn leave_if_deleted(&mut self, ctx: &mut Context<Self>) {
        if !self.run.is_deleted() {
            return;
        }
        let core = &mut *self.shared.borrow_mut();
        let id = self.run.id();
        if core.runs.get(&id).is_some_and(|slot| slot.addr == ctx.address()) {
            core.runs.remove(&id);
        }
        if self.pending.get() == 0 {
            ctx.stop();
        }
    }

    fn receive(
        &mut self,
        core: &mut crate::core::Core,
        now: Time,
        from: ShardId,
        sequence: u64,
        message: &execution::message::Message,
    ) -> Option<Outcome> {
        let shard = &mut core.shard;
        let is_for_latest = message.run_id.is_none();
        // A delivery whose sender lost its leadership meanwhile comes twice, and both may wait.
        let is_taken = shard.is_taken(from, sequence);
        let received = if let Ok(true) = is_taken {
            Received::Taken { from, sequence }
        } else if is_for_latest && self.run.is_replaced(shard) {
            Received::Again
        } else {
            match is_taken.and_then(|_| self.run.receive(shard, now, message)) {
                Ok(mut outcome) => {
                    Shard::take(from, sequence, &mut outcome.batch);
                    if let Some(addr) = &core.addr {
                        addr.do_send(Received::Taken { from, sequence });
                    }
                    return Some(outcome);
                }
                Err(error) => Received::NotNow { from, error },
            }
        };
        if let Some(addr) = &core.addr {
            addr.do_send(received);
        }
        None
    }

    fn replace(
        &mut self,
        core: &mut crate::core::Core,
        now: Time,
        id: CallId,
        call: &Call,
        deadline: Time,
    ) -> Outcome {
        match self.run.replace(&mut core.shard, now, id, fresh_run_id(), call, deadline) {
            Ok((new, outcome)) => {
                core.submit(outcome);
                spawn(core, &self.shared, new);
                Outcome::default()
            }
            Err(error) => Outcome::refuse(id, error),
        }
    }

    /// Arms the timer for what waits in memory.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if self.run.is_idle() {
            if let Some((_, handle)) = self.soft.take() {
                ctx.cancel_future(handle);
            }
            return;
        }
        let now = self.shared.borrow_mut().now();
        let prune = now + PRUNE_EVERY;
        let at = self.run.soft_deadline().map_or(prune, |d| d.min(prune));
        if self.soft.as_ref().is_some_and(|(armed, _)| *armed <= at) {
            return;
        }
        if let Some((_, handle)) = self.soft.take() {
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(at.since(now), |actor, ctx| {
            actor.soft = None;
            actor.prune();
            let outcome = actor.handle_message(Message::Wake);
            actor.submit(outcome);
            actor.arm(ctx);
            actor.leave_if_deleted(ctx);
        });
        self.soft = Some((at, handle));
    }

    fn prune(&mut self) {
        let mut core = self.shared.borrow_mut();
        let gone: Vec<CallId> =
            self.run.waiting().into_iter().filter(|id| core.is_gone(*id)).collect();
        if !gone.is_empty() {
            self.run.forget(|id| gone.contains(&id));
            core.drop_callers(&gone);
        }
    }

    fn submit(&mut self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            submit(&self.shared, outcome);
        }
    }
}

impl Actor for ExecutionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The start that made the run may wait on it.
        self.arm(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        metrics::add(&metrics::EXECUTION_ACTORS, -1);
    }
}

impl Handler<Message> for ExecutionActor {
    type Result = ();

    fn handle(&mut self, message: Message, ctx: &mut Self::Context) {
        self.pending.set(self.pending.get().saturating_sub(1));
        if matches!(message, Message::Start { .. }) && !self.run.is_idle() {
            // No worker is to be asked for somebody who has gone.
            self.prune();
        }
        let outcome = self.handle_message(message);
        self.submit(outcome);
        self.arm(ctx);
        self.leave_if_deleted(ctx);
    }
}

impl Handler<Passivate> for ExecutionActor {
    type Result = ();

    fn handle(&mut self, _: Passivate, ctx: &mut Self::Context) {
        if self.pending.get() > 0 || !self.run.is_idle() {
            return;
        }
        self.shared.borrow_mut().runs.remove(&self.run.id());
        ctx.stop();
    }
}

impl Handler<Abandon> for ExecutionActor {
    type Result = ();

    fn handle(&mut self, _: Abandon, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
