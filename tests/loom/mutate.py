#!/usr/bin/env python3
"""Breaks the outbox in one place after the other and says whether the model notices.

usage: tests/loom/mutate.py [NAME[:SCENARIO] ...]     (default: every mutation, all scenarios)

Works on a copy; needs about a minute for each.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FENCE = "fence(Ordering::SeqCst);"

# Not among them, because only time is lost, and the model has no time: a holder that finds the socket full and does not
# note it, or does not wake those that wait for it. The writer thread notes it when it writes; until then a sender waits
# some milliseconds for room in the queue, as for a holder that is descheduled. A unit test in `send.rs` fails without
# the wake-up. Nor is `is_idle` without its flush of a frame that goes next, because the model's threads do not switch
# while that look holds the socket: a unit test in `send.rs` fails then as well.
#
# name: file, text, its replacement, which of several occurrences
MUTATIONS = {
    "pusher-fence": ("pump", FENCE, "", 0),
    "holder-fence": ("pump", FENCE, "", 1),
    "direct-fence": ("pump", FENCE, "", 2),
    "writer-fence": ("pump", FENCE, "", 3),
    "holder-look": ("pump", "Pumped::Idle if self.has_work() => {}", "", 0),
    "direct-look": ("pump", "if self.has_work() || self.wants_pull() {", "if self.wants_pull() {", 0),
    "writer-look": ("pump", "if !self.has_work() && !self.pull() {", "if !self.pull() {", 0),
    "idle-look": ("mod", "if !is_idle || self.has_work() || self.wants_pull() {", "if self.wants_pull() {", 0),
    "urgent-look": ("pump", " || self.urgent.load(Ordering::SeqCst)", "", 0),
    "call-by-flush": ("pump", "Pumped::Blocked | Pumped::More => return self.call_writer(),",
                      "Pumped::Blocked | Pumped::More => return,", 0),
    "call-by-direct": ("pump", "Pumped::Blocked | Pumped::More => self.call_writer(),",
                       "Pumped::Blocked | Pumped::More => {}", 0),
    "queue-first": ("pump", "self.queue.is_empty()\n            && ", "", 0),
    "backlog-first": ("pump", "if !slot.is_free() || !self.is_plain() {", "if !self.is_plain() {", 0),
    "next-backlog-first": ("send", "if !slot.is_free() || !self.is_plain() {", "if !self.is_plain() {", 0),
    "next-queue-first": ("send", "if !slot.is_free() || !self.is_plain() {", "if !slot.is_free() {", 0),
    "next-look": ("send", "if self.has_work() { Placed::Awaited } else { Placed::Yes }", "Placed::Yes", 0),
    "next-fence": ("send", FENCE, "", 0),
    "next-wakes": ("pump", "self.wake_awaiting();", "", 0),
    "awaiting-fence": ("send", FENCE, "", 1),
    "awaiting-look": ("send", "fence(Ordering::SeqCst);\n            self.try_push(frame)", "false", 0),
    "urgent-first": ("pump", "\n            && !self.urgent.load(Ordering::Relaxed)", "", 0),
    "phase-first": ("pump", "\n            && self.phase.load(Ordering::Relaxed) == phase::OPEN\n", "\n", 0),
    "handed-over": ("pump", "if slot.is_handed_over() {", "if false {", 0),
    "urgent-behind-half": ("batch", "usize::from(self.offset > 0)", "0", 0),
    "close-is-last": ("pump", "if batch.closes() {\n            return;\n        }", "", 0),
    "close-sent-ends": ("pump", "if self.phase.load(Ordering::SeqCst) >= phase::CLOSE_SENT {", "if false {", 0),
    "closing-look-first": ("pump", "if batch.is_empty() && is_closing {",
                           "if batch.is_empty() && self.phase.load(Ordering::SeqCst) == phase::CLOSING {", 0),
    "closing-goes-on": ("pump", "if self.is_open() && !self.has_work() =>", "if !self.has_work() =>", 0),
    "room-wakes": ("pump", "        self.gate.wake();\n    }\n\n    /// The writer thread's work",
                   "    }\n\n    /// The writer thread's work", 0),
    "full-waits": (
        "send", "self.gate.wait_for(Instant::now() + patience, look).unwrap_or(false)", "look().unwrap_or(false)", 0,
    ),
    "sleeper-fence": ("gate", FENCE, "", 0),
    "waker-fence": ("gate", FENCE, "", 1),
    "waker-lock": ("gate", "drop(self.lock.lock());", "", 0),
    "writer-given-back": ("writer", "state.thread = None;", "", 0),
    "writer-work": ("writer", "state.work = true;", "", 0),
    "list-fence": ("held", FENCE, "", 0),
    "kill-wakes": ("mod", "self.gate.wake();", "", -1),
}


def mutate(folder, name):
    file, text, replacement, which = MUTATIONS[name]
    path = os.path.join(folder, "src", "outbox", f"{file}.rs")
    with open(path, encoding="utf-8") as source:
        pieces = source.read().split(text)
    if len(pieces) < 2:
        sys.exit(f"{name}: {file}.rs does not have {text!r}")
    cuts = range(len(pieces) - 1) if which < 0 else [which]
    joined = pieces[0]
    for at, piece in enumerate(pieces[1:]):
        joined += (replacement if at in cuts else text) + piece
    with open(path, "w", encoding="utf-8") as source:
        source.write(joined)


def run(name, scenario):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(os.path.join(ROOT, "src"), os.path.join(folder, "src"))
        model = os.path.join(folder, "tests", "loom")
        shutil.copytree(HERE, model, ignore=shutil.ignore_patterns("target"))
        if name:
            mutate(folder, name)
        # Cargo remembers the paths of `src` from its last build and would find nothing changed.
        os.utime(os.path.join(model, "src", "main.rs"))
        command = ["cargo", "build", "--release", "--quiet", "--manifest-path", os.path.join(model, "Cargo.toml")]
        target = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "target"))
        if subprocess.run([*command, "--target-dir", target], check=False, stderr=subprocess.DEVNULL).returncode:
            return "does not compile"
        binary = os.path.join(target, "release", "wshub-loom")
        try:
            result = subprocess.run([binary, scenario], check=False, capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired as over:
            return f"found, or the machine is busy: {first_failure((over.stdout or b'').decode())} does not end"
        if result.returncode == 0:
            return "NOT FOUND"
        return f"found by {first_failure(result.stdout)}, status {result.returncode}"


def first_failure(output):
    """The first scenario that failed, or the last one that began. A scenario that fails prints why between its name and the word; one that ends the process prints no more."""
    started = "the first"
    for line in output.splitlines():
        if found := re.match("[a-z-]+(?=: )", line):
            started = found.group()
        if "FAILED in" in line:
            break
    return started


for mutation in sys.argv[1:] or MUTATIONS:
    name, _, scenario = mutation.partition(":")
    print(f"{mutation}: {run(name, scenario)}", flush=True)
