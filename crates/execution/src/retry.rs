//! Retry arithmetic, for activities and workflows alike.

use std::time::Duration;

use everspan_proto::{
    common::RetryPolicy as ProtoPolicy,
    enums::{RetryState, TimeoutType},
    failure::{Failure, failure::FailureInfo},
};
use everspan_types::{Error, Result, Time};
use serde::{Deserialize, Serialize};

use crate::convert::{checked_duration, duration, proto_duration};

/// A retry policy with its defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Delay before the second attempt.
    pub initial_interval: Duration,
    /// Factor from one delay to the next.
    pub backoff_coefficient: f64,
    /// Longest delay; zero is no bound.
    pub maximum_interval: Duration,
    /// Most attempts, the first included; zero is no bound.
    pub maximum_attempts: i32,
    /// Application failure types that are final.
    pub non_retryable_error_types: Vec<String>,
}

/// Prefix under which timeouts are named among non-retryable types.
const TIMEOUT_PREFIX: &str = "TemporalTimeout:";

impl RetryPolicy {
    /// Checks a policy and fills in defaults: 1 s, coefficient 2, 100 times the initial
    /// interval, unlimited attempts.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` in the real server's words.
    pub fn from_proto(p: &ProtoPolicy) -> Result<Self> {
        let mut policy = Self {
            initial_interval: duration(p.initial_interval.as_ref()),
            backoff_coefficient: p.backoff_coefficient,
            maximum_interval: duration(p.maximum_interval.as_ref()),
            maximum_attempts: p.maximum_attempts,
            non_retryable_error_types: p.non_retryable_error_types.clone(),
        };
        if p.initial_interval.as_ref().is_none_or(|d| d.seconds == 0 && d.nanos == 0) {
            policy.initial_interval = Duration::from_secs(1);
        }
        if policy.backoff_coefficient == 0.0 {
            policy.backoff_coefficient = 2.0;
        }
        if p.maximum_interval.as_ref().is_none_or(|d| d.seconds == 0 && d.nanos == 0) {
            policy.maximum_interval = policy.initial_interval.saturating_mul(100);
        }
        // A single attempt makes the rest meaningless.
        if policy.maximum_attempts == 1 {
            return Ok(policy);
        }
        checked_duration(p.initial_interval.as_ref()).map_err(|e| {
            Error::invalid(format!("invalid InitialInterval set on retry policy: {e}"))
        })?;
        if policy.backoff_coefficient < 1.0 {
            return Err(Error::invalid(
                "BackoffCoefficient cannot be less than 1 on retry policy.",
            ));
        }
        checked_duration(p.maximum_interval.as_ref()).map_err(|e| {
            Error::invalid(format!("invalid MaximumInterval set on retry policy: {e}"))
        })?;
        if policy.maximum_interval < policy.initial_interval {
            return Err(Error::invalid(
                "MaximumInterval cannot be less than InitialInterval on retry policy.",
            ));
        }
        if policy.maximum_attempts < 0 {
            return Err(Error::invalid("MaximumAttempts cannot be negative on retry policy."));
        }
        for name in &policy.non_retryable_error_types {
            if let Some(kind) = name.strip_prefix(TIMEOUT_PREFIX)
                && !["StartToClose", "ScheduleToStart", "ScheduleToClose", "Heartbeat"]
                    .contains(&kind)
            {
                return Err(Error::invalid(format!("Invalid timeout type value: {kind}.")));
            }
        }
        Ok(policy)
    }

    /// The API's form, defaults included.
    #[must_use]
    pub fn to_proto(&self) -> ProtoPolicy {
        ProtoPolicy {
            initial_interval: Some(proto_duration(self.initial_interval)),
            backoff_coefficient: self.backoff_coefficient,
            maximum_interval: Some(proto_duration(self.maximum_interval)),
            maximum_attempts: self.maximum_attempts,
            non_retryable_error_types: self.non_retryable_error_types.clone(),
        }
    }

    /// Delay before the next attempt after `attempt` failed with `failure` at `now`, or why
    /// there is none.
    ///
    /// # Errors
    /// The retry state that goes into the closing event.
    pub fn next(
        &self,
        now: Time,
        attempt: i32,
        expiration: Option<Time>,
        failure: &Failure,
    ) -> Result<Duration, RetryState> {
        if !is_retryable(failure, &self.non_retryable_error_types) {
            return Err(RetryState::NonRetryableFailure);
        }
        if self.maximum_attempts > 0 && attempt >= self.maximum_attempts {
            return Err(RetryState::MaximumAttemptsReached);
        }
        let interval = match next_retry_delay(failure) {
            Some(delay) => delay,
            None => self.interval(attempt),
        };
        if expiration.is_some_and(|at| now + interval > at) {
            return Err(RetryState::Timeout);
        }
        Ok(interval)
    }

    /// Initial interval × coefficient^(attempt − 1), capped; an overflow counts as the cap.
    pub(crate) fn interval(&self, attempt: i32) -> Duration {
        let cap =
            if self.maximum_interval.is_zero() { Duration::MAX } else { self.maximum_interval };
        let seconds =
            self.initial_interval.as_secs_f64() * self.backoff_coefficient.powi(attempt.max(1) - 1);
        Duration::try_from_secs_f64(seconds).map_or(cap, |d| d.min(cap))
    }
}

/// A delay that the application asked for.
fn next_retry_delay(failure: &Failure) -> Option<Duration> {
    match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            info.next_retry_delay.as_ref().map(|d| duration(Some(d)))
        }
        _ => None,
    }
}

/// Whether a failure of this kind may be retried at all.
#[must_use]
pub fn is_retryable(failure: &Failure, non_retryable: &[String]) -> bool {
    match &failure.failure_info {
        Some(FailureInfo::TerminatedFailureInfo(_) | FailureInfo::CanceledFailureInfo(_)) => false,
        Some(FailureInfo::TimeoutFailureInfo(info)) => match info.timeout_type() {
            TimeoutType::StartToClose => {
                !non_retryable.iter().any(|t| t == "TemporalTimeout:StartToClose")
            }
            TimeoutType::Heartbeat => {
                !non_retryable.iter().any(|t| t == "TemporalTimeout:Heartbeat")
            }
            _ => false,
        },
        Some(FailureInfo::ServerFailureInfo(info)) => !info.non_retryable,
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            !info.non_retryable && !non_retryable.contains(&info.r#type)
        }
        _ => true,
    }
}
