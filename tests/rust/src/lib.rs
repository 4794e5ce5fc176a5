//! Tests that need several crates, or the checkout itself, and so belong to no crate.
//!
//! What lives here: `tests/tidy.rs`, which holds code and documents to the rules of the house;
//! [`fuzz`], what must hold of any input, which `tests/fuzz.rs` and the targets in `fuzz/` feed.
//! What may not: tests of one crate; they stand beside it.

pub mod fuzz;
