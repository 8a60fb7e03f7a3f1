//! How soon a broker that is starting acknowledges a record.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::payload::now_ns;
use super::report::Outcome;
use super::sender::{Deliveries, Sender};
use super::{ClientArgs, new_run};

/// Arguments of `ringlog bench first-ack`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct FirstAckArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) client: ClientArgs,
}

/// Tries from now on until one record is acknowledged. Start it together with the broker.
pub fn run(args: &FirstAckArgs) -> Result<Outcome> {
    let start = Instant::now();
    let run = new_run();
    let mut args = args.clone();
    args.client.linger_ms = 0;
    args.client.property.push(("retry.backoff.ms".into(), "5".into()));
    let client = &args.client;
    let topic = client.topic_of(run);
    client.prepare(&topic)?;
    let prepared = start.elapsed();
    let mut sender = Sender::new(client, &topic, run, Deliveries::default())?;
    sender.send(now_ns())?;
    sender.finish()?;
    let failed = sender.deliveries().failed();
    ensure!(failed.is_empty(), "the record was not acknowledged: {}", failed[0].1);
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    Ok(Outcome::new("first_ack", &args).with_result(json!({
        "topic": topic,
        "topic_ready_ms": prepared.as_secs_f64() * 1e3,
        "acknowledged_ms": start.elapsed().as_secs_f64() * 1e3,
        "acknowledged_at_unix_s": at,
    })))
}
