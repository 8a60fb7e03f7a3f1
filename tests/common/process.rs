//! The broker as a process: started, killed, stopped and started again.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Ports for the brokers of tests. They lie below the range from which the kernel picks the ports of outgoing
/// connections: a client that calls a dead broker's port can then never be given that very port and meet itself.
const PORTS: std::ops::Range<u16> = 21_310..21_400;

/// How long a start may take before the test fails. It covers the first laying-out of the log on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Lines of a broker's output that are kept for a failed test's report.
const KEPT_LINES: usize = 400;

/// The address of a broker that is not ours to start or stop, where the tests shall run against one.
pub fn external() -> Option<String> {
    std::env::var("RINGLOG_TEST_BROKERS").ok().filter(|address| !address.is_empty())
}

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct Launch {
    data_dir: PathBuf,
    host: String,
    port: u16,
    shards: u16,
    /// The network namespace to run in, if it is not the tests' own.
    namespace: Option<String>,
    /// Further arguments.
    arguments: Vec<String>,
}

impl Launch {
    /// A broker of two shards on a free port, with its data in `data_dir`.
    pub fn new(data_dir: &Path) -> Launch {
        Launch {
            data_dir: data_dir.to_owned(),
            host: "127.0.0.1".to_owned(),
            port: free_port(),
            shards: 2,
            namespace: None,
            arguments: Vec::new(),
        }
    }

    /// With another number of shards.
    pub fn shards(mut self, shards: u16) -> Launch {
        self.shards = shards;
        self
    }

    /// As one of the brokers of a cluster: its number, and all brokers as `controller.quorum.voters` has them.
    pub fn in_cluster(self, node: u16, voters: &str) -> Launch {
        self.with(&["--node-id", &node.to_string(), "--controller-quorum-voters", voters])
    }

    /// With further arguments.
    pub fn with(mut self, arguments: &[&str]) -> Launch {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// In the network namespace of this name, where it has this address.
    pub fn in_namespace(mut self, name: &str, host: &str) -> Launch {
        self.namespace = Some(name.to_owned());
        self.host = host.to_owned();
        self
    }

    /// With further arguments.
    pub fn arguments(mut self, arguments: Vec<String>) -> Launch {
        self.arguments.extend(arguments);
        self
    }

    /// The command line.
    pub fn command(&self) -> Command {
        // The records of most tests are of the past, and must not be deleted for it.
        let interval = "--log-retention-check-interval-ms";
        let asked = self.arguments.iter().any(|argument| argument == interval);
        let retention = if asked { vec![] } else { vec![interval, "3600000"] };
        let mut command = match &self.namespace {
            None => Command::new(binary()),
            Some(name) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg(binary());
                command
            }
        };
        command
            .arg("server")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &format!("{}:{}", self.host, self.port)])
            .args(["--shards", &self.shards.to_string()])
            .args(["--memory", "512MiB"])
            .args(&self.arguments)
            .args(&retention)
            // Tests start their consumers together and wait for all of them: a first rebalance need not.
            .args(["--group-initial-rebalance-delay-ms", "0"])
            // The broker's own variables must not reach it from whoever runs the tests.
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| !name.starts_with("RINGLOG_")));
        command
    }

    /// Starts it and waits until it is ready. Panics with its output if it does not become so.
    pub fn start(self) -> Broker {
        Broker::start(self)
    }
}

/// The program under test: `RINGLOG_TEST_BINARY`, or the one that cargo built for this test.
pub fn binary() -> PathBuf {
    std::env::var_os("RINGLOG_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_ringlog").into(), PathBuf::from)
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let ports = PORTS.len() as u16;
    let first = (std::process::id() % u32::from(ports)) as u16;
    (0..ports)
        .map(|_| PORTS.start + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ports)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of the tests' ports is free")
}

/// A running broker. Dropped, it is killed; dropped by a failing test, it shows its last output first.
pub struct Broker {
    launch: Launch,
    child: Child,
    output: Output,
}

