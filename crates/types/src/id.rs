use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;

/// A namespace's unchanging identifier (its name is only a label).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NamespaceId(pub Uuid);

/// One run of a workflow execution. A UUIDv7, so that the records of new runs are
/// neighbours in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RunId(pub Uuid);

impl RunId {
    /// Before every run there is.
    pub const FIRST: RunId = RunId(Uuid::nil());

    /// An ID that follows from where it is made: the `n`th that `run` makes, at `now`. Two
    /// replicas that decide the same come to the same ID, and decisions stay free of
    /// randomness.
    #[must_use]
    pub fn derived(now: Time, run: RunId, n: u64) -> Self {
        // The mixing function of SplitMix64: 64 well-spread bits from any 64.
        let mix = |mut x: u64| {
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let (high, low) = run.0.as_u64_pair();
        let a = mix(high ^ mix(low ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let b = mix(low ^ mix(a.wrapping_add(n)));
        let mut random = [0; 10];
        random[..8].copy_from_slice(&a.to_be_bytes());
        random[8..].copy_from_slice(&b.to_be_bytes()[..2]);
        let millis = now.as_nanos() / 1_000_000;
        RunId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

/// A shard: one Raft group that owns a set of slots. Group 0 is the meta group, so shards
/// count from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of hash slots that shards divide among themselves. Never changes: a slot is
/// the unit in which work moves between shards.
pub const SLOTS: u32 = 16_384;

/// The slot of a workflow: CRC-32 of the namespace ID's bytes and the workflow ID.
/// Stable for ever, since it decides where stored executions are looked for.
#[must_use]
pub fn slot(namespace: NamespaceId, workflow_id: &str) -> u16 {
    let mut h = crc32fast::Hasher::new();
    h.update(namespace.0.as_bytes());
    h.update(workflow_id.as_bytes());
    // The remainder is below 2^14.
    (h.finalize() % SLOTS) as u16
}
