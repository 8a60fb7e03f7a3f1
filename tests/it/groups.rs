//! The protocol of consumer groups, frame by frame.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
};

use crate::common::process::{Launch, data_dir, external, shared};
use crate::common::records::batch;
use crate::common::wire::{Wire, code, decode, text, topic_name};
use crate::common::{fresh, segments_below, skipped, wait_until};

const SESSION_MS: i32 = 10_000;

/// A consumer's subscription to one topic, as clients write it.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1];
    bytes.extend((topic.len() as i16).to_be_bytes());
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend([0xff; 4]);
    bytes.extend([0; 4]);
    bytes.into()
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(subscription(group));
    JoinGroupRequest::default()
        .with_group_id(text(group).into())
        .with_session_timeout_ms(SESSION_MS)
        .with_rebalance_timeout_ms(20_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn sync(group: &str, generation: i32, member: &str, assignments: &[(&str, &str)]) -> SyncGroupRequest {
    let assignments = assignments.iter().map(|(member, assignment)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member))
            .with_assignment(Bytes::copy_from_slice(assignment.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_assignments(assignments.collect())
}

pub(crate) fn heartbeat(group: &str, generation: i32, member: &str) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id(generation)
        .with_member_id(text(member))
}

fn leave(group: &str, members: &[&str]) -> LeaveGroupRequest {
    let members = members.iter().map(|member| MemberIdentity::default().with_member_id(text(member)));
    LeaveGroupRequest::default().with_group_id(text(group).into()).with_members(members.collect())
}

pub(crate) fn commit(
    group: &str,
    generation: i32,
    member: &str,
    topic: &str,
    offsets: &[(i32, i64)],
) -> OffsetCommitRequest {
    let partitions = offsets.iter().map(|(partition, offset)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text("m")))
    });
    let kept = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect());
    OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![kept])
}

/// The errors of the partitions of a commit, in order.
pub(crate) fn committed(wire: &mut Wire, request: &OffsetCommitRequest) -> Vec<i16> {
    let response = wire.call(8, request);
    response.topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| partition.error_code)).collect()
}

/// All offsets of a group: topic, partition, offset.
pub(crate) fn kept(wire: &mut Wire, group: &str) -> Vec<(String, i32, i64)> {
    let response = wire.call(7, &OffsetFetchRequest::default().with_group_id(text(group).into()).with_topics(None));
    assert_eq!(response.error_code, 0);
    let topics = response.topics.iter();
    topics
        .flat_map(|topic| {
            let name = topic.name.as_str().to_owned();
            topic.partitions.iter().map(move |kept| (name.clone(), kept.partition_index, kept.committed_offset))
        })
        .collect()
}

fn described(wire: &mut Wire, group: &str) -> DescribeGroupsResponse {
    wire.call(5, &DescribeGroupsRequest::default().with_groups(vec![text(group).into()]))
}

/// Joins a group that has no other member, with the id that it is given first.
fn join_alone(wire: &mut Wire, group: &str) -> JoinGroupResponse {
    let given = wire.call(9, &join(group, ""));
    assert_eq!(given.error_code, code(ResponseError::MemberIdRequired));
    let joined = wire.call(9, &join(group, &given.member_id));
    assert_eq!(joined.error_code, 0);
    assert_eq!((&joined.member_id, &joined.leader), (&given.member_id, &given.member_id));
    joined
}

/// A stable group of one member: its id and the generation.
pub(crate) fn settle_alone(wire: &mut Wire, group: &str, assignment: &str) -> (String, i32) {
    let joined = join_alone(wire, group);
    let member = joined.member_id.to_string();
    let synced = wire.call(5, &sync(group, joined.generation_id, &member, &[(&member, assignment)]));
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, assignment.as_bytes()));
    (member, joined.generation_id)
}