impl Broker {
    fn start(launch: Launch) -> Broker {
        let output = Output::default();
        let mut command = launch.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command);
        let (ready_sender, ready) = mpsc::channel();
        output.gather(child.stdout.take().expect("stdout is piped"), Some(ready_sender));
        output.gather(child.stderr.take().expect("stderr is piped"), None);
        let mut broker = Broker { launch, child, output };
        let end = Instant::now() + READY_LIMIT;
        loop {
            match ready.recv_timeout(Duration::from_millis(50)) {
                Ok(address) => {
                    assert_eq!(address, broker.address(), "the ready line names the address to listen on");
                    return broker;
                }
                Err(_) => {
                    if let Some(status) = broker.child.try_wait().expect("the child can be waited for") {
                        panic!("the broker ended before it was ready: {status}");
                    }
                    assert!(Instant::now() < end, "the broker was not ready within {READY_LIMIT:?}");
                }
            }
        }
    }

    /// `HOST:PORT`, which stays the same over a restart.
    pub fn address(&self) -> String {
        format!("{}:{}", self.launch.host, self.launch.port)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the process as a power cut would end it, as far as the process goes: nothing more is written.
    pub fn kill(mut self) -> Launch {
        self.child.kill().expect("the broker can be killed");
        let status = self.child.wait().expect("the broker can be waited for");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "the broker ended by itself before it was killed: {status}");
        self.launch.clone()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) takes two integers and touches no memory of ours; the child has not been waited for, so
        // its process id cannot have been given to another process.
        let result = unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        assert_eq!(result, 0, "signal {signal} can be sent");
    }

    /// Waits for the end of the process. Panics when it takes longer than `limit`.
    pub fn wait(mut self, limit: Duration) -> (ExitStatus, Launch) {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the broker can be waited for") {
                return (status, self.launch.clone());
            }
            assert!(Instant::now() < end, "the broker did not end within {limit:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A clean stop: SIGTERM, and an exit status of zero.
    pub fn stop(self) -> Launch {
        self.terminate();
        let (status, launch) = self.wait(Duration::from_secs(15));
        assert!(status.success(), "a clean stop ends with {status}");
        launch
    }

    /// How many lines of what it said last, since this start, have this text in them.
    pub fn said(&self, text: &str) -> usize {
        self.output.count(text)
    }

    /// User and system time of the process so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the broker runs");
        // The second field, the command's name, may hold spaces: count from the parenthesis that closes it.
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a stat line") + 2..].split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        // SAFETY: sysconf(3) takes an integer and returns one.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
        Duration::from_millis(ticks * 1_000 / ticks_per_second)
    }

    /// A figure of `/proc/PID/status` in bytes, such as `VmRSS` or `VmHWM`.
    pub fn memory(&self, figure: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the broker runs");
        let line = status.lines().find(|line| line.starts_with(figure)).expect("the figure is in status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") * 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            self.output.show();
        }
        // Both fail only where the process was waited for before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a process that the kernel kills when this one ends, however it ends: a test binary that aborts, or ends
/// with a broker in a static, leaves none behind. The kernel watches the *thread* that forked, and a test's thread
/// ends with its test, so one thread that lives as long as the process does all the forking.
fn spawn(command: Command) -> Child {
    let (reply, child) = mpsc::channel();
    spawner().lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).expect("the spawner lives");
    child.recv().expect("the spawner answers").expect("the broker's program can be started")
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The thread that forks, which is started by the first call. It stays in the network namespace of that call's thread,
/// and so do the brokers that are given none.
pub fn spawner() -> &'static Mutex<mpsc::Sender<Order>> {
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, reply) in receiver {
                    // SAFETY: prctl(2) with PR_SET_PDEATHSIG is a plain system call, allowed between fork and exec.
                    unsafe {
                        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                            0 => Ok(()),
                            _ => Err(std::io::Error::last_os_error()),
                        });
                    }
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(sender)
    })
}

/// What a broker has printed, shared with the threads that read it.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<VecDeque<String>>>);

impl Output {
    fn gather(&self, from: impl Read + Send + 'static, ready: Option<mpsc::Sender<String>>) {
        let lines = self.0.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if let (Some(ready), Some(address)) = (&ready, line.strip_prefix("ready ")) {
                    let _ = ready.send(address.trim().to_owned());
                }
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        });
    }

    fn count(&self, text: &str) -> usize {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).count()
    }

    fn show(&self) {
        eprintln!("---- the broker's last output ----");
        for line in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            eprintln!("{line}");
        }
        eprintln!("----------------------------------");
    }
}

/// An empty directory on the disk that cargo builds on, gone with the value.
pub fn data_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("data-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made")
}

/// The broker that tests share which do not stop or break it.
pub struct Shared {
    address: String,
    output: Option<Output>,
}

impl Shared {
    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let (true, Some(output)) = (thread::panicking(), &self.output) {
            output.show();
        }
    }
}

/// The shared broker, started by the first who asks; [`external`] where that is set. A test that made it end fails
/// on its own account: the next one gets a new broker.
pub fn shared() -> Shared {
    if let Some(address) = external() {
        return Shared { address, output: None };
    }
    static SHARED: Mutex<Option<Broker>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if !shared.as_mut().is_some_and(Broker::is_alive) {
        *shared = None;
        // A static is never dropped, so its directory is emptied by the next run, not at the end of this one.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shared");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a directory can be made");
        *shared = Some(Launch::new(&directory).start());
    }
    let broker = shared.as_ref().expect("it was started above");
    Shared { address: broker.address(), output: Some(broker.output.clone()) }
}
