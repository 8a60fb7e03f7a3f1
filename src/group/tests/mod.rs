//! The machine on its own: a clock that is set, a disk that is durable when the test says so.

mod offsets;
mod rebalance;
mod recovery;
mod statics;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::types::ShardId;

/// The delay of a first rebalance.
pub(super) const DELAY_MS: u64 = 3_000;
pub(super) const SESSION_MS: u64 = 10_000;
pub(super) const REBALANCE_MS: u64 = 60_000;

/// The topics that there are, by name, with their ids and sizes.
#[derive(Clone, Default)]
pub(super) struct TestTopics(pub(super) BTreeMap<String, (Uuid, i32)>, pub(super) u64);

impl TestTopics {
    /// Adds a topic, or changes its size.
    pub(super) fn set(&mut self, name: &str, partitions: i32) {
        let next = Uuid::from_u128(self.0.len() as u128 + 1);
        let id = self.0.get(name).map_or(next, |known| known.0);
        self.0.insert(name.into(), (id, partitions));
        self.1 += 1;
    }

    pub(super) fn id(&self, name: &str) -> Uuid {
        self.0[name].0
    }
}

impl Topics for TestTopics {
    fn version(&self) -> u64 {
        self.1
    }

    fn by_name(&self, name: &str) -> Option<KnownTopic> {
        let (id, partitions) = *self.0.get(name)?;
        Some(KnownTopic { id, name: name.into(), partitions })
    }

    fn by_id(&self, id: Uuid) -> Option<KnownTopic> {
        let name = self.0.iter().find(|(_, known)| known.0 == id)?.0;
        self.by_name(name)
    }

    fn each_name(&self, each: &mut dyn FnMut(&str)) {
        self.0.keys().for_each(|name| each(name));
    }
}

#[derive(Clone, Default)]
pub(super) struct TestOverrides(pub(super) BTreeMap<String, GroupTimes>);

impl Overrides for TestOverrides {
    fn of(&self, group: &str) -> GroupTimes {
        self.0.get(group).copied().unwrap_or_default()
    }
}

/// The groups with their disk and their clients.
pub(super) struct Rig {
    groups: Groups,
    pub(super) now: Now,
    pub(super) topics: TestTopics,
    pub(super) overrides: TestOverrides,
    /// Records that are durable.
    log: Vec<Record>,
    /// Whether writes are durable at once; otherwise they wait.
    pub(super) durable: bool,
    /// Whether the log takes no changes.
    pub(super) full: bool,
    waiting: Vec<Write>,
    /// Answers that wait for those writes.
    held: Vec<(Waiter, Result<Reply, Error>)>,
    next: u64,
    answers: BTreeMap<u64, Result<Reply, Error>>,
}

fn settings() -> Settings {
    Settings {
        initial_rebalance_delay_ms: DELAY_MS,
        max_size: 4,
        offsets_retention_ms: 60_000,
        consumer_session_ms: SESSION_MS,
        consumer_heartbeat_ms: 1_000,
        consumer_assignment_ms: 0,
        consumer_max_size: 4,
        assignors: vec![Assignor::Uniform, Assignor::Range],
        upgrade: true,
        downgrade: true,
    }
}

impl Rig {
    pub(super) fn new() -> Rig {
        Rig {
            groups: Groups::new(settings()),
            now: Now { mono: Mono(1_000_000), wall_ms: 1_700_000_000_000 },
            topics: TestTopics::default(),
            overrides: TestOverrides::default(),
            log: Vec::new(),
            durable: true,
            full: false,
            waiting: Vec::new(),
            held: Vec::new(),
            next: 0,
            answers: BTreeMap::new(),
        }
    }

    /// Lets groups of the consumer protocol have a new assignment so often at most.
    pub(super) fn assign_every(&mut self, millis: u64) {
        self.groups.settings.consumer_assignment_ms = millis;
    }

