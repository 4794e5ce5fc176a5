//! Whole queues, with shards that are sorted maps.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use everspan_types::{
    NamespaceId, Offer, Poller, Priority, QueueKey, RunId, ShardId, StartedTask, TaskKind, TaskRef,
    Time,
};

use crate::{
    BacklogPage, Lane, Place, Queue, QueueConfig,
    queue::{Action, OFFERS_MAX, Started},
};

const T0: Time = Time::from_millis(1_700_000_000_000);
const RATE_MAX: f64 = 1e6;

fn key() -> QueueKey {
    QueueKey {
        namespace: NamespaceId(RunId::FIRST.0),
        kind: TaskKind::Activity,
        name: "queue".into(),
    }
}

fn offer(shard: u32, n: u64, priority: u8, fairness_key: &str) -> Offer {
    Offer {
        queue: key(),
        shard: ShardId(shard),
        workflow_id: String::new(),
        run_id: RunId::FIRST,
        task: TaskRef::Activity { scheduled_event_id: n as i64, stamp: 1 },
        sequence: (T0 + Duration::from_micros(n)).as_nanos(),
        priority: Priority {
            key: priority,
            fairness_key: fairness_key.into(),
            ..Priority::default()
        },
        sticky: false,
    }
}

fn number(offer: &Offer) -> i64 {
    match offer.task {
        TaskRef::Activity { scheduled_event_id, .. } => scheduled_event_id,
        _ => 0,
    }
}

fn task() -> StartedTask {
    StartedTask::Activity(Box::default())
}

/// A queue and its shards; actions are done as they come.
struct World {
    now: Time,
    queue: Queue,
    rows: BTreeMap<ShardId, BTreeMap<Place, Offer>>,
    next_poll: u64,
    /// Tasks in the order in which they were started.
    started: Vec<Offer>,
    empty: usize,
    sticky_back: Vec<Offer>,
    answers: Vec<StartedTask>,
    stale: HashSet<i64>,
    most_in_memory: usize,
}

impl World {
    fn new(shards: u32) -> Self {
        Self::with(shards, QueueConfig::default())
    }

    fn with(shards: u32, config: QueueConfig) -> Self {
        let ids: Vec<ShardId> = (1..=shards).map(ShardId).collect();
        Self {
            now: T0,
            queue: Queue::new(T0, &ids, Arc::new(config), RATE_MAX),
            rows: ids.into_iter().map(|id| (id, BTreeMap::new())).collect(),
            next_poll: 0,
            started: Vec::new(),
            empty: 0,
            sticky_back: Vec::new(),
            answers: Vec::new(),
            stale: HashSet::new(),
            most_in_memory: 0,
        }
    }

    /// Puts a row that the queue is not told of.
    fn store(&mut self, offer: Offer) {
        let rows = self.rows.get_mut(&offer.shard).expect("a shard");
        rows.insert(Place::of(&offer), offer);
    }

    fn offer(&mut self, offer: Offer) {
        self.store(offer.clone());
        let actions = self.queue.offer(self.now, offer);
        self.act(actions);
    }

    fn poll_as(&mut self, poller: Poller) {
        self.next_poll += 1;
        let deadline = self.now + Duration::from_secs(60);
        let actions = self.queue.poll(self.now, self.next_poll, poller, deadline);
        self.act(actions);
    }

    fn poll(&mut self) {
        self.poll_as(Poller { identity: "worker".into(), ..Poller::default() });
    }

