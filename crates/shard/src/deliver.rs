//! The shell around messages between executions: deliveries on their way out, and one at a
//! time on their way in. What they do is in [`crate::outbox`] and [`crate::receive`].

use std::{collections::VecDeque, time::Duration};

use actix::{AsyncContext, Context, Handler};
use everspan_types::{Error, Result, ShardId};
use tracing::{error, warn};

use crate::{
    actor::ShardActor,
    core::{Core, fresh_run_id, submit},
    execution_actor::Message,
    outbox::Delivery,
    outcome::Outcome,
    shard::{Route, Shard},
};

/// Wait before a delivery that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Messages for these shards are committed.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Pump(pub(crate) Vec<ShardId>);

/// A delivery to `to` ended; `taken` is the last message that took effect.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Delivered {
    pub(crate) to: ShardId,
    /// The sender's term then: of an earlier one nothing is known any more.
    pub(crate) term: Option<u64>,
    pub(crate) taken: Result<u64>,
}

/// What a run made of the message at hand.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) enum Received {
    /// It is part of a change that is on its way to the log.
    Taken { from: ShardId, sequence: u64 },
    /// Another run has come after that one.
    Again,
    /// It cannot be taken now.
    NotNow { from: ShardId, error: Error },
}

/// Takes the outcome of a delivery.
pub(crate) type DeliveryDone = Box<dyn FnOnce(Result<u64>) + Send>;

/// Deliveries that came in, in order; the first message of the first is at hand.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: VecDeque<Incoming>,
    is_busy: bool,
}

struct Incoming {
    from: ShardId,
    messages: VecDeque<(u64, everspan_execution::message::Message)>,
    last: u64,
    done: DeliveryDone,
}

impl Inbox {
    /// Refuses everything; senders try again.
    pub(crate) fn refuse(&mut self, reason: &str) {
        self.is_busy = false;
        for incoming in self.waiting.drain(..) {
            (incoming.done)(Err(Error::unavailable(reason)));
        }
    }
}

impl ShardActor {
    /// Sends what waits for a shard, unless a delivery is under way.
    fn pump(&mut self, to: ShardId, ctx: &mut Context<Self>) {
        let next = {
            let core = &mut *self.shared.borrow_mut();
            let Core { outbox, shard, is_leading, .. } = core;
            if !*is_leading {
                return;
            }
            outbox.next(shard, to)
        };
        let delivery = match next {
            Ok(None) => return,
            Ok(Some(delivery)) => delivery,
            Err(error) => {
                error!(shard = %self.shared.borrow().shard.id, %error, "messages cannot be read");
                ctx.run_later(RETRY, move |actor, ctx| actor.pump(to, ctx));
                return;
            }
        };
        let own = ctx.address();
        let term = self.shared.borrow().term();
        let done: DeliveryDone = Box::new(move |taken| own.do_send(Delivered { to, term, taken }));
        self.peers.deliver(to, delivery, done);
    }

    pub(crate) fn load_outbox(&mut self, ctx: &mut Context<Self>) -> Result<()> {
        let lanes = {
            let core = &mut *self.shared.borrow_mut();
            core.shard.load_sent()?;
            core.outbox = crate::outbox::Outbox::load(&core.shard)?;
            core.outbox.lanes()
        };
        for to in lanes {
            ctx.notify(Pump(vec![to]));
        }
        Ok(())
    }

    /// Takes a delivery in.
    pub(crate) fn deliver(&mut self, delivery: Delivery, done: DeliveryDone) {
        if let Some(error) = self.shared.borrow().refusal() {
            done(Err(error));
            return;
        }
        let Delivery { from, messages } = delivery;
        let taken = match self.shared.borrow().shard.taken(from) {
            Ok(taken) => taken,
            Err(error) => {
                done(Err(error));
                return;
            }
        };
        let last = messages.last().map_or(taken, |(n, _)| (*n).max(taken));
        let messages = messages.into_iter().filter(|(n, _)| *n > taken).collect();
        self.inbox.waiting.push_back(Incoming { from, messages, last, done });
        self.next_message();
    }

    /// Takes up the next message, if none is at hand.
    fn next_message(&mut self) {
        while !self.inbox.is_busy {
            let Some(first) = self.inbox.waiting.front_mut() else { return };
            if first.messages.is_empty() {
                let Some(Incoming { last, done, .. }) = self.inbox.waiting.pop_front() else {
                    return;
                };
                // The sender forgets them once they are on disk here; if that is never known,
                // it sends them again.
                let done = Box::new(move |read: Result<()>| done(read.map(|()| last)));
                self.shared.borrow_mut().after_pending(done);
                continue;
            }
            self.take_up();
        }
    }

