package ringlog;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The Java client with its defaults, which are idempotent and acks=all. */
class ClientTest {
  private static final String BROKERS = System.getProperty("ringlog.brokers");
  private static Admin admin;

  @BeforeAll
  static void connect() {
    admin = Admin.create(Map.of("bootstrap.servers", BROKERS, "request.timeout.ms", "20000", "default.api.timeout.ms", "20000"));
  }

  @AfterAll
  static void disconnect() {
    admin.close();
  }

  private static String fresh(String name) {
    return name + "-" + UUID.randomUUID();
  }

  private static String create(String name, int partitions, Map<String, String> configs) throws Exception {
    String topic = fresh(name);
    NewTopic request = new NewTopic(topic, partitions, (short) 1).configs(configs);
    admin.createTopics(List.of(request)).all().get();
    return topic;
  }

  private static KafkaProducer<String, String> producer(Map<String, Object> more) {
    Map<String, Object> settings = new java.util.HashMap<>(Map.of("bootstrap.servers", BROKERS));
    settings.putAll(more);
    return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
  }

  private static KafkaConsumer<String, String> consumer() {
    Map<String, Object> settings = Map.of("bootstrap.servers", BROKERS, "enable.auto.commit", "false");
    return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
  }

  private static List<ConsumerRecord<String, String>> read(
      KafkaConsumer<String, String> consumer, int records) {
    List<ConsumerRecord<String, String>> read = new ArrayList<>();
    long end = System.nanoTime() + Duration.ofSeconds(30).toNanos();
    while (read.size() < records && System.nanoTime() < end) {
      consumer.poll(Duration.ofMillis(200)).forEach(read::add);
    }
    assertEquals(records, read.size(), "records read");
    return read;
  }

  private static <T extends Throwable> T cause(Class<T> expected, Future<?> future) {
    ExecutionException thrown = assertThrows(ExecutionException.class, future::get);
    return assertInstanceOf(expected, thrown.getCause());
  }