    fn tick(&mut self, after: Duration) {
        self.now = self.now + after;
        let actions = self.queue.tick(self.now);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            let more = match action {
                Action::Start { match_id, offer, .. } => {
                    let rows = self.rows.get_mut(&offer.shard).expect("a shard");
                    let is_there = rows.remove(&Place::of(&offer)).is_some() || offer.sequence == 0;
                    let outcome = if is_there && !self.stale.contains(&number(&offer)) {
                        self.started.push(offer);
                        Started::Task(task())
                    } else {
                        Started::Stale
                    };
                    self.queue.started(self.now, match_id, outcome)
                }
                Action::Answer { task: None, .. } => {
                    self.empty += 1;
                    Vec::new()
                }
                Action::Answer { task: Some(task), .. } => {
                    self.answers.push(task);
                    Vec::new()
                }
                Action::Read(read) => {
                    let page = self.read(read.shard, &read.lanes, read.survey, read.lane_limit);
                    self.queue.backlog(self.now, read.shard, page)
                }
                Action::StickyUnavailable(offer) => {
                    // It waits on another queue from now on.
                    self.rows.get_mut(&offer.shard).expect("a shard").remove(&Place::of(&offer));
                    self.sticky_back.push(offer);
                    Vec::new()
                }
            };
            actions.extend(more);
            self.most_in_memory = self.most_in_memory.max(self.queue.in_memory());
        }
    }

    /// As the shard reads, in short.
    fn read(
        &self,
        shard: ShardId,
        lanes: &[Place],
        survey: Option<Place>,
        lane_limit: usize,
    ) -> BacklogPage {
        let rows = &self.rows[&shard];
        let mut page = BacklogPage::default();
        let mut lane = |from: Place| {
            let mut in_lane = rows.range(from..).take_while(|(p, _)| p.lane == from.lane);
            page.offers.extend(in_lane.by_ref().take(lane_limit).map(|(_, o)| o.clone()));
            page.more.extend(in_lane.next().map(|(p, _)| *p));
        };
        lanes.iter().for_each(|from| lane(*from));
        let mut from = survey;
        let mut seen = 0;
        while let Some(at) = from {
            let Some((first, _)) = rows.range(at..).next() else {
                from = None;
                break;
            };
            if seen == 31 {
                break;
            }
            seen += 1;
            lane(*first);
            let next = Lane { lane: first.lane.lane + 1, ..first.lane };
            from = Some(Place::start_of(next));
        }
        page.survey = from;
        page
    }

    fn numbers(&self) -> Vec<i64> {
        self.started.iter().map(number).collect()
    }
}

#[test]
fn priority_first_then_time() {
    let mut world = World::new(2);
    for (n, priority) in [(1, 3), (2, 5), (3, 1), (4, 3), (5, 1)] {
        world.offer(offer(n as u32 % 2 + 1, n, priority, ""));
    }
    for _ in 0..5 {
        world.poll();
    }
    assert_eq!(world.numbers(), [3, 5, 1, 4, 2]);
}

#[test]
fn a_query_whose_shard_cannot_be_asked_now_goes_out_later() {
    let shard = ShardId(1);
    let mut queue = Queue::new(T0, &[shard], Arc::default(), 1e6);
    let mut query = offer(1, 1, 3, "");
    (query.sequence, query.task) = (0, TaskRef::Query { query_id: 7 });
    assert_eq!(queue.offer(T0, query.clone()), []);
    // The shard's backlog is empty: no row of it stands for the query.
    let start = |queue: &mut Queue, now: Time, actions: Vec<Action>| {
        let read = |action: &Action| matches!(action, Action::Read(_));
        let mut all = actions;
        while let Some(at) = all.iter().position(read) {
            all.remove(at);
            all.extend(queue.backlog(now, shard, BacklogPage::default()));
        }
        match &all[..] {
            [Action::Start { match_id, offer, .. }] => (*match_id, offer.clone()),
            other => panic!("{other:?}"),
        }
    };
    let polled = queue.poll(T0, 1, Poller::default(), T0 + Duration::from_secs(60));
    let (first, _) = start(&mut queue, T0, polled);
    let after = queue.started(T0, first, Started::Unavailable);
    assert!(!after.iter().any(|action| matches!(action, Action::Start { .. })));
    let again = queue.next_tick().expect("it is tried again");
    let ticked = queue.tick(again);
    let (_, offered) = start(&mut queue, again, ticked);
    assert_eq!(offered, query);
}

#[test]
fn keys_take_turns_by_weight() {
    let mut world = World::new(1);
    for n in 1..=400 {
        for (at, key, weight) in [(0, "heavy", 3_000), (1_000, "light", 1_000)] {
            let mut offer = offer(1, n + at, 3, key);
            offer.priority.fairness_weight = weight;
            world.offer(offer);
        }
    }
    for _ in 0..200 {
        world.poll();
    }
    let heavy = world.started.iter().filter(|o| o.priority.fairness_key == "heavy").count();
    assert!((148..=152).contains(&heavy), "{heavy} of 200");
}

#[test]
fn configured_weights_win() {
    let config =
        QueueConfig { weights: BTreeMap::from([("b".to_owned(), 9.0)]), ..QueueConfig::default() };
    let mut world = World::with(1, config);
    for n in 1..=200 {
        world.offer(offer(1, n, 3, "a"));
        world.offer(offer(1, n + 1_000, 3, "b"));
    }
    for _ in 0..100 {
        world.poll();
    }
    let b = world.started.iter().filter(|o| o.priority.fairness_key == "b").count();
    assert!((88..=92).contains(&b), "{b} of 100");
}

