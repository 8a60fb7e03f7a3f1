//! What the requests of the table look like on the wire, version by version: as much as the guard must know to find
//! every count and length in a frame.

/// The form of one kind of request over its versions.
#[derive(Debug)]
pub struct Schema {
    /// The first flexible version: compact lengths, and tagged fields at the end of every structure.
    pub(super) flexible: i16,
    /// The fields of the body in their order.
    pub(super) fields: &'static [Field],
}

/// A field of a structure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// Kafka's name for it.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The first version that has it.
    pub(super) since: i16,
    /// The last version that has it.
    pub(super) until: i16,
    /// The first version in which it may be null.
    pub(super) nullable: i16,
    /// Its tag, where it is one of the tagged fields.
    pub(super) tag: Option<u32>,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// So many bytes: a number, a boolean or a UUID.
    Fixed(usize),
    /// A string, of at most 32,767 bytes.
    String,
    /// Bytes, or batches of records.
    Bytes,
    /// An array of elements of one kind.
    Array(&'static Kind),
    /// A structure.
    Struct(&'static [Field]),
}

use Kind::{Array, Bytes, String, Struct};

const BOOL: Kind = Kind::Fixed(1);
const INT8: Kind = Kind::Fixed(1);
const INT16: Kind = Kind::Fixed(2);
const INT32: Kind = Kind::Fixed(4);
const INT64: Kind = Kind::Fixed(8);
const FLOAT64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, since: 0, until: i16::MAX, nullable: i16::MAX, tag: None }
}

impl Field {
    const fn since(mut self, version: i16) -> Field {
        self.since = version;
        self
    }

    const fn until(mut self, version: i16) -> Field {
        self.until = version;
        self
    }

    const fn nullable_since(mut self, version: i16) -> Field {
        self.nullable = version;
        self
    }

    const fn nullable(self) -> Field {
        self.nullable_since(0)
    }

    const fn tag(mut self, tag: u32) -> Field {
        self.tag = Some(tag);
        self
    }

    /// Whether `version` has the field.
    pub(super) fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

pub(super) static PRODUCE: Schema = Schema {
    flexible: 9,
    fields: &[
        field("transactional_id", String).nullable(),
        field("acks", INT16),
        field("timeout_ms", INT32),
        field(
            "topic_data",
            Array(&Struct(&[
                field("name", String).until(12),
                field("topic_id", UUID).since(13),
                field("partition_data", Array(&Struct(&[field("index", INT32), field("records", Bytes).nullable()]))),
            ])),
        ),
    ],
};

pub(super) static FETCH: Schema = Schema {
    flexible: 12,
    fields: &[
        field("cluster_id", String).since(12).nullable().tag(0),
        field("replica_id", INT32).until(14),
        field("replica_state", Struct(&[field("replica_id", INT32), field("replica_epoch", INT64)])).since(15).tag(1),
        field("max_wait_ms", INT32),
        field("min_bytes", INT32),
        field("max_bytes", INT32),
        field("isolation_level", INT8),
        field("session_id", INT32).since(7),
        field("session_epoch", INT32).since(7),
        field(
            "topics",
            Array(&Struct(&[
                field("topic", String).until(12),
                field("topic_id", UUID).since(13),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition", INT32),
                        field("current_leader_epoch", INT32).since(9),
                        field("fetch_offset", INT64),
                        field("last_fetched_epoch", INT32).since(12),
                        field("log_start_offset", INT64).since(5),
                        field("partition_max_bytes", INT32),
                        field("replica_directory_id", UUID).since(17).tag(0),
                    ])),
                ),
            ])),
        ),
        field(
            "forgotten_topics_data",
            Array(&Struct(&[
                field("topic", String).until(12),
                field("topic_id", UUID).since(13),
                field("partitions", Array(&INT32)),
            ])),
        )
        .since(7),
        field("rack_id", String).since(11),
    ],
};

pub(super) static LIST_OFFSETS: Schema = Schema {
    flexible: 6,
    fields: &[
        field("replica_id", INT32),
        field("isolation_level", INT8).since(2),
        field(
            "topics",
            Array(&Struct(&[
                field("name", String),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", INT32),
                        field("current_leader_epoch", INT32).since(4),
                        field("timestamp", INT64),
                    ])),
                ),
            ])),
        ),
        field("timeout_ms", INT32).since(10),
    ],
};

pub(super) static METADATA: Schema = Schema {
    flexible: 9,
    fields: &[
        field("topics", Array(&Struct(&[field("topic_id", UUID).since(10), field("name", String).nullable_since(10)])))
            .nullable_since(1),
        field("allow_auto_topic_creation", BOOL).since(4),
        field("include_cluster_authorized_operations", BOOL).since(8).until(10),
        field("include_topic_authorized_operations", BOOL).since(8),
    ],
};

