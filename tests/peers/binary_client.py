"""A client of the binary rooms: frames, joins and leaves."""

import json
import struct
from collections import namedtuple

from harness import expect

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


def silent_after_news(peer):
    """Reads what has come up to the answer to an echo."""
    say(peer, event="echo", payload=b"after the news")
    peer.until(lambda message: decode(message).payload == b"after the news")
