//! How far long work is, for people who watch: on a terminal, and nowhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for progress in [Progress::bytes(10), Progress::records(10), Progress::partitions(10), Progress::hidden()] {
            progress.advance(10);
            progress.finish();
        }
    }
}
