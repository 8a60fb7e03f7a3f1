"""The machine: what it is, and making it ready for a run."""

import mmap
import os
import platform
import subprocess
import time


def describe(data_dir):
    """What a reader must know of the machine to judge the figures."""
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    found = subprocess.run(
        ["findmnt", "-no", "FSTYPE,SOURCE,OPTIONS", "-T", str(data_dir)], capture_output=True, text=True, check=False
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(meminfo("MemTotal") / 2**30, 1),
        "kernel": platform.release(),
        "file_system": " ".join(found.stdout.split()) or "?",
    }


def meminfo(name):
    """One line of /proc/meminfo, in bytes."""
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise KeyError(name)


def pretouch(gib):
    """Touches free memory once, as far as there is plenty: on a virtual machine the first touch of a page costs
    microseconds, which would be charged to whichever broker comes first."""
    size = min(int(gib * 2**30), meminfo("MemFree") - 2**30)
    if size > 0:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0x8000)
        mmap.mmap(-1, size, flags=flags).close()


def drop_caches():
    """Empties the page cache; needs root."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("3")


def cpu_ticks():
    """Busy and all ticks of the machine; time stolen by the hypervisor is busy."""
    with open("/proc/stat") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def await_quiet(limit, most_s):
    """Waits until less than `limit` of the machine was busy for two seconds, or `most_s` have passed."""
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        before = cpu_ticks()
        time.sleep(2)
        after = cpu_ticks()
        if after[0] - before[0] < limit * (after[1] - before[1]):
            return


class Process:
    """What one process used, from /proc."""

    def __init__(self, pid):
        self.pid = pid

    def cpu_s(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self):
        with open(f"/proc/{self.pid}/status") as lines:
            for line in lines:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024 / 1e6
        return 0.0
