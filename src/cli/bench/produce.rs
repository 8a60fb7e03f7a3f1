//! Produce throughput, and the read-back that makes it count.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::super::progress::Progress;
use super::payload::{now_ns, sleep_until_ns};
use super::reader::Reader;
use super::report::Outcome;
use super::sender::{Deliveries, Sender};
use super::tally::Tally;
use super::{ClientArgs, new_run};

/// Arguments of `ringlog bench produce`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct ProduceArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) client: ClientArgs,

    /// How long to produce, after the warm-up
    #[arg(long, default_value_t = 10.0)]
    pub(super) seconds: f64,

    /// Stop after this many records instead
    #[arg(long, value_name = "N")]
    pub(super) records: Option<u64>,

    /// Records per second to offer [default: as many as the broker takes]
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<f64>,

    /// How long to produce before the measurement begins; these records are counted too when all are read back
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub(super) warmup: f64,

    /// Leave the topic and its records for a later `consume --run RUN --expect N`
    #[arg(long)]
    pub(super) no_read_back: bool,
}

/// Hands out intended send times: at a fixed rate, or now.
pub(super) struct Pace {
    start_ns: u64,
    interval_ns: Option<f64>,
    sent: u64,
}

impl Pace {
    pub(super) fn new(start_ns: u64, rate: Option<f64>) -> Pace {
        Pace { start_ns, interval_ns: rate.map(|rate| 1e9 / rate), sent: 0 }
    }

    /// Waits until the next record is due and returns when it was: late senders do not move the times.
    pub(super) fn next(&mut self) -> u64 {
        let Some(interval) = self.interval_ns else { return now_ns() };
        let due = self.start_ns + (self.sent as f64 * interval) as u64;
        self.sent += 1;
        sleep_until_ns(due);
        due
    }
}

/// Measures produce throughput.
pub fn run(args: &ProduceArgs) -> Result<Outcome> {
    let client = &args.client;
    ensure!(args.rate.is_none_or(|rate| rate > 0.0), "--rate must be above 0");
    let run = new_run();
    let topic = client.topic_of(run);
    let admin = client.prepare(&topic)?;
    let mut sender = Sender::new(client, &topic, run, Deliveries::default())?;
    sender.prime()?;
    if args.rate.is_some() {
        sender.serve_reports();
    }
    let meter = client.meter()?;

    // Of so many records nobody knows how long they take.
    let expected = Duration::from_nanos(((args.warmup.max(0.0) + args.seconds.max(0.0)) * 1e9) as u64);
    let progress = if args.records.is_some() { Progress::hidden() } else { Progress::time(expected) };
    let warm_ns = now_ns();
    let mut pace = Pace::new(warm_ns, args.rate);
    let start_ns = warm_ns + (args.warmup.max(0.0) * 1e9) as u64;
    while now_ns() < start_ns {
        let due = pace.next();
        sender.send(due)?;
    }

    let before = meter.read()?;
    let (start_ns, first) = (now_ns(), sender.deliveries().acknowledged());
    let first_sent = sender.sent();
    let end_ns = start_ns + (args.seconds.max(0.0) * 1e9) as u64;
    loop {
        let due = pace.next();
        let over = match args.records {
            Some(records) => sender.sent() - first_sent >= records,
            None => due >= end_ns,
        };
        if over {
            break;
        }
        sender.send(due)?;
    }
    progress.finish();
    sender.finish()?;
    let after = meter.read()?;

    let deliveries = sender.deliveries().clone();
    let sent = sender.sent();
    let records = deliveries.acknowledged() - first;
    let bytes = records * client.record_size as u64;
    let seconds = (deliveries.last_ns().saturating_sub(start_ns)) as f64 / 1e9;
    let failed = deliveries.failed();
    drop(sender);
    ensure!(
        records > 0,
        "no record was acknowledged{}",
        failed.first().map(|f| format!(": {}", f.1)).unwrap_or_default()
    );

    // What the broker moves in the background belongs to the run that caused it.
    meter.settle(Duration::from_secs(10))?;
    let settled = meter.since(&before)?;
    let mut result = json!({
        "run": run,
        "topic": topic,
        "records": records,
        "bytes": bytes,
        "sent_with_warmup": sent,
        "failed": failed.len(),
        "seconds": seconds,
        "mb_per_s": bytes as f64 / 1e6 / seconds,
        "records_per_s": records as f64 / seconds,
    });
    let usage = meter.between(&before, &after);
    if let Some(broker) = &settled.broker {
        result["written_per_accepted"] = json!(broker.written_bytes as f64 / bytes as f64);
        result["broker_cpu_settled_s_per_gb"] = json!(broker.cpu_s / (bytes as f64 / 1e9));
    }
    if let Some(flushes) = usage.device_flushes {
        result["device_flushes_per_record"] = json!(flushes as f64 / records as f64);
    }
    let mut outcome = Outcome::new("produce", args).with_result(result);

    if !args.no_read_back {
        let mut tally = Tally::new(run, client.partitions as usize, Some(client.record_size));
        Reader::new(client, &topic)?.read_to_end(&mut tally).context("cannot read back")?;
        let failed: Vec<u64> = failed.iter().map(|failure| failure.0).collect();
        outcome = outcome.with_counts(tally.finish(sent, &failed));
        client.clean_up(&admin, &topic)?;
    }
    Ok(outcome.with_usage(usage, records, bytes))
}