#[test]
fn a_life_in_every_version() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let topic = fresh("group-versions");
    wire.create_topic(&topic, 2, &[]);
    for version in 0..=9 {
        let group = fresh("life");
        wire.await_coordinator(&group);
        let mut joined = wire.call(version, &join(&group, ""));
        if version >= 4 {
            assert_eq!(joined.error_code, code(ResponseError::MemberIdRequired));
            joined = wire.call(version, &join(&group, &joined.member_id));
        }
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1), "version {version}");
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        assert_eq!(joined.members[0].metadata, subscription(&group));
        assert_eq!(joined.protocol_type.as_deref(), (version >= 7).then_some("consumer"));
        let member = joined.member_id.to_string();
        assert!(member.starts_with("wire-"), "{member} begins with the client's name");

        let mut syncing = sync(&group, 1, &member, &[(&member, "all")]);
        if version >= 5 {
            syncing.protocol_type = Some(text("consumer"));
            syncing.protocol_name = Some(text("range"));
        }
        let synced = wire.call(version.min(5), &syncing);
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        assert_eq!(wire.call(version.min(4), &heartbeat(&group, 1, &member)).error_code, 0);

        let committing = commit(&group, 1, &member, &topic, &[(0, 5), (1, 6)]);
        let answer = wire.call(version.max(2), &committing);
        assert!(answer.topics[0].partitions.iter().all(|partition| partition.error_code == 0));
        assert_eq!(kept(&mut wire, &group), [(topic.clone(), 0, 5), (topic.clone(), 1, 6)]);

        let described =
            wire.call(version.min(6), &DescribeGroupsRequest::default().with_groups(vec![text(&group).into()]));
        let shown = &described.groups[0];
        assert_eq!((shown.error_code, shown.group_state.as_str(), shown.members.len()), (0, "Stable", 1));
        assert_eq!((shown.protocol_type.as_str(), shown.protocol_data.as_str()), ("consumer", "range"));
        assert_eq!(
            (shown.members[0].client_id.as_str(), &shown.members[0].member_assignment[..]),
            ("wire", &b"all"[..])
        );
        assert_eq!(shown.members[0].client_host.as_str(), "/127.0.0.1");

        let left = match version {
            0..=2 => {
                let request = LeaveGroupRequest::default().with_group_id(text(&group).into());
                wire.call(version, &request.with_member_id(text(&member))).error_code
            }
            _ => {
                let left = wire.call(version.min(5), &leave(&group, &[&member]));
                assert_eq!((left.error_code, left.members.len()), (0, 1));
                left.members[0].error_code
            }
        };
        assert_eq!(left, 0);
        let deleted = DeleteGroupsRequest::default().with_groups_names(vec![text(&group).into()]);
        assert_eq!(wire.call(version.min(2), &deleted).results[0].error_code, 0);
        assert_eq!(kept(&mut wire, &group), []);
    }
}

#[test]
fn two_members_share_and_the_rest_is_told_when_one_leaves() {
    let broker = shared();
    let (mut a, mut b) = (Wire::connect(broker.address()), Wire::connect(broker.address()));
    let group = fresh("pair");
    a.await_coordinator(&group);
    let (first, generation) = settle_alone(&mut a, &group, "1");
    let second = b.call(9, &join(&group, "")).member_id.to_string();
    b.send(9, &join(&group, &second));
    // The second waits for the first, which hears of it by its heartbeats.
    let end = Instant::now() + Duration::from_secs(10);
    while a.call(4, &heartbeat(&group, generation, &first)).error_code != code(ResponseError::RebalanceInProgress) {
        assert!(Instant::now() < end, "the first member does not hear of the second");
    }
    let rejoined = a.call(9, &join(&group, &first));
    let joined: JoinGroupResponse = b.receive::<JoinGroupRequest>(9).1;
    assert_eq!((rejoined.generation_id, joined.generation_id), (generation + 1, generation + 1));
    assert_eq!((rejoined.members.len(), joined.members.len()), (2, 0), "only the leader is told of the others");
    let generation = generation + 1;
    b.send(5, &sync(&group, generation, &second, &[]));
    let own = a.call(5, &sync(&group, generation, &first, &[(&first, "left"), (&second, "right")]));
    let given: SyncGroupResponse = b.receive::<SyncGroupRequest>(5).1;
    assert_eq!((&own.assignment[..], &given.assignment[..]), (&b"left"[..], &b"right"[..]));

    let left = a.call(4, &leave(&group, &[&first]));
    assert_eq!(left.members[0].error_code, 0);
    let answer = b.call(4, &heartbeat(&group, generation, &second)).error_code;
    assert_eq!(answer, code(ResponseError::RebalanceInProgress));
    let alone = b.call(9, &join(&group, &second));
    assert_eq!((alone.error_code, alone.generation_id, alone.members.len()), (0, generation + 1, 1));
    let stale = a.call(4, &heartbeat(&group, generation, &first)).error_code;
    assert_eq!(stale, code(ResponseError::UnknownMemberId));
    let stale = b.call(4, &heartbeat(&group, generation, &second)).error_code;
    assert_eq!(stale, code(ResponseError::IllegalGeneration));
}

