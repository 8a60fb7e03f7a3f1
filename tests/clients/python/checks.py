"""What the programs in Python share: each check is a function, its result one line on standard output."""

import sys
import time
import traceback
import uuid

CHECKS = {}


def check(function):
    """Registers a check under the function's name."""
    CHECKS[function.__name__] = function
    return function


def fresh(name):
    """A name that no other run uses."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def eventually(condition, seconds=30.0, pause=0.05):
    """The first true value of `condition`, which is asked until `seconds` are over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("did not come true in time")
        time.sleep(pause)


def equal(got, wanted):
    """Fails with both values where they differ."""
    if got != wanted:
        raise AssertionError(f"got {got!r:.300}, not {wanted!r:.300}")


def main():
    """Runs the checks that the command line names after the brokers, or all; ends with 1 when one failed."""
    names = sys.argv[2:] or list(CHECKS)
    failed = False
    for name in names:
        begin = time.monotonic()
        try:
            CHECKS[name]()
            print(f"ok {name} {time.monotonic() - begin:.1f}s", flush=True)
        except Exception as error:
            failed = True
            print(f"FAIL {name} {type(error).__name__}: {str(error)[:300]}".replace("\n", " "), flush=True)
            traceback.print_exc()
    sys.exit(failed)
