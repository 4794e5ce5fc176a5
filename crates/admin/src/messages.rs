//! What is said. The tags never change their meaning.

use serde::Serialize;

/// Asks for [`Cluster`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetClusterRequest {}

/// The cluster, as the node that is asked knows it and the others say of themselves.
#[derive(Clone, PartialEq, Serialize, prost::Message)]
pub struct Cluster {
    /// Names it for ever.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The node that leads the meta group; 0 if none is known to.
    #[prost(uint64, tag = "3")]
    pub meta_leader: u64,
    /// Its nodes, by number.
    #[prost(message, repeated, tag = "4")]
    pub nodes: Vec<Node>,
    /// Its shards, by number.
    #[prost(message, repeated, tag = "5")]
    pub shards: Vec<Shard>,
}

/// A node.
#[derive(Clone, PartialEq, Serialize, prost::Message)]
pub struct Node {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// `HOST:PORT` where other nodes speak to it.
    #[prost(string, tag = "2")]
    pub address: String,
    /// What is to become of it: `up`, `draining` or `removed`.
    #[prost(string, tag = "3")]
    pub state: String,
    /// Whether it answers.
    #[prost(bool, tag = "4")]
    pub is_there: bool,
    /// Replicas that it has, whether it is to have them or not; 0 if it does not answer.
    #[prost(uint32, tag = "5")]
    pub replicas: u32,
    /// Shards that it leads.
    #[prost(uint32, tag = "6")]
    pub leads: u32,
    /// Whether it votes in the meta group.
    #[prost(bool, tag = "7")]
    pub is_meta_voter: bool,
}

/// A shard.
#[derive(Clone, PartialEq, Serialize, prost::Message)]
pub struct Shard {
    /// Its number, from 1 on.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The node that leads it; 0 if none is known to.
    #[prost(uint64, tag = "2")]
    pub leader: u64,
    /// The nodes that are to have replicas.
    #[prost(uint64, repeated, tag = "3")]
    pub wanted: Vec<u64>,
    /// The nodes that vote.
    #[prost(uint64, repeated, tag = "4")]
    pub voters: Vec<u64>,
    /// The nodes that have a replica and do not vote.
    #[prost(uint64, repeated, tag = "5")]
    pub learners: Vec<u64>,
    /// Nodes that answer and have all entries of the log, but for the latest.
    #[prost(uint64, repeated, tag = "6")]
    pub close: Vec<u64>,
    /// Whether the members are as they are to be.
    #[prost(bool, tag = "7")]
    pub is_settled: bool,
    /// Raft's term.
    #[prost(uint64, tag = "8")]
    pub term: u64,
    /// Index of the last entry of its log that is committed.
    #[prost(uint64, tag = "9")]
    pub committed: u64,
}

/// Has what a node has go to others. It takes calls all the while, and may be stopped once it has no
/// replicas.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DrainNodeRequest {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// It is to have its part again, instead.
    #[prost(bool, tag = "2")]
    pub undo: bool,
}

/// Takes a node out of the cluster, for ever. It must have no replicas, or be away so long that they
/// are elsewhere.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveNodeRequest {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub node: u64,
}

/// Has a node lead a shard. The cluster spreads leaders by itself: this does not last where others
/// lead fewer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransferLeaderRequest {
    /// Which shard.
    #[prost(uint32, tag = "1")]
    pub shard: u32,
    /// Which node: one of those that are close.
    #[prost(uint64, tag = "2")]
    pub node: u64,
}

/// It is done, or noted to be done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Done {}
