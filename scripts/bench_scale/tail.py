"""A consumer that follows what is produced: its end-to-end p99 beside the produce's."""

import busy
from broker import Broker


def options(parser):
    parser.add_argument("--rate", type=float, default=2_000, help="records a second (default 2000)")
    parser.add_argument("--record-size", type=int, default=1_024, help="their bytes (default 1024)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a measurement (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements (default 3)")


def run(settings):
    broker = Broker(settings, *settings.broker_arguments)
    try:
        broker.start()
        for number in range(1, settings.rounds + 1):
            arguments = ["--rate", settings.rate, "--record-size", settings.record_size, "--seconds", settings.seconds]
            outcome = busy.latency(settings, broker, "--end-to-end", "--linger-ms", 0, "-X", "fetch.wait.max.ms=500", *arguments)
            produce, whole = outcome["acknowledged"], outcome["end_to_end"]
            print(f"round {number}    acknowledged: {busy.shown(produce)}")
            print(f"round {number}    consumed:     {busy.shown(whole)}")
            print(f"round {number}    p99 {whole['p99_ms'] / produce['p99_ms']:.2f} x the produce's, p50 {whole['p50_ms'] / produce['p50_ms']:.2f} x")
    finally:
        broker.clean()
