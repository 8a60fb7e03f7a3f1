//! The driver with real sockets and executors, around a core that does what a frame's first byte says.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicUsize;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::smallvec;

use super::*;
use crate::config::{Machine, Settings};
use crate::limits::{CONN_UNSENT_BYTES, MAX_IN_FLIGHT_PER_CONN};
use crate::shard::view::{self, Counts, Look};
use crate::shard::{Effect, Event};
use crate::types::{ConnId, Now};

const MIB: usize = 1024 * 1024;

/// Send the frame back.
const ECHO: u8 = b'e';
/// Send nothing back.
const SILENT: u8 = b's';
/// Keep the frame and answer it after the next [`RELEASE`].
const HOLD: u8 = b'h';
/// Answer all frames that are held on this shard, then this one.
const RELEASE: u8 = b'r';
/// Send so many MiB back.
const BIG: u8 = b'b';
/// Answer, then close the connection.
const CLOSE: u8 = b'c';

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    open: AtomicUsize,
    ticks: AtomicUsize,
}

struct Echo {
    seen: Arc<Seen>,
    held: VecDeque<(ConnId, Bytes)>,
}

fn respond(conn: ConnId, body: Bytes) -> Effect {
    let mut prefix = BytesMut::new();
    prefix.put_u32(body.len() as u32);
    Effect::Respond { conn, chunks: smallvec![prefix.freeze(), body] }
}

impl Core for Echo {
    fn start(&mut self, _: Now, _: &mut Vec<Effect>) {}

    fn step(&mut self, _: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Connected { .. } => drop(self.seen.open.fetch_add(1, Ordering::SeqCst)),
            Event::Closed { conn } => {
                self.seen.open.fetch_sub(1, Ordering::SeqCst);
                self.held.retain(|(held, _)| *held != conn);
            }
            Event::Request { conn, frame } => {
                self.seen.requests.fetch_add(1, Ordering::SeqCst);
                match frame[0] {
                    ECHO => effects.push(respond(conn, frame)),
                    SILENT => effects.push(Effect::Respond { conn, chunks: smallvec![] }),
                    HOLD => self.held.push_back((conn, frame)),
                    BIG => effects.push(respond(conn, Bytes::from(vec![BIG; usize::from(frame[1]) * MIB]))),
                    CLOSE => {
                        effects.push(respond(conn, frame));
                        effects.push(Effect::Close { conn, reason: "the test wants it".to_owned() });
                    }
                    RELEASE => {
                        effects.extend(self.held.drain(..).map(|(conn, frame)| respond(conn, frame)));
                        effects.push(respond(conn, frame));
                    }
                    other => panic!("an unknown command {other}"),
                }
            }
            Event::Tick => drop(self.seen.ticks.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn worked(&mut self, _now: Now) {}

    fn finish_turn(&mut self, _: Now, _: &mut Vec<Effect>) {}

    fn busy(&self) -> bool {
        !self.held.is_empty()
    }

    fn ready(&self) -> bool {
        true
    }

    fn drained(&self) -> bool {
        self.held.is_empty()
    }

    fn has_left(&self, _: Now) -> bool {
        true
    }

    fn metrics(&self) -> Arc<ShardMetrics> {
        Arc::new(ShardMetrics::new([], []))
    }

    fn look(&mut self, _: Now, _: &Look, _: &mut Vec<Effect>) -> view::Seen {
        view::Seen::Counts(Counts::default())
    }
}

fn config(dir: &std::path::Path) -> Config {
    let machine = Machine { cores: 2, memory_bytes: 1 << 30, hostname: "test".to_owned() };
    let mut config = Settings::default().resolve(&machine).unwrap();
    config.data_dir = dir.join("data");
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.broker.max_connections = 1_000;
    config
}

/// Shards around echoing cores, without a disk.
struct Server {
    addr: SocketAddr,
    listener: TcpListener,
    threads: Threads,
    reports: mpsc::Receiver<Report>,
    seen: Arc<Seen>,
}

impl Server {
    fn start(shards: u16, frame_bytes: u64) -> Server {
        let mut config = config(std::path::Path::new("/nowhere"));
        config.frame_bytes = frame_bytes;
        let (reporter, reports) = mpsc::channel();
        let (threads, inboxes) = Threads::new(shards, reporter);
        let listener = listener::bind(config.listen).unwrap();
        let seen = Arc::new(Seen::default());
        let cores = (0..shards).map(|_| Echo { seen: Arc::clone(&seen), held: VecDeque::new() }).collect();
        threads.start_shards(&config, &listener, None, cores, inboxes.shards).unwrap();
        for _ in 0..shards {
            assert!(matches!(reports.recv_timeout(Duration::from_secs(10)), Ok(Report::Ready)));
        }
        Server { addr: listener.local_addr().unwrap(), listener, threads, reports, seen }
    }

    fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Waits until `condition` holds.
    fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let started = Instant::now();
        while !condition(&self.seen) {
            assert!(started.elapsed() < Duration::from_secs(20), "{what} did not come about");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Client(TcpStream);

impl Client {
    fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(stream)
    }

    fn send(&mut self, body: &[u8]) {
        self.0.write_all(&(body.len() as u32).to_be_bytes()).unwrap();
        self.0.write_all(body).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix).unwrap();
        let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    fn ask(&mut self, body: &[u8]) -> Vec<u8> {
        self.send(body);
        self.receive()
    }

    /// Asserts that the broker closes the connection without another byte.
    fn closed(&mut self) {
        match self.0.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("the connection is still open: {other:?}"),
        }
    }
}

/// A frame of `len` bytes that differs from others.
fn frame(command: u8, len: usize, seed: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251 + seed * 13) as u8).collect();
    frame[0] = command;
    frame
}