pub(super) static API_VERSIONS: Schema = Schema {
    flexible: 3,
    fields: &[field("client_software_name", String).since(3), field("client_software_version", String).since(3)],
};

pub(super) static CREATE_TOPICS: Schema = Schema {
    flexible: 5,
    fields: &[
        field(
            "topics",
            Array(&Struct(&[
                field("name", String),
                field("num_partitions", INT32),
                field("replication_factor", INT16),
                field(
                    "assignments",
                    Array(&Struct(&[field("partition_index", INT32), field("broker_ids", Array(&INT32))])),
                ),
                field("configs", Array(&Struct(&[field("name", String), field("value", String).nullable()]))),
            ])),
        ),
        field("timeout_ms", INT32),
        field("validate_only", BOOL),
    ],
};

pub(super) static DELETE_TOPICS: Schema = Schema {
    flexible: 4,
    fields: &[
        field("topics", Array(&Struct(&[field("name", String).nullable(), field("topic_id", UUID)]))).since(6),
        field("topic_names", Array(&String)).until(5),
        field("timeout_ms", INT32),
    ],
};

pub(super) static INIT_PRODUCER_ID: Schema = Schema {
    flexible: 2,
    fields: &[
        field("transactional_id", String).nullable(),
        field("transaction_timeout_ms", INT32),
        field("producer_id", INT64).since(3),
        field("producer_epoch", INT16).since(3),
    ],
};

