//! Who polls a queue: the polls that wait, and those who polled lately.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use everspan_proto::deployment::WorkerDeploymentOptions;
use everspan_types::{Poller, Time, wire};
use serde::{Deserialize, Serialize};

/// Polls that wait at a time; a further one is answered empty at once.
pub const POLLS_MAX: usize = 10_000;
/// How long a poller is remembered after its last poll; the real server's.
pub const POLLER_MEMORY: Duration = Duration::from_secs(5 * 60);
/// Pollers remembered; the real server's.
pub const POLLERS_MAX: usize = 1_000;

/// A recent poller, as DescribeTaskQueue shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollerInfo {
    /// The worker's identity.
    pub identity: String,
    /// Its last poll.
    pub last_access: Time,
    /// Its version stamp.
    #[serde(with = "wire::optional")]
    pub worker_version: Option<everspan_proto::common::WorkerVersionStamp>,
    /// The rate that it asked for, in tasks a second.
    pub tasks_per_second_max: Option<f64>,
    /// What it says of its deployment.
    #[serde(with = "wire::optional")]
    pub deployment_options: Option<WorkerDeploymentOptions>,
}

#[derive(Debug)]
pub(crate) struct Poll {
    pub(crate) poller: Poller,
    pub(crate) since: Time,
    deadline: Time,
}

#[derive(Debug, Default)]
pub(crate) struct Pollers {
    polls: HashMap<u64, Poll>,
    /// Those of `polls` that are not being answered, oldest first.
    waiting: BTreeSet<u64>,
    /// Deadlines of those.
    deadlines: BTreeSet<(Time, u64)>,
    seen: HashMap<String, PollerInfo>,
    pub(crate) last_poll: Option<Time>,
}

impl Pollers {
    /// A poll arrives; false if there is no room for it.
    pub(crate) fn add(&mut self, now: Time, id: u64, poller: Poller, deadline: Time) -> bool {
        self.remember(now, &poller);
        if self.polls.len() >= POLLS_MAX {
            return false;
        }
        self.polls.insert(id, Poll { poller, since: now, deadline });
        self.deadlines.insert((deadline, id));
        self.waiting.insert(id);
        true
    }

    fn remember(&mut self, now: Time, poller: &Poller) {
        self.last_poll = Some(now);
        if self.seen.len() >= POLLERS_MAX && !self.seen.contains_key(&poller.identity) {
            self.seen.retain(|_, p| now.since(p.last_access) < POLLER_MEMORY / 5);
            if self.seen.len() >= POLLERS_MAX {
                return;
            }
        }
        let info = PollerInfo {
            identity: poller.identity.clone(),
            last_access: now,
            worker_version: poller.worker_version.clone(),
            tasks_per_second_max: poller.tasks_per_second_max,
            deployment_options: poller.deployment_options.clone(),
        };
        self.seen.insert(poller.identity.clone(), info);
    }

    /// Forgets one who polled.
    pub(crate) fn forget(&mut self, identity: &str) {
        self.seen.remove(identity);
    }

    /// Takes the oldest waiting poll to be answered; it may come back to wait.
    pub(crate) fn next(&mut self) -> Option<(u64, &Poll)> {
        let id = self.waiting.pop_first()?;
        let poll = self.polls.get(&id)?;
        self.deadlines.remove(&(poll.deadline, id));
        Some((id, poll))
    }

    /// It waits again, in its old place.
    pub(crate) fn wait_again(&mut self, id: u64) {
        if let Some(poll) = self.polls.get(&id) {
            self.deadlines.insert((poll.deadline, id));
            self.waiting.insert(id);
        }
    }

    /// A poll is over.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Poll> {
        let poll = self.polls.remove(&id)?;
        self.deadlines.remove(&(poll.deadline, id));
        self.waiting.remove(&id);
        Some(poll)
    }

    /// Ends the waiting polls that are meant, and says which.
    pub(crate) fn release(&mut self, is_meant: impl Fn(&Poller) -> bool) -> Vec<u64> {
        let polls = &self.polls;
        let is_meant = |id: &u64| polls.get(id).is_some_and(|p| is_meant(&p.poller));
        let ids: Vec<u64> = self.waiting.iter().copied().filter(is_meant).collect();
        for id in &ids {
            self.remove(*id);
        }
        ids
    }

    /// Ends the polls that waited long enough, and says which.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.remove(id);
            ids.push(id);
        }
        ids
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.polls.is_empty()
    }

    /// How many polled lately.
    pub(crate) fn seen_count(&self) -> usize {
        self.seen.len()
    }

    /// Those who polled lately, latest first.
    pub(crate) fn seen(&self, now: Time) -> Vec<PollerInfo> {
        let is_recent = |p: &&PollerInfo| now.since(p.last_access) < POLLER_MEMORY;
        let mut all: Vec<PollerInfo> = self.seen.values().filter(is_recent).cloned().collect();
        all.sort_by_key(|p| std::cmp::Reverse(p.last_access));
        all
    }
}
