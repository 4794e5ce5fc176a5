//! RPC counts, errors and latencies by method.

use std::{sync::LazyLock, time::Duration};

use prometheus::{
    HistogramVec, IntCounterVec, IntGaugeVec, exponential_buckets, histogram_opts,
    register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};

static REQUESTS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    register_int_counter_vec!("everspan_rpc_requests_total", "RPCs answered", &["method"]).ok()
});

static ERRORS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "RPCs answered with an error";
    register_int_counter_vec!("everspan_rpc_errors_total", help, &["method", "code"]).ok()
});

static SECONDS: LazyLock<Option<HistogramVec>> = LazyLock::new(|| {
    let buckets = exponential_buckets(0.000_25, 2.0, 18).ok()?;
    let help = "Time from an RPC's arrival to its answer; polls wait for work";
    let options = histogram_opts!("everspan_rpc_seconds", help, buckets);
    register_histogram_vec!(options, &["method"]).ok()
});

static IN_FLIGHT: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    register_int_gauge_vec!("everspan_rpc_in_flight", "RPCs not answered yet", &["method"]).ok()
});

/// Counts an RPC from its arrival; uncounts it when dropped.
pub(crate) struct InFlight(&'static str);

impl InFlight {
    pub(crate) fn new(method: &'static str) -> Self {
        if let Some(gauge) = IN_FLIGHT.as_ref() {
            gauge.with_label_values(&[method]).inc();
        }
        Self(method)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(gauge) = IN_FLIGHT.as_ref() {
            gauge.with_label_values(&[self.0]).dec();
        }
    }
}

/// Notes an answered RPC.
pub(crate) fn answered(method: &'static str, took: Duration, error: Option<tonic::Code>) {
    if let Some(counter) = REQUESTS.as_ref() {
        counter.with_label_values(&[method]).inc();
    }
    if let Some(histogram) = SECONDS.as_ref() {
        histogram.with_label_values(&[method]).observe(took.as_secs_f64());
    }
    if let (Some(counter), Some(code)) = (ERRORS.as_ref(), error) {
        counter.with_label_values(&[method, &format!("{code:?}")]).inc();
    }
}
