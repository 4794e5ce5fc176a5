//! A queue and a shard that leads anew.

use std::{sync::Arc, time::Duration};

use everspan_broker::{
    BacklogPage, QueueConfig,
    queue::{Action, Queue},
};
use everspan_types::{Poller, ShardId, Time};

const SHARD: ShardId = ShardId(1);

fn polled() -> (Queue, Vec<Action>) {
    let now = Time::from_millis(0);
    let mut queue = Queue::new(now, &[SHARD], Arc::<QueueConfig>::default(), 1_000.0);
    let actions = queue.poll(now, 1, Poller::default(), Time::from_millis(60_000));
    (queue, actions)
}

fn reads_the_shard(actions: &[Action]) -> bool {
    matches!(actions, [Action::Read(read)] if read.shard == SHARD && read.survey.is_some())
}

#[test]
fn it_is_asked_for_its_tasks_again() {
    let (mut queue, _) = polled();
    let now = Time::from_millis(10);
    assert_eq!(queue.backlog(now, SHARD, BacklogPage::default()), []);
    assert!(reads_the_shard(&queue.refresh(now, SHARD)));
}

#[test]
fn while_it_is_being_read_there_is_nothing_to_tick_for() {
    let (mut queue, actions) = polled();
    assert!(reads_the_shard(&actions));
    let now = Time::from_millis(10);
    assert_eq!(queue.refresh(now, SHARD), []);
    // The poll's own deadline.
    assert_eq!(queue.next_tick(), Some(Time::from_millis(60_000)));
    let again = queue.backlog(now + Duration::from_secs(1), SHARD, BacklogPage::default());
    assert!(reads_the_shard(&again));
}
