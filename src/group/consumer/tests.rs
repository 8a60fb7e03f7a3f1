//! Groups of the consumer protocol on their own: members that heartbeat, a clock that is set, topics that change.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::tests::*;
use super::super::{Ask, Error, Identity, Leaver, Listed, Record, Reply};
use super::records::Partitions;
use super::{Assigned, ConsumerHeartbeat};
use crate::group::{ConsumerDescribed, GroupTimes};

/// A member as its client sees it.
#[derive(Clone, Debug)]
struct Client {
    id: String,
    instance: Option<String>,
    epoch: i32,
    owned: Partitions,
    /// Whether an answer did not come.
    unsure: bool,
}

impl Client {
    fn new(id: &str) -> Client {
        Client { id: id.into(), instance: None, epoch: 0, owned: Partitions::new(), unsure: false }
    }

    fn named(id: &str, instance: &str) -> Client {
        Client { instance: Some(instance.into()), ..Client::new(id) }
    }

    /// The first heartbeat: everything is said.
    fn join(&self, topics: &[&str]) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            rebalance_ms: Some(REBALANCE_MS as i32),
            topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
            owned: Some(Partitions::new()),
            epoch: 0,
            ..self.beat()
        }
    }

    /// A later one: nothing but what it reads.
    fn beat(&self) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            group: "g".into(),
            member_id: self.id.clone(),
            epoch: self.epoch,
            instance: self.instance.clone(),
            owned: Some(self.owned.clone()),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            ..Default::default()
        }
    }

    fn leave(&self, epoch: i32) -> ConsumerHeartbeat {
        ConsumerHeartbeat { epoch, owned: None, ..self.beat() }
    }
}

fn assigned(rig: &mut Rig, request: u64) -> Assigned {
    match rig.answer(request) {
        Ok(Reply::Assigned(assigned)) => *assigned,
        other => panic!("{other:?}"),
    }
}

impl Rig {
    fn beat(&mut self, heartbeat: ConsumerHeartbeat) -> Result<Assigned, Error> {
        let request = self.ask(Ask::ConsumerHeartbeat(Box::new(heartbeat)));
        self.answer(request).map(|reply| match reply {
            Reply::Assigned(assigned) => *assigned,
            other => panic!("{other:?}"),
        })
    }

    fn joins(&mut self, client: &mut Client, topics: &[&str]) {
        let told = self.beat(client.join(topics)).unwrap();
        assert_eq!(told.member_id, client.id);
        client.epoch = told.epoch;
        client.owned = told.partitions.expect("who joins is told what it has");
    }

    /// A heartbeat whose answer the client follows.
    fn follows(&mut self, client: &mut Client) {
        let told = self.beat(client.beat()).unwrap();
        client.epoch = told.epoch;
        client.owned = told.partitions.unwrap_or(client.owned.clone());
    }

    fn consumers(&mut self) -> ConsumerDescribed {
        let request = self.ask(Ask::DescribeConsumers { group: "g".into() });
        match self.answer(request) {
            Ok(Reply::ConsumersDescribed(Some(described))) => *described,
            other => panic!("{other:?}"),
        }
    }

    /// All heartbeat until nobody has anything to do. Nothing is read by two at any time.
    fn settle(&mut self, clients: &mut [&mut Client]) {
        for _ in 0..20 {
            for at in 0..clients.len() {
                self.follows(clients[at]);
                let mut all = BTreeSet::new();
                for (topic, numbers) in clients.iter().flat_map(|client| &client.owned) {
                    for number in numbers {
                        assert!(all.insert((*topic, *number)), "{number} is read twice: {clients:?}");
                    }
                }
            }
        }
        assert_eq!(self.consumers().state, "Stable");
    }
}

fn numbers(client: &Client) -> Vec<i32> {
    client.owned.values().flatten().copied().collect()
}

fn with_topic(partitions: i32) -> Rig {
    let mut rig = Rig::new();
    rig.topics.set("t", partitions);
    rig
}

