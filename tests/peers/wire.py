"""What holds for every protocol: the handshake, frames of every kind, and connections that end badly."""

import socket
import struct

from harness import DEADLINE, expect
from raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Raw, frame, upgrade

BAD_UTF8 = [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]


def add_to(suite, path, request, is_answer, max_size, prompt=None):
    """Adds the checks to a suite. `request` is a message that is answered, with a message that `is_answer` knows.
    Where the server answers nobody, `prompt` makes it send such a message."""
    opcode = TEXT if isinstance(request, str) else BINARY
    data = request.encode() if isinstance(request, str) else request

    def fits(payload):
        return is_answer(payload.decode() if opcode == TEXT else payload)

    def is_answered(server, peer):
        if prompt:
            peer.sync()
            prompt(server)
        if isinstance(peer, Raw):
            peer.until(opcode, fits)
        else:
            peer.until(is_answer)

    def ask(server, peer):
        peer.send(request)
        is_answered(server, peer)

    def status(server, head):
        with Raw(server) as peer:
            peer.send(head)
            return peer.head()

    def violates(server, name, wire, code):
        with Raw(server) as peer:
            peer.open(path)
            peer.send(wire)
            expect(peer.close_code(), code, name)

    @suite.check
    def bad_requests_for_an_upgrade_are_refused(server):
        expect(status(server, upgrade(path, leave_out=["Sec-WebSocket-Key"]))[0], 400, "no key")
        expect(status(server, upgrade(path, Sec_WebSocket_Key="c2hvcnQ="))[0], 400, "a short key")
        code, headers = status(server, upgrade(path, Sec_WebSocket_Version="8"))
        expect((code, headers.get("sec-websocket-version")), (426, "13"), "an old version")
        expect(status(server, upgrade(path, method="POST"))[0], 405, "POST")
        expect(status(server, upgrade("/nowhere"))[0], 404, "another path")
        expect(status(server, upgrade(path, Origin="http://elsewhere.example"))[0], 403, "another origin")
        expect(status(server, upgrade(path, X_Long="x" * 10_000))[0], 431, "a long head")
        expect(status(server, b"\x16\x03\x01\x02\x00\r\n\r\n")[0], 400, "no HTTP")

    @suite.check
    def compression_and_subprotocols_are_offered_and_not_chosen(server):
        peer = server.connect(path, subprotocols=["chat", "superchat"])
        sent, got = peer.ws.request.headers, peer.ws.response.headers
        expect("permessage-deflate" in sent["Sec-WebSocket-Extensions"], True, "the offer")
        expect((got.get("Sec-WebSocket-Extensions"), got.get("Sec-WebSocket-Protocol")), (None, None), "the answer")
        expect((peer.ws.protocol.extensions, peer.ws.subprotocol), ([], None), "what the library made of it")
        ask(server, peer)
        violates(server, "a frame that says it is compressed", frame(opcode, data, rsv=4), 1002)

    @suite.check
    def pings_are_answered_with_their_payload(server):
        peer = server.connect(path)
        for payload in ["", "x", b"\x00\xff", "y" * 125]:
            if not peer.ws.ping(payload).wait(DEADLINE):
                raise AssertionError(f"no pong for {payload!r}")
        peer.ws.pong("nobody has asked")
        ask(server, peer)
        with Raw(server) as bare:
            bare.open(path)
            bare.send(frame(PING, b"\xff\x00"))
            expect(bare.until(PONG), b"\xff\x00", "the pong's payload")

    @suite.check
    def fragments_are_put_together_and_pings_may_come_between(server):
        peer = server.connect(path)
        for size in [1, 7, len(request) - 1]:
            peer.send(request[i : i + size] for i in range(0, len(request), size))
            is_answered(server, peer)
        pongs = []

        def pieces():
            for i in range(len(request)):
                yield request[i : i + 1]
                if i % 16 == 0:
                    pongs.append(peer.ws.ping())

        peer.send(pieces())
        is_answered(server, peer)
        expect([pong.wait(DEADLINE) for pong in pongs], [True] * len(pongs), "the pongs")
        with Raw(server) as bare:
            bare.open(path)
            # An empty first and last fragment, and bytes that come one at a time.
            wire = frame(opcode, fin=False) + frame(CONTINUATION, data, fin=False) + frame(CONTINUATION)
            for i in range(len(wire)):
                bare.send(wire[i : i + 1])
            is_answered(server, bare)

    @suite.check
    def bad_text_closes_with_1007(server):
        for bad in BAD_UTF8:
            violates(server, f"{bad}", frame(TEXT, bad), 1007)
        violates(server, "split", frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007)
        violates(server, "in a close reason", frame(CLOSE, b"\x03\xe8\xff"), 1007)

    @suite.check
    def violations_of_the_protocol_close_with_1002(server):
        for name, wire in {
            "no mask": frame(opcode, data, masked=False),
            "a reserved bit": frame(opcode, data, rsv=1),
            "an unknown opcode": frame(3),
            "an unknown control opcode": frame(11),
            "a continuation of nothing": frame(CONTINUATION, data),
            "a message in a message": frame(opcode, data, fin=False) + frame(opcode, data),
            "a ping in pieces": frame(PING, b"x", fin=False),
            "a long ping": frame(PING, b"x" * 126),
            "half a close code": frame(CLOSE, b"\x03"),
            "a close code that may not be sent": frame(CLOSE, struct.pack("!H", 1005)),
            "a close code that does not exist": frame(CLOSE, struct.pack("!H", 999)),
        }.items():
            violates(server, name, wire, 1002)

    @suite.check
    def messages_that_are_too_large_close_with_1009(server):
        peer = server.connect(path)
        peer.send("x" * (max_size + 1) if opcode == TEXT else b"x" * (max_size + 1))
        expect(peer.closed()[0], 1009, "one byte more")
        violates(server, "a header that says so", frame(opcode, claims=max_size + 1), 1009)
        violates(server, "the longest header", frame(opcode, claims=(1 << 63) - 1), 1009)
        half = b"x" * (max_size // 2 + 1)
        violates(server, "in pieces", frame(opcode, half, fin=False) + frame(CONTINUATION, half), 1009)

    @suite.check
    def connections_that_break_off_do_not_hurt_the_others(server):
        other = server.connect(path)
        wire = frame(opcode, data)
        for cut in [0, 1, 2, 5, 6, len(wire) - 1]:
            with Raw(server) as peer:
                peer.open(path)
                peer.send(wire[:cut])
                peer.socket.shutdown(socket.SHUT_WR)
                peer.read_to_the_end()
        for head in [b"", b"GET", upgrade(path)[:-2]]:
            with Raw(server) as peer:
                peer.send(head)
        ask(server, other)

    @suite.check
    def the_closing_handshake_is_answered(server):
        for code, reason in [(1000, ""), (1000, "bye"), (1001, "away"), (3000, ""), (4999, "ours")]:
            peer = server.connect(path)
            peer.ws.close(code, reason)
            expect(peer.closed()[0], code, "the code that comes back")
        with Raw(server) as bare:
            bare.open(path)
            bare.send(frame(CLOSE))
            expect(bare.close_code(), None, "the code when none was sent")

    @suite.check
    def clients_come_back_after_the_end(server):
        for _ in range(20):
            peer = server.connect(path)
            ask(server, peer)
            peer.close()

    @suite.check
    def requests_may_come_before_the_answer_to_the_upgrade_is_read(server):
        with Raw(server) as peer:
            peer.send(upgrade(path))
            expect(peer.head()[0], 101, "the status")
            peer.send(frame(opcode, data) * 10)
            for _ in range(10):
                is_answered(server, peer)
            peer.send(frame(CLOSE, struct.pack("!H", 1000)) + frame(opcode, data))
            expect(peer.close_code(), 1000, "the close code")
