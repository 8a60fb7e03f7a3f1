//! A client's connection: one task that reads requests, one that writes responses, and what they share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use smallvec::SmallVec;

use super::admission::Place;
use super::driver::{Core, Driver};
use super::frames::{FrameError, FrameReader, Taken};
use super::patience::Patience;
use super::signal::{Signal, yield_now};
use crate::limits::{CONN_STARVED_MS, CONN_UNSENT_BYTES, MAX_IN_FLIGHT_PER_CONN, TICK_MS};
use crate::types::{ConnId, Mono};

/// When at least this much of a frame is missing, it is read to where it belongs instead of into the scratch buffer.
const DIRECT_BYTES: usize = 32 * 1024;

/// Bytes that one connection may move before other tasks get their turn.
const TURN_BYTES: usize = 512 * 1024;

/// Pieces that one call hands to the socket.
const WRITE_PIECES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Requests are read and responses written.
    Open,
    /// Nothing more is read; the connection ends once everything is written.
    Closing,
    /// Nothing more is read or written.
    Dead,
}

/// A client's connection.
pub(super) struct Connection {
    /// Its number on this shard.
    pub(super) id: ConnId,
    /// The client's address.
    pub(super) peer: SocketAddr,
    stream: RefCell<TcpStream>,
    phase: Cell<Phase>,
    /// Requests that were handed to the core and not answered yet.
    in_flight: Cell<usize>,
    outbox: RefCell<VecDeque<Bytes>>,
    /// Bytes in the outbox.
    unsent: Cell<usize>,
    reader: Signal,
    writer: Signal,
    /// Whether the broker does not read on, until there is room.
    held_back: Cell<bool>,
    patience: Patience,
    /// Its place among the broker's connections.
    _place: Place,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The client closed it.
    #[error("closed by the client")]
    Client,
    /// The broker closed it; the reason was logged then.
    #[error("closed by the broker")]
    Broker,
    /// Reading failed.
    #[error("reading failed: {0}")]
    Read(#[from] io::Error),
    /// The stream made no sense.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame budget had no room for too long.
    #[error("no memory for its next request frame in {CONN_STARVED_MS} ms")]
    Starved,
}

/// Frames of one connection that are handed on before the turn that answers them: a client that pipelines small
/// requests for large answers must not have them all answered before the first is counted as unsent.
const FRAMES_PER_TURN: usize = 4;

impl Connection {
    /// A connection that was just accepted.
    pub(super) fn new(id: ConnId, peer: SocketAddr, stream: TcpStream, place: Place, now: Mono) -> Connection {
        Connection {
            id,
            peer,
            stream: RefCell::new(stream),
            phase: Cell::new(Phase::Open),
            in_flight: Cell::new(0),
            outbox: RefCell::default(),
            unsent: Cell::new(0),
            reader: Signal::default(),
            writer: Signal::default(),
            held_back: Cell::new(false),
            patience: Patience::new(now),
            _place: place,
        }
    }

    /// Notes that a request was answered and queues the answer; an answer without bytes is none for the client.
    pub(super) fn respond(&self, chunks: impl IntoIterator<Item = Bytes>, now: Mono) {
        let answered = self.in_flight.get().checked_sub(1);
        self.in_flight.set(answered.expect("the core answers a request once"));
        if self.phase.get() != Phase::Open {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        let was_empty = outbox.is_empty();
        for chunk in chunks.into_iter().filter(|chunk| !chunk.is_empty()) {
            self.unsent.set(self.unsent.get() + chunk.len());
            outbox.push_back(chunk);
        }
        if was_empty && !outbox.is_empty() {
            self.patience.began_to_send(now);
            self.writer.set();
        }
        if self.held_back.get() {
            self.reader.set();
        }
    }

    /// Ends the connection once what is queued was written.
    pub(super) fn close(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Closing);
            self.writer.set();
            self.reader.set();
        }
    }

