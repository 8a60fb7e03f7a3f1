"""The brokers that are compared: each is started on an empty directory and stopped again."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

from machine import await_quiet, pretouch

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>peers</groupId><artifactId>peers</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version>
    </dependency>
  </dependencies>
</project>
"""

# What Kafka's own start script gives the JVM, with the heap of this comparison.
JVM = (
    "-Xmx512m -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
    "-XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true"
).split()

KAFKA_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


class Failed(Exception):
    """A broker did not start, or a measurement has no result."""


class Broker:
    """One side of the comparison."""

    name = ""
    title = ""
    # Whether the number of partitions is fixed when the broker starts, and topics need no creating.
    fixed_partitions = False
    # Whether what it stored is served again after a restart.
    keeps_data = True

    def __init__(self, setup, port):
        self.setup = setup
        self.port = port
        self.dir = setup.data_dir / self.name
        self.process = None
        self.first_ack_ms = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def format(self):
        """Makes the empty directory into one that the broker starts on; not measured."""

    def command(self, partitions):
        raise NotImplementedError

    def version(self):
        raise NotImplementedError

    def settings(self):
        """What differs from the broker's defaults."""
        return " ".join(self.command("N"))

    def start(self, partitions=3, fresh=True, probe=None):
        """Starts the broker; done when it has acknowledged a record. `probe` is a topic that it has already."""
        assert self.process is None, f"{self.name} runs"
        if fresh:
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir.mkdir(parents=True)
            self.format()
        pretouch(self.setup.pretouch_gib)
        log = open(self.setup.data_dir / f"{self.name}.log", "ab")
        begin = time.time()
        self.process = subprocess.Popen(self.command(partitions), stdout=log, stderr=log, process_group=0)
        log.close()
        args = ["first-ack", "--partitions", str(partitions if self.fixed_partitions else 1)]
        args += ["--topic", probe or "first-ack"]
        if probe or self.fixed_partitions:
            args.append("--existing")
        try:
            answer = self.client(args, measured=False)
        except Failed:
            self.stop()
            raise
        self.first_ack_ms = (answer["result"]["acknowledged_at_unix_s"] - begin) * 1e3

    def client(self, args, measured=True, attempts=4):
        """Runs the client against this broker and returns its outcome; a disturbed run is tried again."""
        command = [str(self.setup.ringlog), "bench", args[0], "--brokers", self.address, "--format", "json"]
        if measured:
            command += ["--pid", str(self.pid), "--disk", str(self.dir)]
            command += ["--others-limit", str(self.setup.others_limit)]
        if self.fixed_partitions and "--existing" not in args and args[0] != "consume":
            command.append("--existing")
        if self.fixed_partitions and args[0] == "consume" and "--keep" not in args:
            command.append("--keep")
        for _ in range(attempts):
            if measured:
                # The broker itself is idle here, but a JVM that has just started is not yet still.
                await_quiet(self.setup.others_limit, self.setup.quiet_s)
            done = subprocess.run(command + args[1:], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return json.loads(done.stdout)
            if done.returncode != 4:
                wrong = json.loads(done.stdout).get("counts") if done.returncode == 3 else done.stderr.strip()
                raise Failed(f"{shlex.join(args)}: {wrong}")
            self.setup.say(f"    {self.name}: disturbed by other work on the machine, run discarded")
        raise Failed(f"{shlex.join(args)}: the machine was busy {attempts} times")

    def stop(self, how=signal.SIGTERM):
        """Ends the broker; a clean end gets half a minute."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.setup.say(f"    {self.name}: did not stop in 30 s, killed")
            self.process.kill()
            self.process.wait()
        self.process = None

    def clean(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class Kafka(Broker):
    name = "kafka"
    title = "Kafka"
    extra = ""

    @property
    def jars(self):
        return self.setup.work_dir / "kafka"

    def fetch(self):
        """Fetches Kafka and what it runs on from Maven Central, once."""
        libs = self.jars / "libs"
        if not list(libs.glob("kafka_2.13-*.jar")):
            self.jars.mkdir(parents=True, exist_ok=True)
            (self.jars / "pom.xml").write_text(POM.format(version=self.setup.kafka_version))
            self.setup.say("fetching Apache Kafka from Maven Central")
            command = ["mvn", "-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime"]
            subprocess.run(command + [f"-DoutputDirectory={libs}"], cwd=self.jars, check=True)

    def version(self):
        jar = next((self.jars / "libs").glob("kafka_2.13-*.jar"))
        java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
        return f"Apache Kafka {re.search(r'-([0-9.]+)[.]jar', jar.name).group(1)}, {java.splitlines()[0]}"

    def properties(self):
        text = KAFKA_PROPERTIES.format(port=self.port, controller=self.port + 1, data=self.dir / "data")
        return text + self.extra

    def settings(self):
        return " ".join(JVM) + "; " + self.properties().replace("\n", " ")

    def format(self):
        path = self.dir / "server.properties"
        path.write_text(self.properties())
        tool = ["java", "-cp", f"{self.jars}/libs/*", "kafka.tools.StorageTool", "format"]
        tool += ["-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(path)]
        subprocess.run(tool, check=True, stdout=subprocess.DEVNULL)

    def command(self, partitions):
        return ["java", *JVM, "-cp", f"{self.jars}/libs/*", "kafka.Kafka", str(self.dir / "server.properties")]


class FlushingKafka(Kafka):
    name = "kafka-flush"
    title = "Kafka, flushing"
    extra = "log.flush.interval.messages=1\n"


class Ringlog(Broker):
    name = "ringlog"
    title = "ringlog"

    def command(self, partitions):
        command = [str(self.setup.ringlog), "server", "--data-dir", str(self.dir / "data"), "--listen", self.address]
        return command + shlex.split(os.environ.get("RINGLOG_ARGS", ""))

    def version(self):
        done = subprocess.run([str(self.setup.ringlog), "--version"], capture_output=True, text=True, check=True)
        return done.stdout.strip()


class Floor(Broker):
    """The least that a durable broker can do: a program of one's own, named by FLOOR_BROKER, its command line with
    {port}, {dir} and {partitions} to be filled in. It need not create topics nor keep them."""

    name = "floor"
    title = "floor"
    fixed_partitions = True
    keeps_data = False

    def command(self, partitions):
        line = os.environ["FLOOR_BROKER"].format(port=self.port, dir=self.dir, partitions=partitions)
        return shlex.split(line)

    def version(self):
        return Path(shlex.split(os.environ["FLOOR_BROKER"])[0]).name


def sides(setup, names):
    """The brokers to compare, each on a port of its own."""
    known = [Kafka, FlushingKafka, Ringlog] + ([Floor] if "FLOOR_BROKER" in os.environ else [])
    chosen = [kind for kind in known if not names or kind.name in names]
    unknown = set(names) - {kind.name for kind in known} - {"fio"}
    if unknown:
        raise SystemExit(f"no such side: {', '.join(sorted(unknown))} (floor needs FLOOR_BROKER)")
    brokers = [kind(setup, setup.port + 10 * place) for place, kind in enumerate(chosen)]
    for broker in brokers:
        if isinstance(broker, Kafka):
            broker.fetch()
    return brokers
