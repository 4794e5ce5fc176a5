//! What a filter means for a record: SQL, where a comparison with a missing attribute is
//! neither true nor false, and so never in a result. Attributes of the types Text and
//! KeywordList are the exception: what is missing there does not contain what is asked for.
//!
//! Keywords are compared by their bytes, words without regard to case. (The real server's
//! stores differ among themselves here: with SQLite, STARTS_WITH and KeywordList ignore case.)

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

use crate::{Record, Value, attribute::Field};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Expr {
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Test(Test),
}

/// One comparison, or the negation of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Test {
    pub(crate) field: Field,
    pub(crate) op: Op,
    pub(crate) is_negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    Equal,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Op {
    IsNull,
    Compare(Order, Constant),
    /// Both ends included.
    Between(Constant, Constant),
    StartsWith(String),
    /// Any of these texts, in order.
    InTexts(Vec<String>),
    In(Vec<Constant>),
}

/// A value that fits its field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Constant {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    /// Microseconds since the epoch: what lists are ordered and filtered by.
    Time(i64),
    /// A status, and as it was written.
    Status(i32, String),
    /// Only while a filter is read.
    Tuple(Vec<Constant>),
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Constant::Text(text) | Constant::Status(_, text) => f.write_str(text),
            Constant::Int(n) => write!(f, "{n}"),
            Constant::Double(n) => write!(f, "{n}"),
            Constant::Bool(b) => write!(f, "{b}"),
            Constant::Time(t) => write!(f, "{t}"),
            Constant::Tuple(all) => {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", all.join(" "))
            }
        }
    }
}

/// A record's value of a field.
enum Found<'a> {
    Text(Cow<'a, str>),
    List(&'a [String]),
    Words(&'a str),
    Int(i64),
    Double(f64),
    Bool(bool),
    Time(i64),
    Status(i32),
}

/// Whole microseconds, as far as 64 bits reach.
pub(crate) fn micros(nanos: i128) -> i64 {
    let micros = nanos.div_euclid(1000);
    i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX })
}

/// Microseconds of an instant.
pub(crate) fn micros_of(time: everspan_types::Time) -> i64 {
    micros(i128::from(time.as_nanos()))
}

impl Expr {
    pub(crate) fn holds(&self, record: &Record) -> bool {
        match self {
            Expr::And(all) => all.iter().all(|e| e.holds(record)),
            Expr::Or(all) => all.iter().any(|e| e.holds(record)),
            Expr::Test(test) => test.holds(record),
        }
    }
}

impl Test {
    pub(crate) fn new(field: Field, op: Op) -> Test {
        Test { field, op, is_negated: false }
    }

    fn holds(&self, record: &Record) -> bool {
        let found = find(&self.field, record);
        if self.op == Op::IsNull {
            return found.is_none() != self.is_negated;
        }
        match found {
            Some(found) => self.op.holds(&found) != self.is_negated,
            None => self.is_negated && self.field.is_set(),
        }
    }

    /// Whether it holds for runs with this status, if it is about the status.
    pub(crate) fn holds_for_status(&self, status: i32) -> bool {
        match self.op {
            Op::IsNull => self.is_negated,
            _ => self.op.holds(&Found::Status(status)) != self.is_negated,
        }
    }
}

impl Field {
    /// Whether it is asked what it contains, and a missing one contains nothing.
    fn is_set(&self) -> bool {
        use crate::AttributeType as T;
        matches!(self, Field::Attribute(_, T::Text | T::KeywordList))
    }
}

impl Op {
    pub(crate) fn in_set(all: Vec<Constant>) -> Op {
        if !all.iter().all(|c| matches!(c, Constant::Text(_))) {
            return Op::In(all);
        }
        let text = |c| if let Constant::Text(t) = c { Some(t) } else { None };
        let mut texts: Vec<_> = all.into_iter().filter_map(text).collect();
        texts.sort_unstable();
        texts.dedup();
        Op::InTexts(texts)
    }

    fn holds(&self, found: &Found<'_>) -> bool {
        match self {
            Op::IsNull => false,
            Op::Compare(order, constant) => match found {
                Found::List(all) => {
                    let Constant::Text(c) = constant else { return false };
                    *order == Order::Equal && all.contains(c)
                }
                Found::Words(text) => {
                    let Constant::Text(c) = constant else { return false };
                    *order == Order::Equal && has_words(text, c)
                }
                found => compare(found, constant).is_some_and(|o| order.holds(o)),
            },
            Op::Between(from, to) => {
                compare(found, from).is_some_and(Ordering::is_ge)
                    && compare(found, to).is_some_and(Ordering::is_le)
            }
            Op::StartsWith(prefix) => {
                matches!(found, Found::Text(text) if text.starts_with(prefix.as_str()))
            }
            Op::InTexts(all) => {
                let has = |text: &str| all.binary_search_by(|t| t.as_str().cmp(text)).is_ok();
                match found {
                    Found::Text(text) => has(text),
                    Found::List(list) => list.iter().any(|text| has(text)),
                    _ => false,
                }
            }
            Op::In(all) => all.iter().any(|c| compare(found, c).is_some_and(Ordering::is_eq)),
        }
    }
}

