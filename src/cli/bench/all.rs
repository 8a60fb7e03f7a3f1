//! A short run of each measurement against one broker, as one table.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::ClientArgs;
use super::latency::{self, LatencyArgs};
use super::produce::{self, ProduceArgs};
use super::report::{Format, Outcome, Verdict};
use super::topics::{self, TopicsArgs};
use super::{consume, consume::ConsumeArgs};

/// Arguments of `ringlog bench all`. The topic's name, partitions and record size are those of the rows.
#[derive(Clone, Debug, Args, Serialize)]
pub struct AllArgs {
    #[command(flatten)]
    #[serde(flatten)]
    client: ClientArgs,

    /// How long each row measures
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// Topics to create
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    topics: u32,
}

/// Runs every row, and ends with the code of the first one that has no result.
pub fn run(args: &AllArgs) -> Result<ExitCode> {
    let format = args.client.format;
    let mut code = ExitCode::SUCCESS;
    let mut failed = false;
    let mut show = |name: &str, outcome: Outcome, columns: &[(&str, &str)]| {
        if outcome.verdict != Verdict::Good && !failed {
            failed = true;
            code = outcome.exit_code();
        }
        match format {
            Format::Json => outcome.print(format),
            Format::Text => println!("{name:<36} {}", row(&outcome, columns)),
        }
    };

    const PRODUCE: &[(&str, &str)] = &[
        ("/result/mb_per_s", "MB/s"),
        ("/result/records_per_s", "records/s"),
        ("/result/broker_cpu_us_per_record", "CPU µs/record"),
        ("/result/written_per_accepted", "written/accepted"),
    ];
    for (record_size, partitions) in [(1024, 1), (1024, 3), (1024, 16), (100, 3)] {
        let client = ClientArgs { record_size, partitions, topic: None, ..args.client.clone() };
        let outcome = produce::run(&ProduceArgs {
            client,
            seconds: args.seconds,
            records: None,
            rate: None,
            warmup: 1.0,
            no_read_back: false,
        })?;
        show(&format!("produce {record_size} B x {partitions} partitions"), outcome, PRODUCE);
    }

    let client = ClientArgs { record_size: 1024, partitions: 3, topic: None, ..args.client.clone() };
    let written = produce::run(&ProduceArgs {
        client: client.clone(),
        seconds: args.seconds,
        records: None,
        rate: None,
        warmup: 0.0,
        no_read_back: true,
    })?;
    let written = written.result.context("the records to be consumed could not be produced undisturbed")?;
    let number = |name: &str| written[name].as_u64().with_context(|| format!("produce gave no {name}"));
    let outcome = consume::run(&ConsumeArgs {
        run: number("run")? as u32,
        expect: number("sent_with_warmup")?,
        consumers: 1,
        client: ClientArgs { topic: written["topic"].as_str().map(str::to_owned), ..client.clone() },
    })?;
    const CONSUME: &[(&str, &str)] =
        &[("/result/mb_per_s", "MB/s"), ("/result/broker_cpu_us_per_record", "CPU µs/record")];
    show("consume 1024 B, just written", outcome, CONSUME);

    const ACKNOWLEDGED: &[(&str, &str)] = &[
        ("/result/acknowledged/p50_ms", "p50 ms"),
        ("/result/acknowledged/p99_ms", "p99 ms"),
        ("/result/acknowledged/p999_ms", "p99.9 ms"),
        ("/result/acknowledged/max_ms", "max ms"),
    ];
    const END_TO_END: &[(&str, &str)] = &[
        ("/result/end_to_end/p50_ms", "p50 ms"),
        ("/result/end_to_end/p99_ms", "p99 ms"),
        ("/result/end_to_end/p999_ms", "p99.9 ms"),
        ("/result/end_to_end/max_ms", "max ms"),
    ];
    for (name, end_to_end, columns) in [
        ("latency 2,000/s, until acknowledged", false, ACKNOWLEDGED),
        ("latency 2,000/s, end to end", true, END_TO_END),
    ] {
        let client = client.clone();
        let outcome =
            latency::run(&LatencyArgs { client, rate: 2_000.0, seconds: args.seconds, warmup: 1.0, end_to_end })?;
        show(name, outcome, columns);
    }

    const TOPICS: &[(&str, &str)] = &[
        ("/result/writable/p50_ms", "p50 ms"),
        ("/result/writable/p99_ms", "p99 ms"),
        ("/result/answered_s", "answered s"),
        ("/result/writable_s", "writable s"),
        ("/result/broker_cpu_ms_per_topic", "CPU ms/topic"),
    ];
    for (name, in_one_request) in [("create a topic x 3 partitions", false), ("create topics in one request", true)] {
        let client = client.clone();
        let outcome = topics::run(&TopicsArgs { client, count: args.topics, in_one_request, no_write: false })?;
        show(name, outcome, TOPICS);
    }
    Ok(code)
}

/// The columns that an outcome has, or why it has none.
fn row(outcome: &Outcome, columns: &[(&str, &str)]) -> String {
    match outcome.verdict {
        Verdict::Good => {}
        Verdict::WrongCount => return format!("NO RESULT: {:?}", outcome.counts),
        Verdict::Disturbed => return "DISCARDED: the machine was busy with something else".into(),
    }
    let value = serde_json::to_value(outcome).unwrap_or(Value::Null);
    let cells: Vec<String> = columns
        .iter()
        .filter_map(|(pointer, unit)| Some((value.pointer(pointer)?.as_f64()?, unit)))
        .map(
            |(figure, unit)| {
                if figure >= 1_000.0 { format!("{figure:.0} {unit}") } else { format!("{figure:.2} {unit}") }
            },
        )
        .collect();
    cells.join("   ")
}
