//! Tasks that wait for workers: their rows, read for brokers, and counted.

use std::collections::HashMap;

use bytes::Bytes;
use everspan_broker::{BacklogAsk, BacklogCounts, BacklogPage, Lane, Place};
use everspan_types::{Offer, PRIORITY_LAST, QueueKey, Result, RunId, Time};

use crate::{
    keys::{self, Backlog},
    shard::Shard,
};

/// Lanes that one read looks at; the survey goes on after them.
const LANES_MAX: usize = 256;
/// Rows counted at a time, so that a long count does not keep calls waiting.
const COUNT_STEP: usize = 10_000;
/// Queues whose counts are kept up to date.
const COUNTED_QUEUES_MAX: usize = 1_000;

/// What is counted of one queue: the rows before `upto`, or all of them.
#[derive(Debug, Default)]
struct Count {
    counts: [u64; PRIORITY_LAST as usize],
    upto: Option<Place>,
    is_complete: bool,
}

impl Count {
    fn slot(&mut self, priority: u8) -> &mut u64 {
        &mut self.counts[usize::from(priority.clamp(1, PRIORITY_LAST)) - 1]
    }

    fn has(&self, place: &Place) -> bool {
        self.is_complete || self.upto.is_some_and(|upto| *place < upto)
    }
}

/// Counts of the queues that were asked for, kept up to date as rows come and go.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    queues: HashMap<QueueKey, Count>,
}

impl Counts {
    /// A row was put.
    pub(crate) fn added(&mut self, queue: &QueueKey, place: &Place) {
        if let Some(count) = self.queues.get_mut(queue)
            && count.has(place)
        {
            *count.slot(place.lane.priority) += 1;
        }
    }

    /// A row was deleted.
    pub(crate) fn removed(&mut self, queue: &QueueKey, place: &Place) {
        if let Some(count) = self.queues.get_mut(queue)
            && count.has(place)
        {
            let slot = count.slot(place.lane.priority);
            *slot = slot.saturating_sub(1);
        }
    }

    /// Rows came or went that nobody told of.
    pub(crate) fn clear(&mut self) {
        self.queues.clear();
    }
}

