//! everspan-benches
