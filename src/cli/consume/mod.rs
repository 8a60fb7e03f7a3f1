//! `ringlog consume`: records to standard output.

mod fetcher;
mod member;
mod shape;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::client::{BEGIN, BrokerArgs, Cluster, END, Failure, Partition, complain, edges, leaders};
use super::interrupt;
use super::progress::Progress;
use super::rows::Format;
use super::when::time_ms;
use fetcher::Fetcher;
use member::{GroupProtocol, Member, Standing};
use shape::Shape;
use start::{Start, first_offsets};

/// How often a member without a partition looks whether it has one.
const WITHOUT_PARTITION: Duration = Duration::from_millis(200);

/// The arguments of `ringlog consume`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ConsumeArgs {
    /// Topic to read
    topic: String,
    #[command(flatten)]
    brokers: BrokerArgs,
    /// Partitions to read; all where none are given
    #[arg(short, long, value_name = "N", value_delimiter = ',')]
    partition: Vec<i32>,
    /// Read as a member of this consumer group: its members share the partitions, begin where the group left off, and
    /// commit what they have printed
    #[arg(short, long, value_name = "GROUP", conflicts_with = "partition")]
    group: Option<String>,
    /// How the group is spoken to
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t = GroupProtocol::Classic, requires = "group")]
    group_protocol: GroupProtocol,
    #[command(flatten)]
    from: From,
    /// End after so many records
    #[arg(short = 'n', long, value_name = "N")]
    max_messages: Option<u64>,
    /// End where the partitions ended when it began
    #[arg(short, long)]
    exit_at_end: bool,
    /// What is printed of each record: value, key-value, json, or a template
    #[arg(long, value_name = "FORMAT", default_value = "value", value_parser = Shape::parse)]
    format: Shape,
}

/// Where to begin.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct From {
    /// Begin with the first record that is kept; without this or one of the next three only new ones are shown
    #[arg(long)]
    from_beginning: bool,
    /// Begin with this offset
    #[arg(short, long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Begin with the first record that is not older than this time
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    from_time: Option<i64>,
    /// Begin so many offsets before the end of each partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    last: Option<i64>,
}

impl From {
    fn start(&self) -> Start {
        match self {
            From { from_beginning: true, .. } => Start::Begin,
            From { offset: Some(offset), .. } => Start::Offset(*offset),
            From { from_time: Some(time), .. } => Start::Time(*time),
            From { last: Some(count), .. } => Start::Last(*count),
            _ => Start::End,
        }
    }
}

const AFTER_HELP: &str = "\
Records of a partition come in their order, those of several partitions as they arrive. Every compression is opened. Records
of transactions that were aborted are shown like others. In a group, where to begin holds for partitions that it has committed
nothing of; offsets are committed every 5 seconds and at the end, Ctrl-C included. Its members may be any clients; in the
classic protocol they must know the assignor `range`.

A template is printed as it is, with a line end behind it and these in it: {topic} {partition} {offset} {timestamp} {time}
{key} {value} {headers}, and \\t and \\n. `json` prints one object a line; keys, values and headers that are no UTF-8 are
objects in it, as {\"hex\": \"00ff\"}.

Examples:
  ringlog consume orders                              what comes from now on, until Ctrl-C
  ringlog consume orders --from-beginning --exit-at-end --format json
  ringlog consume orders --last 10 --exit-at-end --format '{partition} {offset} {time} {key}={value}'
  ringlog consume orders --from-time 2026-01-31T12:00:00Z -n 1
  ringlog consume orders --group billing --from-beginning
  ringlog consume orders --group billing --group-protocol consumer

Exit codes: 0 done; 1 the broker refused, or a record is damaged; 2 the arguments make no sense; 3 no broker answers within
the time.";

/// Prints records until there is a reason to end.
///
/// # Errors
/// Output that cannot be written. What brokers refuse is printed and decides the exit code.
pub fn run(args: &ConsumeArgs) -> anyhow::Result<ExitCode> {
    match consume(args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            complain(Format::Table, std::slice::from_ref(&failure));
            Ok(failure.exit_code().into())
        }
    }
}

fn consume(args: &ConsumeArgs) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.brokers);
    let mut printer = Printer::new(args);
    match &args.group {
        None => {
            let partitions = partitions(&mut cluster, args)?;
            let positions = first_offsets(&mut cluster, &partitions, &args.from.start())?;
            let mut reading = Reading::new(&mut cluster, args, positions)?;
            printer.expect(reading.left());
            while reading.step(&mut cluster, &mut printer)? == Next::GoOn {}
        }
        Some(group) => {
            // Ctrl-C is no reason to let the group wait for this member.
            interrupt::watch();
            let mut member = Member::new(group, &args.topic, args.group_protocol)?;
            let read = read_as(&mut member, &mut cluster, args, &mut printer);
            cluster.renew();
            read.and(member.leave(&mut cluster))?;
        }
    }
    printer.progress.finish();
    Ok(())
}

