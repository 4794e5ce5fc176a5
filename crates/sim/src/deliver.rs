//! A shard's shell around messages between executions, as `everspan-shard` has it: deliveries
//! on their way out, and one at a time on their way in.

use std::{collections::VecDeque, time::Duration};

use everspan_execution::message::Message as Told;
use everspan_shard::{Delivery, Outbox, Outcome, Route, Shard};
use everspan_types::{Error, Result, ShardId};

use crate::{
    node::{Cx, Message, Post},
    run::RunMessage,
    sched::{Addr, NodeEvent},
    setup::Mutation,
    shard::{ShardMessage, ShardShell},
};

/// Wait before a delivery that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Whom to tell how a delivery ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    sender: ShardId,
    /// Its term when it sent.
    term: Option<u64>,
}

/// What a run made of the message at hand.
#[derive(Debug)]
pub(crate) enum Received {
    Taken { from: ShardId, sequence: u64 },
    Again,
    NotNow { from: ShardId, error: Error },
}

/// Deliveries that came in, in order; the first message of the first is at hand.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: VecDeque<Incoming>,
    is_busy: bool,
}

#[derive(Debug)]
struct Incoming {
    from: ShardId,
    messages: VecDeque<(u64, Told)>,
    last: u64,
    receipt: Receipt,
}

/// A delivery that ends when all before it is committed.
#[derive(Debug)]
pub(crate) struct Ended {
    receipt: Receipt,
    last: u64,
}

impl ShardShell {
    /// Sends what waits for a shard, unless a delivery is under way.
    pub(crate) fn pump(&mut self, post: &mut Post, cx: &mut Cx<'_>, to: ShardId) {
        if self.leads_in().is_none() {
            return;
        }
        let Ok(next) = self.outbox.next(&self.shard, to) else {
            return cx.after(RETRY, NodeEvent::Pump(self.shard.id.0, to));
        };
        let Some(delivery) = next else { return };
        let receipt = Receipt { sender: self.shard.id, term: self.leads_in() };
        let message = ShardMessage::Deliver { delivery, receipt };
        post.send(cx, Addr::Shard(to.0), Message::Shard(message));
    }

    /// Finds what an earlier life left to deliver.
    pub(crate) fn load_outbox(&mut self, post: &mut Post, cx: &mut Cx<'_>) -> Result<()> {
        self.shard.load_sent()?;
        self.outbox = Outbox::load(&self.shard)?;
        let lanes = self.outbox.lanes();
        if !cx.mutated(Mutation::ForgetMessages) {
            let message = ShardMessage::Pump(lanes);
            post.send(cx, Addr::Shard(self.shard.id.0), Message::Shard(message));
        }
        Ok(())
    }

    fn end(&self, post: &mut Post, cx: &mut Cx<'_>, receipt: Receipt, taken: Result<u64>) {
        let here = self.shard.id;
        cx.sched.log(|| match &taken {
            Ok(last) => format!("shard {here} has taken those of {} up to {last}", receipt.sender),
            Err(error) => format!("shard {here} cannot take those of {}: {error}", receipt.sender),
        });
        let message = ShardMessage::Delivered { to: self.shard.id, term: receipt.term, taken };
        post.send(cx, Addr::Shard(receipt.sender.0), Message::Shard(message));
    }

    pub(crate) fn ended(&self, post: &mut Post, cx: &mut Cx<'_>, ended: &Ended) {
        self.end(post, cx, ended.receipt, Ok(ended.last));
    }

    /// A delivery was taken by changes whose fate is not known.
    pub(crate) fn lost(&self, post: &mut Post, cx: &mut Cx<'_>, ended: &Ended) {
        if !cx.mutated(Mutation::ForgetReceipts) {
            let error = Error::unavailable("leadership of the shard was lost");
            self.end(post, cx, ended.receipt, Err(error));
        }
    }

    /// Takes a delivery in.
    pub(crate) fn deliver(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        delivery: Delivery,
        receipt: Receipt,
    ) {
        let (here, from) = (self.shard.id, delivery.from);
        cx.sched.log(|| {
            let what = delivery
                .messages
                .iter()
                .map(|(n, m)| format!(" {n}:{} to {}", m.name(), m.workflow_id));
            format!("shard {from} to shard {here}:{}", what.collect::<String>())
        });
        let taken = match self.refusal(post, cx) {
            Some(error) => Err(error),
            None => self.shard.taken(delivery.from),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => return self.end(post, cx, receipt, Err(error)),
        };
        let Delivery { from, messages } = delivery;
        let last = messages.last().map_or(taken, |(n, _)| (*n).max(taken));
        let messages = messages.into_iter().filter(|(n, _)| *n > taken).collect();
        self.inbox.waiting.push_back(Incoming { from, messages, last, receipt });
        self.next_message(post, cx);
    }