#[test]
fn a_static_member_comes_back_to_its_assignment_and_fences_its_past() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let group = fresh("static");
    wire.await_coordinator(&group);
    let named = |member: &str| join(&group, member).with_group_instance_id(Some(text("instance")));
    let joined = wire.call(9, &named(""));
    assert_eq!(joined.error_code, 0, "a static member is asked for no id");
    let old = joined.member_id.to_string();
    assert!(old.starts_with("instance-"));
    let own = sync(&group, 1, &old, &[(&old, "mine")]).with_group_instance_id(Some(text("instance")));
    assert_eq!(wire.call(5, &own).error_code, 0);

    let back = wire.call(9, &named(""));
    assert_eq!((back.error_code, back.generation_id), (0, 1), "without a rebalance");
    assert!(back.skip_assignment && back.leader == back.member_id && back.member_id != *old);
    let own = sync(&group, 1, &back.member_id, &[]).with_group_instance_id(Some(text("instance")));
    assert_eq!(wire.call(5, &own).assignment, "mine");

    let past = heartbeat(&group, 1, &old).with_group_instance_id(Some(text("instance")));
    assert_eq!(wire.call(4, &past).error_code, code(ResponseError::FencedInstanceId));
    let by_name = MemberIdentity::default().with_group_instance_id(Some(text("instance")));
    let removed = LeaveGroupRequest::default().with_group_id(text(&group).into()).with_members(vec![by_name]);
    assert_eq!(wire.call(5, &removed).members[0].error_code, 0);
    assert_eq!(described(&mut wire, &group).groups[0].group_state.as_str(), "Empty");
}

#[test]
fn what_is_wrong_is_told_by_kafkas_names() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let (group, topic) = (fresh("wrong"), fresh("wrong-topic"));
    wire.create_topic(&topic, 1, &[]);
    wire.await_coordinator(&group);

    assert_eq!(wire.call(9, &join("", "")).error_code, code(ResponseError::InvalidGroupId));
    assert_eq!(wire.call(5, &sync("", 1, "m", &[])).error_code, code(ResponseError::InvalidGroupId));
    assert_eq!(wire.call(4, &heartbeat("", 1, "m")).error_code, code(ResponseError::InvalidGroupId));
    assert_eq!(wire.call(5, &leave("", &["m"])).error_code, code(ResponseError::InvalidGroupId));
    for session in [0, 5_999, 1_800_001, i32::MAX, -1] {
        let request = join(&group, "").with_session_timeout_ms(session);
        assert_eq!(wire.call(9, &request).error_code, code(ResponseError::InvalidSessionTimeout));
    }
    assert_eq!(wire.call(9, &join(&group, "who")).error_code, code(ResponseError::UnknownMemberId));
    let mute = join(&group, "").with_protocols(vec![]);
    assert_eq!(wire.call(9, &mute).error_code, code(ResponseError::InconsistentGroupProtocol));

    let (member, generation) = settle_alone(&mut wire, &group, "x");
    let other = join(&group, "").with_protocol_type(text("connect"));
    assert_eq!(wire.call(9, &other).error_code, code(ResponseError::InconsistentGroupProtocol));
    let later = heartbeat(&group, generation + 1, &member);
    assert_eq!(wire.call(4, &later).error_code, code(ResponseError::IllegalGeneration));
    let wrong = sync(&group, generation, &member, &[]).with_protocol_name(Some(text("sticky")));
    assert_eq!(wire.call(5, &wrong).error_code, code(ResponseError::InconsistentGroupProtocol));

    let late = commit(&group, generation + 1, &member, &topic, &[(0, 1)]);
    assert_eq!(committed(&mut wire, &late), [code(ResponseError::IllegalGeneration)]);
    let outside = commit(&group, -1, "", &topic, &[(0, 1)]);
    assert_eq!(committed(&mut wire, &outside), [code(ResponseError::UnknownMemberId)]);
    let nowhere = commit(&group, generation, &member, &topic, &[(0, 1), (7, 1), (-1, 1)]);
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    assert_eq!(committed(&mut wire, &nowhere), [0, unknown, unknown]);
    let mut wordy = commit(&group, generation, &member, &topic, &[(0, 2)]);
    wordy.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(4_097)));
    assert_eq!(committed(&mut wire, &wordy), [code(ResponseError::OffsetMetadataTooLarge)]);
    assert_eq!(kept(&mut wire, &group), [(topic.clone(), 0, 1)]);

    let delete = |group: &str| DeleteGroupsRequest::default().with_groups_names(vec![text(group).into()]);
    assert_eq!(wire.call(2, &delete(&group)).results[0].error_code, code(ResponseError::NonEmptyGroup));
    assert_eq!(wire.call(2, &delete("none")).results[0].error_code, code(ResponseError::GroupIdNotFound));

    let key = |key_type: i8| FindCoordinatorRequest::default().with_key_type(key_type).with_key(text("k"));
    let (invalid, refused) = (ResponseError::InvalidRequest, ResponseError::ClusterAuthorizationFailed);
    for (key_type, error) in [(1, refused), (2, invalid), (9, invalid)] {
        let answer = wire.call(3, &key(key_type));
        assert_eq!((answer.error_code, answer.node_id.0), (code(error), -1));
    }
}

