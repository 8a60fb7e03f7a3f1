//! The errors that a response tells its client of, for those who count them.

use super::response::ResponseBody;

impl ResponseBody {
    /// Calls `note` with every error code of the response, those that say that there is none included.
    pub fn each_error(&self, note: &mut dyn FnMut(i16)) {
        use ResponseBody as B;
        match self {
            B::Produce(body) => {
                let partitions = body.responses.iter().flat_map(|topic| &topic.partition_responses);
                partitions.for_each(|partition| note(partition.error_code));
            }
            // The broker's own encoder writes these, so that only a fetch without partitions comes here.
            B::Fetch(body) => note(body.error_code),
            B::ListOffsets(body) => {
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::Metadata(body) => body.topics.iter().for_each(|topic| {
                note(topic.error_code);
                topic.partitions.iter().for_each(|partition| note(partition.error_code));
            }),
            B::OffsetCommit(body) => {
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::OffsetFetch(body) => {
                note(body.error_code);
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
                for group in &body.groups {
                    note(group.error_code);
                    let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
                    partitions.for_each(|partition| note(partition.error_code));
                }
            }
            B::FindCoordinator(body) => {
                note(body.error_code);
                body.coordinators.iter().for_each(|coordinator| note(coordinator.error_code));
            }
            B::JoinGroup(body) => note(body.error_code),
            B::Heartbeat(body) => note(body.error_code),
            B::LeaveGroup(body) => {
                note(body.error_code);
                body.members.iter().for_each(|member| note(member.error_code));
            }
            B::SyncGroup(body) => note(body.error_code),
            B::DescribeGroups(body) => body.groups.iter().for_each(|group| note(group.error_code)),
            B::ListGroups(body) => note(body.error_code),
            B::ApiVersions(body) => note(body.error_code),
            B::CreateTopics(body) => body.topics.iter().for_each(|topic| note(topic.error_code)),
            B::DeleteTopics(body) => body.responses.iter().for_each(|topic| note(topic.error_code)),
            B::DeleteRecords(body) => {
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::InitProducerId(body) => note(body.error_code),
            B::OffsetForLeaderEpoch(body) => {
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::AlterConfigs(body) => body.responses.iter().for_each(|resource| note(resource.error_code)),
            B::IncrementalAlterConfigs(body) => body.responses.iter().for_each(|resource| note(resource.error_code)),
            B::CreatePartitions(body) => body.results.iter().for_each(|topic| note(topic.error_code)),
            B::DescribeConfigs(body) => body.results.iter().for_each(|resource| note(resource.error_code)),
            B::ElectLeaders(body) => {
                note(body.error_code);
                let partitions = body.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::AlterPartitionReassignments(body) => {
                note(body.error_code);
                let partitions = body.responses.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::ListPartitionReassignments(body) => note(body.error_code),
            B::AddRaftVoter(body) => note(body.error_code),
            B::RemoveRaftVoter(body) => note(body.error_code),
            B::UnregisterBroker(body) => note(body.error_code),
            B::DescribeQuorum(body) => {
                note(body.error_code);
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::ConsumerGroupHeartbeat(body) => note(body.error_code),
            B::ConsumerGroupDescribe(body) => body.groups.iter().for_each(|group| note(group.error_code)),
            B::DeleteGroups(body) => body.results.iter().for_each(|group| note(group.error_code)),
            B::OffsetDelete(body) => {
                note(body.error_code);
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::DescribeCluster(body) => note(body.error_code),
            B::DescribeLogDirs(body) => {
                note(body.error_code);
                body.results.iter().for_each(|directory| note(directory.error_code));
            }
            B::DescribeClientQuotas(body) => note(body.error_code),
            B::AlterClientQuotas(body) => body.entries.iter().for_each(|entry| note(entry.error_code)),
            B::DescribeProducers(body) => {
                let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.for_each(|partition| note(partition.error_code));
            }
            B::DescribeAcls(body) => note(body.error_code),
            B::CreateAcls(body) => body.results.iter().for_each(|result| note(result.error_code)),
            B::DeleteAcls(body) => body.filter_results.iter().for_each(|result| note(result.error_code)),
            B::ListConfigResources(body) => note(body.error_code),
            B::DescribeTopicPartitions(body) => body.topics.iter().for_each(|topic| {
                note(topic.error_code);
                topic.partitions.iter().for_each(|partition| note(partition.error_code));
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ProduceResponse;
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

    #[test]
    fn every_partition_of_a_response_is_heard() {
        let partition = |code| PartitionProduceResponse::default().with_error_code(code);
        let topic = |codes: [i16; 2]| {
            TopicProduceResponse::default().with_partition_responses(codes.into_iter().map(partition).collect())
        };
        let body: ResponseBody = ProduceResponse::default().with_responses(vec![topic([0, 7]), topic([6, 0])]).into();
        let mut heard = Vec::new();
        body.each_error(&mut |code| heard.push(code));
        assert_eq!(heard, [0, 7, 6, 0]);
    }
}
