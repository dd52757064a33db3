"""JSON events: the example `events`."""

import json
import re
import threading
import time

import wire
from harness import Suite, expect

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MAX_ROOMS = 1000
MAX_MESSAGE = 512 * 1024
PING = '{"type":"ping"}'


def connect(server):
    """A client that has been welcomed."""
    peer = server.connect("/ws")
    peer.id = event(peer, "connection.established")["clientId"]
    return peer


def event(peer, kind):
    """The data of the next event, which must be of this type and made now."""
    message = peer.recv_json()
    expect(sorted(message), ["data", "timestamp", "type"], "the fields")
    expect(message["type"], kind, f"the type of {message}")
    stamp = message["timestamp"]
    if type(stamp) is not int or abs(stamp - time.time()) > 60:
        raise AssertionError(f"the timestamp {stamp!r}")
    return message["data"]


def ask(peer, message, kind):
    """Sends text, bytes, or an object as JSON; the data of the answer."""
    peer.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
    return event(peer, kind)


def refused(peer, message, code):
    """The message is answered with an error, and the connection stays."""
    data = ask(peer, message, "error")
    expect(sorted(data), ["code", "message"], "the fields of the error")
    expect(data["code"], code, f"the code for {message!r:.100} ({data['message']})")
    if not data["message"] or len(data["message"]) > 300:
        raise AssertionError(f"the text {data['message']!r:.400}")
    silent(peer)


def silent(*peers):
    """Nothing has come for them: the next event is the answer to a ping."""
    for peer in peers:
        ask(peer, PING, "pong")


def subscribe(room, *peers):
    for peer in peers:
        expect(ask(peer, {"type": "subscribe", "room": room}, "subscribed"), {"room": room})


def publish(peer, room, data):
    peer.send_json({"type": "publish", "room": room, "data": data})


SUITE = Suite("events", new_peer=connect)
wire.add_to(SUITE, "/ws", PING, lambda message: json.loads(message)["type"] == "pong", MAX_MESSAGE)


@SUITE.check
def clients_are_welcomed_with_ids_of_their_own(server):
    ids = {connect(server).id for _ in range(5)}
    expect((len(ids), all(UUID4.fullmatch(i) for i in ids)), (5, True), f"the ids {ids}")


@SUITE.check
def members_hear_what_is_published_and_others_do_not(server):
    ann, bob, eve = (connect(server) for _ in range(3))
    subscribe("garden", ann, bob)
    subscribe("cellar", eve)
    publish(ann, "garden", {"text": "h\u00e9llo \U0001f30d"})
    for peer in (ann, bob):
        expect(event(peer, "message"), {"text": "h\u00e9llo \U0001f30d"})
    silent(ann, bob, eve)
    expect(ask(bob, {"type": "unsubscribe", "room": "garden"}, "unsubscribed"), {"room": "garden"})
    publish(ann, "garden", 2)
    expect(event(ann, "message"), 2)
    silent(bob)
    refused(bob, {"type": "publish", "room": "garden", "data": 3}, "not_subscribed")
    silent(ann)


@SUITE.check
def what_is_published_passes_byte_for_byte(server):
    peer = connect(server)
    subscribe("bytes", peer)
    for data in ['{"b": 1.50,  "a":[1e400,"\\u00e9\\/"]}', "null", "-0", '"\\ud83c\\udf0d"', "[" * 500 + "]" * 500]:
        peer.send(f'{{"type":"publish","room":"bytes","data": {data} }}')
        expect(re.fullmatch(r'\{"type":"message","data":(.*),"timestamp":\d+\}', peer.recv())[1], data)


@SUITE.check
def the_built_ins_answer(server):
    peer = connect(server)
    begin = int(time.time())
    stamp = ask(peer, ' {"x": [1], "type" : "ping"}\n', "pong")["timestamp"]
    expect(begin <= stamp <= time.time(), True, f"the time {stamp}")
    ask(peer, '{"type":"\\u0070ing"}', "pong")
    for _ in range(2):
        subscribe("a", peer)
    for room in ["a", "a", "never joined"]:
        expect(ask(peer, {"type": "unsubscribe", "room": room}, "unsubscribed"), {"room": room})
    for name in ["ann", "b\u00e9a"]:
        login = {"type": "authenticate", "token": f"user:{name}", "userId": "root"}
        expect(ask(peer, login, "authenticated"), {"userId": name, "status": "success"})


@SUITE.check
def requests_that_are_no_events_are_bad(server):
    peer = connect(server)
    for text in [
        "",
        "nonsense",
        "[]",
        "1",
        "null",
        '"ping"',
        "{}",
        '["ping"]',
        "{'type':'ping'}",
        '{"type":"ping"',
        '{"type":"ping"} x',
    ]:
        refused(peer, text, "bad_request")
    for text in [
        '{"type":1}',
        '{"type":null}',
        '{"type":["ping"]}',
        '{"Type":"ping"}',
        '{"type":"ping","type":"ping"}',
    ]:
        refused(peer, text, "bad_request")
    for text in [
        '\ufeff{"type":"ping"}',
        '{"type":"\\ud800"}',
        '{"type":"pi\nng"}',
        '{"type":"ping","x":NaN}',
        "[" * 100_000,
    ]:
        refused(peer, text, "bad_request")
    for message in [b"", b"\x00\xff", PING.encode()]:
        refused(peer, message, "bad_request")


