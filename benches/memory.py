#!/usr/bin/env python3
"""Measures what an idle connection costs the whole system, part by part, wshub and the tokio peer in turn.

usage: benches/memory.py [--clients N] [--rounds N] [--wait SECONDS] [--slabs] [SERVER ...]
       (default: 5,000 clients, 3 rounds, 3 seconds; broadcast and peer_tokio)

The figure is the growth of used memory (all but free and page cache), before and with the connections, for each of
them. The memory of other processes, the load generator's with it, is left out. Both ends of each connection are on this
machine: the client's end is a socket, whose objects the kernel has twice, so half of them are left out of "server's
end" (needs root). MemAvailable is shown beside it: the same with the others' memory and the system's guess at what it
could reclaim. --wait is the time between the last connect and the measurement: more than 25 s has a ping in it. --slabs
prints which of the kernel's objects have grown. Run it on a quiet machine.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time

from compare import LOADGEN, raise_limit, start

# The kernel's own parts in /proc/meminfo. They do not overlap.
KERNEL = {"KernelStack": "kernel stacks", "PageTables": "page tables", "Slab": "slab"}
# Slabs of which each end of a connection has one.
OF_SOCKET = ("TCP", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache")


def meminfo():
    with open("/proc/meminfo", encoding="ascii") as lines:
        return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def status(pid, key):
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def slabs():
    """KB of each kind of kernel object; empty without root."""
    try:
        with open("/proc/slabinfo", encoding="ascii") as lines:
            rows = [line.split() for line in lines][2:]
    except PermissionError:
        return {}
    page = os.sysconf("SC_PAGE_SIZE") // 1024
    return {row[0]: int(row[14]) * int(row[5]) * page for row in rows}


def used(info):
    """KB that are neither free nor page cache, without those of processes."""
    return info["MemTotal"] - info["MemFree"] - info["Buffers"] - info["Cached"] - info["AnonPages"]


def settled():
    """/proc/meminfo once it has stopped moving."""
    last = meminfo()
    for _ in range(20):
        time.sleep(0.5)
        now = meminfo()
        if abs(used(now) - used(last)) < 512:
            return now
        last = now
    return last


def connect(addr, pid, clients):
    command = [os.path.join(LOADGEN, "loadgen"), addr, "hold", str(clients), "dur=600", f"pid={pid}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(os.listdir(f"/proc/{pid}/fd")) < clients:
        if time.monotonic() > deadline or process.poll() is not None:
            sys.exit(f"{clients} connections have not come")
        time.sleep(0.1)
    return process


def stop(process):
    process.terminate()
    process.wait(60)


def measure(server, clients, wait):
    """KB for each connection: the system's growth, its parts, and the kinds of kernel object that have grown."""
    process, addr = start(server)
    try:
        # What is there once, the first connection brings along.
        stop(connect(addr, process.pid, 20))
        before, objects = settled(), slabs()
        resident = status(process.pid, "RssAnon")
        generator = connect(addr, process.pid, clients)
        try:
            time.sleep(wait)
            after = settled()
            grown = {name: (kb - objects.get(name, 0)) / clients for name, kb in slabs().items()}
            threads = status(process.pid, "Threads")
            own = (status(process.pid, "RssAnon") - resident) / clients
        finally:
            stop(generator)
    finally:
        stop(process)
    growth = {key: (after[key] - before[key]) / clients for key in after}
    kernel = (used(after) - used(before)) / clients
    parts = {"resident": own} | {name: growth[key] for key, name in KERNEL.items()}
    parts["other pages"] = kernel - sum(growth[key] for key in KERNEL)
    parts["both ends"] = own + kernel
    parts["server's end"] = own + kernel - sum(grown.get(name, 0) for name in OF_SOCKET) / 2
    parts["MemAvailable"] = -growth["MemAvailable"]
    parts["threads"] = threads
    return parts, grown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wait", type=float, default=3)
    parser.add_argument("--slabs", action="store_true")
    parser.add_argument("servers", nargs="*", metavar="SERVER", default=["broadcast", "peer_tokio"])
    args = parser.parse_args()
    raise_limit()
    results = {server: [] for server in args.servers}
    for _ in range(args.rounds):
        for server in args.servers:
            results[server].append(measure(server, args.clients, args.wait))
    names = list(results[args.servers[0]][0][0])
    print(f"KB a connection, {args.clients:,} idle connections, median of {args.rounds}")
    print("| server | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 1))
    for server in args.servers:
        values = (statistics.median(parts[name] for parts, _ in results[server]) for name in names)
        print(f"| {server} | " + " | ".join(f"{value:,.1f}" for value in values) + " |")
    if args.slabs:
        for server in args.servers:
            grown = results[server][-1][1]
            largest = sorted(grown, key=grown.get, reverse=True)[:16]
            print(f"{server}: " + ", ".join(f"{name} {grown[name]:.2f}" for name in largest))


if __name__ == "__main__":
    main()