#[test]
fn one_member_has_everything_and_two_share() {
    let mut rig = with_topic(4);
    let mut a = Client::new("a");
    rig.joins(&mut a, &["t"]);
    assert_eq!((a.epoch, numbers(&a)), (1, vec![0, 1, 2, 3]));
    assert_eq!(rig.consumers().state, "Stable");
    let mut b = Client::new("b");
    rig.joins(&mut b, &["t"]);
    assert_eq!((b.epoch, numbers(&b)), (2, vec![]), "what it is to have is another's");
    assert_eq!(rig.consumers().state, "Reconciling");
    // The first hears what it is to give back, in its epoch as before, and can commit in that.
    rig.follows(&mut a);
    assert_eq!((a.epoch, numbers(&a)), (1, vec![0, 1]));
    let request = rig.ask(commit(identity(1, "a"), &[("t", 2, 7)]));
    assert!(rig.answer(request).is_ok());
    rig.follows(&mut b);
    assert!(numbers(&b).is_empty(), "it has not said that it gave back");
    rig.follows(&mut a);
    rig.follows(&mut b);
    assert_eq!((a.epoch, b.epoch, numbers(&b)), (2, 2, vec![2, 3]));
    rig.settle(&mut [&mut a, &mut b]);
    assert_eq!(rig.refused(commit(identity(1, "a"), &[("t", 0, 7)])), Error::StaleMemberEpoch);
    // What has not changed is not told again.
    assert_eq!(rig.beat(a.beat()).unwrap().partitions, None);
}

#[test]
fn those_who_come_soon_after_one_another_are_assigned_to_together() {
    let mut rig = with_topic(4);
    rig.topics.set("u", 1);
    rig.assign_every(1_000);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(Client::new);
    rig.joins(&mut a, &["t"]);
    assert_eq!((a.epoch, numbers(&a).len()), (1, 4), "the first need not wait");
    rig.pass(300);
    let told = rig.beat(b.join(&["t"])).unwrap();
    assert_eq!((told.epoch, told.partitions, told.interval_ms), (1, Some(Partitions::new()), 700));
    b.epoch = 1;
    rig.joins(&mut c, &["t"]);
    assert_eq!(rig.consumers().state, "Assigning");
    assert_eq!((rig.consumers().epoch, rig.consumers().target_epoch), (3, 1));
    rig.follows(&mut a);
    assert_eq!(numbers(&a).len(), 4, "for now all is as it was");
    rig.pass(700);
    assert_eq!(rig.beat(b.beat()).unwrap().interval_ms, 1_000);
    assert_eq!(rig.consumers().target_epoch, 3);
    rig.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!([&a, &b, &c].map(|client| (client.epoch, numbers(client).len())), [(3, 2), (3, 1), (3, 1)]);
    // What a member does not read any more it is not given for longer.
    let told = rig.beat(ConsumerHeartbeat { topics: Some(["u".to_owned()].into()), ..c.beat() }).unwrap();
    assert!(!told.partitions.unwrap().contains_key(&rig.topics.id("t")));
    assert_eq!(rig.consumers().target_epoch, 4);
}

#[test]
fn members_of_the_classic_protocol_come_again_when_there_is_an_assignment() {
    let mut rig = with_topic(4);
    rig.assign_every(1_000);
    classic_pair(&mut rig);
    let mut a = Client::new("a");
    rig.joins(&mut a, &["t"]);
    let (epoch, _) = classic_round(&mut rig, "x");
    assert!(rig.heartbeat(epoch, "x").is_ok());
    rig.joins(&mut Client::new("b"), &["t"]);
    assert!(rig.heartbeat(epoch, "x").is_ok(), "nothing is to be had yet");
    rig.pass(1_000);
    assert_eq!(rig.heartbeat(epoch, "x"), Err(Error::RebalanceInProgress));
    let (epoch, _) = classic_round(&mut rig, "x");
    assert_eq!(rig.consumers().target_epoch, rig.consumers().epoch);
    assert!(epoch <= rig.consumers().epoch);
}

