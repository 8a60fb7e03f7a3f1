//! How long the stages of a topic's creation take, and the last creations stage by stage.
//!
//! The coordinator measures its own stages and hands them over with its reply; the shard that the client asked measures
//! the whole, and what is not the coordinator's is the way there and back. So no clocks of different brokers are
//! compared.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::CreateTopicsResponse;

use super::Shard;
use super::requests::{Kind, Origin};
use crate::limits::{CREATION_TRACES, TRACED_TOPICS};
use crate::metrics::{STAGES, Stage};
use crate::protocol::{ErrorCode, ResponseBody};
use crate::types::{Deadline, Mono, Now};

/// The time of each stage in microseconds, of those that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages([Option<u32>; STAGES.len()]);

impl Stages {
    /// The stages that have ended, in their order, with their time in microseconds.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, u32)> + '_ {
        STAGES.into_iter().zip(self.0).filter_map(|(stage, micros)| Some((stage, micros?)))
    }

    fn total_micros(&self) -> u64 {
        self.iter().map(|(_, micros)| u64::from(micros)).sum()
    }

    /// Appends them in the form that goes between brokers: a number for each stage, all ones where it has not ended.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.0.iter().for_each(|micros| out.put_u32_le(micros.unwrap_or(u32::MAX)));
    }

    /// Reads what [`Stages::encode`] wrote; `None` where it is cut short.
    pub(super) fn decode(bytes: &mut Bytes) -> Option<Stages> {
        let mut stages = Stages::default();
        for place in &mut stages.0 {
            *place = Some(bytes.try_get_u32_le().ok()?).filter(|micros| *micros != u32::MAX);
        }
        Some(stages)
    }
}

/// Times a creation on the coordinator.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    deadline: Deadline,
    began: Now,
    /// The end of the stage that ended last.
    last: Mono,
    stages: Stages,
    late: bool,
}

impl Watch {
    /// A creation has come to the coordinator.
    pub(super) fn start(now: Now, deadline: Deadline) -> Watch {
        Watch { deadline, began: now, last: now.mono, stages: Stages::default(), late: false }
    }

    /// A stage has ended; the next begins.
    pub(super) fn end(&mut self, now: Now, stage: Stage) {
        if !self.has_ended(stage) {
            let micros = now.mono.micros_since(self.last).min(u64::from(u32::MAX - 1));
            self.stages.0[stage as usize] = Some(micros as u32);
            self.last = now.mono;
        }
    }

    /// Whether this stage, or one behind it, has ended.
    pub(super) fn has_ended(&self, stage: Stage) -> bool {
        self.stages.0[stage as usize..].iter().any(Option::is_some)
    }

    /// Whether its command is committed and its time is up; true once.
    pub(super) fn is_late(&mut self, now: Now) -> bool {
        let late = self.has_ended(Stage::Commit) && self.deadline.passed(now);
        late && !std::mem::replace(&mut self.late, true)
    }

    /// What is known of it by now.
    pub(super) fn trace(&self, response: &CreateTopicsResponse) -> Trace {
        Trace::new(self.began.wall_ms, None, self.stages, response)
    }
}

/// A creation, stage by stage.
#[derive(Clone, Debug)]
pub struct Trace {
    /// When it came here, in milliseconds since the Unix epoch.
    pub began_ms: i64,
    /// From then to its answer, in microseconds; none while it is under way.
    pub total_micros: Option<u64>,
    /// Its stages, those that have ended.
    pub stages: Stages,
    /// The names of its topics, the first [`TRACED_TOPICS`] of them.
    pub topics: Vec<String>,
    /// How many topics it has.
    pub topic_count: usize,
    /// Kafka's name of the first error that its answer has.
    pub error: Option<String>,
}

impl Trace {
    fn new(began_ms: i64, total_micros: Option<u64>, stages: Stages, response: &CreateTopicsResponse) -> Trace {
        let names = response.topics.iter().take(TRACED_TOPICS).map(|topic| topic.name.to_string());
        let mut errors = response.topics.iter().map(|topic| topic.error_code);
        Trace {
            began_ms,
            total_micros,
            stages,
            topics: names.collect(),
            topic_count: response.topics.len(),
            error: errors.find_map(ErrorCode::place_of).map(|place| ErrorCode::ALL[place].kafka_name()),
        }
    }
}

/// The last creations, the oldest first, at most [`CREATION_TRACES`] of each kind.
#[derive(Debug, Default)]
pub struct Creations {
    /// Those that clients asked this shard for, with the way to the coordinator and back.
    pub asked: VecDeque<Trace>,
    /// Those that this broker's coordinator has made.
    pub coordinated: VecDeque<Trace>,
}

fn keep(traces: &mut VecDeque<Trace>, trace: Trace) {
    if traces.len() == CREATION_TRACES {
        traces.pop_front();
    }
    traces.push_back(trace);
}

