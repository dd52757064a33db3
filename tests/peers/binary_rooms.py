"""Rooms over binary frames: the example `binary_rooms`."""

import json
import os
import subprocess
import threading
import uuid

import binary_frames
import wire
from binary_client import MAX_MESSAGE, PATH, ROOT, Message
from binary_client import connect, decode, encode, ids, join, leave, read, say, silent, silent_after_news
from harness import DEADLINE, Suite, expect
from raw import Raw

SUITE = Suite("binary_rooms", new_peer=connect)
wire.add_to(SUITE, PATH, encode(event="echo", payload=b"\x00?"), lambda m: decode(m).event == "echo", MAX_MESSAGE)
for check in binary_frames.CHECKS:
    SUITE.check(check)


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
    # Those with an odd number of turns are in at the end, the others out.
    threads = [threading.Thread(target=race, args=(server, turns, done)) for turns in (101, 100, 101, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(len(done), 4, "those that came to the end")
    inside = {peer.id for peer, members in done if members is not None}
    expect(len(inside), 2, "the members")
    for peer, members in done:
        say(peer, event="echo", payload=b"end")
        while (message := read(peer)).event != "echo":
            hear(members, message)
        if members is not None:
            expect(members, inside, "the members in the end")


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
def clients_of_node_agree(server):
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "binary_rooms.mjs")
    done = subprocess.run(
        ["node", program, server.url("/ws")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * DEADLINE
    )
    text = done.stdout.decode(errors="replace")
    print("".join(f"        {line}\n" for line in text.splitlines()), end="", flush=True)
    expect((done.returncode, text.splitlines()[-1:]), (0, ["node: all is well"]), "the end")
