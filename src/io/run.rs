//! From a configuration to a running broker, and its end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use super::admission::Admission;
use super::alarm::Timer;
use super::clock::{Clock, Pulse};
use super::disk::{DiskSetup, DiskThread, ToDisk, WriteBuffers};
use super::driver::{self, Core, ShardSetup};
use super::files::{Files, RecoveryDevice};
use super::frames::FrameBudget;
use super::http::{self, Pace, ShardSource, Sources};
use super::identity::{DataDir, IdentityError, random_bytes};
use super::mailbox::{Receiver, Sender, mailbox};
use super::peers::Peering;
use super::rouse::{self, Sleeper};
use super::{Incoming, LOG_FLUSH, Report, listener, probe};
use crate::config::{Config, PeerAddress};
use crate::consensus::Members;
use crate::limits::{BLOCK, LEAVE_MS, STOP_MS};
use crate::log::disk::{Disk, DiskConfig};
use crate::log::recovery::{RecoveredLog, RecoveryError, recover};
use crate::logging;
use crate::metrics::{DiskMetrics, ShardMetrics};
use crate::shard::{MetadataRecoveryError, Shard};
use crate::signals;
use crate::types::ShardId;

/// Registered memory of an executor's rings, in bytes. Shards do no file I/O, so they need next to none.
const EXECUTOR_IO_MEMORY: usize = 64 * 1024;

/// How long a task queue of an executor may run before the others are looked at. The shorter, the more often an executor sleeps
/// although tasks are ready, until it is roused.
const PREEMPT: Duration = Duration::from_millis(10);

/// Writes that measure the disk at a start, and the most time they may take.
const LATENCY_WRITES: (usize, Duration) = (16, Duration::from_millis(30));

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The environment lacks something that the broker cannot do without.
    #[error(transparent)]
    Probe(#[from] probe::ProbeError),
    /// The data directory is not this broker's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The address is taken.
    #[error("{addr} is in use by another program: stop it, or choose another address with --listen")]
    AddressInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address of the HTTP port is taken.
    #[error("{addr} is in use by another program: stop it, or choose another address with --http")]
    HttpInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address of the HTTP port cannot be listened on.
    #[error("cannot listen for HTTP on {addr}: {source}")]
    HttpListen {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {cause}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
    },
    /// This broker's address in `controller.quorum.voters` cannot be listened on.
    #[error(
        "cannot listen for other brokers on {host}:{port}, this broker's address in controller.quorum.voters: {detail}"
    )]
    PeerListen {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the system said.
        detail: String,
    },
    /// What is on the disk cannot be read or makes no sense.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The metadata on the disk cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataRecoveryError),
    /// The system refused a thread, a ring or a descriptor.
    #[error("cannot {what}: {detail}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        detail: String,
    },
}

fn system(what: &'static str, detail: impl ToString) -> RunError {
    RunError::System { what, detail: detail.to_string() }
}

/// Runs a broker until SIGTERM or SIGINT, and then ends the process: with exit code 0 once everything that was
/// accepted is durable and answered, at most [`LEAVE_MS`] and [`STOP_MS`] later, or with 1 at once by a second signal.
///
/// Prints what it runs on to standard output, and `ready HOST:PORT` when clients can connect.
///
/// # Errors
/// Whatever keeps the broker from starting, with its cause and remedy in one line. Later failures end the process.
pub fn run(config: Config) -> Result<(), RunError> {
    install_panic_hook();
    // A file that grows beyond RLIMIT_FSIZE is an error of that file, no reason to end the process.
    // SAFETY: no handler is set; the signal exists.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let broker = Broker::start(config)?;
    watch_signals(broker.threads.reporter.clone()).map_err(|error| system("watch for signals", error))?;
    let clean = broker.serve(&mut io::stdout());
    let code = if clean { 0 } else { 1 };
    logging::flush(LOG_FLUSH);
    // SAFETY: `_exit` ends the process without tearing executors down that may still have operations in the kernel.
    unsafe { libc::_exit(code) }
}

/// Logs a panic in the same form as everything else; the process aborts behind it.
fn install_panic_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!("panic: {info}");
        logging::flush(LOG_FLUSH);
        default(info);
    }));
}

/// The writing end of the pipe that carries signals out of their handler.
static SIGNALS: AtomicI32 = AtomicI32::new(-1);

