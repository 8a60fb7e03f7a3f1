//! What no client should send: the sender gets an error or loses its connection, nobody else notices.

use std::net::Shutdown;
use std::time::Duration;

use bytes::BufMut;
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

use crate::common::process::{Launch, data_dir, external, shared};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, fetch_request, produce_request};
use crate::common::{fresh, noise, skipped, wait_until};

/// A request header (version 1) and a body, with the length in front.
fn frame(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_i32(0);
    bytes.put_i16(api);
    bytes.put_i16(version);
    bytes.put_i32(5);
    bytes.put_i16(1);
    bytes.put_u8(b'c');
    bytes.put_slice(body);
    let length = bytes.len() as i32 - 4;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Sends `bytes` on a connection of its own, expects it to be closed without an answer, and checks that another
/// connection, which was there before, works on.
fn is_refused(bytes: &[u8]) {
    let broker = shared();
    let mut bystander = Wire::connect(broker.address());
    bystander.call(0, &ApiVersionsRequest::default());
    let mut wire = Wire::connect(broker.address());
    // The broker may close as soon as it has seen enough.
    let _ = wire.try_send_bytes(bytes);
    assert!(wire.is_closed_within(Duration::from_secs(10)), "the connection is closed");
    bystander.call(0, &ApiVersionsRequest::default());
}

#[test]
fn a_negative_length_closes_the_connection() {
    is_refused(&(-1i32).to_be_bytes());
    is_refused(&i32::MIN.to_be_bytes());
}

#[test]
fn a_length_of_2_gib_closes_the_connection() {
    is_refused(&i32::MAX.to_be_bytes());
}

#[test]
fn a_length_over_the_largest_request_closes_the_connection() {
    is_refused(&(100 * 1024 * 1024 + 1i32).to_be_bytes());
}

#[test]
fn an_empty_frame_and_a_header_cut_short_close_the_connection() {
    is_refused(&0i32.to_be_bytes());
    is_refused(&[0, 0, 0, 3, 0, 18, 0]);
    is_refused(&[0, 0, 0, 9, 0, 18, 0, 0, 0, 0, 0, 1, 0x7f]);
}

#[test]
fn a_client_id_longer_than_its_frame_closes_the_connection() {
    is_refused(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff]);
}

#[test]
fn noise_closes_the_connection() {
    for seed in 0..20 {
        // A length that fits, so that it is the content which is looked at; an API number that does not exist.
        let mut bytes = frame(0x7000 + seed as i16, 0, &noise(seed, 200));
        is_refused(&bytes);
        let content = noise(seed, bytes.len() - 4);
        bytes[4..].copy_from_slice(&content);
        bytes[4] = 0x60;
        is_refused(&bytes);
    }
}

#[test]
fn a_text_protocol_closes_the_connection() {
    is_refused(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // A TLS greeting.
    is_refused(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]);
}

#[test]
fn a_version_that_is_not_advertised_closes_the_connection() {
    // Metadata v99.
    is_refused(&frame(3, 99, &[0, 0, 0, 0]));
}

#[test]
fn an_array_of_2_to_the_31_elements_closes_the_connection() {
    // Metadata v1: its body is an array of topics.
    is_refused(&frame(3, 1, &i32::MAX.to_be_bytes()));
    // Metadata v9 (flexible): tagged fields of the header, then a compact array whose length is a varint.
    is_refused(&frame(3, 9, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]));
    // Produce v3: no transactional id, acks, timeout, topics.
    let mut produce = vec![0xff, 0xff, 0, 1, 0, 0, 0, 100];
    produce.put_i32(i32::MAX);
    is_refused(&frame(0, 3, &produce));
    // Fetch v4: one topic with 2^31 - 1 partitions.
    let mut fetch = Vec::new();
    for number in [-1, 100, 1, 1 << 20] {
        fetch.put_i32(number);
    }
    fetch.put_u8(0);
    fetch.put_i32(1);
    fetch.put_slice(&[0, 1, b't']);
    fetch.put_i32(i32::MAX);
    is_refused(&frame(1, 4, &fetch));
}