#[test]
fn who_leaves_or_is_silent_makes_room() {
    let mut rig = with_topic(4);
    let (mut a, mut b, mut c) = (Client::new("a"), Client::new("b"), Client::new("c"));
    for client in [&mut a, &mut b, &mut c] {
        rig.joins(client, &["t"]);
    }
    rig.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(rig.beat(c.leave(-1)).unwrap().epoch, -1);
    rig.settle(&mut [&mut a, &mut b]);
    assert_eq!(numbers(&a).len() + numbers(&b).len(), 4);
    rig.pass(SESSION_MS - 1);
    rig.follows(&mut a);
    rig.pass(1);
    rig.settle(&mut [&mut a]);
    assert_eq!(numbers(&a), [0, 1, 2, 3]);
    assert_eq!(rig.beat(b.beat()), Err(Error::UnknownMember));
    rig.beat(a.leave(-1)).unwrap();
    assert_eq!(rig.consumers().state, "Empty");
    let request = rig.ask(Ask::Delete { group: "g".into() });
    assert!(rig.answer(request).is_ok());
    assert_eq!(rig.beat(a.beat()), Err(Error::GroupIdNotFound));
}

#[test]
fn a_group_goes_by_the_times_that_were_set_for_it() {
    let mut rig = with_topic(1);
    let times = GroupTimes { session_ms: Some(2 * SESSION_MS), heartbeat_ms: Some(700) };
    rig.overrides.0.insert("g".into(), times);
    let mut a = Client::new("a");
    assert_eq!(rig.beat(a.join(&["t"])).unwrap().interval_ms, 700);
    a.epoch = 1;
    rig.pass(2 * SESSION_MS - 1);
    assert_eq!(rig.consumers().members.len(), 1, "it is not silent for too long");
    rig.overrides.0.clear();
    assert_eq!(rig.beat(a.beat()).unwrap().interval_ms, 1_000);
    rig.pass(SESSION_MS);
    assert_eq!(rig.consumers().members.len(), 0, "what is unset counts from the next heartbeat on");
}

#[test]
fn who_does_not_give_back_in_time_is_given_up() {
    let mut rig = with_topic(2);
    let (mut a, mut b) = (Client::new("a"), Client::new("b"));
    rig.joins(&mut a, &["t"]);
    rig.joins(&mut b, &["t"]);
    let stubborn = a.clone();
    rig.follows(&mut a);
    for _ in 0..REBALANCE_MS / 5_000 {
        rig.pass(5_000);
        rig.follows(&mut b);
        // It lives, and goes on reading.
        let _ = rig.beat(stubborn.beat());
    }
    assert_eq!(rig.beat(stubborn.beat()), Err(Error::UnknownMember));
    rig.settle(&mut [&mut b]);
    assert_eq!(numbers(&b), [0, 1]);
}

#[test]
fn an_answer_that_is_lost_is_given_again() {
    let mut rig = with_topic(2);
    let mut a = Client::new("a");
    let lost = rig.beat(a.join(&["t"])).unwrap();
    let again = rig.beat(a.join(&["t"])).unwrap();
    assert_eq!((again.epoch, &again.partitions), (lost.epoch, &lost.partitions));
    rig.joins(&mut a, &["t"]);
    // A new epoch that it did not hear of: it comes with the one before.
    rig.topics.set("t", 3);
    rig.beat(a.beat()).unwrap();
    let told = rig.beat(a.beat()).unwrap();
    assert_eq!(told.epoch, a.epoch + 1);
    let wrong = |epoch| ConsumerHeartbeat { epoch, ..a.beat() };
    assert_eq!(rig.beat(wrong(9)), Err(Error::FencedMemberEpoch));
    let foreign = Partitions::from([(rig.topics.id("t"), [7].into())]);
    assert_eq!(rig.beat(ConsumerHeartbeat { owned: Some(foreign), ..a.beat() }), Err(Error::FencedMemberEpoch));
    // Whoever is fenced joins again, at once.
    rig.joins(&mut a, &["t"]);
    assert_eq!(numbers(&a), [0, 1, 2]);
}

