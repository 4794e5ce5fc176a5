//! Which rows to read for a query: a superset of the matches, in the order of lists.
//!
//! A query is read along one of three ways: the records themselves; index rows of a few
//! values, merged; or index rows of all values with a prefix, if they are few. On each way
//! only that part of the order is read that the query's status and times leave open.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::{
    AttributeType, Query,
    attribute::{Field, STATUSES},
    eval::{Constant, Expr, Op, Order, Test},
    rows::{self, KEYWORD, RUN_ID, STATUS, WORKFLOW_ID, WORKFLOW_TYPE},
};

/// Most index values whose rows are merged; a query for more of them reads records.
const MERGED_MAX: usize = 256;

/// Where matches are found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Way {
    Records,
    /// Rows under any of these tags and values.
    Values(BTreeSet<(u8, Vec<u8>)>),
    /// Rows under a tag whose value begins so.
    Prefix(u8, Vec<u8>),
}

/// Times in microseconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span(pub(crate) i64, pub(crate) i64);

const ALWAYS: Span = Span(i64::MIN, i64::MAX);

impl Span {
    fn and(self, other: Span) -> Span {
        Span(self.0.max(other.0), self.1.min(other.1))
    }

    fn or(self, other: Span) -> Span {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Span(self.0.min(other.0), self.1.max(other.1))
    }

    /// Nothing happened before the epoch.
    pub(crate) fn is_empty(self) -> bool {
        self.0 > self.1 || self.1 < 0
    }
}

const NEVER: Span = Span(i64::MAX, i64::MIN);

/// The part of the order of lists that matches are in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    /// Start times of open runs.
    pub(crate) open: Span,
    /// Close times of closed runs.
    pub(crate) closed: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    pub(crate) window: Window,
}

impl Query {
    pub(crate) fn plan(&self) -> Plan {
        let all = Window { open: ALWAYS, closed: ALWAYS };
        let window = self.filter.as_ref().map_or(all, window);
        let way = match self.filter.as_ref().and_then(way) {
            // Open runs are together in the order of lists: no index finds them faster.
            Some((BY_STATUS, _)) if window.closed.is_empty() => Way::Records,
            Some((_, way)) => way,
            None => Way::Records,
        };
        Plan { way, window }
    }

    /// The statuses that the query asks for, if it asks for nothing else: such a count
    /// needs no records.
    pub(crate) fn statuses(&self) -> Option<Vec<i32>> {
        if self.names_division {
            return None;
        }
        match &self.filter {
            None => Some(STATUSES.collect()),
            Some(filter) => is_about_status(filter)
                .then(|| STATUSES.filter(|status| holds_for_status(filter, *status)).collect()),
        }
    }
}

fn is_about_status(expr: &Expr) -> bool {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter().all(is_about_status),
        Expr::Test(test) => test.field == Field::Status,
    }
}

fn holds_for_status(expr: &Expr, status: i32) -> bool {
    match expr {
        Expr::And(all) => all.iter().all(|e| holds_for_status(e, status)),
        Expr::Or(all) => all.iter().any(|e| holds_for_status(e, status)),
        Expr::Test(test) => test.holds_for_status(status),
    }
}

/// How many rows a way may be expected to read: less is better.
type Rank = u8;
const BY_STATUS: Rank = 7;
/// With more than these statuses, most of the records.
const STATUSES_MAX: usize = 3;

fn way(expr: &Expr) -> Option<(Rank, Way)> {
    if is_about_status(expr) {
        let all = STATUSES.filter(|status| holds_for_status(expr, *status));
        let values: BTreeSet<_> = all.map(|s| (STATUS, s.to_be_bytes().to_vec())).collect();
        return (values.len() <= STATUSES_MAX).then_some((BY_STATUS, Way::Values(values)));
    }
    match expr {
        Expr::And(all) => all.iter().filter_map(way).min_by_key(|(rank, _)| *rank),
        Expr::Or(all) => {
            let mut rank = 0;
            let mut values = BTreeSet::new();
            for part in all {
                let (part_rank, Way::Values(part)) = way(part)? else { return None };
                rank = rank.max(part_rank);
                values.extend(part);
                if values.len() > MERGED_MAX {
                    return None;
                }
            }
            Some((rank, Way::Values(values)))
        }
        Expr::Test(test) => test_way(test),
    }
}

