//! Latency at a fixed rate: an open loop, measured from the time at which each record was meant to be sent, so that a
//! stall is felt by every record that it delayed and not only by the one that was under way.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::super::progress::Progress;
use super::payload::now_ns;
use super::produce::Pace;
use super::reader::{Announced, Reader};
use super::report::{Outcome, percentiles};
use super::sender::{Deliveries, Latency, Sender};
use super::tally::Tally;
use super::usage::{Meter, Reading};
use super::{ClientArgs, new_run};

/// Arguments of `ringlog bench latency`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct LatencyArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) client: ClientArgs,

    /// Records per second to offer
    #[arg(long, default_value_t = 2_000.0, value_name = "N")]
    pub(super) rate: f64,

    /// How long to measure, after the warm-up
    #[arg(long, default_value_t = 10.0)]
    pub(super) seconds: f64,

    /// How long to send before the measurement begins
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub(super) warmup: f64,

    /// Measure until a consumer in this process has the record, too
    #[arg(long)]
    pub(super) end_to_end: bool,
}

/// Measures latency.
pub fn run(args: &LatencyArgs) -> Result<Outcome> {
    let client = &args.client;
    ensure!(args.rate > 0.0, "--rate must be above 0");
    ensure!(args.seconds > 0.0, "--seconds must be above 0");
    fine_sleeps()?;
    let run = new_run();
    let topic = client.topic_of(run);
    let admin = client.prepare(&topic)?;

    let mut sender = Sender::new(client, &topic, run, Deliveries::timed())?;
    sender.prime()?;
    sender.serve_reports();
    let meter = client.meter()?;
    // The consumer is given a moment to connect, on top of the warm-up.
    let begin_ns = now_ns() + 500_000_000;
    let from_ns = begin_ns + (args.warmup.max(0.0) * 1e9) as u64;
    let end_ns = from_ns + (args.seconds * 1e9) as u64;
    let progress = Progress::time(Duration::from_nanos(end_ns.saturating_sub(now_ns())));
    sender.deliveries().time_from(from_ns);
    let mut tally = Tally::new(run, client.partitions as usize, Some(client.record_size));
    let mut consumed = Latency::from(from_ns);
    let end = Announced::not_yet();
    let (before, after) = thread::scope(|scope| {
        let follower = args.end_to_end.then(|| {
            scope.spawn(|| {
                let reader = Reader::new(client, &topic)?;
                reader.follow(&mut tally, &end, |trailer| consumed.record(trailer.intended_ns))
            })
        });
        let readings = send(&mut sender, args.rate, begin_ns, from_ns, end_ns, &meter);
        // Told whatever went wrong: the scope does not end before the consumer does.
        end.tell(sender.deliveries().acknowledged());
        if let Some(follower) = follower {
            follower.join().map_err(|_| anyhow!("the consumer panicked"))??;
        }
        readings
    })?;

    progress.finish();
    let deliveries = sender.deliveries().clone();
    let sent = sender.sent();
    drop(sender);
    let acknowledged = deliveries.latencies().context("deliveries were not timed")?;
    let usage = meter.between(&before, &after);
    let records = acknowledged.len();
    let mut result = json!({
        "topic": topic,
        "records": records,
        "failed": deliveries.failed().len(),
        "acknowledged": percentiles(&acknowledged),
    });
    if let Some(flushes) = usage.device_flushes {
        result["device_flushes_per_record"] = json!(flushes as f64 / records.max(1) as f64);
    }

    if args.end_to_end {
        result["end_to_end"] = percentiles(consumed.histogram());
    } else {
        Reader::new(client, &topic)?.read_to_end(&mut tally).context("cannot read back")?;
    }
    let failed: Vec<u64> = deliveries.failed().iter().map(|failure| failure.0).collect();
    client.clean_up(&admin, &topic)?;
    Ok(Outcome::new("latency", args).with_result(result).with_counts(tally.finish(sent, &failed)).with_usage(
        usage,
        records,
        records * client.record_size as u64,
    ))
}

/// Sends on schedule; returns the readings at the start and the end of the measured part.
fn send(
    sender: &mut Sender,
    rate: f64,
    begin_ns: u64,
    from_ns: u64,
    end_ns: u64,
    meter: &Meter,
) -> Result<(Reading, Reading)> {
    let mut pace = Pace::new(begin_ns, Some(rate));
    let mut before = None;
    loop {
        let due = pace.next();
        if due >= end_ns {
            break;
        }
        if before.is_none() && due >= from_ns {
            before = Some(meter.read()?);
        }
        sender.send(due)?;
    }
    sender.finish()?;
    let before = before.context("nothing was due in the time measured: raise --rate or --seconds")?;
    Ok((before, meter.read()?))
}

/// Lets this thread sleep to the microsecond: by default the kernel rounds by 50 µs, which would count as latency.
fn fine_sleeps() -> Result<()> {
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory of ours.
    let outcome = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong, 0, 0, 0) };
    ensure!(outcome == 0, "cannot set the timer slack: {}", std::io::Error::last_os_error());
    Ok(())
}