#[test]
fn offsets_of_a_topic_that_is_read_are_not_deleted() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    // The members of these tests subscribe to the topic with the name of their group.
    let (group, other) = (fresh("forget"), fresh("forget-other"));
    wire.create_topic(&group, 1, &[]);
    wire.create_topic(&other, 1, &[]);
    wire.await_coordinator(&group);
    let (member, generation) = settle_alone(&mut wire, &group, "x");
    for topic in [&group, &other] {
        let request = commit(&group, generation, &member, topic, &[(0, 3)]);
        assert_eq!(committed(&mut wire, &request), [0]);
    }
    let forget = |topic: &str| {
        OffsetDeleteRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![OffsetDeleteRequestPartition::default()])
    };
    let request = OffsetDeleteRequest::default().with_group_id(text(&group).into()).with_topics(vec![
        forget(&group),
        forget(&other),
        forget("no-such-topic"),
    ]);
    let response = wire.call(0, &request);
    assert_eq!(response.error_code, 0);
    let errors: Vec<i16> = response.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
    let read = code(ResponseError::GroupSubscribedToTopic);
    assert_eq!(errors, [read, 0, code(ResponseError::UnknownTopicOrPartition)]);
    assert_eq!(kept(&mut wire, &group), [(group.clone(), 0, 3)]);
    let missing = OffsetDeleteRequest::default().with_group_id(text("none").into());
    assert_eq!(wire.call(0, &missing).error_code, code(ResponseError::GroupIdNotFound));
}

#[test]
fn a_topic_that_is_created_again_is_read_from_its_beginning() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let (group, topic) = (fresh("again"), fresh("again-topic"));
    wire.create_topic(&topic, 1, &[]);
    wire.await_coordinator(&group);
    assert_eq!(committed(&mut wire, &commit(&group, -1, "", &topic, &[(0, 9)])), [0]);
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(&topic)]).with_timeout_ms(5_000);
    assert_eq!(wire.call(5, &request).responses[0].error_code, 0);
    wire.create_topic(&topic, 1, &[]);
    let forgotten = wait_until(Duration::from_secs(10), || kept(&mut wire, &group).is_empty());
    assert!(forgotten, "{:?}", kept(&mut wire, &group));
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let (stable, simple, topic) = (fresh("stable"), fresh("simple"), fresh("listed"));
    wire.create_topic(&topic, 1, &[]);
    wire.await_coordinator(&stable);
    settle_alone(&mut wire, &stable, "x");
    assert_eq!(committed(&mut wire, &commit(&simple, -1, "", &topic, &[(0, 1)])), [0]);
    let mut listed = |states: &[&str], types: &[&str]| {
        let request = ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|name| text(name)).collect());
        let response = wire.call(5, &request);
        assert_eq!(response.error_code, 0);
        let ours =
            response.groups.into_iter().filter(|group| [&stable, &simple].contains(&&group.group_id.to_string()));
        let mut shown: Vec<_> = ours
            .map(|group| (group.group_id.to_string(), group.group_state.to_string(), group.group_type.to_string()))
            .collect();
        shown.sort();
        shown
    };
    let first = (simple.clone(), "Empty".to_owned(), "classic".to_owned());
    let second = (stable.clone(), "Stable".to_owned(), "classic".to_owned());
    assert_eq!(listed(&[], &[]), [first.clone(), second.clone()]);
    assert_eq!(listed(&["Stable"], &["Classic"]), [second]);
    assert_eq!(listed(&["empty", "Dead"], &[]), [first]);
    assert_eq!(listed(&[], &["consumer"]), []);
}

