//! Brokers that talk to each other over loopback, around cores that do what the test says and note what they see.
//! Where a test needs a peer that behaves badly, it plays that peer itself, with plain sockets.

use std::net::TcpStream;
use std::sync::{Condvar, Mutex};

use bytes::Bytes;

use super::*;
use crate::config::{Machine, Settings};
use crate::limits::{PEER_FRAME_BYTES, PEER_UNSENT_BYTES};
use crate::peer::{self, FRAME_HEADER_BYTES, FrameHeader, Hello, PeerMessage, Refusal, Welcome};
use crate::shard::view::{self, Counts, Look};
use crate::shard::{Effect, Event};
use crate::types::{BrokerId, Now};

const MIB: usize = 1024 * 1024;
const WAIT: Duration = Duration::from_secs(30);

/// What a core has seen, in order.
#[derive(Default)]
struct Seen {
    /// Whether each peer was last said to be up, by shard.
    up: Vec<(u16, BrokerId, bool)>,
    /// Questions that came: the shard that got it, who asked, and the question.
    asked: Vec<(u16, BrokerId, u16, u64, Bytes)>,
    ticks: usize,
}

impl Seen {
    fn is_up(&self, shard: u16, peer: BrokerId) -> bool {
        self.up.iter().rev().find(|(s, p, _)| (*s, *p) == (shard, peer)).is_some_and(|(_, _, up)| *up)
    }

    fn numbers(&self) -> Vec<u64> {
        self.asked.iter().map(|(_, _, _, number, _)| *number).collect()
    }
}

#[derive(Default)]
struct Watched {
    seen: Mutex<Seen>,
    changed: Condvar,
}

struct Talker {
    shard: u16,
    watched: Arc<Watched>,
    /// What to do at the next tick.
    script: Arc<Mutex<Vec<Effect>>>,
}

impl Core for Talker {
    fn start(&mut self, _: Now, _: &mut Vec<Effect>) {}

