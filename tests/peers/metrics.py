"""What the example `chat` shows at /metrics, read with the official parser of Prometheus' text format."""

import http.client
import time

from harness import DEADLINE, Suite, expect
from prometheus_client.parser import text_string_to_metric_families

KINDS = {
    "wshub_adapter_connects": "counter",
    "wshub_adapter_disconnects": "counter",
    "wshub_adapter_dropped": "counter",
    "wshub_adapter_published": "counter",
    "wshub_adapter_received": "counter",
    "wshub_broadcast_duration_seconds": "histogram",
    "wshub_call_timeouts": "counter",
    "wshub_calls_pending": "gauge",
    "wshub_connections": "counter",
    "wshub_connections_active": "gauge",
    "wshub_errors": "counter",
    "wshub_handshakes_active": "gauge",
    "wshub_history_bytes": "gauge",
    "wshub_history_evictions": "counter",
    "wshub_history_gaps": "counter",
    "wshub_history_messages": "gauge",
    "wshub_history_rooms": "gauge",
    "wshub_late_replies": "counter",
    "wshub_members": "gauge",
    "wshub_message_latency_seconds": "histogram",
    "wshub_message_received_bytes": "counter",
    "wshub_message_sent_bytes": "counter",
    "wshub_messages_dropped": "counter",
    "wshub_messages_received": "counter",
    "wshub_messages_sent": "counter",
    "wshub_queue_bytes": "gauge",
    "wshub_queue_clients": "gauge",
    "wshub_queue_messages": "gauge",
    "wshub_room_joins": "counter",
    "wshub_room_leaves": "counter",
    "wshub_rooms_active": "gauge",
    "wshub_state_values": "gauge",
    "wshub_writer_threads": "gauge",
}


def peer(server):
    client = server.connect("/ws?name=ann")
    expect(client.recv_json()["type"], "welcome")
    return client


SUITE = Suite("chat", new_peer=peer)


def families(server):
    status, body = server.http("GET", "/metrics")
    expect(status, 200, "the status")
    return {family.name: family for family in text_string_to_metric_families(body)}


def samples(server):
    """Values by the sample's name and labels, buckets left out."""
    every = [sample for family in families(server).values() for sample in family.samples]
    return {(s.name, *s.labels.values()): s.value for s in every if not s.name.endswith("_bucket")}


def difference(before, after, name, *labels):
    return after.get((name, *labels), 0) - before.get((name, *labels), 0)


def say(client, room, text):
    client.send_json({"type": "message", "room": room, "text": text})
    return client.until(lambda m: '"type":"message"' in m)


@SUITE.check
def every_family_has_its_name_type_and_help(server):
    server.http("GET", "/nowhere")
    found = families(server)
    # A counter with labels shows once it has counted something.
    expect({n: f.type for n, f in found.items()} | {"wshub_errors": "counter"}, KINDS, "the families")
    expect([n for n, f in found.items() if not f.documentation.endswith(".")], [], "families without help")


@SUITE.check
def counters_match_what_was_sent(server):
    ann, bob = peer(server), peer(server)
    for client in (ann, bob):
        client.send_json({"type": "join", "room": "till"})
        client.until(lambda m: '"type":"joined"' in m)
        client.sync()
    # The list of rooms is sent a moment after it has changed.
    bob.until(lambda m: '"type":"room"' in m and '"name":"till"' in m and '"members":2' in m)
    before = settled(server)
    length = 0
    for text in ["one", "two", "drei\u00e9"]:
        length += len(f'{{"type": "message", "room": "till", "text": "{text}"}}'.encode())
        ann.send(f'{{"type": "message", "room": "till", "text": "{text}"}}')
        for client in (ann, bob):
            client.until(lambda m: '"type":"message"' in m)
    ann.send("not JSON")
    ann.until(lambda m: '"type":"error"' in m)
    ann.sync()
    after = samples(server)
    wanted = {
        "wshub_messages_received_total": 4,
        "wshub_message_received_bytes_total": length + len("not JSON"),
        "wshub_messages_sent_total": 3 * 2 + 1,
        "wshub_messages_dropped_total": 0,
        "wshub_message_latency_seconds_count": 4,
        "wshub_broadcast_duration_seconds_count": 3,
        "wshub_room_joins_total": 0,
    }
    expect({name: difference(before, after, name) for name in wanted}, wanted, "the counters")
    expect(difference(before, after, "wshub_errors_total", "message_handling"), 1, "errors of handlers")
    expect(after[("wshub_connections_active",)], 2, "connections")
    expect(after[("wshub_handshakes_active",)] >= 1, True, "the scrape itself is a handshake")
    expect(difference(before, after, "wshub_message_latency_seconds_sum") > 0, True, "time has passed")


def settled(server):
    """Samples, once nothing is sent any more: two scrapes with equal counts, half a second apart."""
    end = time.monotonic() + DEADLINE
    last = samples(server)
    while time.monotonic() < end:
        time.sleep(0.5)
        now = samples(server)
        if difference(last, now, "wshub_messages_sent_total") == 0:
            return now
        last = now
    raise AssertionError("something is sent all the time")


@SUITE.check
def buckets_add_up(server):
    client = peer(server)
    client.send_json({"type": "join", "room": "till"})
    say(client, "till", "x")
    client.sync()
    for name in ["wshub_message_latency_seconds", "wshub_broadcast_duration_seconds"]:
        family = families(server)[name]
        buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name.endswith("_bucket")]
        expect(buckets, sorted(buckets), f"the buckets of {name}")
        expect([v for _, v in buckets], sorted(v for _, v in buckets), f"the counts of {name}")
        count = next(s.value for s in family.samples if s.name.endswith("_count"))
        expect(buckets[-1], (float("inf"), count), f"the last bucket of {name}")
        expect(count > 0, True, f"{name} has counted")


@SUITE.check
def only_get_and_head_are_answered(server):
    for method, status in [("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405)]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
        connection.request(method, "/metrics")
        response = connection.getresponse()
        expect(response.status, status, method)
        if status == 200:
            expect(response.getheader("Content-Type"), "text/plain; version=0.0.4; charset=utf-8", "the type")
            expect(len(response.read()) > 0, method == "GET", f"whether {method} has a body")
        else:
            expect(response.getheader("Allow"), "GET, HEAD", "Allow")
        connection.close()
