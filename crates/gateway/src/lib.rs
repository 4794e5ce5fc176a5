//! The gateway: what clients speak to.
//!
//! What lives here: both gRPC services ([`Frontend`]), the HTTP/JSON form of the same API,
//! validation, names to IDs, deadlines, how much of the node a namespace may use, what workers
//! tell of themselves (memory only), and the one table from errors to gRPC statuses. What may
//! not: decisions about executions, storage.
//!
//! ```text
//! gRPC ─ tonic ─┐
//!               ├─ table ─▶ Frontend::METHOD ─ validate ─▶ namespace ─▶ Shards::call
//! HTTP ─ actix ─┘ (transcoded by the descriptors)                 └───▶ Brokers::poll
//! ```
//!
//! Architecture invariant: HTTP has no handlers of its own; a route is an annotation in the
//! API's descriptors and ends in the gRPC method.

mod callbacks;
mod descriptors;
mod errors;
mod framing;
mod grpc;
mod http;
mod metrics;
mod quotas;
mod start;
mod validate;
mod workers;

pub use everspan_visibility::is_system_attribute;
pub use grpc::{Frontend, MetaQueueConfigs, RPCS};
pub use http::Transcoder;
pub use start::{Gateway, Options};
