//! Tests of the running broker: raw protocol, real clients, crashes and a frozen disk.
//!
//! They run against the binary that cargo has built. Where `RINGLOG_TEST_BROKERS` names a broker (`HOST:PORT`), those
//! that need no hand on the process run against that one instead: this is how the tests themselves are checked,
//! against Apache Kafka. Tests that need a program from outside are ignored unless asked for; `scripts/test.sh`
//! brings the programs and asks.

// Only built with librdkafka: it is what most of these tests speak through.
#![cfg(feature = "bench")]

mod admin;
mod admin_samples;
mod alter;
mod bad_input;
mod chaos;
mod clients;
mod cluster;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod console;
mod consumer_groups;
mod crash;
mod damage;
mod describe;
mod environment;
mod fetch;
mod freeze;
mod full_disk;
mod group_clients;
mod group_moves;
mod groups;
mod hostile;
mod http;
mod inspect;
mod java;
mod kcat;
mod librdkafka;
mod nodes;
mod pipes;
mod produce;
mod quotas;
mod replicas;
mod retention;
mod versions;
