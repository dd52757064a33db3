"""Users and devices: the example `relay`."""

import json
import time

import relay_presence
import wire
from harness import Suite, expect
from raw import Raw
from relay_client import FENCE, access_file, connect, error, grant, home, presence, refused, silent, write

MAX_MESSAGE = 512 * 1024
SUITE = Suite("relay", "--access", access_file, new_peer=connect)
wire.add_to(SUITE, "/ws?user=wire", FENCE, lambda message: '"bad_message"' in message, MAX_MESSAGE)
for check in relay_presence.CHECKS:
    SUITE.check(check)


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
    for payload in [
        '{"b": 1.50,  "a":[1e400,"\\u00e9\\/"]}',
        "null",
        "-0",
        '""',
        "[" * 100 + "]" * 100,
        '"' + "x" * 400_000 + '"',
    ]:
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
def users_call_devices_and_get_their_answers(server):
    ann, device, name, lock = home(server, "calling")

    def call(peer, number, device_id):
        data = {"deviceId": device_id, "method": "open", "data": {"force": 1.50}}
        peer.send_json({"type": "call", "id": number, "method": "device", "data": data})

    def answered(peer, number, code):
        answer = peer.recv_json()
        expect((answer["type"], answer["id"], answer["data"]["code"]), ("error", number, code), f"{answer}")

    call(ann, "a-1", lock)
    asked = device.recv_json()
    expect((asked["type"], asked["method"], asked["data"]), ("call", "open", {"force": 1.5}), "the call")
    device.send_json({"type": "reply", "id": asked["id"], "data": {"open": True}})
    expect(ann.recv_json(), {"type": "reply", "id": "a-1", "data": {"open": True}}, "the answer")
    call(ann, 2, lock)
    refusal = {"code": "jammed", "message": "something is in the way"}
    device.send_json({"type": "error", "id": device.recv_json()["id"], "data": refusal})
    expect(ann.recv_json(), {"type": "error", "id": 2, "data": refusal}, "the refusal")
    # No answer: an error after five seconds. One that comes later reaches nobody.
    call(ann, 3, lock)
    asked = device.recv_json()
    began = time.monotonic()
    answered(ann, 3, "no_answer")
    expect(time.monotonic() - began > 4, True, "it was waited for")
    device.send_json({"type": "reply", "id": asked["id"], "data": "late"})
    silent(device, ann)
    # It goes while it is asked, and then it is not there.
    call(ann, 4, lock)
    device.recv_json()
    device.close()
    answers = [ann.recv_json(), ann.recv_json()]
    expect(sorted(answer["type"] for answer in answers), ["error", "presence"], f"{answers}")
    call(ann, 5, lock)
    answered(ann, 5, "no_answer")
    eve = connect(server, "eve of calling")
    call(eve, 6, lock)
    answered(eve, 6, "forbidden")
    silent(ann, eve)


@SUITE.check
def messages_that_are_none_are_bad(server):
    ann, device, *_ = home(server, "nonsense")
    bad = [
        "",
        "nonsense",
        "[]",
        "1",
        "{}",
        '"t"',
        '{"type":1}',
        '{"type":null}',
        '{"Type":"t"}',
        '{"type":"t"',
        '{"type":"t"} x',
    ]
    bad += [
        '{"type":"t","type":"t"}',
        '{"type":"t","deviceId":1}',
        '{"type":"t","userId":[]}',
        '{"type":"t","payload":}',
    ]
    bad += [
        '{"type":"t","payload":NaN}',
        "[" * 100_000,
        '\ufeff{"type":"t"}',
        '{"type":"\\ud800"}',
        '{"type":"t","payload":1,"payload":1}',
    ]
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
