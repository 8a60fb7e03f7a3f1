//! Other brokers: what the shards share for talking to them, and the greeting of their connections.
//!
//! Each shard keeps a connection to every other broker, on which it only sends ([`super::peer_link`]). One shard accepts
//! the connections that the others make, greets them, and gives each to the shard that reads it ([`super::peer_reader`]):
//! always the same one for a shard of the other broker, so that what it sends stays in order.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::{AcceptedTcpStream, TcpStream};
use glommio::timer::{Timer, sleep};
use smallvec::SmallVec;

use super::Incoming;
use super::driver::{Core, Driver};
use super::frames::FrameBudget;
use super::peer_link::{self, Link};
use super::peer_reader::{self, Inbound};
use super::signal::Signal;
use crate::config::{BrokerConfig, PeerAddress};
use crate::limits::{PEER_GREETINGS, PEER_HELLO_MS, PEER_UNACKED_MS};
use crate::peer::{Hello, HelloError, Refusal, Welcome};
use crate::types::{BrokerId, Map, ShardId};

/// How long no connection is accepted when accepting fails, for want of descriptors above all.
const PAUSE: Duration = Duration::from_millis(100);

/// What the shards of a broker share for talking to other brokers.
pub(super) struct Peering {
    cluster_id: String,
    broker: BrokerId,
    directory_id: [u8; 16],
    incarnation: u64,
    shards: u16,
    /// The other brokers that the cluster began with.
    others: Vec<PeerAddress>,
    /// The memory of frames that come.
    pub(super) budget: Arc<FrameBudget>,
    /// What is known of the others.
    pub(super) registry: Registry,
    /// Connections made so far.
    connections: AtomicU64,
}

impl Peering {
    /// What a broker of `shards` shards needs that may have others beside it; nothing where it is to stay alone. Frames of theirs may
    /// take `frame_bytes` of memory.
    pub(super) fn new(config: &BrokerConfig, shards: u16, frame_bytes: u64) -> Option<Arc<Peering>> {
        if config.peers.is_empty() {
            return None;
        }
        Some(Arc::new(Peering {
            cluster_id: config.cluster_id.clone(),
            broker: config.broker_id,
            directory_id: config.directory_id,
            incarnation: config.incarnation,
            shards,
            others: config.peers.iter().filter(|peer| peer.id != config.broker_id).cloned().collect(),
            budget: FrameBudget::new(frame_bytes),
            registry: Registry::default(),
            connections: AtomicU64::new(0),
        }))
    }

    /// The threads that a shard needs for looking up names: one for each broker that is known by one, so that a lookup
    /// that takes long holds up no other, and one for those that join later.
    pub(super) fn lookups(&self) -> usize {
        self.others.iter().filter(|peer| peer.host.parse::<std::net::IpAddr>().is_err()).count() + 1
    }

