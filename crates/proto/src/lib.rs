//! The Temporal API's messages and services, generated at build time from the protobuf
//! sources that the crate `temporalio-protos` ships.
//!
//! What lives here: generated types (payload bytes are [`bytes::Bytes`], so that a message
//! is taken from the wire without copying them), generated tonic clients and servers, the
//! descriptor set itself, and shorter paths to all of these. What may not: behaviour.
//! Nothing here knows what a message means.
//!
//! ```text
//! temporalio-protos ─ sources ─ build.rs ─┬─ messages, stubs   (this crate)
//!                                         └─ DESCRIPTORS       (reflection, HTTP routes)
//! ```

#![allow(missing_docs, unreachable_pub)]

/// Generated code, by protobuf package.
#[allow(clippy::all, clippy::pedantic, rustdoc::all)]
mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

pub use api::*;

/// `temporal.api.PACKAGE.v1` under the short name PACKAGE.
pub use short::*;
mod short {
    pub use super::api::temporal::api::{
        activity::v1 as activity, batch::v1 as batch, command::v1 as command, common::v1 as common,
        deployment::v1 as deployment, enums::v1 as enums, errordetails::v1 as errordetails,
        failure::v1 as failure, filter::v1 as filter, history::v1 as history,
        namespace::v1 as namespace, nexus::v1 as nexus_api, operatorservice::v1 as operatorservice,
        protocol::v1 as protocol, query::v1 as query, replication::v1 as replication,
        rules::v1 as rules, schedule::v1 as schedule, sdk::v1 as sdk, taskqueue::v1 as taskqueue,
        update::v1 as update, version::v1 as version, worker::v1 as worker,
        workflow::v1 as workflow, workflowservice::v1 as workflowservice,
    };
}

/// The encoded `google.protobuf.FileDescriptorSet` of every package above, options such
/// as `google.api.http` included; comments, and imports of other packages, left out.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
