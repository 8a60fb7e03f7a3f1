//! How long it takes until a new topic can be used: created, and a record taken by every partition.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;

use super::super::progress::Progress;
use super::client::{Admin, PATIENCE};
use super::report::{Outcome, percentiles};
use super::sender::{Deliveries, Sender};
use super::{ClientArgs, new_run};

/// Arguments of `ringlog bench topics`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct TopicsArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) client: ClientArgs,

    /// Topics to create
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub(super) count: u32,

    /// Create them all in one request, instead of one after the other
    #[arg(long)]
    pub(super) in_one_request: bool,

    /// Do not write to the topics, only create them
    #[arg(long)]
    pub(super) no_write: bool,
}

/// Measures topic creation.
pub fn run(args: &TopicsArgs) -> Result<Outcome> {
    // One record a partition, sent at once: no batch is to wait for a second record, and a partition whose leader is
    // not known yet is asked for again soon.
    let mut args = args.clone();
    args.client.linger_ms = 0;
    args.client.property.push(("retry.backoff.ms".into(), "5".into()));
    let (args, client) = (&args, &args.client);

    let run = new_run();
    let prefix = client.topic_of(run);
    let names: Vec<String> = (0..args.count).map(|number| format!("{prefix}-{number}")).collect();
    let admin = Admin::new(client)?;
    admin.connect()?;
    let meter = client.meter()?;

    let before = meter.read()?;
    let mut result = if args.in_one_request {
        all_at_once(args, client, &admin, &names, run)?
    } else {
        one_by_one(args, client, &admin, &names, run)?
    };
    let usage = meter.since(&before)?;
    if let Some(broker) = &usage.broker {
        result["broker_cpu_ms_per_topic"] = json!(broker.cpu_s * 1e3 / f64::from(args.count));
    }
    if !client.keep {
        for names in names.chunks(1_000) {
            admin.delete(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
    }
    Ok(Outcome::new("topics", args).with_result(result).with_usage(usage, 0, 0))
}

fn all_at_once(
    args: &TopicsArgs,
    client: &ClientArgs,
    admin: &Admin,
    names: &[String],
    run: u32,
) -> Result<serde_json::Value> {
    let prefix = client.topic_of(run);
    let start = Instant::now();
    admin.create(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut result = json!({ "topics": names.len(), "answered_s": start.elapsed().as_secs_f64() });
    if !args.no_write {
        let mut sender = Sender::new(client, &names[0], run, Deliveries::default())?;
        while sender.learn_all(&prefix)? < names.len() {
            ensure!(start.elapsed() < PATIENCE, "the topics that were created do not all have leaders");
        }
        result["visible_s"] = json!(start.elapsed().as_secs_f64());
        write_each(client, &mut sender, names)?;
        result["writable_s"] = json!(start.elapsed().as_secs_f64());
    }
    Ok(result)
}

fn one_by_one(
    args: &TopicsArgs,
    client: &ClientArgs,
    admin: &Admin,
    names: &[String],
    run: u32,
) -> Result<serde_json::Value> {
    let mut sender = Sender::new(client, &names[0], run, Deliveries::default())?;
    let bounds = || Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).context("the bounds are out of order");
    let (mut answered, mut writable) = (bounds()?, bounds()?);
    let micros = |time: Duration| time.as_micros() as u64;
    let progress = Progress::topics(names.len() as u64);
    for name in names {
        progress.advance(1);
        let start = Instant::now();
        admin.create(&[name])?;
        answered.saturating_record(micros(start.elapsed()));
        if !args.no_write {
            write_each(client, &mut sender, std::slice::from_ref(name))?;
            writable.saturating_record(micros(start.elapsed()));
        }
    }
    progress.finish();
    let mut result = json!({ "topics": names.len(), "answered": percentiles(&answered) });
    if !args.no_write {
        result["writable"] = percentiles(&writable);
    }
    Ok(result)
}

/// Writes one record to every partition of every topic; done when all are acknowledged.
fn write_each(client: &ClientArgs, sender: &mut Sender, names: &[String]) -> Result<()> {
    for name in names {
        sender.retarget(name);
        for _ in 0..client.partitions {
            sender.send(super::payload::now_ns())?;
        }
    }
    sender.finish()?;
    let failed = sender.deliveries().failed();
    ensure!(failed.is_empty(), "{} partitions could not be written: {}", failed.len(), failed[0].1);
    Ok(())
}
