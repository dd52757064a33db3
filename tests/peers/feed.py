"""A feed of JSON events over WebSocket and Server-Sent Events: the example `feed`."""

import json
import re
import threading
import time

import wire
from harness import DEADLINE, Suite, expect
from raw import Raw

MAX_MESSAGE = 512 * 1024
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
# A type of event that the readers below pass over.
BARRIER = "barrier"


class Stream(Raw):
    """A client of the event stream, which reads it as the HTML standard has it."""

    def __init__(self, server, **headers):
        super().__init__(server)
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        self.send(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n{''.join(lines)}\r\n".encode())
        self.status, self.headers = self.head()
        self.comments = []
        # Of events that have one.
        self.names = []
        # What is left of the current chunk.
        self.chunk = b""

    def line_of(self, take):
        line = b""
        while not line.endswith(b"\n"):
            line += take()
        return line[:-1].decode()

    def byte(self):
        """The next byte of the body, out of its chunk."""
        if not self.chunk:
            size = int(self.line_of(lambda: self.take(1)), 16)
            self.chunk = self.take(size)
            expect(self.take(2), b"\r\n", "the end of a chunk")
            if size == 0:
                raise EOFError
        byte, self.chunk = self.chunk[:1], self.chunk[1:]
        return byte

    def line(self):
        return self.line_of(self.byte)

    def recv(self):
        """The data of the next event."""
        data = []
        while line := self.line():
            name, _, value = line.partition(":")
            if name == "":
                self.comments.append(value.removeprefix(" "))
            elif name == "data":
                data.append(value.removeprefix(" "))
            elif name == "event":
                expect(value, " gap", "the event's name")
                self.names.append("gap")
            else:
                # The position in the history, and when to come back after a drain.
                expect(name in ("id", "retry"), True, f"the field in {line!r:.100}")
        return "\n".join(data) if data else self.recv()

    def close(self):
        self.socket.close()


def websocket(server):
    return server.connect("/ws")


def stream(server, **headers):
    peer = Stream(server, **headers)
    server.peers.append(peer)
    expect(peer.status, 200, "the status")
    return peer


def everyone(server, count):
    """Waits until so many clients, and no more, are there."""
    end = time.monotonic() + DEADLINE
    while (queued := publish(server, BARRIER, "null")) != count:
        expect(time.monotonic() < end, True, f"{count} clients in time, there are {queued}")


def publish(server, kind, payload):
    """Sends JSON text to all; how many it went to."""
    body = f'{{"type":{json.dumps(kind)},"payload":{payload}}}'
    status, answer = server.http("POST", "/publish", body.encode())
    answer = json.loads(answer)
    expect((status, sorted(answer), answer["dropped"]), (200, ["dropped", "queued"], 0), "the answer")
    return answer["queued"]


def read(peer):
    """The text of the next event but barriers."""
    while (text := peer.recv()).startswith(f'{{"type":"{BARRIER}"'):
        pass
    return text


SUITE = Suite("feed", new_peer=websocket)
wire.add_to(
    SUITE,
    "/ws",
    "nobody listens",
    lambda message: BARRIER in message,
    MAX_MESSAGE,
    prompt=lambda server: publish(server, BARRIER, "null"),
)


@SUITE.check
def everybody_gets_the_same_text(server):
    peers = [websocket(server), stream(server), websocket(server), stream(server)]
    everyone(server, 4)
    begin = time.time()
    for kind, payload in [
        ("price", '{"b": 1.50,  "a":[1e400,"\\u00e9\\/"]}'),
        ("", "null"),
        ('"\u00e9\n', '"\\ud83c\\udf0d"'),
    ]:
        expect(publish(server, kind, payload), 4, "the receivers")
        texts = [read(peer) for peer in peers]
        expect(texts, [texts[0]] * 4, "what each has got")
        parts = re.fullmatch(r'\{"type":(".*?"),"payload":(.*),"timestamp":"(%s)"\}' % STAMP, texts[0])
        expect((json.loads(parts[1]), parts[2]), (kind, payload), "type and payload")
        stamp = time.strptime(parts[3][:19], "%Y-%m-%dT%H:%M:%S")
        expect(abs(time.mktime(stamp) - time.mktime(time.gmtime(begin))) < 60, True, f"the time {parts[3]}")


@SUITE.check
def lines_of_an_event_are_lines_of_the_stream(server):
    socket, events = websocket(server), stream(server)
    everyone(server, 2)
    for payload in ['{\n"a": 1,\n\n"b": 2\n}', "[\r\n1,\r2]", "[ \n]", '"data: x\\n\\nid: 1"', "[\n\n\n]"]:
        publish(server, "lines", payload)
        expect(re.sub(r"\r\n?", "\n", read(socket)), read(events), f"{payload!r} over both")


@SUITE.check
def the_stream_has_its_headers(server):
    peer = stream(server, Accept="text/event-stream", Last_Event_ID="17")
    wanted = {
        "content-type": "text/event-stream",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "transfer-encoding": "chunked",
    }
    expect({name: peer.headers.get(name) for name in wanted}, wanted, "the headers")
    expect([name for name in ("content-length", "content-encoding") if name in peer.headers], [], "others")


@SUITE.check
def bad_requests_for_a_stream_are_refused(server):
    for method in ["POST", "PUT", "DELETE", "OPTIONS"]:
        expect(server.http(method, "/events")[0], 405, method)
    with Raw(server) as peer:
        peer.send(b"HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n")
        expect(peer.head()[0], 405, "HEAD")
    for headers, status in [
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Content_Length": "3"}, 400),
        ({"X_Long": "x" * 10_000}, 431),
    ]:
        refused = Stream(server, **headers)
        expect(refused.status, status, f"{headers!r:.60}")
        refused.close()


@SUITE.check
def bad_events_are_not_published(server):
    peers = [websocket(server), stream(server)]
    everyone(server, 2)
    bad = [
        "",
        "nonsense",
        "[]",
        "1",
        "{}",
        '{"type":"t"}',
        '{"payload":1}',
        '{"type":1,"payload":1}',
        '{"type":"t","payload":}',
    ]
    bad += [
        '{"type":"t","payload":1} x',
        '{"type":"t","type":"t","payload":1}',
        '{"type":"t","payload":NaN}',
        "[" * 100_000,
    ]
    for body in [*(text.encode() for text in bad), b'{"type":"\xff","payload":1}', b'{"type":"t","payload":"\xff"}']:
        status, answer = server.http("POST", "/publish", body)
        expect((status, list(json.loads(answer))), (400, ["error"]), f"the answer to {body!r:.60}")
    for method in ["GET", "PUT"]:
        expect(server.http(method, "/publish")[0], 405, method)
    with Raw(server) as peer:
        peer.send(b"POST /publish HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_MESSAGE + 1))
        expect(peer.head()[0], 413, "a body that is too large")
    publish(server, "good", "1")
    for peer in peers:
        expect(json.loads(read(peer))["type"], "good", "the first event")


@SUITE.check
def what_clients_say_reaches_nobody(server):
    ann, bob, events = websocket(server), websocket(server), stream(server)
    for message in ["", "hi", '{"type":"price","payload":1}', b"", b"\x00\xff"]:
        ann.send(message)
    ann.sync()
    events.send(b'POST /publish HTTP/1.1\r\nContent-Length: 25\r\n\r\n{"type":"a","payload":1}\n')
    everyone(server, 3)
    publish(server, "real", "1")
    for peer in (ann, bob, events):
        expect(json.loads(read(peer))["type"], "real", "the first event")


@SUITE.check
def a_stream_that_is_talked_to_for_long_ends(server):
    other, events = stream(server), stream(server)
    everyone(server, 2)
    try:
        events.send(b"x" * 100_000)
        events.read_to_the_end()
    except (ConnectionResetError, BrokenPipeError):
        pass
    everyone(server, 1)
    publish(server, "still here", "1")
    expect(json.loads(read(other))["type"], "still here", "the event of the other")


@SUITE.check
def racing_publishers_reach_everybody_once_and_in_order(server):
    peers = [kind(server) for kind in (websocket, stream) * 3]
    everyone(server, 6)
    turns = 25
    threads = [
        threading.Thread(target=lambda n=n: [publish(server, "race", f"[{n},{turn}]") for turn in range(turns)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    heard = [[json.loads(read(peer))["payload"] for _ in range(4 * turns)] for peer in peers]
    for thread in threads:
        thread.join()
    for events in heard:
        for n in range(4):
            expect([turn for number, turn in events if number == n], list(range(turns)), "what one publisher has sent")


@SUITE.check
def racing_clients_come_and_go(server):
    watcher = stream(server)

    def come_and_go(kind):
        for _ in range(15):
            kind(server).close()

    threads = [threading.Thread(target=come_and_go, args=(kind,)) for kind in (websocket, stream) * 2]
    for thread in threads:
        thread.start()
    for turn in range(20):
        publish(server, "turn", f"{turn}")
    for thread in threads:
        thread.join()
    everyone(server, 1)
    # Those before the watcher took part may be missing.
    publish(server, "turn", "20")
    turns = [json.loads(read(watcher))["payload"]]
    while turns[-1] != 20:
        turns.append(json.loads(read(watcher))["payload"])
    expect(turns, list(range(turns[0], 21)), "the turns")


@SUITE.check
def streams_are_told_of_the_end_and_can_come_back(server):
    for _ in range(2):
        events = [stream(server) for _ in range(3)]
        everyone(server, 3)
        expect(server.stop(), 0, "the exit status")
        for peer in events:
            try:
                while peer.recv():
                    pass
            except EOFError:
                expect(peer.comments[-1][:12], "closed 1001 ", "the last comment")
        server.close_peers()
        server.start()
    # The history has ended with the server that had this id: what is missing is unknown.
    peer = stream(server, Last_Event_ID="3")
    expect((json.loads(peer.recv())["from"], peer.names), (None, ["gap"]), "what comes first")
    everyone(server, 1)
    publish(server, "back", "1")
    expect(json.loads(read(peer))["type"], "back", "the event")