fn test_way(test: &Test) -> Option<(Rank, Way)> {
    if test.is_negated {
        return None;
    }
    let (tag, rank) = match &test.field {
        Field::RunId => (RUN_ID, 0),
        Field::WorkflowId => (WORKFLOW_ID, 1),
        Field::Attribute(_, AttributeType::Keyword | AttributeType::KeywordList) => (KEYWORD, 2),
        Field::WorkflowType => (WORKFLOW_TYPE, 5),
        _ => return None,
    };
    let value = |text: &str| match &test.field {
        // What is not a run ID equals none.
        Field::RunId => Some(Uuid::parse_str(text).ok()?.into_bytes().to_vec()),
        Field::Attribute(name, _) => Some(rows::keyword(name, text)),
        _ => Some(text.as_bytes().to_vec()),
    };
    let values = |texts: &[&str]| {
        let values: BTreeSet<_> =
            texts.iter().filter_map(|text| Some((tag, value(text)?))).collect();
        (values.len() <= MERGED_MAX).then_some((rank, Way::Values(values)))
    };
    match &test.op {
        Op::Compare(Order::Equal, Constant::Text(text)) => values(&[text]),
        Op::InTexts(all) => values(&all.iter().map(String::as_str).collect::<Vec<_>>()),
        // The shorter the prefix, the more rows; and none of a run ID's text is in its key.
        Op::StartsWith(prefix) if tag != RUN_ID && !prefix.is_empty() => {
            Some((rank + 1, Way::Prefix(tag, value(prefix)?)))
        }
        _ => None,
    }
}

/// Whether runs of a status are open; both if it is none of the API's.
fn is_open(status: i32) -> Option<bool> {
    const RUNNING: i32 = 1;
    const PAUSED: i32 = 8;
    match status {
        0 => None,
        s => Some(s == RUNNING || s == PAUSED),
    }
}

fn window(expr: &Expr) -> Window {
    let all = Window { open: ALWAYS, closed: ALWAYS };
    let none = Window { open: NEVER, closed: NEVER };
    match expr {
        Expr::And(parts) => parts
            .iter()
            .map(window)
            .fold(all, |a, b| Window { open: a.open.and(b.open), closed: a.closed.and(b.closed) }),
        Expr::Or(parts) => parts
            .iter()
            .map(window)
            .fold(none, |a, b| Window { open: a.open.or(b.open), closed: a.closed.or(b.closed) }),
        Expr::Test(test) => test_window(test),
    }
}

fn test_window(test: &Test) -> Window {
    let when = |is: bool, span: Span| if is { span } else { NEVER };
    match test.field {
        Field::Status => {
            let may = |open: bool| {
                STATUSES.filter(|s| is_open(*s) != Some(!open)).any(|s| test.holds_for_status(s))
            };
            Window { open: when(may(true), ALWAYS), closed: when(may(false), ALWAYS) }
        }
        Field::StartTime => {
            let span = span(test);
            // Nothing closes before it starts.
            Window {
                open: span,
                closed: if span.is_empty() { NEVER } else { Span(span.0, i64::MAX) },
            }
        }
        Field::CloseTime
        | Field::ExecutionDuration
        | Field::HistoryLength
        | Field::HistorySize
        | Field::Transitions => {
            if test.op == Op::IsNull {
                let is_null = !test.is_negated;
                return Window { open: when(is_null, ALWAYS), closed: when(!is_null, ALWAYS) };
            }
            let is_close = test.field == Field::CloseTime;
            Window { open: NEVER, closed: if is_close { span(test) } else { ALWAYS } }
        }
        _ => Window { open: ALWAYS, closed: ALWAYS },
    }
}

/// The times that a comparison lets through, or more.
fn span(test: &Test) -> Span {
    let Test { op, is_negated, .. } = test;
    match op {
        Op::IsNull if !is_negated => NEVER,
        Op::Compare(order, Constant::Time(t)) => match (order, is_negated) {
            (Order::Equal, false) => Span(*t, *t),
            (Order::Less | Order::AtMost, false) | (Order::More | Order::AtLeast, true) => {
                Span(i64::MIN, *t)
            }
            (Order::More | Order::AtLeast, false) | (Order::Less | Order::AtMost, true) => {
                Span(*t, i64::MAX)
            }
            (Order::Equal, true) => ALWAYS,
        },
        Op::Between(Constant::Time(from), Constant::Time(to)) if !is_negated => Span(*from, *to),
        Op::In(all) if !is_negated => all
            .iter()
            .filter_map(|c| if let Constant::Time(t) = c { Some(Span(*t, *t)) } else { None })
            .fold(NEVER, Span::or),
        _ => ALWAYS,
    }
}
