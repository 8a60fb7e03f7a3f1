"""A broker of the measurement's own, on an empty directory."""

import contextlib
import shutil
import signal
import subprocess
import time
import urllib.request

from machine import Process


class Broker:
    """Starts and stops `ringlog server`; its output goes to a file beside its data."""

    def __init__(self, settings, *arguments):
        self.settings, self.arguments = settings, arguments
        self.address = ("127.0.0.1", settings.port)
        self.http = f"127.0.0.1:{settings.port + 1}"
        self.dir = settings.data_dir
        self.process = None
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)

    def start(self, limit=120):
        """Starts it; returns how long it took until it was ready for clients, in seconds."""
        command = [str(self.settings.ringlog), "server", "--data-dir", str(self.dir / "data")]
        command += ["--listen", f"127.0.0.1:{self.settings.port}", "--http", self.http, *self.arguments]
        begin = time.monotonic()
        log = open(self.dir / "broker.log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, process_group=0)
        log.close()
        for line in self.process.stdout:
            if line.startswith("ready "):
                return time.monotonic() - begin
        raise SystemExit(f"the broker did not start: see {self.dir}/broker.log")

    def used(self):
        return Process(self.process.pid)

    @contextlib.contextmanager
    def counted(self, what):
        """Prints how much CPU it used meanwhile."""
        before = self.used().cpu_s()
        yield
        print(f"{what}: {self.used().cpu_s() - before:.2f} s of the broker's CPU")

    def cpu_share(self, seconds):
        """The share of one core that it uses while nobody asks anything of it."""
        before = self.used().cpu_s()
        time.sleep(seconds)
        return (self.used().cpu_s() - before) / seconds

    def late_ticks(self, limits=("0.01", "0.05", "0.15")):
        """How many ticks came later than each of these times, in seconds: so long its executors were at something else."""
        with urllib.request.urlopen(f"http://{self.http}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith("ringlog_tick_delay_seconds_bucket")]
        count = lambda le: sum(int(line.split()[-1]) for line in found if f'le="{le}"' in line)
        return [count("+Inf") - count(limit) for limit in limits]

    def stop(self, how=signal.SIGTERM):
        if self.process is not None:
            begin = time.monotonic()
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None
            return time.monotonic() - begin

    def clean(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