    fn take_up(&mut self) {
        let Some(first) = self.inbox.waiting.front() else { return };
        let Some((sequence, message)) = first.messages.front() else { return };
        let (from, sequence, message) = (first.from, *sequence, message.clone());
        // It may have come twice, and both waited.
        let is_taken = self.shared.borrow().shard.is_taken(from, sequence);
        if let Ok(true) = is_taken {
            return self.taken(from, sequence, None);
        }
        let route = is_taken.and_then(|_| self.shared.borrow().shard.route_message(&message));
        let taken = match route {
            Ok(Some(Route::Run(run))) => {
                match self.load(run, message.namespace, &message.workflow_id) {
                    Ok(()) => {
                        self.inbox.is_busy = true;
                        let message = Box::new(message);
                        let message = Message::Receive { from, sequence, message };
                        self.shared.borrow_mut().send(run, message);
                        return;
                    }
                    Err(Error::NotFound(_)) => {
                        Ok(self.shared.borrow_mut().shard.receive_for_nobody(&message))
                    }
                    Err(error) => Err(error),
                }
            }
            Ok(Some(Route::Start)) => {
                let core = &mut *self.shared.borrow_mut();
                let now = core.now();
                match core.shard.start_child(now, fresh_run_id(), &message) {
                    // The parent's shard checked it; what still does not fit never will.
                    Err(Error::InvalidArgument(reason)) => {
                        warn!(shard = %core.shard.id, workflow_id = message.workflow_id, reason,
                            "a child cannot be started");
                        Ok(core.shard.receive_for_nobody(&message))
                    }
                    other => other,
                }
            }
            Ok(None) => Ok(self.shared.borrow_mut().shard.receive_for_nobody(&message)),
            Err(error) => Err(error),
        };
        match taken {
            Ok(outcome) => self.taken(from, sequence, Some(outcome)),
            Err(error) => self.not_now(from, error),
        }
    }

    /// The message at hand took effect, in `outcome` or one that was submitted.
    fn taken(&mut self, from: ShardId, sequence: u64, outcome: Option<Outcome>) {
        if let Some(mut outcome) = outcome {
            Shard::take(from, sequence, &mut outcome.batch);
            submit(&self.shared, outcome);
        }
        if let Some(first) = self.inbox.waiting.front_mut()
            && first.from == from
            && first.messages.front().is_some_and(|(n, _)| *n == sequence)
        {
            first.messages.pop_front();
            self.inbox.is_busy = false;
        }
    }

    /// The message at hand cannot be taken: its sender is to try again from it on.
    fn not_now(&mut self, from: ShardId, error: Error) {
        self.inbox.is_busy = false;
        let is_first = self.inbox.waiting.front().is_some_and(|first| first.from == from);
        if let Some(Incoming { done, messages, .. }) =
            is_first.then(|| self.inbox.waiting.pop_front()).flatten()
        {
            // One that is about to close, or a disk that is full, is waited for; damage is not
            // over by itself, and all messages of that shard wait behind it.
            if let (Error::Internal(_), Some((_, message))) = (&error, messages.front()) {
                error!(shard = %self.shared.borrow().shard.id, %from, %error,
                    workflow_id = message.workflow_id, "a message cannot be taken; it waits");
            }
            done(Err(error));
        }
    }
}

impl Handler<Pump> for ShardActor {
    type Result = ();
    fn handle(&mut self, pump: Pump, ctx: &mut Self::Context) {
        for to in pump.0 {
            self.pump(to, ctx);
        }
    }
}

impl Handler<Delivered> for ShardActor {
    type Result = ();
    fn handle(&mut self, delivered: Delivered, ctx: &mut Self::Context) {
        let Delivered { to, term, taken } = delivered;
        let forgotten = {
            let core = &mut *self.shared.borrow_mut();
            if !core.is_leading || core.term() != term {
                return;
            }
            core.outbox.delivered(&core.shard, to, taken.as_ref().ok().copied())
        };
        match forgotten {
            Ok(outcome) => submit(&self.shared, outcome),
            Err(error) => {
                error!(shard = %self.shared.borrow().shard.id, %error, "messages cannot be read");
            }
        }
        match taken {
            Ok(_) => self.pump(to, ctx),
            Err(_) => {
                ctx.run_later(RETRY, move |actor, ctx| actor.pump(to, ctx));
            }
        }
    }
}

impl Handler<Received> for ShardActor {
    type Result = ();
    fn handle(&mut self, received: Received, _: &mut Self::Context) {
        match received {
            Received::Taken { from, sequence } => self.taken(from, sequence, None),
            Received::Again => self.inbox.is_busy = false,
            Received::NotNow { from, error } => self.not_now(from, error),
        }
        self.next_message();
    }
}
