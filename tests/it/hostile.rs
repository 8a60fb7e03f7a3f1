//! Floods of damaged requests and of connections, while a client that behaves is watched.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};

use crate::common::process::{Broker, Launch, data_dir, external};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, fetch_request};
use crate::common::{noise, skipped};
use crate::versions::{Topic, advertised, request};

/// Damaged frames that are sent; `RINGLOG_HOSTILE_FRAMES` says another number.
const FRAMES: u64 = 20_000;

/// Senders at the same time.
const SENDERS: u64 = 4;

/// Longest time that the client which behaves may wait for one answer. It waits for the flood's share of the cores too.
const PATIENCE: Duration = Duration::from_secs(3);

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

/// A frame of every API and version that the broker answers.
fn sound_frames(wire: &mut Wire, topic: &Topic) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (key, (min, max)) in advertised(wire) {
        let Ok(api) = ApiKey::try_from(key) else { continue };
        for version in min..=max {
            if api == ApiKey::Produce && version < 3 {
                continue;
            }
            if let Some(sound) = request(api, version, topic, "spare") {
                frames.push(wire.encode_kind(api, version, &sound).to_vec());
            }
        }
    }
    assert!(frames.len() > 80, "only {} kinds of requests", frames.len());
    frames
}

/// Damages a frame. Mostly its length stays true, so that it is the content which is looked at.
fn damage(frame: &mut Vec<u8>, dice: &mut Dice) {
    const NUMBERS: [u32; 8] = [0, 1, 0x7F, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x0100_0000];
    for _ in 0..=dice.roll(4) {
        let at = 4 + dice.roll(frame.len() - 4);
        match dice.roll(6) {
            0 => frame[at] ^= 1 << dice.roll(8),
            1 => frame[at] = dice.roll(256) as u8,
            2 => {
                let number = NUMBERS[dice.roll(NUMBERS.len())].to_be_bytes();
                let end = frame.len().min(at + 4);
                frame[at..end].copy_from_slice(&number[..end - at]);
            }
            3 => frame.truncate(at.max(5)),
            4 => {
                let extra = noise(dice.0, 1 + dice.roll(40));
                frame.splice(at..at, extra);
            }
            _ => {
                let piece = frame[at..].to_vec();
                frame.extend_from_slice(&piece);
            }
        }
    }
    let length = match dice.roll(20) {
        0 => NUMBERS[dice.roll(NUMBERS.len())],
        1 => dice.roll(200_000_000) as u32,
        _ => frame.len() as u32 - 4,
    };
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

/// Sends damaged frames, several on a connection, and leaves in the middle of one, or without reading, as it comes.
fn attack(address: &str, frames: &[Vec<u8>], count: u64, seed: u64) {
    let mut dice = Dice(seed);
    let mut sent = 0;
    while sent < count {
        let mut wire = Wire::connect(address);
        wire.stream().set_read_timeout(Some(Duration::from_millis(5))).expect("a read timeout");
        for _ in 0..=dice.roll(8) {
            let mut frame = frames[dice.roll(frames.len())].clone();
            damage(&mut frame, &mut dice);
            if dice.roll(10) == 0 {
                frame.truncate(dice.roll(frame.len()));
            }
            sent += 1;
            // The broker closes the connection when it has seen enough.
            if wire.try_send_bytes(&frame).is_err() {
                break;
            }
            if dice.roll(4) == 0 {
                let _ = wire.try_frame_in();
            }
        }
    }
}

/// Produces and reads back until it is told to stop; returns how long each took.
fn behave(address: &str, stop: &AtomicBool) -> Vec<Duration> {
    let mut wire = Wire::connect(address);
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let value = took.len().to_string();
        let began = Instant::now();
        let answer = wire.produce("behaved", 0, batch(&[&value]));
        assert_eq!((answer.error_code, answer.base_offset), (0, took.len() as i64));
        let read = wire.fetch("behaved", 0, answer.base_offset).records.expect("records");
        assert_eq!(values(read).last(), Some(&value));
        took.push(began.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    took
}

/// Runs `flood` while a client that behaves works with the same broker, and checks that this one did not suffer.
fn watched(name: &str, broker: &mut Broker, flood: impl FnOnce(&str)) {
    let address = broker.address();
    Wire::connect(&address).create_topic("behaved", 1, &[]);
    let stop = AtomicBool::new(false);
    let mut took = thread::scope(|scope| {
        let good = scope.spawn(|| behave(&address, &stop));
        flood(&address);
        stop.store(true, Ordering::Relaxed);
        good.join().expect("the client that behaves is served")
    });
    assert!(broker.is_alive(), "the broker ended");
    took.sort();
    let (middle, most) = (took[took.len() / 2], took[took.len() - 1]);
    let peak = broker.memory("VmHWM") >> 20;
    println!(
        "{name}: {} rounds of a good client, median {middle:?}, most {most:?}; peak memory {peak} MiB",
        took.len()
    );
    assert!(most < PATIENCE, "the client that behaves waited {most:?}");
    assert!(peak < 800, "the broker grew to {peak} MiB with --memory 512MiB");
}

#[test]
fn damaged_requests_of_every_kind_harm_nobody() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let count = std::env::var("RINGLOG_HOSTILE_FRAMES").ok().map_or(FRAMES, |count| count.parse().expect("a number"));
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.await_coordinator("attacked");
    let id = wire.create_topic("attacked", 1, &[]);
    let frames = sound_frames(&mut wire, &Topic { name: "attacked".to_owned(), id });
    watched("damaged requests", &mut broker, |address| {
        thread::scope(|scope| {
            for seed in 0..SENDERS {
                let frames = &frames;
                scope.spawn(move || attack(address, frames, count / SENDERS, seed + 1));
            }
        });
    });
    // It still stops in good order.
    broker.stop();
}

#[test]
fn floods_of_connections_and_clients_that_do_not_read_harm_nobody() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).with(&["--max-connections", "300"]).start();
    watched("floods of connections", &mut broker, |address| {
        let mut wire = Wire::connect(address);
        wire.create_topic("large", 1, &[]);
        for _ in 0..8 {
            assert_eq!(wire.produce("large", 0, batch(&[noise(3, 900_000)])).error_code, 0);
        }
        for round in 0..10u32 {
            // More than may be open, most of them silent; some that announce much, some that ask and never read.
            let flood: Vec<Wire> = (0..400)
                .map(|n| {
                    let mut wire = Wire::connect(address);
                    let _ = match (n + round) % 4 {
                        0 => wire.try_send_bytes(&[0, 0]),
                        1 => wire.try_send_bytes(&(30_000_000 + n).to_be_bytes()),
                        2 => {
                            let fetch = wire.encode(12, &fetch_request("large", &[(0, 0)], 1, 100));
                            (0..8).try_for_each(|_| wire.try_send_bytes(&fetch))
                        }
                        _ => Ok(()),
                    };
                    wire
                })
                .collect();
            thread::sleep(Duration::from_millis(100));
            drop(flood);
        }
    });
}

#[test]
fn thousands_of_idle_connections_cost_little() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    const CONNECTIONS: u64 = 5_000;
    let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write a live struct of ours.
    let raised = unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files), 0, "getrlimit");
        files.rlim_cur = files.rlim_max.min(20_000);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files)
    };
    if raised != 0 || files.rlim_cur < 2 * CONNECTIONS {
        return skipped("too few files may be open");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).with(&["--max-connections", "6000"]).start();
    let mut first = Wire::connect(&broker.address());
    first.call(0, &ApiVersionsRequest::default());
    let before = broker.memory("VmRSS");
    let mut idle: Vec<Wire> = (0..CONNECTIONS).map(|_| Wire::connect(&broker.address())).collect();
    for wire in &mut idle {
        wire.call(0, &ApiVersionsRequest::default());
    }
    let grown = broker.memory("VmRSS").saturating_sub(before);
    println!("{CONNECTIONS} idle connections: {} KiB, {} bytes each", grown >> 10, grown / CONNECTIONS);
    assert!(grown <= 100 << 20, "{CONNECTIONS} idle connections take {} MiB", grown >> 20);
}