    /// Ends the connection at once.
    pub(super) fn kill(&self) {
        if self.phase.replace(Phase::Dead) == Phase::Dead {
            return;
        }
        // Both tasks may be waiting for the socket; shutting it down wakes them, and no task has to be cancelled.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.stream.borrow().poll_shutdown(&mut cx, Shutdown::Both);
        self.outbox.borrow_mut().clear();
        self.unsent.set(0);
        self.writer.set();
        self.reader.set();
    }

    /// Whether all that was asked is answered and written.
    pub(super) fn drained(&self) -> bool {
        self.phase.get() == Phase::Dead || self.unsent.get() == 0
    }

    /// Why the connection is to be ended at `now`, if it is; `idle_ms` is `connections.max.idle.ms`.
    pub(super) fn stalled(&self, now: Mono, idle_ms: u64) -> Option<&'static str> {
        if self.phase.get() == Phase::Dead {
            return None;
        }
        self.patience.is_over(now, self.unsent.get() > 0, self.in_flight.get() > 0, self.held_back.get(), idle_ms)
    }

    /// Lets a reader that is held back look again whether it may go on.
    pub(super) fn look_again(&self) {
        self.reader.set();
    }

    fn has_room(&self) -> bool {
        self.in_flight.get() < MAX_IN_FLIGHT_PER_CONN && self.unsent.get() <= CONN_UNSENT_BYTES
    }
}

/// Reads requests until the connection ends, and tells the core when it has.
pub(super) async fn read<C: Core>(driver: Rc<Driver<C>>, conn: Rc<Connection>) {
    let frames = FrameReader::new(Arc::clone(&driver.budget), driver.max_request_bytes);
    let mut reader = Reader { driver: &driver, conn: &conn, frames, carried: Vec::new(), starved: None };
    let end = match reader.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    drop(reader);
    conn.kill();
    driver.closed(&conn, &end);
}

struct Reader<'a, C> {
    driver: &'a Rc<Driver<C>>,
    conn: &'a Rc<Connection>,
    frames: FrameReader,
    /// Bytes that were read and could not be handed on yet.
    carried: Vec<u8>,
    /// Since when the frame that begins next has found no room in the budget.
    starved: Option<Mono>,
}

impl<C: Core> Reader<'_, C> {
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let mut moved = 0;
        loop {
            self.wait_for_room().await?;
            if self.starved.is_some() || !self.carried.is_empty() {
                let carried = std::mem::take(&mut self.carried);
                self.take_in(&carried)?;
                // The turn that answers these frames comes before the next ones are looked at.
                yield_now().await;
                continue;
            }
            moved += poll_fn(|cx| self.poll_read(cx)).await?;
            if moved >= TURN_BYTES {
                moved = 0;
                yield_now().await;
            }
        }
    }

    /// Waits until another request may be read.
    async fn wait_for_room(&self) -> Result<(), End> {
        let (driver, conn) = (self.driver, self.conn);
        if let Some(since) = self.starved {
            if driver.clock.mono() >= since.plus_millis(CONN_STARVED_MS) {
                return Err(End::Starved);
            }
            // The budget's memory may come back on any thread; the tick looks whether it has.
            driver.hold_back(conn);
            self.held_back().await;
        }
        while conn.phase.get() == Phase::Open && !(conn.has_room() && driver.takes_requests()) {
            if conn.has_room() {
                driver.hold_back(conn);
            }
            self.held_back().await;
        }
        match conn.phase.get() {
            Phase::Open => Ok(()),
            Phase::Closing | Phase::Dead => {
                conn.reader.until(|| conn.phase.get() == Phase::Dead).await;
                Err(End::Broker)
            }
        }
    }

    /// Waits for an answer, for room in the outbox or for the next tick.
    async fn held_back(&self) {
        self.conn.held_back.set(true);
        poll_fn(|cx| self.conn.reader.poll(cx)).await;
        self.conn.held_back.set(false);
        // The time for which the broker held it back does not count as the client's.
        self.conn.patience.was_held_back(self.driver.clock.mono());
    }

    /// Reads once, and hands on the frames that this completes. Returns the number of bytes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, End>> {
        if self.conn.phase.get() != Phase::Open {
            return Poll::Ready(Ok(0));
        }
        let driver = self.driver;
        let n = if let Some(missing) = self.frames.missing(DIRECT_BYTES) {
            let n = ready!(Pin::new(&mut *self.conn.stream.borrow_mut()).poll_read(cx, missing))?;
            if let Some(frame) = self.frames.filled(n) {
                self.hand_on(frame);
            }
            n
        } else {
            let mut scratch = driver.scratch.borrow_mut();
            let n = ready!(Pin::new(&mut *self.conn.stream.borrow_mut()).poll_read(cx, &mut scratch))?;
            self.take_in(&scratch[..n])?;
            n
        };
        if n == 0 {
            return Poll::Ready(Err(End::Client));
        }
        self.conn.patience.read(driver.clock.mono(), self.frames.inside_frame());
        Poll::Ready(Ok(n))
    }

    /// Hands on the frames that end in `input`, and carries what must wait.
    fn take_in(&mut self, mut input: &[u8]) -> Result<(), End> {
        let mut taken = 0;
        loop {
            match self.frames.take(&mut input)? {
                Taken::Frame(frame) => {
                    self.starved = None;
                    self.hand_on(frame);
                    taken += 1;
                }
                Taken::More => {
                    self.starved = None;
                    return Ok(());
                }
                Taken::NoMemory => {
                    self.starved.get_or_insert_with(|| self.driver.clock.mono());
                    break;
                }
            }
            if input.is_empty() {
                return Ok(());
            }
            if taken == FRAMES_PER_TURN || !self.conn.has_room() {
                break;
            }
        }
        self.carried.extend_from_slice(input);
        Ok(())
    }

    fn hand_on(&self, frame: Bytes) {
        self.conn.patience.frame_complete();
        self.conn.in_flight.set(self.conn.in_flight.get() + 1);
        self.driver.request(self.conn.id, frame);
    }
}

