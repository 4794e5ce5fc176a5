//! The tasks of one queue that are in memory, in the order in which they are to go out: by
//! priority; within one, fairness keys take turns by their weights; within a key, by time.
//!
//! The turns are stride scheduling: each key has a pass, the least is next, and going out
//! moves a key's pass on by the inverse of its weight. A key that had nothing to do does not
//! save up turns: it comes back at the pass that the level has reached.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use everspan_types::{Offer, Time};

use crate::backlog::{Lane, Place};

/// How far a weight of one thousandth moves a key on.
const STRIDE: u64 = 1_000_000_000;
/// Keys without tasks that are remembered beside those that have some.
const IDLE_KEYS_MAX: usize = 1_000;

/// A task in memory.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) offer: Offer,
    /// When it came.
    pub(crate) since: Time,
}

#[derive(Debug, Default)]
struct Key {
    pass: u64,
    tasks: BTreeMap<Place, Held>,
}

#[derive(Debug, Default)]
struct Level {
    keys: HashMap<Arc<str>, Key>,
    /// Keys with tasks: pass, sequence of the first task, key.
    turns: BTreeSet<(u64, u64, Arc<str>)>,
    /// The pass of the last key that had its turn.
    pass: u64,
}

impl Level {
    /// Changes a key and puts it where it belongs among the turns.
    fn with<T>(&mut self, key: &Arc<str>, change: impl FnOnce(&mut Key) -> T) -> T {
        let level_pass = self.pass;
        let state = self.keys.entry(key.clone()).or_default();
        match state.tasks.first_key_value() {
            Some((first, _)) => {
                self.turns.remove(&(state.pass, first.sequence, key.clone()));
            }
            None => state.pass = state.pass.max(level_pass),
        }
        let value = change(state);
        if let Some((first, _)) = state.tasks.first_key_value() {
            self.turns.insert((state.pass, first.sequence, key.clone()));
        } else if state.pass <= level_pass {
            self.keys.remove(key);
        }
        value
    }
}

/// The task that is next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Next {
    pub(crate) place: Place,
    pub(crate) key: Arc<str>,
}

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    levels: BTreeMap<u8, Level>,
    lanes: HashMap<Lane, usize>,
    count: usize,
}

impl Waiting {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Tasks of a lane.
    pub(crate) fn in_lane(&self, lane: Lane) -> usize {
        self.lanes.get(&lane).copied().unwrap_or(0)
    }

    /// Takes a task in; gives back the one whose place it took.
    pub(crate) fn insert(&mut self, held: Held) -> Option<Held> {
        let place = Place::of(&held.offer);
        let key: Arc<str> = held.offer.priority.fairness_key.as_str().into();
        let level = self.levels.entry(place.lane.priority).or_default();
        let old = level.with(&key, |key| key.tasks.insert(place, held));
        if old.is_none() {
            self.count += 1;
            *self.lanes.entry(place.lane).or_default() += 1;
        }
        old
    }

    /// What is next among the keys that are ready.
    pub(crate) fn next(&self, mut is_ready: impl FnMut(&str) -> bool) -> Option<Next> {
        for level in self.levels.values() {
            for (_, _, key) in &level.turns {
                if is_ready(key)
                    && let Some((place, _)) =
                        level.keys.get(key).and_then(|k| k.tasks.first_key_value())
                {
                    return Some(Next { place: *place, key: key.clone() });
                }
            }
        }
        None
    }

    /// The task that is next.
    pub(crate) fn peek(&self, next: &Next) -> Option<&Offer> {
        let level = self.levels.get(&next.place.lane.priority)?;
        level.keys.get(&next.key)?.tasks.get(&next.place).map(|held| &held.offer)
    }