#[test]
fn topics_that_come_grow_and_go() {
    let mut rig = Rig::new();
    let mut a = Client::new("a");
    rig.joins(&mut a, &["t", "u"]);
    assert!(numbers(&a).is_empty());
    rig.topics.set("t", 2);
    rig.settle(&mut [&mut a]);
    rig.topics.set("u", 1);
    rig.settle(&mut [&mut a]);
    assert_eq!(a.owned.len(), 2);
    let epoch = a.epoch;
    rig.topics.set("other", 1);
    rig.settle(&mut [&mut a]);
    assert_eq!(a.epoch, epoch, "what nobody reads is nobody's concern");
    rig.topics.0.remove("t");
    rig.topics.1 += 1;
    rig.settle(&mut [&mut a]);
    assert_eq!((a.epoch, a.owned.len()), (epoch + 1, 1));
}

#[test]
fn regular_expressions_follow_the_topics() {
    let mut rig = Rig::new();
    rig.topics.set("logs-a", 1);
    rig.topics.set("other", 1);
    let mut a = Client::new("a");
    let join = |regex: &str| ConsumerHeartbeat { topics: None, regex: Some(regex.into()), ..a.join(&[]) };
    assert_eq!(rig.beat(join("logs-(")), Err(Error::InvalidRegex));
    let told = rig.beat(join("logs-.*")).unwrap();
    assert_eq!(told.partitions.unwrap().keys().copied().collect::<Vec<_>>(), [rig.topics.id("logs-a")]);
    a.epoch = told.epoch;
    a.owned = Partitions::from([(rig.topics.id("logs-a"), [0].into())]);
    // Not at every heartbeat, but soon.
    rig.topics.set("logs-b", 1);
    rig.follows(&mut a);
    assert_eq!(a.owned.len(), 1);
    rig.pass(5_000);
    rig.follows(&mut a);
    rig.pass(5_000);
    rig.settle(&mut [&mut a]);
    assert_eq!(a.owned.len(), 2);
    let changed = ConsumerHeartbeat { regex: Some(String::new()), topics: Some(["other".into()].into()), ..a.beat() };
    let told = rig.beat(changed).unwrap();
    assert_eq!(told.partitions, Some(Partitions::new()), "all is to be given back");
    a.owned = Partitions::new();
    rig.settle(&mut [&mut a]);
    assert_eq!(a.owned.keys().copied().collect::<Vec<_>>(), [rig.topics.id("other")]);
    assert_eq!(rig.consumers().members[0].regex, None);
}

#[test]
fn static_members_keep_their_places() {
    let mut rig = with_topic(4);
    let (mut a, mut b) = (Client::named("a", "one"), Client::named("b", "two"));
    rig.joins(&mut a, &["t"]);
    rig.joins(&mut b, &["t"]);
    rig.settle(&mut [&mut a, &mut b]);
    let (epoch, had) = (b.epoch, numbers(&b));
    assert_eq!(rig.beat(Client::named("b2", "two").join(&["t"])), Err(Error::UnreleasedInstance));
    assert_eq!(rig.beat(b.leave(-2)).unwrap().epoch, -2);
    let mut again = Client::named("b2", "two");
    rig.joins(&mut again, &["t"]);
    assert_eq!((again.epoch, numbers(&again)), (epoch, had), "without a rebalance");
    assert_eq!(rig.beat(a.beat()).unwrap().partitions, None);
    assert_eq!(rig.beat(b.beat()), Err(Error::FencedInstance));
    let stranger = Client { epoch: 3, ..Client::named("x", "three") };
    assert_eq!(rig.beat(stranger.beat()), Err(Error::UnknownMember));
    // Who does not come back in time has gone.
    rig.beat(again.leave(-2)).unwrap();
    rig.pass(SESSION_MS / 2);
    rig.follows(&mut a);
    rig.pass(SESSION_MS / 2);
    rig.settle(&mut [&mut a]);
    assert_eq!(numbers(&a).len(), 4);
}

