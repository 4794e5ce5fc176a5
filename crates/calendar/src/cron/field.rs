//! One of the five fields: a list of ranges with steps, as a set.

use super::Error;

/// The values that a field allows, a bit each; the top bit says that it has a star.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set(u64);

const STAR: u64 = 1 << 63;

impl Set {
    pub(super) fn has(self, value: i64) -> bool {
        u32::try_from(value).is_ok_and(|value| self.0 & !STAR & 1_u64.wrapping_shl(value) != 0)
    }

    /// Whether a star, or `?`, in every step was among the ranges.
    pub(super) fn is_starred(self) -> bool {
        self.0 & STAR != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 & !STAR == 0
    }

    pub(super) fn one(value: u32) -> Self {
        Self(1 << value)
    }
}

/// What a field may hold.
pub(super) struct Bounds {
    name: &'static str,
    min: u64,
    max: u64,
    /// Names of values, the first of which is `min`.
    names: &'static [&'static str],
}

pub(super) const MINUTE: Bounds = Bounds { name: "minute", min: 0, max: 59, names: &[] };
pub(super) const HOUR: Bounds = Bounds { name: "hour", min: 0, max: 23, names: &[] };
pub(super) const DAY_OF_MONTH: Bounds =
    Bounds { name: "day of month", min: 1, max: 31, names: &[] };
pub(super) const MONTH: Bounds = Bounds {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(super) const DAY_OF_WEEK: Bounds = Bounds {
    name: "day of week",
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Bounds {
    /// All values, and the star.
    pub(super) fn all(&self) -> Set {
        Set(stepped(self.min, self.max, 1) | STAR)
    }

    /// The set that `text` stands for. Commas with nothing between them add nothing, so that a
    /// lone comma is a field that never matches.
    pub(super) fn parse(&self, text: &str) -> Result<Set, Error> {
        text.split(',')
            .filter(|range| !range.is_empty())
            .try_fold(0, |bits, range| Some(bits | self.range(range)?))
            .map(Set)
            .ok_or_else(|| Error::Field { name: self.name, text: text.to_owned() })
    }

    fn range(&self, text: &str) -> Option<u64> {
        let (values, step) = match text.split_once('/') {
            Some((values, step)) => (values, Some(number(step)?)),
            None => (text, None),
        };
        let (low, high) = match values.split_once('-') {
            Some((low, high)) => (low, Some(high)),
            None => (values, None),
        };
        let starred = low == "*" || low == "?";
        let (start, end) = if starred {
            // Whatever follows a star and a hyphen is not looked at.
            (self.min, self.max)
        } else {
            let start = self.value(low)?;
            match (high, step) {
                (Some(high), _) => (start, self.value(high)?),
                // A value with a step means from there on.
                (None, Some(_)) => (start, self.max),
                (None, None) => (start, start),
            }
        };
        let step = step.unwrap_or(1);
        if start < self.min || end > self.max || start > end || step == 0 {
            return None;
        }
        let star = if starred && step == 1 { STAR } else { 0 };
        Some(stepped(start, end, step) | star)
    }

    fn value(&self, text: &str) -> Option<u64> {
        match (self.min..).zip(self.names).find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            Some((value, _)) => Some(value),
            None => number(text),
        }
    }
}

/// Bits from `start` to `end`, each `step`; all are below 63.
fn stepped(start: u64, end: u64, step: u64) -> u64 {
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    (start..=end).step_by(step).fold(0, |bits, value| bits | 1 << value)
}

/// Decimal digits, with a sign if need be; not below zero, and no more than Go's `int` holds.
fn number(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<i64>().ok()?).ok()
}
