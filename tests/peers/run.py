"""Talks to the examples of the protocols as programs do that share no code with them.

EXAMPLES names the folder with the built examples; arguments choose suites, by default all. Prints a line for each
check, at the end how many passed and failed, and exits with 1 if one failed. tests/peers.sh prepares everything.
"""

import importlib
import os
import sys
import threading

from harness import children

# Seconds.
WHOLE_RUN = 240
SUITES = ["events", "binary_rooms", "relay", "feed", "event_readers", "metrics"]


def give_up():
    print(f"FAILED  the whole run: not within {WHOLE_RUN} s\n0 passed, 1 failed", flush=True)
    for child in children:
        child.kill()
    os._exit(1)


def main():
    guard = threading.Timer(WHOLE_RUN, give_up)
    guard.daemon = True
    guard.start()
    passed = failed = 0
    for name in sys.argv[1:] or SUITES:
        good, bad = importlib.import_module(name).SUITE.run()
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
