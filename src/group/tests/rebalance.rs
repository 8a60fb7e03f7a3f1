//! Joining, syncing, leaving, and what time does to those who do none of it.

use std::cell::RefCell;
use std::io;

use super::*;

thread_local! {
    /// What this thread has logged.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes to [`LOG`].
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_name_that_a_client_made_up_begins_no_line_of_the_log() {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut rig = Rig::new();
        rig.ask(Ask::Join(Join { group: "g\nforged".into(), ..new_member("a") }));
        rig.pass(DELAY_MS);
        rig.pass(REBALANCE_MS);
    });
    let log = String::from_utf8(LOG.take()).unwrap();
    assert!(log.contains(r#"group="g\nforged""#) && log.lines().all(|line| !line.starts_with("forged")), "{log}");
}

#[test]
fn a_first_generation_waits_for_those_who_start_together() {
    let mut rig = Rig::new();
    let a = rig.ask(Ask::Join(new_member("a")));
    rig.pass(DELAY_MS - 1);
    let b = rig.ask(Ask::Join(new_member("b")));
    rig.pass(1);
    assert!(rig.waits(a), "someone came: the group waits again");
    rig.pass(DELAY_MS);
    let (a, b) = (rig.joined(a), rig.joined(b));
    assert_eq!((a.generation, &*a.leader, a.members.len()), (1, "a", 2));
    assert_eq!((b.generation, &*b.leader, b.members.len()), (1, "a", 0), "only the leader is told of the others");
    assert_eq!((a.protocol.as_deref(), a.protocol_type.as_deref()), (Some("range"), Some("consumer")));
    assert_eq!(rig.state(), State::CompletingRebalance);
    rig.sync_all(&[a, b]);
    let described = rig.describe().unwrap();
    assert_eq!((&*described.protocol_type, &*described.protocol), ("consumer", "range"));
    let first = &described.members[0];
    assert_eq!((&*first.member_id, &*first.client_id, &*first.client_host), ("a", "client", "/127.0.0.1"));
    assert_eq!((&first.metadata, &first.assignment[..]), (&protocol("range", &["t"]).1, &b"a"[..]));
}

#[test]
fn the_first_wait_has_an_end() {
    let mut rig = Rig::new();
    let short = |id| Join { rebalance_ms: 5_000, ..new_member(id) };
    let a = rig.ask(Ask::Join(short("a")));
    rig.pass(2_000);
    rig.ask(Ask::Join(short("b")));
    rig.pass(1_000);
    rig.ask(Ask::Join(short("c")));
    rig.pass(1_999);
    assert!(rig.waits(a));
    rig.pass(1);
    assert_eq!(rig.joined(a).members.len(), 3, "after the rebalance timeout nobody is waited for any more");
}

#[test]
fn a_new_member_must_come_again_with_its_id() {
    let mut rig = Rig::new();
    let request = rig.ask(Ask::Join(Join { id_required: true, ..new_member("a") }));
    assert!(matches!(rig.answer(request), Ok(Reply::IdRequired(id)) if id == "a"));
    let joining = rig.ask(Ask::Join(Join { id_required: true, ..member("a") }));
    assert!(rig.waits(joining));
    rig.pass(DELAY_MS);
    assert_eq!(rig.joined(joining).member_id, "a");
    assert_eq!(rig.refused(Ask::Join(member("stranger"))), Error::UnknownMember);
}

#[test]
fn a_rebalance_waits_for_an_id_that_was_given_out() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    let request = rig.ask(Ask::Join(Join { id_required: true, ..new_member("b") }));
    assert!(matches!(rig.answer(request), Ok(Reply::IdRequired(_))));
    assert_eq!(rig.heartbeat(generation, "a"), Ok(()), "nothing begins before the member is one");
    let a = rig.ask(Ask::Join(Join { protocols: vec![protocol("range", &["u"])], ..member("a") }));
    assert!(rig.waits(a), "the other may come at any moment");
    let b = rig.ask(Ask::Join(member("b")));
    assert_eq!((rig.joined(a).generation, rig.joined(b).generation), (generation + 1, generation + 1));
}

