//! Where the broker cannot run it says why and what helps, and ends; and `ringlog doctor` says so beforehand.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use kafka_protocol::ResponseError;

use crate::common::process::{Launch, binary, data_dir};
use crate::common::records::batch;
use crate::common::wire::{Wire, code};

/// Makes io_uring_setup(2) fail with EPERM for the command, as Docker's default seccomp profile does.
fn without_io_uring(command: &mut Command) {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
    }
    const FILTER: [libc::sock_filter; 4] = [
        // The number of the system call is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let install = || {
        let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
        // SAFETY: prctl(2) is a plain system call, allowed between fork and exec; the kernel copies the filter, which
        // is constant, before the call returns.
        let result = unsafe {
            match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
                0 => libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
                failed => failed,
            }
        };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(install) };
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn without_io_uring_there_is_one_clear_message() {
    let directory = data_dir();
    let mut command = Launch::new(directory.path()).command();
    without_io_uring(&mut command);
    let output = command.output().expect("it runs");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("io_uring") && text.contains("seccomp"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains("ready"), "{text}");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let directory = data_dir();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").expect("a file");
    let output = Launch::new(&file).command().output().expect("it runs");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&*file.to_string_lossy()), "the message names the path: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// What the broker says where it must not have more of a resource.
fn refusal_with(resource: libc::__rlimit_resource_t, limit: u64) -> String {
    let directory = data_dir();
    let mut command = Launch::new(directory.path()).command();
    let set = move || {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: setrlimit(2) is a plain system call, allowed between fork and exec, and reads a live struct.
        let result = unsafe { libc::setrlimit(resource, &raw const limit) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes a system call only and allocates nothing.
    unsafe { command.pre_exec(set) };
    let output = command.output().expect("it runs");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn too_little_lockable_memory_and_too_few_files_are_one_clear_message() {
    let memory = refusal_with(libc::RLIMIT_MEMLOCK, 64 << 10);
    assert!(memory.contains("65536 bytes") && memory.contains("LimitMEMLOCK"), "{memory}");
    let files = refusal_with(libc::RLIMIT_NOFILE, 64);
    assert!(files.contains("only 64 files") && files.contains("LimitNOFILE"), "{files}");
}

#[test]
fn a_file_that_may_not_grow_is_a_storage_error_and_no_end() {
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("grows", 1, &[]);
    let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
    let pid = broker.pid() as libc::pid_t;
    // SAFETY: a plain system call that reads a live struct; the old limit is not asked for.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(result, 0, "the limit of one's own child may be lowered");
    let value = "x".repeat(32 << 10);
    // What was on its way when the write failed may be in the log or not: its time is up first.
    let mut codes = (0..20).map(|_| wire.produce("grows", 0, batch(&[&value])).error_code);
    assert!(codes.any(|found| found == code(ResponseError::KafkaStorageError)));
    assert!(broker.is_alive());
    assert_eq!(wire.metadata("grows").topics[0].error_code, 0);
}

#[test]
fn a_refusal_names_what_the_kernel_said_once() {
    let output = Launch::new("/proc/self/ringlog".as_ref()).command().output().expect("it runs");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("os error").count(), 1, "{text}");
}

#[test]
fn the_health_check_tells_a_broker_that_answers() {
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let check = |address: &str| {
        let output = Command::new(binary()).args(["health", "--listen", address]).output().expect("it runs");
        (output.status.code(), text(&output))
    };
    let address = broker.address();
    let (code, said) = check(&address);
    assert_eq!(code, Some(0), "{said}");
    broker.stop();
    let (code, said) = check(&address);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
}

#[test]
fn an_unknown_flag_and_an_unknown_key_are_refused_with_the_nearest_name() {
    let directory = data_dir();
    let file = directory.path().join("ringlog.toml");
    std::fs::write(&file, "\"num.partition\" = 3\n").expect("a file");
    let output = Command::new(binary()).args(["server", "--config"]).arg(&file).output().expect("it runs");
    assert!(!output.status.success());
    assert!(text(&output).contains("num.partitions"), "{}", text(&output));
    let output = Command::new(binary()).args(["server", "--shard", "1"]).output().expect("it runs");
    assert!(!output.status.success());
    assert!(text(&output).contains("--shards"), "{}", text(&output));
}

#[test]
fn the_doctor_finds_this_machine_fit() {
    let directory = data_dir();
    let mut command = Command::new(binary());
    command.args(["doctor", "--format", "json", "--data-dir"]).arg(directory.path());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report.is_object(), "{report}");
}

#[test]
fn the_doctor_finds_a_machine_without_io_uring_unfit() {
    let directory = data_dir();
    let mut command = Command::new(binary());
    command.args(["doctor", "--data-dir"]).arg(directory.path());
    without_io_uring(&mut command);
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("io_uring"), "{}", text(&output));
}
