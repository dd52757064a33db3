"""A client without a library: it sends what libraries refuse to send."""

import os
import socket
import struct
import time

from harness import DEADLINE

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# Seconds that one connection may take. A deadline for each read is not enough: servers send heartbeats.
LIFETIME = 3 * DEADLINE
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True, claims=None):
    """A frame; `claims` is the length that its header tells instead of the true one."""
    length = len(payload) if claims is None else claims
    first, bit = fin << 7 | rsv << 4 | opcode, masked << 7
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def upgrade(path, method="GET", leave_out=(), **headers):
    """The head of a request; the headers are added, and take the place of those of the same name."""
    wanted = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    wanted.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in wanted.items() if name not in leave_out]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


class Raw:
    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        self.buffer = b""
        self.end = time.monotonic() + LIFETIME

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """What has come; nothing at the end."""
        assert time.monotonic() < self.end, "the connection should have ended"
        return self.socket.recv(65536)

    def read_to_the_end(self):
        while self.receive():
            pass

    def take(self, count):
        while len(self.buffer) < count:
            data = self.receive()
            if not data:
                raise EOFError
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def head(self):
        """The status and the headers of the answer, with names in lower case."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.take(1)
        status, *lines = head.decode().split("\r\n")
        pairs = (line.split(":", 1) for line in lines if line)
        return int(status.split()[1]), {name.lower(): value.strip() for name, value in pairs}

    def open(self, path, **headers):
        """The handshake; the answer's headers."""
        self.send(upgrade(path, **headers))
        status, answer = self.head()
        assert status == 101 and answer["sec-websocket-accept"] == ACCEPT, (status, answer)
        return answer

    def read_frame(self):
        """The opcode and the payload of a frame; servers do not mask, and ours does not split or compress."""
        first, second = self.take(2)
        assert first & 0xF0 == 0x80 and second < 128, f"the frame begins with {first:#x} {second:#x}"
        length = second
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return first & 0xF, self.take(length)

    def until(self, opcode, is_wanted=lambda _: True):
        """Reads until a frame fits; its payload."""
        while True:
            got, payload = self.read_frame()
            if got == opcode and is_wanted(payload):
                return payload
            assert got != CLOSE, f"closed: {payload}"

    def sync(self):
        """Waits until the server has read all that was sent."""
        self.send(frame(PING, b"sync"))
        self.until(PONG, lambda payload: payload == b"sync")

    def close_code(self):
        """Reads until the server's close frame, answers it, and reads until the end. The code, or None without one."""
        payload = self.until(CLOSE)
        try:
            self.send(frame(CLOSE, payload))
            self.read_to_the_end()
        except (ConnectionResetError, BrokenPipeError):
            pass
        return struct.unpack("!H", payload[:2])[0] if payload else None
