#!/usr/bin/env python3
"""What strangers cost: downloads among peers that are worth nothing, trackers that lie, and servers whose connections
are held. It prints a table of what was measured beside what is allowed, and fails where more than that was needed.

All of it is on loopback; each stranger has an address of its own in 127.0.0.0/8.
"""

import argparse
import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import strangers

MIB = 1 << 20
LIMIT = 90


class Lab:
    def __init__(self, binary):
        self.binary = os.path.abspath(binary)
        self.room = tempfile.mkdtemp(prefix="hostile.")
        self.count = 0
        self.data = f"{self.room}/data"
        with open(self.data, "wb") as file:
            file.write(os.urandom(8 * MIB))
        subprocess.run([self.binary, "create", "-b", "65536", self.data], check=True, stdout=subprocess.DEVNULL)
        self.cascade = f"{self.data}.cascade"
        with open(self.cascade, "rb") as file:
            self.digest = hashlib.sha256(file.read()).digest()
        self.seed, self.seed_address = self.serve("peer", self.cascade)

    def serve(self, command, *arguments, host="127.0.0.1"):
        server = subprocess.Popen([self.binary, command, "-l", f"{host}:0", *arguments],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        host, port = server.stdout.readline().split()[-1].rsplit(":", 1)
        return server, (host, int(port))

    def get(self, *arguments, seconds=LIMIT):
        """Downloads; returns how long that took, or nothing where it was not done in time, and how much was logged."""
        self.count += 1
        directory = f"{self.room}/{self.count}"
        os.makedirs(directory)
        begin = time.monotonic()
        with open(f"{directory}/log", "wb") as log:
            get = subprocess.Popen([self.binary, "get", *arguments, "-d", directory, self.cascade],
                                   stdout=subprocess.DEVNULL, stderr=log)
            try:
                done = get.wait(seconds) == 0
            except subprocess.TimeoutExpired:
                done = False
                end(get)
        took = time.monotonic() - begin
        logged = os.path.getsize(f"{directory}/log")
        shutil.rmtree(directory)
        return (took if done else None), logged

    def get_among(self, peers, always=True, most=200):
        """Downloads with a tracker that names these peers, and the seed."""
        tracker = strangers.Tracker(peers, [self.seed_address] if always else [], most)
        took, _ = self.get("-t", name(tracker.addresses[0]))
        tracker.stop()
        return took

    def close(self):
        end(self.seed)
        shutil.rmtree(self.room)


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def name(address):
    return f"{address[0]}:{address[1]}"


def stalling(lab, count):
    """Peers that accept and say nothing, each registered by itself, and the seed, at a tracker of ours."""
    silent = strangers.Server([(host, 0) for host in strangers.hosts(count)])
    tracker, address = lab.serve("tracker", "--open")
    seed, _ = lab.serve("peer", "-t", name(address), lab.cascade)
    for peer in silent.addresses:
        strangers.subscribe(address, lab.digest, peer, source=peer[0])
    took, _ = lab.get("-t", name(address))
    for process in (seed, tracker):
        end(process)
    silent.stop()
    return took


def stalling_in_lists(lab, count):
    """The same at a tracker that names twenty, the seed among them."""
    silent = strangers.Server([(host, 0) for host in strangers.hosts(count)])
    took = lab.get_among(silent.addresses, most=20)
    silent.stop()
    return took


def poisoned(lab, accept):
    """One address registers 4,096 of its choice at a tracker of ours, and the seed registers itself."""
    hosts = strangers.hosts(4096, first=64)
    silent = strangers.Server([(host, 0) for host in hosts], backlog=4) if accept else None
    foreign = silent.addresses if accept else strangers.closed_ports(hosts)
    tracker, address = lab.serve("tracker", "--open")
    seed, _ = lab.serve("peer", "-t", name(address), lab.cascade)
    for peer in foreign:
        strangers.subscribe(address, lab.digest, peer, source="127.0.0.9")
    took, _ = lab.get("-t", name(address))
    for process in (seed, tracker):
        end(process)
    if silent:
        silent.stop()
    return took


def hammering(lab):
    """A tracker that names all ports of one victim: how often that is connected to in 20 s, and how much is logged."""
    victim = strangers.Closer([("127.99.0.1", 10000 + port) for port in range(5461)], backlog=16)
    tracker = strangers.Tracker(victim.addresses, most=5461)
    _, logged = lab.get("-t", name(tracker.addresses[0]), seconds=20)
    tracker.stop()
    victim.stop()
    return victim.accepted, logged


def dead(lab, full):
    """300 addresses that refuse, or take no connection, in the lists of a tracker beside the seed."""
    hosts = strangers.hosts(300)
    blackholes = strangers.Full(hosts) if full else None
    peers = blackholes.addresses if full else strangers.closed_ports(hosts)
    took = lab.get_among(peers, most=20)
    if blackholes:
        blackholes.stop()
    return took


def lying(lab):
    """200 peers that send wrong blocks, and the seed."""
    liars = strangers.Liar([(host, 0) for host in strangers.hosts(200)], 65536)
    took = lab.get_among(liars.addresses, most=20)
    liars.stop()
    return took


def named_by_hand(lab):
    """4,000 addresses that take no connection, named by a tracker, beside a seed that the user names."""
    silent = strangers.Server([(host, 0) for host in strangers.hosts(4000)], backlog=4)
    tracker = strangers.Tracker(silent.addresses, most=200)
    took, _ = lab.get("-t", name(tracker.addresses[0]), "-p", name(lab.seed_address))
    tracker.stop()
    silent.stop()
    return took


def held(lab, command, *arguments):
    """4,096 connections that say nothing, held from 64 networks: how long nine of ten honest clients wait."""
    server, address = lab.serve(command, *arguments)
    connections = []
    for number in range(4096):
        client = socket.socket()
        client.bind((f"127.{10 + number % 64}.0.1", 0))
        client.setblocking(False)
        client.connect_ex(address)
        connections.append(client)
    time.sleep(1)
    waits = []
    for number in range(20):
        begin = time.monotonic()
        with socket.socket() as client:
            client.bind((f"127.200.{number}.1", 0))
            client.settimeout(30)
            try:
                client.connect(address)
                client.sendall(question(command, lab.digest))
                answered = client.recv(1)
            except OSError:
                answered = b""
        waits.append(time.monotonic() - begin if answered else 30.0)
    for client in connections:
        client.close()
    end(server)
    return sorted(waits)[17]


def question(command, digest):
    if command == "tracker":
        return b"CASC\0\0\0\1\0\0\0\1\0\0\0\x26" + digest + bytes(6)
    return b"CASCADE1" + bytes(24) + digest


def rows(lab):
    """What is measured, and what is allowed: seconds, but where it says otherwise."""
    alone, _ = lab.get("-p", name(lab.seed_address))
    yield "8 MiB from a seed alone", alone, 5, "s"
    yield "60 stalling peers and a seed, at a tracker", stalling(lab, 60), 10, "s"
    yield "1,000 stalling peers and a seed, at a tracker", stalling(lab, 1000), 10, "s"
    yield "60 stalling peers and a seed, in lists of 20", stalling_in_lists(lab, 60), 10, "s"
    yield "1,000 stalling peers and a seed, in lists of 20", stalling_in_lists(lab, 1000), 10, "s"
    yield "one source registers 4,096 that refuse", poisoned(lab, accept=False), 10, "s"
    yield "one source registers 4,096 that stall", poisoned(lab, accept=True), 10, "s"
    connects, logged = hammering(lab)
    yield "a tracker names one victim with 5,461 ports", connects, 400, "connects in 20 s"
    yield "what is logged meanwhile", logged, 65536, "bytes"
    yield "300 dead addresses that refuse", dead(lab, full=False), (alone or 0) + 3, "s"
    yield "300 dead addresses that take no connection", dead(lab, full=True), (alone or 0) + 3, "s"
    yield "200 peers that send wrong blocks", lying(lab), 5, "s"
    yield "4,000 silent peers beside a seed named by hand", named_by_hand(lab), (alone or 0) + 1, "s"
    yield "4,096 held connections: nine of ten at a peer", held(lab, "peer", lab.cascade), 5, "s"
    yield "4,096 held connections: nine of ten at a tracker", held(lab, "tracker", "--open"), 15, "s"


def main():
    parser = argparse.ArgumentParser(description="what strangers cost")
    parser.add_argument("--binary", required=True, help="the cascade to be tried")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    lab = Lab(parser.parse_args().binary)
    bad = 0
    try:
        print(f"{'what':52} {'measured':>10} {'allowed':>9}", flush=True)
        for what, measured, allowed, unit in rows(lab):
            wrong = measured is None or measured > allowed
            bad += wrong
            shown = "not done" if measured is None else f"{measured:.2f}" if unit == "s" else str(measured)
            print(f"{what:52} {shown:>10} {allowed:>9.5g} {unit}{'  TOO MUCH' if wrong else ''}", flush=True)
    finally:
        lab.close()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
