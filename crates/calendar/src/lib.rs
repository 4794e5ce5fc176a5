//! Calendar arithmetic: when a workflow's cron schedule is due, and when a Schedule is.
//!
//! What lives here: [`Cron`] (a `cron_schedule`), [`validate`] (what a start is refused with),
//! [`backoff`] (how long the next run of a cron workflow waits), [`Spec`] (the times of a Schedule: calendars,
//! intervals, cron strings, exclusions, jitter), and [`Zone`] (a time zone, from the database that
//! is linked in). What may not: clocks, files, the machine's own zone. Now
//! comes in as a parameter, and a result is an instant or a duration.
//!
//! ```text
//! text ─ parse ─▶ Cron ─┬─ Fields: sets of minutes, hours, days ─ search ─┐
//!                       └─ Every: a delay ───────────────────────────────┴─▶ Time
//!                              Zone: instant ◀─▶ date and clock
//! ```
//!
//! ```text
//! ScheduleSpec ─ compile ─▶ Spec ─ next(seed, after) ─▶ Due { nominal, next }
//!     cron strings, calendars ─ text ─▶ structured calendars, intervals
//! ```
//!
//! A Schedule's cron strings are not a workflow's: they may have seconds and years, know the
//! beginnings of names, and a day must match both of its fields.
//!
//! The rules, odd ones included, are those of the library that the Temporal server uses
//! (`robfig/cron` 3.0.1, `ParseStandard`) and, for Schedules, its own; `tests/robfig.rs` and
//! `tests/temporal.rs` compare with what those answered. A workflow that moves over keeps its hours.

mod civil;
mod cron;
mod duration;
mod spec;
mod zone;

pub use cron::{Cron, Error, Invalid, backoff, validate};
pub use spec::{Due, Error as SpecError, Spec, TooManyExcluded, fill_defaults};
pub use zone::Zone;