#[test]
fn clients_cannot_write_to_the_groups_topic() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    wire.await_coordinator("any");
    let answer = wire.produce("__consumer_offsets", 0, batch(&["forged"]));
    assert_eq!(answer.error_code, code(ResponseError::InvalidTopicException));
    let topic = wire.metadata("__consumer_offsets").topics.remove(0);
    assert!(topic.is_internal);
    if external().is_none() {
        assert_eq!(topic.partitions.len(), 16);
    }
}

#[test]
fn a_kill_leaves_members_and_offsets_where_they_were() {
    if external().is_some() {
        return skipped("the broker is not ours to stop");
    }
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("kept", 3, &[]);
    // More groups than shards, so that every shard has some.
    let groups: Vec<String> = (0..12).map(|number| format!("group-{number}")).collect();
    let mut members = Vec::new();
    for group in &groups {
        wire.await_coordinator(group);
        members.push(settle_alone(&mut wire, group, group));
    }
    for round in 1..=3 {
        for (group, (member, generation)) in groups.iter().zip(&members) {
            let offsets = [(0, round), (1, 10 * round), (2, 100 * round)];
            assert_eq!(committed(&mut wire, &commit(group, *generation, member, "kept", &offsets)), [0; 3]);
        }
        broker = broker.kill().start();
        wire = Wire::connect(&broker.address());
        for (group, (member, generation)) in groups.iter().zip(&members) {
            wire.await_coordinator(group);
            let expected: Vec<_> = (0..3)
                .zip([round, 10 * round, 100 * round])
                .map(|(p, offset)| ("kept".to_owned(), p, offset))
                .collect();
            assert_eq!(kept(&mut wire, group), expected);
            // The member goes on as if nothing had been.
            assert_eq!(wire.call(4, &heartbeat(group, *generation, member)).error_code, 0);
            let again = wire.call(5, &sync(group, *generation, member, &[]));
            assert_eq!((again.error_code, &again.assignment[..]), (0, group.as_bytes()));
        }
    }
    let left = wire.call(5, &leave(&groups[0], &[&members[0].0]));
    assert_eq!(left.members[0].error_code, 0);
    let broker = broker.kill().start();
    let mut wire = Wire::connect(&broker.address());
    wire.await_coordinator(&groups[0]);
    assert_eq!(described(&mut wire, &groups[0]).groups[0].group_state.as_str(), "Empty");
    assert_eq!(kept(&mut wire, &groups[0]).len(), 3);
}

#[test]
fn a_committed_offset_does_not_go_back() {
    if external().is_some() {
        return skipped("the broker is not ours to stop");
    }
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    Wire::connect(&broker.address()).create_topic("steps", 1, &[]);
    let (mut sent, mut seen) = (0, -1);
    for round in 0..8u64 {
        let mut wire = Wire::connect(&broker.address());
        wire.await_coordinator("climber");
        if sent > 0 {
            let offset = kept(&mut wire, "climber")[0].2;
            assert!((seen..=sent).contains(&offset), "{offset} after {seen} was acknowledged and {sent} sent");
            seen = offset;
        }
        // Commits under way all the time, and a kill in the midst of them.
        let address = broker.address();
        let reader = std::thread::spawn(move || {
            let mut wire = Wire::connect(&address);
            let mut newest = seen;
            // What one client was shown, the next must not find undone.
            while let Ok(offset) = try_kept(&mut wire, "climber") {
                assert!(offset >= newest, "{offset} after {newest} was seen");
                newest = offset;
            }
            newest
        });
        let begun = Instant::now();
        let mut open = 0;
        while begun.elapsed() < Duration::from_millis(150 + 37 * (round * 5 % 8)) {
            sent += 1;
            wire.send(8, &commit("climber", -1, "", "steps", &[(0, sent)]));
            open += 1;
            if open == 8 {
                let answer = wire.receive::<OffsetCommitRequest>(8).1;
                assert_eq!(answer.topics[0].partitions[0].error_code, 0);
                open -= 1;
                seen = sent - open;
            }
        }
        let launch = broker.kill();
        seen = seen.max(reader.join().expect("the reader"));
        broker = launch.start();
    }
    assert!(seen > 100, "only {seen} commits");
}

