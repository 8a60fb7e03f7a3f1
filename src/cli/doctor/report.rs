//! What doctor found, as a table for people and as JSON for programs.

use std::fmt;

use serde::Serialize;

use super::disk::Measured;

/// All that doctor found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether no check failed.
    pub can_run: bool,
    checks: Vec<Check>,
    disk: Option<Measured>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    /// What it means for a broker.
    pub status: Status,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// What a check means for a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It can run, but not as well as it could.
    Warn,
    /// It cannot run.
    Fail,
}

impl Check {
    /// A check that found all well.
    pub fn ok(name: &'static str, value: impl fmt::Display) -> Check {
        Check { name, status: Status::Ok, value: value.to_string(), advice: None }
    }

    /// A check that found something to improve; `advice` says how and what it is worth.
    pub fn warn(name: &'static str, value: impl fmt::Display, advice: impl fmt::Display) -> Check {
        Check { name, status: Status::Warn, value: value.to_string(), advice: Some(advice.to_string()) }
    }

    /// A check that found why the broker cannot run; `advice` says what to do.
    pub fn fail(name: &'static str, value: impl fmt::Display, advice: impl fmt::Display) -> Check {
        Check { name, status: Status::Fail, value: value.to_string(), advice: Some(advice.to_string()) }
    }
}

impl Report {
    /// The report of these checks, and of the disk where it could be measured.
    pub fn new(checks: Vec<Check>, disk: Option<Measured>) -> Report {
        Report { can_run: checks.iter().all(|check| check.status != Status::Fail), checks, disk }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            writeln!(f, "{status:<4}  {:<11}  {}", check.name, check.value)?;
            if let Some(advice) = &check.advice {
                for line in wrapped(advice, 100) {
                    writeln!(f, "{:19}{line}", "")?;
                }
            }
        }
        if let Some(disk) = &self.disk {
            write!(f, "\n{disk}")?;
        }
        let verdict = match self.can_run {
            true => "The broker can run here.",
            false => "The broker cannot run here: the lines marked FAIL say why and what to do.",
        };
        writeln!(f, "\n{verdict}")
    }
}

/// The words of `text` in lines of at most `width` characters, longer words excepted.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_decides_the_verdict_and_a_warning_does_not() {
        let report = Report::new(vec![Check::ok("a", 1), Check::warn("b", 2, "do this")], None);
        assert!(report.can_run);
        assert_eq!(
            report.to_string(),
            "ok    a            1\nwarn  b            2\n                   do this\n\nThe broker can run here.\n"
        );
        let report = Report::new(vec![Check::fail("c", "x", "y")], None);
        assert!(report.to_string().contains("cannot run here"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["can_run"], false);
        assert_eq!(json["checks"][0]["status"], "fail");
        assert_eq!(json["checks"][0]["advice"], "y");
    }

    #[test]
    fn lines_end_between_words() {
        assert_eq!(wrapped("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrapped("aaaaaaaa b", 5), ["aaaaaaaa", "b"]);
    }
}