impl Order {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Order::Equal => order.is_eq(),
            Order::Less => order.is_lt(),
            Order::AtMost => order.is_le(),
            Order::More => order.is_gt(),
            Order::AtLeast => order.is_ge(),
        }
    }
}

fn find<'a>(field: &Field, r: &'a Record) -> Option<Found<'a>> {
    let text = |s: &'a str| Some(Found::Text(Cow::Borrowed(s)));
    let closed = |n: i64| r.close_time.map(|_| Found::Int(n));
    match field {
        Field::WorkflowId => text(&r.workflow_id),
        Field::RunId => Some(Found::Text(Cow::Owned(r.run_id.to_string()))),
        Field::WorkflowType => text(&r.workflow_type),
        Field::TaskQueue => text(&r.task_queue),
        Field::Status => Some(Found::Status(r.status)),
        Field::StartTime => Some(Found::Time(micros_of(r.start_time))),
        Field::ExecutionTime => Some(Found::Time(micros_of(r.execution_time))),
        Field::CloseTime => r.close_time.map(|t| Found::Time(micros_of(t))),
        Field::ExecutionDuration => r.execution_duration().map(Found::Int),
        Field::HistoryLength => closed(r.history_length),
        Field::HistorySize => closed(r.history_size_bytes),
        Field::Transitions => closed(r.state_transition_count),
        Field::ParentWorkflowId => text(r.parent_workflow_id.as_deref()?),
        Field::ParentRunId => text(r.parent_run_id.as_deref()?),
        Field::RootWorkflowId => text(r.root_workflow_id.as_deref().unwrap_or(&r.workflow_id)),
        Field::RootRunId => match r.root_run_id.as_deref() {
            Some(id) => text(id),
            None => find(&Field::RunId, r),
        },
        Field::Attribute(name, kind) => attribute(r.search_attributes.get(name)?, *kind),
    }
}

/// A stored value as one of the type that the attribute has now.
fn attribute(value: &Value, kind: crate::AttributeType) -> Option<Found<'_>> {
    use crate::AttributeType as T;
    match (kind, value) {
        (T::Keyword, Value::Keyword(s)) => Some(Found::Text(Cow::Borrowed(s))),
        (T::KeywordList, Value::KeywordList(all)) => Some(Found::List(all)),
        (T::KeywordList, Value::Keyword(s)) => Some(Found::List(std::slice::from_ref(s))),
        (T::Text, Value::Text(s) | Value::Keyword(s)) => Some(Found::Words(s)),
        (T::Int | T::Double, Value::Int(n)) => Some(Found::Int(*n)),
        (T::Int | T::Double, Value::Double(n)) => Some(Found::Double(*n)),
        (T::Bool, Value::Bool(b)) => Some(Found::Bool(*b)),
        (T::Datetime, Value::Datetime(nanos)) => Some(Found::Time(micros(*nanos))),
        _ => None,
    }
}

fn compare(found: &Found<'_>, constant: &Constant) -> Option<Ordering> {
    match (found, constant) {
        (Found::Text(v), Constant::Text(c)) => Some(v.as_ref().cmp(c)),
        (Found::Int(v), Constant::Int(c)) => Some(v.cmp(c)),
        (Found::Int(v), Constant::Double(c)) => compare_mixed(*v, *c),
        (Found::Double(v), Constant::Int(c)) => compare_mixed(*c, *v).map(Ordering::reverse),
        (Found::Double(v), Constant::Double(c)) => v.partial_cmp(c),
        (Found::Bool(v), Constant::Bool(c)) => Some(v.cmp(c)),
        (Found::Time(v), Constant::Time(c)) => Some(v.cmp(c)),
        (Found::Status(v), Constant::Status(c, _)) => Some(v.cmp(c)),
        _ => None,
    }
}

/// Exact also for whole numbers that a float cannot hold.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn compare_mixed(whole: i64, float: f64) -> Option<Ordering> {
    let rough = (whole as f64).partial_cmp(&float)?;
    Some(rough.then_with(|| i128::from(whole).cmp(&(float as i128))))
}

/// Whether a text has, for any of the parts of `wanted` between spaces, the words of that
/// part one after the other.
fn has_words(text: &str, wanted: &str) -> bool {
    let words = |s: &str| -> Vec<String> {
        let all = s.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
        all.map(str::to_lowercase).collect()
    };
    let there = words(text);
    wanted.split(' ').map(words).any(|phrase| {
        !phrase.is_empty() && there.windows(phrase.len()).any(|w| w == phrase.as_slice())
    })
}
