"""What every suite needs: the example as a process, clients whose waits have deadlines, and the count of checks."""

import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time
import traceback
import urllib.error
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

# Seconds for one wait: far more than a slow machine needs, so that only what never comes is late.
DEADLINE = 20
# The examples that are running, for the end of a run that hangs.
children = set()


def expect(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what or 'value'}: got {got!r:.300}, wanted {wanted!r:.300}")


class Peer:
    """A client of the `websockets` package."""

    def __init__(self, url, **options):
        settings = {"open_timeout": DEADLINE, "close_timeout": DEADLINE, "ping_interval": None, "proxy": None}
        # No bound on what has come and is not read yet: a check may look at one client after another.
        settings.update(max_size=None, max_queue=None, **options)
        self.ws = connect(url, **settings)

    def send(self, message):
        self.ws.send(message)

    def recv(self):
        return self.ws.recv(timeout=DEADLINE)

    def send_json(self, value):
        self.ws.send(json.dumps(value))

    def recv_json(self):
        message = self.recv()
        expect(type(message), str, f"the type of {message!r:.100}")
        return json.loads(message)

    def sync(self):
        """Waits until the server has read all that was sent."""
        expect(self.ws.ping().wait(DEADLINE), True, "a pong")

    def until(self, is_wanted):
        """Reads until a message fits."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            message = self.recv()
            if is_wanted(message):
                return message
        raise AssertionError("no message fits")

    def closed(self):
        """Reads until the server closes; its code and reason."""
        try:
            self.until(lambda _: False)
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                return (1006, "")
            return (closed.rcvd.code, closed.rcvd.reason)

    def close(self):
        self.ws.close()


class Server:
    """An example, run as a program."""

    def __init__(self, name, *args):
        self.path = os.path.join(os.environ["EXAMPLES"], name)
        self.args = args
        self.port = 0
        self.peers = []
        self.log = tempfile.TemporaryFile()
        self.child = None

    def start(self):
        command = [self.path, "--addr", f"127.0.0.1:{self.port}", *self.args]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log)
        children.add(self.child)
        ready, _, _ = select.select([self.child.stdout], [], [], DEADLINE)
        line = self.child.stdout.readline().decode() if ready else "nothing"
        address = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        if not address:
            self.kill()
            raise AssertionError(f"{self.path} said {line!r}; {self.complaints()[-3000:]}")
        self.port = int(address[1])

    def complaints(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def url(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    def connect(self, path, **options):
        """A client that is closed when the check ends."""
        peer = Peer(self.url(path), **options)
        self.peers.append(peer)
        return peer

    def http(self, method, path, body=None):
        """A plain request; the status and the body of the answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=DEADLINE) as response:
                return (response.status, response.read().decode())
        except urllib.error.HTTPError as error:
            return (error.code, error.read().decode())

    def close_peers(self):
        while self.peers:
            self.peers.pop().close()

    def stop(self):
        """SIGTERM; the exit status."""
        self.child.send_signal(signal.SIGTERM)
        status = self.child.wait(DEADLINE)
        children.discard(self.child)
        self.child.stdout.close()
        return status

    def kill(self):
        if self.is_running():
            self.child.kill()
            self.child.wait(DEADLINE)


class Suite:
    """The checks of one example, in the order in which they are written."""

    def __init__(self, example, *args, new_peer):
        self.example = example
        self.server = Server(example, *args)
        self.new_peer = new_peer
        self.checks = []

    def check(self, function):
        """Adds a check, whose name is the function's."""
        self.add(function.__name__.replace("_", " "), function)
        return function

    def add(self, name, function):
        self.checks.append((name, function))

    def run(self):
        """Runs all checks; how many passed and failed."""
        counts = {True: 0, False: 0}
        self.add("SIGTERM says goodbye, and clients can come back", self.says_goodbye)
        try:
            self.server.start()
        except Exception:
            print(f"FAILED  {self.example}: it starts\n{traceback.format_exc(limit=-3)}", flush=True)
            return 0, 1
        for name, function in self.checks:
            counts[self.passes(name, function)] += 1
        self.server.kill()
        return counts[True], counts[False]

    def passes(self, name, function):
        begin = time.monotonic()
        try:
            if not self.server.is_running():
                self.server.start()
            function(self.server)
            if function != self.says_goodbye:
                expect(self.server.is_running(), True, "the example still runs")
            print(f"ok      {self.example}: {name} ({time.monotonic() - begin:.1f} s)", flush=True)
            return True
        except Exception:
            print(
                f"FAILED  {self.example}: {name}\n{traceback.format_exc()[-3000:]}{self.server.complaints()[-3000:]}",
                flush=True,
            )
            return False
        finally:
            self.server.close_peers()

    def says_goodbye(self, server):
        peers = [self.new_peer(server) for _ in range(3)]
        expect(server.stop(), 0, "the exit status")
        for peer in peers:
            expect(peer.closed()[0], 1001, "the close code")
        try:
            self.new_peer(server)
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError("the port is still open")
        server.start()
        self.new_peer(server)
        server.close_peers()
        expect(server.stop(), 0, "the exit status without clients")
        if "panicked" in server.complaints():
            raise AssertionError("a thread has panicked")
