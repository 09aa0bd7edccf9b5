//! Series of the target, from its latest sample: the names of the Go client where the meaning is the same, so that dashboards and alerts made for a
//! program that exports its own metrics work unchanged for one that exports none.
//!
//! | series | source | as the Go client |
//! |---|---|---|
//! | `go_goroutines` | count of `goroutine` on the index page | the same call, `runtime.NumGoroutine()` |
//! | `go_threads` | count of `threadcreate`: threads ever created | the same call, `runtime.ThreadCreateProfile(nil)` |
//! | `go_info{version}` | build information of the executable | `runtime.Version()` |
//!
//! Where there is no fresh sample the target's series are absent, not 0: a number that nobody measured would be averaged into graphs.
//! `goscope_target_up` is 0 then.

use std::collections::HashMap;

use goscope_formats::BuildInfo;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::target::sampler::Sample;

/// Adds the target's series to `registry`. `build_rx` holds `None` as long as the executable is not known or is no Go program.
///
/// # Errors
/// The series are there already.
pub fn register(
    registry: &Registry,
    sample_rx: watch::Receiver<Option<Sample>>,
    build_rx: watch::Receiver<Option<BuildInfo>>,
) -> prometheus::Result<()> {
    registry.register(Box::new(GoCollector {
        up: gauge("goscope_target_up", "Whether the target answered the latest sample.")?,
        goroutines: gauge("go_goroutines", "Number of goroutines that currently exist.")?,
        threads: gauge("go_threads", "Number of OS threads created.")?,
        info: Desc::new(
            "go_info".to_owned(),
            "Information about the Go environment.".to_owned(),
            vec!["version".to_owned()],
            HashMap::new(),
        )?,
        sample_seconds: gauge("goscope_sample_seconds", "How long the target took to answer the latest sample.")?,
        sample_rx,
        build_rx,
    }))
}

fn gauge(name: &str, help: &str) -> prometheus::Result<Desc> {
    Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())
}

/// Reads the sample when it is scraped, so that staleness is judged at that moment.
struct GoCollector {
    up: Desc,
    goroutines: Desc,
    threads: Desc,
    info: Desc,
    sample_seconds: Desc,
    sample_rx: watch::Receiver<Option<Sample>>,
    build_rx: watch::Receiver<Option<BuildInfo>>,
}

impl Collector for GoCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.up, &self.goroutines, &self.threads, &self.info, &self.sample_seconds]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let sample = self.sample_rx.borrow().clone();
        let fresh = sample.as_ref().and_then(|sample| sample.page(Instant::now()).map(|page| (sample, page)));
        let Some((sample, page)) = fresh else { return vec![family(&self.up, 0.0, &[])] };

        let mut families =
            vec![family(&self.up, 1.0, &[]), family(&self.sample_seconds, sample.cost.as_secs_f64(), &[])];
        families.extend(page.count("goroutine").map(|goroutines| family(&self.goroutines, as_value(goroutines), &[])));
        families.extend(page.count("threadcreate").map(|threads| family(&self.threads, as_value(threads), &[])));
        families.extend(
            self.build_rx.borrow().as_ref().map(|build| family(&self.info, 1.0, &[("version", &build.go_version)])),
        );
        families
    }
}

/// Exact up to 2^53, as everything in Prometheus.
fn as_value(count: u64) -> f64 {
    count as f64
}

fn family(desc: &Desc, value: f64, labels: &[(&str, &str)]) -> MetricFamily {
    let labels = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels.collect());
    metric.set_gauge(gauge);
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests;