/// Reads what the group gives to the member, and commits what was printed.
fn read_as(
    member: &mut Member,
    cluster: &mut Cluster,
    args: &ConsumeArgs,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    cluster.insist(|cluster| leaders(cluster, &args.topic))?;
    loop {
        let mut positions = BTreeMap::new();
        let mut fresh = BTreeSet::new();
        for (partition, committed) in member.join(cluster)? {
            let partition = (args.topic.clone(), partition);
            match committed {
                Some(offset) => drop(positions.insert(partition, offset)),
                None => drop(fresh.insert(partition)),
            }
        }
        positions.extend(first_offsets(cluster, &fresh, &args.from.start())?);
        let mut reading = Reading::new(cluster, args, positions)?;
        let next = reading.until_rebalance(member, cluster, printer);
        // What was printed is committed, whatever the reason is to end.
        cluster.renew();
        let committed = member.commit(cluster, reading.fetcher.positions());
        if next? == Next::End {
            return committed.map(drop);
        }
    }
}

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// Partitions that are read, and where that ends.
struct Reading {
    topic: String,
    fetcher: Fetcher,
    ends: Option<BTreeMap<i32, i64>>,
}

impl Reading {
    fn new(cluster: &mut Cluster, args: &ConsumeArgs, positions: BTreeMap<Partition, i64>) -> Result<Reading, Failure> {
        let by_number = |of: BTreeMap<Partition, i64>| of.into_iter().map(|((_, number), at)| (number, at)).collect();
        let ends = if args.exit_at_end { Some(by_number(edges(cluster, positions.keys(), END)?)) } else { None };
        Ok(Reading { topic: args.topic.clone(), fetcher: Fetcher::new(&args.topic, by_number(positions)), ends })
    }

    /// Offsets until the ends, where there are any.
    fn left(&self) -> Option<u64> {
        let left = |(partition, end): (&i32, &i64)| (end - self.fetcher.positions()[partition]).max(0) as u64;
        self.ends.as_ref().map(|ends| ends.iter().map(left).sum())
    }

    /// Fetches once and prints what came.
    fn step(&mut self, cluster: &mut Cluster, printer: &mut Printer<'_>) -> Result<Next, Failure> {
        let ends = self.ends.as_ref();
        let wanted =
            |partition: i32, offset: i64| ends.is_none_or(|ends| ends.get(&partition).is_some_and(|end| offset < *end));
        if printer.is_full() || !self.fetcher.keep(wanted) {
            return Ok(Next::End);
        }
        for (partition, batches) in self.fetcher.fetch(cluster)? {
            for batch in batches {
                self.fetcher.each(partition, &batch, |record| {
                    wanted(partition, record.offset) && printer.print(&self.topic, &record)
                })?;
            }
        }
        printer.flush()
    }

    /// Reads for a member of a group until there is a reason to end, or the member has to join again.
    fn until_rebalance(
        &mut self,
        member: &mut Member,
        cluster: &mut Cluster,
        printer: &mut Printer<'_>,
    ) -> Result<Next, Failure> {
        loop {
            if interrupt::came() {
                return Ok(Next::End);
            }
            if member.turn(cluster, self.fetcher.positions())? == Standing::JoinAgain {
                return Ok(Next::GoOn);
            }
            if self.fetcher.positions().is_empty() && self.ends.is_none() {
                // There are more members than partitions, and this one waits for one.
                thread::sleep(WITHOUT_PARTITION);
            } else if self.step(cluster, printer)? == Next::End {
                return Ok(Next::End);
            }
        }
    }
}

/// The partitions that are to be read.
fn partitions(cluster: &mut Cluster, args: &ConsumeArgs) -> Result<BTreeSet<Partition>, Failure> {
    let all: BTreeSet<i32> = cluster.insist(|cluster| leaders(cluster, &args.topic))?.into_keys().collect();
    if let Some(absent) = args.partition.iter().find(|number| !all.contains(number)) {
        return Err(Failure::Failed(format!("{} has no partition {absent}", args.topic)));
    }
    let chosen = if args.partition.is_empty() { all } else { args.partition.iter().copied().collect() };
    Ok(chosen.into_iter().map(|number| (args.topic.clone(), number)).collect())
}

/// Standard output, which takes as many records as were asked for.
struct Printer<'a> {
    shape: &'a Shape,
    out: BufWriter<io::StdoutLock<'static>>,
    most: Option<u64>,
    printed: u64,
    result: io::Result<()>,
    progress: Progress,
}

impl<'a> Printer<'a> {
    fn new(args: &'a ConsumeArgs) -> Printer<'a> {
        Printer {
            shape: &args.format,
            out: BufWriter::new(io::stdout().lock()),
            most: args.max_messages,
            printed: 0,
            result: Ok(()),
            progress: Progress::hidden(),
        }
    }

    /// Shows how far it is, where somebody watches and it is known how much there is.
    fn expect(&mut self, total: Option<u64>) {
        let total = match (total, self.most) {
            (Some(total), Some(most)) => Some(total.min(most)),
            (total, most) => total.or(most),
        };
        // Where the records themselves go to the terminal, a bar would be in their way.
        if let Some(total) = total.filter(|_| io::stderr().is_terminal() && !io::stdout().is_terminal()) {
            self.progress = Progress::records(total);
        }
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.printed >= most)
    }

    /// Prints a record; false where it takes no more.
    fn print(&mut self, topic: &str, record: &fetcher::Shown<'_>) -> bool {
        if self.is_full() || self.result.is_err() {
            return false;
        }
        self.result = self.shape.print(topic, record, &mut self.out);
        self.printed += 1;
        self.progress.advance(1);
        self.result.is_ok()
    }

    fn flush(&mut self) -> Result<Next, Failure> {
        let result = std::mem::replace(&mut self.result, Ok(())).and_then(|()| self.out.flush());
        match result {
            Ok(()) => Ok(Next::GoOn),
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Next::End),
            Err(error) => Err(Failure::Failed(format!("the output cannot be written: {error}"))),
        }
    }
}