    /// Takes a task out; its key has had its turn. `weight` is in thousandths.
    pub(crate) fn take(&mut self, next: &Next, weight: u32) -> Option<Held> {
        let level = self.levels.get_mut(&next.place.lane.priority)?;
        let mut turn = None;
        let held = level.with(&next.key, |key| {
            let held = key.tasks.remove(&next.place)?;
            turn = Some(key.pass);
            key.pass += (STRIDE / u64::from(weight.max(1))).max(1);
            Some(held)
        })?;
        level.pass = level.pass.max(turn.unwrap_or(0));
        if level.keys.len() > 2 * level.turns.len() + IDLE_KEYS_MAX {
            let pass = level.pass;
            level.keys.retain(|_, key| !key.tasks.is_empty() || key.pass > pass);
        }
        self.removed(next.place.lane);
        Some(held)
    }

    fn removed(&mut self, lane: Lane) {
        self.count -= 1;
        if let Some(count) = self.lanes.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                self.lanes.remove(&lane);
            }
        }
        if self.levels.get(&lane.priority).is_some_and(|l| l.turns.is_empty() && l.pass == 0) {
            self.levels.remove(&lane.priority);
        }
    }

    /// The key that has the most tasks of the last priority, and how many.
    pub(crate) fn longest_of_last(&self) -> Option<(u8, Arc<str>, usize)> {
        let (priority, level) = self.levels.iter().rev().find(|(_, l)| !l.turns.is_empty())?;
        let (key, state) = level.keys.iter().max_by_key(|(_, k)| k.tasks.len())?;
        Some((*priority, key.clone(), state.tasks.len()))
    }

    /// Tasks of a key.
    pub(crate) fn of_key(&self, priority: u8, key: &str) -> usize {
        self.levels.get(&priority).and_then(|l| l.keys.get(key)).map_or(0, |k| k.tasks.len())
    }

    /// The place of the last task of a key that has a row in its shard.
    pub(crate) fn last_of(&self, priority: u8, key: &str) -> Option<Place> {
        let key = self.levels.get(&priority)?.keys.get(key)?;
        key.tasks.last_key_value().map(|(place, _)| *place).filter(|place| place.sequence > 0)
    }

    /// Takes out the last tasks of a key, at most `count`, all of them with rows.
    pub(crate) fn take_last(&mut self, priority: u8, key: &Arc<str>, count: usize) -> Vec<Offer> {
        let mut taken = Vec::new();
        let Some(level) = self.levels.get_mut(&priority) else { return taken };
        level.with(key, |key| {
            while taken.len() < count
                && key.tasks.last_key_value().is_some_and(|(place, _)| place.sequence > 0)
            {
                taken.extend(key.tasks.pop_last().map(|(_, held)| held.offer));
            }
        });
        for offer in &taken {
            self.removed(Place::of(offer).lane);
        }
        taken
    }

    /// Takes out all tasks of a sticky queue.
    pub(crate) fn take_sticky(&mut self) -> Vec<Offer> {
        let mut taken = Vec::new();
        for level in self.levels.values_mut() {
            let keys: Vec<Arc<str>> = level.turns.iter().map(|(_, _, key)| key.clone()).collect();
            for key in keys {
                level.with(&key, |key| {
                    let (sticky, rest) = std::mem::take(&mut key.tasks)
                        .into_iter()
                        .partition(|(_, held)| held.offer.sticky);
                    key.tasks = rest;
                    let sticky: BTreeMap<Place, Held> = sticky;
                    taken.extend(sticky.into_values().map(|held| held.offer));
                });
            }
        }
        for offer in &taken {
            self.removed(Place::of(offer).lane);
        }
        taken
    }

    /// Whether there is a task of a sticky queue; a queue is sticky as a whole.
    pub(crate) fn is_sticky(&self) -> bool {
        let first = |level: &Level| {
            let (_, _, key) = level.turns.first()?;
            let (_, held) = level.keys.get(key)?.tasks.first_key_value()?;
            Some(held.offer.sticky)
        };
        self.levels.values().filter_map(first).any(|sticky| sticky)
    }

    /// When the oldest task came to be; for queries, when it came here.
    pub(crate) fn oldest(&self) -> Option<Time> {
        let keys = self.levels.values().flat_map(|level| level.keys.values());
        keys.filter_map(|key| key.tasks.first_key_value())
            .map(|(place, held)| match place.sequence {
                0 => held.since,
                nanos => Time::from_nanos(nanos),
            })
            .min()
    }
}
