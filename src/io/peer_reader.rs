//! A connection of another broker's shard: its frames are cut from the stream and handed to the core.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_io::AsyncRead;
use glommio::net::{AcceptedTcpStream, TcpStream};
use glommio::timer::sleep;

use super::driver::{Core, Driver};
use super::frames::{Frame, FrameBudget};
use super::peers::{Peers, hang_up};
use super::signal::yield_now;
use crate::limits::{PEER_FRAME_BYTES, TICK_MS};
use crate::peer::{FRAME_HEADER_BYTES, FrameHeader, Hello, WireError};
use crate::shard::Event;

/// When at least this much of a frame is missing, it is read to where it belongs instead of into the scratch buffer.
const DIRECT_BYTES: usize = 32 * 1024;

/// Bytes that one connection may move before other tasks get their turn.
const TURN_BYTES: usize = 512 * 1024;

/// A connection of another broker's shard.
pub(super) struct Inbound {
    /// How it began.
    pub(super) hello: Hello,
    stream: RefCell<TcpStream>,
    dead: Cell<bool>,
}

impl Inbound {
    /// Ends it: nothing of it is handed to the core any more.
    pub(super) fn kill(&self) {
        self.dead.set(true);
        // Wakes the reader; no task has to be cancelled.
        hang_up(&self.stream.borrow());
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the other side")]
    Closed,
    #[error("a later connection took its place")]
    Superseded,
    #[error("reading failed: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Reads a connection that was greeted, unless a later one of the same sender was faster.
pub(super) fn start<C: Core>(driver: &Rc<Driver<C>>, stream: AcceptedTcpStream, hello: Hello) {
    let peers = driver.peers.as_ref().expect("connections of others come only where there are others");
    let stream = stream.bind_to_executor();
    if !peers.shared.registry.is_newest(&hello) {
        hang_up(&stream);
        return;
    }
    let place = (hello.broker, hello.shard);
    let inbound = Rc::new(Inbound { hello, stream: RefCell::new(stream), dead: Cell::new(false) });
    if let Some(older) = peers.inbound.borrow_mut().insert(place, Rc::clone(&inbound)) {
        older.kill();
    }
    glommio::spawn_local(read(Rc::clone(driver), inbound)).detach();
}

async fn read<C: Core>(driver: Rc<Driver<C>>, inbound: Rc<Inbound>) {
    let peers = driver.peers.as_ref().expect("connections of others come only where there are others");
    let frames = FrameCutter::new(Arc::clone(&peers.shared.budget));
    let mut reader = Reader { driver: &driver, peers, inbound: &inbound, frames, carried: Vec::new() };
    let end = match reader.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    drop(reader);
    inbound.kill();
    let place = (inbound.hello.broker, inbound.hello.shard);
    {
        let mut all = peers.inbound.borrow_mut();
        if all.get(&place).is_some_and(|newest| Rc::ptr_eq(newest, &inbound)) {
            all.remove(&place);
        }
    }
    let (node, shard) = (place.0.0, place.1);
    match end {
        End::Closed | End::Superseded => tracing::debug!(node, shard, "connection of another broker {end}"),
        End::Read(_) | End::Wire(_) => {
            driver.client_line(|| tracing::warn!(node, shard, "connection of another broker closed: {end}"));
        }
    }
}

struct Reader<'a, C> {
    driver: &'a Driver<C>,
    peers: &'a Peers,
    inbound: &'a Inbound,
    frames: FrameCutter,
    /// Bytes that were read and found no memory yet.
    carried: Vec<u8>,
}

impl<C: Core> Reader<'_, C> {
    async fn run(&mut self) -> Result<Infallible, End> {
        let mut moved = 0;
        loop {
            if self.frames.starved {
                // Memory may come back on any thread: there is nobody to say so.
                sleep(Duration::from_millis(TICK_MS)).await;
                if self.inbound.dead.get() {
                    return Err(End::Superseded);
                }
                let carried = std::mem::take(&mut self.carried);
                self.take_in(&carried)?;
                continue;
            }
            moved += poll_fn(|cx| self.poll_read(cx)).await?;
            if moved >= TURN_BYTES {
                moved = 0;
                yield_now().await;
            }
        }
    }

