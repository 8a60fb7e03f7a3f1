//! The sockets of the HTTP port: a few threads that each accept a connection, read one request, answer it and close.
//!
//! They have nothing to do with the executors, and run behind them: whatever comes in here, and however slowly, takes a
//! thread of these few for [`HTTP_CONNECTION_MS`] at most, and next to no memory. The parser is httparse, hyper's. Of
//! whole servers, tiny_http has had no release for years and knows no time limits, oxhttp bounds a read but not a
//! request and writes to standard error by itself, and hyper wants a runtime beside glommio's; what this port needs of
//! HTTP is GET.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::{HTTP_CONNECTION_MS, HTTP_HEAD_BYTES, HTTP_HEADERS, HTTP_REQUEST_MS, HTTP_THREADS};

/// How long a client whose answer is sent may take to close its side, so that it has read all of it.
const LINGER: Duration = Duration::from_millis(250);

/// How long no connection is accepted when accepting fails, for want of descriptors above all.
const PAUSE: Duration = Duration::from_millis(100);

/// How much less than the rest of the process these threads are given of a busy core (`nice`).
const NICE: libc::c_int = 10;

/// A request: of its head, what an answer can depend on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The path, without the query; as sent, percent signs and all.
    pub(super) path: String,
    /// The query; empty where there is none.
    pub(super) query: String,
    /// Whether the client wants the head of the answer only.
    head_only: bool,
}

#[cfg(test)]
impl Request {
    /// A GET.
    pub(super) fn get(path: &str, query: &str) -> Request {
        Request { path: path.to_owned(), query: query.to_owned(), head_only: false }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Response {
    /// Its status.
    pub(super) status: u16,
    /// The type of its body.
    pub(super) content_type: &'static str,
    /// Its body.
    pub(super) body: Vec<u8>,
}

/// Starts the threads, which accept from `listener` for as long as the process lives.
pub(super) fn start(
    listener: TcpListener,
    answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> io::Result<()> {
    let shared = Arc::new((listener, answer));
    for n in 0..HTTP_THREADS {
        let shared = Arc::clone(&shared);
        thread::Builder::new().name(format!("http-{n}")).spawn(move || {
            be_nice();
            loop {
                match shared.0.accept() {
                    // A client that goes away, or is too slow, has had its time; there is nobody to tell.
                    Ok((stream, _)) => drop(serve(&stream, &shared.1)),
                    Err(error) => {
                        tracing::debug!(%error, "a connection to the HTTP port could not be accepted");
                        thread::sleep(PAUSE);
                    }
                }
            }
        })?;
    }
    Ok(())
}

/// Has the calling thread stand back where a core is busy.
fn be_nice() {
    // SAFETY: takes no pointers. On Linux 0 means the calling thread, and a thread may always lower itself.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

fn serve(stream: &TcpStream, answer: &impl Fn(&Request) -> Response) -> io::Result<()> {
    let came = Instant::now();
    let (response, head_only) = match read_request(stream, came + Duration::from_millis(HTTP_REQUEST_MS))? {
        Ok(request) => (answer(&request), request.head_only),
        Err(refused) => (refused, false),
    };
    let end = came + Duration::from_millis(HTTP_CONNECTION_MS);
    let head = head_of(&response);
    write_by(stream, head.as_bytes(), end)?;
    if !head_only {
        write_by(stream, &response.body, end)?;
    }
    // Closed at once, with bytes of the client's unread, the answer could be lost on its way.
    stream.shutdown(Shutdown::Write)?;
    let (end, mut left) = (Instant::now() + LINGER, HTTP_HEAD_BYTES);
    let mut rest = [0; 1024];
    while left > 0 {
        match read_by(stream, &mut rest, end)? {
            0 => return Ok(()),
            n => left = left.saturating_sub(n),
        }
    }
    Ok(())
}

/// Reads a request up to the end of its head. Inside, the answer where it is none, or not one that is served.
fn read_request(stream: &TcpStream, end: Instant) -> io::Result<Result<Request, Response>> {
    let mut bytes = vec![0; HTTP_HEAD_BYTES];
    let mut filled = 0;
    loop {
        match read_by(stream, &mut bytes[filled..], end)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
        match parse(&bytes[..filled]) {
            None if filled == bytes.len() => return Ok(Err(refusal(431, "the head of the request is too large"))),
            None => {}
            Some(parsed) => return Ok(parsed),
        }
    }
}

/// Parses the head of a request; `None` where it goes on.
fn parse(bytes: &[u8]) -> Option<Result<Request, Response>> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(error) => return Some(Err(refusal(400, &format!("no HTTP request: {error}")))),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Some(Err(refusal(405, "only GET and HEAD are answered here"))),
    };
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(Ok(Request { path: path.to_owned(), query: query.to_owned(), head_only }))
}

fn refusal(status: u16, why: &str) -> Response {
    Response { status, content_type: "text/plain; charset=utf-8", body: format!("{why}\n").into_bytes() }
}

fn head_of(response: &Response) -> String {
    let reason = match response.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        other => unreachable!("nobody answers with status {other}"),
    };
    // The page carries its script and style in itself and talks to nobody but this port.
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nContent-Security-Policy: default-src 'none'; \
         script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'\r\n{}\r\n",
        response.status,
        response.content_type,
        response.body.len(),
        if response.status == 405 { "Allow: GET, HEAD\r\n" } else { "" },
    )
}