    /// The hello for the next connection that `shard` makes.
    pub(super) fn hello(&self, shard: ShardId) -> Hello {
        Hello {
            cluster_id: self.cluster_id.clone(),
            broker: self.broker,
            directory_id: self.directory_id,
            incarnation: self.incarnation,
            shard: shard.0,
            shards: self.shards,
            number: self.connections.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        hello.check(&self.cluster_id, self.broker)?;
        self.registry.claim(hello)
    }
}

/// What is known of other brokers: the data directory of each, and the newest connection of each of its shards.
#[derive(Default)]
pub(super) struct Registry {
    known: Mutex<Map<BrokerId, Known>>,
    /// Rises when a data directory becomes known.
    changes: AtomicU64,
}

#[derive(Default)]
struct Known {
    directory_id: Option<[u8; 16]>,
    newest: Option<Newest>,
    /// It was removed from the cluster.
    removed: bool,
    /// The refusal that was last logged.
    told: Option<Refusal>,
}

/// The newest process of a broker that made connections.
struct Newest {
    directory_id: [u8; 16],
    incarnation: u64,
    /// The number of the newest connection of each of its shards.
    connections: Map<u16, u64>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Map<BrokerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `peer` is the broker with this data directory.
    pub(super) fn know(&self, peer: BrokerId, directory_id: [u8; 16]) {
        let before = self.lock().entry(peer).or_default().directory_id.replace(directory_id);
        if before != Some(directory_id) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// `peer` is of the cluster no more.
    fn remove(&self, peer: BrokerId) {
        self.lock().entry(peer).or_default().removed = true;
    }

    /// The data directory of `peer`, where it is known.
    pub(super) fn directory_of(&self, peer: BrokerId) -> Option<[u8; 16]> {
        self.lock().get(&peer)?.directory_id
    }

    /// A number that is another after any change of what [`Registry::directory_of`] says.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Makes a connection the newest of its sender, unless a newer one was there or its sender is not the broker that
    /// it was.
    fn claim(&self, hello: &Hello) -> Result<(), Refusal> {
        let mut all = self.lock();
        let known = all.entry(hello.broker).or_default();
        if known.removed {
            return Err(Refusal::Removed);
        }
        if known.directory_id.is_some_and(|directory_id| directory_id != hello.directory_id) {
            return Err(Refusal::OtherDirectory);
        }
        let fresh =
            || Newest { directory_id: hello.directory_id, incarnation: hello.incarnation, connections: Map::default() };
        let newest = known.newest.get_or_insert_with(fresh);
        if newest.directory_id != hello.directory_id || newest.incarnation < hello.incarnation {
            *newest = fresh();
        } else if newest.incarnation > hello.incarnation {
            return Err(Refusal::Superseded);
        }
        let number = newest.connections.entry(hello.shard).or_insert(0);
        if hello.number <= *number {
            return Err(Refusal::Superseded);
        }
        *number = hello.number;
        known.told = None;
        Ok(())
    }

    /// Whether the connection that began with `hello` is still the newest of its sender, and its sender the broker that
    /// it should be.
    pub(super) fn is_newest(&self, hello: &Hello) -> bool {
        let all = self.lock();
        let Some(known) = all.get(&hello.broker) else { return false };
        let Some(newest) = &known.newest else { return false };
        !known.removed
            && known.directory_id.is_none_or(|directory_id| directory_id == hello.directory_id)
            && newest.directory_id == hello.directory_id
            && newest.incarnation == hello.incarnation
            && newest.connections.get(&hello.shard) == Some(&hello.number)
    }

    /// Whether it is news that `peer` was refused for this: it will try again and again.
    fn is_news(&self, peer: BrokerId, refusal: Refusal) -> bool {
        self.lock().entry(peer).or_default().told.replace(refusal) != Some(refusal)
    }
}

/// A shard's connections from and to other brokers.
pub(super) struct Peers {
    /// What it shares with the other shards.
    pub(super) shared: Arc<Peering>,
    links: RefCell<Vec<Rc<Link>>>,
    /// The connections that are read, by their sender and its shard.
    pub(super) inbound: RefCell<Map<(BrokerId, u16), Rc<Inbound>>>,
    greetings: Cell<usize>,
    greeted: Signal,
}

impl Peers {
    /// There are none yet.
    pub(super) fn new(shared: Arc<Peering>) -> Peers {
        Peers {
            shared,
            links: RefCell::default(),
            inbound: RefCell::default(),
            greetings: Cell::new(0),
            greeted: Signal::default(),
        }
    }

    /// Queues frames for `to`, if it is up.
    pub(super) fn send(&self, to: BrokerId, chunks: SmallVec<[Bytes; 8]>) {
        if let Some(link) = self.links.borrow().iter().find(|link| link.peer == to) {
            link.send(chunks, &self.shared.registry);
        }
    }

    /// From now on `peer` is the broker with this data directory.
    pub(super) fn know(&self, peer: BrokerId, directory_id: [u8; 16]) {
        let registry = &self.shared.registry;
        registry.know(peer, directory_id);
        for link in self.links.borrow().iter().filter(|link| link.peer == peer) {
            link.look_who_it_is(registry);
        }
        self.end_stale();
    }

    /// `peer` is of the cluster no more.
    pub(super) fn forget(&self, peer: BrokerId) {
        self.shared.registry.remove(peer);
        for link in self.links.borrow_mut().extract_if(.., |link| link.peer == peer) {
            link.end_for_good();
        }
        self.end_stale();
    }

