//! A loaded run's shell, as the execution actor of `everspan-shard`: its mailbox, and the timer for
//! what waits in memory. Only its shard's [`ShardShell`] holds it.

use std::time::Duration;

use everspan_execution::message::Message as Told;
use everspan_shard::{
    CallId, Effect, Outcome, Run, Shard,
    call::{Call, Request},
    reset_base,
};
use everspan_types::{Error, ShardId, TaskRef, Time};

use crate::{
    deliver::Received,
    node::{Cx, Message, Post, TaskStart},
    sched::{Addr, NodeEvent},
    setup::Mutation,
    shard::{Caller, ShardMessage, ShardShell},
};

/// How often callers that went away are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) enum RunMessage {
    Call {
        id: CallId,
        request: Request,
    },
    Start {
        id: CallId,
        start: TaskStart,
    },
    StickyUnavailable(TaskRef),
    Wake,
    /// A reset of a later run changed the row of this one.
    Refresh,
    Receive {
        from: ShardId,
        sequence: u64,
        message: Box<Told>,
    },
    Passivate,
    Abandon,
}

/// A loaded run.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) run: Run,
    /// What the armed timer was armed for, and its number.
    pub(crate) soft: Option<(Time, u64)>,
    /// The term of the shard in which the run was loaded.
    pub(crate) term: Option<u64>,
}

impl ShardShell {
    /// A loaded run takes a message.
    pub(crate) fn run_turn(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        number: u64,
        message: RunMessage,
    ) {
        // Taken out, as an actor is not part of its shard.
        let Some(mut actor) = self.actors.remove(&number) else { return };
        match message {
            RunMessage::Abandon => return,
            RunMessage::Passivate => {
                let is_busy = post.pending(Addr::Run(self.id, number)) > 0;
                if !is_busy && actor.run.is_idle() {
                    self.runs.remove(&actor.run.id());
                    return;
                }
            }
            message => {
                let outcome = if self.is_stale(cx, &actor) {
                    None
                } else if actor.run.is_deleted() {
                    self.refuse(post, cx, message);
                    None
                } else {
                    self.run_message(post, cx, &mut actor.run, message)
                };
                if let Some(outcome) = outcome {
                    self.submit(post, cx, outcome);
                }
                self.arm(cx, number, &mut actor);
                if self.leaves_deleted(post, number, &actor) {
                    return;
                }
            }
        }
        self.actors.insert(number, actor);
    }

    /// What was sent before the run was deleted is for its shard to look at again.
    fn refuse(&mut self, post: &mut Post, cx: &mut Cx<'_>, message: RunMessage) {
        match message {
            RunMessage::Call { id, request } => {
                post.send(cx, self.me(), Message::Shard(ShardMessage::Again { id, request }));
            }
            RunMessage::Start { id, .. } => {
                let stale = Error::not_found("Workflow task not found.");
                let effects = vec![Effect::Task(id, Err(stale))];
                self.submit(post, cx, Outcome { effects, ..Outcome::default() });
            }
            RunMessage::Receive { .. } => {
                let again = ShardMessage::Received(Received::Again);
                post.send(cx, self.me(), Message::Shard(again));
            }
            _ => {}
        }
    }

    /// Whether the run is deleted and nothing sent to it is left.
    fn leaves_deleted(&mut self, post: &Post, number: u64, actor: &Actor) -> bool {
        if !actor.run.is_deleted() {
            return false;
        }
        let id = actor.run.id();
        if self.runs.get(&id).is_some_and(|(n, _)| *n == number) {
            self.runs.remove(&id);
        }
        post.pending(Addr::Run(self.id, number)) == 0
    }

