"""Users and devices: the example `relay`."""

import json
import os
import re
import tempfile
import threading
import time
import urllib.parse

import wire
from harness import DEADLINE, Suite, expect
from raw import Raw
from websockets.exceptions import ConnectionClosed

MAX_MESSAGE = 512 * 1024
# No one else's message: it is answered with an error, and with nothing before it.
FENCE = '{"type":"fence"}'

folder = tempfile.TemporaryDirectory()
access_file = os.path.join(folder.name, "access.json")
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
    expect((sorted(payload), payload["code"]), (["code", "message"], code), f"the error for {message!r:.100}: {payload}")
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
SUITE = Suite("relay", "--access", access_file, new_peer=connect)
wire.add_to(SUITE, "/ws?user=wire", FENCE, lambda message: '"bad_message"' in message, MAX_MESSAGE)


@SUITE.check
def who_is_nobody_is_refused(server):
    for path, status in [("/ws", 401), ("/ws?user=", 400), ("/ws?device=d", 401), ("/ws?user=u&device=", 400)]:
        with Raw(server) as peer:
            peer.send(wire.upgrade(path))
            expect(peer.head()[0], status, path)


@SUITE.check
def devices_reach_all_connections_of_their_users(server):
    ann, device, name, lock = home(server, "hearing")
    grant(server, "bob of hearing", lock)
    again, eve = connect(server, name), connect(server, "eve of hearing")
    silent(again, eve, ann, device)
    bob = connect(server, "bob of hearing")
    silent(bob)
    # Of the users, only the first connection is told, to the device and to the others who may see it.
    presence(device, "online", userId="bob of hearing")
    for peer in (ann, again):
        presence(peer, "online", userId="bob of hearing")
    device.send('{"type":"state","payload":{"open":true},"deviceId":"forged","unknown":1}')
    for peer in (ann, again, bob):
        expect(peer.recv(), f'{{"type":"state","deviceId":"{lock}","payload":{{"open":true}}}}')
    silent(ann, again, bob, eve, device)


@SUITE.check
def payloads_pass_byte_for_byte(server):
    ann, device, name, lock = home(server, "bytes")
    for payload in ['{"b": 1.50,  "a":[1e400,"\\u00e9\\/"]}', "null", "-0", '""', "[" * 100 + "]" * 100, '"' + "x" * 400_000 + '"']:
        device.send(f'{{"payload": {payload} ,"type":"t"}}')
        expect(ann.recv(), f'{{"type":"t","deviceId":"{lock}","payload":{payload}}}')
    ann.send(f'{{"type":"\\u0063md","deviceId":"{lock}","userId":"root"}}')
    expect(device.recv(), f'{{"type":"cmd","deviceId":"{lock}","userId":"{name}"}}')


@SUITE.check
def users_reach_the_devices_they_may_see(server):
    ann, device, name, lock = home(server, "asking")
    eve = connect(server, "eve of asking")
    ann.send_json({"type": "open", "deviceId": lock, "userId": "eve", "payload": [1]})
    expect(device.recv_json(), {"type": "open", "deviceId": lock, "userId": name, "payload": [1]})
    refused(eve, json.dumps({"type": "open", "deviceId": lock, "userId": name}), "forbidden")
    refused(ann, '{"type":"open","deviceId":"no such device"}', "forbidden")
    for message in ['{"type":"open"}', '{"type":"open","deviceId":""}', '{"type":"open","deviceId":null}']:
        refused(ann, message, "bad_message")
    device.close()
    presence(ann, "offline", deviceId=lock)
    refused(ann, json.dumps({"type": "open", "deviceId": lock}), "offline")


@SUITE.check
def messages_that_are_none_are_bad(server):
    ann, device, *_ = home(server, "nonsense")
    bad = ["", "nonsense", "[]", "1", "{}", '"t"', '{"type":1}', '{"type":null}', '{"Type":"t"}', '{"type":"t"', '{"type":"t"} x']
    bad += ['{"type":"t","type":"t"}', '{"type":"t","deviceId":1}', '{"type":"t","userId":[]}', '{"type":"t","payload":}']
    bad += ['{"type":"t","payload":NaN}', "[" * 100_000, '\ufeff{"type":"t"}', '{"type":"\\ud800"}', '{"type":"t","payload":1,"payload":1}']
    bad += [b"", b"\x00\xff", FENCE.encode()]
    for number, message in enumerate(bad):
        if number % 15 == 0:
            # At most 20 messages a second of each connection.
            peer = connect(server, "nonsense")
        refused(peer, message, "bad_message")
    for message in bad[:5]:
        refused(device, message, "bad_message")
    silent(ann)


@SUITE.check
def too_many_messages_are_told_when_to_come_back(server):
    ann, other = connect(server, "ann of haste"), connect(server, "ann of haste")
    answers = []
    for _ in range(2000):
        ann.send(FENCE)
        answers.append(error(ann))
        if answers[-1]["code"] != "bad_message":
            break
    expect(len(answers) > 20, True, "twenty are answered")
    last = answers[-1]
    expect((sorted(last), last["code"]), (["code", "message", "retryAfterMs"], "rate_limited"), f"the error {last}")
    expect(type(last["retryAfterMs"]) is int and 1 <= last["retryAfterMs"] <= 1000, True, "the time to wait")
    silent(other)
    time.sleep(last["retryAfterMs"] / 1000)
    silent(ann)