#[test]
fn a_body_cut_short_closes_the_connection() {
    let mut wire = Wire::connect(shared().address());
    let whole = wire.encode(9, &produce_request("cut", &[(0, batch(&["value"]))], -1, 1_000));
    for length in [15, 20, 25, 30, 40, 60, whole.len() - 1] {
        let mut cut = whole[..length].to_vec();
        cut[..4].copy_from_slice(&(length as u32 - 4).to_be_bytes());
        is_refused(&cut);
    }
}

#[test]
fn a_frame_that_stops_half_way_harms_nobody() {
    let broker = shared();
    let mut half = Wire::connect(broker.address());
    let name = fresh("half");
    half.create_topic(&name, 1, &[]);
    let whole = half.encode(9, &produce_request(&name, &[(0, batch(&["never"]))], -1, 1_000));
    half.send_bytes(&whole[..whole.len() - 10]);
    let mut other = Wire::connect(broker.address());
    assert_eq!(other.produce(&name, 0, batch(&["other"])).error_code, 0);
    half.stream().shutdown(Shutdown::Both).expect("a shutdown");
    assert_eq!(values(other.fetch(&name, 0, 0).records.expect("records")), ["other"]);
}

#[test]
fn a_client_that_leaves_without_reading_harms_nobody() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let name = fresh("leaver");
    wire.create_topic(&name, 1, &[]);
    for _ in 0..20 {
        assert_eq!(wire.produce(&name, 0, batch(&[noise(7, 500_000)])).error_code, 0);
    }
    for _ in 0..20 {
        let mut leaver = Wire::connect(broker.address());
        for _ in 0..10 {
            leaver.send(12, &fetch_request(&name, &[(0, 0)], 1, 1_000));
        }
        leaver.send(12, &fetch_request(&name, &[(0, 1_000)], 1, 30_000));
    }
    assert_eq!(wire.produce(&name, 0, batch(&["still here"])).error_code, 0);
}

#[test]
fn announced_frames_that_never_come_cost_no_memory() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut bystander = Wire::connect(&broker.address());
    bystander.call(0, &ApiVersionsRequest::default());
    let before = broker.memory("VmRSS");
    let announced: Vec<Wire> = (0..200)
        .map(|_| {
            let mut wire = Wire::connect(&broker.address());
            wire.send_bytes(&(60 * 1024 * 1024u32).to_be_bytes());
            wire.send_bytes(&[0, 0, 0, 9]);
            wire
        })
        .collect();
    // Small requests get through although big ones have asked for more than there is.
    for _ in 0..20 {
        bystander.call(9, &MetadataRequest::default().with_topics(Some(vec![])));
    }
    let grown = broker.memory("VmHWM").saturating_sub(before);
    assert!(grown < 64 << 20, "200 announced frames of 60 MiB made the broker grow by {} MiB", grown >> 20);
    drop(announced);
    let name = fresh("after");
    bystander.create_topic(&name, 1, &[]);
    assert_eq!(bystander.produce(&name, 0, batch(&["works"])).error_code, 0);
}

#[test]
fn clients_that_stop_reading_cost_bounded_memory() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    let name = fresh("deaf");
    wire.create_topic(&name, 1, &[]);
    for _ in 0..10 {
        assert_eq!(wire.produce(&name, 0, batch(&[noise(3, 900_000)])).error_code, 0);
    }
    // 60 connections × 64 fetches × 9 MB: far more than the 512 MiB that the broker was given.
    let deaf: Vec<Wire> = (0..60)
        .map(|_| {
            let mut wire = Wire::connect(&broker.address());
            for _ in 0..64 {
                wire.send(12, &fetch_request(&name, &[(0, 0)], 1, 1_000));
            }
            wire
        })
        .collect();
    for _ in 0..100 {
        assert_eq!(wire.produce(&name, 0, batch(&["small"])).error_code, 0);
    }
    let peak = broker.memory("VmHWM");
    assert!(peak < 700 << 20, "the broker grew to {} MiB with --memory 512MiB", peak >> 20);
    drop(deaf);
    assert_eq!(wire.produce(&name, 0, batch(&["after"])).error_code, 0);
}

