//! AlterClientQuotas and DescribeClientQuotas: quotas that are set, and what is set.

use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
    alter_client_quotas_response as altered, describe_client_quotas_response as described,
};
use kafka_protocol::protocol::StrBytes;

use super::create_topics::Refusal;
use crate::metadata::quotas::{Entity, Quota, QuotaChange, Rate, Scope};
use crate::metadata::{Command, State};
use crate::protocol::ErrorCode;
use crate::types::{Map, Set};

/// Kafka's kinds of entities.
const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// Kafka's numbers of how a component of a filter matches.
const EXACTLY: i8 = 0;
const THE_DEFAULT: i8 = 1;
const ANY: i8 = 2;

/// What to do about an AlterClientQuotas request.
#[derive(Debug)]
pub struct Plan {
    /// The command to propose; none where nothing is to be changed.
    pub command: Option<Command>,
    /// The answer once the command is applied, or at once where there is none.
    pub response: AlterClientQuotasResponse,
}

/// Checks the request, entity by entity.
pub fn plan(state: &State, request: &AlterClientQuotasRequest) -> Plan {
    let mut times: Map<Vec<(&str, Option<&str>)>, usize> = Map::default();
    for entry in &request.entries {
        *times.entry(parts(entry)).or_insert(0) += 1;
    }
    let (mut changes, mut entries) = (Vec::new(), Vec::with_capacity(request.entries.len()));
    for entry in &request.entries {
        let planned = if times[&parts(entry)] > 1 {
            Err(invalid("The entity is there more than once."))
        } else {
            entity(&entry.entity).and_then(|entity| changes_of(&entity, entry))
        };
        let refusal = match planned {
            Ok(of_entity) => {
                changes.extend(of_entity);
                None
            }
            Err(refusal) => Some(refusal),
        };
        entries.push(told(entry, refusal));
    }
    // What is so already is no change.
    let set = |change: &QuotaChange| state.quotas().get(&change.entity)?.get(&change.quota).copied();
    changes.retain(|change| set(change) != change.rate);
    let command = (!changes.is_empty() && !request.validate_only).then_some(Command::AlterQuotas { changes });
    Plan { command, response: AlterClientQuotasResponse::default().with_entries(entries) }
}

/// The answer that refuses every entity of the request for one reason.
pub fn failed(request: &AlterClientQuotasRequest, error: ErrorCode) -> AlterClientQuotasResponse {
    let entries = request.entries.iter().map(|entry| told(entry, Some((error, String::new()))));
    AlterClientQuotasResponse::default().with_entries(entries.collect())
}

fn invalid(message: impl Into<String>) -> Refusal {
    (ErrorCode::InvalidRequest, message.into())
}

/// The parts of an entity in a fixed order, so that an entity can be told from another.
fn parts(entry: &EntryData) -> Vec<(&str, Option<&str>)> {
    let mut parts: Vec<_> = entry.entity.iter().map(|part| (&*part.entity_type, part.entity_name.as_deref())).collect();
    parts.sort_unstable();
    parts
}

fn entity(parts: &[EntityData]) -> Result<Entity, Refusal> {
    let mut entity = Entity { user: None, client_id: None };
    for part in parts {
        let scope = match part.entity_name.as_deref() {
            None => Scope::Default,
            Some("") => return Err(invalid(format!("Empty {} not supported", shown(&part.entity_type)))),
            Some(name) => Scope::Named(name.to_owned()),
        };
        let place = match &*part.entity_type {
            USER => &mut entity.user,
            CLIENT_ID => &mut entity.client_id,
            IP => return Err(invalid("Quotas of addresses (connection_creation_rate) are not enforced here.")),
            other => return Err(invalid(format!("Unhandled client quota entity type: {}", shown(other)))),
        };
        if place.replace(scope).is_some() {
            return Err(invalid(format!("Duplicate client quota entity type: {}", part.entity_type)));
        }
    }
    if (&entity.user, &entity.client_id) == (&None, &None) {
        return Err(invalid("Invalid empty client quota entity"));
    }
    Ok(entity)
}

fn changes_of(entity: &Entity, entry: &EntryData) -> Result<Vec<QuotaChange>, Refusal> {
    let mut seen = Set::default();
    let change = |op: &kafka_protocol::messages::alter_client_quotas_request::OpData| {
        let unknown = || invalid(format!("Invalid configuration key {}", shown(&op.key)));
        let quota = Quota::named(&op.key).ok_or_else(unknown)?;
        if !seen.insert(quota) {
            return Err(invalid(format!("{} is there more than once.", quota.name())));
        }
        let rate = match op.remove {
            true => None,
            false => {
                let rate = Rate::new(op.value);
                let counts_bytes = matches!(quota, Quota::ProducerByteRate | Quota::ConsumerByteRate);
                let rate = rate.filter(|_| !counts_bytes || op.value.fract() == 0.0);
                Some(rate.ok_or_else(|| {
                    let form = if counts_bytes { "a whole" } else { "a" };
                    invalid(format!("{} must be {form} number above 0, but is {}", quota.name(), op.value))
                })?)
            }
        };
        Ok(QuotaChange { entity: entity.clone(), quota, rate })
    };
    entry.ops.iter().map(change).collect()
}

