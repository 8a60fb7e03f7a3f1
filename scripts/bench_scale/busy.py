"""Clients that keep a broker busy: `ringlog bench`, whose every record is read back and counted."""

import json
import subprocess


def latency(settings, broker, *arguments):
    """Produces at a fixed rate; returns the outcome of `ringlog bench latency`."""
    command = [str(settings.ringlog), "bench", "latency", "--brokers", "{}:{}".format(*broker.address)]
    done = subprocess.run([*command, "--format", "json", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"ringlog bench: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)["result"]


def shown(percentiles):
    return ", ".join(f"{name} {value}" for name, value in percentiles.items())
