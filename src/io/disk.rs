//! The disk's thread: carries out what the disk's machine ([`Disk`]) wants of the device, on a ring of its own.
//!
//! It is a plain thread around a ring, not a glommio executor: glommio's files write whole buffers only, where a
//! WAL write is as long as what was gathered, and what they read cannot leave the thread without a copy. Nothing
//! here is ever cancelled: an operation ends when the kernel says so, however late, and its buffer lives until then.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::clock::{Clock, Pulse};
use super::files::Files;
use super::mailbox::{Receiver, Sender};
use super::memory::{AlignedBuf, Pool};
use super::{Incoming, Report};
use crate::limits::{BLOCK, IDLE_TICK_MS};
use crate::log::disk::{Disk, DiskEffect, DiskEvent};
use crate::log::{Buffers, DeviceDone, DeviceOp, DiskRequest, FileId, Space};
use crate::types::{LogId, Map, Mono, ShardId};

/// Entries of the submission queue; more operations than that go to the kernel in several calls.
const RING_ENTRIES: u32 = 256;

/// Threads for what blocks: creating, allocating, opening, removing.
const WORKERS: usize = 4;

/// Requests taken in before what they led to goes out, so that neither waits for the other.
const TURN: usize = 1024;

/// Bytes of write buffers kept for reuse.
const WRITE_POOL_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of read buffers kept for reuse.
const READ_POOL_BYTES: usize = 32 * 1024 * 1024;

/// Kernel threads that the ring may use for operations that cannot go on without waiting. Few of them would let
/// one that is stalled hold up the others.
const KERNEL_WORKERS: u32 = 256;

/// What the disk's thread is sent.
pub(super) enum ToDisk {
    /// A shard asks for something.
    Request {
        /// The shard.
        from: ShardId,
        /// What it asks.
        request: DiskRequest,
    },
    /// A worker has finished a job.
    Finished(Finished),
    /// End once nothing is under way, and report it.
    Stop,
}

/// What became of a worker's job.
pub(super) enum Finished {
    /// An operation of the machine that a worker carried out.
    Op {
        /// The operation's token.
        token: u64,
        /// Its outcome.
        result: io::Result<()>,
    },
    /// A look at the room that there is.
    Space {
        /// The operation's token.
        token: u64,
        /// What there is.
        result: io::Result<Space>,
    },
    /// A file that operations wait for.
    Opened {
        /// The file.
        file: FileId,
        /// Its handle.
        result: io::Result<File>,
    },
}

/// The buffers that the disk's machine fills.
pub(super) struct WriteBuffers {
    pool: Arc<Pool>,
}

impl WriteBuffers {
    /// None yet; they are made as they are needed.
    pub(super) fn new() -> WriteBuffers {
        WriteBuffers { pool: Pool::new(WRITE_POOL_BYTES) }
    }
}

impl Buffers for WriteBuffers {
    type Buf = AlignedBuf;

    fn take(&mut self, len: usize) -> AlignedBuf {
        self.pool.take(len)
    }

    fn give(&mut self, buf: AlignedBuf) {
        self.pool.give(buf);
    }
}

/// A read or write that the kernel has, or will have.
enum Transfer {
    Write { buf: AlignedBuf, len: usize, done: usize },
    Read { buf: AlignedBuf, len: usize },
}

struct InFlight {
    token: u64,
    transfer: Transfer,
    file: Rc<File>,
    offset: u64,
}

/// A transfer whose file is being opened.
struct Waiting {
    token: u64,
    transfer: Transfer,
    offset: u64,
}

enum OpenFile {
    Opening(Vec<Waiting>),
    Open { handle: Rc<File>, used: u64 },
}

/// Marks the completion of the read on the eventfd. Transfers have their slots' numbers.
const WAKE_UP: u64 = u64::MAX;

/// Wakes the disk's thread out of the kernel.
struct EventFd(OwnedFd);

