//! What a run came to, as a line.

use std::{fmt, time::Duration};

use crate::server::Usage;

/// Durations, and what most of them are below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, one: Duration) {
        self.0.push(one);
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self
    }

    /// The duration that a share of `p` are not longer than, in milliseconds.
    pub(crate) fn quantile_ms(&self, p: f64) -> f64 {
        let at = (p * self.0.len().saturating_sub(1) as f64) as usize;
        self.0.get(at).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    /// What one of `done` is.
    pub(crate) unit: &'static str,
    pub(crate) done: u64,
    pub(crate) lost: u64,
    pub(crate) errors: u64,
    pub(crate) last_error: Option<String>,
    pub(crate) took: Duration,
    /// Of the call that begins each.
    pub(crate) calls: Latencies,
    /// From the call to the end of the whole; empty where there is no such end.
    pub(crate) ends: Latencies,
    pub(crate) before: Usage,
    pub(crate) after: Usage,
}

impl Report {
    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Processor time of the server for each one, in milliseconds.
    pub(crate) fn cpu_ms(&self) -> f64 {
        (self.after.cpu_s - self.before.cpu_s) * 1000.0 / self.done.max(1) as f64
    }

    fn log_writes(&self) -> f64 {
        (self.after.log_writes - self.before.log_writes) / self.done.max(1) as f64
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7} {} {} in {:.1} s: {:.0}/s, call p50 {:.2} ms p99 {:.2} ms",
            self.scenario,
            self.done,
            self.unit,
            self.took.as_secs_f64(),
            self.per_second(),
            self.calls.quantile_ms(0.5),
            self.calls.quantile_ms(0.99),
        )?;
        if !self.ends.0.is_empty() {
            let (p50, p99) = (self.ends.quantile_ms(0.5), self.ends.quantile_ms(0.99));
            write!(f, ", end p50 {p50:.1} ms p99 {p99:.1} ms")?;
        }
        write!(f, "; server {:.3} ms CPU each", self.cpu_ms())?;
        if self.after.log_writes > 0.0 {
            write!(f, ", {:.2} fsyncs each", self.log_writes())?;
        }
        write!(f, ", RSS {:.0} MiB", mib(self.after.rss))?;
        if self.after.disk > 0 {
            write!(f, ", disk {:.0} MiB", mib(self.after.disk))?;
        }
        if self.lost > 0 || self.errors > 0 {
            let last = self.last_error.as_deref().unwrap_or("none");
            write!(f, "\n        {} lost, {} errors; last: {last}", self.lost, self.errors)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut all = Latencies::default();
        for ms in (1..=100).rev() {
            all.add(Duration::from_millis(ms));
        }
        let all = all.sorted();
        assert_eq!((all.quantile_ms(0.0), all.quantile_ms(1.0)), (1.0, 100.0));
        assert_eq!(all.quantile_ms(0.5), 50.0);
        assert_eq!(Latencies::default().quantile_ms(0.99), 0.0);
    }
}
