//! The broker as it is seen from outside: `/metrics` for Prometheus, `/health` for whoever restarts it, `/v1` as JSON,
//! and a page for people.
//!
//! What was counted is read from where the shards and the disk count it, without asking them: a disk that hangs, or a
//! shard that is stuck, holds up neither `/metrics` nor `/health`. What only a shard knows is asked of it by message,
//! with a deadline; it answers between two events, from memory.

mod exposition;
mod gather;
mod json;
mod pace;
mod process;
mod records;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;

use super::Incoming;
use super::clock::{Clock, Pulse};
use super::disk::ToDisk;
use super::frames::FrameBudget;
use super::mailbox::Sender;
use super::peers::Peering;
use crate::limits::{EXECUTOR_SILENT_MS, LOOK_BYTES, LOOK_FOR_METRICS_MS, LOOK_ITEMS, LOOK_MS, LOOK_RECORDS, TICK_MS};
use crate::metrics::{DiskMetrics, ShardMetrics};
use crate::shard::view::{CommittedView, Counts, CreationsSeen, GroupPage, GroupView, Look, RecordsSeen, Seen};
use crate::types::ShardId;
use gather::Asked;
pub(super) use pace::Pace;
use server::{Request, Response};

/// The page.
const CONSOLE: &str = include_str!("console.html");

/// What the answers are made of.
pub(super) struct Sources {
    /// The clock of all threads.
    pub(super) clock: Clock,
    /// The shards, by their numbers.
    pub(super) shards: Vec<ShardSource>,
    /// What the disk's machine counts.
    pub(super) disk: DiskMetrics,
    /// The disk's mailbox, for its length.
    pub(super) disk_mailbox: Sender<ToDisk>,
    /// Shows whether the disk's thread is at work.
    pub(super) disk_pulse: Pulse,
    /// The memory of request frames.
    pub(super) frames: Arc<FrameBudget>,
    /// The other brokers, if there are any.
    pub(super) peering: Option<Arc<Peering>>,
    /// `memory`, in bytes.
    pub(super) memory_bytes: u64,
    /// Set once all shards serve clients.
    pub(super) ready: Arc<AtomicBool>,
    /// Set when the broker is to stop.
    pub(super) stop: Arc<AtomicBool>,
    /// Keeps those who look from taking the shards' time.
    pub(super) pace: Pace,
}

/// One shard.
pub(super) struct ShardSource {
    /// What it counts.
    pub(super) metrics: Arc<ShardMetrics>,
    /// Shows whether its executor turns.
    pub(super) pulse: Pulse,
    /// Its mailbox.
    pub(super) mailbox: Sender<Incoming>,
}

/// Not all shards answered a look in time.
struct Late;

/// Serves `listener` from now on. Until `sources` are there the broker is starting: alive, and not ready.
pub(super) fn start(listener: TcpListener, sources: Arc<OnceLock<Sources>>) -> io::Result<()> {
    server::start(listener, move |request| answer(sources.get(), request))
}

fn answer(sources: Option<&Sources>, request: &Request) -> Response {
    match (&*request.path, sources) {
        ("/", _) => Response { status: 200, content_type: "text/html; charset=utf-8", body: CONSOLE.into() },
        ("/health/live", None) => text(200, "alive: starting"),
        ("/health/live", Some(sources)) => sources.live(),
        ("/health/ready", None) => text(503, "not ready: starting"),
        ("/health/ready", Some(sources)) => sources.ready(),
        (_, None) => error(503, "the broker is starting"),
        ("/metrics", Some(sources)) => sources.metrics(),
        (path, Some(sources)) => match path.strip_prefix("/v1/") {
            Some(path) => {
                sources.v1(path, &request.query).unwrap_or_else(|Late| error(503, "a shard did not answer in time"))
            }
            None => error(404, "there is nothing under this path; see /v1/cluster, /metrics, /health/ready and /"),
        },
    }
}

fn text(status: u16, text: &str) -> Response {
    Response { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n").into() }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => Response { status: 200, content_type: "application/json", body },
        Err(failure) => error(500, &failure.to_string()),
    }
}

fn error(status: u16, what: &str) -> Response {
    Response { status, ..json(&json!({ "error": what })) }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The value of a parameter of a query, if it is there.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    // A form writes a blank as a plus sign.
    pairs.find(|(key, _)| *key == name).map(|(_, value)| decoded(&value.replace('+', "%20")))
}

