"""Rooms over binary frames: the example `binary_rooms`."""

import json
import os
import struct
import subprocess
import threading
import uuid
from collections import namedtuple

import wire
from harness import DEADLINE, Suite, expect
from raw import BINARY, CONTINUATION, TEXT, Raw, frame

MAX_MESSAGE = 65_536
PATH = "/ws?token=ann"
ROOT = "root"
Message = namedtuple("Message", "room event dst src payload")


def encode(room="", event="", dst="", src="", payload=b""):
    fields = [field.encode() if isinstance(field, str) else field for field in (room, event, dst, src, payload)]
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def decode(message):
    expect(type(message), bytes, f"the type of {message!r:.100}")
    fields = []
    while message:
        (length,) = struct.unpack(">I", message[:4])
        if len(message) < 4 + length:
            raise AssertionError(f"a short field: {message!r:.100}")
        fields.append(message[4 : 4 + length])
        message = message[4 + length :]
    return Message(*(field.decode() for field in fields[:4]), *fields[4:])


def is_noise(message):
    """All are in `root`, and hear of those who come and go there."""
    return message.room == ROOT and message.event in ("new_member", "member_left")


def read(peer):
    """The next message but noise."""
    return decode(peer.until(lambda message: not is_noise(decode(message))))


def connect(server):
    peer = server.connect(PATH)
    first = read(peer)
    peer.id, peer.members = first.src, json.loads(first.payload)
    expect(first, Message(ROOT, "join_ack", "", peer.id, first.payload), "the first message")
    expect(peer.id in peer.members, True, "is a member of root")
    return peer


def say(peer, *fields, **named):
    peer.send(encode(*fields, **named))


def join(room, peer):
    """The members that the answer tells."""
    say(peer, room, "join")
    answer = read(peer)
    expect(answer, Message(room, "join_ack", "", peer.id, answer.payload), "the answer to a join")
    return sorted(json.loads(answer.payload))


def leave(room, peer):
    say(peer, room, "leave")
    expect(read(peer), Message(room, "leave_ack", "", peer.id, peer.id.encode()), "the answer to a leave")


def ids(*peers):
    return sorted(peer.id for peer in peers)


def silent(*peers):
    """Nothing but noise has come for them: the next message is their echo."""
    for peer in peers:
        say(peer, event="echo", payload=b"?")
        expect(read(peer), Message(ROOT, "echo", peer.id, peer.id, b"?"), "the echo")


SUITE = Suite("binary_rooms", new_peer=connect)
wire.add_to(SUITE, PATH, encode(event="echo", payload=b"\x00?"), lambda m: decode(m).event == "echo", MAX_MESSAGE)


@SUITE.check
def connections_without_a_token_get_401(server):
    for path in ["/ws", "/ws?token=", "/ws?Token=ann"]:
        with Raw(server) as peer:
            peer.send(wire.upgrade(path))
            expect(peer.head()[0], 401, path)


@SUITE.check
def everybody_is_in_root(server):
    ann, bob = connect(server), connect(server)
    expect([uuid.UUID(peer.id).version for peer in (ann, bob)], [4, 4], "the versions of the ids")
    expect(set(ids(ann, bob)) <= set(bob.members), True, f"the members {bob.members}")
    say(ann, ROOT, "chat", payload=b"hi")
    expect(read(bob), Message(ROOT, "chat", "", ann.id, b"hi"))
    silent(ann, bob)


@SUITE.check
def members_hear_each_other_and_who_comes_and_goes(server):
    ann, bob, eve = (connect(server) for _ in range(3))
    expect(join("garden", ann), ids(ann))
    expect(join("garden", bob), ids(ann, bob))
    expect(read(ann), Message("garden", "new_member", "", "", bob.id.encode()))
    payload = bytes(range(256))
    say(ann, "garden", "\u00e9v\u00e9nement", payload=payload)
    expect(read(bob), Message("garden", "\u00e9v\u00e9nement", "", ann.id, payload))
    leave("garden", ann)
    expect(read(bob), Message("garden", "member_left", "", "", ann.id.encode()))
    expect(join("garden", eve), ids(bob, eve))
    expect(read(bob), Message("garden", "new_member", "", "", eve.id.encode()))
    eve.close()
    expect(read(bob), Message("garden", "member_left", "", "", eve.id.encode()))
    silent(ann, bob)