    /// Ends the connections that do not count any more.
    fn end_stale(&self) {
        let registry = &self.shared.registry;
        self.inbound.borrow().values().filter(|inbound| !registry.is_newest(&inbound.hello)).for_each(|i| i.kill());
    }
}

/// Starts the tasks of a shard that talk to other brokers; the one with `listener` accepts their connections.
pub(super) fn start<C: Core>(driver: &Rc<Driver<C>>, listener: Option<TcpListener>) {
    let Some(peers) = &driver.peers else { return };
    for peer in &peers.shared.others {
        driver.reach_peer(peer.clone());
    }
    if let Some(listener) = listener {
        glommio::spawn_local(accept_for_ever(Rc::clone(driver), listener)).detach();
    }
}

async fn accept_for_ever<C: Core>(driver: Rc<Driver<C>>, listener: TcpListener) {
    // SAFETY: the descriptor is an open, listening socket, given away by its only owner.
    let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
    let peers = driver.peers.as_ref().expect("connections of others come only where there are others");
    loop {
        peers.greeted.until(|| peers.greetings.get() < PEER_GREETINGS).await;
        match listener.shared_accept().await {
            Ok(stream) => {
                peers.greetings.set(peers.greetings.get() + 1);
                glommio::spawn_local(greet_one(Rc::clone(&driver), stream)).detach();
            }
            Err(error) => {
                driver.client_line(|| tracing::warn!("a connection of another broker was not accepted: {error}"));
                sleep(PAUSE).await;
            }
        }
    }
}

/// Greets a connection and gives it to the shard that reads it.
async fn greet_one<C: Core>(driver: Rc<Driver<C>>, stream: AcceptedTcpStream) {
    let peers = driver.peers.as_ref().expect("connections of others come only where there are others");
    let mut stream = stream.bind_to_executor();
    match greet(peers, &mut stream).await {
        Ok(hello) => driver.hand_over(stream.into_accepted(), hello),
        Err(error) => {
            let address = stream.peer_addr().map_or_else(|_| "gone".to_owned(), |address| address.to_string());
            hang_up(&stream);
            match error {
                GreetingError::Refused(hello, refusal) => tell_refusal(peers, &address, &hello, refusal),
                // One that is gone again has met a broker that was paused, or that is not the one it looked for.
                GreetingError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(address, "a connection of another broker ended before its greeting");
                }
                error => {
                    driver.client_line(|| tracing::warn!(address, "a connection of another broker closed: {error}"));
                }
            }
        }
    }
    peers.greetings.set(peers.greetings.get() - 1);
    peers.greeted.set();
}

fn tell_refusal(peers: &Peers, address: &str, hello: &Hello, refusal: Refusal) {
    let node = hello.broker.0;
    // An older connection that comes late is nothing that anybody could mend.
    if refusal == Refusal::Superseded {
        tracing::debug!(address, "a connection of node {node} was refused: {refusal}");
        return;
    }
    if !peers.shared.registry.is_news(hello.broker, refusal) {
        return;
    }
    match refusal {
        Refusal::OtherDirectory => {
            let known = peers.shared.registry.directory_of(hello.broker).unwrap_or_default();
            tracing::warn!(
                address,
                came = %hex(&hello.directory_id),
                known = %hex(&known),
                "node {node} came with another data directory than the cluster knows it by, as after a disk was replaced \
                 or emptied: it is not let in under its old number"
            );
        }
        Refusal::OtherCluster => {
            tracing::warn!(
                address,
                own = peers.shared.cluster_id,
                other = hello.cluster_id,
                "node {node} of another cluster was refused: see cluster.id"
            );
        }
        _ => tracing::warn!(address, "node {node} was refused: {refusal}"),
    }
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

/// Why a connection was not taken on.
#[derive(Debug, thiserror::Error)]
enum GreetingError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Hello(#[from] HelloError),
    #[error("it was refused: {1}")]
    Refused(Box<Hello>, Refusal),
}

async fn greet(peers: &Peers, stream: &mut TcpStream) -> Result<Hello, GreetingError> {
    tune(stream)?;
    let mut deadline = pin!(Timer::new(Duration::from_millis(PEER_HELLO_MS)));
    let mut bytes = [0; Hello::BYTES];
    read_all(stream, &mut bytes, deadline.as_mut()).await?;
    let shared = &peers.shared;
    let hello = Hello::decode(&bytes);
    let verdict = match &hello {
        Ok(hello) => shared.judge(hello),
        Err(HelloError::Version(_)) => Err(Refusal::Version),
        Err(error) => return Err(error.clone().into()),
    };
    let welcome = Welcome { broker: shared.broker, directory_id: shared.directory_id, verdict };
    write_all(stream, &welcome.encode(), deadline.as_mut()).await?;
    let hello = hello?;
    match verdict {
        Ok(()) => Ok(hello),
        Err(refusal) => Err(GreetingError::Refused(Box::new(hello), refusal)),
    }
}

impl<C: Core> Driver<C> {
    /// From now on keeps a connection to a broker, at this address.
    pub(super) fn reach_peer(self: &Rc<Self>, peer: PeerAddress) {
        let Some(peers) = &self.peers else { return };
        let known = peers.links.borrow().iter().find(|link| link.peer == peer.id).cloned();
        match known {
            Some(link) => link.move_to(peer),
            None => {
                let link = Rc::new(Link::new(peer));
                peers.links.borrow_mut().push(Rc::clone(&link));
                glommio::spawn_local(peer_link::keep_up(Rc::clone(self), link)).detach();
            }
        }
    }

    /// Gives a greeted connection to the shard that reads all of its sender's shard.
    fn hand_over(self: &Rc<Self>, stream: AcceptedTcpStream, hello: Hello) {
        let reader = usize::from(hello.shard) % self.shards.len();
        if reader == usize::from(self.id.0) {
            peer_reader::start(self, stream, hello);
        } else {
            self.shards[reader].send(Incoming::Peer(stream, hello));
        }
    }
}

/// Reads until `buf` is full.
pub(super) async fn read_all(stream: &mut TcpStream, buf: &mut [u8], mut deadline: Pin<&mut Timer>) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        done += poll_fn(|cx| {
            let polled = Pin::new(&mut *stream).poll_read(cx, &mut buf[done..]);
            or_late(polled, deadline.as_mut(), cx, io::ErrorKind::UnexpectedEof)
        })
        .await?;
    }
    Ok(())
}

