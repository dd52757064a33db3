#!/usr/bin/env python3
"""Measures what a delivery and a connection cost as connections become more, wshub and the floor in turn.

usage: benches/scale.py [--rounds N] [--seconds N] [--svg NAME] [CLIENTS ...]
       (default: 3 rounds, 4 seconds, 100 to 16,000)
       benches/scale.py --cores [FILE]     what a broadcast costs by number of cores: see benches/cores.py

Every step delivers 60,000 messages of 128 bytes a second in all: the more clients, the fewer broadcasts. CPU is user
plus system time of the server for each delivery; memory is of the server's process, and of the kernel with both ends of
each connection in it. --svg draws NAME-cpu.svg and NAME-memory.svg. A descriptor limit of 20,000 allows 9,500 clients
in one load generator: more are spread over two.

--cores takes the output of `cargo bench --bench helpers` (in benches/parts) from a file, or runs that bench.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time
from json import loads

import cores
from compare import LOADGEN, raise_limit, start
from plot import svg

PER_SECOND = 60_000
STEPS = [100, 300, 1000, 3000, 6000, 9000, 12000, 16000]
ONE_GENERATOR = 9500
SERVERS = ["broadcast", "floor"]


def kernel_kb():
    """Memory that the kernel holds for sockets, threads and page tables."""
    wanted = ("Slab:", "KernelStack:", "PageTables:")
    with open("/proc/meminfo", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith(wanted))


def resident_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_connections(pid, count):
    deadline = time.monotonic() + 60
    while len(os.listdir(f"/proc/{pid}/fd")) < count:
        if time.monotonic() > deadline:
            sys.exit(f"{count} connections have not come")
        time.sleep(0.1)


def listeners(addr, pid, clients, seconds):
    """A second load generator, whose clients only listen."""
    command = [os.path.join(LOADGEN, "loadgen"), addr, "rate", str(clients), "rate=0.001", f"dur={seconds}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for_connections(pid, clients)
    return process


def measure(server, clients, seconds):
    """Microseconds for each delivery, and kilobytes for each connection: the process's and the kernel's."""
    process, addr = start(server)
    others = None
    try:
        kernel, resident = kernel_kb(), resident_kb(process.pid)
        near = min(clients, ONE_GENERATOR)
        if clients > near:
            others = listeners(addr, process.pid, clients - near, 600)
        command = [os.path.join(LOADGEN, "loadgen"), addr, "rate", str(near), f"rate={PER_SECOND / clients}"]
        command += [f"dur={seconds}", f"pid={process.pid}", "json=1"]
        generator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        wait_for_connections(process.pid, clients)
        memory = [(resident_kb(process.pid) - resident) / clients, (kernel_kb() - kernel) / clients]
        result = loads(generator.communicate(timeout=seconds + 60)[0])
        if result["received"] < result["sent"] * near:
            print(f"{server}, {clients} clients: {result['received']} of {result['sent'] * near} came", file=sys.stderr)
        return [result["cpu_us_per_delivery"] * near / clients, *memory]
    finally:
        for child in [others, process]:
            if child:
                child.terminate()
                child.wait(60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--svg", metavar="NAME")
    parser.add_argument("--cores", metavar="FILE", nargs="?", const="")
    parser.add_argument("clients", nargs="*", type=int, default=STEPS)
    args = parser.parse_args()
    if args.cores is not None:
        cores.table(open(args.cores, encoding="utf-8").read() if args.cores else cores.bench_output())
        return
    raise_limit()
    results = {(server, clients): [] for clients in args.clients for server in SERVERS}
    for _ in range(args.rounds):
        for clients in args.clients:
            for server in SERVERS:
                results[server, clients].append(measure(server, clients, args.seconds))
    print("| clients | CPU us/delivery | floor | ratio | resident KB/connection | kernel KB/connection |")
    print("| --- | --- | --- | --- | --- | --- |")
    cpu, floor, process, system = [], [], [], []
    for clients in args.clients:
        ours, theirs = results["broadcast", clients], results["floor", clients]
        ratio = statistics.median(a[0] / b[0] for a, b in zip(ours, theirs))
        us, resident, kernel = (statistics.median(column) for column in zip(*ours))
        base = statistics.median(result[0] for result in theirs)
        print(f"| {clients:,} | {us:.2f} | {base:.2f} | {ratio:.2f} | {resident:.1f} | {kernel:.1f} |", flush=True)
        cpu.append((clients, us))
        floor.append((clients, base))
        process.append((clients, resident))
        system.append((clients, kernel))
    if args.svg:
        draw(f"{args.svg}-cpu.svg", "CPU for each delivery, &#181;s", {"wshub": cpu, "floor": floor})
        draw(f"{args.svg}-memory.svg", "Memory for each connection, KB", {"process": process, "kernel": system})


def draw(path, title, lines):
    with open(path, "w", encoding="ascii") as file:
        file.write(svg(title, lines))


if __name__ == "__main__":
    main()