@SUITE.check
def joins_and_leaves_may_be_said_twice(server):
    ann, bob = connect(server), connect(server)
    join("twice", ann)
    for _ in range(2):
        expect(join("twice", bob), ids(ann, bob))
    expect(read(ann).event, "new_member")
    for _ in range(2):
        leave("twice", bob)
    expect(read(ann).event, "member_left")
    leave("never joined", bob)
    silent(ann, bob)


@SUITE.check
def direct_messages_reach_one(server):
    ann, bob, eve = (connect(server) for _ in range(3))
    say(ann, "any room", "dm", dst=bob.id, payload=b"psst")
    expect(read(bob), Message(ROOT, "dm", bob.id, ann.id, b"psst"))
    # Before the handler: an echo with a receiver is a direct message.
    say(ann, "", "echo", dst=bob.id)
    expect(read(bob), Message(ROOT, "echo", bob.id, ann.id, b""))
    say(ann, "", "note", dst=ann.id)
    expect(read(ann), Message(ROOT, "note", ann.id, ann.id, b""), "a message to oneself")
    silent(ann, bob, eve)


@SUITE.check
def the_sender_cannot_be_forged(server):
    ann, bob, eve = (connect(server) for _ in range(3))
    for peer in (ann, bob, eve):
        join("forge", peer)
    for peer in (ann, bob, eve):
        silent_after_news(peer)
    for forged in [eve.id, "", "x" * 1000]:
        say(ann, "forge", "chat", src=forged)
        for peer in (bob, eve):
            expect(read(peer), Message("forge", "chat", "", ann.id, b""))
        say(ann, "", "dm", dst=bob.id, src=forged)
        expect(read(bob), Message(ROOT, "dm", bob.id, ann.id, b""))
        say(ann, "", "echo", src=forged)
        expect(read(ann), Message(ROOT, "echo", ann.id, ann.id, b""))


def silent_after_news(peer):
    """Reads what has come up to the answer to an echo."""
    say(peer, event="echo", payload=b"after the news")
    peer.until(lambda message: decode(message).payload == b"after the news")


@SUITE.check
def what_is_refused_reaches_nobody(server):
    ann, bob = connect(server), connect(server)
    join("shut", bob)
    say(ann, "shut", "chat", payload=b"from outside")
    for room in ["no such room", "", "ROOT", "root\x00"]:
        say(ann, room, "chat")
    for dst in ["bob", str(uuid.uuid4()), bob.id[:-1], f"{bob.id} ", "x" * 10_000]:
        say(ann, ROOT, "dm", dst=dst)
    for event in ["join_ack", "leave_ack", "new_member", "member_left"]:
        say(ann, ROOT, event, payload=bob.id.encode())
        say(ann, ROOT, event, dst=bob.id, payload=bob.id.encode())
    # Names of rooms have 1 to 256 bytes.
    for room in ["", "x" * 257, "\u00e9" * 129]:
        say(ann, room, "join")
    silent(ann, bob)
    expect(join("x" * 256, ann), ids(ann))


def closes(server, message, code, reason, opcode=BINARY):
    with Raw(server) as peer:
        peer.open(PATH)
        peer.send(frame(opcode, message))
        payload = peer.until(8)
        expect((struct.unpack("!H", payload[:2])[0], payload[2:].decode()), (code, reason), f"{message!r:.100}")


NAMES = ["room", "event", "dst", "src", "payload"]


@SUITE.check
def every_truncation_closes_with_1002(server):
    whole = encode("r\u00e9", "ev", "d", "src", b"pay")
    ends = [len(encode(*["r\u00e9", "ev", "d", "src", b"pay"][:n])) - 4 * (5 - n) for n in range(1, 6)]
    for cut in range(len(whole)):
        field = NAMES[sum(end <= cut for end in ends)]
        closes(server, whole[:cut], 1002, f"frame ends inside {field}")


@SUITE.check
def lengths_that_lie_and_bad_names_close_with_1002(server):
    fields = [b"room", b"event", b"dst", b"src", b"payload"]
    for n, name in enumerate(NAMES):
        before, after = encode(*fields[:n])[: sum(map(len, fields[:n])) + 4 * n], b"".join(fields[n:])
        for length in [1 << 16, 1 << 31, (1 << 32) - 1]:
            closes(server, before + struct.pack(">I", length) + after, 1002, f"frame ends inside {name}")
        for bad in wire.BAD_UTF8 if n < 4 else []:
            closes(server, encode(*fields[:n], bad, *fields[n + 1 :]), 1002, f"{name} is not UTF-8")
    for count in [1, 4, 1000]:
        closes(server, encode("r", "e") + bytes(count), 1002, f"{count} bytes behind the payload")
    peer = connect(server)
    for payload in wire.BAD_UTF8:
        say(peer, event="echo", payload=payload)
        expect(read(peer).payload, payload, "a payload that is no text")


