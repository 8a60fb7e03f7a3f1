"""As much of the Kafka protocol as the measurements need, by hand: a client library would cost more than the broker."""

import socket
import struct
import time

PRODUCE, FETCH, METADATA, COMMIT, FIND_COORDINATOR, JOIN, HEARTBEAT, SYNC = 0, 1, 3, 8, 10, 11, 12, 14
CREATE_TOPICS, CONSUMER_HEARTBEAT = 19, 68
RETRIABLE = (14, 15, 16)


def text(value):
    value = value.encode()
    return struct.pack(">h", len(value)) + value


def blob(value):
    return struct.pack(">i", len(value)) + value


def compact(value):
    return b"\0" if value is None else varint(len(value.encode()) + 1) + value.encode()


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value):
    return varint(value << 1 ^ value >> 63)


def frame(api, version, body, flexible=False):
    header = struct.pack(">hhi", api, version, 1) + text("bench-scale") + (b"\0" if flexible else b"")
    return blob(header + body)


class Connection:
    """A connection whose answers come whole, without their lengths and correlation ids."""

    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def answers(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise SystemExit("the broker closed a connection")
        self.buffer += data
        while len(self.buffer) >= 4:
            length = struct.unpack_from(">i", self.buffer)[0]
            if len(self.buffer) < 4 + length:
                return
            answer, self.buffer = self.buffer[8 : 4 + length], self.buffer[4 + length :]
            yield answer

    def call(self, data):
        self.send(data)
        while True:
            for answer in self.answers():
                return answer


def await_coordinator(connection, group):
    for _ in range(200):
        error = struct.unpack_from(">h", connection.call(frame(FIND_COORDINATOR, 0, text(group))))[0]
        probe = frame(HEARTBEAT, 0, text(group) + struct.pack(">i", 1) + text("nobody"))
        if error == 0 and struct.unpack_from(">h", connection.call(probe))[0] not in RETRIABLE:
            return
        time.sleep(0.05)
    raise SystemExit("no coordinator within 10 s")


def create_topics(connection, names, partitions, configs=()):
    """Creates topics with so many partitions each, in one request."""
    settings = struct.pack(">i", len(configs)) + b"".join(text(key) + text(value) for key, value in configs)
    topics = b"".join(text(name) + struct.pack(">ihi", partitions, -1, 0) + settings for name in names)
    body = struct.pack(">i", len(names)) + topics + struct.pack(">i?", 30_000, False)
    answer = connection.call(frame(CREATE_TOPICS, 4, body))
    at = 8
    for name in names:
        at += 2 + len(name)
        error, length = struct.unpack_from(">hh", answer, at)
        if error:
            raise SystemExit(f"creating {name}: error {error}: {answer[at + 4 : at + 4 + length].decode()}")
        at += 4 + max(length, 0)