fn told(entry: &EntryData, refusal: Option<Refusal>) -> altered::EntryData {
    let entity = entry.entity.iter().map(|part| {
        altered::EntityData::default()
            .with_entity_type(part.entity_type.clone())
            .with_entity_name(part.entity_name.clone())
    });
    let (code, message) = match refusal {
        None => (0, None),
        Some((error, message)) => (error.code(), (!message.is_empty()).then(|| StrBytes::from_string(message))),
    };
    altered::EntryData::default().with_error_code(code).with_error_message(message).with_entity(entity.collect())
}

/// As much of a client's text as a message repeats.
fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}

/// What a component of a filter asks of an entity.
struct Wanted<'a> {
    entity_type: &'a str,
    scope: Option<Scope>,
}

/// The answer to DescribeClientQuotas: the entities that match, in a fixed order.
pub fn describe(state: &State, request: &DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    let filter: Result<Vec<Wanted<'_>>, Refusal> = filter(&request.components);
    let filter = match filter {
        Ok(filter) => filter,
        Err((error, message)) => {
            return DescribeClientQuotasResponse::default()
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(message)))
                .with_entries(None);
        }
    };
    let matching = state.quotas().iter().filter(|(entity, _)| matches(entity, &filter, request.strict));
    let entries = matching.map(|(entity, quotas)| {
        let values = quotas.iter().map(|(quota, rate)| {
            described::ValueData::default()
                .with_key(StrBytes::from_static_str(quota.name()))
                .with_value(rate.per_second())
        });
        let parts = [(USER, &entity.user), (CLIENT_ID, &entity.client_id)];
        let parts = parts.into_iter().filter_map(|(entity_type, scope)| {
            let name = match scope.as_ref()? {
                Scope::Default => None,
                Scope::Named(name) => Some(StrBytes::from_string(name.clone())),
            };
            let entity_type = StrBytes::from_static_str(entity_type);
            Some(described::EntityData::default().with_entity_type(entity_type).with_entity_name(name))
        });
        described::EntryData::default().with_entity(parts.collect()).with_values(values.collect())
    });
    DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(entries.collect()))
}

fn filter(components: &[ComponentData]) -> Result<Vec<Wanted<'_>>, Refusal> {
    let mut seen = Set::default();
    let mut wanted = Vec::with_capacity(components.len());
    for component in components {
        let entity_type = &*component.entity_type;
        match entity_type {
            USER | CLIENT_ID | IP => {}
            "" => return Err(invalid("Unexpected empty filter component entity type")),
            other => {
                return Err((
                    ErrorCode::UnsupportedVersion,
                    format!("Custom entity type {} not supported", shown(other)),
                ));
            }
        }
        if !seen.insert(entity_type) {
            return Err(invalid(format!("Duplicate entity filter component entity type: {entity_type}")));
        }
        let scope = match (component.match_type, component._match.as_deref()) {
            (EXACTLY, Some(name)) => Some(Scope::Named(name.to_owned())),
            (EXACTLY, None) => return Err(invalid("A filter for an exact name lacks the name.")),
            (THE_DEFAULT, _) => Some(Scope::Default),
            (ANY, _) => None,
            (other, _) => return Err(invalid(format!("Unexpected match type: {other}"))),
        };
        wanted.push(Wanted { entity_type, scope });
    }
    if seen.contains(IP) && seen.len() > 1 {
        return Err(invalid("Invalid entity filter component combination: an address has neither user nor client."));
    }
    Ok(wanted)
}

/// Whether an entity has all that the filter names, and nothing else where it is strict.
fn matches(entity: &Entity, filter: &[Wanted<'_>], strict: bool) -> bool {
    let part = |entity_type: &str| match entity_type {
        USER => entity.user.as_ref(),
        CLIENT_ID => entity.client_id.as_ref(),
        // No quota is for an address.
        _ => None,
    };
    let all = filter.iter().all(|wanted| match (part(wanted.entity_type), &wanted.scope) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(scope), Some(wanted)) => scope == wanted,
    });
    let parts = usize::from(entity.user.is_some()) + usize::from(entity.client_id.is_some());
    all && (!strict || parts == filter.len())
}

#[cfg(test)]
mod tests;
