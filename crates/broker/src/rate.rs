//! How many a second: measured over the last half minute, and limited.

use std::{collections::VecDeque, time::Duration};

use everspan_types::Time;

/// Window over which rates are measured; the real server's.
const WINDOW: Duration = Duration::from_secs(30);
/// One bucket of the window; the real server's.
const BUCKET: Duration = Duration::from_secs(5);
/// How much of a rate may be used in an instant; the real server's.
const BURST: Duration = Duration::from_secs(1);
/// Rates below this are none at all: their interval does not fit.
const RATE_MIN: f64 = 1e-9;

/// Events a second. Less than a window old, it divides by its age, as the real server does.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    began: Time,
    /// Begin of a bucket, and what is in it; oldest first.
    buckets: VecDeque<(Time, u32)>,
}

impl Rate {
    pub(crate) fn new(now: Time) -> Self {
        Self { began: now, buckets: VecDeque::new() }
    }

    fn bucket(&self, now: Time) -> Time {
        let bucket = u64::try_from(BUCKET.as_nanos()).unwrap_or(u64::MAX);
        let since = u64::try_from(now.since(self.began).as_nanos()).unwrap_or(u64::MAX);
        self.began + Duration::from_nanos(since / bucket * bucket)
    }

    pub(crate) fn count(&mut self, now: Time) {
        let bucket = self.bucket(now);
        match self.buckets.back_mut() {
            Some((at, n)) if *at >= bucket => *n += 1,
            _ => self.buckets.push_back((bucket, 1)),
        }
        while self.buckets.front().is_some_and(|(at, _)| now.since(*at) >= WINDOW + BUCKET) {
            self.buckets.pop_front();
        }
    }

    pub(crate) fn per_second(&self, now: Time) -> f64 {
        let bucket = self.bucket(now);
        let from = bucket - WINDOW;
        let sum: u32 = self.buckets.iter().filter(|(at, _)| *at >= from).map(|(_, n)| n).sum();
        let elapsed = (now.since(bucket) + WINDOW).min(now.since(self.began)).as_secs_f64();
        if elapsed > 0.0 { f64::from(sum) / elapsed } else { 0.0 }
    }

    /// Whether nothing is left in the window.
    pub(crate) fn is_quiet(&self, now: Time) -> bool {
        self.buckets.back().is_none_or(|(at, _)| now.since(*at) >= WINDOW + BUCKET)
    }
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// As often as it likes.
    None,
    /// Never.
    Never,
    /// Once in so long, with a second's worth at once.
    Every(Duration),
}

impl Limit {
    pub(crate) fn of(rate: Option<f64>) -> Self {
        match rate {
            None => Limit::None,
            Some(rate) if rate.is_infinite() => Limit::None,
            // NaN is as good as nothing.
            Some(rate) if rate.is_nan() || rate <= RATE_MIN => Limit::Never,
            Some(rate) => Limit::Every(Duration::from_secs_f64(1.0 / rate)),
        }
    }

    /// The limit of a key with a weight in thousandths.
    pub(crate) fn weighted(self, weight: u32) -> Self {
        match self {
            Limit::Every(each) => Limit::Every(each.mul_f64(1_000.0 / f64::from(weight.max(1)))),
            other => other,
        }
    }
}

/// A leaky bucket by its next ready time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Limiter {
    ready: Time,
}

impl Limiter {
    /// When the next may go.
    pub(crate) fn ready(&self, limit: Limit) -> Time {
        match limit {
            Limit::None => Time::ZERO,
            Limit::Never => Time::MAX,
            Limit::Every(_) => self.ready,
        }
    }

    /// One went.
    pub(crate) fn take(&mut self, limit: Limit, now: Time) {
        if let Limit::Every(each) = limit {
            self.ready = self.ready.max(now - BURST) + each;
        }
    }

    /// One came back.
    pub(crate) fn give_back(&mut self, limit: Limit) {
        if let Limit::Every(each) = limit {
            self.ready = self.ready - each;
        }
    }

    /// The limit changed: what was far off under the old one is not further than one step of
    /// the new one.
    pub(crate) fn clip(&mut self, limit: Limit, now: Time) {
        if let Limit::Every(each) = limit {
            self.ready = self.ready.min(now + each + BURST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_millis(1_000_000);

    #[test]
    fn a_second_at_once_then_the_rate() {
        let limit = Limit::of(Some(10.0));
        let mut limiter = Limiter::default();
        let mut now = T0;
        let mut taken = 0;
        while limiter.ready(limit) <= now {
            limiter.take(limit, now);
            taken += 1;
        }
        assert_eq!(taken, 11);
        let mut later = 0;
        for _ in 0..100 {
            now = now + Duration::from_millis(50);
            while limiter.ready(limit) <= now {
                limiter.take(limit, now);
                later += 1;
            }
        }
        assert_eq!(later, 50);
    }

    #[test]
    fn zero_is_a_pause_that_ends_when_the_rate_changes() {
        let never = Limit::of(Some(0.0));
        let mut limiter = Limiter::default();
        assert_eq!(limiter.ready(never), Time::MAX);
        limiter.clip(Limit::of(Some(2.0)), T0);
        assert!(limiter.ready(Limit::of(Some(2.0))) <= T0);
    }

    #[test]
    fn a_young_rate_divides_by_its_age() {
        let mut rate = Rate::new(T0);
        let now = T0 + Duration::from_secs(2);
        for _ in 0..10 {
            rate.count(now);
        }
        assert!((rate.per_second(now) - 5.0).abs() < 1e-9);
        let later = T0 + Duration::from_secs(31);
        assert!((rate.per_second(later) - 10.0 / 31.0).abs() < 1e-9);
        assert!(rate.per_second(T0 + Duration::from_secs(60)) == 0.0);
        assert!(rate.is_quiet(T0 + Duration::from_secs(60)));
    }
}
