//! The identity of a data directory, as every release wrote it.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use everspan_server::{DataDir, data_dir::FORMAT};

/// Formats that a release read and that this one must read as well.
const FORMATS: std::ops::RangeInclusive<u32> = 1..=FORMAT;

#[test]
fn golden_identity() {
    for format in FORMATS {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let file = golden.join(format!("everspan.v{format}.json"));
        let dir = tempfile::tempdir().unwrap();
        fs::copy(&file, dir.path().join("everspan.json")).unwrap_or_else(|e| {
            panic!("{}: {e}: put an everspan.json of format {format} there", file.display())
        });
        let data = DataDir::open(dir.path(), None).unwrap();
        assert_eq!(data.identity().shards, 3);
        assert_eq!(data.identity().node_id.as_u128(), 7);
        assert_eq!(data.identity().created_by, "0.1.0");
    }
}