@SUITE.check
def the_newer_connection_of_a_device_wins(server):
    ann, first, name, lock = home(server, "replacing")
    second = connect(server, "maker", lock)
    expect(first.closed(), (4001, "replaced"), "the end of the first")
    presence(ann, "offline", deviceId=lock)
    presence(ann, "online", deviceId=lock)
    ann.send_json({"type": "open", "deviceId": lock})
    expect(second.recv_json(), {"type": "open", "deviceId": lock, "userId": name})
    second.send('{"type":"done"}')
    expect(ann.recv_json(), {"type": "done", "deviceId": lock})
    second.close()
    presence(ann, "offline", deviceId=lock)
    silent(ann)


def claim(server, lock, rounds, ends):
    """Connects again and again as the device; notes how each connection ends, None for one that is still the device."""
    for _ in range(rounds):
        peer = connect(server, "maker", lock)
        try:
            silent(peer)
        except ConnectionClosed:
            pass
        ends.append(peer)


@SUITE.check
def one_of_those_who_race_for_a_device_gets_it(server):
    ann, device, name, lock = home(server, "racing")
    peers, rounds = [device], 10
    threads = [threading.Thread(target=claim, args=(server, lock, rounds, peers)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(len(peers), 4 * rounds + 1, "those that came")
    ann.send_json({"type": "who", "deviceId": lock})
    ends = []

    def follow(peer):
        try:
            expect(peer.recv_json()["type"], "who", "what the winner gets")
            ends.append("won")
        except ConnectionClosed as closed:
            ends.append((closed.rcvd.code, closed.rcvd.reason))

    threads = [threading.Thread(target=follow, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect((ends.count("won"), ends.count((4001, "replaced"))), (1, 4 * rounds), f"the ends {ends}")
    for _ in range(4 * rounds):
        presence(ann, "offline", deviceId=lock)
        presence(ann, "online", deviceId=lock)
    silent(ann)


@SUITE.check
def the_first_and_the_last_connection_of_a_user_are_told(server):
    ann, device, name, lock = home(server, "presence")
    grant(server, "bob of presence", lock)
    for _ in range(3):
        peers = [connect(server, "bob of presence") for _ in range(3)]
        silent(*peers)
        for peer in (device, ann):
            presence(peer, "online", userId="bob of presence")
        for peer in peers:
            silent(device, ann)
            peer.close()
        for peer in (device, ann):
            presence(peer, "offline", userId="bob of presence")


@SUITE.check
def racing_connections_of_a_user_are_told_in_turns(server):
    ann, device, name, lock = home(server, "turns")
    grant(server, "bob of turns", lock)

    def come_and_go():
        for _ in range(10):
            peer = connect(server, "bob of turns")
            silent(peer)
            peer.close()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + DEADLINE
    while json.loads(server.http("GET", "/healthz")[1])["clients"] > 2:
        expect(time.monotonic() < end, True, "all are gone in time")
        time.sleep(0.01)
    device.send(b"fence")
    turns = []
    while (message := device.recv_json())["type"] == "presence":
        turns.append((message["userId"], message["payload"]["status"]))
    both = [("bob of turns", "online"), ("bob of turns", "offline")]
    expect(turns, both * (len(turns) // 2), "the turns")
    expect(1 <= len(turns) // 2 <= 40, True, f"{len(turns)} turns")


@SUITE.check
def access_that_changes_counts_at_once(server):
    ann, device, name, lock = home(server, "access")
    eve = connect(server, "eve of access")
    silent(eve)
    for way in ["user", "device"]:
        grant(server, "eve of access", lock, invalidate=way)
        grant(server, name, invalidate=way)
        device.send('{"type":"news"}')
        expect(eve.recv_json(), {"type": "news", "deviceId": lock})
        refused(ann, json.dumps({"type": "open", "deviceId": lock}), "forbidden")
        grant(server, name, lock, invalidate=way)
        grant(server, "eve of access", invalidate=way)
        device.send('{"type":"news"}')
        expect(ann.recv_json(), {"type": "news", "deviceId": lock})
        silent(eve)


@SUITE.check
def bad_invalidations_are_refused(server):
    ann, device, name, lock = home(server, "refusals")
    expect(server.http("GET", "/invalidate?user=ann")[0], 405, "GET")
    expect(server.http("POST", "/invalidate")[0], 400, "nothing to invalidate")
    for text in ["", "nonsense", "[]", '{"ann":1}']:
        write(text)
        expect(server.http("POST", "/invalidate?user=ann")[0], 500, f"a file with {text!r}")
    # What was read before still counts.
    again = connect(server, name)
    silent(again)
    device.send('{"type":"news"}')
    for peer in (ann, again):
        expect(peer.recv_json(), {"type": "news", "deviceId": lock})
    write()


@SUITE.check
def names_may_be_any_text(server):
    for name in ["a b&c=d", "\u00e9\U0001f30d", "%41", '"quoted"', "x" * 1000, "\x00"]:
        ann, device, user, lock = home(server, name)
        ann.send_json({"type": "hi", "deviceId": lock})
        expect(device.recv_json(), {"type": "hi", "deviceId": lock, "userId": user})


@SUITE.check
def devices_come_back_after_the_end(server):
    ann, device, _, lock = home(server, "return")
    for _ in range(10):
        device.close()
        presence(ann, "offline", deviceId=lock)
        device = connect(server, "maker", lock)
        presence(ann, "online", deviceId=lock)
    device.send('{"type":"here"}')
    expect(re.sub(r"\s", "", ann.recv()), f'{{"type":"here","deviceId":"{lock}"}}'.replace(" ", ""))
