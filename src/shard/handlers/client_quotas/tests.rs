use kafka_protocol::messages::alter_client_quotas_request::OpData;

use super::super::admin_tests::{assert_encodable, state, text};
use super::*;

type Parts<'a> = &'a [(&'a str, Option<&'a str>)];

fn entry(parts: Parts<'_>, ops: &[(&str, Option<f64>)]) -> EntryData {
    let part = |(entity_type, name): &(&str, Option<&str>)| {
        EntityData::default().with_entity_type(text(entity_type)).with_entity_name(name.map(text))
    };
    let op = |(key, value): &(&str, Option<f64>)| {
        OpData::default().with_key(text(key)).with_value(value.unwrap_or(0.0)).with_remove(value.is_none())
    };
    EntryData::default().with_entity(parts.iter().map(part).collect()).with_ops(ops.iter().map(op).collect())
}

fn alter(state: &mut State, entries: Vec<EntryData>) -> Vec<(i16, String)> {
    let plan = plan(state, &AlterClientQuotasRequest::default().with_entries(entries));
    assert_encodable(&plan.response, 0..=1);
    if let Some(command) = plan.command {
        state.apply(state.applied() + 1, &command);
    }
    let told = |entry: &altered::EntryData| {
        (entry.error_code, entry.error_message.as_ref().map(|message| message.to_string()).unwrap_or_default())
    };
    plan.response.entries.iter().map(told).collect()
}

/// The entities that a filter finds, as `type=name`, with the number of their quotas.
fn find(state: &State, components: &[(&str, i8, Option<&str>)], strict: bool) -> Result<Vec<(String, usize)>, i16> {
    let component = |(entity_type, match_type, name): &(&str, i8, Option<&str>)| {
        ComponentData::default()
            .with_entity_type(text(entity_type))
            .with_match_type(*match_type)
            .with_match(name.map(text))
    };
    let request = DescribeClientQuotasRequest::default()
        .with_components(components.iter().map(component).collect())
        .with_strict(strict);
    let response = describe(state, &request);
    assert_encodable(&response, 0..=1);
    let Some(entries) = response.entries else { return Err(response.error_code) };
    let named = |entry: &described::EntryData| {
        let parts = entry.entity.iter().map(|part| {
            format!("{}={}", &*part.entity_type, part.entity_name.as_ref().map_or("*", |name| name.as_str()))
        });
        (parts.collect::<Vec<_>>().join(" "), entry.values.len())
    };
    Ok(entries.iter().map(named).collect())
}

fn some() -> State {
    let mut state = state(1, &[]);
    let entries = vec![
        entry(&[("client-id", Some("c"))], &[("producer_byte_rate", Some(5.0)), ("consumer_byte_rate", Some(6.0))]),
        entry(&[("client-id", None)], &[("producer_byte_rate", Some(7.0))]),
        entry(&[("client-id", Some("c")), ("user", Some("u"))], &[("controller_mutation_rate", Some(0.5))]),
        entry(&[("user", None)], &[("producer_byte_rate", Some(9.0))]),
    ];
    assert_eq!(alter(&mut state, entries), vec![(0, String::new()); 4]);
    state
}

#[test]
fn quotas_are_set_found_and_removed() {
    let mut state = some();
    let named = |text: &str, quotas| (text.to_owned(), quotas);
    let all = [named("client-id=c", 2), named("client-id=*", 1), named("user=u client-id=c", 1), named("user=*", 1)];
    let found = |state: &State, components: &[_], strict| {
        let mut found = find(state, components, strict).unwrap();
        found.sort();
        found
    };
    let sorted = |mut list: Vec<(String, usize)>| {
        list.sort();
        list
    };
    assert_eq!(found(&state, &[], false), sorted(all.to_vec()));
    assert_eq!(found(&state, &[], true), [], "no entity consists of nothing");
    let exactly = ("client-id", EXACTLY, Some("c"));
    assert_eq!(found(&state, &[exactly], false), sorted(vec![all[0].clone(), all[2].clone()]));
    assert_eq!(found(&state, &[exactly], true), [all[0].clone()]);
    assert_eq!(found(&state, &[("client-id", ANY, None)], true), sorted(vec![all[0].clone(), all[1].clone()]));
    assert_eq!(found(&state, &[("user", THE_DEFAULT, None)], false), [all[3].clone()]);
    assert_eq!(found(&state, &[("ip", ANY, None)], false), []);

    let removed = entry(&[("client-id", Some("c"))], &[("producer_byte_rate", None), ("consumer_byte_rate", None)]);
    assert_eq!(alter(&mut state, vec![removed.clone()])[0].0, 0);
    assert_eq!(found(&state, &[exactly], true), [], "an entity without quotas is gone");
    let again = plan(&state, &AlterClientQuotasRequest::default().with_entries(vec![removed]));
    assert!(again.command.is_none());
}

