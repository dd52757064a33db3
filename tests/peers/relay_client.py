"""A client of the relay, and the file that says who may see what."""

import json
import os
import tempfile
import urllib.parse

from harness import expect

# No one else's message: it is answered with an error, and with nothing before it.
FENCE = '{"type":"fence"}'

_folder = tempfile.TemporaryDirectory()
access_file = os.path.join(_folder.name, "access.json")
access = {}


def write(text=None):
    with open(access_file, "w") as file:
        file.write(json.dumps(access) if text is None else text)


def grant(server, user, *devices, invalidate="user"):
    """Lets the user see these devices and no others."""
    before = access.get(user, [])
    access[user] = list(devices)
    write()
    for name in [user] if invalidate == "user" else {*before, *devices}:
        expect(server.http("POST", f"/invalidate?{invalidate}={urllib.parse.quote(name)}")[0], 204, "the status")


def connect(server, user="wire", device=None):
    query = {"user": user} if device is None else {"user": user, "device": device}
    peer = server.connect(f"/ws?{urllib.parse.urlencode(query)}")
    peer.is_device = device is not None
    return peer


def error(peer):
    """The payload of the next message, which must be an error."""
    message = peer.recv_json()
    expect((sorted(message), message["type"]), (["payload", "type"], "error"), f"the fields of {message}")
    return message["payload"]


def refused(peer, message, code):
    """The message is answered with an error, and the connection stays."""
    peer.send(message)
    payload = error(peer)
    expect(
        (sorted(payload), payload["code"]), (["code", "message"], code), f"the error for {message!r:.100}: {payload}"
    )
    if not payload["message"] or len(payload["message"]) > 300:
        raise AssertionError(f"the text {payload['message']!r:.400}")


def silent(*peers):
    """Nothing has come for them."""
    for peer in peers:
        refused(peer, b"fence" if peer.is_device else FENCE, "bad_message")


def presence(peer, status, **about):
    expect(peer.recv_json(), {"type": "presence", **about, "payload": {"status": status}})


def home(server, name):
    """Ann, who sees the lock; the lock; and both their names."""
    ann, lock = f"ann of {name}", f"lock of {name}"
    grant(server, ann, lock)
    user = connect(server, ann)
    # Answered when it is connected and its subscriptions are loaded.
    silent(user)
    device = connect(server, "maker", lock)
    presence(user, "online", deviceId=lock)
    return user, device, ann, lock


write()
