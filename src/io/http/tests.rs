use std::collections::BTreeSet;

use serde_json::Value;

use super::exposition::Times;
use super::*;
use crate::io::mailbox::{Receiver, mailbox};
use crate::metrics::{Histogram, Stage};
use crate::shard::view::TopicSummary;

/// A broker of two shards that answer nobody.
fn sources() -> (Sources, Vec<Receiver<Incoming>>) {
    let (disk_mailbox, _) = mailbox();
    let mut inboxes = Vec::new();
    let mut shard = || {
        let (mailbox, inbox) = mailbox();
        inboxes.push(inbox);
        let metrics = Arc::new(ShardMetrics::new(
            ["Produce", "Fetch"],
            ["UNKNOWN_TOPIC_ID", "REQUEST_TIMED_OUT"].map(String::from),
        ));
        ShardSource { metrics, pulse: Pulse::default(), mailbox }
    };
    let shards = vec![shard(), shard()];
    let sources = Sources {
        clock: Clock::start(),
        shards,
        disk: DiskMetrics::default(),
        disk_mailbox,
        disk_pulse: Pulse::default(),
        frames: FrameBudget::new(1 << 20),
        peering: None,
        memory_bytes: 1 << 30,
        ready: Arc::new(AtomicBool::new(true)),
        stop: Arc::default(),
        pace: Pace::new(),
    };
    (sources, inboxes)
}

fn get(sources: Option<&Sources>, target: &str) -> (u16, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let response = answer(sources, &Request::get(path, query));
    (response.status, String::from_utf8(response.body).unwrap())
}

/// Names and types of the families in a text, names as their samples have them.
fn families(text: &str) -> BTreeSet<(String, String)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let named = |(name, kind): (&str, &str)| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        (format!("{name}{suffix}"), kind.to_owned())
    };
    types.map(named).collect()
}

