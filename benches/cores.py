"""What a broadcast costs by number of cores: measured with one and two, calculated for more.

The figures are those of `cargo bench --bench helpers`. With h helpers, each on an idle core, the sender writes to some
clients (W each) and pushes the message into the queues of the others (P each). The helpers flush those queues (F each,
a h-th of them), but only from L on, when they have been woken. Calling one takes the sender S. If N clients are
divided so that all end together:

    T = (N W + h S + h L g) / (1 + h g)     with g = (W - P) / F

W = T(alone) / N, P, S and L are measured; F is the one value with which h = 1 gives the measured time. So F holds what
two cores cost each other. What more cores cost each other beyond that (shared caches, memory, locks of the kernel) is
not in it, and neither is the end, when one thread still has up to 32 clients: calculated times are lower bounds.
"""
import math
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CORES = [1, 2, 4, 8, 16]
# A helper for each so many clients, as in src/outbox/helpers.rs
WORTH = 128


def bench_output():
    command = ["cargo", "bench", "--bench", "helpers"]
    folder = os.path.join(ROOT, "benches", "parts")
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def figures(text):
    """For each number of clients (T(alone), T(one helper), P, F on one thread, S, L), in microseconds."""
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    times, parts = {}, {}
    for row in (line.strip("| ").split(" | ") for line in rows):
        clients, *values = (float(cell) for cell in row)
        if len(values) == 5:
            helpers, median, _, ratio, _ = values
            times[clients, helpers] = (1e3 * median, ratio)
        else:
            push, flush, call, start = values
            parts[clients] = (push / 1e3, flush / 1e3, call, start)
    for clients, (push, flush, call, start) in parts.items():
        alone = times[clients, 0][0]
        yield int(clients), alone, alone * times[clients, 1][1], push, flush, call, start


def slowed_flush(clients, alone, shared, push, call, start):
    """F: solved from T(one helper). Infinite if the helper has saved nothing."""
    if shared >= alone + call:
        return math.inf
    return (shared - start) * (alone / clients - push) / (alone + call - shared)


def time(clients, helpers, alone, push, flush, call, start):
    """T, in microseconds."""
    gain = helpers * (alone / clients - push) / flush
    return (alone + helpers * call + start * gain) / (1 + gain)


def table(text):
    print("| clients | " + " | ".join(f"{n} core{'s' * (n > 1)}" for n in CORES) + " |")
    print("| --- " * (len(CORES) + 1) + "|")
    print("| | measured | measured |" + " calculated |" * (len(CORES) - 2))
    notes = []
    for clients, alone, shared, push, flush, call, start in figures(text):
        slowed = slowed_flush(clients, alone, shared, push, call, start)
        cells = []
        for cores in CORES:
            helpers = min(cores - 1, clients // WORTH)
            took = shared if cores == 2 else time(clients, helpers, alone, push, slowed, call, start)
            cells.append(f"{took / 1e3:.2f} ms" + (f", {took / alone:.2f} ×" if cores > 1 else ""))
        print(f"| {clients:,} | " + " | ".join(cells) + " |")
        notes.append(
            f"{clients:,}: W {alone / clients:.2f} µs, P {push:.2f} µs, F {slowed:.2f} µs (alone {flush:.2f} µs), "
            f"S {call:.1f} µs, L {start:.0f} µs"
        )
    print("\n" + "\n".join(notes))
