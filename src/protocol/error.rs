//! Kafka's error codes, as far as the broker gives them.

use kafka_protocol::error::ResponseError;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $kafka:ident;)*) => {
        /// An error that a client is told of. Success has no variant: see [`ErrorCode::code_of`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = kafka_protocol::error::ResponseError::$kafka.code(),)*
        }

        impl ErrorCode {
            /// Every code of the broker.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];
        }
    };
}

error_codes! {
    /// An invariant of the broker is broken; never a stand-in for an error that has a name.
    UnknownServerError = UnknownServerError;
    /// The offset is neither in the log nor at its end.
    OffsetOutOfRange = OffsetOutOfRange;
    /// A batch fails its checksum or its header contradicts itself.
    CorruptMessage = CorruptMessage;
    /// The broker does not know the topic or the partition.
    UnknownTopicOrPartition = UnknownTopicOrPartition;
    /// The partition has no leader just now.
    LeaderNotAvailable = LeaderNotAvailable;
    /// Another broker leads the partition.
    NotLeaderOrFollower = NotLeaderOrFollower;
    /// The request's time is up; what it asked for may still happen.
    RequestTimedOut = RequestTimedOut;
    /// A batch is larger than the topic's `max.message.bytes`.
    MessageTooLarge = MessageTooLarge;
    /// The topic's name is not a legal one.
    InvalidTopicException = InvalidTopicException;
    /// More bytes of batches than the broker's bound.
    RecordListTooLarge = RecordListTooLarge;
    /// Fewer replicas in sync than `min.insync.replicas` before the append.
    NotEnoughReplicas = NotEnoughReplicas;
    /// Fewer replicas in sync than `min.insync.replicas` after the append.
    NotEnoughReplicasAfterAppend = NotEnoughReplicasAfterAppend;
    /// `acks` is not one of 0, 1 and -1.
    InvalidRequiredAcks = InvalidRequiredAcks;
    /// A record's timestamp is outside the topic's bounds.
    InvalidTimestamp = InvalidTimestamp;
    /// The broker does not answer this version of the request.
    UnsupportedVersion = UnsupportedVersion;
    /// A topic of this name exists.
    TopicAlreadyExists = TopicAlreadyExists;
    /// The number of partitions is below 1 or above the broker's bound.
    InvalidPartitions = InvalidPartitions;
    /// The replication factor is below 1 or above the number of brokers.
    InvalidReplicationFactor = InvalidReplicationFactor;
    /// The replica assignment contradicts itself or names unknown brokers.
    InvalidReplicaAssignment = InvalidReplicaAssignment;
    /// A config's name or value is not legal.
    InvalidConfig = InvalidConfig;
    /// The request contradicts itself.
    InvalidRequest = InvalidRequest;
    /// The topic's message format cannot hold the records.
    UnsupportedForMessageFormat = UnsupportedForMessageFormat;
    /// The operation breaks a policy of the broker.
    PolicyViolation = PolicyViolation;
    /// A batch does not follow the producer's last one.
    OutOfOrderSequenceNumber = OutOfOrderSequenceNumber;
    /// A batch was appended before, too long ago for its offset to be known.
    DuplicateSequenceNumber = DuplicateSequenceNumber;
    /// The producer's epoch is older than its newest.
    InvalidProducerEpoch = InvalidProducerEpoch;
    /// A transaction's timeout is larger than the broker allows.
    InvalidTransactionTimeout = InvalidTransactionTimeout;
    /// The broker has no authorizer, and so no ACLs.
    SecurityDisabled = SecurityDisabled;
    /// The disk failed under the partition.
    KafkaStorageError = KafkaStorageError;
    /// The partition knows nothing of the producer.
    UnknownProducerId = UnknownProducerId;
    /// The broker keeps no such fetch session.
    FetchSessionIdNotFound = FetchSessionIdNotFound;
    /// The fetch session is at another epoch.
    InvalidFetchSessionEpoch = InvalidFetchSessionEpoch;
    /// The client's leader epoch is older than the partition's.
    FencedLeaderEpoch = FencedLeaderEpoch;
    /// The client's leader epoch is newer than the partition's.
    UnknownLeaderEpoch = UnknownLeaderEpoch;
    /// The offset is not known here yet, though it may be elsewhere.
    OffsetNotAvailable = OffsetNotAvailable;
    /// The batch's compression is not one the request's version allows.
    UnsupportedCompressionType = UnsupportedCompressionType;
    /// The broker is over one of its bounds for now.
    ThrottlingQuotaExceeded = ThrottlingQuotaExceeded;
    /// A record cannot be stored as it is.
    InvalidRecord = InvalidRecord;
    /// The broker does not know the topic's id.
    UnknownTopicId = UnknownTopicId;
    /// Sessions with topic ids and without are mixed.
    FetchSessionTopicIdError = FetchSessionTopicIdError;
    /// The topic's id and its name do not belong together.
    InconsistentTopicId = InconsistentTopicId;
    /// The client asked a controller's question of a broker, or the other way round.
    MismatchedEndpointType = MismatchedEndpointType;
    /// The broker does not know this type of endpoint.
    UnsupportedEndpointType = UnsupportedEndpointType;
    /// The coordinator is not here.
    NotCoordinator = NotCoordinator;
    /// The coordinator is not up yet.
    CoordinatorNotAvailable = CoordinatorNotAvailable;
    /// The coordinator is still reading back what it has to know.
    CoordinatorLoadInProgress = CoordinatorLoadInProgress;
    /// The text that is to be kept with an offset is too long.
    OffsetMetadataTooLarge = OffsetMetadataTooLarge;
    /// The group is at another generation.
    IllegalGeneration = IllegalGeneration;
    /// The members have no protocol in common, or the group is of another type.
    InconsistentGroupProtocol = InconsistentGroupProtocol;
    /// The group's id is not a legal one.
    InvalidGroupId = InvalidGroupId;
    /// The group has no such member.
    UnknownMemberId = UnknownMemberId;
    /// The session timeout is outside of the broker's bounds.
    InvalidSessionTimeout = InvalidSessionTimeout;
    /// The members must join again.
    RebalanceInProgress = RebalanceInProgress;
    /// There is no room for the offsets.
    InvalidCommitOffsetSize = InvalidCommitOffsetSize;
    /// The group has members.
    NonEmptyGroup = NonEmptyGroup;
    /// There is no such group.
    GroupIdNotFound = GroupIdNotFound;
    /// The member must come again, with the id that it is given.
    MemberIdRequired = MemberIdRequired;
    /// The group takes no further member.
    GroupMaxSizeReached = GroupMaxSizeReached;
    /// Another member has this instance's name.
    FencedInstanceId = FencedInstanceId;
    /// The group reads the topic.
    GroupSubscribedToTopic = GroupSubscribedToTopic;
    /// The member must give up what it has, and join again.
    FencedMemberEpoch = FencedMemberEpoch;
    /// The member is at another epoch.
    StaleMemberEpoch = StaleMemberEpoch;
    /// Another member has this instance's name, and has not left.
    UnreleasedInstanceId = UnreleasedInstanceId;
    /// The group's assignors do not include this one.
    UnsupportedAssignor = UnsupportedAssignor;
    /// The regular expression of a subscription is none.
    InvalidRegularExpression = InvalidRegularExpression;
    /// The partition is led as it should be.
    ElectionNotNeeded = ElectionNotNeeded;
    /// The preferred replica's broker cannot lead just now.
    PreferredLeaderNotAvailable = PreferredLeaderNotAvailable;
    /// No replica that is there may lead.
    EligibleLeadersNotAvailable = EligibleLeadersNotAvailable;
    /// The partition's replicas are not being moved.
    NoReassignmentInProgress = NoReassignmentInProgress;
    /// No broker of this number is registered.
    BrokerIdNotRegistered = BrokerIdNotRegistered;
    /// The request is for another cluster.
    InconsistentClusterId = InconsistentClusterId;
    /// The voter's data directory is another one.
    InvalidVoterKey = InvalidVoterKey;
    /// The broker votes on the metadata already.
    DuplicateVoter = DuplicateVoter;
    /// The broker does not vote on the metadata.
    VoterNotFound = VoterNotFound;
    /// The broker is not the controller.
    NotController = NotController;
    /// The client may not touch the topic.
    TopicAuthorizationFailed = TopicAuthorizationFailed;
    /// The client may not do that to the cluster.
    ClusterAuthorizationFailed = ClusterAuthorizationFailed;
    /// The client may not use the transactional id.
    TransactionalIdAuthorizationFailed = TransactionalIdAuthorizationFailed;
}