#[test]
fn a_newcomer_does_not_wait_for_a_long_backlog_of_another_key() {
    let mut world = World::new(3);
    // Far more than fits into memory, on all shards.
    for n in 1..=(OFFERS_MAX as u64 * 3) {
        world.offer(offer(n as u32 % 3 + 1, n, 3, "crowd"));
    }
    for _ in 0..50 {
        world.poll();
    }
    world.offer(offer(1, 1_000_000, 3, "newcomer"));
    world.offer(offer(2, 1_000_001, 1, "crowd"));
    for _ in 0..4 {
        world.poll();
    }
    let late = &world.numbers()[50..];
    assert_eq!(late[0], 1_000_001);
    assert!(late.contains(&1_000_000), "{late:?}");
}

#[test]
fn a_backlog_larger_than_memory_goes_out_whole_and_in_order() {
    let mut world = World::new(3);
    let count = OFFERS_MAX as u64 * 3;
    // A fixed shuffle: 7,919 is prime to the count.
    for n in 0..count {
        let n = n * 7_919 % count + 1;
        let offer = offer(n as u32 % 3 + 1, n, (n % 5 + 1) as u8, "");
        // Half of them are known before the first poll, half come while polls wait elsewhere.
        if n.is_multiple_of(2) { world.store(offer) } else { world.offer(offer) }
    }
    for _ in 0..count {
        world.poll();
    }
    let mut expected: Vec<(u8, u64)> = (1..=count).map(|n| ((n % 5 + 1) as u8, n)).collect();
    expected.sort_unstable();
    let got: Vec<(u8, u64)> =
        world.started.iter().map(|o| (o.priority.key, number(o) as u64)).collect();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected, "order differs");
    assert!(world.most_in_memory <= OFFERS_MAX);
}

#[test]
fn many_keys_beyond_memory_are_all_served_and_evenly() {
    let mut world = World::new(2);
    let (keys, each) = (500u64, 60u64);
    for n in 0..keys * each {
        world.store(offer(n as u32 % 2 + 1, n + 1, 3, &format!("key-{}", n / each)));
    }
    // A third of all: each key should have had about a third of its own.
    for _ in 0..keys * each / 3 {
        world.poll();
    }
    let mut by_key: HashMap<&str, u64> = HashMap::new();
    for offer in &world.started {
        *by_key.entry(&offer.priority.fairness_key).or_default() += 1;
    }
    // The few keys that share a lane with another may have to wait.
    let third = each / 3 - 4..=each / 3 + 4;
    let fair = by_key.values().filter(|n| third.contains(n)).count() as u64;
    assert!(fair >= keys - 10, "{fair} of {keys}");
    for _ in 0..keys * each {
        world.poll();
    }
    assert_eq!(world.started.len() as u64, keys * each);
}

#[test]
fn rates_are_obeyed_and_the_api_wins() {
    let mut world = World::new(1);
    for n in 1..=1_000 {
        world.offer(offer(1, n, 3, ""));
    }
    let poller = || Poller { tasks_per_second_max: Some(10.0), ..Poller::default() };
    for _ in 0..200 {
        world.poll_as(poller());
    }
    assert_eq!(world.started.len(), 11);
    for _ in 0..50 {
        world.tick(Duration::from_millis(100));
    }
    assert_eq!(world.started.len(), 61);
    assert!(world.queue.status(world.now).is_rate_limited);
    let pause = QueueConfig { rate: Some(0.0), ..QueueConfig::default() };
    let actions = world.queue.configure(world.now, Arc::new(pause));
    world.act(actions);
    world.tick(Duration::from_secs(30));
    assert_eq!(world.started.len(), 61);
    assert_eq!(world.queue.next_tick(), Some(T0 + Duration::from_secs(60)));
    let open = QueueConfig { rate: Some(1_000.0), ..QueueConfig::default() };
    let actions = world.queue.configure(world.now, Arc::new(open));
    world.act(actions);
    assert_eq!(world.started.len(), 200);
    assert_eq!(world.queue.status(world.now).rate_limit, 1_000.0);
}