impl EventFd {
    fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl Wake for EventFd {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open and the eight bytes are live. The write fails only when the counter is
        // at its end, and then the thread is being woken anyway.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// The disk's thread.
pub(super) struct DiskThread {
    clock: Clock,
    pulse: Pulse,
    machine: Disk<WriteBuffers>,
    effects: Vec<DiskEffect<AlignedBuf>>,
    inbox: Receiver<ToDisk>,
    shards: Vec<Sender<Incoming>>,
    reports: mpsc::Sender<Report>,
    ring: IoUring,
    event: Arc<EventFd>,
    /// Where the kernel puts the eventfd's counter; boxed so that it stays where it is.
    event_count: Box<u64>,
    in_flight: Vec<Option<InFlight>>,
    free_slots: Vec<usize>,
    files: Files,
    open: Map<FileId, OpenFile>,
    /// Most files that stay open without being used.
    keep_open: usize,
    uses: u64,
    read_pool: Arc<Pool>,
    jobs: mpsc::Sender<Job>,
    stopping: bool,
}

type Job = Box<dyn FnOnce() -> Finished + Send>;

/// What the disk's thread is started with.
pub(super) struct DiskSetup {
    /// The clock of all threads.
    pub(super) clock: Clock,
    /// Tells the shards that it is at work.
    pub(super) pulse: Pulse,
    /// The machine, as recovery left it.
    pub(super) machine: Disk<WriteBuffers>,
    /// The data directory's files.
    pub(super) files: Files,
    /// Most files that stay open without being used.
    pub(super) keep_open: usize,
    /// Its mailbox, both ends: its workers answer into it.
    pub(super) mailbox: (Sender<ToDisk>, Receiver<ToDisk>),
    /// The shards' mailboxes.
    pub(super) shards: Vec<Sender<Incoming>>,
    /// Where it reports that it has ended.
    pub(super) reports: mpsc::Sender<Report>,
}

impl DiskThread {
    /// Makes the ring and the workers.
    pub(super) fn new(setup: DiskSetup) -> io::Result<DiskThread> {
        let ring = IoUring::new(RING_ENTRIES)?;
        ring.submitter().register_iowq_max_workers(&mut [KERNEL_WORKERS; 2])?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let (own_sender, inbox) = setup.mailbox;
        for n in 0..WORKERS {
            let (queue, finished) = (Arc::clone(&queue), own_sender.clone());
            thread::Builder::new().name(format!("disk-worker-{n}")).spawn(move || {
                loop {
                    // The lock is held while waiting for a job, not while doing it.
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    finished.send(ToDisk::Finished(job()));
                }
            })?;
        }
        Ok(DiskThread {
            clock: setup.clock,
            pulse: setup.pulse,
            machine: setup.machine,
            effects: Vec::new(),
            inbox,
            shards: setup.shards,
            reports: setup.reports,
            ring,
            event: Arc::new(EventFd::new()?),
            event_count: Box::new(0),
            in_flight: Vec::new(),
            free_slots: Vec::new(),
            files: setup.files,
            open: Map::default(),
            keep_open: setup.keep_open,
            uses: 0,
            read_pool: Pool::new(READ_POOL_BYTES),
            jobs,
            stopping: false,
        })
    }

    /// Works until it is told to stop and nothing is under way any more.
    pub(super) fn run(mut self) -> io::Result<()> {
        let waker = Waker::from(Arc::clone(&self.event));
        self.listen_for_wake_ups()?;
        if let Err(error) = super::slice::run_soon() {
            tracing::debug!(%error, "the disk's thread runs like any other");
        }
        let mut next_tick = Mono::default();
        let mut first: Option<ToDisk> = None;
        loop {
            let mut taken = 0;
            while let Some(message) = first.take().or_else(|| self.inbox.try_recv()) {
                self.take_in(message)?;
                taken += 1;
                if taken == TURN {
                    break;
                }
            }
            self.reap()?;
            let now = self.clock.now();
            self.pulse.beat(now.mono);
            if now.mono >= next_tick {
                self.machine.tick(now, &mut self.effects);
                next_tick = now.mono.plus_millis(IDLE_TICK_MS);
            }
            self.machine.finish_turn(now, &mut self.effects);
            self.carry_out()?;
            if self.stopping && !self.machine.busy() && self.free_slots.len() == self.in_flight.len() {
                // Nobody listens only when the process is ending already.
                let _ = self.reports.send(Report::DiskDrained);
                return Ok(());
            }
            // What has just become busy must not wait out the rest of an idle tick.
            next_tick = next_tick.min(now.mono.plus_millis(self.machine.tick_in_ms(now)));
            first = self.inbox.recv_or_sleep(&waker);
            let wait = if first.is_some() { Duration::ZERO } else { self.until(next_tick) };
            self.submit(wait)?;
        }
    }

    fn until(&self, then: Mono) -> Duration {
        Duration::from_micros(then.micros_since(self.clock.mono()))
    }

    fn take_in(&mut self, message: ToDisk) -> io::Result<()> {
        match message {
            // All that was accepted is durable then; what followers are still sent is acknowledged by nobody.
            ToDisk::Request { .. } if self.stopping => {}
            ToDisk::Request { from, request } => {
                self.machine.step(self.clock.now(), DiskEvent::Request { from, request }, &mut self.effects);
            }
            ToDisk::Finished(Finished::Op { token, result }) => {
                self.done(token, None, result.map(|()| Bytes::new()));
            }
            ToDisk::Finished(Finished::Space { token, result }) => {
                self.done(token, None, result.map(Space::to_bytes));
            }
            ToDisk::Finished(Finished::Opened { file, result }) => self.opened(file, result)?,
            ToDisk::Stop => self.stopping = true,
        }
        Ok(())
    }

    /// Tells the machine that an operation has ended.
    fn done(&mut self, token: u64, buf: Option<AlignedBuf>, result: io::Result<Bytes>) {
        let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
        let event = DiskEvent::Done { token, done: DeviceDone { buf, result } };
        self.machine.step(self.clock.now(), event, &mut self.effects);
    }

    /// Carries out the effects, and those that follow from what fails at once.
    fn carry_out(&mut self) -> io::Result<()> {
        let mut effects = VecDeque::from(std::mem::take(&mut self.effects));
        while let Some(effect) = effects.pop_front() {
            match effect {
                DiskEffect::Reply { to, reply } => self.shards[usize::from(to.0)].send(Incoming::Disk(reply)),
                DiskEffect::Device { token, op } => self.start(token, op)?,
            }
            effects.extend(self.effects.drain(..));
        }
        self.effects = Vec::from(effects);
        Ok(())
    }

    fn start(&mut self, token: u64, op: DeviceOp<AlignedBuf>) -> io::Result<()> {
        match op {
            DeviceOp::Write { file, offset, buf, len } => {
                assert!(len <= buf.len() && len.is_multiple_of(BLOCK), "a write of {len} bytes");
                self.transfer(file, Waiting { token, transfer: Transfer::Write { buf, len, done: 0 }, offset })?;
            }
            DeviceOp::Read { file, offset, len } => {
                let buf = self.read_pool.take(len);
                self.transfer(file, Waiting { token, transfer: Transfer::Read { buf, len }, offset })?;
            }
            DeviceOp::Create { file, len } => {
                self.close(file);
                self.work(token, move |files| files.create(file, len));
            }
            DeviceOp::Allocate { file, offset, len } => {
                self.work(token, move |files| files.allocate(file, offset, len));
            }
            DeviceOp::Shorten { file, len } => {
                self.work(token, move |files| files.shorten(file, len));
            }
            DeviceOp::Remove { file } => {
                self.close(file);
                self.work(token, move |files| files.remove(file));
            }
            DeviceOp::Space => {
                let files = self.files.clone();
                self.employ(Box::new(move || Finished::Space { token, result: files.space() }));
            }
            DeviceOp::RemoveLog { log } => {
                self.close_log(log);
                self.work(token, move |files| files.remove_log(log));
            }
        }
        Ok(())
    }

    /// Has a worker carry out an operation.
    fn work(&mut self, token: u64, job: impl FnOnce(&Files) -> io::Result<()> + Send + 'static) {
        let files = self.files.clone();
        self.employ(Box::new(move || Finished::Op { token, result: job(&files) }));
    }

    fn employ(&mut self, job: Job) {
        self.jobs.send(job).expect("the workers live as long as the sender of their jobs");
    }

    /// Starts a transfer, as soon as its file is open.
    fn transfer(&mut self, file: FileId, waiting: Waiting) -> io::Result<()> {
        self.uses += 1;
        match self.open.get_mut(&file) {
            Some(OpenFile::Open { handle, used }) => {
                *used = self.uses;
                let handle = Rc::clone(handle);
                self.launch(handle, waiting)
            }
            Some(OpenFile::Opening(queue)) => {
                queue.push(waiting);
                Ok(())
            }
            None => {
                self.open.insert(file, OpenFile::Opening(vec![waiting]));
                let files = self.files.clone();
                self.employ(Box::new(move || Finished::Opened { file, result: files.open(file) }));
                Ok(())
            }
        }
    }

    fn opened(&mut self, file: FileId, result: io::Result<File>) -> io::Result<()> {
        let Some(OpenFile::Opening(waiting)) = self.open.remove(&file) else {
            unreachable!("{file} was opened and nobody had asked for it")
        };
        match result {
            Ok(handle) => {
                let handle = Rc::new(handle);
                self.close_surplus();
                self.open.insert(file, OpenFile::Open { handle: Rc::clone(&handle), used: self.uses });
                for waiting in waiting {
                    self.launch(Rc::clone(&handle), waiting)?;
                }
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                for Waiting { token, transfer, .. } in waiting {
                    let buf = match transfer {
                        Transfer::Write { buf, .. } => Some(buf),
                        Transfer::Read { .. } => None,
                    };
                    self.done(token, buf, Err(io::Error::from_raw_os_error(errno)));
                }
            }
        }
        Ok(())
    }

    /// Forgets a file that is about to be replaced or removed. The machine waits for its operations first.
    fn close(&mut self, file: FileId) {
        if let Some(OpenFile::Opening(_)) = self.open.remove(&file) {
            unreachable!("{file} is to go while operations on it are under way");
        }
    }

    fn close_log(&mut self, log: LogId) {
        self.open.retain(|file, _| !matches!(file, FileId::Segment(segment) if segment.log == log));
    }

    /// Makes room for another open segment file by closing those that were unused for longest. WAL files stay open.
    fn close_surplus(&mut self) {
        if self.open.len() < self.keep_open {
            return;
        }
        let mut idle: Vec<(u64, FileId)> = self
            .open
            .iter()
            .filter_map(|(file, state)| match (file, state) {
                (FileId::Segment(_), OpenFile::Open { handle, used }) if Rc::strong_count(handle) == 1 => {
                    Some((*used, *file))
                }
                _ => None,
            })
            .collect();
        // Several at once, so that the search is not made for every file that is opened.
        idle.sort_unstable();
        for (_, file) in idle.iter().take(self.keep_open / 8 + 1) {
            self.open.remove(file);
        }
    }

    /// Puts a transfer into a slot and its entry into the submission queue.
    fn launch(&mut self, file: Rc<File>, waiting: Waiting) -> io::Result<()> {
        let Waiting { token, transfer, offset } = waiting;
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.in_flight.push(None);
            self.in_flight.len() - 1
        });
        self.in_flight[slot] = Some(InFlight { token, transfer, file, offset });
        self.enqueue(slot)
    }

