//! The pure matcher of one task queue.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use everspan_proto::{enums::RateLimitSource, taskqueue::PollerScalingDecision};
use everspan_types::{
    Offer, PRIORITY_LAST, Poller, Priority, RunId, ShardId, StartedTask, TaskRef, Time, wire,
};
use serde::{Deserialize, Serialize};

use crate::{
    backlog::{BacklogPage, Place, Read},
    config::{Limits, QueueConfig},
    pollers::{POLLER_MEMORY, PollerInfo, Pollers},
    rate::{Limit, Limiter, Rate},
    unread::Unread,
    waiting::{Held, Next, Waiting},
};

/// Tasks kept in memory; further ones stay with their shards until there is room.
pub const OFFERS_MAX: usize = 10_000;
/// Below so many tasks in memory there is room for more of the same priority.
const READ_BELOW: usize = OFFERS_MAX / 4 * 3;
/// Tasks put out of memory at a time for better ones.
const EVICT: usize = 100;
/// A sticky queue that nobody polled for this long gives its tasks back; the real server's.
pub const STICKY_WINDOW: Duration = Duration::from_secs(10);
/// How long a shard that could not answer is left alone.
const SHARD_RETRY: Duration = Duration::from_millis(500);
/// A poll that waited so long for its task is one too many; the real server's.
const SCALE_DOWN_WAIT: Duration = Duration::from_secs(1);
/// A task that waits so long wants one more poll; the real server's.
const SCALE_UP_AGE: Duration = Duration::from_millis(200);
/// Tasks added for each one handed out from which one more poll is wanted; the real server's.
const SCALE_UP_RATIO: f64 = 1.2;
/// Suggestions a second to each poller; the real server's.
const SCALE_RATE: f64 = 10.0;

/// What the queue asks of its shell.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Ask the offer's shard to record the task as started by this poller.
    Start {
        /// Comes back in [`Queue::started`].
        match_id: u64,
        /// The task.
        offer: Offer,
        /// Who gets it.
        poller: Poller,
    },
    /// Answer a poll: a task, or nothing.
    Answer {
        /// The poll.
        poll_id: u64,
        /// Its answer.
        task: Option<StartedTask>,
        /// Whether the task met the poll when it was offered, without waiting.
        is_sync: bool,
    },
    /// Ask a shard for tasks that wait.
    Read(Read),
    /// Give a sticky task back to its shard.
    StickyUnavailable(Offer),
}

/// What came of a start.
#[derive(Debug, PartialEq)]
pub enum Started {
    /// The task, for the worker.
    Task(StartedTask),
    /// The offer does not stand any more.
    Stale,
    /// The shard could not say; the task stays with it, or with the queue if it has no row there.
    Unavailable,
}

/// What a queue says of itself; of its backlog it knows only what is in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Pollers of the last five minutes, latest first.
    pub pollers: Vec<PollerInfo>,
    /// Tasks a second added and handed out, over the last 30 s, by priority key: index 0 is
    /// priority 1. `None` for priorities that never had one.
    pub rates: [Option<(f64, f64)>; PRIORITY_LAST as usize],
    /// Whether the rate limit held tasks back in the last 30 s.
    pub is_rate_limited: bool,
    /// The rate limit in force, in tasks a second.
    pub rate_limit: f64,
    /// Who set it.
    #[serde(with = "wire::enumeration")]
    pub rate_limit_source: RateLimitSource,
}

type Key = (RunId, TaskRef);

/// A start under way.
#[derive(Debug)]
struct Starting {
    poll_id: u64,
    task: Key,
    shard: ShardId,
    priority: Priority,
    weight: u32,
    is_sync: bool,
    /// The offer, where no row of the shard's backlog stands for it: a query, say.
    rowless: Option<Offer>,
}

/// Measured rates of one priority.
#[derive(Debug)]
struct Rates {
    added: Rate,
    dispatched: Rate,
}

/// One task queue.
#[derive(Debug)]
pub struct Queue {
    waiting: Waiting,
    /// Tasks in memory, and those being started.
    known: HashSet<Key>,
    unread: Unread,
    /// Offers without a row whose shard could not be asked, and when they wait again.
    later: Vec<(Time, Offer)>,
    pollers: Pollers,
    starting: HashMap<u64, Starting>,
    next_match: u64,
    limits: Limits,
    /// When a task that the rate limit holds back may go.
    limited_until: Option<Time>,
    rates: [Option<Rates>; PRIORITY_LAST as usize],
    limited: Rate,
    suggestions: Limiter,
}

