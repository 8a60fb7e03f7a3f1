//! `/metrics`: what was counted, in the text format of OpenMetrics, which Prometheus reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::metrics::{BOUNDS_MICROS, Histogram};

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Times by their length, those of several shards together.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// By bucket, as [`Histogram::counts`] has them.
    pub(super) counts: [u64; BOUNDS_MICROS.len() + 1],
    /// All together, in microseconds.
    pub(super) sum_micros: u64,
}

impl Times {
    /// Those of all these histograms.
    pub(super) fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Times {
        let mut times = Times::default();
        for histogram in histograms {
            let counts = histogram.counts();
            times.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            times.sum_micros += histogram.sum_micros();
        }
        times
    }

    /// How many times there are.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What a metric is, with what it shows.
#[derive(Debug)]
enum Value {
    Counter(u64),
    Seconds(f64),
    /// A number under exactly its family's name: the format gives counters a suffix.
    Plain(u64),
    Gauge(f64),
    Times(Box<Times>),
}

type Labels = Vec<(&'static str, String)>;

/// Metrics of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<(Labels, Value)>,
}

/// All that is shown, gathered for one answer.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: Vec<Family>,
}

/// Adds metrics to a family.
pub(super) struct Adder<'a>(&'a mut Family);

impl Page {
    fn family(&mut self, name: &'static str, help: &'static str, kind: MetricType) -> Adder<'_> {
        self.families.push(Family { name, help, kind, metrics: Vec::new() });
        Adder(self.families.last_mut().expect("it was just added"))
    }

    /// A family of numbers that only grow. In the text its name ends in `_total`.
    pub(super) fn counters(&mut self, name: &'static str, help: &'static str) -> Adder<'_> {
        self.family(name, help, MetricType::Counter)
    }

    /// A number that only grows, under a name that has to be just so.
    pub(super) fn plain(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(name, help, MetricType::Unknown).add(&[], Value::Plain(value));
    }

    /// A family of numbers that go up and down.
    pub(super) fn gauges(&mut self, name: &'static str, help: &'static str) -> Adder<'_> {
        self.family(name, help, MetricType::Gauge)
    }

    /// A family of times, in seconds.
    pub(super) fn times(&mut self, name: &'static str, help: &'static str) -> Adder<'_> {
        self.family(name, help, MetricType::Histogram)
    }

    /// The text.
    pub(super) fn render(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Adder<'_> {
    fn add(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        self.0.metrics.push((labels, value));
    }

    /// Adds a counter.
    pub(super) fn count(&mut self, labels: &[(&'static str, &str)], value: u64) -> &mut Self {
        self.add(labels, Value::Counter(value));
        self
    }

    /// Adds a counter of seconds.
    pub(super) fn seconds(&mut self, value: f64) {
        self.add(&[], Value::Seconds(value));
    }

    /// Adds a gauge.
    pub(super) fn show(&mut self, labels: &[(&'static str, &str)], value: f64) -> &mut Self {
        self.add(labels, Value::Gauge(value));
        self
    }

    /// Adds times.
    pub(super) fn observe(&mut self, labels: &[(&'static str, &str)], times: Times) -> &mut Self {
        self.add(labels, Value::Times(Box::new(times)));
        self
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for family in &self.families {
            let mut encoder = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (labels, value) in &family.metrics {
                match labels.is_empty() {
                    true => put(&mut encoder, value)?,
                    false => put(&mut encoder.encode_family(&Labelled(labels))?, value)?,
                }
            }
        }
        Ok(())
    }
}

fn put(encoder: &mut MetricEncoder, value: &Value) -> Result<(), fmt::Error> {
    match value {
        Value::Counter(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        Value::Seconds(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
        Value::Plain(value) => encoder.encode_gauge(value),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Times(times) => {
            let bounds = BOUNDS_MICROS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(times.counts).collect();
            encoder.encode_histogram::<NoLabelSet>(times.sum_micros as f64 / 1e6, times.count(), &buckets, None)
        }
    }
}

/// Labels, as prometheus-client wants them.
struct Labelled<'a>(&'a Labels);

impl prometheus_client::encoding::EncodeLabelSet for Labelled<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder) -> Result<(), fmt::Error> {
        for (key, value) in self.0 {
            prometheus_client::encoding::EncodeLabel::encode(&(*key, value.as_str()), encoder.encode_label())?;
        }
        Ok(())
    }
}
