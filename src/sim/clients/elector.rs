//! A client that gives and takes votes on the metadata while everything else goes on.

use bytes::Bytes;
use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};

use super::errand::Errand;
use super::{Client, Context};
use crate::sim::checkers::Model;
use crate::sim::rng::Rng;
use crate::sim::wire;

const VERSION: i16 = 0;
const TIMEOUT_MS: i32 = 1_000;
/// How long a request without a time of its own may take, in milliseconds.
const REMOVE_WITHIN_MS: i64 = crate::limits::REQUEST_TIMEOUT_MS;

/// What was asked for.
#[derive(Clone, Copy)]
enum Asked {
    Add,
    Remove,
}

/// Makes voters of observers and observers of voters.
pub(in crate::sim) struct Elector {
    errand: Errand<Asked>,
}

impl Elector {
    /// One with so many changes to make.
    pub(in crate::sim) fn new(rng: &mut Rng) -> Elector {
        Elector { errand: Errand::new(rng.between(4, 30)) }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        if !self.errand.is_due(cx) {
            return;
        }
        self.errand.take_one(cx, 1_000_000);
        let broker = cx.rng.between(1, cx.brokers as u64) as i32;
        // Two voters of four are the fewest that are wanted for long: most of the time somebody gets a vote.
        if cx.rng.one_in(3) {
            let request = RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(broker);
            self.errand.link.send(cx, VERSION, &request, REMOVE_WITHIN_MS, Asked::Remove);
        } else {
            let request = AddRaftVoterRequest::default().with_cluster_id(None).with_voter_id(broker);
            let request = request.with_timeout_ms(TIMEOUT_MS);
            self.errand.link.send(cx, VERSION, &request, i64::from(TIMEOUT_MS), Asked::Add);
        }
    }
}

impl Client for Elector {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.errand.link.connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, _broker: usize, frame: Bytes) {
        match self.errand.link.answered(&frame) {
            Asked::Add => drop(wire::response::<AddRaftVoterResponse>(VERSION, frame)),
            Asked::Remove => drop(wire::response::<RemoveRaftVoterResponse>(VERSION, frame)),
        }
        self.go_on(cx);
    }

    fn closed(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.errand.closed(cx);
    }

    fn settle(&mut self, _now: u64) {
        self.errand.settling = true;
    }

    fn is_settled(&self, _model: &Model) -> bool {
        self.errand.link.pending.is_empty()
    }

    fn state(&self) -> String {
        format!("elector with {} changes left, {} requests under way", self.errand.left, self.errand.link.pending.len())
    }
}
