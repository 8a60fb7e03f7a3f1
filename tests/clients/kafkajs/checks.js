// kafkajs: node checks.js HOST:PORT[,HOST:PORT] [CHECK ...]
const assert = require("node:assert/strict");
const { randomUUID } = require("node:crypto");
const { setTimeout: pause } = require("node:timers/promises");
const { CompressionCodecs, CompressionTypes, Kafka, PartitionAssigners, logLevel } = require("kafkajs");
const SnappyCodec = require("kafkajs-snappy");

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;

const brokers = process.argv[2].split(",");
const kafka = new Kafka({ clientId: "checks", brokers, logLevel: logLevel.NOTHING, retry: { retries: 20 } });
const admin = kafka.admin();
const fresh = (name) => `${name}-${randomUUID()}`;

async function create(name, numPartitions = 1, configEntries = []) {
  const topic = fresh(name);
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }] }), true);
  return topic;
}

async function produce(topic, messages, sending = {}, settings = {}) {
  const producer = kafka.producer(settings);
  await producer.connect();
  try {
    return await producer.send({ topic, messages, ...sending });
  } finally {
    await producer.disconnect();
  }
}

async function eventually(condition, seconds = 40) {
  const end = Date.now() + seconds * 1000;
  while (!(await condition())) {
    assert.ok(Date.now() < end, "did not come true in time");
    await pause(50);
  }
}

const different = (messages) => new Set(messages.map(({ value }) => String(value))).size;

// Reads in a group of its own until `count` messages have come, of them `values` different ones, and hands them back:
// kafkajs may hand out messages twice.
async function readAll(subscription, count, settings = {}, values = 0) {
  const consumer = kafka.consumer({ groupId: fresh("readers"), ...settings });
  const messages = [];
  await consumer.connect();
  try {
    await consumer.subscribe({ ...subscription, fromBeginning: true });
    await consumer.run({ eachMessage: async ({ message, partition }) => messages.push({ partition, ...message }) });
    await eventually(() => messages.length >= count && different(messages) >= values);
    return messages;
  } finally {
    await consumer.disconnect();
  }
}