impl ErrorCode {
    /// The code on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name, such as `REQUEST_TIMED_OUT`.
    pub fn kafka_name(self) -> String {
        spelt_out(&format!("{self:?}"))
    }

    /// The place in [`ErrorCode::ALL`] of the error with this code on the wire; none for 0, which is no error.
    pub fn place_of(code: i16) -> Option<usize> {
        if code == 0 { None } else { ErrorCode::ALL.iter().position(|error| error.code() == code) }
    }

    /// The code on the wire of an outcome: 0 (Kafka's `NONE`) where there is no error.
    pub const fn code_of(error: Option<ErrorCode>) -> i16 {
        match error {
            None => 0,
            Some(error) => error.code(),
        }
    }

    /// Whether a client that tries again may succeed.
    pub fn retriable(self) -> bool {
        ResponseError::try_from_code(self.code()).is_some_and(|error| error.is_retriable())
    }
}

/// Kafka's name of any code on the wire, those that this broker never gives among them.
pub fn name_of(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "NONE".to_owned(),
        Some(ResponseError::Unknown(code)) => format!("error {code}"),
        Some(error) => spelt_out(&format!("{error:?}")),
    }
}

/// `RequestTimedOut` as Kafka writes it, `REQUEST_TIMED_OUT`.
fn spelt_out(name: &str) -> String {
    let mut spelt = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !spelt.is_empty() {
            spelt.push('_');
        }
        spelt.push(letter.to_ascii_uppercase());
    }
    spelt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kafkas() {
        assert_eq!(ErrorCode::UnknownServerError.code(), -1);
        assert_eq!(ErrorCode::OffsetOutOfRange.code(), 1);
        assert_eq!(ErrorCode::RequestTimedOut.code(), 7);
        assert_eq!(ErrorCode::UnsupportedVersion.code(), 35);
        assert_eq!(ErrorCode::TopicAlreadyExists.code(), 36);
        assert_eq!(ErrorCode::UnknownTopicId.code(), 100);
        assert_eq!(ErrorCode::code_of(None), 0);
        for error in ErrorCode::ALL {
            let kafka = ResponseError::try_from_code(error.code()).expect("an error is not 0");
            assert_eq!(format!("{error:?}"), format!("{kafka:?}"));
        }
    }

    #[test]
    fn every_code_has_a_name() {
        assert_eq!(name_of(36), "TOPIC_ALREADY_EXISTS");
        assert_eq!(name_of(-1), "UNKNOWN_SERVER_ERROR");
        assert_eq!(name_of(12_345), "error 12345");
        assert_eq!(name_of(0), "NONE");
    }

    #[test]
    fn a_client_may_retry_what_passes() {
        for error in [
            ErrorCode::CorruptMessage,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::LeaderNotAvailable,
            ErrorCode::NotLeaderOrFollower,
            ErrorCode::RequestTimedOut,
            ErrorCode::NotEnoughReplicas,
            ErrorCode::KafkaStorageError,
            ErrorCode::ThrottlingQuotaExceeded,
            ErrorCode::UnknownTopicId,
        ] {
            assert!(error.retriable(), "{error:?}");
        }
        for error in [
            ErrorCode::UnknownServerError,
            ErrorCode::MessageTooLarge,
            ErrorCode::TopicAlreadyExists,
            ErrorCode::OutOfOrderSequenceNumber,
            ErrorCode::InvalidProducerEpoch,
        ] {
            assert!(!error.retriable(), "{error:?}");
        }
    }
}