    /// Takes up the next message, if none is at hand.
    fn next_message(&mut self, post: &mut Post, cx: &mut Cx<'_>) {
        while !self.inbox.is_busy {
            let Some(first) = self.inbox.waiting.front_mut() else { return };
            if first.messages.is_empty() {
                let Some(Incoming { last, receipt, .. }) = self.inbox.waiting.pop_front() else {
                    return;
                };
                // The sender forgets them once they are on disk here.
                let ended = Ended { receipt, last };
                if let Some(ended) = self.pipeline.after_pending(ended) {
                    self.ended(post, cx, &ended);
                }
                continue;
            }
            self.take_up(post, cx);
        }
    }

    fn take_up(&mut self, post: &mut Post, cx: &mut Cx<'_>) {
        let Some(first) = self.inbox.waiting.front() else { return };
        let Some((sequence, message)) = first.messages.front() else { return };
        let (from, sequence, message) = (first.from, *sequence, message.clone());
        let is_taken = self.shard.is_taken(from, sequence);
        if let Ok(true) = is_taken {
            return self.taken(post, cx, from, sequence, None);
        }
        let route = is_taken.and_then(|_| self.shard.route_message(&message));
        let taken = match route {
            Ok(Some(Route::Run(run))) => {
                match self.load(run, message.namespace, &message.workflow_id) {
                    Ok(()) => {
                        self.inbox.is_busy = true;
                        let message = Box::new(message);
                        let message = RunMessage::Receive { from, sequence, message };
                        return self.send(post, cx, run, message);
                    }
                    Err(Error::NotFound(_)) => Ok(self.shard.receive_for_nobody(&message)),
                    Err(error) => Err(error),
                }
            }
            Ok(Some(Route::Start)) => {
                let (now, run_id) = (self.now(cx), self.fresh_run_id(cx));
                match self.shard.start_child(now, run_id, &message) {
                    Err(Error::InvalidArgument(_)) => Ok(self.shard.receive_for_nobody(&message)),
                    other => other,
                }
            }
            Ok(None) => Ok(self.shard.receive_for_nobody(&message)),
            Err(error) => Err(error),
        };
        match taken {
            Ok(outcome) => self.taken(post, cx, from, sequence, Some(outcome)),
            Err(error) => self.not_now(post, cx, from, error),
        }
    }

    /// The message at hand took effect, in `outcome` or one that was submitted.
    fn taken(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        from: ShardId,
        sequence: u64,
        outcome: Option<Outcome>,
    ) {
        if let Some(mut outcome) = outcome {
            Shard::take(from, sequence, &mut outcome.batch);
            self.submit(post, cx, outcome);
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
    fn not_now(&mut self, post: &mut Post, cx: &mut Cx<'_>, from: ShardId, error: Error) {
        self.inbox.is_busy = false;
        let is_first = self.inbox.waiting.front().is_some_and(|first| first.from == from);
        let first = is_first.then(|| self.inbox.waiting.pop_front()).flatten();
        if let Some(Incoming { receipt, .. }) = first {
            self.end(post, cx, receipt, Err(error));
        }
    }

    /// A run says what it made of the message at hand.
    pub(crate) fn received(&mut self, post: &mut Post, cx: &mut Cx<'_>, received: Received) {
        match received {
            Received::Taken { from, sequence } => self.taken(post, cx, from, sequence, None),
            Received::Again => self.inbox.is_busy = false,
            Received::NotNow { from, error } => self.not_now(post, cx, from, error),
        }
        self.next_message(post, cx);
    }

    /// A delivery to `to` ended.
    pub(crate) fn delivered(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        to: ShardId,
        term: Option<u64>,
        taken: Result<u64>,
    ) {
        if self.leads_in().is_none() || self.leads_in() != term {
            return;
        }
        let count = taken.as_ref().ok().copied();
        if let Ok(outcome) = self.outbox.delivered(&self.shard, to, count) {
            self.submit(post, cx, outcome);
        }
        match taken {
            Ok(_) => self.pump(post, cx, to),
            Err(_) => cx.after(RETRY, NodeEvent::Pump(self.shard.id.0, to)),
        }
    }

    /// Refuses what waits to be taken; its senders try again.
    pub(crate) fn refuse_deliveries(&mut self, post: &mut Post, cx: &mut Cx<'_>) {
        self.inbox.is_busy = false;
        for incoming in std::mem::take(&mut self.inbox.waiting) {
            let error = Error::unavailable("leadership of the shard was lost");
            self.end(post, cx, incoming.receipt, Err(error));
        }
    }
}