/// A number of a query, or what it is where it is not there; none where it is no number.
fn number(query: &str, name: &str, default: i64) -> Option<i64> {
    parameter(query, name).map_or(Some(default), |text| text.parse().ok())
}

impl Sources {
    /// The memory of other brokers' frames.
    fn peer_frames(&self) -> Option<&Arc<FrameBudget>> {
        self.peering.as_ref().map(|peering| &peering.budget)
    }

    /// Shards whose executors have not turned for long.
    fn silent_shards(&self) -> Vec<usize> {
        let now = self.clock.mono();
        let shards = self.shards.iter().enumerate();
        shards.filter(|(_, shard)| shard.pulse.silent_ms(now) > EXECUTOR_SILENT_MS).map(|(shard, _)| shard).collect()
    }

    /// Alive while the executors turn, whatever the disk does.
    fn live(&self) -> Response {
        match self.silent_shards().as_slice() {
            [] => text(200, "alive"),
            silent => text(503, &format!("shards that do not turn: {silent:?}")),
        }
    }

    fn ready(&self) -> Response {
        let why = match () {
            () if self.stop.load(Ordering::Relaxed) => "stopping",
            () if !self.ready.load(Ordering::Relaxed) => "starting",
            () if !self.silent_shards().is_empty() => "a shard does not turn",
            () => return text(200, "ready"),
        };
        text(503, &format!("not ready: {why}"))
    }