impl Queue {
    /// A queue nobody used before: any shard may hold tasks for it. `rate_max` is the
    /// system's bound on tasks a second.
    #[must_use]
    pub fn new(now: Time, shards: &[ShardId], config: Arc<QueueConfig>, rate_max: f64) -> Self {
        Self {
            waiting: Waiting::default(),
            known: HashSet::new(),
            unread: Unread::everything(shards),
            later: Vec::new(),
            pollers: Pollers::default(),
            starting: HashMap::new(),
            next_match: 0,
            limits: Limits::new(config, rate_max),
            limited_until: None,
            rates: [const { None }; PRIORITY_LAST as usize],
            limited: Rate::new(now),
            suggestions: Limiter::default(),
        }
    }

    /// The queue's configuration changed.
    pub fn configure(&mut self, now: Time, config: Arc<QueueConfig>) -> Vec<Action> {
        self.limits.configure(config, now);
        self.work(now)
    }

    fn rates(&mut self, now: Time, priority: u8) -> &mut Rates {
        let index = usize::from(priority.clamp(1, PRIORITY_LAST)) - 1;
        self.rates[index]
            .get_or_insert_with(|| Rates { added: Rate::new(now), dispatched: Rate::new(now) })
    }

    /// A shard offers a task.
    pub fn offer(&mut self, now: Time, offer: Offer) -> Vec<Action> {
        self.rates(now, offer.priority.key).added.count(now);
        let key = (offer.run_id, offer.task.clone());
        self.take_in(now, offer);
        let actions = self.work(now);
        for action in &actions {
            if let Action::Start { match_id, offer, .. } = action
                && (offer.run_id, &offer.task) == (key.0, &key.1)
                && let Some(start) = self.starting.get_mut(match_id)
            {
                start.is_sync = true;
            }
        }
        actions
    }

    /// Keeps a task in memory, if it is among the best.
    fn take_in(&mut self, now: Time, offer: Offer) {
        let place = Place::of(&offer);
        let has_row = place.sequence > 0;
        if has_row && !offer.sticky && self.unread.covers(offer.shard, &place) {
            return;
        }
        if !self.known.insert((offer.run_id, offer.task.clone())) {
            return;
        }
        if self.waiting.count() >= OFFERS_MAX && !self.make_room(&offer, &place) {
            self.known.remove(&(offer.run_id, offer.task.clone()));
            if has_row {
                let here = self.waiting.in_lane(place.lane);
                self.unread.lane_goes_on(offer.shard, place, here);
            }
            return;
        }
        if let Some(old) = self.waiting.insert(Held { offer, since: now }) {
            self.known.remove(&(old.offer.run_id, old.offer.task));
        }
        self.unread.lane_holds(place.lane, self.waiting.in_lane(place.lane));
    }

