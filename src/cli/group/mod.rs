//! `ringlog group`: consumer groups are listed, described, deleted, and their offsets reset.

mod describe;
mod reset;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use kafka_protocol::messages::{DeleteGroupsRequest, GroupId, ListGroupsRequest};
use serde_json::Value;

use super::client::{AdminArgs, Cluster, Failure, Shown, check, finish, text};
use super::rows::Row;

/// What `ringlog group` does.
#[derive(Debug, Subcommand)]
pub enum What {
    /// List the groups of all brokers
    List {
        /// Only groups in this state, such as Stable or Empty
        #[arg(long)]
        state: Option<String>,
    },
    /// Show a group's offsets with the lag, or its members
    Describe(describe::DescribeArgs),
    /// Delete groups that have no members, with their offsets
    Delete {
        /// Names of the groups
        #[arg(required = true, value_name = "GROUP")]
        names: Vec<String>,
    },
    /// Set the offsets that a group without members goes on from
    Reset(reset::ResetArgs),
}

/// Does what was asked, and shows it.
///
/// # Errors
/// Output that cannot be written.
pub fn run(args: &AdminArgs<What>) -> anyhow::Result<ExitCode> {
    let mut cluster = Cluster::new(&args.brokers);
    let shown = match &args.what {
        What::List { state } => list(&mut cluster, state.as_deref()),
        What::Describe(describe) => describe::run(&mut cluster, describe),
        What::Delete { names } => delete(&mut cluster, names),
        What::Reset(reset) => reset::run(&mut cluster, reset),
    };
    finish(args.format, shown)
}

/// Every broker knows the groups that it coordinates.
fn list(cluster: &mut Cluster, state: Option<&str>) -> Result<Shown, Failure> {
    let mut shown = Shown::default();
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for broker in cluster.brokers()? {
        let listed = cluster.retry(|cluster| {
            let listed = cluster.at(broker, &(0..=5), &ListGroupsRequest::default())?;
            check(listed.error_code, None, || format!("groups of broker {broker}"))?;
            Ok(listed)
        });
        let listed = match listed {
            Ok(listed) => listed,
            Err(failure) => {
                shown.failures.push(failure);
                continue;
            }
        };
        for group in listed.groups {
            if state.is_some_and(|state| !group.group_state.eq_ignore_ascii_case(state)) {
                continue;
            }
            // States came with version 4, types with version 5.
            let told = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
            rows.insert(
                group.group_id.0.to_string(),
                vec![
                    ("group", group.group_id.0.as_str().into()),
                    ("state", told(&group.group_state)),
                    ("type", told(&group.group_type)),
                    ("protocol", told(&group.protocol_type)),
                    ("coordinator", broker.into()),
                ],
            );
        }
    }
    shown.rows = rows.into_values().collect();
    Ok(shown)
}

fn delete(cluster: &mut Cluster, names: &[String]) -> Result<Shown, Failure> {
    let mut shown = Shown::default();
    for name in names {
        shown.add(cluster.retry(|cluster| {
            let coordinator = cluster.coordinator(name)?;
            let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(name))]);
            for result in cluster.at(coordinator, &(0..=2), &request)?.results {
                check(result.error_code, None, || format!("group {name}"))?;
            }
            Ok(vec![("group", name.as_str().into()), ("outcome", "deleted".into())])
        }));
    }
    Ok(shown)
}
