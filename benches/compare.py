#!/usr/bin/env python3
"""Measures wshub against a floor and a tokio peer, the servers in turn, and prints medians and ratios as a table.

usage: benches/compare.py [--rounds N] [--seconds N] [ROW ...]     (default: 3 rounds, 5 seconds, every row)

The rows about TLS need the examples built with `--features tls`, and the command `openssl`.

CPU is user plus system time of the server for each message that clients received. Ratios are taken within a round, so
that a machine that is slow for a while slows both sides; the table holds their medians.
"""
import argparse
import functools
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOADGEN = os.path.join(ROOT, "benches", "loadgen", "target", "release")
EXAMPLES = os.path.join(ROOT, "target", "release", "examples")
CPU, P50, P99, RATE, RSS = "cpu_us_per_delivery", "p50_ms", "p99_ms", "per_second", "rss_kb_per_client"
COMPRESSED, BYTES = "compressed_share", "bytes_per_delivery"
TLS = ["broadcast --tls CERT KEY", "peer_tokio tls=CERT,KEY"]
HELPERS = ["broadcast --fanout-threads 1", "broadcast --fanout-threads 0"]
JSON_4K = ["rate", "1000", "rate=25", "size=4096", "json_payload=1"]

# row: loadgen's mode, clients and keys; the servers; what to compare
ROWS = {
    "rate1000": (["rate", "1000", "rate=100"], ["broadcast", "floor", "peer_tokio"], [CPU, P50, P99]),
    "rate6000": (["rate", "6000", "rate=15"], ["broadcast", "floor", "peer_tokio"], [CPU, P50, P99]),
    "rate9000": (["rate", "9000", "rate=10"], ["broadcast", "floor"], [CPU]),
    "flood": (["flood", "1000", "win=8"], ["broadcast", "peer_tokio"], [RATE, CPU]),
    "echo": (["echo", "1000"], ["echo", "floor echo", "threads"], [CPU, P50]),
    "stall": (["rate", "1000", "rate=50", "size=4096", "stall=100"], ["broadcast"], [P50, P99]),
    "nostall": (["rate", "900", "rate=50", "size=4096"], ["broadcast"], [P50, P99]),
    "deflate": (JSON_4K + ["deflate=1"], ["broadcast --compression"], [CPU, P50, P99, COMPRESSED, BYTES]),
    "plain4k": (JSON_4K, ["broadcast"], [CPU, P50, P99, COMPRESSED, BYTES]),
    # With two cores, helpers are off unless asked for: what they cost where the receivers need the other core.
    "helpers1000": (["rate", "1000", "rate=100"], HELPERS, [CPU, P50, P99]),
    "helpers6000": (["rate", "6000", "rate=15"], HELPERS, [CPU, P50, P99]),
    "helpersflood": (["flood", "1000", "win=8"], HELPERS, [RATE, CPU]),
    "tls1000": (["rate", "1000", "rate=100", "tls=1"], TLS, [CPU, P50, P99]),
    "tlsflood": (["flood", "1000", "win=8", "tls=1"], TLS, [RATE, CPU, P50, P99]),
    "memory": (["hold", "5000"], ["broadcast", "peer_tokio"], [RSS]),
}

# Two rows that run in turn within a round: the figure of the first through that of the second.
PAIRS = {
    ("rate9000", "rate1000"): ("CPU per delivery, 9,000 clients / 1,000", CPU),
    ("stall", "nostall"): ("99th percentile, 10 % stalled / none stalled", P99),
    ("deflate", "plain4k"): ("CPU per delivery, deflate / plain", CPU),
    ("tls1000", "rate1000"): ("CPU per delivery, TLS / plain", CPU),
}


def raise_limit():
    """As many descriptors as this user may have, for the servers and the load generator."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@functools.cache
def certificate():
    """A folder with a self-signed certificate for an ECDSA key on P-256, and the key. It goes with this process."""
    folder = tempfile.TemporaryDirectory()
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", os.path.join(folder.name, "KEY"), "-out", os.path.join(folder.name, "CERT")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return folder


def start(server):
    """The server's process and address."""
    if "CERT" in server:
        server = server.replace("CERT", f"{certificate().name}/CERT").replace("KEY", f"{certificate().name}/KEY")
    name, *rest = server.split()
    if name in ("broadcast", "echo"):
        command = [os.path.join(EXAMPLES, name), "--addr", "127.0.0.1:0", *rest]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        listening = process.stdout.readline().split()
        return (process, listening[-1]) if listening else sys.exit(f"{server} has ended")
    port = free_port()
    process = subprocess.Popen([os.path.join(LOADGEN, name), f"127.0.0.1:{port}", *rest])
    wait_until_listening(port)
    return process, f"127.0.0.1:{port}"


def wait_until_listening(port):
    """Looks it up: the floor takes any connection for a client, so it must not be tried."""
    socket_of_port = f"0100007F:{port:04X} 00000000:0000 0A"
    for _ in range(500):
        with open("/proc/net/tcp", encoding="ascii") as sockets:
            if socket_of_port in sockets.read():
                return
        time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def measure(server, mode, seconds):
    process, addr = start(server)
    try:
        command = [os.path.join(LOADGEN, "loadgen"), addr, *mode, f"dur={seconds}", f"pid={process.pid}", "json=1"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        return json.loads(result.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        sys.exit(f"{server}: {' '.join(mode)}: {error}")
    finally:
        process.terminate()
        process.wait(30)


def compare(rows, rounds, seconds):
    """Runs the rows in turn and prints them. Row: one result of its first server, ours, for each round."""
    results = {row: {server: [] for server in ROWS[row][1]} for row in rows}
    for _ in range(rounds):
        for row in rows:
            for server in ROWS[row][1]:
                results[row][server].append(measure(server, ROWS[row][0], seconds))
    for row in rows:
        show(row, results[row])
    return {row: results[row][ROWS[row][1][0]] for row in rows}


def show(row, results):
    _, servers, keys = ROWS[row]
    for server in servers:
        for key in keys:
            value = statistics.median(r[key] for r in results[server])
            than = "" if server == servers[0] else ratio(results[servers[0]], results[server], key)
            print(f"| {row} | {server} | {key} | {value:,.2f} | {than} |", flush=True)


def ratio(ours, theirs, key):
    """The median of the rounds' ratios."""
    ratios = [a[key] / b[key] for a, b in zip(ours, theirs) if b[key]]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def groups(rows):
    """The rows, and with each the one that it is a pair with, if that is wanted as well."""
    left = list(rows)
    while left:
        group = [left.pop(0)]
        for pair in PAIRS:
            group += [row for row in left if row in pair and group[0] in pair]
        left = [row for row in left if row not in group]
        yield group


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    args = parser.parse_args()
    unknown = [row for row in args.rows if row not in ROWS]
    if unknown:
        sys.exit(f"no such row: {' '.join(unknown)}; there are {', '.join(ROWS)}")
    raise_limit()
    print("| row | server | figure | median | wshub / this |\n| --- | --- | --- | --- | --- |")
    done = {}
    for group in groups(args.rows or ROWS):
        done.update(compare(group, args.rounds, args.seconds))
    print()
    for (row, other), (text, key) in PAIRS.items():
        if row in done and other in done:
            print(f"{text}: {ratio(done[row], done[other], key)}")


if __name__ == "__main__":
    main()
