//! What operators set for single task queues.

use std::collections::BTreeMap;

use everspan_proto::{enums::TaskQueueType, taskqueue, workflowservice as api};
use everspan_types::{Error, FAIRNESS_KEY_MAX, NamespaceId, Result, Time};
use serde::{Deserialize, Serialize};

/// Most weights of a queue; the real server's.
const WEIGHTS_MAX: usize = 1_000;
/// Longest reason; the real server's.
const REASON_MAX: usize = 1_000;

/// A queue, as its configuration is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueName {
    /// Its namespace.
    pub namespace: NamespaceId,
    /// A `TaskQueueType`.
    pub kind: i32,
    /// Its name.
    pub name: String,
}

/// A rate limit, or that there is none any more, and who said so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Tasks a second.
    pub per_second: Option<f32>,
    /// For people.
    pub reason: String,
    /// Who set it.
    pub identity: String,
    /// When.
    pub time: Time,
}

impl RateLimit {
    fn to_proto(&self) -> taskqueue::RateLimitConfig {
        taskqueue::RateLimitConfig {
            rate_limit: self
                .per_second
                .map(|requests_per_second| taskqueue::RateLimit { requests_per_second }),
            metadata: Some(taskqueue::ConfigMetadata {
                reason: self.reason.clone(),
                update_identity: self.identity.clone(),
                update_time: Some(self.time.to_proto()),
            }),
        }
    }
}

/// The configuration of one queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueConfig {
    /// Of the whole queue.
    pub rate_limit: Option<RateLimit>,
    /// Of each fairness key.
    pub fairness_keys_rate_limit: Option<RateLimit>,
    /// Weights of fairness keys.
    pub weights: BTreeMap<String, f32>,
}

impl QueueConfig {
    /// As the API shows it.
    #[must_use]
    pub fn to_proto(&self) -> taskqueue::TaskQueueConfig {
        taskqueue::TaskQueueConfig {
            queue_rate_limit: self.rate_limit.as_ref().map(RateLimit::to_proto),
            fairness_keys_rate_limit_default: self
                .fairness_keys_rate_limit
                .as_ref()
                .map(RateLimit::to_proto),
            fairness_weight_overrides: self.weights.clone().into_iter().collect(),
        }
    }

    /// With the changes of an update.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` in the real server's words.
    pub(crate) fn updated(
        &self,
        now: Time,
        r: &api::UpdateTaskQueueConfigRequest,
    ) -> Result<QueueConfig> {
        let mut new = self.clone();
        let limit = |update: &api::update_task_queue_config_request::RateLimitUpdate| RateLimit {
            per_second: update.rate_limit.as_ref().map(|l| l.requests_per_second),
            reason: update.reason.clone(),
            identity: r.identity.clone(),
            time: now,
        };
        if let Some(update) = &r.update_queue_rate_limit {
            new.rate_limit = Some(limit(update));
        }
        if let Some(update) = &r.update_fairness_key_rate_limit_default {
            new.fairness_keys_rate_limit = Some(limit(update));
        }
        for key in &r.unset_fairness_weight_overrides {
            new.weights.remove(key);
        }
        new.weights.extend(r.set_fairness_weight_overrides.clone());
        if new.weights.len() > WEIGHTS_MAX {
            return Err(Error::invalid(
                "fairness weight overrides update rejected: exceeding maximum key size",
            ));
        }
        Ok(new)
    }
}

/// Checks an update by itself.
pub(crate) fn check(r: &api::UpdateTaskQueueConfigRequest, id_length_max: usize) -> Result<()> {
    let limits = [
        (&r.update_queue_rate_limit, "UpdateQueueRateLimit", "rate limit"),
        (
            &r.update_fairness_key_rate_limit_default,
            "UpdateFairnessKeyRateLimitDefault",
            "fairness key rate limit",
        ),
    ];
    for (update, label, what) in limits {
        let Some((update, limit)) = update.as_ref().and_then(|u| Some((u, u.rate_limit.as_ref()?)))
        else {
            continue;
        };
        if r.task_queue_type() == TaskQueueType::Workflow {
            return Err(Error::invalid(format!(
                "Setting {what} on workflow task queues is not allowed."
            )));
        }
        if limit.requests_per_second < 0.0 {
            return Err(Error::invalid(format!(
                "RequestsPerSecond for {label} rate limit must be non-negative."
            )));
        }
        length(&format!("{label}.Reason"), &update.reason, REASON_MAX)?;
    }
    length("Identity", &r.identity, id_length_max)?;
    weights(r)
}

fn length(field: &str, value: &str, max: usize) -> Result<()> {
    if value.len() > max {
        return Err(Error::invalid(format!("{field} field too long (max {max} characters).")));
    }
    Ok(())
}

fn weights(r: &api::UpdateTaskQueueConfigRequest) -> Result<()> {
    let (set, unset) = (&r.set_fairness_weight_overrides, &r.unset_fairness_weight_overrides);
    let total = set.len() + unset.len();
    if total > WEIGHTS_MAX {
        return Err(Error::invalid(format!(
            "too many fairness weight overrides in request: got {total}, maximum {WEIGHTS_MAX}"
        )));
    }
    let key = |key: &str| {
        if key.is_empty() {
            return Err(Error::invalid("fairness weight override key must not be empty"));
        }
        if key.len() > FAIRNESS_KEY_MAX {
            return Err(Error::invalid("fairness key length exceeds limit"));
        }
        Ok(())
    };
    for (name, weight) in set {
        key(name)?;
        // NaN is no weight either.
        if weight.is_nan() || *weight <= 0.0 {
            return Err(Error::invalid(format!(
                "invalid fairness weight weight for key \"{name}\": must be greater than zero"
            )));
        }
    }
    for name in unset {
        key(name)?;
    }
    match unset.iter().find(|name| set.contains_key(*name)) {
        Some(name) => Err(Error::invalid(format!(
            "fairness weight override key \"{name}\" present in both set and unset lists"
        ))),
        None => Ok(()),
    }
}