#[test]
fn the_document_describes_exactly_what_is_exported() {
    let document = include_str!("../../../docs/metrics.md");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.to_owned()))
    };
    let described: BTreeSet<(String, String)> = document.lines().filter_map(row).collect();
    let (sources, _inboxes) = sources();
    let (status, text) = get(Some(&sources), "/metrics");
    assert_eq!(status, 200);
    let exported = families(&text);
    let missing: Vec<_> = exported.difference(&described).collect();
    let stale: Vec<_> = described.difference(&exported).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not in docs/metrics.md: {missing:?}; no longer exported: {stale:?}"
    );
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn what_was_counted_is_shown() {
    let (sources, _inboxes) = sources();
    let shards: Vec<_> = sources.shards.iter().map(|shard| &shard.metrics).collect();
    shards[0].apis[0].time.observe(700);
    shards[1].apis[0].time.observe(60_000_001);
    shards[1].apis[0].errors[1].add(3);
    shards[0].creation.stages[Stage::Commit as usize].observe(2_000);
    shards[0].creation.timeouts.add(2);
    let (_, text) = get(Some(&sources), "/metrics");
    for line in [
        r#"kafka_network_requestmetrics_requests_total{request="Produce"} 2"#,
        r#"kafka_network_requestmetrics_errors_total{request="Produce",error="REQUEST_TIMED_OUT"} 3"#,
        r#"kafka_network_requestmetrics_totaltime_seconds_bucket{le="0.0005",request="Produce"} 0"#,
        r#"kafka_network_requestmetrics_totaltime_seconds_bucket{le="0.001",request="Produce"} 1"#,
        r#"kafka_network_requestmetrics_totaltime_seconds_bucket{le="+Inf",request="Produce"} 2"#,
        r#"kafka_network_requestmetrics_totaltime_seconds_sum{request="Produce"} 60.000701"#,
        r#"ringlog_topic_creation_stage_seconds_count{stage="commit"} 1"#,
        "topic_creation_timeout_count 2",
        r#"ringlog_shard_answered{shard="1"} 0.0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }
    assert!(!text.contains(r#"request="Fetch""#), "nobody has fetched");
    // Shards that have not answered are not taken to have no partitions.
    assert!(!text.contains("\nkafka_server_replicamanager_partitioncount "));
}

#[test]
fn health_goes_with_the_executors_and_not_with_answers() {
    assert_eq!(get(None, "/health/live").0, 200);
    assert_eq!(get(None, "/health/ready").0, 503);
    assert_eq!(get(None, "/metrics").0, 503);
    let (mut sources, _inboxes) = sources();
    assert_eq!(get(Some(&sources), "/health/live"), (200, "alive\n".into()));
    assert_eq!(get(Some(&sources), "/health/ready"), (200, "ready\n".into()));
    sources.stop.store(true, Ordering::Relaxed);
    assert_eq!(get(Some(&sources), "/health/ready"), (503, "not ready: stopping\n".into()));
    sources.stop.store(false, Ordering::Relaxed);
    // Long after the start, one of the shards has not turned again.
    sources.clock = Clock::started_ago(Duration::from_millis(EXECUTOR_SILENT_MS + 1_000));
    sources.shards[0].pulse.beat(sources.clock.mono());
    assert_eq!(get(Some(&sources), "/health/live"), (503, "shards that do not turn: [1]\n".into()));
    assert_eq!(get(Some(&sources), "/health/ready").0, 503);
}

#[test]
fn a_look_that_is_not_answered_is_an_error_in_time() {
    let (sources, _inboxes) = sources();
    let started = Instant::now();
    assert_eq!(get(Some(&sources), "/v1/topics").0, 503);
    assert!(started.elapsed() < Duration::from_millis(2 * LOOK_MS));
    let (status, stats) = get(Some(&sources), "/v1/stats");
    assert_eq!(status, 200, "{stats}");
    assert!(serde_json::from_str::<Value>(&stats).unwrap()["disk"]["well"].is_boolean());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (sources, _inboxes) = sources();
    for (target, status) in [
        ("/nothing", 404),
        ("/v1/nothing", 404),
        ("/v1/topics?limit=0", 400),
        ("/v1/topics?limit=x", 400),
        ("/v1/groups?limit=1001", 400),
        ("/v1/topics/a/partitions/x/records", 404),
        ("/v1/topics/a/partitions/0/records?offset=x", 400),
        ("/v1/topics/a/partitions/0/records?limit=0", 400),
    ] {
        assert_eq!(get(Some(&sources), target).0, status, "{target}");
    }
}

#[test]
fn parameters_are_decoded() {
    assert_eq!(parameter("a=1&after=x%2Fy+z", "after").as_deref(), Some("x/y z"));
    assert_eq!(parameter("after", "after"), None);
    assert_eq!((number("n=-20", "n", 1), number("", "n", 1), number("n=", "n", 1)), (Some(-20), Some(1), None));
}

#[test]
fn shards_are_added_up() {
    let summary = |name: &str, records| TopicSummary {
        name: name.into(),
        id: String::new(),
        partitions: 3,
        replication_factor: 1,
        internal: false,
        records,
        bytes: 10,
        under_replicated: 1,
        leaderless: 0,
    };
    let joined = json::join_summaries(vec![vec![summary("a", 1), summary("b", 2)], vec![summary("a", 4)]], 10);
    let shown: Vec<_> =
        joined.iter().map(|topic| (&*topic.name, topic.records, topic.bytes, topic.partitions)).collect();
    assert_eq!(shown, [("a", 5, 20, 3), ("b", 2, 10, 3)]);

    let (one, other) = (Histogram::default(), Histogram::default());
    one.observe(10);
    other.observe(30);
    let both = Times::of([&one, &other]);
    assert_eq!((both.count(), both.sum_micros, both.counts[0]), (2, 40, 2));
}

#[test]
fn the_dashboard_asks_for_nothing_that_is_not_exported() {
    let dashboard: Value = serde_json::from_str(include_str!("../../../contrib/grafana-dashboard.json")).unwrap();
    let (sources, _inboxes) = sources();
    let exported: BTreeSet<String> =
        families(&get(Some(&sources), "/metrics").1).into_iter().map(|(name, _)| name).collect();
    let mut asked = BTreeSet::new();
    for target in
        dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array()).flatten()
    {
        let words = target["expr"].as_str().unwrap().split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named =
            words.filter(|word| word.contains('_') && !["histogram_quantile", "__rate_interval"].contains(word));
        asked.extend(named.map(|word| word.trim_end_matches("_bucket").to_owned()));
    }
    assert!(asked.len() > 20);
    let missing: Vec<_> = asked.difference(&exported).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_page_of_groups_ends_where_a_shard_has_more() {
    let page = |ids: &[&str], more| {
        let view = |id: &&str| GroupView {
            group: (*id).to_owned(),
            state: "Empty",
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
            offsets: Vec::new(),
        };
        GroupPage { groups: ids.iter().map(view).collect(), more }
    };
    let joined = |parts: Vec<GroupPage>, most| {
        let joined = GroupPage::join(parts, most);
        (joined.groups.into_iter().map(|group| group.group).collect::<Vec<_>>().join(" "), joined.more)
    };
    assert_eq!(joined(vec![page(&["a", "d"], false), page(&["b", "c"], false)], 10), ("a b c d".into(), false));
    // What comes after c on the other shard is not known yet.
    assert_eq!(joined(vec![page(&["a", "d"], false), page(&["b", "c"], true)], 10), ("a b c".into(), true));
    assert_eq!(joined(vec![page(&["a", "d"], false), page(&["b", "c"], false)], 3), ("a b c".into(), true));
}