@SUITE.check
def fields_that_are_missing_or_of_the_wrong_type_are_bad(server):
    peer = connect(server)
    for kind in ["subscribe", "unsubscribe", "publish"]:
        for room in ["", ',"room":1', ',"room":null', ',"room":["a"]', ',"room":"a","room":"a"', ',"Room":"a"']:
            refused(peer, f'{{"type":"{kind}"{room}}}', "bad_request")
    for token in ["", ',"token":1', ',"token":null', ',"token":"user:a","token":"user:b"', ',"userId":"ann"']:
        refused(peer, f'{{"type":"authenticate"{token}}}', "bad_request")
    # Types of calls, without what a call or the answer to one has.
    for kind in ["call", "reply", "error"]:
        refused(peer, json.dumps({"type": kind}), "bad_request")
    subscribe("a", peer)
    refused(peer, '{"type":"publish","room":"a"}', "bad_request")


@SUITE.check
def every_other_refusal_has_its_code(server):
    peer = connect(server)
    for kind in ["", "PING", "ping ", "message", "pong", "connection.established", "x" * 100_000, "\x00"]:
        refused(peer, json.dumps({"type": kind}), "unknown_event")
    for token in ["", "user:", "ann", "USER:ann", "x" * 100_000]:
        refused(peer, {"type": "authenticate", "token": token}, "unauthorized")
    for room in ["private:", "private:safe"]:
        refused(peer, {"type": "subscribe", "room": room}, "forbidden")
        refused(peer, {"type": "publish", "room": room, "data": 1}, "not_subscribed")
    for room in ["", "x" * 257, "\u00e9" * 129]:
        refused(peer, {"type": "subscribe", "room": room}, "invalid_room")
    subscribe("x" * 256, peer)


@SUITE.check
def a_message_of_the_largest_size_is_read(server):
    peer = connect(server)
    text = '{"type":"ping","x":"%s"}'
    peer.send(text % ("y" * (MAX_MESSAGE - len(text) + 2)))
    event(peer, "pong")


@SUITE.check
def a_thousand_joins_are_answered_and_no_more(server):
    peer, batch = connect(server), 100
    for start in range(0, MAX_ROOMS, batch):
        rooms = [f"room {number}" for number in range(start, start + batch)]
        # A batch at a time: the server keeps 256 answers for a client that does not read.
        for room in rooms:
            peer.send_json({"type": "subscribe", "room": room})
        expect([event(peer, "subscribed")["room"] for _ in rooms], rooms)
    refused(peer, {"type": "subscribe", "room": "one more"}, "too_many_rooms")
    subscribe("room 7", peer)
    ask(peer, {"type": "unsubscribe", "room": "room 7"}, "unsubscribed")
    subscribe("one more", peer)


def race(server, turns, number):
    """Comes, publishes and goes, again and again; what it asks is answered in order."""
    peer = connect(server)
    heard = []

    def answer(kind):
        while True:
            message = peer.recv_json()
            if message["type"] != "message":
                return expect(message["type"], kind, f"the type of {message}")
            heard.append(message["data"])

    for turn in range(turns):
        peer.send_json({"type": "subscribe", "room": "race"})
        publish(peer, "race", [number, turn])
        peer.send_json({"type": "unsubscribe", "room": "race"})
        answer("subscribed")
        answer("unsubscribed")
        peer.send_json({"type": "ping"})
        answer("pong")
    return peer, heard


@SUITE.check
def racing_clients_hear_in_order_and_once(server):
    turns, results = 50, {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: race(server, turns, n)})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(sorted(results), [0, 1, 2, 3], "those that came to the end")
    for number, (_, heard) in results.items():
        for other in results:
            from_other = [turn for sender, turn in heard if sender == other]
            expect(from_other, sorted(set(from_other)), f"what {number} heard of {other}")
        expect([turn for sender, turn in heard if sender == number], list(range(turns)), "what one says oneself")
    peers = [peer for peer, _ in results.values()]
    subscribe("race", *peers)
    publish(peers[0], "race", "after")
    for peer in peers:
        expect(event(peer, "message"), "after")
    silent(*peers)


@SUITE.check
def who_comes_back_is_somebody_else(server):
    ann, bob = connect(server), connect(server)
    subscribe("home", ann, bob)
    before = bob.id
    bob.close()
    bob = connect(server)
    expect(bob.id != before, True, "a new id")
    publish(ann, "home", "to those who are in")
    expect(event(ann, "message"), "to those who are in")
    silent(bob)
    subscribe("home", bob)
    publish(bob, "home", "again")
    for peer in (ann, bob):
        expect(event(peer, "message"), "again")