#[test]
fn members_that_come_and_go_cause_rebalances() {
    let mut rig = Rig::new();
    let first = rig.stable(&["a"]);
    let b = rig.ask(Ask::Join(new_member("b")));
    assert_eq!(rig.heartbeat(first, "a"), Err(Error::RebalanceInProgress));
    assert!(rig.waits(b));
    let a = rig.ask(Ask::Join(member("a")));
    let (a, b) = (rig.joined(a), rig.joined(b));
    assert_eq!((a.generation, b.generation, &*b.leader), (first + 1, first + 1, "a"));
    let second = rig.sync_all(&[a, b]);
    assert_eq!(rig.heartbeat(second, "b"), Ok(()));
    assert_eq!(rig.heartbeat(first, "b"), Err(Error::IllegalGeneration));

    let request = rig.ask(leave(&["a", "nobody"]));
    let Ok(Reply::Left(results)) = rig.answer(request) else { panic!("no answer to each") };
    assert_eq!(results, [Ok(()), Err(Error::UnknownMember)]);
    assert_eq!(rig.heartbeat(second, "b"), Err(Error::RebalanceInProgress));
    let b = rig.ask(Ask::Join(member("b")));
    let b = rig.joined(b);
    assert_eq!((b.generation, &*b.leader), (second + 1, "b"));
    rig.sync_all(&[b]);
    rig.ask(leave(&["b"]));
    assert_eq!(rig.state(), State::Empty);
}

#[test]
fn who_does_not_come_in_time_is_left_behind() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let b = rig.ask(Ask::Join(Join { protocols: vec![protocol("range", &["u"])], ..member("b") }));
    // The leader hears of it by its heartbeats, lives on and does not come.
    rig.pass_alive(REBALANCE_MS - 1, generation, &["a"]);
    assert!(rig.waits(b));
    rig.pass(1);
    let b = rig.joined(b);
    assert_eq!((b.generation, &*b.leader, b.members.len()), (generation + 1, "b", 1));
    assert_eq!(rig.heartbeat(generation, "a"), Err(Error::UnknownMember));
}

#[test]
fn silence_ends_a_membership() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    rig.pass(SESSION_MS - 1);
    assert_eq!(rig.heartbeat(generation, "a"), Ok(()));
    rig.pass(1);
    assert_eq!(rig.heartbeat(generation, "a"), Err(Error::RebalanceInProgress), "b was not heard of");
    assert_eq!(rig.heartbeat(generation, "b"), Err(Error::UnknownMember));
    rig.pass(SESSION_MS);
    assert_eq!(rig.state(), State::Empty);
}

#[test]
fn a_new_member_is_given_up_while_it_waits() {
    let mut rig = Rig::new();
    let long = 3_600_000;
    let slow = |join: Join| Join { rebalance_ms: long, session_ms: long, ..join };
    let requests = [rig.ask(Ask::Join(slow(new_member("a"))))];
    rig.pass(DELAY_MS);
    let joined = requests.map(|request| rig.joined(request));
    rig.sync_all(&joined);
    let b = rig.ask(Ask::Join(slow(new_member("b"))));
    rig.pass(crate::limits::NEW_MEMBER_JOIN_MS - 1);
    assert!(rig.waits(b));
    rig.pass(1);
    assert_eq!(rig.answer(b).unwrap_err(), Error::UnknownMember);
}

#[test]
fn who_does_not_ask_for_its_assignment_is_removed() {
    let mut rig = Rig::new();
    let (a, b) = (rig.ask(Ask::Join(new_member("a"))), rig.ask(Ask::Join(new_member("b"))));
    rig.pass(DELAY_MS);
    rig.pass(DELAY_MS);
    let (a, _b) = (rig.joined(a), rig.joined(b));
    let sync = rig.sync(a.generation, "b", &[]);
    rig.pass_alive(REBALANCE_MS - 1, a.generation, &["a"]);
    assert!(rig.waits(sync));
    rig.pass(1);
    assert_eq!(rig.answer(sync).unwrap_err(), Error::RebalanceInProgress, "the leader brought none");
    assert_eq!(rig.heartbeat(a.generation, "a"), Err(Error::UnknownMember));
    assert_eq!(rig.heartbeat(a.generation, "b"), Err(Error::RebalanceInProgress));
}