impl Shard {
    /// The clock shows `now`: what the last step did has ended.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        self.now = now;
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.clock_creations(now);
        }
    }

    /// What was proposed in this turn is on its way.
    pub(super) fn creations_proposed(&mut self, now: Now) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.creations_proposed(now);
        }
    }

    /// The coordinator is about to answer a creation: returns its stages.
    pub(super) fn creation_coordinated(
        &mut self,
        now: Now,
        mut watch: Watch,
        response: &CreateTopicsResponse,
    ) -> Stages {
        watch.end(now, Stage::Show);
        for (stage, micros) in watch.stages.iter() {
            self.metrics.creation.stages[stage as usize].observe(u64::from(micros));
        }
        let total = now.mono.micros_since(watch.began.mono);
        keep(&mut self.creations.coordinated, Trace::new(watch.began.wall_ms, Some(total), watch.stages, response));
        watch.stages
    }

    /// Counts the creations whose time is up although they are committed.
    pub(super) fn count_late_creations(&mut self, now: Now) {
        if let Some(coordinator) = &mut self.coordinator {
            self.metrics.creation.assignment_timeouts.add(coordinator.late_creations(now));
        }
    }

    /// A creation that was asked for here is answered.
    pub(super) fn creation_answered(&mut self, origin: Origin, response: &CreateTopicsResponse, mut stages: Stages) {
        let total = self.now.mono.micros_since(origin.since);
        let forward = total.saturating_sub(stages.total_micros());
        stages.0[Stage::Forward as usize] = Some(forward.min(u64::from(u32::MAX - 1)) as u32);
        self.metrics.creation.stages[Stage::Forward as usize].observe(forward);
        self.creation_ended(total, stages, response);
    }

    /// The time of a creation that was asked for here is up.
    fn creation_timed_out(&mut self, origin: Origin, response: &CreateTopicsResponse) {
        self.metrics.creation.timeouts.add(1);
        self.creation_ended(self.now.mono.micros_since(origin.since), Stages::default(), response);
    }

    fn creation_ended(&mut self, total: u64, stages: Stages, response: &CreateTopicsResponse) {
        self.metrics.creation.total.observe(total);
        let began = self.now.wall_ms - (total / 1_000) as i64;
        let trace = Trace::new(began, Some(total), stages, response);
        tracing::debug!(
            topics = trace.topic_count, first = trace.topics.first(), total_us = total, error = trace.error,
            stages = ?trace.stages.iter().collect::<Vec<_>>(), "a creation of topics is answered"
        );
        keep(&mut self.creations.asked, trace);
    }

    /// A request is about to be answered because its time is up.
    pub(super) fn deadline_missed(&mut self, number: u64) {
        let Some(pending) = self.requests.get(number) else { return };
        let origin = pending.origin;
        let created = match &pending.kind {
            // Its time is how long its client wants to wait.
            Kind::Fetch(_) => return,
            // That others are silent is an answer too.
            Kind::Locate(_) => return,
            Kind::Coordinator { late } => match &**late {
                ResponseBody::CreateTopics(response) => Some(response.clone()),
                _ => None,
            },
            Kind::AutoCreate(request) => {
                let topics = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
                let result = |name| {
                    kafka_protocol::messages::create_topics_response::CreatableTopicResult::default()
                        .with_name(name)
                        .with_error_code(ErrorCode::RequestTimedOut.code())
                };
                Some(CreateTopicsResponse::default().with_topics(topics.map(result).collect()))
            }
            _ => None,
        };
        self.metrics.apis[origin.api].deadlines_missed.add(1);
        if let Some(response) = created {
            self.creation_timed_out(origin, &response);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Now {
        Now { mono: Mono(micros), wall_ms: 5 }
    }

    #[test]
    fn each_stage_begins_where_the_one_before_it_ended() {
        let mut watch = Watch::start(at(100), Deadline(Mono(1_000)));
        watch.end(at(130), Stage::Validate);
        watch.end(at(130), Stage::Propose);
        watch.end(at(400), Stage::Commit);
        // Leaders may be there before the clock was looked at after the apply, which then is part of their time.
        watch.end(at(500), Stage::Leaders);
        watch.end(at(510), Stage::Apply);
        watch.end(at(600), Stage::Show);
        let found: Vec<_> = watch.stages.iter().map(|(stage, micros)| (stage.name(), micros)).collect();
        assert_eq!(found, [("validate", 30), ("propose", 0), ("commit", 270), ("leaders", 100), ("show", 100)]);
        assert_eq!(watch.stages.total_micros(), 500);
    }

    #[test]
    fn a_creation_is_late_once_and_only_when_it_is_committed() {
        let mut watch = Watch::start(at(0), Deadline(Mono(10)));
        assert!(!watch.is_late(at(11)), "its entry is not committed");
        watch.end(at(12), Stage::Commit);
        assert!(watch.is_late(at(13)));
        assert!(!watch.is_late(at(14)));
    }

    #[test]
    fn stages_travel_between_brokers() {
        let mut watch = Watch::start(at(0), Deadline(Mono(10)));
        watch.end(at(7), Stage::Validate);
        watch.end(Now { mono: Mono(u64::MAX), wall_ms: 0 }, Stage::Commit);
        let mut out = BytesMut::new();
        watch.stages.encode(&mut out);
        assert_eq!(out.len(), 4 * STAGES.len());
        let mut bytes = out.freeze();
        assert_eq!(Stages::decode(&mut bytes.clone()), Some(watch.stages));
        bytes.truncate(27);
        assert_eq!(Stages::decode(&mut bytes), None);
    }

    #[test]
    fn the_oldest_traces_go() {
        let mut traces = VecDeque::new();
        for n in 0..=CREATION_TRACES as i64 {
            keep(&mut traces, Trace::new(n, None, Stages::default(), &CreateTopicsResponse::default()));
        }
        assert_eq!((traces.len(), traces[0].began_ms), (CREATION_TRACES, 1));
    }
}
