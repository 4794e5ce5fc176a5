//! What brokers and shards say to each other of tasks that wait.

use everspan_types::{Offer, PRIORITY_LAST, QueueKey, RunId, ShardId, TaskRef, Time};
use serde::{Deserialize, Serialize};

/// Tasks asked of a shard at a time.
pub const BACKLOG_PAGE: usize = 1_000;

/// A part of a queue's backlog: a priority and a lane of fairness keys. Ordered as it is to
/// be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// Priority key, 1 to 5.
    pub priority: u8,
    /// See [`everspan_types::lane`].
    pub lane: u16,
}

/// A place in a shard's backlog of one queue. Ordered as the shard's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Priority and lane.
    pub lane: Lane,
    /// The task's [`Offer::sequence`].
    pub sequence: u64,
    /// Its run.
    pub run: RunId,
    /// Its event in the run.
    pub event: i64,
}

impl Place {
    /// Before everything.
    pub const FIRST: Place = Place::start_of(Lane { priority: 0, lane: 0 });

    /// Before everything in a lane.
    #[must_use]
    pub const fn start_of(lane: Lane) -> Place {
        Place { lane, sequence: 0, run: RunId::FIRST, event: 0 }
    }

    /// Where a task stands.
    #[must_use]
    pub fn of(offer: &Offer) -> Place {
        let event = match &offer.task {
            TaskRef::Workflow { scheduled_event_id, .. }
            | TaskRef::Activity { scheduled_event_id, .. } => *scheduled_event_id,
            TaskRef::Query { query_id } => i64::try_from(*query_id).unwrap_or(i64::MAX),
        };
        let lane = Lane { priority: offer.priority.key, lane: offer.priority.lane() };
        Place { lane, sequence: offer.sequence, run: offer.run_id, event }
    }

    /// Right after it.
    #[must_use]
    pub fn next(self) -> Place {
        Place { event: self.event.saturating_add(1), ..self }
    }
}

/// What a broker asks of a shard's backlog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BacklogAsk {
    /// The queue.
    pub queue: QueueKey,
    /// Lanes to be read on, each from its place.
    pub lanes: Vec<Place>,
    /// From where on to look for lanes that the broker does not know.
    pub survey: Option<Place>,
    /// Most tasks in the answer.
    pub limit: usize,
    /// Most tasks of one lane.
    pub lane_limit: usize,
}

/// Part of a shard's backlog of one queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BacklogPage {
    /// Tasks.
    pub offers: Vec<Offer>,
    /// Lanes that go on, each from its place.
    pub more: Vec<Place>,
    /// Where the survey is to go on, if it is not at its end.
    pub survey: Option<Place>,
}

/// How many tasks wait in a shard, by priority key: index 0 is priority 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogCounts {
    /// Counts.
    pub counts: [u64; PRIORITY_LAST as usize],
    /// When the oldest of them was scheduled.
    pub oldest: [Option<Time>; PRIORITY_LAST as usize],
    /// False while the shard is still counting: ask again.
    pub is_complete: bool,
}

impl BacklogCounts {
    /// Adds those of another shard.
    pub fn add(&mut self, other: &BacklogCounts) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        for (mine, theirs) in self.oldest.iter_mut().zip(other.oldest) {
            *mine = mine.iter().copied().chain(theirs).min();
        }
    }

    /// All priorities together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A read that a queue wants done.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The shard to be asked.
    pub shard: ShardId,
    /// Lanes, each from its place.
    pub lanes: Vec<Place>,
    /// From where on to survey.
    pub survey: Option<Place>,
    /// Most tasks of one lane.
    pub lane_limit: usize,
}
