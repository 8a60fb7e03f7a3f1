//! Log lines on standard error, written by a thread of their own: an executor that logs never waits for whoever reads
//! them, nor for the disk that they are redirected to.

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use crate::limits;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.level` is neither a level nor a filter.
    #[error(
        "`log.level` is `{level}`, expected error, warn, info, debug, trace, off, or a filter such as \
         info,ringlog::io=debug"
    )]
    Level {
        /// What was given.
        level: String,
    },
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes log lines: {0}")]
    Thread(#[from] io::Error),
    /// The process has a log already.
    #[error("logging was started before")]
    Started,
}

/// The way to the thread that writes.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Starts the log of this process: lines in the form `format`, those that `level` lets through.
///
/// # Errors
/// A level that does not parse, a thread that does not start, a second start.
pub fn start(format: LogFormat, level: &str) -> Result<(), LoggingError> {
    let filter = filter(level)?;
    let (queue, receiver) = Queue::new(limits::LOG_QUEUE);
    QUEUE.set(queue.clone()).map_err(|_| LoggingError::Started)?;
    let lost = queue.lost.clone();
    thread::Builder::new().name("log".into()).spawn(move || write(&receiver, &lost, format, stderr()))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue);
    match format {
        LogFormat::Human => lines.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LoggingError::Started)
}

/// Waits until all lines logged so far are written, `most` at the longest. For the end of the process.
pub fn flush(most: Duration) {
    let Some(queue) = QUEUE.get() else { return };
    let (done, wait) = sync_channel(1);
    // Where the queue is full, or the thread is stuck in a write, the lines are lost and the end goes on.
    if queue.sender.try_send(Message::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(most);
    }
}

/// Lines of this process that were lost so far, because standard error did not take them.
pub fn lost() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.lost_in_all.load(Ordering::Relaxed))
}

/// Reads a filter. A bare word that is no level would be taken for a target, and would silence all others.
fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = || LoggingError::Level { level: level.to_owned() };
    // An empty word parses as a level.
    let plausible =
        |part: &str| !part.is_empty() && (part.contains(['=', '[']) || part.trim().parse::<LevelFilter>().is_ok());
    if !level.split(',').all(plausible) {
        return Err(wrong());
    }
    EnvFilter::try_new(level).map_err(|_| wrong())
}

/// What the writing thread is handed.
enum Message {
    /// A whole line, its end included.
    Line(Vec<u8>),
    /// A request to say when all before it is written.
    Flush(SyncSender<()>),
}

/// The sending side. Where the queue is full a line is counted and dropped: the broker's work goes first.
#[derive(Clone)]
struct Queue {
    sender: SyncSender<Message>,
    /// Lines that were lost and that no line tells of yet.
    lost: Arc<AtomicU64>,
    lost_in_all: Arc<AtomicU64>,
}

impl Queue {
    fn new(lines: usize) -> (Queue, Receiver<Message>) {
        let (sender, receiver) = sync_channel(lines);
        (Queue { sender, lost: Arc::default(), lost_in_all: Arc::default() }, receiver)
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes one line, which the subscriber writes in one call.
struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.sender.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.0.lost.fetch_add(1, Ordering::Relaxed);
                self.0.lost_in_all.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines until there is no sender any more. A line that standard error refuses counts as lost.
fn write(receiver: &Receiver<Message>, lost: &AtomicU64, format: LogFormat, mut out: impl Write) {
    for message in receiver {
        match message {
            Message::Line(line) => {
                if out.write_all(&line).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            // Whoever asked may have stopped waiting.
            Message::Flush(done) => drop(done.try_send(())),
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 && out.write_all(lost_line(count, format).as_bytes()).is_err() {
            lost.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn lost_line(count: u64, format: LogFormat) -> String {
    const TEXT: &str = "log lines were lost: standard error did not take them fast enough";
    match format {
        LogFormat::Human => format!(" WARN {count} {TEXT}\n"),
        LogFormat::Json => format!("{}\n", serde_json::json!({ "level": "WARN", "message": TEXT, "lost": count })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_parse_and_slips_do_not() {
        for level in ["info", "WARN", "off", "info,ringlog::io=debug", "ringlog=trace"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["inof", "verbose", "info,ringlog::io", "ringlog=loud", ","] {
            let error = filter(level).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`log.level` is `{level}`, expected error")), "{error}");
        }
    }

    #[test]
    fn lines_arrive_in_order_and_lost_ones_are_counted() {
        let (queue, receiver) = Queue::new(2);
        for text in ["a\n", "b\n", "c\n", "d\n"] {
            assert_eq!(queue.make_writer().write(text.as_bytes()).unwrap(), 2);
        }
        let lost = queue.lost.clone();
        drop(queue);
        let mut out = Vec::new();
        write(&receiver, &lost, LogFormat::Human, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "a\n WARN 2 log lines were lost: standard error did not take them fast enough\nb\n");
    }

    #[test]
    fn the_count_of_lost_lines_is_json_where_lines_are() {
        let line: serde_json::Value = serde_json::from_str(&lost_line(3, LogFormat::Json)).unwrap();
        assert_eq!(line["lost"], 3);
    }

    /// A reader of standard error that takes nothing.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_does_not_wait_for_a_stuck_reader() {
        let (queue, receiver) = Queue::new(4);
        let lost = queue.lost.clone();
        let (release, stuck) = sync_channel(0);
        let writer = thread::spawn(move || write(&receiver, &lost, LogFormat::Human, Stuck(stuck)));
        for _ in 0..100 {
            queue.make_writer().write_all(b"x\n").unwrap();
        }
        assert!(queue.lost.load(Ordering::Relaxed) >= 90);
        assert!(queue.lost_in_all.load(Ordering::Relaxed) >= 90);
        drop(queue);
        drop(release);
        writer.join().unwrap();
    }
}
