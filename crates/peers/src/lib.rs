//! How the nodes of a cluster speak to each other.
//!
//! What lives here: [`Peers`], one node's ways to the others; [`View`], which of them are there.
//! What may not: what is said, which the crates above encode.
//!
//! ```text
//! log thread ─ batch ─▶ Peers::send ─ stream, lossy, in order ─▶ Service::log
//! anybody ─ question ─▶ Peers::ask ── one call each ───────────▶ Service::ask ─▶ answer
//! every 200 ms ───────▶ hello ─────── a sign of life ──────────▶ View, at both ends
//! ```
//!
//! There are two HTTP/2 connections from a node to each other one: one for the log and the signs
//! of life, which must not wait behind large answers, and one for everything else.
//!
//! Architecture invariant: nothing is taken from a node of another cluster, of another protocol
//! version, or that is not known as one of the nodes; only the meta group answers one that is new.

mod links;
mod messages;
mod server;
mod view;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/everspan.peers.v1.Peers.rs"));
}

pub use links::{AskError, Options, Peers, Standing};
pub use server::{Answer, Listening, Service, Topic};
pub use view::View;