pub(super) static OFFSET_FOR_LEADER_EPOCH: Schema = Schema {
    flexible: 4,
    fields: &[
        field("replica_id", INT32).since(3),
        field(
            "topics",
            Array(&Struct(&[
                field("topic", String),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition", INT32),
                        field("current_leader_epoch", INT32),
                        field("leader_epoch", INT32),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) static DESCRIBE_CONFIGS: Schema = Schema {
    flexible: 4,
    fields: &[
        field(
            "resources",
            Array(&Struct(&[
                field("resource_type", INT8),
                field("resource_name", String),
                field("configuration_keys", Array(&String)).nullable(),
            ])),
        ),
        field("include_synonyms", BOOL),
        field("include_documentation", BOOL).since(3),
    ],
};

pub(super) static DESCRIBE_CLUSTER: Schema = Schema {
    flexible: 0,
    fields: &[
        field("include_cluster_authorized_operations", BOOL),
        field("endpoint_type", INT8).since(1),
        field("include_fenced_brokers", BOOL).since(2),
    ],
};

pub(super) static ELECT_LEADERS: Schema = Schema {
    flexible: 2,
    fields: &[
        field("election_type", INT8).since(1),
        field("topic_partitions", Array(&Struct(&[field("topic", String), field("partitions", Array(&INT32))])))
            .nullable(),
        field("timeout_ms", INT32),
    ],
};

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Schema = Schema {
    flexible: 0,
    fields: &[
        field("timeout_ms", INT32),
        field("allow_replication_factor_change", BOOL).since(1),
        field(
            "topics",
            Array(&Struct(&[
                field("name", String),
                field(
                    "partitions",
                    Array(&Struct(&[field("partition_index", INT32), field("replicas", Array(&INT32)).nullable()])),
                ),
            ])),
        ),
    ],
};

pub(super) static LIST_PARTITION_REASSIGNMENTS: Schema = Schema {
    flexible: 0,
    fields: &[
        field("timeout_ms", INT32),
        field("topics", Array(&Struct(&[field("name", String), field("partition_indexes", Array(&INT32))]))).nullable(),
    ],
};

pub(super) static UNREGISTER_BROKER: Schema = Schema { flexible: 0, fields: &[field("broker_id", INT32)] };

pub(super) static ADD_RAFT_VOTER: Schema = Schema {
    flexible: 0,
    fields: &[
        field("cluster_id", String).nullable(),
        field("timeout_ms", INT32),
        field("voter_id", INT32),
        field("voter_directory_id", UUID),
        // Ports have as many bytes as an INT16.
        field("listeners", Array(&Struct(&[field("name", String), field("host", String), field("port", INT16)]))),
    ],
};

pub(super) static REMOVE_RAFT_VOTER: Schema = Schema {
    flexible: 0,
    fields: &[field("cluster_id", String).nullable(), field("voter_id", INT32), field("voter_directory_id", UUID)],
};

pub(super) static DESCRIBE_QUORUM: Schema = Schema {
    flexible: 0,
    fields: &[field(
        "topics",
        Array(&Struct(&[
            field("topic_name", String),
            field("partitions", Array(&Struct(&[field("partition_index", INT32)]))),
        ])),
    )],
};

pub(super) static OFFSET_COMMIT: Schema = Schema {
    flexible: 8,
    fields: &[
        field("group_id", String),
        field("generation_id_or_member_epoch", INT32),
        field("member_id", String),
        field("group_instance_id", String).since(7).nullable(),
        field("retention_time_ms", INT64).since(2).until(4),
        field(
            "topics",
            Array(&Struct(&[
                field("name", String),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", INT32),
                        field("committed_offset", INT64),
                        field("committed_leader_epoch", INT32).since(6),
                        field("committed_metadata", String).nullable(),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) static OFFSET_FETCH: Schema = Schema {
    flexible: 6,
    fields: &[
        field("group_id", String).until(7),
        field("topics", Array(&Struct(&[field("name", String), field("partition_indexes", Array(&INT32))])))
            .until(7)
            .nullable_since(2),
        field(
            "groups",
            Array(&Struct(&[
                field("group_id", String),
                field("member_id", String).since(9).nullable(),
                field("member_epoch", INT32).since(9),
                field("topics", Array(&Struct(&[field("name", String), field("partition_indexes", Array(&INT32))])))
                    .nullable(),
            ])),
        )
        .since(8),
        field("require_stable", BOOL).since(7),
    ],
};

pub(super) static FIND_COORDINATOR: Schema = Schema {
    flexible: 3,
    fields: &[
        field("key", String).until(3),
        field("key_type", INT8).since(1),
        field("coordinator_keys", Array(&String)).since(4),
    ],
};

pub(super) static JOIN_GROUP: Schema = Schema {
    flexible: 6,
    fields: &[
        field("group_id", String),
        field("session_timeout_ms", INT32),
        field("rebalance_timeout_ms", INT32).since(1),
        field("member_id", String),
        field("group_instance_id", String).since(5).nullable(),
        field("protocol_type", String),
        field("protocols", Array(&Struct(&[field("name", String), field("metadata", Bytes)]))),
        field("reason", String).since(8).nullable(),
    ],
};

pub(super) static HEARTBEAT: Schema = Schema {
    flexible: 4,
    fields: &[
        field("group_id", String),
        field("generation_id", INT32),
        field("member_id", String),
        field("group_instance_id", String).since(3).nullable(),
    ],
};

pub(super) static CONSUMER_GROUP_HEARTBEAT: Schema = Schema {
    flexible: 0,
    fields: &[
        field("group_id", String),
        field("member_id", String),
        field("member_epoch", INT32),
        field("instance_id", String).nullable(),
        field("rack_id", String).nullable(),
        field("rebalance_timeout_ms", INT32),
        field("subscribed_topic_names", Array(&String)).nullable(),
        field("subscribed_topic_regex", String).since(1).nullable(),
        field("server_assignor", String).nullable(),
        field("topic_partitions", Array(&Struct(&[field("topic_id", UUID), field("partitions", Array(&INT32))])))
            .nullable(),
    ],
};

pub(super) static CONSUMER_GROUP_DESCRIBE: Schema =
    Schema { flexible: 0, fields: &[field("group_ids", Array(&String)), field("include_authorized_operations", BOOL)] };

pub(super) static LEAVE_GROUP: Schema = Schema {
    flexible: 4,
    fields: &[
        field("group_id", String),
        field("member_id", String).until(2),
        field(
            "members",
            Array(&Struct(&[
                field("member_id", String),
                field("group_instance_id", String).nullable(),
                field("reason", String).since(5).nullable(),
            ])),
        )
        .since(3),
    ],
};

pub(super) static SYNC_GROUP: Schema = Schema {
    flexible: 4,
    fields: &[
        field("group_id", String),
        field("generation_id", INT32),
        field("member_id", String),
        field("group_instance_id", String).since(3).nullable(),
        field("protocol_type", String).since(5).nullable(),
        field("protocol_name", String).since(5).nullable(),
        field("assignments", Array(&Struct(&[field("member_id", String), field("assignment", Bytes)]))),
    ],
};

pub(super) static DESCRIBE_GROUPS: Schema = Schema {
    flexible: 5,
    fields: &[field("groups", Array(&String)), field("include_authorized_operations", BOOL).since(3)],
};

pub(super) static LIST_GROUPS: Schema = Schema {
    flexible: 3,
    fields: &[field("states_filter", Array(&String)).since(4), field("types_filter", Array(&String)).since(5)],
};

pub(super) static DELETE_GROUPS: Schema = Schema { flexible: 2, fields: &[field("groups_names", Array(&String))] };

pub(super) static OFFSET_DELETE: Schema = Schema {
    flexible: i16::MAX,
    fields: &[
        field("group_id", String),
        field(
            "topics",
            Array(&Struct(&[
                field("name", String),
                field("partitions", Array(&Struct(&[field("partition_index", INT32)]))),
            ])),
        ),
    ],
};

pub(super) static CREATE_PARTITIONS: Schema = Schema {
    flexible: 2,
    fields: &[
        field(
            "topics",
            Array(&Struct(&[
                field("name", String),
                field("count", INT32),
                field("assignments", Array(&Struct(&[field("broker_ids", Array(&INT32))]))).nullable(),
            ])),
        ),
        field("timeout_ms", INT32),
        field("validate_only", BOOL),
    ],
};

pub(super) static ALTER_CONFIGS: Schema = Schema {
    flexible: 2,
    fields: &[
        field(
            "resources",
            Array(&Struct(&[
                field("resource_type", INT8),
                field("resource_name", String),
                field("configs", Array(&Struct(&[field("name", String), field("value", String).nullable()]))),
            ])),
        ),
        field("validate_only", BOOL),
    ],
};

pub(super) static INCREMENTAL_ALTER_CONFIGS: Schema = Schema {
    flexible: 1,
    fields: &[
        field(
            "resources",
            Array(&Struct(&[
                field("resource_type", INT8),
                field("resource_name", String),
                field(
                    "configs",
                    Array(&Struct(&[
                        field("name", String),
                        field("config_operation", INT8),
                        field("value", String).nullable(),
                    ])),
                ),
            ])),
        ),
        field("validate_only", BOOL),
    ],
};

pub(super) static DESCRIBE_LOG_DIRS: Schema = Schema {
    flexible: 2,
    fields: &[field("topics", Array(&Struct(&[field("topic", String), field("partitions", Array(&INT32))]))).nullable()],
};

pub(super) static DESCRIBE_PRODUCERS: Schema = Schema {
    flexible: 0,
    fields: &[field("topics", Array(&Struct(&[field("name", String), field("partition_indexes", Array(&INT32))])))],
};

/// What a filter of ACLs says, in requests to show and to delete some.
static ACL_FILTER: &[Field] = &[
    field("resource_type_filter", INT8),
    field("resource_name_filter", String).nullable(),
    field("pattern_type_filter", INT8),
    field("principal_filter", String).nullable(),
    field("host_filter", String).nullable(),
    field("operation", INT8),
    field("permission_type", INT8),
];

pub(super) static DESCRIBE_ACLS: Schema = Schema { flexible: 2, fields: ACL_FILTER };

pub(super) static CREATE_ACLS: Schema = Schema {
    flexible: 2,
    fields: &[field(
        "creations",
        Array(&Struct(&[
            field("resource_type", INT8),
            field("resource_name", String),
            field("resource_pattern_type", INT8),
            field("principal", String),
            field("host", String),
            field("operation", INT8),
            field("permission_type", INT8),
        ])),
    )],
};

pub(super) static DELETE_ACLS: Schema = Schema { flexible: 2, fields: &[field("filters", Array(&Struct(ACL_FILTER)))] };

pub(super) static LIST_CONFIG_RESOURCES: Schema =
    Schema { flexible: 0, fields: &[field("resource_types", Array(&INT8)).since(1)] };

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Schema = Schema {
    flexible: 0,
    fields: &[
        field("topics", Array(&Struct(&[field("name", String)]))),
        field("response_partition_limit", INT32),
        field("cursor", Struct(&[field("topic_name", String), field("partition_index", INT32)])).nullable(),
    ],
};

pub(super) static DESCRIBE_CLIENT_QUOTAS: Schema = Schema {
    flexible: 1,
    fields: &[
        field(
            "components",
            Array(&Struct(&[
                field("entity_type", String),
                field("match_type", INT8),
                field("match", String).nullable(),
            ])),
        ),
        field("strict", BOOL),
    ],
};

pub(super) static ALTER_CLIENT_QUOTAS: Schema = Schema {
    flexible: 1,
    fields: &[
        field(
            "entries",
            Array(&Struct(&[
                field(
                    "entity",
                    Array(&Struct(&[field("entity_type", String), field("entity_name", String).nullable()])),
                ),
                field("ops", Array(&Struct(&[field("key", String), field("value", FLOAT64), field("remove", BOOL)]))),
            ])),
        ),
        field("validate_only", BOOL),
    ],
};

pub(super) static DELETE_RECORDS: Schema = Schema {
    flexible: 2,
    fields: &[
        field(
            "topics",
            Array(&Struct(&[
                field("name", String),
                field("partitions", Array(&Struct(&[field("partition_index", INT32), field("offset", INT64)]))),
            ])),
        ),
        field("timeout_ms", INT32),
    ],
};