    fn run_message(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        run: &mut Run,
        message: RunMessage,
    ) -> Option<Outcome> {
        let mut now = self.now(cx);
        Some(match message {
            RunMessage::Call { id, request } => {
                let Request { namespace, workflow_id, mut call, deadline } = request;
                if cx.mutated(Mutation::ForgetDedupe)
                    && let Call::SignalWorkflowExecution(r) = &mut call
                {
                    r.request_id.clear();
                }
                if run.is_replaced_by(&call) {
                    let new_run = self.fresh_run_id(cx);
                    return Some(
                        match run.replace(&mut self.shard, now, id, new_run, &call, deadline) {
                            Ok((new, outcome)) => {
                                self.submit(post, cx, outcome);
                                self.spawn(new);
                                Outcome::default()
                            }
                            Err(error) => Outcome::refuse(id, error),
                        },
                    );
                }
                if run.is_overtaken(&self.shard, &call) {
                    // It closed since the call was sent here: the shard is to look again.
                    let request = Request { namespace, workflow_id, call, deadline };
                    let again = ShardMessage::Again { id, request };
                    post.send(cx, self.me(), Message::Shard(again));
                    return None;
                }
                let base = reset_base(&call).filter(|base| *base != run.id());
                let outcome = run.handle(&mut self.shard, now, id, call, deadline);
                if let Some(base) = base {
                    // Its row changed behind its back. By the time it looks, this is staged.
                    self.send(post, cx, base, RunMessage::Refresh);
                }
                outcome
            }
            RunMessage::Refresh => {
                run.refresh(&self.shard);
                return None;
            }
            RunMessage::Receive { from, sequence, message } => {
                return self.receive(post, cx, run, from, sequence, &message);
            }
            RunMessage::Start { id, start } => {
                run.start_task(&mut self.shard, now, id, &start.task, &start.poller)
            }
            RunMessage::StickyUnavailable(task) => {
                run.sticky_unavailable(&mut self.shard, now, &task)
            }
            RunMessage::Wake => {
                if cx.mutated(Mutation::EarlyTimers) {
                    now = now + Duration::from_millis(500);
                }
                run.wake(&mut self.shard, now)
            }
            RunMessage::Passivate | RunMessage::Abandon => return None,
        })
    }

    fn receive(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        run: &mut Run,
        from: ShardId,
        sequence: u64,
        message: &Told,
    ) -> Option<Outcome> {
        let now = self.now(cx);
        let is_taken = self.shard.is_taken(from, sequence);
        let (received, outcome) = if let Ok(true) = is_taken {
            (Received::Taken { from, sequence }, None)
        } else if message.run_id.is_none() && run.is_replaced(&self.shard) {
            (Received::Again, None)
        } else {
            match is_taken.and_then(|_| run.receive(&mut self.shard, now, message)) {
                Ok(mut outcome) => {
                    Shard::take(from, sequence, &mut outcome.batch);
                    (Received::Taken { from, sequence }, Some(outcome))
                }
                Err(error) => (Received::NotNow { from, error }, None),
            }
        };
        post.send(cx, self.me(), Message::Shard(ShardMessage::Received(received)));
        outcome
    }

    /// Arms the timer for what waits in memory.
    fn arm(&mut self, cx: &mut Cx<'_>, number: u64, actor: &mut Actor) {
        if actor.run.is_idle() {
            actor.soft = None;
            return;
        }
        let now = self.now(cx);
        let prune = now + PRUNE_EVERY;
        let at = actor.run.soft_deadline().map_or(prune, |d| d.min(prune));
        if actor.soft.is_some_and(|(armed, _)| armed <= at) {
            return;
        }
        self.soft_timers += 1;
        actor.soft = Some((at, self.soft_timers));
        let wait = at.since(now).max(Duration::from_micros(1));
        cx.after(wait, NodeEvent::RunTimer(self.id, number, self.soft_timers));
    }

    /// A loaded run's timer, as armed the `armed`-th time, is over.
    pub(crate) fn run_timer(&mut self, post: &mut Post, cx: &mut Cx<'_>, number: u64, armed: u64) {
        let Some(mut actor) = self.actors.remove(&number) else { return };
        if actor.soft.is_some_and(|(_, n)| n == armed) {
            actor.soft = None;
            let is_gone = |id: &CallId| match self.callers.get(id) {
                None => true,
                Some(Caller::Reply(attempt)) => !cx.record.is_waiting(*attempt),
                Some(Caller::Task { .. }) => false,
            };
            let gone: Vec<CallId> = actor.run.waiting().into_iter().filter(is_gone).collect();
            actor.run.forget(|id| gone.contains(&id));
            for id in &gone {
                self.callers.remove(id);
            }
            if !self.is_stale(cx, &actor)
                && !actor.run.is_deleted()
                && let Some(outcome) = self.run_message(post, cx, &mut actor.run, RunMessage::Wake)
            {
                self.submit(post, cx, outcome);
            }
            self.arm(cx, number, &mut actor);
            if self.leaves_deleted(post, number, &actor) {
                return;
            }
        }
        self.actors.insert(number, actor);
    }
}
