"""The clusters of three that are compared: each broker on a file system of its own, which can be frozen."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bench_peers"))

from brokers import JVM, Kafka as OneKafka  # noqa: E402

NODES = (1, 2, 3)


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def metadata_leader(address):
    """The node that leads the metadata, by a DescribeQuorum request (version 0)."""
    topic = b"__cluster_metadata"
    body = bytes([2, len(topic) + 1]) + topic + bytes([2]) + struct.pack(">i", 0) + bytes(3)
    request = struct.pack(">hhih", 55, 0, 1, -1) + bytes(1) + body
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        # Length, correlation id, tags, error, topics; the topic's name, partitions; its number and error.
        answer.read(4 + 4 + 1 + 2 + 1 + 1 + len(topic) + 1 + 4 + 2)
        return struct.unpack(">i", answer.read(4))[0]


def answers(address):
    """Whether a broker takes requests and knows who leads the metadata."""
    try:
        return metadata_leader(address) > 0
    except (OSError, struct.error):
        return False


class Ringlog:
    """Three brokers started by scripts/cluster.sh."""

    name = "ringlog"
    brokers = ["127.0.0.1:19092", "127.0.0.1:29092", "127.0.0.1:39092"]

    def __init__(self, setup):
        self.settings = "defaults; CLUSTER_ARGS: " + (os.environ.get("CLUSTER_ARGS") or "none")

    def script(self, *args):
        run(HERE.parent / "cluster.sh", *args)

    def up(self):
        self.script("up")

    def down(self):
        self.script("down")

    def freeze(self, node):
        self.script("freeze", node)

    def thaw(self, node):
        self.script("thaw", node)

    def kill(self, node):
        self.script("kill", node)

    def start(self, node):
        self.script("start", node)

    def pids(self):
        home = Path(os.environ.get("CLUSTER_DIR") or HERE.parent.parent / "target" / "cluster")
        return [int((home / f"node-{node}.pid").read_text()) for node in NODES]


KAFKA_PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.quorum.voters=1@127.0.0.1:21193,2@127.0.0.1:21293,3@127.0.0.1:21393
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
min.insync.replicas=2
"""


class Kafka:
    """Three brokers of Apache Kafka that are controllers too, on the same kind of loop mounts."""

    name = "kafka"
    brokers = ["127.0.0.1:21192", "127.0.0.1:21292", "127.0.0.1:21392"]

    def __init__(self, setup):
        self.dir = setup.work_dir / "kafka-cluster"
        one = SimpleNamespace(work_dir=setup.work_dir, data_dir=self.dir, kafka_version=setup.kafka_version, say=print)
        self.jars = OneKafka(one, 0)
        self.mount = os.environ.get("CLUSTER_MOUNT", "1") == "1"
        self.processes = {}
        self.frozen = set()
        self.settings = " ".join(JVM) + "; " + KAFKA_PROPERTIES.replace("\n", " ")

    def up(self):
        self.jars.fetch()
        for node in NODES:
            home = self.dir / f"node-{node}"
            home.mkdir(parents=True, exist_ok=True)
            if self.mount:
                image = self.dir / f"node-{node}.img"
                megabytes = os.environ.get("CLUSTER_IMAGE_MB", "4096")
                run(HERE.parent / "mount-image.sh", image, megabytes, home)
            port = 21092 + 100 * node
            values = {"node": node, "port": port, "controller": port + 1, "data": home / "data"}
            properties = self.dir / f"node-{node}.properties"
            properties.write_text(KAFKA_PROPERTIES.format(**values))
            java = ["java", "-cp", f"{self.jars.jars}/libs/*"]
            run(*java, "kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", properties)
            self.launch(node)
        self.await_answers()

    def launch(self, node):
        command = ["java", *JVM, "-cp", f"{self.jars.jars}/libs/*", "kafka.Kafka", str(self.dir / f"node-{node}.properties")]
        with open(self.dir / f"node-{node}.log", "ab") as log:
            self.processes[node] = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)

    def await_answers(self):
        until = time.monotonic() + 120
        while not all(answers(address) for address in self.brokers):
            if time.monotonic() > until:
                raise SystemExit(f"Kafka did not start; see {self.dir}")
            time.sleep(0.5)

    def kill(self, node):
        self.processes[node].send_signal(signal.SIGKILL)
        self.processes[node].wait()

    def start(self, node):
        self.launch(node)
        self.await_answers()

    def pids(self):
        return [process.pid for process in self.processes.values()]

    def down(self):
        for node in list(self.frozen):
            self.thaw(node)
        for process in self.processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.processes = {}
        for node in NODES:
            home = self.dir / f"node-{node}"
            if os.path.ismount(home):
                run("umount", home)
        shutil.rmtree(self.dir, ignore_errors=True)

    def freeze(self, node):
        run("fsfreeze", "-f", self.dir / f"node-{node}")
        self.frozen.add(node)

    def thaw(self, node):
        run("fsfreeze", "-u", self.dir / f"node-{node}")
        self.frozen.discard(node)


KINDS = {kind.name: kind for kind in (Ringlog, Kafka)}
