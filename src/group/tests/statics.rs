//! Members with names of their own, which keep their places while they are away.

use super::*;

fn named(id: &str, instance: &str) -> Join {
    Join { instance: Some(instance.into()), id_required: true, ..new_member(id) }
}

/// A stable group of two static members, `a` leading.
fn pair(rig: &mut Rig) -> i32 {
    let (a, b) = (rig.ask(Ask::Join(named("a", "one"))), rig.ask(Ask::Join(named("b", "two"))));
    rig.pass(DELAY_MS);
    rig.pass(DELAY_MS);
    let joined = [rig.joined(a), rig.joined(b)];
    rig.sync_all(&joined)
}

#[test]
fn a_static_member_needs_no_id_and_comes_back_without_a_rebalance() {
    let mut rig = Rig::new();
    let generation = pair(&mut rig);
    let back = rig.ask(Ask::Join(named("b2", "two")));
    let joined = rig.joined(back);
    assert_eq!((joined.generation, &*joined.member_id, &*joined.leader), (generation, "b2", "a"));
    assert!(!joined.skip_assignment && joined.members.is_empty());
    assert_eq!(rig.heartbeat(generation, "a"), Ok(()));
    let sync = rig.sync(generation, "b2", &[]);
    assert_eq!(rig.assigned(sync), "b", "the assignment is that of before");
    let old = Identity { instance: Some("two".into()), ..identity(generation, "b") };
    assert_eq!(rig.refused(Ask::Heartbeat(old.clone())), Error::FencedInstance);
    assert_eq!(rig.refused(commit(old, &[("t", 0, 1)])), Error::FencedInstance);
    assert_eq!(rig.heartbeat(generation, "b"), Err(Error::UnknownMember));
}

#[test]
fn a_static_leader_that_comes_back_leaves_the_assignment() {
    let mut rig = Rig::new();
    let generation = pair(&mut rig);
    let back = rig.ask(Ask::Join(named("a2", "one")));
    let joined = rig.joined(back);
    assert_eq!((joined.generation, &*joined.leader, joined.members.len()), (generation, "a2", 2));
    assert!(joined.skip_assignment);
    // An older client is told that another leads, so that it does not assign.
    let older = Join { can_skip_assignment: false, ..named("a3", "one") };
    let back = rig.ask(Ask::Join(older));
    let joined = rig.joined(back);
    assert_eq!((&*joined.leader, &*joined.member_id, joined.members.len()), ("a2", "a3", 0));
    assert!(!joined.skip_assignment);
}

#[test]
fn a_static_member_that_comes_back_is_durable_first() {
    let mut rig = Rig::new();
    let generation = pair(&mut rig);
    rig.durable = false;
    let back = rig.ask(Ask::Join(named("b2", "two")));
    assert!(rig.waits(back));
    rig.refuse();
    assert_eq!(rig.answer(back).unwrap_err(), Error::NotAvailable);
    let back = rig.ask(Ask::Join(named("b3", "two")));
    rig.write();
    assert_eq!(rig.joined(back).member_id, "b3");
    let mut rig = rig.restart();
    assert_eq!(rig.heartbeat(generation, "b3"), Ok(()));
    let fenced = Identity { instance: Some("two".into()), ..identity(generation, "b") };
    assert_eq!(rig.refused(Ask::Heartbeat(fenced)), Error::FencedInstance);
}

#[test]
fn a_static_member_with_another_protocol_causes_a_rebalance() {
    let mut rig = Rig::new();
    let generation = pair(&mut rig);
    let changed = Join { protocols: vec![protocol("roundrobin", &["t"])], ..named("b2", "two") };
    let back = rig.ask(Ask::Join(changed));
    assert!(rig.waits(back));
    assert_eq!(rig.heartbeat(generation, "a"), Err(Error::RebalanceInProgress));
}

#[test]
fn a_static_member_keeps_its_place_in_a_rebalance_until_its_session_ends() {
    let mut rig = Rig::new();
    let generation = pair(&mut rig);
    let again = |id: &str, instance: &str| Join { member_id: id.into(), ..named(id, instance) };
    let a = rig.ask(Ask::Join(again("a", "one")));
    let session = SESSION_MS;
    rig.pass(session - 1);
    assert!(rig.waits(a));
    // Two is silent for too long: the rebalance goes on without it.
    rig.pass(1);
    let a = rig.joined(a);
    assert_eq!((a.generation, a.members.len()), (generation + 1, 1));
}

#[test]
fn who_waits_under_an_old_id_is_fenced() {
    let mut rig = Rig::new();
    pair(&mut rig);
    let waits = rig.ask(Ask::Join(Join { member_id: "a".into(), ..named("a", "one") }));
    assert!(rig.waits(waits));
    let back = rig.ask(Ask::Join(named("a2", "one")));
    assert_eq!(rig.answer(waits).unwrap_err(), Error::FencedInstance);
    assert!(rig.waits(back), "the rebalance is still on");
}

#[test]
fn an_administrator_removes_by_name() {
    let mut rig = Rig::new();
    pair(&mut rig);
    let by_name = |instance: &str| Leaver { member_id: String::new(), instance: Some(instance.into()) };
    let wrong = Leaver { member_id: "b".into(), instance: Some("one".into()) };
    let leavers = vec![by_name("two"), by_name("three"), wrong];
    let request = rig.ask(Ask::Leave { group: "g".into(), members: leavers });
    let Ok(Reply::Left(results)) = rig.answer(request) else { panic!("no answer to each") };
    assert_eq!(results, [Ok(()), Err(Error::UnknownMember), Err(Error::FencedInstance)]);
    assert_eq!(rig.describe().unwrap().members.len(), 1);
}