impl Shard {
    /// Reads what a broker asks of a queue's backlog.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn backlog(&self, ask: &BacklogAsk) -> Result<BacklogPage> {
        let prefix = keys::queue(&ask.queue);
        let mut page = BacklogPage::default();
        for place in &ask.lanes {
            match ask.limit.saturating_sub(page.offers.len()) {
                0 => page.more.push(*place),
                room => self.read_lane(ask, &prefix, *place, room, &mut page)?,
            }
        }
        let Some(mut from) = ask.survey else { return Ok(page) };
        for _ in 0..LANES_MAX {
            let room = ask.limit.saturating_sub(page.offers.len());
            if room == 0 {
                page.survey = Some(from);
                return Ok(page);
            }
            let Some(first) = self.first_place(&prefix, from)? else { return Ok(page) };
            self.read_lane(ask, &prefix, first, room, &mut page)?;
            match past_lane(first.lane) {
                Some(next) => from = next,
                None => return Ok(page),
            }
        }
        page.survey = Some(from);
        Ok(page)
    }

    fn first_place(&self, prefix: &[u8], from: Place) -> Result<Option<Place>> {
        let start = keys::backlog_place(prefix, &from);
        let rows = self.scan(&start, &keys::past(prefix), 1)?;
        Ok(rows.first().and_then(|(key, _)| keys::parse_backlog(prefix, key)))
    }

    fn read_lane(
        &self,
        ask: &BacklogAsk,
        prefix: &[u8],
        from: Place,
        room: usize,
        page: &mut BacklogPage,
    ) -> Result<()> {
        let limit = room.min(ask.lane_limit);
        let start = keys::backlog_place(prefix, &from);
        let end = past_lane(from.lane)
            .map_or_else(|| keys::past(prefix), |next| keys::backlog_place(prefix, &next));
        let rows = self.scan(&start, &end, limit + 1)?;
        if let Some(place) = rows.get(limit).and_then(|(key, _)| keys::parse_backlog(prefix, key)) {
            page.more.push(place);
        }
        let offers = rows.iter().take(limit).filter_map(|(key, value)| {
            let place = keys::parse_backlog(prefix, key)?;
            self.offer_of_row(&ask.queue, place.run, place.sequence, value)
        });
        page.offers.extend(offers);
        Ok(())
    }

    fn offer_of_row(
        &self,
        queue: &QueueKey,
        run_id: RunId,
        sequence: u64,
        value: &Bytes,
    ) -> Option<Offer> {
        let task = Backlog::from_bytes(value).ok()?;
        Some(Offer {
            queue: queue.clone(),
            shard: self.id,
            workflow_id: task.workflow_id,
            run_id,
            task: task.task,
            sequence,
            priority: task.priority,
            sticky: task.sticky,
        })
    }

    /// Counts a queue's waiting tasks, a part of them at each call until it is through; from
    /// then on the counts follow the changes.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn count_backlog(&mut self, queue: &QueueKey) -> Result<BacklogCounts> {
        if self.backlog_counts.queues.len() >= COUNTED_QUEUES_MAX
            && !self.backlog_counts.queues.contains_key(queue)
        {
            self.backlog_counts.clear();
        }
        let mut count = self.backlog_counts.queues.remove(queue).unwrap_or_default();
        let prefix = keys::queue(queue);
        if !count.is_complete {
            let from = count.upto.unwrap_or(Place::FIRST);
            let start = keys::backlog_place(&prefix, &from);
            let rows = self.scan(&start, &keys::past(&prefix), COUNT_STEP + 1)?;
            let places = rows.iter().filter_map(|(key, _)| keys::parse_backlog(&prefix, key));
            for (n, place) in places.enumerate() {
                if n == COUNT_STEP {
                    count.upto = Some(place);
                } else {
                    *count.slot(place.lane.priority) += 1;
                }
            }
            count.is_complete = rows.len() <= COUNT_STEP;
        }
        let mut answer = BacklogCounts {
            counts: count.counts,
            oldest: Default::default(),
            is_complete: count.is_complete,
        };
        if count.is_complete {
            answer.oldest = self.oldest(&prefix)?;
        }
        self.backlog_counts.queues.insert(queue.clone(), count);
        Ok(answer)
    }

    /// The oldest task of each priority: the first of its lanes' first ones.
    fn oldest(&self, prefix: &[u8]) -> Result<[Option<Time>; PRIORITY_LAST as usize]> {
        let mut oldest = [None; PRIORITY_LAST as usize];
        let mut from = Some(Place::FIRST);
        let mut looked_at = 0;
        while let Some(place) = from.filter(|_| looked_at < LANES_MAX) {
            let Some(first) = self.first_place(prefix, place)? else { break };
            let slot = &mut oldest[usize::from(first.lane.priority.clamp(1, PRIORITY_LAST)) - 1];
            let at = Time::from_nanos(first.sequence);
            *slot = Some(slot.map_or(at, |old: Time| old.min(at)));
            from = past_lane(first.lane);
            looked_at += 1;
        }
        Ok(oldest)
    }
}