/// Writes all of `bytes`.
pub(super) async fn write_all(stream: &mut TcpStream, bytes: &[u8], mut deadline: Pin<&mut Timer>) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += poll_fn(|cx| {
            let polled = Pin::new(&mut *stream).poll_write(cx, &bytes[done..]);
            or_late(polled, deadline.as_mut(), cx, io::ErrorKind::WriteZero)
        })
        .await?;
    }
    Ok(())
}

/// What was polled, or an error where it moved nothing, or is not ready although its time is up.
fn or_late(
    polled: Poll<io::Result<usize>>,
    deadline: Pin<&mut Timer>,
    cx: &mut Context<'_>,
    nothing: io::ErrorKind,
) -> Poll<io::Result<usize>> {
    match polled {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(nothing.into())),
        Poll::Pending => deadline.poll(cx).map(|_| Err(io::ErrorKind::TimedOut.into())),
        ready => ready,
    }
}

/// Has the kernel send small frames at once, and end a connection whose other side has vanished without a word.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true).map_err(io::Error::from)?;
    let options = [
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, PEER_UNACKED_MS as libc::c_int),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        // In seconds. How many probes may go unanswered follows from TCP_USER_TIMEOUT.
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 2),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 1),
    ];
    for (level, option, value) in options {
        // SAFETY: the descriptor is open as long as `stream` lives, and the pointer is to a live integer of the length
        // given.
        let result = unsafe {
            let len = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const value).cast(), len)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends a connection at once. Closing it is not enough, as the kernel may still be waiting for it to become readable.
pub(super) fn hang_up(stream: &TcpStream) {
    let mut cx = Context::from_waker(Waker::noop());
    // One that is gone already needs no end.
    let _ = stream.poll_shutdown(&mut cx, Shutdown::Both);
}

#[cfg(test)]
mod tests;
