//! The stages of a topic's creation, as a ringlog broker remembers them and shows them on its HTTP port.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::Failure;
use super::rows::{self, Format, Row};

/// Longest answer that is taken, in bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// Asks the HTTP port at `HOST:PORT` for the newest creation of the topic and gives its stages, a row each, and the sum.
///
/// # Errors
/// [`Failure::Unreachable`] where nobody answers there by the deadline, [`Failure::Failed`] where the broker there has not
/// seen the creation.
pub fn of_creation(http: &str, topic: &str, deadline: Instant) -> Result<Vec<Row>, Failure> {
    let path = format!("/v1/topics/{}/trace", utf8_percent_encode(topic, NON_ALPHANUMERIC));
    let unreachable = |error: &dyn std::fmt::Display| Failure::Unreachable(format!("the HTTP port {http}: {error}"));
    let answer = get(http, &path, deadline).map_err(|error| unreachable(&error))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| unreachable(&"what came is no HTTP"))?;
    let body: Value = serde_json::from_str(body).map_err(|error| unreachable(&error))?;
    if head.split(' ').nth(1) != Some("200") {
        let why = body["error"].as_str().unwrap_or("it gives no reason");
        return Err(Failure::Failed(format!("the broker with the HTTP port {http} has no trace: {why}")));
    }
    stages(&body).ok_or_else(|| unreachable(&"what came is no trace"))
}

fn get(http: &str, path: &str, deadline: Instant) -> io::Result<String> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let address = http.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_read_timeout(Some(left()?))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The rows of a trace: each stage with its time and its part of the whole.
fn stages(trace: &Value) -> Option<Vec<Row>> {
    let total = trace["total_us"].as_u64()?;
    let row = |stage: &str, micros: u64| -> Row {
        let percent = (micros * 100 + total / 2).checked_div(total).unwrap_or(0);
        vec![("stage", stage.into()), ("us", micros.into()), ("percent", percent.into())]
    };
    let mut rows = Vec::new();
    for stage in trace["stages"].as_array()? {
        rows.push(row(stage["stage"].as_str()?, stage["us"].as_u64()?));
    }
    rows.push(row("total", total));
    Some(rows)
}

/// Prints them.
///
/// # Errors
/// Output that cannot be written.
pub fn print(stages: &[Row], format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Table {
        writeln!(out)?;
    }
    rows::print(stages, format, &mut out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stages_have_their_part_of_the_whole() {
        let trace =
            json!({ "total_us": 200, "stages": [{ "stage": "forward", "us": 50 }, { "stage": "commit", "us": 150 }] });
        let mut table = Vec::new();
        rows::print(&stages(&trace).unwrap(), Format::Table, &mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert_eq!(
            table,
            "stage     us  percent\nforward   50       25\ncommit   150       75\ntotal    200      100\n"
        );
        assert!(stages(&json!({ "error": "none" })).is_none());
    }
}