/// Whether the broker keeps a new connection, by whether it answers on it.
fn is_let_in(address: &str) -> Option<Wire> {
    let mut wire = Wire::connect(address);
    let request = wire.encode(0, &ApiVersionsRequest::default());
    // A connection that is closed at once takes bytes or not, as it comes.
    let _ = wire.try_send_bytes(&request);
    matches!(wire.try_frame_in(), Ok(Some(_))).then_some(wire)
}

#[test]
fn connections_above_max_connections_are_closed_and_room_comes_back() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).with(&["--max-connections", "3"]).start();
    let address = broker.address();
    let mut inside: Vec<Wire> = (0..3).map(|_| is_let_in(&address).expect("a place")).collect();
    assert!(is_let_in(&address).is_none(), "a fourth connection was let in");
    inside[0].call(0, &ApiVersionsRequest::default());
    inside.pop();
    let again = wait_until(Duration::from_secs(5), || is_let_in(&address).is_some());
    assert!(again, "the place of a closed connection is free again");
}

#[test]
fn one_address_gets_no_more_than_max_connections_per_ip() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).with(&["--max-connections-per-ip", "2"]).start();
    let address = broker.address();
    let inside: Vec<Wire> = (0..2).map(|_| is_let_in(&address).expect("a place")).collect();
    assert!(is_let_in(&address).is_none(), "a third connection was let in");
    // Another address of this machine.
    let other = socket_from("127.0.0.2", &address);
    assert!(answers(other), "another address was kept out");
    drop(inside);
}

/// A connection whose own end has the address `from`.
fn socket_from(from: &str, to: &str) -> std::net::TcpStream {
    use std::os::fd::FromRawFd;
    let from: std::net::Ipv4Addr = from.parse().expect("an address");
    let to: std::net::SocketAddrV4 = to.parse().expect("an address");
    let name = |ip: std::net::Ipv4Addr, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    let (from, to) = (name(from, 0), name(*to.ip(), to.port()));
    let size = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: plain system calls on addresses that live as long as the calls; the descriptor is given to the stream.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert!(socket >= 0, "a socket");
        let stream = std::net::TcpStream::from_raw_fd(socket);
        assert_eq!(libc::bind(socket, (&raw const from).cast(), size), 0, "bind");
        assert_eq!(libc::connect(socket, (&raw const to).cast(), size), 0, "connect");
        stream
    }
}

fn answers(mut stream: std::net::TcpStream) -> bool {
    use std::io::{Read, Write};
    let request = frame(18, 0, &[]);
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a read timeout");
    stream.write_all(&request).is_ok() && stream.read_exact(&mut [0; 4]).is_ok()
}

#[test]
fn idle_connections_are_closed_and_those_that_are_used_are_not() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).with(&["--connections-max-idle-ms", "2000"]).start();
    let mut silent = Wire::connect(&broker.address());
    let mut idle = Wire::connect(&broker.address());
    idle.call(0, &ApiVersionsRequest::default());
    let mut used = Wire::connect(&broker.address());
    for _ in 0..8 {
        used.call(0, &ApiVersionsRequest::default());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(silent.is_closed_within(Duration::from_secs(5)), "a connection without a request");
    assert!(idle.is_closed_within(Duration::from_secs(5)), "a connection that was used once");
    used.call(0, &ApiVersionsRequest::default());
}

#[test]
fn a_request_above_socket_request_max_bytes_closes_the_connection() {
    if external().is_some() {
        return skipped("needs a broker of its own");
    }
    let directory = data_dir();
    let arguments = ["--socket-request-max-bytes", "100000", "--message-max-bytes", "30000"];
    let broker = Launch::new(directory.path()).with(&arguments).start();
    let mut wire = Wire::connect(&broker.address());
    wire.send_bytes(&100_001u32.to_be_bytes());
    assert!(wire.is_closed_within(Duration::from_secs(10)), "the connection is closed");
    assert!(is_let_in(&broker.address()).is_some());
}