/// Does all that a signal handler may: it passes the signal on.
extern "C" fn on_signal(_: libc::c_int) {
    let byte = 0u8;
    // SAFETY: `write` may be called in a signal handler; the descriptor is never closed, and the byte is live. A full
    // pipe holds signals enough. The interrupted code's errno is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(SIGNALS.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Has SIGTERM and SIGINT reported from now on, whichever thread they reach, instead of killing the process.
fn watch_signals(reports: mpsc::Sender<Report>) -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    SIGNALS.store(writer.into_raw_fd(), Ordering::Relaxed);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut byte = [0];
        while reader.read_exact(&mut byte).is_ok() && reports.send(Report::Signal).is_ok() {}
    })?;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler loads an atomic and calls write(2).
        unsafe { signals::handle(signal, on_signal, libc::SA_RESTART) }?;
    }
    Ok(())
}

/// A broker whose threads run.
struct Broker {
    addr: SocketAddr,
    listener: TcpListener,
    threads: Threads,
    reports: mpsc::Receiver<Report>,
    /// Keeps other brokers out of the data directory.
    _data_dir: DataDir,
}

impl Broker {
    /// Checks the environment, recovers what is on the disk and starts the threads.
    fn start(mut config: Config) -> Result<Broker, RunError> {
        let started = Instant::now();
        let mut warnings = probe::check_process()?;
        probe::create_data_dir(&config.data_dir)?;
        let data_dir = DataDir::lock(&config.data_dir, config.broker.broker_id, &config.cluster_id)?;
        config.broker.cluster_id.clone_from(&data_dir.cluster_id);
        config.broker.directory_id = data_dir.directory_id;
        config.broker.incarnation = data_dir.incarnation;
        let log_dir =
            config.data_dir.canonicalize().map_err(|source| probe::data_dir_error(&config.data_dir, source))?;
        config.broker.log_dir = log_dir.display().to_string();
        warnings.extend(probe::check_data_dir(&config.data_dir)?);
        for warning in warnings {
            tracing::warn!("{}", warning.0);
        }

        let listener = listener::bind(config.listen).map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => RunError::AddressInUse { addr: config.listen },
            _ => RunError::Listen { addr: config.listen, cause },
        })?;
        let addr = listener.local_addr().map_err(|cause| RunError::Listen { addr: config.listen, cause })?;
        if config.broker.advertised_port == 0 {
            config.broker.advertised_port = addr.port();
        }
        if config.broker.max_connections == 0 {
            // The other half is for files and for connections between brokers.
            config.broker.max_connections = (probe::open_files_limit() / 2).clamp(16, i32::MAX as u64) as i32;
        }
        let http = config.http.map(listen_for_http).transpose()?;
        let peering = Peering::new(&config.broker, config.shards, config.peer_frame_bytes);
        let peer_listener = config.broker.peer_address.as_ref().map(listen_for_peers).transpose()?;
        let (writes, most) = LATENCY_WRITES;
        let latency = probe::median(probe::write_latencies(&config.data_dir, BLOCK, writes, most)?);
        print_banner(&mut io::stdout(), &config, addr, http.as_ref().map(|(_, addr)| *addr), latency);
        let sources = Arc::new(OnceLock::new());
        if let Some((listener, _)) = http {
            http::start(listener, Arc::clone(&sources))
                .map_err(|error| system("start the threads of the HTTP port", error))?;
        }

        let (reporter, reports) = mpsc::channel();
        let (threads, inboxes) = Threads::new(config.shards, reporter);
        let mends = Members::of(&config.broker.first_voters()).can_do_without(config.broker.broker_id);
        let (logs, damage, disk) = threads.start_disk(&config.data_dir, inboxes.disk, mends)?;
        let logs = distribute(logs, config.shards);
        let mut shards = Vec::new();
        for (n, logs) in logs.into_iter().enumerate() {
            let seed = random_bytes().map(u64::from_ne_bytes).map_err(|error| system("get random bytes", error))?;
            shards.push(Shard::new(
                ShardId(n as u16),
                config.shards,
                config.broker.clone(),
                logs,
                damage.clone(),
                seed,
            )?);
        }
        let metrics: Vec<_> = shards.iter().map(Shard::metrics).collect();
        let frames =
            threads.start_shards(&config, &listener, peering.clone().zip(peer_listener), shards, inboxes.shards)?;
        // Nobody else fills it.
        let _ = sources.set(threads.sources(metrics, disk, frames, peering, config.memory_bytes));
        let startup_ms = started.elapsed().as_millis() as u64;
        tracing::info!(cluster_id = %data_dir.cluster_id, %addr, startup_ms, "broker started");
        Ok(Broker { addr, listener, threads, reports, _data_dir: data_dir })
    }

    /// Says when clients can connect, and returns when the broker has stopped: true if nothing was left in flight.
    fn serve(&self, out: &mut impl Write) -> bool {
        let mut ready = 0;
        loop {
            match self.reports.recv().expect("this broker holds a sender itself") {
                Report::Ready => {
                    ready += 1;
                    if ready == self.threads.shards.len() {
                        self.threads.ready.store(true, Ordering::Relaxed);
                        // A closed standard output is no reason not to serve.
                        let _ = writeln!(out, "ready {}", self.addr).and_then(|()| out.flush());
                        tracing::info!(addr = %self.addr, "ready");
                    }
                }
                Report::Signal => break,
                Report::Left | Report::Drained | Report::DiskDrained => unreachable!("nobody was told to stop"),
            }
        }
        tracing::info!("stopping");
        self.stop()
    }

    /// Hands over what this broker leads, stops accepting and waits for what is in flight: false if that took too long, or
    /// longer than a second signal.
    fn stop(&self) -> bool {
        let shards = self.threads.shards.len();
        self.threads.leave.store(true, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_millis(LEAVE_MS);
        let stopped = match self.wait_for(|report| matches!(report, Report::Left), shards, until) {
            Err(Cut::Signal) => Err(Cut::Signal),
            left => {
                if left.is_err() {
                    tracing::warn!("not all that this broker leads was taken over in {LEAVE_MS} ms");
                }
                self.drain(shards)
            }
        };
        match stopped {
            Ok(()) => tracing::info!("stopped"),
            Err(Cut::Signal) => tracing::warn!("stopped at once by a second signal"),
            Err(Cut::Late) => tracing::warn!("stopped with work in flight after {STOP_MS} ms"),
        }
        stopped.is_ok()
    }

    fn drain(&self, shards: usize) -> Result<(), Cut> {
        self.threads.stop.store(true, Ordering::Relaxed);
        listener::shut_down(&self.listener);
        let until = Instant::now() + Duration::from_millis(STOP_MS);
        self.wait_for(|report| matches!(report, Report::Drained), shards, until)?;
        self.threads.disk.send(ToDisk::Stop);
        self.wait_for(|report| matches!(report, Report::DiskDrained), 1, until)
    }

    /// Waits for so many reports of a kind.
    fn wait_for(&self, kind: fn(&Report) -> bool, count: usize, until: Instant) -> Result<(), Cut> {
        let mut missing = count;
        while missing > 0 {
            match self.reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(report) if kind(&report) => missing -= 1,
                Ok(Report::Signal) => return Err(Cut::Signal),
                // Of those that came late, and of a start that had not ended.
                Ok(Report::Ready | Report::Left | Report::Drained | Report::DiskDrained) => {}
                Err(_) => return Err(Cut::Late),
            }
        }
        Ok(())
    }
}

