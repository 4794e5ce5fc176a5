//! What is on the wire.

use bytes::Bytes;

/// A sign of life.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    /// The node that says it.
    #[prost(uint64, tag = "1")]
    pub(crate) node: u64,
    /// Whether it is about to stop.
    #[prost(bool, tag = "2")]
    pub(crate) is_leaving: bool,
    /// The ID of its cluster; empty while it knows of none.
    #[prost(string, tag = "4")]
    pub(crate) founded: String,
    /// Whether it took part in a cluster before it started.
    #[prost(bool, tag = "5")]
    pub(crate) is_old: bool,
    /// In an answer: whether whoever asked is none of the nodes that it knows.
    #[prost(bool, tag = "6")]
    pub(crate) is_stranger: bool,
    /// Its release.
    #[prost(string, tag = "3")]
    pub(crate) release: String,
}

/// Something from one node to another.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Envelope {
    /// Which part of the node understands it.
    #[prost(uint32, tag = "1")]
    pub(crate) topic: u32,
    /// What it is.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) body: Bytes,
}