#[test]
fn requests_that_contradict_themselves() {
    let mut rig = with_topic(1);
    let a = Client::new("a");
    let invalid = [
        ConsumerHeartbeat { member_id: String::new(), ..a.join(&["t"]) },
        ConsumerHeartbeat { rebalance_ms: None, ..a.join(&["t"]) },
        ConsumerHeartbeat { topics: None, ..a.join(&["t"]) },
        ConsumerHeartbeat { owned: None, ..a.join(&["t"]) },
        ConsumerHeartbeat { instance: Some(String::new()), ..a.join(&["t"]) },
        ConsumerHeartbeat { epoch: -3, ..a.beat() },
        ConsumerHeartbeat { epoch: -2, ..a.beat() },
    ];
    for heartbeat in invalid {
        assert_eq!(rig.beat(heartbeat), Err(Error::InvalidRequest));
    }
    let unknown = ConsumerHeartbeat { assignor: Some("sticky".into()), ..a.join(&["t"]) };
    assert_eq!(rig.beat(unknown), Err(Error::UnsupportedAssignor));
    assert_eq!(rig.beat(ConsumerHeartbeat { epoch: 1, ..a.beat() }), Err(Error::GroupIdNotFound));
    for n in 0..4 {
        rig.joins(&mut Client::new(&n.to_string()), &["t"]);
    }
    assert_eq!(rig.beat(a.join(&["t"])), Err(Error::MaxSizeReached));
}

#[test]
fn the_assignor_that_most_want_is_used() {
    let mut rig = with_topic(3);
    rig.topics.set("u", 3);
    let (mut a, mut b) = (Client::new("a"), Client::new("b"));
    for client in [&mut a, &mut b] {
        let told = rig.beat(ConsumerHeartbeat { assignor: Some("range".into()), ..client.join(&["t", "u"]) }).unwrap();
        (client.epoch, client.owned) = (told.epoch, told.partitions.unwrap());
    }
    rig.settle(&mut [&mut a, &mut b]);
    assert_eq!((numbers(&a).len(), numbers(&b).len()), (4, 2));
    assert_eq!(rig.consumers().assignor, "range");
}

#[test]
fn a_crash_loses_nothing_that_was_answered() {
    let mut rig = with_topic(4);
    let (mut a, mut b) = (Client::named("a", "one"), Client::new("b"));
    rig.joins(&mut a, &["t"]);
    rig.joins(&mut b, &["t"]);
    rig.follows(&mut a);
    let before = rig.consumers();
    let mut rig = rig.restart();
    assert_eq!(rig.consumers(), before);
    rig.settle(&mut [&mut a, &mut b]);
    let epochs = (a.epoch, b.epoch);
    let mut rig = rig.restart();
    rig.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.epoch, b.epoch), epochs, "no rebalance");
    // Who does not come any more is given up, as before.
    for _ in 0..3 {
        rig.pass(SESSION_MS / 2);
        rig.follows(&mut a);
    }
    rig.settle(&mut [&mut a]);
    assert_eq!(numbers(&a).len(), 4);
}

#[test]
fn nothing_is_told_before_it_is_durable_and_nothing_done_that_the_log_does_not_take() {
    let mut rig = with_topic(2);
    let mut a = Client::new("a");
    rig.durable = false;
    let request = rig.ask(Ask::ConsumerHeartbeat(Box::new(a.join(&["t"]))));
    assert!(rig.waits(request));
    rig.write();
    let told = assigned(&mut rig, request);
    (a.epoch, a.owned) = (told.epoch, told.partitions.unwrap());
    (rig.durable, rig.full) = (true, true);
    assert_eq!(rig.beat(Client::new("b").join(&["t"])), Err(Error::NotAvailable));
    rig.topics.set("t", 4);
    assert_eq!(rig.beat(a.beat()), Err(Error::NotAvailable));
    assert_eq!(rig.consumers().members.len(), 1);
    // A member whose time is up stays until the log takes that it has gone.
    rig.pass(SESSION_MS);
    assert_eq!(rig.consumers().members.len(), 1);
    rig.full = false;
    rig.settle(&mut [&mut a]);
    assert_eq!(numbers(&a).len(), 4, "what was seen of the topics is seen again");
}

