//! Outcomes, as text and as JSON. A field's name carries its unit.

use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value, json};

use hdrhistogram::Histogram;

use super::tally::Counts;
use super::usage::Usage;

/// How outcomes are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// For people: one line a field.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What a run ended with.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which measurement.
    pub bench: &'static str,
    /// Whether there is a result.
    pub verdict: Verdict,
    /// What was asked for, the client library's version included.
    pub settings: Value,
    /// The figures; missing where the verdict says that there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What was read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Whether a run has a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has.
    Good,
    /// Records were lost, doubled, out of order or corrupt: there is no result.
    WrongCount,
    /// The machine was busy with something else: discarded.
    Disturbed,
}

impl Outcome {
    /// The outcome of a measurement with these settings.
    pub fn new(bench: &'static str, settings: &impl Serialize) -> Outcome {
        let mut settings = serde_json::to_value(settings).unwrap_or(Value::Null);
        if let Value::Object(fields) = &mut settings {
            fields.insert("librdkafka".into(), rdkafka::util::get_rdkafka_version().1.into());
        }
        Outcome { bench, verdict: Verdict::Good, settings, result: None, counts: None, usage: None }
    }

    /// Adds the figures.
    pub fn with_result(mut self, result: Value) -> Outcome {
        self.result = Some(result);
        self
    }

    /// Adds what was read back; a wrong count takes the figures away.
    pub fn with_counts(mut self, counts: Counts) -> Outcome {
        if !counts.right() {
            self.verdict = Verdict::WrongCount;
            self.result = None;
        }
        self.counts = Some(counts);
        self
    }

    /// Adds what it cost, per record and per byte that the broker took or gave; a disturbed run loses its figures.
    pub fn with_usage(mut self, usage: Usage, records: u64, bytes: u64) -> Outcome {
        if usage.disturbed && self.verdict == Verdict::Good {
            self.verdict = Verdict::Disturbed;
            self.result = None;
        }
        if let (Some(Value::Object(result)), Some(broker)) = (&mut self.result, &usage.broker)
            && records > 0
            && bytes > 0
        {
            result.insert("broker_cpu_s_per_gb".into(), json!(broker.cpu_s / (bytes as f64 / 1e9)));
            result.insert("broker_cpu_us_per_record".into(), json!(broker.cpu_s * 1e6 / records as f64));
        }
        self.usage = Some(usage);
        self
    }

    /// The code that the program ends with: 0 with a result, 3 for a wrong count, 4 for a disturbed run.
    pub fn exit_code(&self) -> ExitCode {
        match self.verdict {
            Verdict::Good => ExitCode::SUCCESS,
            Verdict::WrongCount => ExitCode::from(3),
            Verdict::Disturbed => ExitCode::from(4),
        }
    }

    /// Prints it to the standard output.
    pub fn print(&self, format: Format) {
        let value = serde_json::to_value(self).unwrap_or(Value::Null);
        match format {
            Format::Json => println!("{value}"),
            Format::Text => {
                print!("{}", text(&value));
                match self.verdict {
                    Verdict::Good => {}
                    Verdict::WrongCount => println!("NO RESULT: what was read back is not what was acknowledged"),
                    Verdict::Disturbed => println!("DISCARDED: the machine was busy with something else"),
                }
            }
        }
    }
}

/// The percentiles that a latency is told by, in milliseconds.
pub fn percentiles(histogram: &Histogram<u64>) -> Value {
    let ms = |micros: u64| json!(micros as f64 / 1e3);
    json!({
        "samples": histogram.len(),
        "p50_ms": ms(histogram.value_at_quantile(0.50)),
        "p90_ms": ms(histogram.value_at_quantile(0.90)),
        "p99_ms": ms(histogram.value_at_quantile(0.99)),
        "p999_ms": ms(histogram.value_at_quantile(0.999)),
        "max_ms": ms(histogram.max()),
    })
}

/// One line a field, the figures last.
fn text(value: &Value) -> String {
    let mut out = String::new();
    for part in ["bench", "settings", "usage", "counts", "result", "verdict"] {
        if let Some(value) = value.get(part) {
            section(&mut out, &Map::from_iter([(part.to_owned(), value.clone())]), 0);
        }
    }
    out
}

fn section(out: &mut String, fields: &Map<String, Value>, depth: usize) {
    let indent = "  ".repeat(depth);
    for (name, value) in fields {
        match value {
            Value::Object(inner) => {
                out.push_str(&format!("{indent}{name}\n"));
                section(out, inner, depth + 1);
            }
            Value::Null => {}
            Value::Number(number) if number.is_f64() => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                out.push_str(&format!("{indent}{name:<28} {number:.3}\n"));
            }
            Value::String(text) => out.push_str(&format!("{indent}{name:<28} {text}\n")),
            other => out.push_str(&format!("{indent}{name:<28} {other}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(disturbed: bool) -> Usage {
        Usage {
            seconds: 1.0,
            client_cpu_s: 1.0,
            broker: Some(super::super::usage::BrokerUsage {
                cpu_s: 2.0,
                rss_peak_mb: 1.0,
                rss_mb: 1.0,
                written_bytes: 1,
            }),
            device_flushes: None,
            others_share: Some(0.5),
            disturbed,
        }
    }

    fn outcome() -> Outcome {
        Outcome::new("produce", &json!({})).with_result(json!({"mb_per_s": 1.0}))
    }

    #[test]
    fn a_wrong_count_or_a_busy_machine_leaves_no_result() {
        let good = outcome().with_counts(Counts::default()).with_usage(usage(false), 1_000_000, 1_000_000_000);
        assert_eq!(good.verdict, Verdict::Good);
        assert_eq!(good.result.as_ref().unwrap()["broker_cpu_us_per_record"], json!(2.0));

        let wrong = outcome().with_counts(Counts { lost: 1, ..Counts::default() }).with_usage(usage(false), 1, 1);
        assert_eq!((wrong.verdict, wrong.result), (Verdict::WrongCount, None));

        let disturbed = outcome().with_usage(usage(true), 1, 1);
        assert_eq!((disturbed.verdict, disturbed.result), (Verdict::Disturbed, None));
    }

    #[test]
    fn text_names_every_field() {
        let text = text(&serde_json::to_value(outcome()).unwrap());
        assert!(text.contains("verdict                      good\n"), "{text}");
        assert!(text.contains("  mb_per_s                     1.000\n"), "{text}");
    }
}
