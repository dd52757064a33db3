#!/usr/bin/env python3
"""Measures what it costs that a message crosses from one node of a cluster to another, and prints a table.

usage: benches/cluster.py [--rounds N] [--seconds N] redis|nats [ROW ...]     (default: 3 rounds, 5 seconds, every row)

Starts a broker and two nodes (the example `cluster`), as many clients on each, one of which sends. Beside it, in turn,
a hub without a cluster (the example `broadcast`) with the clients of one node. Latencies are from the sender to clients
of its own node and of the other; CPU is user plus system time of a node for each message sent. Ratios are taken within
a round, to the hub without a cluster; the table holds their medians.

    cargo build --release --examples --all-features
    cargo build --release --manifest-path benches/loadgen/Cargo.toml
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from compare import EXAMPLES, LOADGEN, free_port

BROKERS = {
    "redis": lambda port: ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
    "nats": lambda port: ["nats-server", "--addr", "127.0.0.1", "--port", port],
}
# row: clients of each node, messages a second
ROWS = {"few": (1, 1000), "many": (100, 200)}
FIGURES = ["p50_ms", "p99_ms", "far_p50_ms", "far_p99_ms", "cpu_us_per_message", "far_cpu_us_per_message"]
NAMES = {
    "p50_ms": "sender's node: p50, ms",
    "p99_ms": "sender's node: p99, ms",
    "far_p50_ms": "other node: p50, ms",
    "far_p99_ms": "other node: p99, ms",
    "cpu_us_per_message": "sender's node: CPU a message, us",
    "far_cpu_us_per_message": "other node: CPU a message, us",
}


def start(name, *options):
    """An example's process and address."""
    command = [os.path.join(EXAMPLES, name), "--addr", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().split()[-1]


def stop(*processes):
    for process in processes:
        process.terminate()
        process.wait(30)


def load(row, seconds, addr, pid, *more):
    clients, rate = ROWS[row]
    if more:
        clients *= 2
    command = [os.path.join(LOADGEN, "loadgen"), addr, "rate", str(clients), f"rate={rate}", f"dur={seconds}"]
    command += [f"pid={pid}", "json=1", *more]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60).stdout)


def alone(row, seconds):
    process, addr = start("broadcast")
    try:
        return load(row, seconds, addr, process.pid)
    finally:
        stop(process)


def wait_for_both(addr):
    for _ in range(500):
        with urllib.request.urlopen(f"http://{addr}/presence") as answer:
            if len(json.load(answer)["nodes"]) == 2:
                return
        time.sleep(0.02)
    sys.exit("the nodes do not find each other")


def pair(row, seconds, kind):
    port = str(free_port())
    with tempfile.TemporaryDirectory() as folder:
        path = os.environ.get("PATH", "") + ":/usr/sbin"
        broker = subprocess.Popen(BROKERS[kind](port), cwd=folder, env={"PATH": path}, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        option = [f"--{kind}", f"{kind}://127.0.0.1:{port}"]
        here, here_addr = start("cluster", "--node", "here", *option)
        far, far_addr = start("cluster", "--node", "far", *option)
        try:
            wait_for_both(here_addr)
            wait_for_both(far_addr)
            return load(row, seconds, here_addr, here.pid, f"far={far_addr}", f"far_pid={far.pid}")
        finally:
            stop(here, far, broker)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("broker", choices=sorted(BROKERS))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    args = parser.parse_args()
    unknown = [row for row in args.rows if row not in ROWS]
    if unknown:
        sys.exit(f"no such row: {' '.join(unknown)}; there are {', '.join(ROWS)}")
    print("| row | figure | alone | two nodes | ratio |\n| --- | --- | --- | --- | --- |")
    for row in args.rows or ROWS:
        rounds = [(alone(row, args.seconds), pair(row, args.seconds, args.broker)) for _ in range(args.rounds)]
        for figure in FIGURES:
            base = figure.removeprefix("far_")
            single = statistics.median(a[base] for a, _ in rounds)
            double = statistics.median(b[figure] for _, b in rounds)
            ratio = statistics.median(b[figure] / a[base] for a, b in rounds if a[base])
            print(f"| {row} | {NAMES[figure]} | {single:,.3f} | {double:,.3f} | {ratio:.2f} |", flush=True)
        missing = sum(2 * b["sent"] * ROWS[row][0] - b["received"] for _, b in rounds)
        print(f"| {row} | messages that did not arrive | | {missing} | |", flush=True)


if __name__ == "__main__":
    main()
