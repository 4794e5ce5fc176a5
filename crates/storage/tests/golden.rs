//! Batches in the log, as every release wrote them.

#![allow(clippy::unwrap_used)]

use everspan_storage::Batch;
use everspan_types::golden::Kind;

#[test]
fn golden_batches() {
    let mut sample = Batch::default();
    sample.put(&b"key"[..], &b"value"[..]);
    sample.delete(&b"gone"[..]);
    sample.put(&b"empty"[..], &b""[..]);
    let rows = vec![(Vec::new(), sample.encode().to_vec())];
    let kind =
        Kind { manifest_dir: env!("CARGO_MANIFEST_DIR"), name: "batch", version: rows[0].1[0] };
    kind.check(&sample, &rows, |rows| Batch::decode(&rows[0].1.clone().into()));
}