#[test]
fn a_key_at_its_rate_lets_others_pass() {
    let config = QueueConfig { fairness_key_rate: Some(5.0), ..QueueConfig::default() };
    let mut world = World::with(1, config);
    for n in 1..=100 {
        world.offer(offer(1, n, 3, "busy"));
    }
    for _ in 0..50 {
        world.poll();
    }
    assert_eq!(world.started.len(), 6);
    world.offer(offer(1, 500, 3, "other"));
    assert_eq!(world.numbers().last(), Some(&500));
    for _ in 0..20 {
        world.tick(Duration::from_millis(100));
    }
    assert_eq!(world.started.len(), 17);
}

#[test]
fn a_stale_task_costs_neither_poll_nor_token() {
    let mut world = World::new(1);
    world.stale = (1..=50).collect();
    for n in 1..=60 {
        world.offer(offer(1, n, 3, ""));
    }
    let poller = || Poller { tasks_per_second_max: Some(5.0), ..Poller::default() };
    for _ in 0..5 {
        world.poll_as(poller());
    }
    assert_eq!(world.numbers(), [51, 52, 53, 54, 55]);
}

#[test]
fn sticky_tasks_go_back_when_nobody_polls() {
    let mut world = World::new(1);
    let sticky = |n| Offer { sticky: true, ..offer(1, n, 3, "") };
    world.offer(sticky(1));
    assert_eq!(world.sticky_back.len(), 1, "nobody ever polled");
    world.poll();
    world.tick(Duration::from_secs(60));
    assert_eq!(world.empty, 1);
    world.poll();
    world.offer(sticky(2));
    assert_eq!(world.numbers(), [2]);
    world.offer(sticky(3));
    assert_eq!(world.sticky_back.len(), 1, "polled a moment ago");
    let at = world.queue.next_tick().expect("a tick");
    assert_eq!(at, world.now + Duration::from_secs(10));
    world.tick(Duration::from_secs(10));
    assert_eq!(world.sticky_back.len(), 2);
    world.offer(sticky(4));
    assert_eq!(world.sticky_back.len(), 3, "at once");
}

#[test]
fn a_worker_that_shuts_down_gets_its_polls_back() {
    let mut world = World::new(1);
    let poller = |key: &str| Poller {
        identity: key.into(),
        worker_instance_key: key.into(),
        ..Poller::default()
    };
    world.poll_as(poller("a"));
    world.poll_as(poller("b"));
    world.poll_as(poller("a"));
    let actions = world.queue.shut_down("a", "a");
    world.act(actions);
    assert_eq!(world.empty, 2);
    let status = world.queue.status(world.now);
    assert_eq!(status.pollers.iter().map(|p| &*p.identity).collect::<Vec<_>>(), ["b"]);
    world.offer(offer(1, 1, 3, ""));
    assert_eq!(world.answers.len(), 1);
}

#[test]
fn advice_on_the_number_of_polls() {
    let delta = |task: &StartedTask| match task {
        StartedTask::Activity(task) => {
            task.poller_scaling_decision.as_ref().map(|d| d.poll_request_delta_suggestion)
        }
        StartedTask::Workflow(_) => None,
    };
    let mut world = World::new(1);
    world.poll();
    world.tick(Duration::from_secs(2));
    world.offer(offer(1, 1, 3, ""));
    assert_eq!(delta(&world.answers[0]), Some(-1), "it waited for two seconds");
    for n in 2..=5 {
        world.offer(offer(1, n, 3, ""));
    }
    world.tick(Duration::from_secs(1));
    world.poll();
    assert_eq!(delta(&world.answers[1]), Some(1), "tasks wait for a second");
    assert_eq!(world.numbers().len(), 2);
}

#[test]
fn a_shard_that_cannot_answer_is_asked_again_and_holds_nobody_up() {
    let shards = [ShardId(1), ShardId(2)];
    let mut queue = Queue::new(T0, &shards, Arc::default(), RATE_MAX);
    let actions = queue.poll(T0, 1, Poller::default(), T0 + Duration::from_secs(60));
    assert_eq!(actions.len(), 2);
    assert!(queue.backlog_failed(T0, ShardId(1)).is_empty());
    let page = BacklogPage { offers: vec![offer(2, 1, 3, "")], ..BacklogPage::default() };
    let actions = queue.backlog(T0, ShardId(2), page);
    assert!(matches!(&actions[..], [Action::Start { .. }]));
    queue.poll(T0, 2, Poller::default(), T0 + Duration::from_secs(60));
    let at = queue.next_tick().expect("a tick");
    assert_eq!(at, T0 + Duration::from_millis(500));
    let actions = queue.tick(at);
    assert!(matches!(&actions[..], [Action::Read(read)] if read.shard == ShardId(1)));
}