@SUITE.check
def text_closes_with_1003(server):
    for text in [b"", b"hi", b'{"type":"ping"}', encode("r", "e")]:
        closes(server, text, 1003, "binary messages only", TEXT)
    peer = connect(server)
    peer.send(part for part in ["in ", "pieces"])
    expect(peer.closed(), (1003, "binary messages only"))


@SUITE.check
def a_message_of_the_largest_size_comes_back(server):
    peer = connect(server)
    payload = os.urandom(MAX_MESSAGE - len(encode(event="echo")))
    for message in [encode(event="echo", payload=payload), (encode(event="echo", payload=payload)[i::1][:8192] for i in range(0, MAX_MESSAGE, 8192))]:
        peer.send(message)
        answer = read(peer)
        expect((answer.event, answer.payload == payload), ("echo", True))


@SUITE.check
def a_thousand_joins_are_answered(server):
    peer, watcher = connect(server), connect(server)
    join("room 999", watcher)
    batch = 100
    for start in range(0, 1000, batch):
        rooms = [f"room {number}" for number in range(start, start + batch)]
        # A batch at a time: a client that leaves 256 answers unread is closed.
        for room in rooms:
            say(peer, room, "join")
        answers = [read(peer) for _ in rooms]
        expect([(answer.room, answer.event) for answer in answers], [(room, "join_ack") for room in rooms])
    expect(read(watcher), Message("room 999", "new_member", "", "", peer.id.encode()))
    peer.close()
    expect(read(watcher), Message("room 999", "member_left", "", "", peer.id.encode()))


def hear(members, news):
    """News may repeat what the answer to the join has told."""
    expect((news.event in ("new_member", "member_left"), news.src), (True, ""), f"{news} as news")
    (members.add if news.event == "new_member" else members.discard)(news.payload.decode())


def race(server, turns, done):
    """Joins and leaves and joins, and notes the members as it is told of them."""
    peer, members = connect(server), None
    for turn in range(turns):
        say(peer, "race", "leave" if turn % 2 else "join")
        while True:
            message = read(peer)
            told = message.payload.decode()
            if message.event == "join_ack":
                members = set(json.loads(told))
                break
            if message.event == "leave_ack":
                members = None
                break
            if members is not None:
                hear(members, message)
    done.append((peer, members))


@SUITE.check
def what_racing_members_are_told_adds_up(server):
    done = []
    threads = [threading.Thread(target=race, args=(server, 101, done)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(len(done), 4, "those that came to the end")
    everyone = {peer.id for peer, _ in done}
    for peer, members in done:
        say(peer, event="echo", payload=b"end")
        while (message := read(peer)).event != "echo":
            hear(members, message)
        expect(members, everyone, "the members in the end")


@SUITE.check
def who_comes_back_is_somebody_else(server):
    ann, bob = connect(server), connect(server)
    join("home", ann), join("home", bob)
    before, news = bob.id, read(ann)
    bob.close()
    expect((news.event, read(ann)), ("new_member", Message("home", "member_left", "", "", before.encode())))
    bob = connect(server)
    expect(bob.id != before, True, "a new id")
    say(ann, "home", "chat")
    say(ann, ROOT, "dm", dst=before)
    silent(bob, ann)
    expect(join("home", bob), ids(ann, bob))


@SUITE.check
def pieces_of_a_frame_and_the_next_in_one_write(server):
    with Raw(server) as peer:
        peer.open(PATH)
        one, two = encode(event="echo", payload=b"one"), encode(event="echo", payload=b"two")
        peer.send(frame(BINARY, one[:9], fin=False) + frame(CONTINUATION, one[9:]) + frame(BINARY, two))
        for payload in [b"one", b"two"]:
            peer.until(BINARY, lambda got, wanted=payload: decode(got).payload == wanted)


@SUITE.check
def clients_of_node_agree(server):
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "binary_rooms.mjs")
    done = subprocess.run(["node", program, server.url("/ws")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * DEADLINE)
    text = done.stdout.decode(errors="replace")
    print("".join(f"        {line}\n" for line in text.splitlines()), end="", flush=True)
    expect((done.returncode, text.splitlines()[-1:]), (0, ["node: all is well"]), "the end")