#[test]
fn what_cannot_be_set_says_why() {
    let user: Parts<'_> = &[("user", Some("u"))];
    let rate = [("producer_byte_rate", Some(5.0))];
    for (entry, why) in [
        (entry(&[], &rate), "empty client quota entity"),
        (entry(&[("user", Some(""))], &rate), "Empty user"),
        (entry(&[("team", Some("t"))], &rate), "Unhandled client quota entity type: team"),
        (entry(&[("user", Some("u")), ("user", None)], &rate), "Duplicate"),
        (entry(&[("ip", Some("1.2.3.4"))], &[("connection_creation_rate", Some(1.0))]), "not enforced"),
        (entry(user, &[("request_percentage", Some(0.0))]), "request_percentage must be a number above 0"),
        (entry(user, &[("no_such_rate", Some(1.0))]), "Invalid configuration key no_such_rate"),
        (entry(user, &[("producer_byte_rate", Some(0.0))]), "above 0"),
        (entry(user, &[("producer_byte_rate", Some(-1.0))]), "above 0"),
        (entry(user, &[("producer_byte_rate", Some(1.5))]), "a whole number"),
        (entry(user, &[("controller_mutation_rate", Some(f64::NAN))]), "above 0"),
        (entry(user, &[rate[0], rate[0]]), "more than once"),
    ] {
        let mut state = state(1, &[]);
        let told = alter(&mut state, vec![entry]);
        assert_eq!(told[0].0, ErrorCode::InvalidRequest.code(), "{told:?}");
        assert!(told[0].1.contains(why), "{told:?}");
        assert!(state.quotas().is_empty());
    }
}

#[test]
fn each_entity_has_its_own_result() {
    let mut state = state(1, &[]);
    let rate = [("producer_byte_rate", Some(5.0))];
    let twice: Parts<'_> = &[("user", Some("u")), ("client-id", None)];
    let swapped: Parts<'_> = &[("client-id", None), ("user", Some("u"))];
    let entries = vec![entry(twice, &rate), entry(&[("user", Some("v"))], &rate), entry(swapped, &rate)];
    let codes: Vec<i16> = alter(&mut state, entries.clone()).iter().map(|(code, _)| *code).collect();
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(codes, [invalid, 0, invalid]);
    assert_eq!(state.quotas().len(), 1);
    let request = AlterClientQuotasRequest::default().with_entries(entries.clone()).with_validate_only(true);
    assert!(plan(&State::default(), &request).command.is_none());
    let late = failed(&request, ErrorCode::RequestTimedOut);
    assert!(late.entries.iter().all(|entry| entry.error_code == 7) && late.entries.len() == 3);
}

#[test]
fn filters_that_make_no_sense_are_refused() {
    let state = some();
    let invalid = Err(ErrorCode::InvalidRequest.code());
    assert_eq!(find(&state, &[("", ANY, None)], false), invalid);
    assert_eq!(find(&state, &[("user", ANY, None), ("user", ANY, None)], false), invalid);
    assert_eq!(find(&state, &[("user", EXACTLY, None)], false), invalid);
    assert_eq!(find(&state, &[("user", 3, None)], false), invalid);
    assert_eq!(find(&state, &[("user", ANY, None), ("ip", ANY, None)], false), invalid);
    assert_eq!(find(&state, &[("team", ANY, None)], false), Err(ErrorCode::UnsupportedVersion.code()));
}