  @Test
  void idempotentProducerKeepsOrderAndCount() throws Exception {
    String topic = create("idempotent", 3, Map.of());
    int each = 5_000;
    List<Future<RecordMetadata>> sent = new ArrayList<>();
    try (KafkaProducer<String, String> producer = producer(Map.of("linger.ms", 1, "batch.size", 2_000))) {
      for (int i = 0; i < 3 * each; i++) {
        sent.add(producer.send(new ProducerRecord<>(topic, i % 3, "k" + i, "v" + i)));
      }
      producer.flush();
    }
    for (int i = 0; i < sent.size(); i++) {
      assertEquals(i % 3, sent.get(i).get().partition());
      assertEquals(i / 3, sent.get(i).get().offset());
    }
    try (KafkaConsumer<String, String> consumer = consumer()) {
      Set<TopicPartition> partitions =
          Set.of(
              new TopicPartition(topic, 0),
              new TopicPartition(topic, 1),
              new TopicPartition(topic, 2));
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      for (ConsumerRecord<String, String> record : read(consumer, 3 * each)) {
        long number = record.offset() * 3 + record.partition();
        assertEquals("k" + number, record.key());
        assertEquals("v" + number, record.value());
      }
      for (TopicPartition partition : partitions) {
        assertEquals(0L, consumer.beginningOffsets(partitions).get(partition));
        assertEquals(each, consumer.endOffsets(partitions).get(partition));
        assertEquals(each, consumer.position(partition));
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"none", "gzip", "snappy", "lz4", "zstd"})
  void compression(String type) throws Exception {
    String topic = create("compression", 1, Map.of());
    TopicPartition partition = new TopicPartition(topic, 0);
    try (KafkaProducer<String, String> producer =
        producer(Map.of("compression.type", type, "linger.ms", 20))) {
      for (int i = 0; i < 1_000; i++) {
        producer.send(new ProducerRecord<>(topic, 0, null, ("value " + i + " ").repeat(20)));
      }
    }
    try (KafkaConsumer<String, String> consumer = consumer()) {
      consumer.assign(Set.of(partition));
      consumer.seek(partition, 990);
      List<ConsumerRecord<String, String>> read = read(consumer, 10);
      for (int i = 0; i < 10; i++) {
        assertEquals(990 + i, read.get(i).offset());
        assertEquals(("value " + (990 + i) + " ").repeat(20), read.get(i).value());
      }
    }
  }

  @Test
  void headersNullsAndTimestamps() throws Exception {
    String topic = create("headers", 1, Map.of());
    TopicPartition partition = new TopicPartition(topic, 0);
    try (KafkaProducer<String, String> producer = producer(Map.of())) {
      ProducerRecord<String, String> first = new ProducerRecord<>(topic, 0, 1_000L, "key", "value");
      first.headers().add(new RecordHeader("h", new byte[] {1, 2})).add(new RecordHeader("h", null));
      producer.send(first);
      producer.send(new ProducerRecord<>(topic, 0, 3_000L, null, "later"));
      producer.send(new ProducerRecord<>(topic, 0, 2_000L, "tombstone", (String) null));
    }
    try (KafkaConsumer<String, String> consumer = consumer()) {
      consumer.assign(Set.of(partition));
      consumer.seekToBeginning(Set.of(partition));
      List<ConsumerRecord<String, String>> read = read(consumer, 3);
      assertEquals(2, read.get(0).headers().toArray().length);
      assertEquals(1_000L, read.get(0).timestamp());
      assertNull(read.get(1).key());
      assertNull(read.get(2).value());
      Map<TopicPartition, OffsetAndTimestamp> found =
          consumer.offsetsForTimes(Map.of(partition, 1_001L));
      assertEquals(1, found.get(partition).offset());
      assertEquals(3_000L, found.get(partition).timestamp());
      assertNull(consumer.offsetsForTimes(Map.of(partition, 3_001L)).get(partition));
    }
    Map<OffsetSpec, Long> expected =
        Map.of(OffsetSpec.earliest(), 0L, OffsetSpec.latest(), 3L, OffsetSpec.maxTimestamp(), 1L);
    for (Map.Entry<OffsetSpec, Long> entry : expected.entrySet()) {
      ListOffsetsResultInfo info =
          admin.listOffsets(Map.of(partition, entry.getKey())).partitionResult(partition).get();
      assertEquals(entry.getValue(), info.offset(), entry.getKey().getClass().getSimpleName());
    }
  }

  @Test
  void logAppendTime() throws Exception {
    String topic = create("append-time", 1, Map.of("message.timestamp.type", "LogAppendTime"));
    long before = System.currentTimeMillis() - 1_000;
    try (KafkaProducer<String, String> producer = producer(Map.of())) {
      RecordMetadata sent = producer.send(new ProducerRecord<>(topic, 0, 1_000L, null, "v")).get();
      assertTrue(sent.timestamp() >= before, "the broker's time, not the client's");
    }
    try (KafkaConsumer<String, String> consumer = consumer()) {
      TopicPartition partition = new TopicPartition(topic, 0);
      consumer.assign(Set.of(partition));
      consumer.seekToBeginning(Set.of(partition));
      ConsumerRecord<String, String> record = read(consumer, 1).get(0);
      assertEquals("LogAppendTime", record.timestampType().toString());
      assertTrue(record.timestamp() >= before);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"0", "1", "all"})
  void acks(String acks) throws Exception {
    String topic = create("acks", 1, Map.of());
    try (KafkaProducer<String, String> producer =
        producer(Map.of("acks", acks, "enable.idempotence", false))) {
      for (int i = 0; i < 100; i++) {
        producer.send(new ProducerRecord<>(topic, 0, null, "v" + i));
      }
    }
    try (KafkaConsumer<String, String> consumer = consumer()) {
      consumer.assign(Set.of(new TopicPartition(topic, 0)));
      consumer.seekToBeginning(consumer.assignment());
      List<ConsumerRecord<String, String>> read = read(consumer, 100);
      for (int i = 0; i < 100; i++) {
        assertEquals("v" + i, read.get(i).value());
      }
    }
  }

  @Test
  void largeRecords() throws Exception {
    String topic = create("large", 1, Map.of("max.message.bytes", "3000000"));
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", BROKERS, "max.request.size", 8_000_000, "buffer.memory", 32_000_000);
    byte[] fits = new byte[2_900_000];
    new java.util.Random(1).nextBytes(fits);
    try (KafkaProducer<byte[], byte[]> producer =
        new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
      producer.send(new ProducerRecord<>(topic, fits)).get();
      cause(RecordTooLargeException.class, producer.send(new ProducerRecord<>(topic, new byte[3_000_000])));
      producer.send(new ProducerRecord<>(topic, new byte[10])).get();
    }
    Map<String, Object> reading =
        Map.of("bootstrap.servers", BROKERS, "max.partition.fetch.bytes", 1_000);
    try (KafkaConsumer<byte[], byte[]> consumer =
        new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      TopicPartition partition = new TopicPartition(topic, 0);
      consumer.assign(Set.of(partition));
      consumer.seekToBeginning(Set.of(partition));
      List<byte[]> values = new ArrayList<>();
      long end = System.nanoTime() + Duration.ofSeconds(30).toNanos();
      while (values.size() < 2 && System.nanoTime() < end) {
        consumer.poll(Duration.ofMillis(200)).forEach(record -> values.add(record.value()));
      }
      assertEquals(2, values.size());
      org.junit.jupiter.api.Assertions.assertArrayEquals(fits, values.get(0));
      assertEquals(10, values.get(1).length);
    }
  }

  @Test
  void topicsLiveAndDie() throws Exception {
    String topic = fresh("life");
    NewTopic request = new NewTopic(topic, 4, (short) 1).configs(Map.of("retention.ms", "3600000"));

    CreateTopicsResult trial =
        admin.createTopics(List.of(request), new CreateTopicsOptions().validateOnly(true));
    assertEquals(4, trial.numPartitions(topic).get());
    assertFalse(admin.listTopics().names().get().contains(topic), "validateOnly creates nothing");

    CreateTopicsResult made = admin.createTopics(List.of(request));
    Uuid id = made.topicId(topic).get();
    assertTrue(admin.listTopics().names().get().contains(topic));
    TopicDescription byName = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    assertEquals(id, byName.topicId());
    assertEquals(4, byName.partitions().size());
    byName.partitions().forEach(partition -> assertEquals(1, partition.isr().size()));

    ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
    assertEquals("3600000", config.get("retention.ms").value());
    assertEquals(
        ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, config.get("retention.ms").source());
    assertEquals("CreateTime", config.get("message.timestamp.type").value());

    cause(TopicExistsException.class, admin.createTopics(List.of(request)).all());
    admin.deleteTopics(List.of(topic)).all().get();
    assertFalse(admin.listTopics().names().get().contains(topic));
    cause(UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(topic)).all());

    Uuid again = admin.createTopics(List.of(request)).topicId(topic).get();
    assertFalse(id.equals(again), "a new topic has a new id");
  }

