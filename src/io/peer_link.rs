//! A shard's connection to another broker: made again and again, written to, and read from only to see its end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_io::AsyncRead;
use glommio::net::TcpStream;
use glommio::timer::{Timer, sleep};
use smallvec::SmallVec;

use super::connection::write_front;
use super::driver::{Core, Driver};
use super::peers::{Peering, Registry, hang_up, read_all, tune, write_all};
use super::signal::{Signal, yield_now};
use crate::limits::{PEER_CONNECT_MS, PEER_HELLO_MS, PEER_RETRY_MOST_MS, PEER_RETRY_MS, PEER_UNSENT_BYTES};
use crate::peer::{HelloError, Welcome};
use crate::shard::Event;
use crate::types::{BrokerId, PeerAddress, ShardId};

/// Bytes that one connection may move before other tasks get their turn.
const TURN_BYTES: usize = 512 * 1024;

/// The way from a shard to another broker.
pub(super) struct Link {
    /// The other broker.
    pub(super) peer: BrokerId,
    /// Where it listens.
    address: RefCell<PeerAddress>,
    /// The data directory of the broker at the other end; nothing while there is no connection.
    up: Cell<Option<[u8; 16]>>,
    /// What the registry was at when that directory was last compared with it.
    compared: Cell<u64>,
    outbox: RefCell<VecDeque<Bytes>>,
    /// Bytes in the outbox.
    unsent: Cell<usize>,
    /// Why the connection is to be ended.
    ending: RefCell<Option<End>>,
    changed: Signal,
    /// The broker was removed from the cluster: no further connection is made.
    removed: Cell<bool>,
}

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("its name cannot be looked up: {0}")]
    Lookup(io::Error),
    #[error("it cannot be reached: {0}")]
    Connect(io::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Hello(#[from] HelloError),
    #[error("it closed the connection")]
    Closed,
    #[error("it said something after its greeting")]
    Unexpected,
    #[error("it takes no more: {PEER_UNSENT_BYTES} bytes wait for it")]
    Slow,
    #[error("it was removed from the cluster")]
    Removed,
}

impl Link {
    /// A link that is not up.
    pub(super) fn new(peer: PeerAddress) -> Link {
        Link {
            peer: peer.id,
            address: RefCell::new(peer),
            up: Cell::new(None),
            compared: Cell::new(0),
            outbox: RefCell::default(),
            unsent: Cell::new(0),
            ending: RefCell::default(),
            changed: Signal::default(),
            removed: Cell::new(false),
        }
    }

    /// The broker listens elsewhere: the next connection is made there.
    pub(super) fn move_to(&self, address: PeerAddress) {
        *self.address.borrow_mut() = address;
    }

    /// Ends the connection, and makes no other.
    pub(super) fn end_for_good(&self) {
        self.removed.set(true);
        self.end(End::Removed);
    }

    /// Queues frames, if the link is up; where too much waits already it is ended instead.
    pub(super) fn send(&self, chunks: SmallVec<[Bytes; 8]>, registry: &Registry) {
        self.look_who_it_is(registry);
        if self.up.get().is_none() || self.ending.borrow().is_some() {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() {
            self.changed.set();
        }
        for chunk in chunks {
            self.unsent.set(self.unsent.get() + chunk.len());
            outbox.push_back(chunk);
        }
        if self.unsent.get() > PEER_UNSENT_BYTES {
            // What waits is of no use any more; its memory is wanted back now, whenever the task gets its turn.
            outbox.clear();
            drop(outbox);
            self.end(End::Slow);
        }
    }

    /// Ends the connection if the broker at the other end is not the one that it should be.
    pub(super) fn look_who_it_is(&self, registry: &Registry) {
        let changes = registry.changes();
        if self.compared.replace(changes) == changes {
            return;
        }
        if let (Some(other), Some(known)) = (self.up.get(), registry.directory_of(self.peer))
            && other != known
        {
            self.end(End::Hello(HelloError::OtherDirectory { broker: self.peer }));
        }
    }

    fn end(&self, why: End) {
        self.ending.borrow_mut().get_or_insert(why);
        self.changed.set();
    }

    /// Connects and greets. Returns the connection and the other broker's data directory.
    async fn connect(&self, shared: &Peering, shard: ShardId, turn: usize) -> Result<(TcpStream, [u8; 16]), End> {
        let addr = self.address(turn).await?;
        let stream = TcpStream::connect_timeout(addr, Duration::from_millis(PEER_CONNECT_MS)).await;
        let mut stream = stream.map_err(|error| End::Connect(error.into()))?;
        match self.greet(&mut stream, shared, shard).await {
            Ok(directory_id) => Ok((stream, directory_id)),
            Err(end) => {
                hang_up(&stream);
                Err(end)
            }
        }
    }

    /// Where to try to connect; a name with many addresses has another one each time.
    async fn address(&self, turn: usize) -> Result<SocketAddr, End> {
        let PeerAddress { host, port, .. } = self.address.borrow().clone();
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, port));
        }
        // On a thread of its own, as a resolver may take its time.
        let lookup = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        let found = glommio::executor().spawn_blocking(lookup).await.map_err(End::Lookup)?;
        match found.len() {
            0 => Err(End::Lookup(io::Error::other("it has no address"))),
            len => Ok(found[turn % len]),
        }
    }

    async fn greet(&self, stream: &mut TcpStream, shared: &Peering, shard: ShardId) -> Result<[u8; 16], End> {
        tune(stream)?;
        let mut deadline = pin!(Timer::new(Duration::from_millis(PEER_HELLO_MS)));
        write_all(stream, &shared.hello(shard).encode(), deadline.as_mut()).await?;
        let mut bytes = [0; Welcome::BYTES];
        read_all(stream, &mut bytes, deadline.as_mut()).await?;
        let welcome = Welcome::decode(&bytes)?;
        // Whatever becomes known after this line is found by the comparison at the next send.
        self.compared.set(shared.registry.changes());
        welcome.check(self.peer, shared.registry.directory_of(self.peer))?;
        Ok(welcome.directory_id)
    }

    /// Sends what is queued until the connection ends.
    async fn carry(&self, stream: &mut TcpStream) -> End {
        let mut moved = 0;
        loop {
            match poll_fn(|cx| self.poll_carry(stream, cx)).await {
                Ok(n) => moved += n,
                Err(end) => return end,
            }
            if moved >= TURN_BYTES {
                moved = 0;
                yield_now().await;
            }
        }
    }

    fn poll_carry(&self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<Result<usize, End>> {
        // Taken back until it is the next change that wakes this task; what has changed so far is looked at below.
        while self.changed.poll(cx).is_ready() {}
        if let Some(end) = self.ending.take() {
            return Poll::Ready(Err(end));
        }
        // Nothing is said this way, so that whatever there is to be read is the end.
        match Pin::new(&mut *stream).poll_read(cx, &mut [0]) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Closed)),
            Poll::Ready(Ok(_)) => return Poll::Ready(Err(End::Unexpected)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            Poll::Pending => {}
        }
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() {
            return Poll::Pending;
        }
        let written = write_front(stream, &mut outbox, cx);
        if let Poll::Ready(Ok(n)) = &written {
            self.unsent.set(self.unsent.get() - n);
        }
        written.map_err(End::from)
    }

    fn set_up(&self, directory_id: [u8; 16]) {
        self.up.set(Some(directory_id));
    }

    /// Forgets what was queued: what comes after a connection begins anew.
    fn set_down(&self) {
        self.up.set(None);
        self.outbox.borrow_mut().clear();
        self.unsent.set(0);
        self.ending.take();
    }
}