/// Writes responses until the connection ends.
pub(super) async fn write<C: Core>(driver: Rc<Driver<C>>, conn: Rc<Connection>) {
    let mut moved = 0;
    loop {
        conn.writer.until(|| !conn.outbox.borrow().is_empty() || conn.phase.get() != Phase::Open).await;
        if conn.phase.get() == Phase::Dead || conn.outbox.borrow().is_empty() {
            break;
        }
        // An error on a socket is the client's end; the reader sees it too.
        let Ok(n) = poll_fn(|cx| poll_write(&conn, cx)).await else { break };
        conn.patience.sent(driver.clock.mono(), n);
        if conn.held_back.get() {
            conn.reader.set();
        }
        moved += n;
        if moved >= TURN_BYTES {
            moved = 0;
            yield_now().await;
        }
    }
    conn.kill();
}

/// Writes from the front of the outbox, as much as the socket takes at once.
fn poll_write(conn: &Connection, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let n = ready!(write_front(&mut conn.stream.borrow_mut(), &mut conn.outbox.borrow_mut(), cx))?;
    conn.unsent.set(conn.unsent.get() - n);
    Poll::Ready(Ok(n))
}

/// Writes from the front of `outbox` as much as the socket takes at once, and takes it out. Returns the number of bytes.
pub(super) fn write_front(
    stream: &mut TcpStream,
    outbox: &mut VecDeque<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let pieces: SmallVec<[IoSlice<'_>; WRITE_PIECES]> =
        outbox.iter().take(WRITE_PIECES).map(|chunk| IoSlice::new(chunk)).collect();
    if pieces.is_empty() {
        // The connection was killed while the socket was full.
        return Poll::Ready(Ok(0));
    }
    let n = ready!(Pin::new(stream).poll_write_vectored(cx, &pieces))?;
    drop(pieces);
    let mut left = n;
    while left > 0 {
        let front = outbox.front_mut().expect("the socket took bytes of chunks that are here");
        if left < front.len() {
            front.advance(left);
            break;
        }
        left -= front.len();
        outbox.pop_front();
    }
    Poll::Ready(Ok(n))
}

const _: () = assert!(TICK_MS < CONN_STARVED_MS, "a starved reader looks again at each tick");