  @Test
  void refusals() {
    short one = 1;
    cause(
        InvalidPartitionsException.class,
        admin.createTopics(List.of(new NewTopic(fresh("none"), 0, one))).all());
    cause(
        InvalidReplicationFactorException.class,
        admin.createTopics(List.of(new NewTopic(fresh("many"), 1, (short) 100))).all());
    cause(
        InvalidTopicException.class,
        admin.createTopics(List.of(new NewTopic("no/slash", 1, one))).all());
    NewTopic strange = new NewTopic(fresh("strange"), 1, one).configs(Map.of("no.such.config", "1"));
    cause(InvalidConfigurationException.class, admin.createTopics(List.of(strange)).all());
  }

  @Test
  void manyTopicsInOneRequest() throws Exception {
    List<NewTopic> requests = new ArrayList<>();
    for (int i = 0; i < 100; i++) {
      requests.add(new NewTopic(fresh("many-" + i), 2, (short) 1));
    }
    admin.createTopics(requests).all().get();
    Collection<String> names = admin.listTopics().names().get();
    requests.forEach(request -> assertTrue(names.contains(request.name())));
    admin.deleteTopics(requests.stream().map(NewTopic::name).toList()).all().get();
  }

  @Test
  void groupsShareCommitAndAreDescribed() throws Exception {
    String topic = create("group", 2, Map.of());
    String group = fresh("readers");
    try (KafkaProducer<String, String> producer = producer(Map.of())) {
      for (int i = 0; i < 100; i++) {
        producer.send(new ProducerRecord<>(topic, i % 2, "k", "v" + i));
      }
    }
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", BROKERS,
            "group.id", group,
            "auto.offset.reset", "earliest",
            "enable.auto.commit", "false");
    try (KafkaConsumer<String, String> consumer =
        new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
      consumer.subscribe(List.of(topic));
      read(consumer, 100);
      consumer.commitSync();
      assertEquals(GroupState.STABLE, described(group).groupState());
      assertEquals(2, described(group).members().iterator().next().assignment().topicPartitions().size());
      cause(GroupNotEmptyException.class, admin.deleteConsumerGroups(List.of(group)).all());
    }
    assertEquals(GroupState.EMPTY, described(group).groupState());
    Map<TopicPartition, OffsetAndMetadata> kept =
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
    assertEquals(50, kept.get(new TopicPartition(topic, 0)).offset());
    assertEquals(50, kept.get(new TopicPartition(topic, 1)).offset());
    assertTrue(admin.listGroups().all().get().stream().anyMatch(listed -> listed.groupId().equals(group)));
    try (KafkaConsumer<String, String> consumer =
        new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
      consumer.subscribe(List.of(topic));
      try (KafkaProducer<String, String> producer = producer(Map.of())) {
        producer.send(new ProducerRecord<>(topic, 0, "k", "last")).get();
      }
      assertEquals("last", read(consumer, 1).get(0).value());
    }
    admin.deleteConsumerGroups(List.of(group)).all().get();
    cause(GroupIdNotFoundException.class, admin.deleteConsumerGroups(List.of(group)).all());
  }

  /** Members of the new protocol: by name, by pattern, static; and a classic one that joins them. */
  @Test
  void consumerProtocol() throws Exception {
    String topic = create("modern", 4, Map.of());
    String group = fresh("modern");
    Map<String, Object> classic =
        new java.util.HashMap<>(
            Map.of("bootstrap.servers", BROKERS, "group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", "false"));
    Map<String, Object> modern = new java.util.HashMap<>(classic);
    modern.put("group.protocol", "consumer");
    StringDeserializer text = new StringDeserializer();
    KafkaConsumer<String, String> byName = new KafkaConsumer<>(modern, text, text);
    byName.subscribe(List.of(topic));
    share(4, byName);
    modern.put("group.instance.id", "one");
    modern.put("group.remote.assignor", "range");
    KafkaConsumer<String, String> byPattern = new KafkaConsumer<>(modern, text, text);
    byPattern.subscribe(new org.apache.kafka.clients.consumer.SubscriptionPattern(topic.substring(0, topic.length() - 1) + "."));
    share(2, byName, byPattern);
    assertEquals(GroupState.STABLE, described(group).groupState());
    assertEquals(org.apache.kafka.common.GroupType.CONSUMER, described(group).type());
    try (KafkaProducer<String, String> producer = producer(Map.of())) {
      for (int i = 0; i < 100; i++) {
        producer.send(new ProducerRecord<>(topic, i % 4, "k", "v" + i));
      }
    }
    assertEquals(50, read(byName, 50).size());
    assertEquals(50, read(byPattern, 50).size());
    byName.commitSync();
    byPattern.commitSync();
    KafkaConsumer<String, String> old = new KafkaConsumer<>(classic, text, text);
    old.subscribe(List.of(topic));
    share(1, byName, byPattern, old);
    byName.close();
    byPattern.close(org.apache.kafka.clients.consumer.CloseOptions.groupMembershipOperation(
        org.apache.kafka.clients.consumer.CloseOptions.GroupMembershipOperation.LEAVE_GROUP));
    share(4, old);
    assertEquals(org.apache.kafka.common.GroupType.CLASSIC, described(group).type());
    old.close();
    Map<TopicPartition, OffsetAndMetadata> kept =
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
    assertEquals(4, kept.values().stream().filter(offset -> offset.offset() == 25).count());
    admin.deleteConsumerGroups(List.of(group)).all().get();
  }

  /** Polls until each has at least so many partitions, and all four are somebody's. */
  @SafeVarargs
  private static void share(int each, KafkaConsumer<String, String>... members) {
    long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
    while (System.nanoTime() < end) {
      int all = 0;
      boolean enough = true;
      for (KafkaConsumer<String, String> member : members) {
        assertEquals(0, member.poll(Duration.ofMillis(50)).count(), "what is there was read before");
        all += member.assignment().size();
        enough &= member.assignment().size() >= each;
      }
      if (enough && all == 4) {
        return;
      }
    }
    throw new AssertionError("the members do not share the topic");
  }

  private static ConsumerGroupDescription described(String group) throws Exception {
    return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
  }

  @Test
  void cluster() throws Exception {
    assertEquals(1, admin.describeCluster().nodes().get().size());
    String address = admin.describeCluster().controller().get().host();
    assertEquals(BROKERS.split(":")[0], address);
    assertEquals(22, admin.describeCluster().clusterId().get().length());
  }
}
