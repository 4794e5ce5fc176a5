//! What is configured for one queue, and the rates that follow from it.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

use everspan_proto::enums::RateLimitSource;
use everspan_types::{Priority, QueueKey, Time, weight_thousandths};

use crate::rate::{Limit, Limiter};

/// Fairness keys whose limits are remembered; the real server's.
const KEYS_MAX: usize = 2_000;

/// What operators set for a queue (UpdateTaskQueueConfig).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueConfig {
    /// Tasks a second, of the whole queue; 0 is a pause.
    pub rate: Option<f32>,
    /// Tasks a second of each fairness key with a weight of 1.
    pub fairness_key_rate: Option<f32>,
    /// Weights that stand in place of those that tasks carry.
    pub weights: BTreeMap<String, f32>,
}

/// Where queues' configuration is looked up.
pub trait QueueConfigs: Send + Sync + 'static {
    /// That of a queue.
    fn config(&self, queue: &QueueKey) -> Arc<QueueConfig>;
}

/// The rates of one queue.
#[derive(Debug)]
pub(crate) struct Limits {
    config: Arc<QueueConfig>,
    /// The last poll's wish.
    worker: Option<f64>,
    system: f64,
    whole: Limit,
    whole_used: Limiter,
    key: Limit,
    keys_used: HashMap<Arc<str>, Limiter>,
}

impl Limits {
    pub(crate) fn new(config: Arc<QueueConfig>, system: f64) -> Self {
        let mut limits = Self {
            config,
            worker: None,
            system,
            whole: Limit::None,
            whole_used: Limiter::default(),
            key: Limit::None,
            keys_used: HashMap::new(),
        };
        limits.apply(Time::ZERO);
        limits
    }

    pub(crate) fn configure(&mut self, config: Arc<QueueConfig>, now: Time) {
        self.config = config;
        self.apply(now);
    }

    /// A worker polled; the last one's wish counts.
    pub(crate) fn polled(&mut self, wish: Option<f64>, now: Time) {
        if self.worker != wish {
            self.worker = wish;
            self.apply(now);
        }
    }

    fn apply(&mut self, now: Time) {
        let whole = Limit::of(Some(self.effective().0));
        if whole != self.whole {
            self.whole = whole;
            self.whole_used.clip(whole, now);
        }
        let key = Limit::of(self.config.fairness_key_rate.map(f64::from));
        if key != self.key {
            self.key = key;
            if key == Limit::None {
                self.keys_used.clear();
            }
            for used in self.keys_used.values_mut() {
                used.clip(key, now);
            }
        }
    }

    /// The rate in force, and who set it: the API before workers, the system above both.
    pub(crate) fn effective(&self) -> (f64, RateLimitSource) {
        let (rate, source) = match (self.config.rate, self.worker) {
            (Some(rate), _) => (f64::from(rate), RateLimitSource::Api),
            (None, Some(rate)) => (rate, RateLimitSource::Worker),
            (None, None) => (f64::INFINITY, RateLimitSource::System),
        };
        if rate < self.system { (rate, source) } else { (self.system, RateLimitSource::System) }
    }

    /// A task's weight in thousandths.
    pub(crate) fn weight(&self, priority: &Priority) -> u32 {
        match self.config.weights.get(&priority.fairness_key) {
            Some(weight) => weight_thousandths(*weight),
            None => priority.fairness_weight,
        }
    }

    /// When the queue's next task may go.
    pub(crate) fn ready(&self) -> Time {
        self.whole_used.ready(self.whole)
    }

    /// When a key's next task may go, the queue aside.
    pub(crate) fn key_ready(&self, key: &str) -> Time {
        if self.key == Limit::None {
            return Time::ZERO;
        }
        self.keys_used.get(key).copied().unwrap_or_default().ready(self.key)
    }

    pub(crate) fn take(&mut self, key: &Arc<str>, weight: u32, now: Time) {
        self.whole_used.take(self.whole, now);
        if self.key == Limit::None {
            return;
        }
        if self.keys_used.len() >= KEYS_MAX && !self.keys_used.contains_key(key) {
            let limit = self.key;
            self.keys_used.retain(|_, used| used.ready(limit) > now);
        }
        if self.keys_used.len() < KEYS_MAX || self.keys_used.contains_key(key) {
            let limit = self.key.weighted(weight);
            self.keys_used.entry(key.clone()).or_default().take(limit, now);
        }
    }

    pub(crate) fn give_back(&mut self, key: &str, weight: u32) {
        self.whole_used.give_back(self.whole);
        if let Some(used) = self.keys_used.get_mut(key) {
            used.give_back(self.key.weighted(weight));
        }
    }
}
