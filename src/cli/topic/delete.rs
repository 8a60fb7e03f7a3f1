//! `ringlog topic delete`.

use clap::Args;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::DeleteTopicsRequest;

use super::super::client::{Cluster, Failure, Shown, check, topic_name};

/// The arguments of `ringlog topic delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// A topic that is not there is no error
    #[arg(long)]
    if_exists: bool,
}

/// Deletes the topics, in one request.
///
/// # Errors
/// As [`Cluster::admin`]; what is refused of single topics is in what it shows.
pub fn run(cluster: &mut Cluster, args: &DeleteArgs) -> Result<Shown, Failure> {
    let names = args.names.iter().map(|name| topic_name(name)).collect();
    let mut request = DeleteTopicsRequest::default().with_topic_names(names);
    cluster.retry(|cluster| {
        request.timeout_ms = cluster.left_ms();
        let mut shown = Shown::default();
        // From version 6 on a topic may be meant by its id, which is not needed here.
        for topic in cluster.admin(&(1..=5), &request)?.responses {
            let name = topic.name.as_ref().map_or("", |name| name.0.as_str());
            let outcome = match check(topic.error_code, topic.error_message.as_deref(), || format!("topic {name}")) {
                Ok(()) => "deleted",
                Err(failure) if args.if_exists && failure.code() == Some(ResponseError::UnknownTopicOrPartition) => {
                    "not there"
                }
                Err(failure) if failure.passes() => return Err(failure),
                Err(failure) => {
                    shown.failures.push(failure);
                    continue;
                }
            };
            shown.rows.push(vec![("topic", name.into()), ("outcome", outcome.into())]);
        }
        Ok(shown)
    })
}
