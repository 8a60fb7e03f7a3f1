//! The brokers of a cluster, found through any of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};

use super::connection::Connection;
use super::failure::{Failure, check};
use super::{BrokerArgs, connection};

/// The pause before what another broker, or a later moment, will do is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// The versions of Metadata that are spoken: those that may be told not to create what they ask for.
const METADATA: RangeInclusive<i16> = 4..=12;

/// Connections to the brokers of a cluster, made when they are needed.
pub struct Cluster {
    bootstrap: Vec<String>,
    timeout: Duration,
    deadline: Instant,
    connections: BTreeMap<String, Connection>,
    /// Where the brokers listen, as the cluster last said.
    addresses: BTreeMap<i32, String>,
    /// Whether some broker has answered: then others that do not may be about to be replaced, and are worth waiting for.
    reached: bool,
    /// The one to administer through, where the first that was asked would not do it.
    controller: Option<i32>,
}

/// A string of the protocol.
pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A topic's name as the protocol has it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

impl Cluster {
    /// The cluster of these arguments; nothing is connected yet. The command's time begins.
    pub fn new(args: &BrokerArgs) -> Cluster {
        Cluster {
            bootstrap: args.bootstrap_server.clone(),
            timeout: args.timeout,
            deadline: Instant::now() + args.timeout,
            connections: BTreeMap::new(),
            addresses: BTreeMap::new(),
            reached: false,
            controller: None,
        }
    }

    /// Begins the time anew: for commands that take as long as they have something to do.
    pub fn renew(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    /// What is left of the time in milliseconds, as requests carry it.
    pub fn left_ms(&self) -> i32 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
    }

    /// When the time is up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// A request to whichever broker answers first, the first of `--bootstrap-server` where that one does.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] where none does, or what the broker's connection says.
    pub fn any<R: Request>(&mut self, versions: &RangeInclusive<i16>, request: &R) -> Result<R::Response, Failure> {
        let address = self.first()?;
        self.call(&address, versions, request)
    }

    /// The first address that takes a connection: of the bootstrap list, or else of the brokers that are known.
    fn first(&mut self) -> Result<String, Failure> {
        let mut whys = Vec::new();
        let mut all = self.bootstrap.clone();
        all.extend(self.addresses.values().filter(|address| !self.bootstrap.contains(address)).cloned());
        for (at, address) in all.iter().enumerate() {
            // Each is given its part of what is left, so that one that swallows packets does not take it all.
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.connect(address, Instant::now() + left / (all.len() - at) as u32) {
                Ok(_) => return Ok(address.clone()),
                Err(Failure::Unreachable(why)) => whys.push(why),
                Err(other) => return Err(other),
            }
        }
        Err(Failure::Unreachable(whys.join("; ")))
    }

    /// A request to one broker.
    ///
    /// # Errors
    /// A broker that the cluster does not have, and what its connection says.
    pub fn at<R: Request>(
        &mut self,
        broker: i32,
        versions: &RangeInclusive<i16>,
        request: &R,
    ) -> Result<R::Response, Failure> {
        let address = self.address(broker)?;
        self.call(&address, versions, request)
    }

    /// A request for the controller. Every broker of this kind of cluster passes it on; of others the controller is
    /// looked for once one has said that it is not it.
    ///
    /// # Errors
    /// As [`Cluster::any`].
    pub fn admin<R: Request>(&mut self, versions: &RangeInclusive<i16>, request: &R) -> Result<R::Response, Failure> {
        match self.controller {
            None => self.any(versions, request),
            Some(broker) => self.at(broker, versions, request),
        }
    }

    fn call<R: Request>(
        &mut self,
        address: &str,
        versions: &RangeInclusive<i16>,
        request: &R,
    ) -> Result<R::Response, Failure> {
        let deadline = self.deadline;
        let result = self.connect(address, deadline)?.call(versions, request, deadline);
        if matches!(result, Err(Failure::Unreachable(_))) {
            // Whatever comes over it from now on is no answer to the next request.
            self.connections.remove(address);
        }
        result
    }

    fn connect(&mut self, address: &str, deadline: Instant) -> Result<&mut Connection, Failure> {
        if !self.connections.contains_key(address) {
            let opened = Connection::open(address, deadline)?;
            self.reached = true;
            self.connections.insert(address.to_owned(), opened);
        }
        Ok(self.connections.get_mut(address).expect("it is there, or was inserted"))
    }

