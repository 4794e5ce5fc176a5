//! What shards hold of a queue that is not in memory, and when it has to be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use everspan_types::{ShardId, Time};

use crate::backlog::{BACKLOG_PAGE, Lane, Place, Read};

/// Lanes read at a time from one shard.
const LANES_AT_ONCE: usize = 64;
/// Tasks of one lane that a survey takes along; it is to find lanes, not to empty them.
const SURVEY_LANE: usize = 32;
/// Least tasks of a lane that a read asks for.
const LANE_MIN: usize = 16;

/// Where each shard's backlog goes on.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// From here on a shard may have lanes that nobody looked at.
    surveys: BTreeMap<ShardId, Place>,
    /// Lanes that go on in a shard.
    lanes: BTreeMap<Lane, BTreeMap<ShardId, Place>>,
    /// Those of them of which nothing is in memory.
    drained: BTreeSet<Lane>,
    /// Reads under way, with the least that they may bring.
    reading: HashMap<ShardId, Place>,
    /// Shards that could not answer, and until when they are left alone.
    retry: BTreeMap<ShardId, Time>,
}

/// What must be read before a task may be handed out.
#[derive(Debug, Default)]
pub(crate) struct Blockers {
    /// Reads to be started.
    pub(crate) reads: Vec<Read>,
    /// Whether something better may be on its way.
    pub(crate) hold: bool,
}

impl Unread {
    /// Any shard may hold anything.
    pub(crate) fn everything(shards: &[ShardId]) -> Self {
        Self { surveys: shards.iter().map(|s| (*s, Place::FIRST)).collect(), ..Self::default() }
    }

    /// Whether a shard's task stands in what is still to be read.
    pub(crate) fn covers(&self, shard: ShardId, place: &Place) -> bool {
        self.surveys.get(&shard).is_some_and(|from| from <= place)
            || self
                .lanes
                .get(&place.lane)
                .and_then(|shards| shards.get(&shard))
                .is_some_and(|from| from <= place)
    }

    /// A lane goes on at `from`; `in_memory` tasks of it are here.
    pub(crate) fn lane_goes_on(&mut self, shard: ShardId, from: Place, in_memory: usize) {
        let at = self.lanes.entry(from.lane).or_default().entry(shard).or_insert(from);
        *at = from.min(*at);
        self.lane_holds(from.lane, in_memory);
    }

    /// The number of a lane's tasks in memory changed.
    pub(crate) fn lane_holds(&mut self, lane: Lane, in_memory: usize) {
        if in_memory > 0 {
            self.drained.remove(&lane);
        } else if self.lanes.contains_key(&lane) {
            self.drained.insert(lane);
        }
    }

    /// A survey goes on at `from`.
    pub(crate) fn survey_goes_on(&mut self, shard: ShardId, from: Place) {
        let at = self.surveys.entry(shard).or_insert(from);
        *at = from.min(*at);
    }

    /// A shard could not answer: all of it is to be looked at again, not before `at`.
    pub(crate) fn failed(&mut self, shard: ShardId, at: Time) {
        self.reading.remove(&shard);
        self.surveys.insert(shard, Place::FIRST);
        self.retry.insert(shard, at);
    }

    /// All of a shard is to be looked at again.
    pub(crate) fn begins_anew(&mut self, shard: ShardId) {
        self.surveys.insert(shard, Place::FIRST);
    }

    /// Shards that were left alone for long enough may be asked again, when they are wanted.
    pub(crate) fn expire(&mut self, now: Time) {
        self.retry.retain(|_, at| *at > now);
    }

    /// A read came back.
    pub(crate) fn answered(&mut self, shard: ShardId) {
        self.reading.remove(&shard);
        self.retry.remove(&shard);
    }

    /// Whether everything there is is in memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.surveys.is_empty() && self.lanes.is_empty() && self.reading.is_empty()
    }

    /// When a shard that could not answer may be asked again.
    pub(crate) fn next_retry(&self) -> Option<Time> {
        let is_wanted = |shard: &ShardId| {
            self.surveys.contains_key(shard) || self.lanes.values().any(|l| l.contains_key(shard))
        };
        self.retry.iter().filter(|(s, _)| is_wanted(s)).map(|(_, at)| *at).min()
    }

    /// What has to be read before `best`, or before anything if there is nothing: what may be
    /// of a better priority, lanes of the same priority that have nothing here and would miss
    /// their turn, and the same lane's earlier tasks of other shards. While there is no room
    /// for more, only better priorities count: what is read would put out what it is compared
    /// with, and be read again for ever.
    pub(crate) fn blockers(&mut self, now: Time, best: Option<&Place>, has_room: bool) -> Blockers {
        let bound = best.map_or(u8::MAX, |b| b.lane.priority);
        let is_wanted = |lane: &&Lane| match best {
            _ if has_room => lane.priority <= bound,
            Some(_) => lane.priority < bound,
            None => false,
        };
        let mut blockers = Blockers {
            hold: self.reading.values().any(|from| from.lane.priority <= bound),
            reads: Vec::new(),
        };
        let mut wanted: BTreeMap<ShardId, (Vec<Lane>, bool)> = BTreeMap::new();
        for (shard, from) in &self.surveys {
            if from.lane.priority <= bound {
                wanted.entry(*shard).or_default().1 = true;
            }
        }
        for lane in self.drained.iter().take_while(is_wanted).take(LANES_AT_ONCE) {
            for shard in self.lanes.get(lane).into_iter().flat_map(BTreeMap::keys) {
                wanted.entry(*shard).or_default().0.push(*lane);
            }
        }
        if let Some(best) = best.filter(|_| has_room) {
            let shards = self.lanes.get(&best.lane).into_iter().flatten();
            for (shard, _) in shards.filter(|(_, from)| *from < best) {
                wanted.entry(*shard).or_default().0.push(best.lane);
            }
        }
        for (shard, (lanes, survey)) in wanted {
            if self.reading.contains_key(&shard) {
                blockers.hold = true;
                continue;
            }
            if self.retry.get(&shard).is_some_and(|at| *at > now) {
                continue;
            }
            blockers.hold = true;
            blockers.reads.push(self.begin(shard, &lanes, survey));
        }
        blockers
    }

    fn begin(&mut self, shard: ShardId, lanes: &[Lane], survey: bool) -> Read {
        let mut places = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let Some(shards) = self.lanes.get_mut(lane) else { continue };
            places.extend(shards.remove(&shard));
            if shards.is_empty() {
                self.lanes.remove(lane);
                self.drained.remove(lane);
            }
        }
        let survey = if survey { self.surveys.remove(&shard) } else { None };
        if let Some(least) = places.iter().copied().chain(survey).min() {
            self.reading.insert(shard, least);
        }
        let lane_limit = match (survey, places.len()) {
            (Some(_), 0) => SURVEY_LANE,
            (_, n) => (BACKLOG_PAGE / n.max(1)).max(LANE_MIN),
        };
        Read { shard, lanes: places, survey, lane_limit }
    }
}