#[test]
fn pipelined_frames_of_all_sizes_come_back_in_order_on_many_connections() {
    let server = Server::start(2, 256 << 20);
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = server.connect();
            thread::spawn(move || {
                let sizes = [1, 2, 100, 4_095, 4_096, 50_000, 70_000, 300, 1_000_000, 5, 3 * MIB, 12];
                let frames: Vec<Vec<u8>> =
                    (0..60).map(|i| frame(ECHO, sizes[(i * 5 + n) % sizes.len()], i + n)).collect();
                let mut sender = Client(client.0.try_clone().unwrap());
                let sent = frames.clone();
                let sending = thread::spawn(move || sent.iter().for_each(|frame| sender.send(frame)));
                for (i, frame) in frames.iter().enumerate() {
                    assert!(client.receive() == *frame, "answer {i} of client {n}");
                }
                sending.join().unwrap();
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    server.until("the end of all connections", |seen| seen.open.load(Ordering::SeqCst) == 0);
}

#[test]
fn bad_lengths_close_their_connection_and_no_other() {
    let server = Server::start(1, 64 << 20);
    let mut healthy = server.connect();
    for prefix in [i32::MIN, -1, i32::MAX, 100 * MIB as i32 + 1] {
        let mut client = server.connect();
        client.0.write_all(&prefix.to_be_bytes()).unwrap();
        client.closed();
        assert_eq!(healthy.ask(&[ECHO, 1]), [ECHO, 1]);
    }
    // A client that leaves in the middle of a frame.
    let mut client = server.connect();
    client.0.write_all(&[0, 0, 1, 0, 7, 7]).unwrap();
    client.0.shutdown(Shutdown::Write).unwrap();
    client.closed();
    assert_eq!(healthy.ask(&[ECHO, 2]), [ECHO, 2]);
    server.until("the end of the bad connections", |seen| seen.open.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_closed_connection_gets_its_last_answer_first() {
    let server = Server::start(1, 64 << 20);
    let mut client = server.connect();
    client.send(&[BIG, 5]);
    client.send(&[CLOSE, 9]);
    assert_eq!(client.receive().len(), 5 * MIB);
    assert_eq!(client.receive(), [CLOSE, 9]);
    client.closed();
}

#[test]
fn requests_without_an_answer_count_as_answered() {
    let server = Server::start(1, 64 << 20);
    let mut client = server.connect();
    for _ in 0..3 * MAX_IN_FLIGHT_PER_CONN {
        client.send(&[SILENT]);
    }
    assert_eq!(client.ask(&[ECHO, 4]), [ECHO, 4]);
}

#[test]
fn a_connection_has_so_many_requests_under_way_and_no_more() {
    let server = Server::start(1, 64 << 20);
    let (mut client, mut other) = (server.connect(), server.connect());
    for i in 0..100 {
        client.send(&[HOLD, i]);
    }
    let held = |n: usize| move |seen: &Seen| seen.requests.load(Ordering::SeqCst) == n;
    server.until("a full pipeline", held(MAX_IN_FLIGHT_PER_CONN));
    thread::sleep(Duration::from_millis(30));
    assert!(held(MAX_IN_FLIGHT_PER_CONN)(&server.seen), "more requests than may be under way");
    other.ask(&[RELEASE]);
    server.until("the rest", held(101));
    other.ask(&[RELEASE]);
    for i in 0..100 {
        assert_eq!(client.receive(), [HOLD, i]);
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let server = Server::start(1, 64 << 20);
    let (mut client, mut other) = (server.connect(), server.connect());
    // One after the other, until the broker takes no more.
    let mut sent = 0;
    loop {
        client.send(&[BIG, 2]);
        sent += 1;
        let started = Instant::now();
        let taken = || server.seen.requests.load(Ordering::SeqCst) == sent;
        while !taken() && started.elapsed() < Duration::from_millis(500) {
            thread::yield_now();
        }
        if !taken() {
            break;
        }
        // What is queued, and what the sockets' buffers hold.
        assert!(sent * 2 * MIB <= CONN_UNSENT_BYTES + 2 * MIB + 16 * MIB, "{sent} answers of 2 MiB are queued");
    }
    assert!(sent * 2 * MIB > CONN_UNSENT_BYTES, "it was held back early");
    assert_eq!(other.ask(&[ECHO]), [ECHO], "another client suffers");
    for i in 0..sent {
        assert_eq!(client.receive().len(), 2 * MIB, "answer {i}");
    }
}

#[test]
fn small_requests_get_through_when_large_ones_have_used_up_the_memory() {
    let server = Server::start(2, 8 << 20);
    let large: Vec<_> = (0..12)
        .map(|n| {
            let mut client = server.connect();
            thread::spawn(move || {
                let sent = frame(HOLD, MIB, n);
                assert!(client.ask(&sent) == sent, "client {n}");
            })
        })
        .collect();
    // Seven fit into the budget without its reserve; the others wait.
    server.until("a full budget", |seen| seen.requests.load(Ordering::SeqCst) == 7);
    let mut small: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    for client in &mut small {
        assert_eq!(client.ask(&[ECHO, 1]), [ECHO, 1]);
    }
    assert_eq!(server.seen.requests.load(Ordering::SeqCst), 7 + 6, "the budget held none back");
    // Releases on both shards let the others in, a few at a time.
    while !large.iter().all(thread::JoinHandle::is_finished) {
        for client in &mut small {
            client.ask(&[RELEASE]);
        }
    }
    for client in large {
        client.join().unwrap();
    }
}

#[test]
fn ticks_come_often_while_busy_and_seldom_otherwise() {
    let server = Server::start(1, 64 << 20);
    let count = |millis| {
        let before = server.seen.ticks.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(millis));
        server.seen.ticks.load(Ordering::SeqCst) - before
    };
    let idle = count(500);
    assert!((2..=7).contains(&idle), "{idle} ticks in half an idle second");
    let mut client = server.connect();
    client.send(&[HOLD]);
    server.until("the request", |seen| seen.requests.load(Ordering::SeqCst) == 1);
    let busy = count(500);
    assert!(busy >= 15, "only {busy} ticks in half a busy second");
}

#[test]
fn stopping_ends_accepting_and_waits_for_what_is_under_way() {
    let server = Server::start(2, 64 << 20);
    let mut client = server.connect();
    client.send(&[HOLD, 5]);
    server.until("the request", |seen| seen.requests.load(Ordering::SeqCst) == 1);
    server.threads.stop.store(true, Ordering::Relaxed);
    listener::shut_down(&server.listener);
    // The shard without the request is drained, the other is not.
    assert!(matches!(server.reports.recv_timeout(Duration::from_secs(10)), Ok(Report::Drained)));
    assert!(server.reports.recv_timeout(Duration::from_millis(200)).is_err());
    client.0.shutdown(Shutdown::Both).unwrap();
    assert!(matches!(server.reports.recv_timeout(Duration::from_secs(10)), Ok(Report::Drained)));
    assert!(TcpStream::connect(server.addr).is_err(), "a stopped broker takes connections");
}

#[test]
fn an_executor_never_sleeps_on_ready_tasks() {
    // Many short requests one after the other from both sides: a lost wake-up shows as an answer that takes as long
    // as the next tick of an idle shard.
    let server = Server::start(2, 64 << 20);
    let slow: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let mut client = server.connect();
                scope.spawn(move || {
                    (0..2_000)
                        .filter(|_| {
                            let started = Instant::now();
                            client.ask(&[ECHO, 1, 2, 3]);
                            started.elapsed() > Duration::from_millis(80)
                        })
                        .count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    // A machine that stalls as a whole delays one answer of each client at once, and does so rarely.
    assert!(slow <= 40, "{slow} of 8000 answers waited for a tick");
}

#[test]
fn a_second_broker_on_the_same_directory_or_port_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let broker = Broker::start(config.clone()).unwrap();
    let error = Broker::start(config.clone()).map(drop).unwrap_err();
    assert!(matches!(error, RunError::Identity(IdentityError::Locked { .. })), "{error}");
    let mut elsewhere = config;
    elsewhere.data_dir = dir.path().join("elsewhere");
    elsewhere.listen = broker.addr;
    let error = Broker::start(elsewhere).map(drop).unwrap_err();
    assert!(matches!(error, RunError::AddressInUse { .. }), "{error}");
}

#[test]
fn a_broker_starts_is_ready_stops_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let broker = Broker::start(config(dir.path())).unwrap();
        let reporter = broker.threads.reporter.clone();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = Client::connect(broker.addr);
                // A length that cannot be.
                client.0.write_all(&[0xFF; 4]).unwrap();
                let outcome = client.0.read(&mut [0; 1]);
                reporter.send(Report::Signal).unwrap();
                assert!(matches!(outcome, Ok(0)), "the connection was not closed: {outcome:?}");
            });
            let mut out = Vec::new();
            assert!(broker.serve(&mut out), "the broker did not drain");
            let out = String::from_utf8(out).unwrap();
            assert!(out.is_empty() || out == format!("ready {}\n", broker.addr), "{out}");
        });
    }
}
