//! The brokers' shell: the pure queues of `everspan-broker`, on the simulated node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(crate) use everspan_broker::queue::Started;
use everspan_broker::{
    BACKLOG_PAGE, BacklogAsk, BacklogPage, QueueConfig,
    queue::{Action, Queue},
};
use everspan_types::{Offer, Poller, QueueKey, ShardId, Time};

use crate::{
    node::{Cx, Message, Post, StartTask},
    sched::{Addr, NodeEvent, PollId},
    shard::ShardMessage,
};

/// Most tasks a second of a queue: far above what a seed makes.
const QUEUE_RATE_MAX: f64 = 100_000.0;

#[derive(Debug)]
pub(crate) enum BrokerMessage {
    Offer(Offer),
    Poll {
        id: PollId,
        queue: QueueKey,
        poller: Poller,
        wait: Duration,
    },
    Cancel {
        id: PollId,
        queue: QueueKey,
    },
    Started {
        queue: QueueKey,
        match_id: u64,
        outcome: Started,
    },
    /// A shard leads anew.
    Refresh(ShardId),
    /// None if the shard could not read it.
    Backlog {
        queue: QueueKey,
        shard: ShardId,
        page: Option<BacklogPage>,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Broker {
    queues: BTreeMap<QueueKey, Queue>,
    polls: BTreeMap<u64, PollId>,
    next_poll: u64,
    timer: Option<(Time, u64)>,
    timers: u64,
}

impl Broker {
    pub(crate) fn handle(&mut self, post: &mut Post, cx: &mut Cx<'_>, message: BrokerMessage) {
        let now = cx.now();
        match message {
            BrokerMessage::Offer(offer) => {
                let key = offer.queue.clone();
                self.with(post, cx, &key, |queue| queue.offer(now, offer));
            }
            BrokerMessage::Poll { id, queue, poller, wait } => {
                self.next_poll += 1;
                let poll_id = self.next_poll;
                self.polls.insert(poll_id, id);
                self.with(post, cx, &queue, |q| q.poll(now, poll_id, poller, now + wait));
            }
            BrokerMessage::Cancel { id, queue } => {
                let found = self.polls.iter().find(|(_, poll)| **poll == id).map(|(n, _)| *n);
                if let Some(poll_id) = found {
                    self.polls.remove(&poll_id);
                    if let Some(queue) = self.queues.get_mut(&queue) {
                        queue.cancel(poll_id);
                    }
                }
            }
            BrokerMessage::Refresh(shard) => {
                let keys: Vec<QueueKey> = self.queues.keys().cloned().collect();
                for key in keys {
                    self.with(post, cx, &key, |queue| queue.refresh(now, shard));
                }
            }
            BrokerMessage::Started { queue, match_id, outcome } => {
                self.with(post, cx, &queue, |q| q.started(now, match_id, outcome));
            }
            BrokerMessage::Backlog { queue, shard, page } => {
                self.with(post, cx, &queue, |q| match page {
                    Some(page) => q.backlog(now, shard, page),
                    None => q.backlog_failed(now, shard),
                });
            }
        }
    }

    fn with(
        &mut self,
        post: &mut Post,
        cx: &mut Cx<'_>,
        key: &QueueKey,
        f: impl FnOnce(&mut Queue) -> Vec<Action>,
    ) {
        let now = cx.now();
        let shards: Vec<ShardId> = (1..=cx.setup.shards).map(ShardId).collect();
        let queue = self.queues.entry(key.clone()).or_insert_with(|| {
            let config = Arc::<QueueConfig>::default();
            Queue::new(now, &shards, config, QUEUE_RATE_MAX)
        });
        let actions = f(queue);
        let next = queue.next_tick();
        for action in actions {
            self.act(post, cx, key, action);
        }
        if let Some(at) = next {
            self.arm(cx, at);
        }
    }

    fn act(&mut self, post: &mut Post, cx: &mut Cx<'_>, key: &QueueKey, action: Action) {
        let queue = key.clone();
        let (shard, message) = match action {
            Action::Start { match_id, offer, poller } => {
                let shard = offer.shard;
                (shard, ShardMessage::StartTask(StartTask { offer, poller, queue, match_id }))
            }
            Action::Answer { poll_id, task, is_sync: _ } => {
                if let Some(id) = self.polls.remove(&poll_id) {
                    let now = cx.now();
                    cx.record.hand_out(cx.sched, now, id, task);
                }
                return;
            }
            Action::Read(read) => {
                let ask = BacklogAsk {
                    queue,
                    lanes: read.lanes,
                    survey: read.survey,
                    limit: BACKLOG_PAGE,
                    lane_limit: read.lane_limit,
                };
                (read.shard, ShardMessage::Backlog(ask))
            }
            Action::StickyUnavailable(offer) => {
                (offer.shard, ShardMessage::StickyUnavailable(offer))
            }
        };
        post.send(cx, Addr::Shard(shard.0), Message::Shard(message));
    }

    fn arm(&mut self, cx: &mut Cx<'_>, at: Time) {
        if self.timer.is_some_and(|(armed, _)| armed <= at) {
            return;
        }
        self.timers += 1;
        self.timer = Some((at, self.timers));
        let wait = at.since(cx.now()).max(Duration::from_micros(1));
        cx.after(wait, NodeEvent::BrokerTimer(self.timers));
    }

    pub(crate) fn timer(&mut self, post: &mut Post, cx: &mut Cx<'_>, armed: u64) {
        if self.timer.is_none_or(|(_, n)| n != armed) {
            return;
        }
        self.timer = None;
        let now = cx.now();
        let is_due = |q: &Queue| q.next_tick().is_some_and(|at| at <= now);
        let due: Vec<QueueKey> =
            self.queues.iter().filter(|(_, q)| is_due(q)).map(|(k, _)| k.clone()).collect();
        for key in due {
            self.with(post, cx, &key, |queue| queue.tick(now));
        }
        if let Some(at) = self.queues.values().filter_map(Queue::next_tick).min() {
            self.arm(cx, at.max(now + Duration::from_millis(1)));
        }
    }
}
