// The Java client: java -cp 'libs/*' Checks.java HOST:PORT[,HOST:PORT] [CHECK ...]

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Checks {
  interface Check {
    void run() throws Exception;
  }

  static String brokers;
  static Admin admin;

  static void require(boolean condition, Object about) {
    if (!condition) throw new AssertionError(about);
  }

  static void equal(Object got, Object wanted) {
    require(got == null ? wanted == null : got.equals(wanted), "got " + got + ", not " + wanted);
  }

  static String fresh(String name) {
    return name + "-" + UUID.randomUUID();
  }

  static String create(String name, int partitions) throws Exception {
    String topic = fresh(name);
    admin.createTopics(List.of(new NewTopic(topic, partitions, (short) -1))).all().get();
    return topic;
  }

  static KafkaProducer<String, String> producer(Object... settings) {
    Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", brokers, "metadata.max.age.ms", 1000));
    for (int i = 0; i < settings.length; i += 2) all.put((String) settings[i], settings[i + 1]);
    return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
  }

  static KafkaConsumer<String, String> consumer(Object... settings) {
    Map<String, Object> all =
        new HashMap<>(
            Map.of(
                "bootstrap.servers", brokers,
                "enable.auto.commit", false,
                "auto.offset.reset", "earliest",
                "heartbeat.interval.ms", 500,
                "metadata.max.age.ms", 1000));
    for (int i = 0; i < settings.length; i += 2) all.put((String) settings[i], settings[i + 1]);
    return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
  }

  static void produce(String topic, int partitions, int count) throws Exception {
    List<Future<RecordMetadata>> sent = new ArrayList<>();
    try (KafkaProducer<String, String> producer = producer()) {
      for (int i = 0; i < count; i++) sent.add(producer.send(new ProducerRecord<>(topic, i % partitions, null, "" + i)));
    }
    for (Future<RecordMetadata> future : sent) future.get();
  }

  static List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> consumer, int count) {
    List<ConsumerRecord<String, String>> records = new ArrayList<>();
    eventually(
        () -> {
          consumer.poll(Duration.ofMillis(100)).forEach(records::add);
          return records.size() >= count;
        });
    equal(records.size(), count);
    return records;
  }

  static void eventually(BooleanSupplier condition) {
    long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
    while (!condition.getAsBoolean()) {
      require(System.nanoTime() < end, "did not come true in time");
      try {
        Thread.sleep(20);
      } catch (InterruptedException error) {
        throw new AssertionError(error);
      }
    }
  }

  /** A member of a group on a thread of its own: counts what it owns, remembers what it saw. */
  static class Member extends Thread {
    final KafkaConsumer<String, String> consumer;
    final Map<String, Integer> seen;
    final AtomicBoolean stop = new AtomicBoolean();
    volatile int owned;
    volatile Exception failure;

    Member(Map<String, Integer> seen, Collection<String> topics, Object... settings) {
      this.seen = seen;
      consumer = consumer(settings);
      consumer.subscribe(topics);
      start();
    }

    @Override
    public void run() {
      try (consumer) {
        while (!stop.get()) {
          consumer.poll(Duration.ofMillis(50)).forEach(record -> seen.merge(record.value(), 1, Integer::sum));
          owned = consumer.assignment().size();
          consumer.commitAsync();
        }
        consumer.commitSync();
      } catch (Exception error) {
        failure = error;
      }
      owned = 0;
    }

    void end() throws Exception {
      stop.set(true);
      join();
      if (failure != null) throw failure;
    }
  }

  static void groupWith(String assignor) throws Exception {
    String topic = create("group", 6);
    String group = fresh("group");
    AtomicBoolean stop = new AtomicBoolean();
    AtomicInteger sent = new AtomicInteger();
    Thread feeder =
        new Thread(
            () -> {
              try (KafkaProducer<String, String> producer = producer()) {
                while (!stop.get()) {
                  int next = sent.getAndIncrement();
                  producer.send(new ProducerRecord<>(topic, next % 6, null, "" + next));
                  Thread.sleep(3);
                }
              } catch (InterruptedException error) {
                throw new AssertionError(error);
              }
            });
    feeder.start();
    Map<String, Integer> seen = new ConcurrentHashMap<>();
    List<Member> members = new ArrayList<>();
    String strategy = "org.apache.kafka.clients.consumer." + assignor;
    for (int size = 1; size <= 3; size++) {
      members.add(new Member(seen, List.of(topic), "group.id", group, "partition.assignment.strategy", strategy));
      int each = 6 / size;
      eventually(() -> members.stream().allMatch(member -> member.owned == each));
    }
    equal(admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size(), 3);
    members.remove(2).end();
    members.remove(1).end();
    eventually(() -> members.get(0).owned == 6);
    stop.set(true);
    feeder.join();
    eventually(() -> seen.size() == sent.get());
    members.get(0).end();
    long committed = 0;
    for (OffsetAndMetadata offset : admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values()) {
      committed += offset.offset();
    }
    equal(committed, (long) sent.get());
    admin.deleteConsumerGroups(List.of(group)).all().get();
  }

  static void eager() throws Exception {
    for (String assignor : List.of("RangeAssignor", "RoundRobinAssignor", "StickyAssignor")) groupWith(assignor);
  }

  static void cooperative() throws Exception {
    groupWith("CooperativeStickyAssignor");
  }

  static void statics() throws Exception {
    String topic = create("static", 4);
    produce(topic, 4, 40);
    String group = fresh("static");
    Map<String, Integer> seen = new ConcurrentHashMap<>();
    Object[] first = {"group.id", group, "group.instance.id", "one"};
    Object[] second = {"group.id", group, "group.instance.id", "two"};
    Member one = new Member(seen, List.of(topic), first);
    Member two = new Member(seen, List.of(topic), second);
    eventually(() -> one.owned == 2 && two.owned == 2 && seen.size() == 40);
    Set<TopicPartition> before = assignments(group).get("two");
    two.end();
    Member again = new Member(seen, List.of(topic), second);
    eventually(() -> again.owned == 2);
    equal(assignments(group).get("two"), before);
    equal(one.owned, 2);
    one.end();
    again.end();
    // Members with an instance id stay when they close; an administrator takes them out.
    equal(assignments(group).keySet(), Set.of("one", "two"));
    admin
        .removeMembersFromConsumerGroup(
            group,
            new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("one"), new MemberToRemove("two"))))
        .all()
        .get();
    equal(assignments(group).keySet(), Set.of());
  }

  static Map<String, Set<TopicPartition>> assignments(String group) throws Exception {
    Map<String, Set<TopicPartition>> found = new HashMap<>();
    admin
        .describeConsumerGroups(List.of(group))
        .all()
        .get()
        .get(group)
        .members()
        .forEach(member -> found.put(member.groupInstanceId().orElse(""), member.assignment().topicPartitions()));
    return found;
  }

  static void resets() throws Exception {
    String topic = create("resets", 1);
    produce(topic, 1, 10);
    TopicPartition partition = new TopicPartition(topic, 0);
    try (KafkaConsumer<String, String> consumer = consumer()) {
      consumer.assign(List.of(partition));
      consumer.seek(partition, 1000);
      equal(read(consumer, 10).get(0).offset(), 0L);
    }
    try (KafkaConsumer<String, String> consumer = consumer("auto.offset.reset", "latest")) {
      consumer.assign(List.of(partition));
      consumer.seek(partition, 1000);
      equal(consumer.poll(Duration.ofSeconds(1)).count(), 0);
      equal(consumer.position(partition), 10L);
    }
    try (KafkaConsumer<String, String> consumer = consumer("auto.offset.reset", "by_duration:PT1H")) {
      consumer.assign(List.of(partition));
      consumer.seek(partition, 1000);
      equal(read(consumer, 10).get(0).offset(), 0L);
    }
    try (KafkaConsumer<String, String> consumer = consumer("auto.offset.reset", "none", "group.id", fresh("none"))) {
      consumer.assign(List.of(partition));
      try {
        consumer.poll(Duration.ofSeconds(10));
        throw new AssertionError("no offset was no error");
      } catch (NoOffsetForPartitionException expected) {
        consumer.seek(partition, 1000);
      }
      try {
        while (true) consumer.poll(Duration.ofSeconds(10));
      } catch (OffsetOutOfRangeException expected) {
        equal(expected.offsetOutOfRangePartitions(), Map.of(partition, 1000L));
      }
    }
  }

  static void pausing() throws Exception {
    String topic = create("pausing", 2);
    TopicPartition first = new TopicPartition(topic, 0);
    TopicPartition second = new TopicPartition(topic, 1);
    try (KafkaConsumer<String, String> consumer = consumer()) {
      consumer.assign(List.of(first, second));
      consumer.pause(List.of(first));
      produce(topic, 2, 20);
      require(read(consumer, 10).stream().allMatch(record -> record.partition() == 1), "a paused partition was read");
      equal(consumer.poll(Duration.ofSeconds(1)).count(), 0);
      consumer.resume(List.of(first));
      require(read(consumer, 10).stream().allMatch(record -> record.partition() == 0), "twice");
    }
  }

  static void recreation() throws Exception {
    String topic = create("again", 2);
    try (KafkaProducer<String, String> producer = producer();
        KafkaConsumer<String, String> consumer = consumer("group.id", fresh("again"))) {
      consumer.subscribe(List.of(topic));
      producer.send(new ProducerRecord<>(topic, 0, null, "old")).get();
      equal(read(consumer, 1).get(0).value(), "old");
      admin.deleteTopics(List.of(topic)).all().get();
      admin.createTopics(List.of(new NewTopic(topic, 2, (short) -1))).all().get();
      // The consumer may stay at the offset that it had come to: the second of the new topic's records it reads anyhow.
      equal(producer.send(new ProducerRecord<>(topic, 0, null, "new")).get().offset(), 0L);
      equal(producer.send(new ProducerRecord<>(topic, 0, null, "newer")).get().offset(), 1L);
      Set<String> values = new HashSet<>();
      eventually(
          () -> {
            consumer.poll(Duration.ofMillis(100)).forEach(record -> values.add(record.value()));
            return values.contains("newer");
          });
    }
  }

  static void creation() throws Exception {
    String topic = fresh("auto");
    try (KafkaConsumer<String, String> consumer = consumer("group.id", fresh("auto"))) {
      consumer.subscribe(List.of(topic));
      eventually(
          () -> {
            consumer.poll(Duration.ofMillis(100));
            return consumer.assignment().size() == 1;
          });
      produce(topic, 1, 1);
      read(consumer, 1);
    }
    String second = fresh("auto");
    try (KafkaConsumer<String, String> consumer =
        consumer("group.id", fresh("auto"), "allow.auto.create.topics", false)) {
      consumer.subscribe(List.of(second));
      equal(consumer.poll(Duration.ofSeconds(1)).count(), 0);
      require(!admin.listTopics().names().get().contains(second), "created in spite of allow.auto.create.topics");
      produce(second, 1, 1);
      read(consumer, 1);
    }
  }

  static void pattern() throws Exception {
    String prefix = fresh("pattern");
    try (KafkaConsumer<String, String> consumer = consumer("group.id", fresh("pattern"))) {
      consumer.subscribe(Pattern.compile(prefix + ".*"));
      consumer.poll(Duration.ofMillis(500));
      for (int i = 0; i < 3; i++) produce(prefix + i, 1, 1);
      read(consumer, 3);
    }
  }

  static void partitions() throws Exception {
    String topic = create("wide", 1000);
    produce(topic, 1000, 3000);
    try (KafkaConsumer<String, String> consumer = consumer("group.id", fresh("wide"))) {
      consumer.subscribe(List.of(topic));
      Set<String> values = new HashSet<>();
      read(consumer, 3000).forEach(record -> values.add(record.value()));
      equal(values.size(), 3000);
      consumer.commitSync();
    }
    admin.deleteTopics(List.of(topic)).all().get();
  }

  static void topics() throws Exception {
    List<NewTopic> many = new ArrayList<>();
    for (int i = 0; i < 3000; i++) many.add(new NewTopic(fresh("many"), 1, (short) -1));
    List<String> names = many.stream().map(NewTopic::name).toList();
    admin.createTopics(many).all().get();
    require(admin.listTopics().names().get().containsAll(names), "not all are listed");
    equal(admin.describeTopics(names).allTopicNames().get().size(), 3000);
    admin.deleteTopics(names).all().get();
  }

  /** Sends and reads for eight seconds; the brokers may be stopped and started meanwhile, one at a time. */
  static void restart() throws Exception {
    String topic = create("restart", 3);
    Map<String, Integer> seen = new ConcurrentHashMap<>();
    Member member = new Member(seen, List.of(topic), "group.id", fresh("restart"));
    System.out.println("running restart");
    List<Future<RecordMetadata>> sent = new ArrayList<>();
    try (KafkaProducer<String, String> producer = producer()) {
      long end = System.nanoTime() + Duration.ofSeconds(8).toNanos();
      while (System.nanoTime() < end) {
        sent.add(producer.send(new ProducerRecord<>(topic, sent.size() % 3, null, "" + sent.size())));
        Thread.sleep(2);
      }
    }
    for (Future<RecordMetadata> future : sent) future.get();
    eventually(() -> seen.size() == sent.size());
    member.end();
    try (KafkaConsumer<String, String> consumer = consumer("group.id", fresh("all"))) {
      consumer.subscribe(List.of(topic));
      read(consumer, sent.size());
    }
  }

  public static void main(String[] arguments) {
    brokers = arguments[0];
    admin = Admin.create(Map.of("bootstrap.servers", brokers));
    Map<String, Check> checks = new LinkedHashMap<>();
    checks.put("resets", Checks::resets);
    checks.put("pausing", Checks::pausing);
    checks.put("eager", Checks::eager);
    checks.put("cooperative", Checks::cooperative);
    checks.put("static", Checks::statics);
    checks.put("recreation", Checks::recreation);
    checks.put("creation", Checks::creation);
    checks.put("pattern", Checks::pattern);
    checks.put("partitions", Checks::partitions);
    checks.put("topics", Checks::topics);
    checks.put("restart", Checks::restart);
    List<String> named = Arrays.asList(arguments).subList(1, arguments.length);
    boolean failed = false;
    for (String name : named.isEmpty() ? checks.keySet() : named) {
      long begin = System.nanoTime();
      try {
        checks.get(name).run();
        System.out.printf("ok %s %.1fs%n", name, (System.nanoTime() - begin) / 1e9);
      } catch (Throwable error) {
        failed = true;
        System.out.println("FAIL " + name + " " + error.toString().replace('\n', ' '));
        error.printStackTrace();
      }
    }
    System.exit(failed ? 1 : 0);
  }
}