    /// Asks all shards, and returns what came within `millis`.
    fn ask(&self, look: &Look, millis: u64) -> BTreeMap<u16, Seen> {
        let (sender, answers) = sync_channel(self.shards.len());
        for shard in &self.shards {
            shard.mailbox.send(Incoming::Look(look.clone(), sender.clone()));
        }
        drop(sender);
        let end = Instant::now() + Duration::from_millis(millis);
        let mut seen = BTreeMap::new();
        while seen.len() < self.shards.len()
            && let Ok((ShardId(shard), answer)) = answers.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            seen.insert(shard, answer);
        }
        seen
    }

    /// Asks all shards and takes from each answer what `take` finds in it.
    fn ask_all<T>(&self, look: &Look, millis: u64, take: impl Fn(Seen) -> Option<T>) -> Result<Vec<T>, Late> {
        let seen = self.ask(look, millis);
        if seen.len() < self.shards.len() {
            return Err(Late);
        }
        Ok(seen.into_values().map(|seen| take(seen).expect("a shard answers what it was asked")).collect())
    }

    fn metrics(&self) -> Response {
        let turn = self.pace.turn(Instant::now() + Duration::from_millis(LOOK_FOR_METRICS_MS));
        let asked = turn.map(|_turn| self.asked()).unwrap_or_default();
        match self.page(&asked).render() {
            Ok(text) => Response { status: 200, content_type: exposition::CONTENT_TYPE, body: text.into() },
            Err(failure) => error(500, &failure.to_string()),
        }
    }

    /// What `/metrics` asks the shards for.
    fn asked(&self) -> Asked {
        let counts: BTreeMap<u16, Counts> = (self.ask(&Look::Counts, LOOK_FOR_METRICS_MS).into_iter())
            .filter_map(|(shard, seen)| if let Seen::Counts(counts) = seen { Some((shard, counts)) } else { None })
            .collect();
        // Who has not answered the first question in time is not waited for once more.
        let all = counts.len() == self.shards.len();
        let found = if all { self.groups("", LOOK_ITEMS, LOOK_FOR_METRICS_MS) } else { Err(Late) };
        Asked { counts, groups: found.unwrap_or_default() }
    }

    /// Groups of this broker whose ids come after `after`, with their lag.
    fn groups(&self, after: &str, limit: usize, millis: u64) -> Result<Vec<GroupView>, Late> {
        let look = Look::Groups { after: after.to_owned(), limit };
        self.groups_seen(&look, limit, millis)
    }

    fn groups_seen(&self, look: &Look, limit: usize, millis: u64) -> Result<Vec<GroupView>, Late> {
        let parts =
            self.ask_all(look, millis, |seen| if let Seen::Groups(groups) = seen { Some(groups) } else { None })?;
        let GroupPage { mut groups, .. } = GroupPage::join(parts, limit);
        let mut wanted: Vec<(String, i32)> = groups
            .iter()
            .flat_map(|group| &group.offsets)
            .map(|offset| (offset.topic.clone(), offset.partition))
            .collect();
        wanted.sort();
        wanted.dedup();
        let take = |seen| if let Seen::Offsets(ends) = seen { Some(ends) } else { None };
        let ends = self.ask_all(&Look::Offsets(wanted), millis, take)?.into_iter().flatten();
        let ends: BTreeMap<(String, i32), i64> =
            ends.map(|ends| ((ends.topic, ends.partition), ends.high_watermark)).collect();
        let measure = |offset: &mut CommittedView| {
            offset.high_watermark = ends.get(&(offset.topic.clone(), offset.partition)).copied();
            // A follower may know less of the end than the consumer has read.
            offset.lag = offset.high_watermark.map(|end| (end - offset.offset).max(0));
        };
        groups.iter_mut().flat_map(|group| &mut group.offsets).for_each(measure);
        Ok(groups)
    }

    fn v1(&self, path: &str, query: &str) -> Result<Response, Late> {
        let parts: Vec<String> = path.split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let end = Instant::now() + Duration::from_millis(LOOK_MS);
        // Neither waits for a turn: the one asks no shard, the other takes several.
        match parts.as_slice() {
            ["stats"] => return Ok(json(&self.stats())),
            ["topics", name, "partitions", partition, "records"] => return self.records(name, partition, query, end),
            _ => {}
        }
        let _turn = self.pace.turn(end)?;
        Ok(match parts.as_slice() {
            ["cluster"] => self.cluster()?,
            ["topics"] => self.topics(query)?,
            ["topics", name] => self.topic(name)?,
            ["topics", name, "trace"] => self.trace(name)?,
            ["groups"] => self.group_list(query)?,
            ["groups", id] => self.group(id)?,
            ["creations"] => self.creations()?,
            _ => error(404, "there is nothing under this path; see docs/http.md"),
        })
    }

    fn cluster(&self) -> Result<Response, Late> {
        let views = self
            .ask_all(&Look::Cluster, LOOK_MS, |seen| if let Seen::Cluster(view) = seen { Some(view) } else { None })?;
        // Shard 0 has the coordinator.
        Ok(json(&views[0]))
    }

    fn topics(&self, query: &str) -> Result<Response, Late> {
        let after = parameter(query, "after").unwrap_or_default();
        let Some(limit) = limit(query) else { return Ok(wrong_limit()) };
        let take = |seen| if let Seen::Topics(topics) = seen { Some(topics) } else { None };
        let parts = self.ask_all(&Look::Topics { after, limit }, LOOK_MS, take)?;
        // A shard stops early where there are many partitions: the page ends where the first of them does.
        let end = parts.iter().filter_map(|part| part.last().map(|topic| topic.name.clone())).min();
        let mut topics = json::join_summaries(parts, limit);
        topics.retain(|topic| end.as_ref().is_some_and(|end| topic.name <= *end));
        Ok(json(&json!({ "topics": topics, "next": end })))
    }

    fn topic(&self, name: &str) -> Result<Response, Late> {
        let take = |seen| if let Seen::Topic(topic) = seen { Some(topic) } else { None };
        let parts = self.ask_all(&Look::Topic(name.to_owned()), LOOK_MS, take)?;
        Ok(json::join_topic(parts).map_or_else(|| error(404, "there is no such topic"), |topic| json(&topic)))
    }

    fn creations_seen(&self) -> Result<CreationsSeen, Late> {
        let take = |seen| if let Seen::Creations(creations) = seen { Some(creations) } else { None };
        let parts = self.ask_all(&Look::Creations, LOOK_MS, take)?;
        let mut all = parts.into_iter().reduce(|mut all, part| {
            all.asked.extend(part.asked);
            all.coordinated.extend(part.coordinated);
            all.under_way.extend(part.under_way);
            all
        });
        let mut all = all.take().unwrap_or_default();
        all.asked.sort_by_key(|trace| trace.began_ms);
        Ok(all)
    }

    fn creations(&self) -> Result<Response, Late> {
        let seen = self.creations_seen()?;
        let show = |traces: &[_]| traces.iter().map(json::trace).collect::<Vec<_>>();
        Ok(json(&json!({
            "asked": show(&seen.asked), "coordinated": show(&seen.coordinated), "under_way": show(&seen.under_way),
        })))
    }

    /// The newest creation of a topic that is remembered: as it was asked for here, or else as it was coordinated.
    fn trace(&self, name: &str) -> Result<Response, Late> {
        let seen = self.creations_seen()?;
        let newest = |traces: &[crate::shard::creation::Trace]| {
            traces.iter().rev().find(|trace| trace.topics.iter().any(|topic| topic == name)).map(json::trace)
        };
        let found = newest(&seen.under_way).or_else(|| newest(&seen.asked)).or_else(|| newest(&seen.coordinated));
        Ok(found.map_or_else(|| error(404, "no creation of this topic is remembered here"), |trace| json(&trace)))
    }

    fn records(&self, topic: &str, partition: &str, query: &str, end: Instant) -> Result<Response, Late> {
        let Ok(partition) = partition.parse::<i32>() else { return Ok(error(404, "there is no such partition")) };
        let Some(offset) = number(query, "offset", -20) else { return Ok(error(400, "offset is no number")) };
        let Some(limit) = number(query, "limit", 20).filter(|limit| (1..=LOOK_RECORDS as i64).contains(limit)) else {
            return Ok(error(400, &format!("limit is no number from 1 to {LOOK_RECORDS}")));
        };
        let look = Look::Records { topic: topic.to_owned(), partition, offset, max_bytes: LOOK_BYTES };
        loop {
            let turn = self.pace.turn(end)?;
            let take = |seen| if let Seen::Records(records) = seen { Some(records) } else { None };
            let left = end.saturating_duration_since(Instant::now()).as_millis() as u64;
            // One shard has the partition; the others say so.
            let seen = self.ask_all(&look, left, take)?;
            drop(turn);
            let seen = seen.into_iter().find(|seen| !matches!(seen, RecordsSeen::Elsewhere));
            return Ok(match seen.unwrap_or(RecordsSeen::Unknown) {
                RecordsSeen::Here { offset, log_start, high_watermark, records } => {
                    let (shown, next) = records::show(&records, offset, limit as usize);
                    json(&json!({
                        "log_start": log_start, "high_watermark": high_watermark, "records": shown, "next": next,
                    }))
                }
                RecordsSeen::Later if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(TICK_MS));
                    continue;
                }
                RecordsSeen::Later => error(503, "the disk has not given the records in time"),
                RecordsSeen::Unknown | RecordsSeen::Elsewhere => error(404, "there is no such partition"),
                RecordsSeen::NoReplica(brokers) => {
                    error(404, &format!("this broker has no replica of the partition; brokers {brokers:?} have"))
                }
                RecordsSeen::OutOfRange { log_start, high_watermark } => {
                    error(416, &format!("the log has offsets from {log_start} to below {high_watermark}"))
                }
                RecordsSeen::Unreadable => error(500, "the records are damaged, or cannot be read"),
            });
        }
    }

    fn group_list(&self, query: &str) -> Result<Response, Late> {
        let after = parameter(query, "after").unwrap_or_default();
        let Some(limit) = limit(query) else { return Ok(wrong_limit()) };
        let groups = self.groups(&after, limit, LOOK_MS)?;
        let summary = |group: &GroupView| {
            let lags: Vec<i64> = group.offsets.iter().filter_map(|offset| offset.lag).collect();
            json!({
                "group": group.group, "state": group.state, "protocol_type": group.protocol_type,
                "protocol": group.protocol, "members": group.members.len(), "partitions": group.offsets.len(),
                "lag": lags.iter().sum::<i64>(), "lag_max": lags.iter().max(),
                "lag_unknown": group.offsets.len() - lags.len(),
            })
        };
        let next = groups.last().map(|group| &group.group);
        Ok(json(&json!({ "groups": groups.iter().map(summary).collect::<Vec<_>>(), "next": next })))
    }

    fn group(&self, id: &str) -> Result<Response, Late> {
        let groups = self.groups_seen(&Look::Group(id.to_owned()), 1, LOOK_MS)?;
        let missing = || error(404, "this broker coordinates no such group");
        Ok(groups.first().map_or_else(missing, json))
    }
}

/// How many items a list may have; none where what was asked for is no such number.
fn limit(query: &str) -> Option<usize> {
    let limit = number(query, "limit", 100)?;
    usize::try_from(limit).ok().filter(|limit| (1..=LOOK_ITEMS).contains(limit))
}

fn wrong_limit() -> Response {
    error(400, &format!("limit is no number from 1 to {LOOK_ITEMS}"))
}