    fn step(&mut self, _: Now, event: Event, effects: &mut Vec<Effect>) {
        let mut seen = self.watched.seen.lock().unwrap();
        match event {
            Event::PeerUp { peer } => seen.up.push((self.shard, peer, true)),
            Event::PeerDown { peer } => seen.up.push((self.shard, peer, false)),
            Event::Peer { from, header, frame } => {
                for message in peer::decode(&header, frame).unwrap() {
                    let PeerMessage::Ask { shard, number, question, .. } = message else { panic!("{message:?}") };
                    seen.asked.push((self.shard, from, shard, number, question));
                }
            }
            Event::Tick => {
                seen.ticks += 1;
                effects.append(&mut self.script.lock().unwrap());
            }
            _ => {}
        }
        self.watched.changed.notify_all();
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn worked(&mut self, _now: Now) {}

    fn finish_turn(&mut self, _: Now, _: &mut Vec<Effect>) {}

    fn busy(&self) -> bool {
        true
    }

    fn ready(&self) -> bool {
        true
    }

    fn drained(&self) -> bool {
        true
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

/// A broker of the cluster `blue`, whose data directory is all of its number.
struct Node {
    addr: SocketAddr,
    watched: Arc<Watched>,
    scripts: Vec<Arc<Mutex<Vec<Effect>>>>,
    _listener: TcpListener,
    _threads: Threads,
    _reports: mpsc::Receiver<Report>,
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

impl Node {
    /// Starts the broker `id` at `listener`; `others` are the brokers that it has beside it.
    fn start(id: i32, shards: u16, listener: TcpListener, others: &[(i32, SocketAddr)], frame_bytes: u64) -> Node {
        let machine = Machine { cores: 2, memory_bytes: 1 << 30, hostname: "test".to_owned() };
        let mut config = Settings::default().resolve(&machine).unwrap();
        let addr = listener.local_addr().unwrap();
        let address = |(id, addr): (i32, SocketAddr)| PeerAddress {
            id: BrokerId(id),
            host: addr.ip().to_string(),
            port: addr.port(),
        };
        config.broker.broker_id = BrokerId(id);
        config.broker.peers = others.iter().copied().chain([(id, addr)]).map(address).collect();
        config.broker.cluster_id = "blue".to_owned();
        config.broker.directory_id = [id as u8; 16];
        config.broker.incarnation = 100;
        let peering = Peering::new(&config.broker, shards, frame_bytes).unwrap();

        let (reporter, reports) = mpsc::channel();
        let (threads, inboxes) = Threads::new(shards, reporter);
        let (clients, _) = listen();
        let watched = Arc::new(Watched::default());
        let scripts: Vec<_> = (0..shards).map(|_| Arc::new(Mutex::new(Vec::new()))).collect();
        let core = |(shard, script): (u16, &Arc<Mutex<Vec<Effect>>>)| Talker {
            shard,
            watched: Arc::clone(&watched),
            script: Arc::clone(script),
        };
        let cores = (0..).zip(&scripts).map(core).collect();
        threads.start_shards(&config, &clients, Some((peering, listener)), cores, inboxes.shards).unwrap();
        Node { addr, watched, scripts, _listener: clients, _threads: threads, _reports: reports }
    }

    /// The broker 1 of one shard, with a broker 2 that the test plays, and where that is to listen.
    fn beside_a_fake() -> (Node, Fake) {
        let (fake, fake_addr) = listen();
        let node = Node::start(1, 1, listen().0, &[(2, fake_addr)], 1 << 30);
        (node, Fake(fake))
    }

    /// Waits until `condition` holds.
    fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let seen = self.watched.seen.lock().unwrap();
        let waited = self.watched.changed.wait_timeout_while(seen, WAIT, |seen| !condition(seen)).unwrap();
        assert!(!waited.1.timed_out(), "{what} did not come about");
    }

    fn until_up(&self, shard: u16, peer: i32, up: bool) {
        self.until(if up { "a connection" } else { "its end" }, |seen| seen.is_up(shard, BrokerId(peer)) == up);
    }

    /// Has a shard carry `effects` out, and waits until it has.
    fn carry_out(&self, shard: usize, effects: impl IntoIterator<Item = Effect>) {
        self.scripts[shard].lock().unwrap().extend(effects);
        // The shard takes them at its next tick and carries them out before the one after that; ticks of the shards
        // are counted together.
        let ticks = self.watched.seen.lock().unwrap().ticks;
        self.until("a tick", |seen| seen.ticks >= ticks + 3 * self.scripts.len());
        assert!(self.scripts[shard].lock().unwrap().is_empty(), "the shard does not tick");
    }

    /// Connects as another broker; returns the connection and what was answered.
    fn dial(&self, hello: &Hello) -> (TcpStream, Welcome) {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(&hello.encode()).unwrap();
        let welcome = read_welcome(&mut stream);
        assert_eq!((welcome.broker, welcome.directory_id), (BrokerId(1), [1; 16]));
        (stream, welcome)
    }
}

fn read_welcome(stream: &mut TcpStream) -> Welcome {
    let mut bytes = [0; Welcome::BYTES];
    stream.read_exact(&mut bytes).unwrap();
    Welcome::decode(&bytes).unwrap()
}

/// What broker 2 says.
fn hello(number: u64) -> Hello {
    Hello {
        cluster_id: "blue".to_owned(),
        broker: BrokerId(2),
        directory_id: [2; 16],
        incarnation: 100,
        shard: 0,
        shards: 4,
        number,
    }
}

/// Asserts that the other side ends the connection without another byte.
fn ended(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("the connection is still open: {other:?}"),
    }
}

/// A question of a length that depends on its number.
fn question(shard: u16, number: u64, len: usize) -> PeerMessage {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251 + number as usize * 13) as u8).collect();
    PeerMessage::Ask { shard, number, time_left_ms: 0, question: Bytes::from(bytes) }
}

fn ask(to: i32, question: PeerMessage) -> Effect {
    Effect::Peer { to: BrokerId(to), chunks: peer::encode(&[question]) }
}

/// Broker 2, played by the test.
struct Fake(TcpListener);

