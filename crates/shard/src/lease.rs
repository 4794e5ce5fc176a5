//! Until when a shard's leader may answer from what it has, without asking the others.
//!
//! A leader that was cut off does not know it. What it reads is stale once another one commits.
//! So it asks a majority whether it leads still. None of those who said yes to a question votes
//! for another before an election's time has passed since; so long the leader may answer by
//! itself. (Raft, section 6.4.1.) Clocks only have to run at about the same speed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long a confirmation holds from the moment it was asked for. Followers wait for ten ticks of
/// at least 100 ms, the first of which may be short.
const LEASE: Duration = Duration::from_millis(700);
/// A lease with less than this left is renewed while it is used.
const RENEW: Duration = Duration::from_millis(350);
/// How long to wait before asking again.
const AGAIN: Duration = Duration::from_millis(100);

/// One shard's lease. `H` is what waits for it.
#[derive(Debug)]
pub(crate) struct Lease<H> {
    /// There is no other replica: nobody else can lead.
    is_alone: bool,
    until: Option<Instant>,
    /// Questions under way, in order, and when they were asked.
    asked: VecDeque<(u64, Instant)>,
    next_token: u64,
    held: VecDeque<(Instant, H)>,
}

impl<H> Lease<H> {
    pub(crate) fn new(is_alone: bool) -> Self {
        Self { is_alone, until: None, asked: VecDeque::new(), next_token: 0, held: VecDeque::new() }
    }

    /// Whether what was read at `now` may be answered.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        self.is_alone || self.until.is_some_and(|until| now <= until)
    }

    /// A token to ask for, if it is time to.
    pub(crate) fn renew(&mut self, now: Instant) -> Option<u64> {
        let is_fresh = self.until.is_some_and(|until| now + RENEW <= until);
        let is_asked = self.asked.back().is_some_and(|(_, at)| now < *at + AGAIN);
        if self.is_alone || is_fresh || is_asked {
            return None;
        }
        self.next_token += 1;
        self.asked.push_back((self.next_token, now));
        Some(self.next_token)
    }

    /// Keeps what was read at `now` until it may be answered.
    pub(crate) fn hold(&mut self, now: Instant, held: H) {
        self.held.push_back((now, held));
    }

    /// Whether something waits.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// A majority confirmed the question with `token`. Gives back what may be answered now.
    pub(crate) fn confirmed(&mut self, token: u64) -> Vec<H> {
        while let Some((asked, at)) = self.asked.front().copied() {
            if asked > token {
                break;
            }
            self.asked.pop_front();
            self.until = self.until.max(Some(at + LEASE));
        }
        let mut released = Vec::new();
        while self.held.front().is_some_and(|(at, _)| self.until >= Some(*at)) {
            released.extend(self.held.pop_front().map(|(_, held)| held));
        }
        released
    }

    /// Leadership was lost, or is about to be given away. Gives back what waited.
    pub(crate) fn end(&mut self) -> Vec<H> {
        self.until = None;
        self.asked.clear();
        self.held.drain(..).map(|(_, held)| held).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_waits_for_a_confirmation_that_covers_it() {
        let ms = Duration::from_millis;
        let t0 = Instant::now();
        let mut lease = Lease::new(false);
        assert!(!lease.is_valid(t0));
        assert_eq!(lease.renew(t0), Some(1));
        assert_eq!(lease.renew(t0 + ms(50)), None, "asked already");
        lease.hold(t0 + ms(10), "near");
        lease.hold(t0 + ms(900), "far");
        assert_eq!(lease.renew(t0 + ms(900)), Some(2));
        assert_eq!(lease.confirmed(1), ["near"]);
        assert!(lease.is_valid(t0 + LEASE) && !lease.is_valid(t0 + LEASE + ms(1)));
        assert!(lease.holds());
        assert_eq!(lease.confirmed(2), ["far"]);
        assert_eq!(lease.renew(t0 + ms(1_000)), None, "fresh");
        assert_eq!(lease.renew(t0 + ms(1_300)), Some(3));
        lease.hold(t0 + ms(1_300), "late");
        assert_eq!(lease.end(), ["late"]);
        assert!(!lease.is_valid(t0 + ms(1_300)));
        assert_eq!(lease.confirmed(3), Vec::<&str>::new());
    }

    #[test]
    fn the_only_replica_needs_none() {
        let mut lease = Lease::<()>::new(true);
        assert!(lease.is_valid(Instant::now()));
        assert_eq!(lease.renew(Instant::now()), None);
    }
}
