//! Changes of what is there already: how the coordinator plans them, and plans them again where another command came
//! before.
//!
//! Their commands say what they were planned for. Where that has changed when they are applied they do nothing, so
//! that no change is lost which another client was told of.

use super::Shard;
use super::ask::Asker;
use super::coordinator::{PlannedChange, prefer};
use super::handlers::raft_voters::{self, Standing};
use super::handlers::{alter_configs, alter_partition_reassignments, client_quotas, create_partitions};
use super::mesh::Reply;
use crate::metadata::{Change, Command};
use crate::protocol::request::RequestBody;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::types::{BrokerId, Deadline, LogId, Now};

/// What the coordinator makes of a request.
struct Plan {
    command: Option<Command>,
    response: ResponseBody,
    made_before: Vec<LogId>,
}

/// The answer that refuses all of a request for one reason.
///
/// # Panics
/// Where the request is none of those that change what is there.
pub(super) fn failed(request: &RequestBody, error: ErrorCode) -> ResponseBody {
    match request {
        RequestBody::CreatePartitions(request) => create_partitions::failed(request, error).into(),
        RequestBody::IncrementalAlterConfigs(request) => alter_configs::failed(request, error).incremental().into(),
        RequestBody::AlterConfigs(request) => alter_configs::failed_replace(request, error).replaced().into(),
        RequestBody::AlterClientQuotas(request) => client_quotas::failed(request, error).into(),
        RequestBody::AlterPartitionReassignments(_) => alter_partition_reassignments::failed(error).into(),
        RequestBody::AddRaftVoter(_) => raft_voters::added(Some((error, String::new()))).into(),
        RequestBody::RemoveRaftVoter(_) => raft_voters::removed(Some((error, String::new()))).into(),
        RequestBody::UnregisterBroker(_) => raft_voters::unregistered(Some((error, String::new()))).into(),
        other => unreachable!("{:?} changes nothing", other.api()),
    }
}

/// The coordinator's answer, which is of the newest version, in a form that `version` has room for.
pub(super) fn for_version(response: ResponseBody, version: i16) -> ResponseBody {
    match response {
        ResponseBody::AlterPartitionReassignments(response) => {
            alter_partition_reassignments::for_version(response, version).into()
        }
        other => other,
    }
}

/// A command, or why there is none.
fn parted<E>(outcome: Result<Option<Command>, E>) -> (Option<Command>, Option<E>) {
    match outcome {
        Ok(command) => (command, None),
        Err(refusal) => (None, Some(refusal)),
    }
}

impl Shard {
    /// Does what a request wants; this coordinator leads. `again` where an earlier try may have been carried out.
    pub(super) fn change(
        &mut self,
        now: Now,
        asker: Asker,
        deadline: Deadline,
        request: Box<RequestBody>,
        again: bool,
    ) {
        let own = self.config.broker_id;
        let receiver = match asker {
            Asker::Here(_) => own,
            Asker::Peer { broker, .. } => broker,
        };
        let Plan { command, response, made_before } = self.plan_change(&request, receiver, again);
        let response = Box::new(response);
        let Some(mut command) = command else {
            return self.tell_when_led(now, asker, deadline, made_before, Reply::Change(response), None);
        };
        prefer(&mut command, |broker| self.peers.unfitness(now, own, broker));
        let planned = PlannedChange { asker, deadline, request, again, response };
        if let Err((error, planned)) = self.propose_change(&command, planned) {
            let reply = Reply::Change(Box::new(failed(&planned.request, error)));
            self.refuse(now, planned.asker, error, reply);
        }
    }

    fn plan_change(&self, request: &RequestBody, receiver: BrokerId, again: bool) -> Plan {
        let (command, response) = match request {
            RequestBody::CreatePartitions(request) => {
                let plan = create_partitions::plan(&self.state, request, again);
                return Plan { command: plan.command, response: plan.response.into(), made_before: plan.made_before };
            }
            RequestBody::IncrementalAlterConfigs(request) => {
                let plan = alter_configs::plan(&self.state, &self.config, request, receiver);
                (plan.command, plan.outcome.incremental().into())
            }
            RequestBody::AlterConfigs(request) => {
                let plan = alter_configs::plan_replace(&self.state, &self.config, request, receiver);
                (plan.command, plan.outcome.replaced().into())
            }
            RequestBody::AlterClientQuotas(request) => {
                let plan = client_quotas::plan(&self.state, request);
                (plan.command, plan.response.into())
            }
            RequestBody::AlterPartitionReassignments(request) => {
                let plan = alter_partition_reassignments::plan(&self.state, request, again);
                (plan.command, plan.response.into())
            }
            RequestBody::AddRaftVoter(request) => {
                let (command, refusal) = parted(self.standing(again).add(request));
                (command, raft_voters::added(refusal).into())
            }
            RequestBody::RemoveRaftVoter(request) => {
                let (command, refusal) = parted(self.standing(again).remove(request));
                (command, raft_voters::removed(refusal).into())
            }
            RequestBody::UnregisterBroker(request) => {
                let (command, refusal) = parted(self.standing(again).unregister(request));
                (command, raft_voters::unregistered(refusal).into())
            }
            other => unreachable!("{:?} changes nothing", other.api()),
        };
        Plan { command, response, made_before: Vec::new() }
    }

    /// What changes of the brokers go out from.
    fn standing(&self, again: bool) -> Standing<'_> {
        let coordinator = self.coordinator.as_ref().expect("the shard with the metadata's log");
        let (state, members, cluster_id) =
            (&self.state, coordinator.group().members(), self.config.cluster_id.as_str());
        Standing { state, members, cluster_id, again }
    }

    /// The command of a change is applied: what waits for it to be shown, where it has done anything.
    pub(super) fn note_change(
        &mut self,
        now: Now,
        planned: PlannedChange,
        changes: &[Change],
    ) -> Option<PlannedChange> {
        match changes {
            [Change::Overtaken] => {
                // What came before may be the earlier try itself.
                let PlannedChange { asker, deadline, request, again, .. } = planned;
                self.change(now, asker, deadline, request, again);
                None
            }
            [Change::Full] => {
                let reply = failed(&planned.request, ErrorCode::PolicyViolation);
                self.tell(now, planned.asker, Ok(Reply::Change(Box::new(reply))));
                None
            }
            _ => Some(planned),
        }
    }
}