    fn enqueue(&mut self, slot: usize) -> io::Result<()> {
        let operation = self.in_flight[slot].as_mut().expect("the slot was just filled");
        let fd = Fd(operation.file.as_raw_fd());
        let entry = match &mut operation.transfer {
            Transfer::Write { buf, len, done } => {
                let rest = &buf.as_ref()[*done..*len];
                opcode::Write::new(fd, rest.as_ptr(), rest.len() as u32).offset(operation.offset + *done as u64).build()
            }
            Transfer::Read { buf, len } => {
                opcode::Read::new(fd, buf.as_mut().as_mut_ptr(), *len as u32).offset(operation.offset).build()
            }
        };
        self.push(&entry.user_data(slot as u64))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the memory that an entry refers to (the buffer in its slot of `in_flight`, `event_count`) stays
            // where it is until the entry's completion was seen.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.submit(Duration::ZERO)?;
        }
    }

    fn listen_for_wake_ups(&mut self) -> io::Result<()> {
        let target: *mut u64 = &mut *self.event_count;
        let entry = opcode::Read::new(Fd(self.event.0.as_raw_fd()), target.cast(), 8).build();
        self.push(&entry.user_data(WAKE_UP))
    }

    /// Hands what was queued to the kernel, and waits up to `wait` for a completion.
    fn submit(&mut self, wait: Duration) -> io::Result<()> {
        let outcome = if wait.is_zero() {
            self.ring.submit()
        } else {
            let timeout = Timespec::from(wait);
            self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
        };
        match outcome {
            Err(error)
                if ![libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY]
                    .contains(&error.raw_os_error().unwrap_or_default()) =>
            {
                Err(error)
            }
            // Nothing is lost by the others: what the kernel did not take stays in the queue for the next call.
            _ => Ok(()),
        }
    }

    /// Takes in the completions that are there.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(completion) = { self.ring.completion().next() } {
            if completion.user_data() == WAKE_UP {
                self.listen_for_wake_ups()?;
                continue;
            }
            let slot = completion.user_data() as usize;
            let mut operation = self.in_flight[slot].take().expect("the kernel completes what was submitted, once");
            let moved = match completion.result() {
                error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                n => Ok(n as usize),
            };
            if let (Transfer::Write { len, done, .. }, Ok(n)) = (&mut operation.transfer, &moved) {
                *done += n;
                if *n > 0 && done < len && n.is_multiple_of(BLOCK) {
                    // A write may end early, at the end of free space for one. The rest tells the reason.
                    self.in_flight[slot] = Some(operation);
                    self.enqueue(slot)?;
                    continue;
                }
            }
            self.free_slots.push(slot);
            let token = operation.token;
            match operation.transfer {
                Transfer::Write { buf, len, done } => {
                    let result = moved.and_then(|_| {
                        if done == len { Ok(Bytes::new()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
                    });
                    self.done(token, Some(buf), result);
                }
                Transfer::Read { buf, .. } => {
                    let result = match moved {
                        Ok(n) => Ok(self.read_pool.share(buf, n)),
                        Err(error) => {
                            self.read_pool.give(buf);
                            Err(error)
                        }
                    };
                    self.done(token, None, result);
                }
            }
        }
        Ok(())
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        // The kernel may still write into these buffers: leaking them is the one safe thing to do.
        std::mem::forget(std::mem::take(&mut self.in_flight));
        std::mem::forget(std::mem::take(&mut self.event_count));
    }
}

#[cfg(test)]
mod tests;
