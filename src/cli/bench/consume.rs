//! Consume throughput: of what lies there, and of what is just being written.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::super::progress::Progress;
use super::client::Admin;
use super::payload::now_ns;
use super::produce::Pace;
use super::reader::{Announced, ReadBack, Reader};
use super::report::Outcome;
use super::sender::{Deliveries, Sender};
use super::tally::{Counts, Tally};
use super::{ClientArgs, new_run};

/// Arguments of `ringlog bench consume`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct ConsumeArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) client: ClientArgs,

    /// The run that produced the topic, as `produce` printed it
    #[arg(long)]
    pub(super) run: u32,

    /// Records that the run sent, warm-up included
    #[arg(long, value_name = "N")]
    pub(super) expect: u64,

    /// Consumers, each reading the whole topic
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    pub(super) consumers: u16,
}

/// Reads a topic that a `produce` left behind, from start to end.
pub fn run(args: &ConsumeArgs) -> Result<Outcome> {
    let client = &args.client;
    let topic = client.topic.clone().context("--topic is needed: the one that `produce --no-read-back` left")?;
    let meter = client.meter()?;
    let before = meter.read()?;
    let reads = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..args.consumers).map(|_| scope.spawn(|| read_whole(client, &topic, args.run, args.expect))).collect();
        readers
            .into_iter()
            .map(|reader| reader.join().map_err(|_| anyhow!("a consumer panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    let usage = meter.since(&before)?;

    let bytes: u64 = reads.iter().map(|(read, _)| read.bytes).sum();
    let records: u64 = reads.iter().map(|(_, counts)| counts.read).sum();
    let seconds = reads.iter().map(|(read, _)| read.seconds).fold(0.0, f64::max);
    let first = reads.iter().map(|(read, _)| read.first.as_secs_f64()).fold(0.0, f64::max);
    ensure!(records > 0, "{topic} is empty");
    let result = json!({
        "topic": topic,
        "records": records,
        "bytes": bytes,
        "first_record_ms": first * 1e3,
        "seconds": seconds,
        "mb_per_s": bytes as f64 / 1e6 / seconds,
        "records_per_s": records as f64 / seconds,
    });
    let counts = worst(reads.into_iter().map(|(_, counts)| counts));
    if !client.keep {
        Admin::new(client)?.delete(&[&topic])?;
    }
    Ok(Outcome::new("consume", args).with_result(result).with_counts(counts).with_usage(usage, records, bytes))
}

fn read_whole(client: &ClientArgs, topic: &str, run: u32, expect: u64) -> Result<(ReadBack, Counts)> {
    let mut tally = Tally::new(run, client.partitions as usize, Some(client.record_size));
    let read = Reader::new(client, topic)?.read_to_end(&mut tally)?;
    Ok((read, tally.finish(expect, &[])))
}

/// The counts of the first consumer that found something wrong, or of any.
fn worst(counts: impl Iterator<Item = Counts>) -> Counts {
    counts.reduce(|worst, next| if worst.right() { next } else { worst }).unwrap_or_default()
}

/// Arguments of `ringlog bench tail`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct TailArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) client: ClientArgs,

    /// Consumers, each reading the whole topic
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    pub(super) consumers: u16,

    /// Records per second to produce [default: as many as the broker takes]
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<f64>,

    /// How long to produce
    #[arg(long, default_value_t = 10.0)]
    pub(super) seconds: f64,
}

/// Consumers that follow a topic while it is written.
pub fn tail(args: &TailArgs) -> Result<Outcome> {
    let client = &args.client;
    ensure!(args.rate.is_none_or(|rate| rate > 0.0), "--rate must be above 0");
    let run = new_run();
    let topic = client.topic_of(run);
    let admin = client.prepare(&topic)?;
    let mut sender = Sender::new(client, &topic, run, Deliveries::default())?;
    sender.prime()?;
    sender.serve_reports();
    let meter = client.meter()?;

    let end = Announced::not_yet();
    let before = meter.read()?;
    let start = Instant::now();
    let (sent, tallies) = thread::scope(|scope| {
        let followers: Vec<_> = (0..args.consumers)
            .map(|_| {
                scope.spawn(|| {
                    let mut tally = Tally::new(run, client.partitions as usize, Some(client.record_size));
                    Reader::new(client, &topic)?.follow(&mut tally, &end, |_| {})?;
                    Ok(tally)
                })
            })
            .collect();
        let progress = Progress::time(Duration::from_nanos((args.seconds.max(0.0) * 1e9) as u64));
        let sent = offer(&mut sender, args.rate, args.seconds);
        progress.finish();
        // Told whatever went wrong: the scope does not end before the consumers do.
        end.tell(sender.deliveries().acknowledged());
        let tallies = followers
            .into_iter()
            .map(|follower| follower.join().map_err(|_| anyhow!("a consumer panicked"))?)
            .collect::<Result<Vec<_>>>();
        (sent, tallies)
    });
    sent?;
    let seconds = start.elapsed().as_secs_f64();
    let usage = meter.since(&before)?;

    let failed: Vec<u64> = sender.deliveries().failed().iter().map(|failure| failure.0).collect();
    let counts: Vec<Counts> = tallies?.iter().map(|tally| tally.finish(sender.sent(), &failed)).collect();
    let records: u64 = counts.iter().map(|counts| counts.read).sum();
    let bytes = records * client.record_size as u64;
    let result = json!({
        "topic": topic,
        "records_written": sender.deliveries().acknowledged(),
        "records_read": records,
        "seconds": seconds,
        "read_mb_per_s": bytes as f64 / 1e6 / seconds,
        "records_per_s": records as f64 / seconds,
    });
    drop(sender);
    client.clean_up(&admin, &topic)?;
    Ok(Outcome::new("tail", args)
        .with_result(result)
        .with_counts(worst(counts.into_iter()))
        .with_usage(usage, records, bytes))
}

fn offer(sender: &mut Sender, rate: Option<f64>, seconds: f64) -> Result<()> {
    let start_ns = now_ns();
    let end_ns = start_ns + (seconds.max(0.0) * 1e9) as u64;
    let mut pace = Pace::new(start_ns, rate);
    loop {
        let due = pace.next();
        if due >= end_ns {
            return sender.finish();
        }
        sender.send(due)?;
    }
}
