//! The admin service of a cluster, `everspan.admin.v1.Admin`: what an operator asks of it.
//!
//! What lives here: the service's messages, its client and its server's trait. What may not: what
//! the answers are, which the server knows.
//!
//! ```text
//! everspan cluster … ─ AdminClient ─ gRPC, a node's client port ─▶ AdminServer ─▶ crates/server
//! ```
//!
//! Any node answers for all of them. Errors are gRPC statuses: `NOT_FOUND` for a node or a shard that
//! is not there, `FAILED_PRECONDITION` with a reason for what cannot be now, `UNAVAILABLE` where
//! no majority can be reached.

mod messages;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/everspan.admin.v1.Admin.rs"));
}

pub use messages::{
    Cluster, Done, DrainNodeRequest, GetClusterRequest, Node, RemoveNodeRequest, Shard,
    TransferLeaderRequest,
};
pub use stubs::{
    admin_client::AdminClient,
    admin_server::{Admin, AdminServer},
};