/// The offset of partition 0 of a group's only topic, or -1; an error where the broker is gone.
fn try_kept(wire: &mut Wire, group: &str) -> std::io::Result<i64> {
    let request = OffsetFetchRequest::default().with_group_id(text(group).into()).with_topics(None);
    let frame = wire.encode(7, &request);
    wire.try_send_bytes(&frame)?;
    let answer = wire.try_frame_in()?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let response = decode::<OffsetFetchRequest>(answer, 7).1;
    assert_eq!(response.error_code, 0);
    Ok(response.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset))
}

#[test]
fn offsets_are_read_back_from_segments_too() {
    if external().is_some() {
        return skipped("the broker is not ours to stop");
    }
    const PARTITIONS: i32 = 100;
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("many", PARTITIONS, &[]);
    wire.await_coordinator("reader");
    // More than the broker keeps in memory: the oldest commits go to segments.
    let words = "x".repeat(4_096);
    let mut rounds = 0;
    while segments_below(directory.path()).iter().sum::<u64>() < 4 << 20 {
        rounds += 1;
        assert!(rounds < 1_000, "nothing goes to segments");
        let offsets: Vec<(i32, i64)> = (0..PARTITIONS).map(|partition| (partition, rounds)).collect();
        let mut request = commit("reader", -1, "", "many", &offsets);
        for partition in &mut request.topics[0].partitions {
            partition.committed_metadata = Some(text(&words));
        }
        assert_eq!(committed(&mut wire, &request), [0; PARTITIONS as usize]);
    }
    assert_eq!(committed(&mut wire, &commit("reader", -1, "", "many", &[(7, 1 << 40)])), [0]);
    let broker = broker.kill().start();
    let mut wire = Wire::connect(&broker.address());
    wire.await_coordinator("reader");
    let expected: Vec<_> = (0..PARTITIONS)
        .map(|partition| ("many".to_owned(), partition, if partition == 7 { 1 << 40 } else { rounds }))
        .collect();
    assert_eq!(kept(&mut wire, "reader"), expected);
}

#[test]
fn a_member_that_says_too_much_is_refused() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let group = fresh("talkative");
    wire.await_coordinator(&group);
    let says = |bytes: usize| {
        let protocol =
            JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(vec![7; bytes].into());
        join(&group, "").with_protocols(vec![protocol]).with_group_instance_id(Some(text("instance")))
    };
    if external().is_none() {
        assert_eq!(wire.call(9, &says(1 << 20)).error_code, code(ResponseError::InvalidRequest));
        let many = (0..40_000).map(|number| JoinGroupRequestProtocol::default().with_name(text(&number.to_string())));
        let many = join(&group, "").with_protocols(many.collect());
        assert_eq!(wire.call(9, &many).error_code, code(ResponseError::InvalidRequest));
    }
    let joined = wire.call(9, &says(500_000));
    assert_eq!((joined.error_code, joined.members[0].metadata.len()), (0, 500_000));
    // An assignment that no record has room for is refused, and the group is none the worse.
    let large = "x".repeat(9 << 20);
    let member = joined.member_id.to_string();
    let instance = Some(text("instance"));
    let refused = sync(&group, 1, &member, &[(&member, &large)]).with_group_instance_id(instance.clone());
    assert_eq!(wire.call(5, &refused).error_code, code(ResponseError::UnknownServerError));
    let again = wire.call(9, &join(&group, &member).with_group_instance_id(instance.clone()));
    assert_eq!((again.error_code, again.generation_id), (0, 2));
    let fits = sync(&group, 2, &member, &[(&member, "fits")]).with_group_instance_id(instance);
    assert_eq!(wire.call(5, &fits).assignment, "fits");
}

#[test]
fn a_stopping_broker_does_not_wait_for_members() {
    if external().is_some() {
        return skipped("the broker is not ours to stop");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let (mut a, mut b) = (Wire::connect(&broker.address()), Wire::connect(&broker.address()));
    a.await_coordinator("waiting");
    let (first, generation) = settle_alone(&mut a, "waiting", "x");
    let second = b.call(9, &join("waiting", "")).member_id.to_string();
    b.send(9, &join("waiting", &second));
    // Once the first is told of a rebalance, the second's join is waiting.
    let told = code(ResponseError::RebalanceInProgress);
    while a.call(4, &heartbeat("waiting", generation, &first)).error_code != told {}
    let stopping = Instant::now();
    broker.stop();
    assert!(stopping.elapsed() < Duration::from_secs(5), "the stop took {:?}", stopping.elapsed());
    let answer: JoinGroupResponse = b.receive::<JoinGroupRequest>(9).1;
    assert_eq!(answer.error_code, code(ResponseError::CoordinatorNotAvailable));
}
