"""Consumer groups: a rebalance of many members in either protocol, and commits a second.

Every member is a connection of its own. The members do not wait for their heartbeat intervals: what is measured is the
broker, not how seldom clients ask."""

import selectors
import struct
import time
import uuid

from broker import Broker
from wire import COMMIT, CONSUMER_HEARTBEAT, HEARTBEAT, JOIN, RETRIABLE, SYNC
from wire import Connection, await_coordinator, blob, compact, create_topics, frame, text, varint

REBALANCE_IN_PROGRESS = 27


def options(parser):
    parser.add_argument("--members", type=int, default=1_000, help="members of a group (default 1000)")
    parser.add_argument("--topic-partitions", type=int, default=1_000, help="partitions of their topic (default 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind (default 3)")
    parser.add_argument("--connections", type=int, default=16, help="clients that commit, each in a group of its own (default 16)")
    parser.add_argument("--in-flight", type=int, default=512, help="commits that each has under way (default 512)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a measurement of commits (default 5)")


def run(settings):
    broker = Broker(settings, *settings.broker_arguments)
    try:
        broker.start()
        measure(broker, settings)
    finally:
        broker.clean()


def measure(broker, settings):
    address, partitions = broker.address, settings.topic_partitions
    connection = Connection(address)
    await_coordinator(connection, "bench-scale")
    create_topics(connection, ["groups"], partitions)
    for number in range(1, settings.rounds + 1):
        with broker.counted(f"round {number}    classic"):
            rebalance = classic(address, settings.members, "groups")
        print(f"round {number}    classic: {settings.members} members, one more: {rebalance:.3f} s")
        with broker.counted(f"round {number}    consumer"):
            together, one_more = consumer(address, settings.members, "groups", partitions)
        print(f"round {number}    consumer: {settings.members} members at once: {together:.3f} s, one more: {one_more:.3f} s")
        with broker.counted(f"round {number}    commits"):
            rate = commits(address, settings.connections, settings.in_flight, settings.seconds, "groups")
        print(f"round {number}    commits: {rate:,.0f} a second")


class ClassicMember:
    """A member of the classic protocol."""

    def __init__(self, address, group, topic):
        self.connection, self.group, self.topic = Connection(address), group, topic
        self.member, self.generation, self.stage = "", -1, "out"

    def join(self):
        self.stage = "joining"
        subscription = struct.pack(">hi", 0, 1) + text(self.topic) + struct.pack(">i", -1)
        body = text(self.group) + struct.pack(">ii", 60_000, 60_000) + text(self.member) + text("consumer")
        self.connection.send(frame(JOIN, 2, body + struct.pack(">i", 1) + text("range") + blob(subscription)))

    def heartbeat(self):
        self.stage = "asking"
        body = text(self.group) + struct.pack(">i", self.generation) + text(self.member)
        self.connection.send(frame(HEARTBEAT, 0, body))

    def take(self, answer):
        if self.stage == "asking":
            self.join() if struct.unpack_from(">h", answer)[0] == REBALANCE_IN_PROGRESS else self.heartbeat()
        elif self.stage == "joining":
            _, error, self.generation = struct.unpack_from(">ihi", answer)
            if error:
                raise SystemExit(f"JoinGroup: error {error}")
            at, names = 10, []
            for _ in range(3):
                length = struct.unpack_from(">h", answer, at)[0]
                names.append(answer[at + 2 : at + 2 + length].decode())
                at += 2 + length
            self.member = names[2]
            assignments, count = [], struct.unpack_from(">i", answer, at)[0]
            at += 4
            for _ in range(count):
                length = struct.unpack_from(">h", answer, at)[0]
                assignments.append(answer[at : at + 2 + length] + blob(bytes(64)))
                at += 2 + length
                at += 4 + struct.unpack_from(">i", answer, at)[0]
            self.stage = "syncing"
            body = text(self.group) + struct.pack(">i", self.generation) + text(self.member)
            self.connection.send(frame(SYNC, 0, body + struct.pack(">i", count) + b"".join(assignments)))
        else:
            error = struct.unpack_from(">h", answer)[0]
            if error == REBALANCE_IN_PROGRESS:
                self.join()
            elif error:
                raise SystemExit(f"SyncGroup: error {error}")
            else:
                self.stage = "in"


