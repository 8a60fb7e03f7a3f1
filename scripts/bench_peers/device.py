"""What the disk does without a broker, by fio: the side that the engine's own rows are held against."""

import json
import os
import shutil
import socket
import subprocess
import time
from statistics import median

from brokers import Failed
from machine import await_quiet

# The flags of the WAL's own files; a file that was written before, as its segments are.
FLAGS = ["--rw=write", "--direct=1", "--sync=dsync", "--ioengine=io_uring", "--lat_percentiles=1", "--output-format=json"]
# Bytes of the file: about what is in use of the WAL at a time.
FILE = "512M"
ROUND_TRIPS = 4_000


class Fio:
    name = "fio"
    title = "fio"

    def __init__(self, setup):
        self.setup = setup
        self.dir = setup.data_dir / self.name

    def version(self):
        return subprocess.run(["fio", "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def settings(self):
        return " ".join(FLAGS)

    def write(self, block, depth):
        """fio's figures of writes of so many bytes, so many at a time, on a file that was written before."""
        self.dir.mkdir(parents=True, exist_ok=True)
        command = ["fio", "--name=write", f"--filename={self.dir}/file", f"--size={FILE}", *FLAGS]
        try:
            self.run([*command, "--bs=1M", "--iodepth=4"])
            await_quiet(self.setup.others_limit, self.setup.quiet_s)
            run_s = f"--runtime={self.setup.seconds}"
            done = self.run([*command, f"--bs={block}", f"--iodepth={depth}", "--time_based", run_s])
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)
        return json.loads(done)["jobs"][0]["write"]

    def run(self, command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"fio: {done.stderr.strip()}")
        return done.stdout


def bandwidth(fio, block, depth):
    return {"rate": fio.write(block, depth)["bw_bytes"] / 1e6}


def write_and_round_trip(fio, question, answer):
    """The least that a lone durable write over the network takes: the median of each added up."""
    percentiles = fio.write(4096, 1)["lat_ns"]["percentile"]
    return {"p50_ms": percentiles["50.000000"] / 1e6 + round_trip_ms(question, answer)}


def round_trip_ms(question, answer):
    """The median time of a question and an answer of so many bytes between two processes over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            served = listener.accept()[0]
            served.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while len(served.recv(question, socket.MSG_WAITALL)) == question:
                served.sendall(bytes(answer))
            os._exit(0)
        times = []
        with socket.create_connection(listener.getsockname()) as asking:
            asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(ROUND_TRIPS):
                begin = time.perf_counter()
                asking.sendall(bytes(question))
                asking.recv(answer, socket.MSG_WAITALL)
                times.append(time.perf_counter() - begin)
        os.waitpid(child, 0)
    return median(times) * 1e3