/// The beginning of the next lane there can be.
fn past_lane(lane: Lane) -> Option<Place> {
    let next = match lane.lane.checked_add(1) {
        Some(next) => Lane { lane: next, ..lane },
        None => Lane { priority: lane.priority.checked_add(1)?, lane: 0 },
    };
    Some(Place::start_of(next))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use everspan_execution::PendingTask;
    use everspan_storage::{Batch, MemStore, Table};
    use everspan_types::{Limits, NamespaceId, Priority, ShardId, TaskKind, TaskRef};
    use uuid::Uuid;

    use super::*;

    const NAMESPACE: NamespaceId = NamespaceId(Uuid::nil());

    fn task(n: u64, priority: u8, fairness_key: &str) -> PendingTask {
        PendingTask {
            kind: TaskKind::Activity,
            queue: "queue".into(),
            sequence: n,
            task: TaskRef::Activity { scheduled_event_id: n as i64, stamp: 1 },
            priority: Priority {
                key: priority,
                fairness_key: fairness_key.into(),
                ..Priority::default()
            },
            sticky: false,
        }
    }

    fn run() -> RunId {
        RunId(Uuid::from_u128(7))
    }

    fn shard(tasks: &[PendingTask]) -> Shard {
        let mut table = Table::open(ShardId(1), Arc::new(MemStore::default())).unwrap();
        let mut batch = Batch::default();
        for task in tasks {
            let row = Backlog {
                workflow_id: "workflow".into(),
                priority: task.priority.clone(),
                sticky: task.sticky,
                task: task.task.clone(),
            };
            batch.put(keys::backlog(NAMESPACE, run(), task), row.to_bytes());
        }
        // The rows of a queue with a longer name stand beside them.
        let other = PendingTask { queue: "queue2".into(), ..task(1, 3, "") };
        batch.put(keys::backlog(NAMESPACE, run(), &other), vec![]);
        table.apply(1, batch);
        let map = crate::ShardMap { count: 1 };
        Shard::new(ShardId(1), table, Arc::new(Limits::default()), map)
    }

    fn queue() -> QueueKey {
        keys::queue_of(NAMESPACE, &task(1, 3, ""))
    }

    fn ask(lanes: Vec<Place>, survey: Option<Place>, lane_limit: usize) -> BacklogAsk {
        BacklogAsk { queue: queue(), lanes, survey, limit: 100, lane_limit }
    }

    fn numbers(page: &BacklogPage) -> Vec<u64> {
        page.offers.iter().map(|o| o.sequence).collect()
    }

    #[test]
    fn a_survey_finds_every_lane_and_reads_go_on_from_there() {
        let mut tasks: Vec<PendingTask> = (1..=50).map(|n| task(n, 3, "a")).collect();
        tasks.extend((51..=60).map(|n| task(n, 3, "b")));
        tasks.extend((61..=63).map(|n| task(n, 1, "a")));
        let shard = shard(&tasks);
        let page = shard.backlog(&ask(vec![], Some(Place::FIRST), 5)).unwrap();
        assert_eq!(page.survey, None);
        assert_eq!(numbers(&page)[..3], [61, 62, 63]);
        let mut rest = numbers(&page)[3..].to_vec();
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 3, 4, 5, 51, 52, 53, 54, 55]);
        assert_eq!(page.more.len(), 2);
        let page = shard.backlog(&ask(page.more, None, 100)).unwrap();
        let mut rest = numbers(&page);
        rest.sort_unstable();
        assert_eq!(rest, (6..=50).chain(56..=60).collect::<Vec<u64>>());
        assert!(page.more.is_empty());
    }

    #[test]
    fn a_full_page_says_where_to_go_on() {
        let tasks: Vec<PendingTask> =
            (1..=300).map(|n| task(n, 3, &format!("{}", n % 30))).collect();
        let shard = shard(&tasks);
        let mut seen = Vec::new();
        let mut pending = vec![ask(vec![], Some(Place::FIRST), 7)];
        while let Some(next) = pending.pop() {
            let page = shard.backlog(&next).unwrap();
            assert!(page.offers.len() <= 100);
            seen.extend(numbers(&page));
            if page.survey.is_some() || !page.more.is_empty() {
                pending.push(ask(page.more, page.survey, 7));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=300).collect::<Vec<u64>>());
    }

    #[test]
    fn tasks_of_one_instant_are_paged() {
        let tasks: Vec<PendingTask> =
            (1..=10).map(|n| PendingTask { sequence: 5, ..task(n, 3, "") }).collect();
        let shard = shard(&tasks);
        let first = shard.backlog(&ask(vec![], Some(Place::FIRST), 6)).unwrap();
        let second = shard.backlog(&ask(first.more, None, 6)).unwrap();
        assert_eq!((first.offers.len(), second.offers.len()), (6, 4));
        assert!(second.more.is_empty());
    }

    #[test]
    fn counts_are_right_while_they_are_made_and_follow_changes() {
        let count = COUNT_STEP as u64 + 500;
        let tasks: Vec<PendingTask> = (1..=count).map(|n| task(n, (n % 2 + 2) as u8, "")).collect();
        let mut shard = shard(&tasks);
        let part = shard.count_backlog(&queue()).unwrap();
        assert!(!part.is_complete);
        let change = |shard: &mut Shard, task: &PendingTask, is_added: bool| {
            let mut batch = Batch::default();
            let key = keys::backlog(NAMESPACE, run(), task);
            batch.set(key, is_added.then(Bytes::new));
            shard.table.apply(2, batch);
            let place = keys::place(run(), task);
            if is_added {
                shard.backlog_counts.added(&queue(), &place);
            } else {
                shard.backlog_counts.removed(&queue(), &place);
            }
        };
        // One before and one behind the place that was reached.
        change(&mut shard, &task(2, 2, ""), false);
        change(&mut shard, &task(count + 9, 5, ""), true);
        let whole = shard.count_backlog(&queue()).unwrap();
        assert!(whole.is_complete);
        assert_eq!(whole.counts, [0, count / 2 - 1, count / 2, 0, 1]);
        assert_eq!(whole.oldest[2], Some(Time::from_nanos(1)));
        change(&mut shard, &task(3, 3, ""), false);
        assert_eq!(shard.count_backlog(&queue()).unwrap().total(), count - 1);
        assert_eq!(shard.count_backlog(&queue()).unwrap().oldest[1], Some(Time::from_nanos(4)));
    }
}