/// The time left until `end`.
fn left(end: Instant) -> io::Result<Duration> {
    Some(end.saturating_duration_since(Instant::now()))
        .filter(|left| !left.is_zero())
        .ok_or(io::ErrorKind::TimedOut.into())
}

/// Reads what is there, or what comes until `end`.
fn read_by(mut stream: &TcpStream, bytes: &mut [u8], end: Instant) -> io::Result<usize> {
    stream.set_read_timeout(Some(left(end)?))?;
    stream.read(bytes)
}

/// Writes all, as long as the client takes it until `end`.
fn write_by(mut stream: &TcpStream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => bytes = &bytes[n..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A server whose answers name what was asked for; `/big` has a large one.
    fn started() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        start(listener, |request| {
            let body = match &*request.path {
                "/big" => vec![b'x'; 16 << 20],
                _ => format!("{} {}", request.path, request.query).into_bytes(),
            };
            Response { status: 200, content_type: "text/plain", body }
        })
        .unwrap();
        addr
    }

    fn ask(addr: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn one_request_one_answer() {
        let addr = started();
        let answer = ask(addr, b"GET /a/b?c=d HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 8\r\n") && answer.ends_with("\r\n\r\n/a/b c=d"), "{answer}");
        let head = ask(addr, b"HEAD /a HTTP/1.1\r\n\r\n");
        assert!(head.contains("\r\nContent-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn what_is_no_get_is_refused() {
        let addr = started();
        assert!(ask(addr, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello").starts_with("HTTP/1.1 405 "));
        assert!(ask(addr, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").starts_with("HTTP/1.1 400 "));
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HTTP_HEAD_BYTES));
        assert!(ask(addr, long.as_bytes()).starts_with("HTTP/1.1 431 "));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HTTP_HEADERS + 1));
        assert!(ask(addr, many.as_bytes()).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn slow_clients_have_their_time_and_no_more() {
        let addr = started();
        let (started, done) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        // More of them than there are threads: some send a byte now and then, some read nothing of a large answer.
        let slow: Vec<_> = (0..HTTP_THREADS + 4)
            .map(|n| {
                let done = Arc::clone(&done);
                thread::spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    let mut sent = if n % 2 == 0 { stream.write(b"GET /big HTTP/1.1\r\n\r\n") } else { Ok(0) };
                    while !done.load(Ordering::Relaxed) && sent.is_ok() {
                        thread::sleep(Duration::from_millis(50));
                        sent = if n % 2 == 0 { sent } else { stream.write(b"G") };
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(200));
        let answer = ask(addr, b"GET /health HTTP/1.1\r\n\r\n");
        assert!(answer.ends_with("/health "), "{answer}");
        assert!(started.elapsed() < Duration::from_millis(2 * HTTP_CONNECTION_MS + 2_000), "{:?}", started.elapsed());
        done.store(true, Ordering::Relaxed);
        for client in slow {
            client.join().unwrap();
        }
    }
}