    /// The connection to a broker, for requests that wait there while others are sent.
    ///
    /// # Errors
    /// As [`Cluster::at`].
    pub fn connection(&mut self, broker: i32) -> Result<&mut connection::Connection, Failure> {
        let (address, deadline) = (self.address(broker)?, self.deadline);
        self.connect(&address, deadline)
    }

    /// Closes the connection to a broker, which is opened anew when it is needed.
    pub fn disconnect(&mut self, broker: i32) {
        if let Some(address) = self.addresses.get(&broker) {
            self.connections.remove(address);
        }
    }

    fn address(&mut self, broker: i32) -> Result<String, Failure> {
        if !self.addresses.contains_key(&broker) {
            self.metadata(Some(&[]))?;
        }
        let unknown = || Failure::Unreachable(format!("the cluster has no broker {broker} just now"));
        self.addresses.get(&broker).cloned().ok_or_else(unknown)
    }

    /// Whether the broker that is asked first answers an API.
    ///
    /// # Errors
    /// As [`Cluster::any`].
    pub fn answers(&mut self, api: ApiKey) -> Result<bool, Failure> {
        let (address, deadline) = (self.first()?, self.deadline);
        Ok(self.connect(&address, deadline)?.answers(api))
    }

    /// What the cluster says of these topics (all where there are no names), none of which is created by asking.
    ///
    /// # Errors
    /// As [`Cluster::any`]. A topic's own error stays in the answer.
    pub fn metadata(&mut self, topics: Option<&[&str]>) -> Result<MetadataResponse, Failure> {
        let named = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(topics.map(|topics| topics.iter().map(named).collect()))
            .with_allow_auto_topic_creation(false);
        let answer = self.any(&METADATA, &request)?;
        self.addresses =
            answer.brokers.iter().map(|broker| (broker.node_id.0, host_and_port(&broker.host, broker.port))).collect();
        Ok(answer)
    }

    /// The brokers that are there, in the order of their numbers.
    ///
    /// # Errors
    /// As [`Cluster::metadata`].
    pub fn brokers(&mut self) -> Result<Vec<i32>, Failure> {
        self.metadata(Some(&[]))?;
        Ok(self.addresses.keys().copied().collect())
    }

    /// The broker that coordinates a group.
    ///
    /// # Errors
    /// As [`Cluster::any`], and what the broker refuses.
    pub fn coordinator(&mut self, group: &str) -> Result<i32, Failure> {
        let request = FindCoordinatorRequest::default().with_key(text(group));
        let answer = self.any(&(0..=3), &request)?;
        check(answer.error_code, answer.error_message.as_deref(), || format!("group {group}"))?;
        self.addresses.insert(answer.node_id.0, host_and_port(&answer.host, answer.port));
        Ok(answer.node_id.0)
    }

    /// Does `attempt`, again where it failed with what passes ([`Failure::passes`]), until the time is up.
    ///
    /// # Errors
    /// The attempt's last failure.
    pub fn retry<T>(&mut self, attempt: impl FnMut(&mut Cluster) -> Result<T, Failure>) -> Result<T, Failure> {
        self.retry_if(|failure, _| failure.passes(), attempt)
    }

    /// The same for what may be done twice: it is tried again where a broker could not be reached, too, once some broker
    /// was.
    ///
    /// # Errors
    /// The attempt's last failure.
    pub fn insist<T>(&mut self, attempt: impl FnMut(&mut Cluster) -> Result<T, Failure>) -> Result<T, Failure> {
        self.retry_if(
            |failure, reached| failure.passes() || reached && matches!(failure, Failure::Unreachable(_)),
            attempt,
        )
    }

    fn retry_if<T>(
        &mut self,
        again: impl Fn(&Failure, bool) -> bool,
        mut attempt: impl FnMut(&mut Cluster) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            match attempt(self) {
                Err(failure) if again(&failure, self.reached) && Instant::now() + PAUSE < self.deadline => {
                    if failure.code() == Some(ResponseError::NotController) {
                        self.controller = Some(self.metadata(Some(&[]))?.controller_id.0);
                    }
                    thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }
}

/// An address as it is connected to; numbers of IPv6 take brackets.
fn host_and_port(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