// ---- both protocols ----

fn listed(rig: &mut Rig, types: &[&str]) -> Vec<Listed> {
    let types = types.iter().map(|name| (*name).to_owned()).collect();
    let request = rig.ask(Ask::List { states: Vec::new(), types });
    match rig.answer(request) {
        Ok(Reply::Listed(groups)) => groups,
        other => panic!("{other:?}"),
    }
}

/// What a member of the classic protocol is assigned in a group of the other: it joins and syncs.
fn classic_round(rig: &mut Rig, id: &str) -> (i32, Vec<i32>) {
    let request = rig.ask(Ask::Join(member(id)));
    let joined = rig.joined(request);
    assert_eq!((&*joined.leader, joined.members.len()), ("", 0));
    let request = rig.sync(joined.generation, id, &[]);
    let assignment = rig.assigned(request);
    let partitions: BTreeMap<String, Vec<i32>> =
        crate::group::subscription::parse_assignment(&assignment).expect("an assignment").into_iter().collect();
    (joined.generation, partitions.get("t").cloned().unwrap_or_default())
}

/// A stable classic group of two members, each with a half of the topic.
fn classic_pair(rig: &mut Rig) -> i32 {
    let requests = ["x", "y"].map(|id| rig.ask(Ask::Join(new_member(id))));
    rig.pass(DELAY_MS);
    rig.pass(DELAY_MS);
    let joined = requests.map(|request| rig.joined(request));
    let generation = joined[0].generation;
    let half = |numbers: &[i32]| crate::group::subscription::assignment(1, &[("t".into(), numbers.to_vec())]);
    let assignments = vec![("x".to_owned(), half(&[0, 1])), ("y".to_owned(), half(&[2, 3]))];
    let leader = joined[0].leader.clone();
    let identity = identity(generation, &leader);
    let sync = super::super::Sync { identity, protocol_type: None, protocol: None, assignments };
    let request = rig.ask(Ask::Sync(sync));
    assert!(rig.answer(request).is_ok());
    for id in ["x", "y"].into_iter().filter(|id| *id != leader) {
        let request = rig.sync(generation, id, &[]);
        assert!(rig.answer(request).is_ok());
    }
    generation
}

