//! What a group tells its shard.

use bytes::Bytes;

/// What a group tells its shard, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This replica leads, and every entry of earlier terms was told.
    Leader {
        /// The term.
        term: u64,
    },
    /// An entry is committed.
    Committed {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// The proposal's number, if it was made by this leader in this term and nothing was
        /// refused since: the proposer has it staged. Otherwise the data is to be applied.
        seq: Option<u64>,
        /// What was proposed; empty for entries of Raft's own.
        data: Bytes,
    },
    /// A proposal was not taken and never will be. What was decided on top of it must not be
    /// committed either, so that every later proposal of the group is refused, too, until the
    /// group leads again: `Lost` and `Leader` follow as soon as the log can be written. What
    /// was proposed before and is still under way comes as `Committed` without `seq`.
    ///
    /// The proposer drops what it has staged, as on `Lost`.
    Refused {
        /// The proposal's number.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// Another replica leads, or, with 0, none that is known.
    Follows {
        /// The leader's node.
        leader: u64,
    },
    /// This replica lacks entries that the leader does not have any more. Its rows are to be made
    /// of another replica's, as of `index` or later; then [`crate::Node::restored`] is to be
    /// called. Until then it takes no further entries; what it has may still be committed.
    Behind {
        /// Index that the other replica's rows must have at least.
        index: u64,
        /// The term of the entry there.
        term: u64,
        /// The leader's node.
        from: u64,
    },
    /// This replica led still when [`crate::Node::confirm`] was called with this token: a
    /// majority said so since.
    Confirmed {
        /// The token; every lower one is confirmed with it.
        token: u64,
    },
    /// This replica leads no more: nothing is known of proposals that were not committed.
    Lost,
}