#[test]
fn a_member_that_lost_its_answer_gets_it_again() {
    let mut rig = Rig::new();
    let (a, b) = (rig.ask(Ask::Join(new_member("a"))), rig.ask(Ask::Join(new_member("b"))));
    rig.pass(DELAY_MS);
    rig.pass(DELAY_MS);
    let (a, b) = (rig.joined(a), rig.joined(b));
    let again = rig.ask(Ask::Join(member("a")));
    assert_eq!(rig.joined(again), a);
    let again = rig.ask(Ask::Join(member("b")));
    assert_eq!(rig.joined(again), b);
    let generation = rig.sync_all(&[a, b.clone()]);
    let again = rig.ask(Ask::Join(member("b")));
    assert_eq!(rig.joined(again), b, "without a rebalance");
    let again = rig.sync(generation, "b", &[]);
    assert_eq!(rig.assigned(again), "b");
    // A leader joins again to have a rebalance.
    let a = rig.ask(Ask::Join(member("a")));
    assert!(rig.waits(a));
    assert_eq!(rig.heartbeat(generation, "b"), Err(Error::RebalanceInProgress));
}

#[test]
fn the_newest_of_two_joins_counts() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let first = rig.ask(Ask::Join(member("a")));
    let second = rig.ask(Ask::Join(member("a")));
    assert_eq!(rig.answer(first).unwrap_err(), Error::RebalanceInProgress);
    let b = rig.ask(Ask::Join(member("b")));
    assert_eq!((rig.joined(second).generation, rig.joined(b).generation), (generation + 1, generation + 1));
}

#[test]
fn the_protocol_is_one_that_all_know_and_most_like() {
    let mut rig = Rig::new();
    let with = |id, names: &[&str]| {
        let protocols = names.iter().map(|name| protocol(name, &["t"])).collect();
        Join { protocols, ..new_member(id) }
    };
    let a = rig.ask(Ask::Join(with("a", &["x", "y", "z"])));
    rig.ask(Ask::Join(with("b", &["z", "y"])));
    rig.ask(Ask::Join(with("c", &["w", "y", "z"])));
    assert_eq!(rig.refused(Ask::Join(with("d", &["w", "x"]))), Error::InconsistentProtocol);
    assert_eq!(rig.refused(Ask::Join(with("d", &[]))), Error::InconsistentProtocol);
    let other = Join { protocol_type: "connect".into(), ..with("d", &["y"]) };
    assert_eq!(rig.refused(Ask::Join(other)), Error::InconsistentProtocol);
    rig.pass(2 * DELAY_MS);
    rig.pass(DELAY_MS);
    let a = rig.joined(a);
    assert_eq!(a.protocol.as_deref(), Some("y"));

    let says = |protocol_type: Option<&str>, protocol: Option<&str>| {
        Ask::Sync(Sync {
            identity: identity(1, "a"),
            protocol_type: protocol_type.map(str::to_owned),
            protocol: protocol.map(str::to_owned),
            assignments: Vec::new(),
        })
    };
    assert_eq!(rig.refused(says(Some("connect"), None)), Error::InconsistentProtocol);
    assert_eq!(rig.refused(says(Some("consumer"), Some("z"))), Error::InconsistentProtocol);
}

#[test]
fn a_type_and_a_protocol_are_needed() {
    let mut rig = Rig::new();
    let untyped = Join { protocol_type: String::new(), ..new_member("a") };
    assert_eq!(rig.refused(Ask::Join(untyped)), Error::InconsistentProtocol);
    let mute = Join { protocols: Vec::new(), ..new_member("a") };
    assert_eq!(rig.refused(Ask::Join(mute)), Error::InconsistentProtocol);
    assert!(rig.groups.is_empty());
}

#[test]
fn a_group_has_a_largest_size() {
    let mut rig = Rig::new();
    let names = ["a", "b", "c", "d"];
    let generation = rig.stable(&names);
    assert_eq!(rig.refused(Ask::Join(new_member("e"))), Error::MaxSizeReached);
    assert_eq!(rig.heartbeat(generation, "a"), Ok(()));
    let large = "x".repeat(crate::limits::MAX_GROUP_BYTES);
    let large = vec![("range".to_owned(), Bytes::from(large))];
    assert_eq!(rig.refused(Ask::Join(Join { protocols: large, ..member("a") })), Error::MaxSizeReached);
    // Ids that are given out are no members, but are not endless either.
    let mut rig = Rig::new();
    for name in names {
        rig.ask(Ask::Join(Join { id_required: true, ..new_member(name) }));
    }
    assert_eq!(rig.refused(Ask::Join(Join { id_required: true, ..new_member("e") })), Error::MaxSizeReached);
}