#[test]
fn a_classic_group_goes_over_member_by_member_and_back() {
    let mut rig = with_topic(4);
    let generation = classic_pair(&mut rig);
    let request = rig.ask(commit(identity(generation, "x"), &[("t", 0, 5)]));
    assert!(rig.answer(request).is_ok());
    assert_eq!(listed(&mut rig, &["classic"]).len(), 1);

    // The first member of the consumer protocol: the others go on with what they have, and are asked to come again.
    let mut a = Client::new("a");
    rig.joins(&mut a, &["t"]);
    assert_eq!((a.epoch, numbers(&a)), (generation + 1, vec![]));
    assert_eq!(listed(&mut rig, &["Consumer"]).len(), 1);
    assert!(rig.describe().is_none(), "it is no classic group any more");
    let request = rig.ask(commit(identity(generation, "x"), &[("t", 0, 6)]));
    assert!(rig.answer(request).is_ok(), "they are at their generation as before");
    let mut owned = BTreeMap::new();
    for _ in 0..4 {
        for id in ["x", "y"] {
            let epoch = rig.consumers().members.iter().find(|member| member.member_id == id).unwrap().epoch;
            if rig.heartbeat(epoch, id) == Err(Error::RebalanceInProgress) {
                owned.insert(id, classic_round(&mut rig, id));
            }
        }
        rig.follows(&mut a);
    }
    let total = owned.values().map(|(_, numbers)| numbers.len()).sum::<usize>() + numbers(&a).len();
    assert_eq!((rig.consumers().state, total), ("Stable", 4), "{owned:?} {a:?}");

    // It is all there after a crash. Then the last of the consumer protocol leaves.
    let mut rig = rig.restart();
    assert_eq!(rig.consumers().members.iter().filter(|member| member.is_classic).count(), 2);
    rig.beat(a.leave(-1)).unwrap();
    assert_eq!(listed(&mut rig, &["classic"]).len(), 1);
    let described = rig.describe().expect("it is a classic group again");
    assert_eq!(described.members.len(), 2);
    let requests = ["x", "y"].map(|id| rig.ask(Ask::Join(member(id))));
    let joined = requests.map(|request| rig.joined(request));
    assert!(joined[0].generation > generation + 1);
    rig.sync_all(&joined);
    let rig = &mut rig.restart();
    assert_eq!(rig.describe().unwrap().members.len(), 2);
}

#[test]
fn members_of_the_classic_protocol_are_given_up_and_leave() {
    let mut rig = with_topic(4);
    let generation = classic_pair(&mut rig);
    let mut a = Client::new("a");
    rig.joins(&mut a, &["t"]);
    // One leaves; the other is told to come again and does not, though it lives.
    let request = rig.ask(leave(&["x", "nobody"]));
    let Ok(Reply::Left(results)) = rig.answer(request) else { panic!("no answer to each") };
    assert_eq!(results, [Ok(()), Err(Error::UnknownMember)]);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(rig.heartbeat(generation, "y"), Err(Error::RebalanceInProgress));
        rig.follows(&mut a);
        rig.pass(5_000);
    }
    assert_eq!(rig.heartbeat(generation, "y"), Err(Error::UnknownMember));
    rig.settle(&mut [&mut a]);
    assert_eq!(numbers(&a).len(), 4);
    let wrong = rig.sync(a.epoch, "a", &[]);
    assert_eq!(rig.answer(wrong).unwrap_err(), Error::UnknownMember, "it does not speak that protocol");
    let by_name = Leaver { member_id: String::new(), instance: Some("one".into()) };
    let request = rig.ask(Ask::Leave { group: "g".into(), members: vec![by_name] });
    assert!(matches!(rig.answer(request), Ok(Reply::Left(results)) if results == [Err(Error::UnknownMember)]));
}

#[test]
fn groups_without_members_change_their_protocol_freely() {
    let mut rig = with_topic(2);
    let simple = Identity { generation: -1, ..identity(-1, "") };
    let request = rig.ask(commit(simple.clone(), &[("t", 0, 5)]));
    assert!(rig.answer(request).is_ok());
    let mut a = Client::new("a");
    rig.joins(&mut a, &["t"]);
    assert_eq!(rig.refused(commit(simple.clone(), &[("t", 0, 6)])), Error::UnknownMember);
    rig.beat(a.leave(-1)).unwrap();
    let request = rig.ask(commit(simple, &[("t", 0, 6)]));
    assert!(rig.answer(request).is_ok());
    let generation = rig.stable(&["m"]);
    assert_eq!(generation, 1);
    // A classic group of some other kind stays what it is.
    let mut rig = rig.restart();
    assert_eq!(rig.heartbeat(generation, "m"), Ok(()));
    let request = rig.ask(leave(&["m"]));
    assert!(rig.answer(request).is_ok());
    rig.joins(&mut Client::new("a2"), &["t"]);
    let rig = &mut rig.restart();
    assert_eq!(rig.consumers().members.len(), 1);
    assert!(rig.log_has(|record| matches!(record, Record::Consumer { .. })));
}

// ---- by chance ----