const checks = {
  async codecs() {
    const topics = [];
    const values = Array.from({ length: 200 }, (_, i) => `value ${i} `.repeat(10));
    for (const compression of [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy]) {
      for (const acks of [0, 1, -1]) {
        const topic = await create("codecs");
        await produce(topic, values.map((value) => ({ value })), { acks, compression });
        topics.push(topic);
      }
      const topic = await create("codecs");
      await produce(topic, values.map((value) => ({ value })), { compression }, { idempotent: true });
      topics.push(topic);
    }
    const read = await readAll({ topics }, topics.length * values.length);
    assert.equal(read.length, topics.length * values.length);
    for (const value of values) {
      assert.equal(read.filter((message) => message.value.toString() === value).length, topics.length);
    }
  },

  async shapes() {
    const topic = await create("shapes");
    await produce(topic, [
      { key: null, value: null },
      { key: "k".repeat(40_000), value: "", headers: { a: ["1", "2"], long: "x".repeat(10_000) } },
      { key: "k", value: "v", timestamp: "1000" },
    ]);
    const [first, second, third] = await readAll({ topics: [topic] }, 3);
    assert.equal(first.key, null);
    assert.equal(first.value, null);
    assert.equal(second.key.length, 40_000);
    assert.deepEqual(second.headers.a.map(String), ["1", "2"]);
    assert.equal(second.headers.long.length, 10_000);
    assert.equal(third.timestamp, "1000");
  },

  async sizes() {
    const topic = await create("sizes");
    const sizes = [1, 100_000, 1_048_588 - 72];
    for (const size of sizes) await produce(topic, [{ value: Buffer.alloc(size) }]);
    await assert.rejects(produce(topic, [{ value: Buffer.alloc(1_048_589) }]), { type: "MESSAGE_TOO_LARGE" });
    const read = await readAll({ topics: [topic] }, 3, { maxBytesPerPartition: 1_000 });
    assert.deepEqual(read.map((message) => message.value.length), sizes);
  },

  async times() {
    const topic = await create("times");
    await produce(topic, Array.from({ length: 20 }, (_, i) => ({ value: `${i}`, timestamp: `${1000 + i * 100}` })));
    for (const [time, offset] of [[1000, "0"], [1001, "1"], [2900, "19"], [2901, "20"]]) {
      assert.equal((await admin.fetchTopicOffsetsByTimestamp(topic, time))[0].offset, offset);
    }
    const [offsets] = await admin.fetchTopicOffsets(topic);
    assert.deepEqual([offsets.low, offsets.high], ["0", "20"]);
  },

  async eager() {
    const topic = await create("group", 6);
    const groupId = fresh("group");
    const seen = new Set();
    let sent = 0;
    let stop = false;
    const feeding = (async () => {
      const producer = kafka.producer({ idempotent: true });
      await producer.connect();
      while (!stop) {
        await producer.send({ topic, messages: [{ value: `${sent}`, partition: sent % 6 }] });
        sent += 1;
      }
      await producer.disconnect();
    })();
    const members = [];
    const join = async () => {
      const member = { consumer: kafka.consumer({ groupId, partitionAssigners: [PartitionAssigners.roundRobin] }) };
      member.consumer.on(member.consumer.events.GROUP_JOIN, ({ payload }) => {
        member.assigned = (payload.memberAssignment[topic] ?? []).length;
      });
      await member.consumer.connect();
      await member.consumer.subscribe({ topic, fromBeginning: true });
      await member.consumer.run({ eachMessage: async ({ message }) => seen.add(message.value.toString()) });
      members.push(member);
    };
    for (let size = 1; size <= 3; size += 1) {
      await join();
      await eventually(() => members.every((member) => member.assigned === 6 / size));
    }
    const { groups } = await admin.describeGroups([groupId]);
    assert.equal(groups[0].members.length, 3);
    await members.pop().consumer.disconnect();
    await members.pop().consumer.disconnect();
    await eventually(() => members[0].assigned === 6);
    stop = true;
    await feeding;
    await eventually(() => seen.size === sent);
    await members[0].consumer.disconnect();
    const offsets = await admin.fetchOffsets({ groupId, topics: [topic] });
    assert.equal(offsets[0].partitions.reduce((sum, { offset }) => sum + Number(offset), 0), sent);
    await admin.deleteGroups([groupId]);
  },

  async administration() {
    const topic = await create("admin", 3, [{ name: "retention.ms", value: "3600000" }]);
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    assert.equal(topics[0].partitions.length, 3);
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name: topic }] });
    assert.equal(resources[0].configEntries.find(({ configName }) => configName === "retention.ms").configValue, "3600000");
    assert.equal((await admin.describeCluster()).brokers.length, brokers.length);
    assert.equal(await admin.createTopics({ topics: [{ topic }] }), false);
    await admin.deleteTopics({ topics: [topic] });
    assert.ok(!(await admin.listTopics()).includes(topic));
  },

  async creation() {
    const topic = fresh("auto");
    await produce(topic, [{ value: "v" }]);
    assert.equal((await readAll({ topics: [topic] }, 1))[0].value.toString(), "v");
  },

  async pattern() {
    const prefix = fresh("pattern");
    for (let i = 0; i < 3; i += 1) await produce(`${prefix}-${i}`, [{ value: `${i}` }]);
    const read = await readAll({ topics: [new RegExp(`^${prefix}-.*`)] }, 3);
    assert.deepEqual(read.map((message) => message.value.toString()).sort(), ["0", "1", "2"]);
  },

  async partitions() {
    const topic = await create("wide", 1_000);
    await produce(topic, Array.from({ length: 2_000 }, (_, i) => ({ value: `${i}`, partition: i % 1_000 })));
    const read = await readAll({ topics: [topic] }, 2_000, {}, 2_000);
    assert.equal(different(read), 2_000);
    await admin.deleteTopics({ topics: [topic] });
  },

  // Sends for eight seconds; the brokers may be stopped and started meanwhile, one at a time.
  async restart() {
    const topic = await create("restart", 3);
    console.log("running restart");
    const producer = kafka.producer({ idempotent: true });
    await producer.connect();
    let sent = 0;
    for (const end = Date.now() + 8_000; Date.now() < end; sent += 1) {
      await producer.send({ topic, messages: [{ value: `${sent}`, partition: sent % 3 }] });
    }
    await producer.disconnect();
    const read = await readAll({ topics: [topic] }, sent, {}, sent);
    assert.equal(different(read), sent);
  },
};

(async () => {
  await admin.connect();
  let failed = false;
  for (const name of process.argv.length > 3 ? process.argv.slice(3) : Object.keys(checks)) {
    const begin = Date.now();
    try {
      await checks[name]();
      console.log(`ok ${name} ${((Date.now() - begin) / 1000).toFixed(1)}s`);
    } catch (error) {
      failed = true;
      console.log(`FAIL ${name} ${String(error).slice(0, 300)}`.replaceAll("\n", " "));
      console.error(error);
    }
  }
  await admin.disconnect();
  process.exit(failed ? 1 : 0);
})();
