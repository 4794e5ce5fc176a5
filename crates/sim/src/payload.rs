//! Payloads that the simulation finds again.

use everspan_proto::common::{Payload, Payloads};

/// A payload with this text.
pub(crate) fn text(text: &str) -> Option<Payloads> {
    let data = bytes::Bytes::copy_from_slice(text.as_bytes());
    Some(Payloads { payloads: vec![Payload { data, ..Payload::default() }] })
}

/// The text of a payload; empty if there is none.
pub(crate) fn read(payloads: Option<&Payloads>) -> String {
    let first = payloads.and_then(|p| p.payloads.first());
    first.map(|p| String::from_utf8_lossy(&p.data).into_owned()).unwrap_or_default()
}

/// The number of a payload; 0 if there is none.
pub(crate) fn number(payloads: Option<&Payloads>) -> u64 {
    read(payloads).parse().unwrap_or(0)
}
