"""Event streams through libraries that read in blocks of their own: `requests` and `sseclient-py`, against `feed`."""

import json

import requests
import sseclient
import urllib3

from feed import everyone, publish, websocket
from harness import DEADLINE, Suite, expect

SUITE = Suite("feed", new_peer=websocket)


def each_event_comes_before_the_next_is_sent(server, texts):
    """`texts` yields the data of events. Whoever waits for a block to be full would wait for ever here."""
    everyone(server, 1)
    for turn in range(20):
        publish(server, "turn", f"{turn}")
        event = json.loads(next(text for text in texts if '"turn"' in text))
        expect(event["payload"], turn, "the event")


def data_of(lines):
    for line in lines:
        if line.startswith("data: "):
            yield line[len("data: ") :]


@SUITE.check
def requests_iter_lines_gets_each_event_at_once(server):
    for size in [512, 1, 10_000]:
        with requests.get(f"http://127.0.0.1:{server.port}/events", stream=True, timeout=DEADLINE) as answer:
            lines = answer.iter_lines(chunk_size=size, decode_unicode=True)
            answer.encoding = "utf-8"
            each_event_comes_before_the_next_is_sent(server, data_of(lines))
        everyone(server, 0)


@SUITE.check
def requests_iter_lines_without_a_block_size_gets_each_event_at_once(server):
    with requests.get(f"http://127.0.0.1:{server.port}/events", stream=True, timeout=DEADLINE) as answer:
        answer.encoding = "utf-8"
        each_event_comes_before_the_next_is_sent(server, data_of(answer.iter_lines(None, decode_unicode=True)))
    everyone(server, 0)


@SUITE.check
def sseclient_over_requests_gets_each_event_at_once(server):
    with requests.get(f"http://127.0.0.1:{server.port}/events", stream=True, timeout=DEADLINE) as answer:
        events = sseclient.SSEClient(answer).events()
        each_event_comes_before_the_next_is_sent(server, (event.data for event in events))
    everyone(server, 0)


@SUITE.check
def sseclient_over_urllib3_gets_each_event_at_once(server):
    url = f"http://127.0.0.1:{server.port}/events"
    answer = urllib3.PoolManager().request("GET", url, preload_content=False, timeout=DEADLINE)
    events = sseclient.SSEClient(answer).events()
    each_event_comes_before_the_next_is_sent(server, (event.data for event in events))
    answer.close()
    everyone(server, 0)


@SUITE.check
def the_end_of_the_server_is_an_orderly_end(server):
    with requests.get(f"http://127.0.0.1:{server.port}/events", stream=True, timeout=DEADLINE) as answer:
        everyone(server, 1)
        expect(server.stop(), 0, "the exit status")
        # A body that is cut would raise `ChunkedEncodingError`.
        expect(answer.raw.read().rstrip().split(b"\n")[-1][:14], b": closed 1001 ", "the last comment")
    server.start()
