"""Frames of the binary rooms: malformed ones, text, sizes and pieces."""

import os
import struct

import wire
from binary_client import MAX_MESSAGE, PATH, connect, decode, encode, read, say
from harness import expect
from raw import BINARY, CLOSE, CONTINUATION, TEXT, Raw, frame

CHECKS = []


def closes(server, message, code, reason, opcode=BINARY):
    with Raw(server) as peer:
        peer.open(PATH)
        peer.send(frame(opcode, message))
        payload = peer.until(CLOSE)
        expect((struct.unpack("!H", payload[:2])[0], payload[2:].decode()), (code, reason), f"{message!r:.100}")


NAMES = ["room", "event", "dst", "src", "payload"]


@CHECKS.append
def every_truncation_closes_with_1002(server):
    whole = encode("r\u00e9", "ev", "d", "src", b"pay")
    ends = [len(encode(*["r\u00e9", "ev", "d", "src", b"pay"][:n])) - 4 * (5 - n) for n in range(1, 6)]
    for cut in range(len(whole)):
        field = NAMES[sum(end <= cut for end in ends)]
        closes(server, whole[:cut], 1002, f"frame ends inside {field}")


@CHECKS.append
def lengths_that_lie_and_bad_names_close_with_1002(server):
    fields = [b"room", b"event", b"dst", b"src", b"payload"]
    for n, name in enumerate(NAMES):
        before, after = encode(*fields[:n])[: sum(map(len, fields[:n])) + 4 * n], b"".join(fields[n:])
        for length in [1 << 16, 1 << 31, (1 << 32) - 1]:
            closes(server, before + struct.pack(">I", length) + after, 1002, f"frame ends inside {name}")
        for bad in wire.BAD_UTF8 if n < 4 else []:
            closes(server, encode(*fields[:n], bad, *fields[n + 1 :]), 1002, f"{name} is not UTF-8")
    for count in [1, 4, 1000]:
        closes(server, encode("r", "e") + bytes(count), 1002, f"{count} bytes after the payload")
    peer = connect(server)
    for payload in wire.BAD_UTF8:
        say(peer, event="echo", payload=payload)
        expect(read(peer).payload, payload, "a payload that is no text")


@CHECKS.append
def text_closes_with_1003(server):
    for text in [b"", b"hi", b'{"type":"ping"}', encode("r", "e")]:
        closes(server, text, 1003, "binary messages only", TEXT)
    peer = connect(server)
    peer.send(part for part in ["in ", "pieces"])
    expect(peer.closed(), (1003, "binary messages only"))


@CHECKS.append
def a_message_of_the_largest_size_comes_back(server):
    peer = connect(server)
    payload = os.urandom(MAX_MESSAGE - len(encode(event="echo")))
    whole = encode(event="echo", payload=payload)
    for message in [whole, (whole[i : i + 8192] for i in range(0, MAX_MESSAGE, 8192))]:
        peer.send(message)
        answer = read(peer)
        expect((answer.event, answer.payload == payload), ("echo", True))


@CHECKS.append
def pieces_of_a_frame_and_the_next_in_one_write(server):
    with Raw(server) as peer:
        peer.open(PATH)
        one, two = encode(event="echo", payload=b"one"), encode(event="echo", payload=b"two")
        peer.send(frame(BINARY, one[:9], fin=False) + frame(CONTINUATION, one[9:]) + frame(BINARY, two))
        for payload in [b"one", b"two"]:
            peer.until(BINARY, lambda got, wanted=payload: decode(got).payload == wanted)