    /// What is left of the broker after a crash: the durable records.
    pub(super) fn restart(self) -> Rig {
        let mut rig = Rig {
            now: self.now,
            topics: self.topics,
            overrides: self.overrides,
            log: self.log,
            next: self.next,
            ..Rig::new()
        };
        for record in rig.log.clone() {
            let at = Outside { now: rig.now, topics: &rig.topics, overrides: &rig.overrides };
            rig.groups.replay(at, Record::decode(&record.encode()).unwrap().unwrap());
        }
        rig
    }

    pub(super) fn ask(&mut self, ask: Ask) -> u64 {
        self.next += 1;
        let waiter = Waiter { shard: ShardId(0), number: self.next, part: 0 };
        self.groups.ask(Outside { now: self.now, topics: &self.topics, overrides: &self.overrides }, waiter, ask);
        self.carry_out();
        self.next
    }

    fn carry_out(&mut self) {
        loop {
            let outputs = self.groups.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Answer(waiter, result) => self.answered(waiter, result),
                    Output::AnswerDurable(waiter, result) if self.waiting.is_empty() => self.answered(waiter, result),
                    Output::AnswerDurable(waiter, result) => self.held.push((waiter, result)),
                    Output::Change(write) if self.full => {
                        let at = Outside { now: self.now, topics: &self.topics, overrides: &self.overrides };
                        self.groups.failed(at, &write.group, write.then, Error::NotAvailable);
                    }
                    Output::Change(write) => {
                        let at = Outside { now: self.now, topics: &self.topics, overrides: &self.overrides };
                        self.groups.appended(at, &write.group, &write.records);
                        self.waiting.push(write);
                        if self.durable {
                            self.write();
                        }
                    }
                    Output::Write(write) => {
                        assert!(!write.records.is_empty());
                        self.waiting.push(write);
                        if self.durable {
                            self.write();
                        }
                    }
                }
            }
        }
    }

    pub(super) fn log_has(&self, is: impl Fn(&Record) -> bool) -> bool {
        self.log.iter().any(is)
    }

    fn answered(&mut self, waiter: Waiter, result: Result<Reply, Error>) {
        let before = self.answers.insert(waiter.number, result);
        assert!(before.is_none(), "request {} is answered twice", waiter.number);
    }

    /// All that waits for the disk becomes durable.
    pub(super) fn write(&mut self) {
        for write in std::mem::take(&mut self.waiting) {
            self.log.extend(write.records.iter().cloned());
            self.groups.written(
                Outside { now: self.now, topics: &self.topics, overrides: &self.overrides },
                &write.group,
                write.records,
                Some(write.then),
            );
        }
        for (waiter, result) in std::mem::take(&mut self.held) {
            self.answered(waiter, result);
        }
        self.carry_out();
    }

    /// All that waits for the disk is refused.
    fn refuse(&mut self) {
        for write in std::mem::take(&mut self.waiting) {
            self.groups.failed(
                Outside { now: self.now, topics: &self.topics, overrides: &self.overrides },
                &write.group,
                write.then,
                Error::NotAvailable,
            );
        }
        self.carry_out();
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now.mono = self.now.mono.plus_millis(millis);
        self.now.wall_ms += millis as i64;
        self.groups.tick(Outside { now: self.now, topics: &self.topics, overrides: &self.overrides });
        self.carry_out();
    }

    /// Time passes while these members are heard of.
    fn pass_alive(&mut self, millis: u64, generation: i32, members: &[&str]) {
        let step = SESSION_MS / 2;
        for _ in 0..millis / step {
            self.pass(step);
            for member in members {
                self.ask(Ask::Heartbeat(identity(generation, member)));
            }
        }
        self.pass(millis % step);
    }

    pub(super) fn answer(&mut self, request: u64) -> Result<Reply, Error> {
        self.answers.remove(&request).expect("an answer")
    }

    pub(super) fn waits(&self, request: u64) -> bool {
        !self.answers.contains_key(&request)
    }

    pub(super) fn joined(&mut self, request: u64) -> Joined {
        match self.answer(request) {
            Ok(Reply::Joined(joined)) => *joined,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn assigned(&mut self, request: u64) -> Bytes {
        match self.answer(request) {
            Ok(Reply::Synced(synced)) => synced.assignment,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, generation: i32, member: &str) -> Result<(), Error> {
        let request = self.ask(Ask::Heartbeat(identity(generation, member)));
        self.answer(request).map(|_| ())
    }

    pub(super) fn describe(&mut self) -> Option<Described> {
        let request = self.ask(Ask::Describe { group: "g".into() });
        match self.answer(request) {
            Ok(Reply::Described(described)) => described.map(|described| *described),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn state(&mut self) -> State {
        self.describe().expect("the group is there").state
    }

    /// The error of a request that is answered at once.
    pub(super) fn refused(&mut self, ask: Ask) -> Error {
        let request = self.ask(ask);
        self.answer(request).expect_err("refused")
    }

    pub(super) fn sync(&mut self, generation: i32, member: &str, assignments: &[(&str, &str)]) -> u64 {
        let assignments =
            assignments.iter().map(|(id, text)| ((*id).into(), Bytes::copy_from_slice(text.as_bytes()))).collect();
        let identity = identity(generation, member);
        self.ask(Ask::Sync(Sync { identity, protocol_type: None, protocol: None, assignments }))
    }

    /// A stable generation of these members; the first that is named leads it. Each is assigned its own name.
    pub(super) fn stable(&mut self, members: &[&str]) -> i32 {
        let requests: Vec<u64> = members.iter().map(|member| self.ask(Ask::Join(new_member(member)))).collect();
        self.pass(DELAY_MS);
        while requests.iter().any(|request| self.waits(*request)) {
            self.pass(DELAY_MS);
        }
        let joined: Vec<Joined> = requests.into_iter().map(|request| self.joined(request)).collect();
        self.sync_all(&joined)
    }

    /// Every member of a generation gets its own name as its assignment.
    pub(super) fn sync_all(&mut self, joined: &[Joined]) -> i32 {
        let generation = joined[0].generation;
        let assignments: Vec<(&str, &str)> =
            joined.iter().map(|joined| (joined.member_id.as_str(), joined.member_id.as_str())).collect();
        let mut requests = Vec::new();
        for one in joined {
            let leads = one.leader == one.member_id;
            let brought = if leads { &assignments[..] } else { &[] };
            requests.push((self.sync(generation, &one.member_id, brought), one.member_id.clone()));
        }
        for (request, member) in requests {
            assert_eq!(self.assigned(request), member.as_bytes());
        }
        assert_eq!(self.state(), State::Stable);
        generation
    }
}

pub(super) fn identity(generation: i32, member: &str) -> Identity {
    Identity { group: "g".into(), generation, member_id: member.into(), instance: None }
}

/// The join of a member that is new, in an old version that needs no id, and gets the id `id`.
pub(super) fn new_member(id: &str) -> Join {
    Join {
        group: "g".into(),
        member_id: String::new(),
        fresh_id: id.into(),
        id_required: false,
        can_skip_assignment: true,
        instance: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_ms: SESSION_MS,
        rebalance_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", &["t"]), protocol("roundrobin", &["t"])],
        reason: None,
    }
}

/// The join of a member that is one already.
pub(super) fn member(id: &str) -> Join {
    Join { member_id: id.into(), ..new_member(id) }
}

/// A protocol of a consumer that reads these topics.
pub(super) fn protocol(name: &str, topics: &[&str]) -> (String, Bytes) {
    let mut bytes = vec![0, 0, 0, 0, 0, topics.len() as u8];
    for topic in topics {
        bytes.extend([0, topic.len() as u8]);
        bytes.extend_from_slice(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    (name.into(), bytes.into())
}

pub(super) fn leave(members: &[&str]) -> Ask {
    let members = members.iter().map(|id| Leaver { member_id: (*id).into(), instance: None }).collect();
    Ask::Leave { group: "g".into(), members }
}

pub(super) fn committed(offset: i64) -> Committed {
    Committed { offset, epoch: 2, metadata: "m".into(), time_ms: 1_700_000_000_000 }
}

pub(super) fn commit(identity: Identity, offsets: &[(&str, i32, i64)]) -> Ask {
    let offsets = offsets.iter().map(|(topic, partition, offset)| (Arc::from(*topic), *partition, committed(*offset)));
    Ask::Commit(Commit { identity, is_modern: true, offsets: offsets.collect() })
}

#[test]
fn groups_come_and_go_without_a_trace() {
    let mut rig = Rig::new();
    let request = rig.ask(Ask::Join(Join { id_required: true, ..new_member("m") }));
    assert!(matches!(rig.answer(request), Ok(Reply::IdRequired(id)) if id == "m"));
    assert_eq!(rig.groups.len(), 1);
    rig.pass(SESSION_MS);
    assert!(rig.groups.is_empty(), "nobody came back with the id");
    assert!(rig.log.is_empty() && rig.groups.alarms.is_empty() && rig.groups.bytes == 0);
}

#[test]
fn what_is_asked_of_a_group_that_is_not_there() {
    let mut rig = Rig::new();
    assert_eq!(rig.refused(Ask::Join(member("m"))), Error::UnknownMember);
    assert_eq!(rig.heartbeat(1, "m"), Err(Error::UnknownMember));
    let request = rig.sync(1, "m", &[]);
    assert_eq!(rig.answer(request).unwrap_err(), Error::UnknownMember);
    let request = rig.ask(leave(&["m", "n"]));
    let Ok(Reply::Left(results)) = rig.answer(request) else { panic!("no answer to each") };
    assert_eq!(results, [Err(Error::UnknownMember); 2]);
    assert_eq!(rig.refused(Ask::Delete { group: "g".into() }), Error::GroupIdNotFound);
    assert_eq!(rig.refused(commit(identity(3, "m"), &[("t", 0, 1)])), Error::GroupIdNotFound);
    assert_eq!(rig.describe(), None);
    assert!(rig.groups.is_empty());
}

#[test]
fn lists_by_state() {
    let mut rig = Rig::new();
    rig.stable(&["a"]);
    let request = rig.ask(commit(Identity { group: "simple".into(), ..identity(-1, "") }, &[("t", 0, 1)]));
    rig.answer(request).unwrap();
    let listed = |rig: &mut Rig, states: &[&str]| {
        let request =
            rig.ask(Ask::List { states: states.iter().map(|state| (*state).to_owned()).collect(), types: Vec::new() });
        let Ok(Reply::Listed(groups)) = rig.answer(request) else { panic!("no list") };
        groups.into_iter().map(|group| (group.group, group.protocol_type, group.state)).collect::<Vec<_>>()
    };
    let stable = ("g".to_owned(), "consumer".to_owned(), State::Stable.name());
    let simple = ("simple".to_owned(), String::new(), State::Empty.name());
    assert_eq!(listed(&mut rig, &[]), [stable.clone(), simple.clone()]);
    assert_eq!(listed(&mut rig, &[" stable "]), [stable]);
    assert_eq!(listed(&mut rig, &["EMPTY", "nonsense"]), [simple]);
}

#[test]
fn whoever_waits_is_answered_when_the_groups_go() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let joining = rig.ask(Ask::Join(member("a")));
    assert_eq!(rig.heartbeat(generation, "b"), Err(Error::RebalanceInProgress));
    rig.groups.release(Error::NotCoordinator);
    rig.carry_out();
    assert_eq!(rig.answer(joining).unwrap_err(), Error::NotCoordinator);
}
