//! How long closed runs are kept.

use std::{fmt, sync::Arc, time::Duration};

use everspan_types::{NamespaceId, Time};

use crate::{outcome::Outcome, run::Run, shard::Shard};

type Lookup = dyn Fn(NamespaceId) -> Option<Duration> + Send + Sync;

/// Looks the retention of a namespace up as it is now; none where its runs are kept for good.
#[derive(Clone)]
pub struct Retention(Arc<Lookup>);

impl Retention {
    /// Asks `lookup` each time.
    #[must_use]
    pub fn new(lookup: impl Fn(NamespaceId) -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    /// The same for every namespace.
    #[must_use]
    pub fn constant(retention: Duration) -> Self {
        Self::new(move |_| Some(retention))
    }

    /// The retention of a namespace.
    #[must_use]
    pub fn of(&self, namespace: NamespaceId) -> Option<Duration> {
        (self.0)(namespace)
    }
}

impl Default for Retention {
    /// Keeps everything.
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retention")
    }
}

impl Run {
    /// When a closed run is to be deleted, as things stand.
    pub(crate) fn expires_at(&self, shard: &Shard) -> Option<Time> {
        let closed = self.state.info.close_time?;
        Some(closed + shard.retention.of(self.state.info.namespace)?)
    }

    /// The wake-up of a closed run: it is deleted if its time is over by what is in force now,
    /// or else waits on.
    pub(crate) fn wake_closed(&mut self, shard: &mut Shard, now: Time, out: &mut Outcome) {
        match self.expires_at(shard) {
            Some(at) if at <= now => {
                if let Err(error) = self.purge(shard, out) {
                    // Its wake-up row stands, and comes again.
                    tracing::error!(run_id = %self.id(), %error, "a run cannot be deleted");
                    *out = Outcome::default();
                    shard.wake_later(self.id(), now);
                }
            }
            _ => {
                self.record_wake(shard, &mut out.batch);
                self.record_rows(out);
            }
        }
    }
}
