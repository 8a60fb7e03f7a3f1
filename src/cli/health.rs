//! `ringlog health`: does the broker on this machine answer requests.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;

use crate::config::keys::Kind;

/// Time for the connection, and then for the answer.
const WITHIN: Duration = Duration::from_secs(2);

/// An ApiVersions request of version 0: its length, the API's number, the version, a correlation id, no client id. A
/// broker answers it as soon as clients can use it, and never waits for a disk with it.
const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF];

/// Longest answer to it, in bytes.
const MOST_BYTES: u32 = 4096;

const NO_BROKER: &str = "what came is not a broker's answer";

/// The arguments of `ringlog health`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 where a broker answers and 1 where none does. It is what the container image \
    has as its health check."
)]
pub struct HealthArgs {
    /// Address that the broker listens on; 0.0.0.0 and [::] stand for this machine
    #[arg(long, value_name = "IP:PORT", env = "RINGLOG_LISTEN", default_value = "127.0.0.1:9092", value_parser = listen)]
    listen: SocketAddr,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    Kind::Listen.listen(text).ok_or_else(|| format!("expected {}", Kind::Listen.expected()))
}

/// Asks the broker for its versions.
///
/// # Errors
/// No answer within [`WITHIN`], or none that a broker gives.
pub fn run(args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let addr = reachable(args.listen);
    ask(addr).with_context(|| format!("the broker at {addr} does not answer"))?;
    println!("the broker at {addr} answers");
    Ok(ExitCode::SUCCESS)
}

/// The address to connect to where a broker listens on `listen`.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(addr: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(&REQUEST)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    ensure!((6..=MOST_BYTES).contains(&length), NO_BROKER);
    // The whole answer is read: closing with a part of it unread would look like a fault to the broker.
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer)?;
    // The correlation id and the error code.
    ensure!(answer[..6] == [0, 0, 0, 1, 0, 0], NO_BROKER);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_address_means_this_machine() {
        let of = |text| reachable(listen(text).unwrap()).to_string();
        assert_eq!(of("0.0.0.0:9092"), "127.0.0.1:9092");
        assert_eq!(of("[::]:9092"), "[::1]:9092");
        assert_eq!(of("192.0.2.1:9092"), "192.0.2.1:9092");
        assert!(listen("nowhere").is_err());
    }

    #[test]
    fn only_a_broker_s_answer_counts() {
        let answers = |answer: &'static [u8]| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; REQUEST.len()];
                stream.read_exact(&mut request).unwrap();
                stream.write_all(answer).unwrap();
            });
            let result = ask(addr);
            server.join().unwrap();
            result.is_ok()
        };
        assert!(answers(&[0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
        assert!(!answers(&[0, 0, 0, 10, 0, 0, 0, 1, 0, 35, 0, 0, 0, 0]));
        assert!(!answers(b"HTTP/1.1 400 Bad Request\r\n"));
        assert!(!answers(&[]));
    }
}