    /// Reads once, and hands on the frames that this completes. Returns the number of bytes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, End>> {
        if self.inbound.dead.get() {
            return Poll::Ready(Err(End::Superseded));
        }
        let n = if let Some(missing) = self.frames.missing(DIRECT_BYTES) {
            let n = ready!(Pin::new(&mut *self.inbound.stream.borrow_mut()).poll_read(cx, missing))?;
            if let Some((header, frame)) = self.frames.filled(n) {
                self.hand_on(header, frame)?;
            }
            n
        } else {
            let driver = self.driver;
            let mut scratch = driver.scratch.borrow_mut();
            let n = ready!(Pin::new(&mut *self.inbound.stream.borrow_mut()).poll_read(cx, &mut scratch))?;
            self.take_in(&scratch[..n])?;
            n
        };
        Poll::Ready(if n == 0 { Err(End::Closed) } else { Ok(n) })
    }

    /// Hands on the frames that end in `input`, and carries what finds no memory.
    fn take_in(&mut self, mut input: &[u8]) -> Result<(), End> {
        while let Some((header, frame)) = self.frames.take(&mut input)? {
            self.hand_on(header, frame)?;
        }
        self.carried.extend_from_slice(input);
        Ok(())
    }

    fn hand_on(&self, header: FrameHeader, frame: Bytes) -> Result<(), End> {
        let hello = &self.inbound.hello;
        // A later connection may have been greeted on another shard: of this one nothing may come after it.
        if self.inbound.dead.get() || !self.peers.shared.registry.is_newest(hello) {
            return Err(End::Superseded);
        }
        self.driver.event(Event::Peer { from: hello.broker, header, frame });
        Ok(())
    }
}

/// Cuts a stream of bytes into frames of brokers.
struct FrameCutter {
    budget: Arc<FrameBudget>,
    header: [u8; FRAME_HEADER_BYTES],
    /// Bytes of the header that are there.
    header_len: usize,
    /// The frame that is being filled, and how far.
    filling: Option<(FrameHeader, Frame, usize)>,
    /// Whether the frame that begins has found no memory.
    starved: bool,
}

impl FrameCutter {
    fn new(budget: Arc<FrameBudget>) -> FrameCutter {
        let header = [0; FRAME_HEADER_BYTES];
        FrameCutter { budget, header, header_len: 0, filling: None, starved: false }
    }

    /// Takes bytes from the front of `input` up to the end of a frame, and leaves the rest in it. Returns the frame, or
    /// nothing where all was taken or the frame has found no memory.
    fn take(&mut self, input: &mut &[u8]) -> Result<Option<(FrameHeader, Bytes)>, WireError> {
        if self.filling.is_none() {
            let n = input.len().min(FRAME_HEADER_BYTES - self.header_len);
            let (bytes, rest) = input.split_at(n);
            self.header[self.header_len..self.header_len + n].copy_from_slice(bytes);
            self.header_len += n;
            *input = rest;
            if self.header_len < FRAME_HEADER_BYTES {
                return Ok(None);
            }
            // The length is judged before anything is allocated for it.
            let header = FrameHeader::decode(&self.header)?;
            let frame = self.budget.frame(header.body_len());
            self.starved = frame.is_none();
            let Some(frame) = frame else { return Ok(None) };
            self.filling = Some((header, frame, 0));
        }
        if let Some((_, frame, filled)) = &mut self.filling {
            let missing = &mut frame.bytes_mut()[*filled..];
            let n = input.len().min(missing.len());
            let (bytes, rest) = input.split_at(n);
            missing[..n].copy_from_slice(bytes);
            *filled += n;
            *input = rest;
        }
        Ok(self.complete())
    }

    /// Where to read the rest of a frame to, without a copy, if at least `least` bytes of it are missing.
    fn missing(&mut self, least: usize) -> Option<&mut [u8]> {
        let (_, frame, filled) = self.filling.as_mut()?;
        let missing = &mut frame.bytes_mut()[*filled..];
        (missing.len() >= least.max(1)).then_some(missing)
    }

    /// Notes that `n` bytes were read to where [`FrameCutter::missing`] said. Returns the frame if that was its end.
    fn filled(&mut self, n: usize) -> Option<(FrameHeader, Bytes)> {
        self.filling.as_mut()?.2 += n;
        self.complete()
    }

    fn complete(&mut self) -> Option<(FrameHeader, Bytes)> {
        let (header, frame, _) = self.filling.take_if(|(header, _, filled)| *filled == header.body_len())?;
        self.header_len = 0;
        Some((header, Bytes::from_owner(frame)))
    }
}

const _: () = assert!(FRAME_HEADER_BYTES < DIRECT_BYTES && DIRECT_BYTES < PEER_FRAME_BYTES);

#[cfg(test)]
mod tests;
