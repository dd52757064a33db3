"""Devices and users that come and go."""

import json
import threading
import time

from harness import DEADLINE, expect
from relay_client import FENCE, connect, grant, home, presence, silent
from websockets.exceptions import ConnectionClosed

CHECKS = []


@CHECKS.append
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


@CHECKS.append
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
    # Presence reports a state: those who replace each other fast enough are not told one by one, but in turns.
    told = told_before_fence(ann)
    if len(told) % 2:
        told.append(ann.recv_json()["payload"]["status"])
    expect(0 < len(told) <= 8 * rounds, True, f"{len(told)} changes")
    expect(told, ["offline", "online"] * (len(told) // 2), "the changes")
    silent(ann)


def told_before_fence(peer):
    """The statuses that have come, up to the answer to a message that is refused."""
    peer.send(FENCE)
    told = []
    while (message := peer.recv_json())["type"] == "presence":
        told.append(message["payload"]["status"])
    expect(message["type"], "error", "the answer")
    return told


@CHECKS.append
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


@CHECKS.append
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


@CHECKS.append
def devices_come_back_after_the_end(server):
    ann, device, _, lock = home(server, "return")
    for _ in range(10):
        device.close()
        presence(ann, "offline", deviceId=lock)
        device = connect(server, "maker", lock)
        presence(ann, "online", deviceId=lock)
    device.send('{"type":"here"}')
    expect(ann.recv_json(), {"type": "here", "deviceId": lock})