impl Fake {
    /// Takes the next connection and its hello.
    fn accept(&self) -> (TcpStream, Hello) {
        let (mut stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut bytes = [0; Hello::BYTES];
        stream.read_exact(&mut bytes).unwrap();
        (stream, Hello::decode(&bytes).unwrap())
    }

    /// The same, with an answer.
    fn welcome(&self, broker: i32, directory: u8, verdict: Result<(), Refusal>) -> (TcpStream, Hello) {
        let (mut stream, hello) = self.accept();
        let welcome = Welcome { broker: BrokerId(broker), directory_id: [directory; 16], verdict };
        stream.write_all(&welcome.encode()).unwrap();
        (stream, hello)
    }
}

fn read_question(stream: &mut TcpStream) -> (u64, usize) {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let header = FrameHeader::decode(&header).unwrap();
    let mut frame = vec![0; header.body_len()];
    stream.read_exact(&mut frame).unwrap();
    let messages = peer::decode(&header, frame.into()).unwrap();
    let [PeerMessage::Ask { number, question, .. }] = &messages[..] else { panic!("{messages:?}") };
    (*number, question.len())
}

#[test]
fn frames_of_all_sizes_come_whole_and_in_order() {
    const LENS: [usize; 11] = [0, 1, 100, 4_095, 5_000, 40_000, 70_000, 300, 1_000_000, 5, 3 * MIB];
    let ((one, one_addr), (two, two_addr)) = (listen(), listen());
    let one = Node::start(1, 2, one, &[(2, two_addr)], 1 << 30);
    let two = Node::start(2, 3, two, &[(1, one_addr)], 1 << 30);
    let sent = |shard: u16| (0..120).map(move |n| question(shard, n, LENS[(n as usize * 5) % LENS.len()]));
    for (from, to, shards) in [(&one, 2, 2u16), (&two, 1, 3)] {
        for shard in 0..shards {
            from.until_up(shard, to, true);
            let effects = sent(shard).map(|question| ask(to, question));
            from.scripts[usize::from(shard)].lock().unwrap().extend(effects);
        }
    }
    for (node, other, own_shards, shards) in [(&one, 2, 2, 3u16), (&two, 1, 3, 2)] {
        node.until("all questions", |seen| seen.asked.len() == usize::from(shards) * 120);
        let seen = node.watched.seen.lock().unwrap();
        for shard in 0..shards {
            let came = seen.asked.iter().filter(|(_, _, from, _, _)| *from == shard);
            for ((own, from, _, number, bytes), sent) in came.zip(sent(shard)) {
                assert_eq!((*own, *from), (shard % own_shards, BrokerId(other)));
                let PeerMessage::Ask { number: expected, question, .. } = sent else { unreachable!("it asks") };
                assert!(*number == expected && *bytes == question, "question {expected} of shard {shard}");
            }
        }
    }
}

#[test]
fn a_lost_connection_is_made_again_and_carries_nothing_of_before() {
    let (node, fake) = Node::beside_a_fake();
    let (stream, first) = fake.welcome(2, 2, Ok(()));
    assert_eq!((first.broker, first.incarnation, first.shard, first.shards), (BrokerId(1), 100, 0, 1));
    node.until_up(0, 2, true);
    drop(stream);
    node.until_up(0, 2, false);

    let (mut stream, second) = fake.accept();
    assert!(second.number > first.number && second.incarnation == first.incarnation);
    node.carry_out(0, [ask(2, question(0, 1, 10))]);
    let welcome = Welcome { broker: BrokerId(2), directory_id: [2; 16], verdict: Ok(()) };
    stream.write_all(&welcome.encode()).unwrap();
    node.until_up(0, 2, true);
    node.carry_out(0, [ask(2, question(0, 2, 70_000)), ask(3, question(0, 3, 10))]);
    assert_eq!(read_question(&mut stream), (2, 70_000), "what was sent without a connection came on the next");

    // Half a frame is on its way when the connection is lost.
    node.carry_out(0, [ask(2, question(0, 4, 20 * MIB))]);
    stream.read_exact(&mut [0; 100]).unwrap();
    drop(stream);
    node.until_up(0, 2, false);
    let (mut stream, _) = fake.welcome(2, 2, Ok(()));
    node.until_up(0, 2, true);
    node.carry_out(0, [ask(2, question(0, 5, 10))]);
    assert_eq!(read_question(&mut stream), (5, 10));
}

#[test]
fn strangers_are_refused() {
    let (node, _fake) = Node::beside_a_fake();
    let refusals = [
        (Hello { cluster_id: "red".to_owned(), ..hello(1) }, Refusal::OtherCluster),
        (Hello { broker: BrokerId(1), ..hello(1) }, Refusal::SameId),
    ];
    for (hello, refusal) in refusals {
        let (mut stream, welcome) = node.dial(&hello);
        assert_eq!(welcome.verdict, Err(refusal));
        ended(&mut stream);
    }
    let connect = || {
        let stream = TcpStream::connect(node.addr).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    };
    let (mut silent, mut newer, mut foreign) = (connect(), connect(), connect());
    let mut bytes = hello(1).encode();
    bytes[4] = 9;
    newer.write_all(&bytes).unwrap();
    assert_eq!(read_welcome(&mut newer).verdict, Err(Refusal::Version));
    ended(&mut newer);
    foreign.write_all(&[b'G'; Hello::BYTES]).unwrap();
    ended(&mut foreign);
    // All but the last byte is as good as nothing.
    silent.write_all(&hello(1).encode()[1..]).unwrap();
    ended(&mut silent);
    assert_eq!(node.dial(&hello(1)).1.verdict, Ok(()));
}

#[test]
fn the_wrong_broker_at_an_address_is_not_talked_to() {
    let (node, fake) = Node::beside_a_fake();
    for (broker, verdict) in [(3, Ok(())), (1, Ok(())), (2, Err(Refusal::OtherCluster))] {
        let (mut stream, _) = fake.welcome(broker, 2, verdict);
        ended(&mut stream);
    }
    let (mut stream, _) = fake.accept();
    stream.write_all(&[b'H'; Welcome::BYTES]).unwrap();
    ended(&mut stream);
    assert!(node.watched.seen.lock().unwrap().up.is_empty(), "it took one of them for broker 2");
    // One that does not answer is left after a while.
    let (mut stream, _) = fake.accept();
    ended(&mut stream);
    let (_stream, _) = fake.welcome(2, 2, Ok(()));
    node.until_up(0, 2, true);
}

#[test]
fn a_broker_with_another_data_directory_is_not_taken_for_the_one_that_it_was() {
    let (node, fake) = Node::beside_a_fake();
    let know = |directory| Effect::KnowPeer { peer: BrokerId(2), directory_id: [directory; 16] };
    node.carry_out(0, [know(2)]);
    let wiped = Hello { directory_id: [9; 16], incarnation: 200, ..hello(1) };
    let (mut stream, welcome) = node.dial(&wiped);
    assert_eq!(welcome.verdict, Err(Refusal::OtherDirectory));
    ended(&mut stream);
    let (mut stream, _) = fake.welcome(2, 9, Ok(()));
    ended(&mut stream);
    assert!(node.watched.seen.lock().unwrap().up.is_empty());

    let (mut outgoing, _) = fake.welcome(2, 2, Ok(()));
    node.until_up(0, 2, true);
    let (mut incoming, welcome) = node.dial(&hello(1));
    assert_eq!(welcome.verdict, Ok(()));
    incoming.write_all(&peer::encode(&[question(0, 1, 1)]).concat()).unwrap();
    node.until("a question", |seen| seen.numbers() == [1]);
    // Told of it twice, nothing changes; another directory ends both ways.
    node.carry_out(0, [know(2)]);
    assert!(node.watched.seen.lock().unwrap().is_up(0, BrokerId(2)));
    node.carry_out(0, [know(9)]);
    node.until_up(0, 2, false);
    ended(&mut outgoing);
    ended(&mut incoming);
    assert_eq!(node.dial(&wiped).1.verdict, Ok(()), "the cluster has taken it in");
    assert_eq!(node.dial(&hello(2)).1.verdict, Err(Refusal::OtherDirectory));
}

#[test]
fn a_later_connection_takes_the_place_of_an_earlier_one() {
    let (node, _fake) = Node::beside_a_fake();
    let send = |stream: &mut TcpStream, number| {
        // The other side may have ended it already.
        let _ = stream.write_all(&peer::encode(&[question(0, number, 10)]).concat());
    };
    let (mut early, welcome) = node.dial(&hello(5));
    assert_eq!(welcome.verdict, Ok(()));
    send(&mut early, 1);
    node.until("a question", |seen| seen.numbers() == [1]);
    let (mut late, welcome) = node.dial(&hello(6));
    assert_eq!(welcome.verdict, Ok(()));
    send(&mut early, 2);
    send(&mut late, 3);
    ended(&mut early);
    node.until("a question", |seen| seen.numbers().last() == Some(&3));
    for stale in [hello(6), hello(5), Hello { incarnation: 99, ..hello(7) }] {
        assert_eq!(node.dial(&stale).1.verdict, Err(Refusal::Superseded), "{stale:?}");
    }
    // Another shard's connection is another one; a later start of the broker ends them all.
    let (mut other, welcome) = node.dial(&Hello { shard: 3, ..hello(1) });
    assert_eq!(welcome.verdict, Ok(()));
    send(&mut other, 4);
    send(&mut late, 5);
    node.until("two questions", |seen| seen.asked.len() == 4);
    let (mut restarted, welcome) = node.dial(&Hello { incarnation: 101, shard: 2, ..hello(1) });
    assert_eq!(welcome.verdict, Ok(()));
    send(&mut restarted, 6);
    node.until("a question", |seen| seen.numbers().last() == Some(&6));
    for stream in [&mut other, &mut late] {
        send(stream, 7);
        ended(stream);
    }
    send(&mut restarted, 8);
    node.until("a question", |seen| seen.numbers().last() == Some(&8));
    let numbers = node.watched.seen.lock().unwrap().numbers();
    assert!(!numbers.contains(&2) && !numbers.contains(&7), "{numbers:?}");
}

#[test]
fn a_peer_that_does_not_read_costs_so_much_and_no_more() {
    let (node, fake) = Node::beside_a_fake();
    let (stream, _) = fake.welcome(2, 2, Ok(()));
    node.until_up(0, 2, true);
    let batch = Bytes::from(vec![7; 2 * MIB]);
    let asks = |n: usize| {
        let PeerMessage::Ask { shard, number, time_left_ms, .. } = question(0, 0, 0) else { unreachable!("it asks") };
        let message = PeerMessage::Ask { shard, number, time_left_ms, question: batch.clone() };
        let chunks = peer::encode(&[message]);
        (0..n).map(move |_| Effect::Peer { to: BrokerId(2), chunks: chunks.clone() })
    };
    let allowed = PEER_UNSENT_BYTES / (2 * MIB) - 1;
    node.carry_out(0, asks(allowed));
    assert!(node.watched.seen.lock().unwrap().is_up(0, BrokerId(2)), "it was given up early");
    // What the sockets' buffers hold, and some.
    node.carry_out(0, asks(16));
    node.until_up(0, 2, false);
    let (mut again, _) = fake.welcome(2, 2, Ok(()));
    node.until_up(0, 2, true);
    node.carry_out(0, [ask(2, question(0, 4, 10))]);
    assert_eq!(read_question(&mut again), (4, 10));
    drop(stream);
}

#[test]
fn frames_that_cannot_be_end_their_connection_and_no_other() {
    let (node, _fake) = Node::beside_a_fake();
    let (mut healthy, _) = node.dial(&Hello { shard: 1, ..hello(1) });
    let too_large = FrameHeader { meta_len: PEER_FRAME_BYTES as u32, beside_len: u32::MAX, meta_crc: 0 }.encode();
    let mut damaged = FrameHeader { meta_len: 1, beside_len: 1, meta_crc: 0 }.encode();
    damaged[9] ^= 1;
    for (number, header) in [(1, too_large), (2, damaged), (3, [0; FRAME_HEADER_BYTES])] {
        let (mut stream, _) = node.dial(&hello(number));
        stream.write_all(&header).unwrap();
        ended(&mut stream);
        healthy.write_all(&peer::encode(&[question(1, number, 10)]).concat()).unwrap();
        node.until("a question", |seen| seen.numbers().last() == Some(&number));
    }
}

#[test]
fn frames_wait_while_their_memory_is_used_up() {
    let (fake, fake_addr) = listen();
    let node = Node::start(1, 1, listen().0, &[(2, fake_addr)], 8 << 20);
    let (mut stream, _) = node.dial(&hello(1));
    let sending = thread::spawn(move || {
        for number in 0..20 {
            stream.write_all(&peer::encode(&[question(0, number, 1_000_000)]).concat()).unwrap();
        }
        stream
    });
    // What was seen holds on to its frames. Seven of them fit into the budget without its reserve.
    node.until("a full budget", |seen| seen.asked.len() == 7);
    let ticks = node.watched.seen.lock().unwrap().ticks;
    node.until("ten ticks", |seen| seen.ticks >= ticks + 10);
    for first in [7, 14] {
        let mut seen = node.watched.seen.lock().unwrap();
        assert_eq!(seen.asked.len(), 7, "the budget held none back");
        assert_eq!(seen.numbers(), Vec::from_iter(first - 7..first));
        seen.asked.clear();
        drop(seen);
        let left = (20 - first).min(7) as usize;
        node.until("the next frames", |seen| seen.asked.len() == left);
    }
    sending.join().unwrap();
    drop(fake);
}