/// Keeps a link up for as long as the broker runs, or until the other is removed.
pub(super) async fn keep_up<C: Core>(driver: Rc<Driver<C>>, link: Rc<Link>) {
    let shared = &driver.peers.as_ref().expect("links are there only where there are others").shared;
    let peer = link.peer;
    let hello = shared.hello(driver.id);
    let mut jitter = Jitter::new(&[hello.incarnation, u64::from(hello.shard), hello.broker.0 as u64, peer.0 as u64]);
    let mut pause_ms = PEER_RETRY_MS;
    let mut told = String::new();
    let mut turn = 0;
    while !link.removed.get() {
        let end = match link.connect(shared, driver.id, turn).await {
            Ok((mut stream, directory_id)) => {
                tell(driver.id, &link, None, &mut told);
                pause_ms = PEER_RETRY_MS;
                link.set_up(directory_id);
                driver.event(Event::PeerUp { peer });
                let end = link.carry(&mut stream).await;
                hang_up(&stream);
                link.set_down();
                driver.event(Event::PeerDown { peer });
                end
            }
            Err(end) => end,
        };
        tell(driver.id, &link, Some(end), &mut told);
        sleep(jitter.of(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(PEER_RETRY_MOST_MS);
        turn += 1;
    }
}

/// Logs what has become of a link, once for all shards and where it is not what was said last.
fn tell(shard: ShardId, link: &Link, end: Option<End>, told: &mut String) {
    let PeerAddress { id, host, port } = &*link.address.borrow();
    let (up, text) = match end {
        None => (true, format!("connected to node {} at {host}:{port}", id.0)),
        Some(end) => (false, format!("no connection to node {} at {host}:{port}: {end}", id.0)),
    };
    if *told == text {
        return;
    }
    match (shard, up) {
        (ShardId(0), true) => tracing::info!("{text}"),
        (ShardId(0), false) => tracing::warn!("{text}"),
        _ => tracing::debug!("{text}"),
    }
    *told = text;
}

/// Pauses of different lengths, so that brokers which lost each other do not meet again and again at the same moment.
struct Jitter(u64);

impl Jitter {
    fn new(seeds: &[u64]) -> Jitter {
        let mut jitter = Jitter(0);
        for seed in seeds {
            jitter.0 ^= seed;
            jitter.next();
        }
        jitter
    }

    /// A step of xorshift64*, whose state is never zero.
    fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Between half of `millis` and all of it.
    fn of(&mut self, millis: u64) -> Duration {
        let micros = millis * 1000;
        Duration::from_micros(micros / 2 + (self.next() >> 11) % (micros / 2 + 1))
    }
}