/// What happens next to the member of a number.
#[derive(Clone, Copy, Debug)]
enum Act {
    Beat(usize),
    /// It hears nothing of the answer.
    BeatUnheard(usize),
    Leave(usize),
    /// It goes without a word, and a new one comes in its place.
    Vanish(usize),
    Grow,
    Restart,
    Pass,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (0usize..4).prop_map(Act::Beat),
        3 => (0usize..4).prop_map(Act::BeatUnheard),
        1 => (0usize..4).prop_map(Act::Leave),
        1 => (0usize..4).prop_map(Act::Vanish),
        1 => Just(Act::Grow),
        1 => Just(Act::Restart),
        2 => Just(Act::Pass),
    ]
}

/// A heartbeat of a client, which joins where it is none of the group's. Says whether it was taken.
fn one_beat(rig: &mut Rig, client: &mut Client, hears: bool) -> bool {
    let joins = client.join(&["t"]);
    let heartbeat = match client.epoch {
        0 => joins,
        // As clients do where an answer did not come: they say everything again, and are told everything.
        _ if client.unsure => ConsumerHeartbeat { epoch: client.epoch, owned: Some(client.owned.clone()), ..joins },
        _ => client.beat(),
    };
    client.unsure = !hears;
    match rig.beat(heartbeat) {
        Ok(told) if hears => {
            assert!(told.epoch >= client.epoch, "an epoch goes back");
            client.epoch = told.epoch;
            client.owned = told.partitions.unwrap_or(client.owned.clone());
            true
        }
        Ok(_) => true,
        Err(Error::UnknownMember | Error::FencedMemberEpoch | Error::GroupIdNotFound) => {
            (client.epoch, client.owned) = (0, Partitions::new());
            false
        }
        // Those who went without a word still have their places.
        Err(Error::MaxSizeReached) => false,
        Err(error) => panic!("{error:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_partition_is_read_by_two_whatever_happens(acts in prop::collection::vec(act(), 1..120)) {
        let mut rig = with_topic(3);
        let mut clients: Vec<Client> = (0..4).map(|number| Client::new(&format!("m{number}"))).collect();
        // When each was last taken for a member; one that was not for the length of a session reads nothing more.
        let mut heard = [rig.now.mono; 4];
        let (mut size, mut born) = (3, 4);
        for act in acts {
            match act {
                Act::Beat(at) | Act::BeatUnheard(at) => {
                    let hears = matches!(act, Act::Beat(_));
                    if one_beat(&mut rig, &mut clients[at], hears) && hears {
                        heard[at] = rig.now.mono;
                    }
                }
                Act::Leave(at) => {
                    let _ = rig.beat(clients[at].leave(-1));
                    (clients[at].epoch, clients[at].owned) = (0, Partitions::new());
                }
                Act::Vanish(at) => {
                    clients[at] = Client::new(&format!("m{born}"));
                    born += 1;
                }
                Act::Grow => {
                    size += 1;
                    rig.topics.set("t", size);
                }
                Act::Restart => rig = rig.restart(),
                Act::Pass => rig.pass(SESSION_MS / 5),
            }
            let mut all = BTreeSet::new();
            for (client, heard) in clients.iter_mut().zip(heard) {
                if heard.plus_millis(SESSION_MS) <= rig.now.mono {
                    client.owned = Partitions::new();
                    client.epoch = 0;
                }
                for number in numbers(client) {
                    prop_assert!(all.insert(number), "{number} is read twice after {act:?}: {clients:?}");
                }
            }
        }
        // All is well from now on: whoever is gone is given up, and the others share everything.
        for _ in 0..30 {
            rig.pass(SESSION_MS / 5);
            clients.iter_mut().for_each(|client| {
                one_beat(&mut rig, client, true);
            });
        }
        prop_assert_eq!(rig.consumers().state, "Stable");
        prop_assert_eq!(clients.iter().map(|client| numbers(client).len()).sum::<usize>(), size as usize);
    }
}
