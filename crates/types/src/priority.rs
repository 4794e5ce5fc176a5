//! What orders a task among the others of its queue beside the time of its scheduling.

use everspan_proto::common::Priority as ApiPriority;
use serde::{Deserialize, Serialize};

/// Priority key of a task that names none; the real server's.
pub const PRIORITY_DEFAULT: u8 = 3;
/// The last priority key; the first is 1.
pub const PRIORITY_LAST: u8 = 5;
/// Weight of a fairness key that names none, in thousandths.
pub const WEIGHT_DEFAULT: u32 = 1_000;
/// Lanes that a queue's fairness keys are dealt out to; see [`lane`]. Stored: never changes.
const LANES: u32 = 65_535;
/// Longest fairness key; the real server's.
pub const FAIRNESS_KEY_MAX: usize = 64;

/// What orders a task among the others of its queue.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Priority {
    /// 1 (first) to 5 (last); 3 when none is named.
    pub key: u8,
    /// Tasks of one priority take turns by this key; empty when none is named.
    pub fairness_key: String,
    /// The share of the fairness key, in thousandths: 1 to [`u32::MAX`], 1,000 being 1.0.
    pub fairness_weight: u32,
}

impl Default for Priority {
    fn default() -> Self {
        Self { key: PRIORITY_DEFAULT, fairness_key: String::new(), fairness_weight: WEIGHT_DEFAULT }
    }
}

impl Priority {
    /// That of a task: each field its own where it names one, else its workflow's.
    #[must_use]
    pub fn of(own: Option<&ApiPriority>, workflow: Option<&ApiPriority>) -> Self {
        let merged = merge_priority(workflow, own).unwrap_or_default();
        let key = merged.priority_key;
        Self {
            key: match key {
                0 => PRIORITY_DEFAULT,
                // What is past the last is the last, as in the real server.
                key => {
                    u8::try_from(key.clamp(1, i32::from(PRIORITY_LAST))).unwrap_or(PRIORITY_LAST)
                }
            },
            fairness_key: merged.fairness_key,
            fairness_weight: weight_thousandths(merged.fairness_weight),
        }
    }

    /// The lane of the fairness key.
    #[must_use]
    pub fn lane(&self) -> u16 {
        lane(&self.fairness_key)
    }
}

/// What a task says of its priority to its worker: each field its own where it names one,
/// else its workflow's.
#[must_use]
pub fn merge_priority(
    workflow: Option<&ApiPriority>,
    own: Option<&ApiPriority>,
) -> Option<ApiPriority> {
    let (Some(workflow), Some(own)) = (workflow, own) else { return own.or(workflow).cloned() };
    let mut merged = own.clone();
    if own.priority_key == 0 {
        merged.priority_key = workflow.priority_key;
    }
    if own.fairness_key.is_empty() {
        merged.fairness_key.clone_from(&workflow.fairness_key);
    }
    if own.fairness_weight == 0.0 {
        merged.fairness_weight = workflow.fairness_weight;
    }
    Some(merged)
}

/// Checks what a request says of a priority.
///
/// # Errors
/// In the real server's words.
pub fn check_priority(priority: Option<&ApiPriority>) -> Result<(), &'static str> {
    let Some(p) = priority else { return Ok(()) };
    if p.priority_key < 0 {
        Err("priority key can't be negative")
    } else if p.fairness_key.len() > FAIRNESS_KEY_MAX {
        Err("fairness key length exceeds limit")
    } else if p.fairness_weight < 0.0 {
        Err("must be greater than zero")
    } else {
        Ok(())
    }
}

/// A weight in thousandths. None and nonsense count as 1; what is smaller than a thousandth
/// counts as that.
#[must_use]
pub fn weight_thousandths(weight: f32) -> u32 {
    if weight > 0.0 {
        // The cast saturates.
        ((f64::from(weight) * 1_000.0).round() as u32).max(1)
    } else {
        WEIGHT_DEFAULT
    }
}

/// Where the rows of a fairness key stand among those of its queue and priority. Keys seldom
/// meet in one; those that do share its turns until they are in memory, where they are told
/// apart again.
#[must_use]
pub fn lane(fairness_key: &str) -> u16 {
    if fairness_key.is_empty() {
        return 0;
    }
    // 1 to 65,535.
    (crc32fast::hash(fairness_key.as_bytes()) % LANES) as u16 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(priority_key: i32, fairness_key: &str, fairness_weight: f32) -> ApiPriority {
        ApiPriority { priority_key, fairness_key: fairness_key.into(), fairness_weight }
    }

    #[test]
    fn each_field_is_inherited_by_itself() {
        let workflow = api(1, "tenant", 2.5);
        let all = Priority::of(None, Some(&workflow));
        assert_eq!((all.key, &*all.fairness_key, all.fairness_weight), (1, "tenant", 2_500));
        let own = api(0, "other", 0.0);
        let mixed = Priority::of(Some(&own), Some(&workflow));
        assert_eq!((mixed.key, &*mixed.fairness_key, mixed.fairness_weight), (1, "other", 2_500));
        assert_eq!(Priority::of(None, None), Priority::default());
    }

    #[test]
    fn nonsense_counts_as_the_default() {
        assert_eq!(Priority::of(Some(&api(0, "", f32::NAN)), None), Priority::default());
        assert_eq!(Priority::of(Some(&api(7, "", 0.0)), None).key, PRIORITY_LAST);
        assert_eq!(Priority::of(Some(&api(0, "", 1e-9)), None).fairness_weight, 1);
        assert_eq!(Priority::of(Some(&api(0, "", f32::MAX)), None).fairness_weight, u32::MAX);
    }

    #[test]
    fn lanes_are_stable() {
        assert_eq!(lane(""), 0);
        assert_eq!(lane("tenant-1"), lane("tenant-1"));
        assert!((0..10_000).all(|n| lane(&n.to_string()) > 0));
    }
}