#[test]
fn absurd_timeouts_do_no_harm() {
    let mut rig = Rig::new();
    let join = |id, ms| Join { session_ms: ms, rebalance_ms: ms, ..new_member(id) };
    let never = rig.ask(Ask::Join(join("never", u64::MAX)));
    let at_once = rig.ask(Ask::Join(join("at-once", 0)));
    rig.pass(2 * DELAY_MS);
    rig.pass(DELAY_MS);
    let (never, at_once) = (rig.joined(never), rig.joined(at_once));
    assert_eq!((never.generation, at_once.generation), (1, 1));
    rig.pass(1);
    assert_eq!(rig.heartbeat(1, "at-once"), Err(Error::UnknownMember));
    rig.pass(1_000_000_000);
    assert_eq!(rig.heartbeat(1, "never"), Err(Error::RebalanceInProgress));
}

#[test]
fn assignments_are_given_out_when_they_are_durable() {
    let mut rig = Rig::new();
    let (a, b) = (rig.ask(Ask::Join(new_member("a"))), rig.ask(Ask::Join(new_member("b"))));
    rig.pass(DELAY_MS);
    rig.pass(DELAY_MS);
    let (a, _) = (rig.joined(a), rig.joined(b));
    rig.durable = false;
    let follower = rig.sync(a.generation, "b", &[]);
    let leader = rig.sync(a.generation, "a", &[("a", "1"), ("stranger", "2")]);
    assert!(rig.waits(follower) && rig.waits(leader));
    assert_eq!(rig.state(), State::CompletingRebalance);
    rig.write();
    assert_eq!((rig.assigned(leader), rig.assigned(follower)), (Bytes::from("1"), Bytes::new()));
    assert_eq!(rig.state(), State::Stable);
}

#[test]
fn assignments_that_cannot_be_stored_are_not_given_out() {
    let mut rig = Rig::new();
    let (a, b) = (rig.ask(Ask::Join(new_member("a"))), rig.ask(Ask::Join(new_member("b"))));
    rig.pass(DELAY_MS);
    rig.pass(DELAY_MS);
    let (a, _) = (rig.joined(a), rig.joined(b));
    rig.durable = false;
    let follower = rig.sync(a.generation, "b", &[]);
    let leader = rig.sync(a.generation, "a", &[("a", "1")]);
    rig.refuse();
    assert_eq!(rig.answer(leader).unwrap_err(), Error::NotAvailable);
    assert_eq!(rig.answer(follower).unwrap_err(), Error::NotAvailable);
    assert_eq!(rig.state(), State::PreparingRebalance);
    // What the disk says of a generation that is over changes nothing.
    rig.durable = true;
    let (a, b) = (rig.ask(Ask::Join(member("a"))), rig.ask(Ask::Join(member("b"))));
    let (a, b) = (rig.joined(a), rig.joined(b));
    rig.sync_all(&[a, b]);
}

#[test]
fn a_write_of_an_older_generation_assigns_nothing() {
    let mut rig = Rig::new();
    let a = rig.ask(Ask::Join(new_member("a")));
    rig.pass(DELAY_MS);
    let a = rig.joined(a);
    rig.durable = false;
    let sync = rig.sync(a.generation, "a", &[("a", "old")]);
    let b = rig.ask(Ask::Join(new_member("b")));
    assert_eq!(rig.answer(sync).unwrap_err(), Error::RebalanceInProgress);
    let a = rig.ask(Ask::Join(member("a")));
    let (a, b) = (rig.joined(a), rig.joined(b));
    rig.write();
    assert_eq!(rig.state(), State::CompletingRebalance);
    rig.durable = true;
    rig.sync_all(&[a, b]);
}

#[test]
fn the_last_leave_is_answered_when_it_is_durable() {
    let mut rig = Rig::new();
    rig.stable(&["a"]);
    rig.durable = false;
    let request = rig.ask(leave(&["a"]));
    assert!(rig.waits(request));
    rig.write();
    assert!(rig.answer(request).is_ok());
    let mut rig = rig.restart();
    assert_eq!(rig.state(), State::Empty);
}
