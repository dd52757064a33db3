"""The example `centrifuge` as `centrifuge-python` sees it in both modes, and its HTTP API as `cent` sees it.

CENTRIFUGE_BIN names the example. Prints a line for each check and, at the end, how many passed and failed.
tests/sdk.sh prepares everything.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
import traceback

import cent
from centrifuge import Client, ClientEventHandler, ReplyError, SubscriptionEventHandler

# Seconds for one wait: far more than a slow machine needs.
DEADLINE = 30


def token(age=600, secret=b"secret", **claims):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims["exp"] = int(time.time()) + age
    text = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(hmac.new(secret, text, hashlib.sha256).digest())).decode()


class Server:
    def __init__(self, port=0):
        command = [os.environ["CENTRIFUGE_BIN"], "--addr", f"127.0.0.1:{port}"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE)
        line = self.child.stdout.readline().decode()
        self.port = int(re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)[1])
        self.url = f"ws://127.0.0.1:{self.port}/connection/websocket"
        self.api = cent.Client(f"http://127.0.0.1:{self.port}/api", api_key="test-api-key", timeout=DEADLINE)

    def stop(self):
        self.child.terminate()
        return self.child.wait(DEADLINE)


class Events(ClientEventHandler):
    def __init__(self):
        self.told = []


class SubEvents(SubscriptionEventHandler):
    def __init__(self):
        self.told = []

    def of(self, kind):
        return [context for name, context in self.told if name == kind]


def record(kinds, handler):
    def method(kind):
        async def tell(self, context):
            self.told.append((kind, context))

        return tell

    for kind in kinds:
        setattr(handler, f"on_{kind}", method(kind))


record(["connected", "connecting", "disconnected", "error", "subscribed", "unsubscribed", "publication"], Events)
record(["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"], SubEvents)


async def until(is_so, what):
    end = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < end, f"never: {what}"
        await asyncio.sleep(0.005)


async def failure(awaitable):
    try:
        await awaitable
    except ReplyError as error:
        return error.code
    raise AssertionError("no error")


class Mode:
    """JSON or protobuf."""

    def __init__(self, server, is_protobuf):
        self.server = server
        self.is_protobuf = is_protobuf
        self.name = "protobuf" if is_protobuf else "json"
        self.clients = []

    def client(self, **options):
        events = Events()
        it = Client(self.server.url, events=events, use_protobuf=self.is_protobuf, proxy=None, timeout=DEADLINE,
                    min_reconnect_delay=0.01, max_reconnect_delay=0.2, **options)
        self.clients.append(it)
        return it, events

    def pack(self, value):
        return json.dumps(value).encode() if self.is_protobuf else value

    def unpack(self, data):
        return json.loads(data) if self.is_protobuf else data

    def values(self, events):
        return [self.unpack(context.pub.data) for context in events.of("publication")]


async def every_method(mode):
    it, events = mode.client(token=token(sub="ann"))
    told = SubEvents()
    channel = f"methods_{mode.name}"
    sub = it.new_subscription(channel, events=told, join_leave=True)
    await it.connect()
    await sub.subscribe()
    await sub.ready(DEADLINE)
    for n in range(1, 4):
        await sub.publish(mode.pack({"n": n}))
    await until(lambda: len(told.of("publication")) == 3, "own publications")
    assert mode.values(told) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [context.pub.offset for context in told.of("publication")] == [1, 2, 3]
    history = await sub.history(limit=-1)
    assert [pub.offset for pub in history.publications] == [1, 2, 3] and history.offset == 3
    backwards = await sub.history(limit=1, reverse=True)
    assert [pub.offset for pub in backwards.publications] == [3]
    presence = await sub.presence()
    assert [info.user for info in presence.clients.values()] == ["ann"], presence
    stats = await sub.presence_stats()
    assert (stats.num_clients, stats.num_users) == (1, 1)
    result = await it.rpc("sum", mode.pack({"a": 1, "b": 2}))
    assert mode.unpack(result.data) == {"sum": 3}
    assert await failure(it.rpc("fail", mode.pack({}))) == 400
    assert await failure(it.rpc("nothing", mode.pack({}))) == 104
    await sub.unsubscribe()
    assert await failure(it.publish(channel, mode.pack(1))) == 103


async def tokens(mode):
    async def fetch():
        return token(sub="ann")

    old, _ = mode.client(token=token(age=-5, sub="ann"), get_token=fetch)
    await old.connect()
    await old.ready(DEADLINE)
    forged, events = mode.client(token=token(secret=b"guess", sub="ann"))
    await forged.connect()
    await until(lambda: any(kind == "disconnected" for kind, _ in events.told), "a forged token ends it")
    assert [context.code for kind, context in events.told if kind == "disconnected"] == [3500]
    channel = f"private:{mode.name}"

    async def fetch_sub(_):
        return token(sub="ann", channel=channel)

    told = SubEvents()
    sub = old.new_subscription(channel, events=told, get_token=fetch_sub)
    await sub.subscribe()
    await sub.ready(DEADLINE)


async def a_restart_in_the_middle(mode):
    own = Mode(Server(), mode.is_protobuf)
    it, events = own.client()
    told = SubEvents()
    sub = it.new_subscription("restart", events=told)
    await it.connect()
    await sub.subscribe()
    await sub.ready(DEADLINE)
    own.server.api.publish(cent.PublishRequest(channel="restart", data=1))
    await until(lambda: own.values(told) == [1], "the first")
    assert await asyncio.to_thread(own.server.stop) == 0
    own.server = Server(own.server.port)
    await until(lambda: len(told.of("subscribed")) == 2, "it is back")
    back = told.of("subscribed")[1]
    assert (back.was_recovering, back.recovered) == (True, False), "the history is another"
    own.server.api.publish(cent.PublishRequest(channel="restart", data=2))
    await until(lambda: own.values(told) == [1, 2], "what comes then")
    await it.disconnect()
    await asyncio.to_thread(own.server.stop)


async def the_http_api(mode):
    api, channel, user = mode.server.api, f"api_{mode.name}", f"user_{mode.name}"
    it, events = mode.client(token=token(sub=user))
    told = SubEvents()
    sub = it.new_subscription(channel, events=told)
    await it.connect()
    await sub.subscribe()
    await sub.ready(DEADLINE)
    request = cent.PublishRequest(channel=channel, data={"n": 1}, tags={"k": "v"}, idempotency_key="once")
    first, second = api.publish(request), api.publish(request)
    assert (first.offset, first.epoch) == (second.offset, second.epoch) == (1, first.epoch) and len(first.epoch) == 8
    live = api.publish(cent.PublishRequest(channel=channel, data="live", skip_history=True))
    assert live.offset == 0
    both = api.broadcast(cent.BroadcastRequest(channels=[channel, f"{channel}:2", ""], data={"n": 2}))
    codes = [answer.error and answer.error.code for answer in both.responses]
    assert codes == [None, None, 107] and both.responses[0].result.offset == 2, both
    await until(lambda: len(told.of("publication")) == 3, "three publications")
    assert mode.values(told) == [{"n": 1}, "live", {"n": 2}]
    assert told.of("publication")[0].pub.tags == {"k": "v"}
    history = api.history(cent.HistoryRequest(channel=channel, limit=10))
    assert [pub.offset for pub in history.publications] == [1, 2] and history.epoch == first.epoch
    since = cent.StreamPosition(offset=1, epoch=history.epoch)
    newer = api.history(cent.HistoryRequest(channel=channel, limit=10, since=since)).publications
    assert [p.data for p in newer] == [{"n": 2}]
    assert [info.user for info in api.presence(cent.PresenceRequest(channel=channel)).presence.values()] == [user]
    stats = api.presence_stats(cent.PresenceStatsRequest(channel=channel))
    assert (stats.num_clients, stats.num_users) == (1, 1)
    assert api.channels(cent.ChannelsRequest(pattern=f"api_{mode.name}")).channels[channel].num_clients == 1
    info = api.info(cent.InfoRequest())
    assert info.nodes[0].num_clients >= 1 and info.nodes[0].version.startswith("wshub ")
    api.history_remove(cent.HistoryRemoveRequest(channel=channel))
    left = api.history(cent.HistoryRequest(channel=channel, limit=10))
    assert (left.publications, left.offset, left.epoch) == ([], 2, history.epoch)
    for wrong, code in [
        (cent.HistoryRequest(channel=f"nohistory:{channel}", limit=1), 108),
        (cent.HistoryRequest(channel=channel, limit=1, since=cent.StreamPosition(offset=1, epoch="gone")), 112),
    ]:
        try:
            api.history(wrong)
            raise AssertionError(f"no error {code}")
        except cent.CentApiResponseError as error:
            assert error.code == code, error
    try:
        cent.Client(f"http://127.0.0.1:{mode.server.port}/api", api_key="test-api-kez").info(cent.InfoRequest())
        raise AssertionError("a wrong key")
    except cent.CentUnauthorizedError:
        pass
    api.subscribe(cent.SubscribeRequest(user=user, channel=f"{channel}:pushed"))
    await until(lambda: any(kind == "subscribed" for kind, _ in events.told), "a server-side subscription")
    api.unsubscribe(cent.UnsubscribeRequest(user=user, channel=channel))
    await until(lambda: told.of("unsubscribed"), "the end of the subscription")
    assert told.of("unsubscribed")[0].code == 2000
    api.disconnect(cent.DisconnectRequest(user=user, disconnect=cent.Disconnect(code=4500, reason="enough")))
    await until(lambda: any(kind == "disconnected" for kind, _ in events.told), "sent away")
    assert [context.code for kind, context in events.told if kind == "disconnected"] == [4500]


CHECKS = [every_method, tokens, a_restart_in_the_middle, the_http_api]


async def run(server):
    counts = {True: 0, False: 0}
    for check in CHECKS:
        for is_protobuf in (False, True):
            mode = Mode(server, is_protobuf)
            begin = time.monotonic()
            try:
                await asyncio.wait_for(check(mode), 4 * DEADLINE)
                print(f"ok      python {mode.name}: {check.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
                counts[True] += 1
            except Exception:
                print(f"FAILED  python {mode.name}: {check.__name__}\n{traceback.format_exc()}", flush=True)
                counts[False] += 1
            for client in mode.clients:
                await client.disconnect()
    return counts


def main():
    server = Server()
    counts = asyncio.run(run(server))
    server.stop()
    print(f"{counts[True]} passed, {counts[False]} failed", flush=True)
    return 1 if counts[False] or not counts[True] else 0


if __name__ == "__main__":
    sys.exit(main())
