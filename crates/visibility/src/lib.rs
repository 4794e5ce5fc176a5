//! The list and count index of a shard: records, rows, filter language, planner.
//!
//! What lives here: [`Record`] (what a list shows of one run), [`change`] (the rows that a
//! change to a record puts and deletes), [`Query`] (the filter language) and [`list`] /
//! [`count`] over ordered rows; [`WorkerQuery`], the filter of workers. What may not: I/O, clocks. The shard writes the rows in the
//! batch of the change itself, so that a list sees what was acknowledged.
//!
//! ```text
//! v NAMESPACE p SORT            ─▶ Record        every run, in the order of lists
//! v NAMESPACE i ATTR VALUE SORT ─▶ (nothing)     one row for each indexed attribute
//!
//! text ─ lex ─ syntax ─ parse ─▶ Query ─ plan ─▶ rows to read ─ page ─▶ records, counts
//!                                  └──── eval (does a record match?) ────┘
//! ```
//!
//! SORT is the default order of lists: open runs first, latest start first; then closed ones,
//! latest close first. Every index is in that order within a value, so that a page is read
//! off and never sorted. It is also what a page token holds: a run that stays where it is, is
//! neither left out nor shown twice, whatever opens and closes between two pages.

mod ast;
mod attribute;
mod eval;
mod keyword;
mod legacy;
mod lex;
mod page;
mod parse;
mod plan;
mod record;
mod rows;
mod syntax;
mod time;
mod value;
mod workers;

pub use attribute::{
    AttributeType, is_system_attribute, settable_system_attribute, status_name, system_attributes,
};
pub use legacy::{closed_query, open_query};
pub use page::{
    Counts, Cursor, Group, ListPage, PageToken, Rows, count, count_response, list, merge_counts,
    merge_pages,
};
pub use parse::{QUERY_BYTES_MAX, Query};
pub use record::Record;
pub use rows::{change, rows};
pub use value::{Value, attributes, is_valid};
pub use workers::WorkerQuery;