class ConsumerMember:
    """A member of the consumer protocol."""

    def __init__(self, address, group, topic):
        self.connection, self.group, self.topic = Connection(address), group, topic
        self.member, self.epoch, self.owned, self.busy = str(uuid.uuid4()), 0, {}, False

    def beat(self):
        self.busy = True
        joins = self.epoch == 0
        body = compact(self.group) + compact(self.member) + struct.pack(">i", self.epoch) + b"\0\0"
        body += struct.pack(">i", 60_000 if joins else -1)
        body += varint(2) + compact(self.topic) if joins else b"\0"
        body += b"\0\0" + varint(len(self.owned) + 1)
        for topic, numbers in self.owned.items():
            body += topic + varint(len(numbers) + 1) + b"".join(struct.pack(">i", n) for n in numbers) + b"\0"
        self.connection.send(frame(CONSUMER_HEARTBEAT, 1, body + b"\0", flexible=True))

    def take(self, answer):
        self.busy = False
        at = 1 + 4
        error = struct.unpack_from(">h", answer, at)[0]
        if error in RETRIABLE:
            return  # It asks again, as clients do.
        if error:
            raise SystemExit(f"ConsumerGroupHeartbeat: error {error}")
        at += 2
        for _ in range(2):  # The error's message, the member.
            length = answer[at]
            at += max(length, 1)
        self.epoch = struct.unpack_from(">i", answer, at)[0]
        at += 8
        if answer[at] == 1:
            self.owned, count, at = {}, answer[at + 1] - 1, at + 2
            for _ in range(count):
                topic, length, shift = answer[at : at + 16], 0, 0
                at += 16
                while True:
                    byte, at = answer[at], at + 1
                    length, shift = length | (byte & 0x7F) << shift, shift + 7
                    if byte < 0x80:
                        break
                self.owned[topic] = list(struct.unpack_from(f">{length - 1}i", answer, at))
                at += 4 * (length - 1) + 1


def drive(members, done, idle=lambda: None, limit=120):
    """Serves the members until `done`; returns how long that took, in seconds."""
    selector = selectors.DefaultSelector()
    for member in members:
        selector.register(member.connection.socket, selectors.EVENT_READ, member)
    start = time.monotonic()
    while not done():
        if time.monotonic() - start > limit:
            raise SystemExit(f"not within {limit} s")
        for key, _ in selector.select(0.01):
            for answer in key.data.connection.answers():
                key.data.take(answer)
        idle()
    return time.monotonic() - start


def classic(address, count, topic):
    group = f"classic-{uuid.uuid4()}"
    members = [ClassicMember(address, group, topic) for _ in range(count)]
    for member in members:
        member.join()
    stable = lambda: all(m.stage == "in" for m in members) and len({m.generation for m in members}) == 1
    drive(members, stable)
    newcomer = ClassicMember(address, group, topic)
    for member in members:
        member.heartbeat()
    members.append(newcomer)
    newcomer.join()
    return drive(members, stable)


def consumer(address, count, topic, partitions):
    group = f"consumer-{uuid.uuid4()}"
    members = [ConsumerMember(address, group, topic) for _ in range(count)]

    epoch = 0

    def settled():
        # A newcomer is at the epoch of an assignment that does not know it yet: only a later one is its own.
        if len({m.epoch for m in members}) > 1 or members[0].epoch <= epoch:
            return False
        counts = [sum(len(numbers) for numbers in m.owned.values()) for m in members]
        return sum(counts) == partitions and max(counts) - min(counts) <= 1

    def again():
        for member in members:
            if not member.busy:
                member.beat()

    together = drive(members, settled, again)
    epoch = members[0].epoch
    newcomer = ConsumerMember(address, group, topic)
    members.append(newcomer)
    return together, drive(members, settled, again)


def commits(address, connections, in_flight, seconds, topic):
    """Commits of one partition each, by so many clients, each with so many requests under way."""
    links, requests = [], []
    for number in range(connections):
        link = Connection(address)
        await_coordinator(link, f"commits-{number}")
        body = text(f"commits-{number}") + struct.pack(">i", -1) + text("") + struct.pack(">qi", -1, 1) + text(topic)
        body += struct.pack(">iiqh", 1, 0, 7, 0)
        request = frame(COMMIT, 2, body)
        answer = link.call(request)
        if answer[-2:] != b"\0\0":
            raise SystemExit(f"OffsetCommit: error {struct.unpack('>h', answer[-2:])[0]}")
        links.append(link)
        requests.append((request, 4 + 4 + len(answer)))
    selector = selectors.DefaultSelector()
    for number, link in enumerate(links):
        selector.register(link.socket, selectors.EVENT_READ, number)
        link.send(requests[number][0] * in_flight)
    done, start, rest = 0, time.monotonic(), [b""] * connections
    while time.monotonic() - start < seconds:
        for key, _ in selector.select(0.1):
            number = key.data
            request, size = requests[number]
            data = rest[number] + links[number].socket.recv(1 << 18)
            whole = len(data) // size
            for at in range(whole):
                if data[(at + 1) * size - 2 : (at + 1) * size] != b"\0\0":
                    raise SystemExit("a commit failed")
            rest[number] = data[whole * size :]
            done += whole
            links[number].send(request * whole)
    return done / (time.monotonic() - start)