    /// Puts tasks out of memory for a better one: of a later priority, of a key that has more
    /// than its part, or later ones of the same key.
    fn make_room(&mut self, offer: &Offer, place: &Place) -> bool {
        let Some((priority, key, count)) = self.waiting.longest_of_last() else { return false };
        let own_key = &*offer.priority.fairness_key;
        let own = self.waiting.of_key(offer.priority.key, own_key);
        let is_better = match offer.priority.key.cmp(&priority) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal if *key == *own_key => {
                self.waiting.last_of(priority, &key).is_some_and(|last| *place < last)
            }
            std::cmp::Ordering::Equal => own < count / 2,
            std::cmp::Ordering::Greater => false,
        };
        if !is_better {
            return false;
        }
        let evicted = self.waiting.take_last(priority, &key, EVICT.min(count / 2 + 1));
        let has_room = !evicted.is_empty();
        for old in evicted {
            let place = Place::of(&old);
            let here = self.waiting.in_lane(place.lane);
            self.unread.lane_goes_on(old.shard, place, here);
            self.known.remove(&(old.run_id, old.task));
        }
        has_room
    }

    /// A worker polls and waits until `deadline`.
    pub fn poll(&mut self, now: Time, poll_id: u64, poller: Poller, deadline: Time) -> Vec<Action> {
        self.limits.polled(poller.tasks_per_second_max, now);
        if !self.pollers.add(now, poll_id, poller, deadline) {
            return vec![Action::Answer { poll_id, task: None, is_sync: false }];
        }
        self.work(now)
    }

    /// A poll's caller went away.
    pub fn cancel(&mut self, poll_id: u64) {
        self.pollers.remove(poll_id);
    }

    /// Answers waiting polls empty.
    pub fn release(&mut self, is_meant: impl Fn(&Poller) -> bool) -> Vec<Action> {
        empty(self.pollers.release(is_meant))
    }

    /// A worker shuts down: its polls are answered empty, and it counts as a poller no more.
    pub fn shut_down(&mut self, worker_instance_key: &str, identity: &str) -> Vec<Action> {
        self.pollers.forget(identity);
        self.release(|p| p.worker_instance_key == worker_instance_key)
    }

    /// The worker of a sticky queue shuts down: nobody will take its tasks.
    pub fn abandon(&mut self, now: Time) -> Vec<Action> {
        let mut actions = self.release(|_| true);
        self.pollers.last_poll = None;
        actions.extend(self.work(now));
        actions
    }

    /// A start came to an end.
    pub fn started(&mut self, now: Time, match_id: u64, outcome: Started) -> Vec<Action> {
        let Some(start) = self.starting.remove(&match_id) else {
            return Vec::new();
        };
        self.known.remove(&start.task);
        let mut actions = Vec::new();
        match outcome {
            Started::Task(mut task) => {
                self.rates(now, start.priority.key).dispatched.count(now);
                // A poller that went away meanwhile loses the task to its timeout.
                if let Some(poll) = self.pollers.remove(start.poll_id) {
                    self.advise(now, poll.since, &mut task);
                    let (poll_id, is_sync) = (start.poll_id, start.is_sync);
                    actions.push(Action::Answer { poll_id, task: Some(task), is_sync });
                }
            }
            Started::Stale => {
                self.limits.give_back(&start.priority.fairness_key, start.weight);
                self.pollers.wait_again(start.poll_id);
            }
            Started::Unavailable => {
                self.limits.give_back(&start.priority.fairness_key, start.weight);
                self.unread.failed(start.shard, now + SHARD_RETRY);
                self.later.extend(start.rowless.map(|offer| (now + SHARD_RETRY, offer)));
                self.pollers.wait_again(start.poll_id);
            }
        }
        actions.extend(self.work(now));
        actions
    }

    /// Tells the worker how much waits, and whether it polls too much or too little.
    fn advise(&mut self, now: Time, poll_since: Time, task: &mut StartedTask) {
        let decision = self
            .poll_delta(now, poll_since)
            .map(|delta| PollerScalingDecision { poll_request_delta_suggestion: delta });
        match task {
            StartedTask::Workflow(task) => {
                task.backlog_count_hint = i64::try_from(self.waiting.count()).unwrap_or(i64::MAX);
                task.poller_scaling_decision = decision;
            }
            StartedTask::Activity(task) => task.poller_scaling_decision = decision,
        }
    }

    fn poll_delta(&mut self, now: Time, poll_since: Time) -> Option<i32> {
        if now.since(poll_since) >= SCALE_DOWN_WAIT {
            return Some(-1);
        }
        let pollers = u32::try_from(self.pollers.seen_count().max(1)).unwrap_or(u32::MAX);
        let limit = Limit::of(Some(SCALE_RATE * f64::from(pollers)));
        if self.suggestions.ready(limit) > now {
            return None;
        }
        self.suggestions.take(limit, now);
        let is_late = self.waiting.oldest().is_some_and(|at| now.since(at) > SCALE_UP_AGE);
        let (mut added, mut dispatched) = (0.0, 0.0);
        for rates in self.rates.iter().flatten() {
            added += rates.added.per_second(now);
            dispatched += rates.dispatched.per_second(now);
        }
        (is_late || added > SCALE_UP_RATIO * dispatched).then_some(1)
    }

    /// A page of a shard's backlog.
    pub fn backlog(&mut self, now: Time, shard: ShardId, page: BacklogPage) -> Vec<Action> {
        self.unread.answered(shard);
        for place in page.more {
            let here = self.waiting.in_lane(place.lane);
            self.unread.lane_goes_on(shard, place, here);
        }
        if let Some(from) = page.survey {
            self.unread.survey_goes_on(shard, from);
        }
        for offer in page.offers {
            self.take_in(now, offer);
        }
        self.work(now)
    }

    /// A shard could not read its backlog.
    pub fn backlog_failed(&mut self, now: Time, shard: ShardId) -> Vec<Action> {
        self.unread.failed(shard, now + SHARD_RETRY);
        self.work(now)
    }

    /// A shard leads anew: of its tasks, those may have been offered to nobody that were under
    /// way when it lost leadership.
    pub fn refresh(&mut self, now: Time, shard: ShardId) -> Vec<Action> {
        self.unread.begins_anew(shard);
        self.work(now)
    }

    /// Time passes: polls that waited long enough are answered, sticky tasks that nobody
    /// will take are given back.
    pub fn tick(&mut self, now: Time) -> Vec<Action> {
        self.unread.expire(now);
        for (at, offer) in std::mem::take(&mut self.later) {
            if at <= now {
                self.take_in(now, offer);
            } else {
                self.later.push((at, offer));
            }
        }
        let mut actions = empty(self.pollers.expire(now));
        actions.extend(self.work(now));
        actions
    }

    /// When [`Queue::tick`] has something to do, if ever.
    #[must_use]
    pub fn next_tick(&self) -> Option<Time> {
        let polls = self.pollers.next_deadline().into_iter();
        let is_waiting = self.pollers.is_waiting();
        let retries = self.unread.next_retry().filter(|_| is_waiting);
        let limited = self.limited_until.filter(|at| is_waiting && *at < Time::MAX);
        let sticky = (!is_waiting && self.waiting.is_sticky())
            .then(|| self.pollers.last_poll.unwrap_or(Time::ZERO) + STICKY_WINDOW);
        let later = self.later.iter().map(|(at, _)| *at);
        polls.chain(retries).chain(limited).chain(sticky).chain(later).min()
    }

    /// Whether the queue can be forgotten.
    #[must_use]
    pub fn is_idle(&self, now: Time) -> bool {
        let is_quiet = |r: &Rates| r.added.is_quiet(now) && r.dispatched.is_quiet(now);
        self.waiting.count() == 0
            && self.pollers.is_empty()
            && self.starting.is_empty()
            && self.later.is_empty()
            && self.pollers.last_poll.is_none_or(|at| now.since(at) > POLLER_MEMORY)
            && self.rates.iter().flatten().all(is_quiet)
    }

    /// Matches what can be matched.
    fn work(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        self.give_sticky_back(now, &mut actions);
        self.limited_until = None;
        while self.pollers.is_waiting() {
            let ready = self.limits.ready();
            if ready > now && self.waiting.count() > 0 {
                self.hold_back(now, ready);
                break;
            }
            let mut key_ready = Time::MAX;
            let limits = &self.limits;
            let next = self.waiting.next(|key| {
                let at = limits.key_ready(key);
                if at > now {
                    key_ready = key_ready.min(at);
                }
                at <= now
            });
            let has_room = self.waiting.count() < READ_BELOW;
            let blockers = self.unread.blockers(now, next.as_ref().map(|n| &n.place), has_room);
            actions.extend(blockers.reads.into_iter().map(Action::Read));
            if blockers.hold {
                break;
            }
            let Some(next) = next else {
                if self.waiting.count() > 0 {
                    self.hold_back(now, key_ready);
                }
                break;
            };
            if !self.start(now, &next, &mut actions) {
                break;
            }
        }
        actions
    }

    fn hold_back(&mut self, now: Time, until: Time) {
        self.limited.count(now);
        self.limited_until = Some(until);
    }

    fn start(&mut self, now: Time, next: &Next, actions: &mut Vec<Action>) -> bool {
        let weight = match self.waiting.peek(next) {
            Some(offer) => self.limits.weight(&offer.priority),
            None => return false,
        };
        let Some((poll_id, poll)) = self.pollers.next() else { return false };
        let poller = poll.poller.clone();
        let Some(Held { offer, .. }) = self.waiting.take(next, weight) else { return false };
        self.limits.take(&next.key, weight, now);
        self.unread.lane_holds(next.place.lane, self.waiting.in_lane(next.place.lane));
        self.next_match += 1;
        let start = Starting {
            poll_id,
            task: (offer.run_id, offer.task.clone()),
            shard: offer.shard,
            priority: offer.priority.clone(),
            weight,
            is_sync: false,
            rowless: (next.place.sequence == 0).then(|| offer.clone()),
        };
        self.starting.insert(self.next_match, start);
        actions.push(Action::Start { match_id: self.next_match, offer, poller });
        true
    }

    fn give_sticky_back(&mut self, now: Time, actions: &mut Vec<Action>) {
        let is_polled = self.pollers.is_waiting()
            || self.pollers.last_poll.is_some_and(|at| now.since(at) < STICKY_WINDOW);
        if is_polled || self.waiting.count() == 0 || !self.waiting.is_sticky() {
            return;
        }
        for offer in self.waiting.take_sticky() {
            self.known.remove(&(offer.run_id, offer.task.clone()));
            actions.push(Action::StickyUnavailable(offer));
        }
    }

    /// Tasks in memory.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.waiting.count()
    }

    /// Whether shards may hold more than what is in memory.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// What the queue says of itself.
    #[must_use]
    pub fn status(&self, now: Time) -> QueueStatus {
        let mut rates = [None; PRIORITY_LAST as usize];
        for (out, rates) in rates.iter_mut().zip(&self.rates) {
            *out = rates.as_ref().map(|r| (r.added.per_second(now), r.dispatched.per_second(now)));
        }
        let (rate_limit, rate_limit_source) = self.limits.effective();
        QueueStatus {
            pollers: self.pollers.seen(now),
            rates,
            is_rate_limited: self.limited.per_second(now) > 0.0,
            rate_limit,
            rate_limit_source,
        }
    }
}

fn empty(polls: Vec<u64>) -> Vec<Action> {
    polls
        .into_iter()
        .map(|poll_id| Action::Answer { poll_id, task: None, is_sync: false })
        .collect()
}
