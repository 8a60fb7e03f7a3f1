//! How far long work is, for people who watch: on a terminal, and nowhere else.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How often a bar of time is drawn.
const TICK: Duration = Duration::from_millis(250);
/// Characters of a bar.
const WIDTH: usize = 40;

/// A bar on standard error, or none.
pub struct Progress(ProgressBar);

impl Progress {
    /// None: nobody watches, or nobody knows how much there is.
    pub fn hidden() -> Progress {
        Progress(ProgressBar::hidden())
    }

    /// A bar of so many bytes.
    pub fn bytes(total: u64) -> Progress {
        Progress::new(total, "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
    }

    /// A bar of so many records.
    pub fn records(total: u64) -> Progress {
        Progress::new(total, "{bar:40} {human_pos}/{human_len} records  {per_sec}  {eta} left")
    }

    /// A bar of so many partitions.
    pub fn partitions(total: u64) -> Progress {
        Progress::new(total, "{bar:40} {pos}/{len} partitions")
    }

    /// A bar of so many topics.
    pub fn topics(total: u64) -> Progress {
        Progress::new(total, "{bar:40} {human_pos}/{human_len} topics  {per_sec}  {eta} left")
    }

    /// A bar of so much time, which a thread of its own draws: what is measured meanwhile is not disturbed.
    pub fn time(total: Duration) -> Progress {
        let share = move |state: &ProgressState, out: &mut dyn Write| {
            let filled = filled(state.elapsed(), total);
            // A bar that cannot be drawn is no reason to end.
            let _ = write!(out, "{}{}", "█".repeat(filled), "░".repeat(WIDTH - filled));
        };
        let template = format!("{{share}} {{elapsed}} of {:.0}s", total.as_secs_f64());
        let style = ProgressStyle::with_template(&template).expect("the template is sound").with_key("share", share);
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        // Where nobody watches there is nothing to draw, and no thread.
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Progress(bar)
    }

    fn new(total: u64, template: &str) -> Progress {
        let style = ProgressStyle::with_template(template).expect("the templates above are sound");
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        Progress(bar.with_style(style))
    }

    /// So much more is done.
    pub fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Characters of a bar that stand for the time that has passed.
fn filled(passed: Duration, total: Duration) -> usize {
    let share = passed.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
    (share.min(1.0) * WIDTH as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        let time = Progress::time(Duration::from_secs(2));
        let (topics, partitions) = (Progress::topics(10), Progress::partitions(10));
        for progress in [Progress::bytes(10), Progress::records(10), topics, partitions, time, Progress::hidden()] {
            progress.advance(10);
            progress.finish();
        }
    }

    #[test]
    fn a_bar_of_time_is_full_at_its_end_and_after_it() {
        let of = |passed| filled(Duration::from_millis(passed), Duration::from_secs(2));
        assert_eq!([0, 500, 2_000, 9_000].map(of), [0, 10, 40, 40]);
        assert_eq!(filled(Duration::ZERO, Duration::ZERO), 0);
    }
}