/// Why a broker did not stop as it should.
enum Cut {
    /// A second signal.
    Signal,
    /// It took too long.
    Late,
}

/// The socket that other brokers connect to, at this broker's own address.
fn listen_for_peers(own: &PeerAddress) -> Result<TcpListener, RunError> {
    let failed = |error: io::Error| {
        let (host, port, detail) = (own.host.clone(), own.port, error.to_string());
        RunError::PeerListen { host, port, detail }
    };
    let mut last = io::Error::other("it has no address");
    for addr in (own.host.as_str(), own.port).to_socket_addrs().map_err(failed)? {
        match listener::bind(addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// The socket of the HTTP port, and its address.
fn listen_for_http(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => RunError::HttpInUse { addr },
        _ => RunError::HttpListen { addr, source },
    };
    let listener = listener::bind(addr).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// Says what the broker runs on, for people.
fn print_banner(
    out: &mut impl Write,
    config: &Config,
    addr: SocketAddr,
    http: Option<SocketAddr>,
    latency: Option<Duration>,
) {
    let disk = match latency {
        Some(latency) => format!("a 4 KiB write is durable in {:.0} us (median)", latency.as_secs_f64() * 1e6),
        None => "full: produces are refused until there is room".to_owned(),
    };
    let console = http.map_or("off; --http 127.0.0.1:9644 turns it on".to_owned(), |addr| format!("http://{addr}/"));
    let data_dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let lines = format!(
        "ringlog {}\n  listening on   {addr}, advertised as {}:{}\n  data directory {}\n  shards         {}, one a core\n  \
         disk           {disk}\n  console        {console}\n",
        env!("CARGO_PKG_VERSION"),
        config.broker.advertised_host,
        config.broker.advertised_port,
        data_dir.display(),
        config.shards,
    );
    // A closed standard output is no reason not to serve.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}

/// What all threads of a broker are given.
pub(super) struct Threads {
    clock: Clock,
    disk_pulse: Pulse,
    leave: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Set once all shards serve clients.
    ready: Arc<AtomicBool>,
    /// Show that the shards' executors turn.
    pulses: Vec<Pulse>,
    reporter: mpsc::Sender<Report>,
    shards: Vec<Sender<Incoming>>,
    /// The disk's mailbox.
    pub(super) disk: Sender<ToDisk>,
}

/// The receiving ends of the threads' mailboxes.
pub(super) struct Inboxes {
    /// The shards'.
    pub(super) shards: Vec<Receiver<Incoming>>,
    /// The disk's.
    pub(super) disk: Receiver<ToDisk>,
}

impl Threads {
    /// Mailboxes for `shards` shards and a disk.
    pub(super) fn new(shards: u16, reporter: mpsc::Sender<Report>) -> (Threads, Inboxes) {
        let count = shards;
        let (shards, shard_inboxes) = (0..shards).map(|_| mailbox()).unzip();
        let (disk, disk_inbox) = mailbox();
        let clock = Clock::start();
        let threads = Threads {
            clock,
            disk_pulse: Pulse::default(),
            leave: Arc::default(),
            stop: Arc::default(),
            ready: Arc::default(),
            pulses: (0..count).map(|_| Pulse::default()).collect(),
            reporter,
            shards,
            disk,
        };
        (threads, Inboxes { shards: shard_inboxes, disk: disk_inbox })
    }

    /// What the HTTP port shows.
    fn sources(
        &self,
        metrics: Vec<Arc<ShardMetrics>>,
        disk: DiskMetrics,
        frames: Arc<FrameBudget>,
        peering: Option<Arc<Peering>>,
        memory_bytes: u64,
    ) -> Sources {
        let shards = metrics.into_iter().zip(&self.pulses).zip(&self.shards);
        let shards = shards.map(|((metrics, pulse), mailbox)| ShardSource {
            metrics,
            pulse: pulse.clone(),
            mailbox: mailbox.clone(),
        });
        Sources {
            clock: self.clock,
            shards: shards.collect(),
            disk,
            disk_mailbox: self.disk.clone(),
            disk_pulse: self.disk_pulse.clone(),
            frames,
            peering,
            memory_bytes,
            ready: Arc::clone(&self.ready),
            stop: Arc::clone(&self.stop),
            pace: Pace::new(),
        }
    }

    /// Recovers what is on the disk and starts the disk's thread. Returns the logs that were found, what is wrong with the
    /// partitions' WAL, and what the disk's machine counts. `mends` says whether other brokers may make up for damage; else
    /// it is an error.
    pub(super) fn start_disk(
        &self,
        data_dir: &Path,
        inbox: Receiver<ToDisk>,
        mends: bool,
    ) -> Result<(Vec<RecoveredLog>, Option<String>, DiskMetrics), RunError> {
        let files = Files::open_dir(data_dir).map_err(|error| system("make the data directory's folders", error))?;
        let disk_config = DiskConfig::default();
        let started = Instant::now();
        let recovered = recover(&RecoveryDevice::new(files.clone()), &disk_config)?;
        let ms = started.elapsed().as_millis() as u64;
        tracing::info!(ms, logs = recovered.logs.len(), report = ?recovered.report, "recovered");
        let damage = recovered.damage.as_ref().map(ToString::to_string);
        if let Some(damage) = recovered.damage {
            if !mends {
                return Err(damage.into());
            }
            tracing::error!(%damage, "the replicas of this broker are repaired by the other brokers");
        }
        let machine = Disk::new(disk_config, recovered.disk, WriteBuffers::new(), self.shards.len() as u16);
        let metrics = machine.metrics();
        let setup = DiskSetup {
            clock: self.clock,
            pulse: self.disk_pulse.clone(),
            machine,
            files,
            keep_open: (probe::open_files_limit() / 4).clamp(16, 4096) as usize,
            mailbox: (self.disk.clone(), inbox),
            shards: self.shards.clone(),
            reports: self.reporter.clone(),
        };
        spawn("disk".to_owned(), |started| match DiskThread::new(setup) {
            Err(error) => started(Err(error.to_string())),
            Ok(thread) => {
                started(Ok(()));
                if let Err(error) = thread.run() {
                    super::fatal(&format!("the disk's ring failed: {error}"));
                }
            }
        })?;
        Ok((recovered.logs, damage, metrics))
    }

    /// Starts an executor for each of `cores`, the shards' logic in the order of their numbers. `peers` is there where
    /// there are other brokers: what the shards need for talking to them, and the socket that they connect to. Returns the
    /// memory of request frames.
    fn start_shards<C: Core + Send>(
        &self,
        config: &Config,
        listener: &TcpListener,
        peers: Option<(Arc<Peering>, TcpListener)>,
        cores: Vec<C>,
        inboxes: Vec<Receiver<Incoming>>,
    ) -> Result<Arc<FrameBudget>, RunError> {
        let budget = FrameBudget::new(config.frame_bytes);
        let (most, most_per_address) = (config.broker.max_connections, config.broker.max_connections_per_ip);
        let admission = Admission::new(cores.len(), most as usize, most_per_address as usize);
        let (peering, mut peer_listener) = peers.unzip();
        let lookups = peering.as_ref().map_or(0, |peering| peering.lookups());
        let cpus = allowed_cpus().map_err(|error| system("read which cores this process may use", error))?;
        let mut sleepers = Vec::new();
        for (n, (core, inbox)) in cores.into_iter().zip(inboxes).enumerate() {
            let sleeper = Arc::new(Sleeper::new());
            sleepers.push(Arc::downgrade(&sleeper));
            let setup = ShardSetup {
                id: ShardId(n as u16),
                core,
                pulse: self.pulses[n].clone(),
                timer: Timer::new().map_err(|error| system("make a timer", error))?,
                sleeper,
                clock: self.clock,
                listener: listener.try_clone().map_err(|error| system("share the listening socket", error))?,
                admission: Arc::clone(&admission),
                idle_ms: config.connections_max_idle_ms,
                inbox,
                shards: self.shards.clone(),
                disk: self.disk.clone(),
                disk_pulse: self.disk_pulse.clone(),
                budget: Arc::clone(&budget),
                max_request_bytes: config.max_request_bytes,
                peering: peering.clone(),
                peer_listener: peer_listener.take(),
                leave: Arc::clone(&self.leave),
                stop: Arc::clone(&self.stop),
                reports: self.reporter.clone(),
            };
            let executor = LocalExecutorBuilder::new(Placement::Fixed(cpus[n % cpus.len()]))
                .io_memory(EXECUTOR_IO_MEMORY)
                .blocking_thread_pool_placement(PoolPlacement::Unbound(lookups.max(1)))
                .preempt_timer(PREEMPT);
            spawn(format!("shard-{n}"), |started| match executor.make() {
                Err(error) => started(Err(error.to_string())),
                Ok(executor) => {
                    started(Ok(()));
                    executor.run(driver::run(setup));
                }
            })?;
        }
        rouse::watch(self.clock, sleepers).map_err(|error| system("rouse shards that sleep too long", error))?;
        Ok(budget)
    }
}

/// Starts a thread and waits until it says that it has what it needs, or why not.
fn spawn(name: String, body: impl FnOnce(&dyn Fn(Result<(), String>)) + Send + 'static) -> Result<(), RunError> {
    let (sender, outcome) = mpsc::channel();
    thread::Builder::new()
        .name(name)
        // The sender's other end waits below, so that sending cannot fail.
        .spawn(move || body(&|result| drop(sender.send(result))))
        .map_err(|error| system("start a thread", error))?;
    let outcome = outcome.recv().map_err(|error| system("start a thread", error))?;
    outcome.map_err(|detail| system("set up a thread's io_uring", detail))
}

/// Each shard's share of the recovered logs.
fn distribute(recovered: Vec<RecoveredLog>, shards: u16) -> Vec<Vec<RecoveredLog>> {
    let mut shares: Vec<Vec<RecoveredLog>> = (0..shards).map(|_| Vec::new()).collect();
    for log in recovered {
        shares[usize::from(log.log.shard(shards).0)].push(log);
    }
    shares
}

/// The cores that this process may run on; at least one.
fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a CPU set is plain data, and the pointer is to a live one of the size given.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Err(io::Error::last_os_error());
        }
        set
    };
    // SAFETY: every number below CPU_SETSIZE is inside the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

#[cfg(test)]
mod peer_tests;
#[cfg(test)]
mod tests;
