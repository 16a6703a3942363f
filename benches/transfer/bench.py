#!/usr/bin/env python3
"""How fast a file gets from one peer to another, and what it costs, beside other programs and a floor.

Every figure is the median of rounds in which all take their turns, and every ratio the median of the ratios within a
round: the speed of a machine changes, and what disturbs one disturbs all. Data lie in memory (/dev/shm), so that no
disk is measured. The floor (benches/floor) is a program that does the same work with nothing around it. Programs that
are not installed are named and left out; on Debian: python3-libtorrent aria2 nginx-light curl openssl rsync.
"""

import argparse
import hashlib
import os
import platform
import socket
import sys
import tempfile

import others
from measure import Missing, Server, median, memory, peak, quietly, ratio, timed, wall

MIB = 1 << 20
# The blocks that are fetched on a connection each, of which more would take minutes.
EACH = 4000


class Bench:
    def __init__(self, options, room):
        self.options, self.room = options, room
        self.cascade, self.floor = os.path.abspath(options.binary), os.path.abspath(options.floor)
        self.rows, self.failed = [], False

    def path(self, name):
        return f"{self.room}/{name}"

    def make(self, name, mib, block):
        """A file of random bytes and its cascade file."""
        with open(self.path(name), "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        quietly(self.cascade, "create", "-b", str(block), self.path(name))

    def peer(self, name):
        return Server(self.cascade, "peer", "-l", "127.0.0.1:0", self.path(f"{name}.cascade"), says=True)

    def row(self, what, figure, wanted="", holds=True):
        self.rows.append((what, figure, wanted + ("" if holds else " — MISSED")))
        self.failed |= not holds
        print(f"  {what}: {figure}" + (f" (wanted: {wanted}{'' if holds else ', MISSED'})" if wanted else ""), flush=True)

    def rounds(self, runs):
        """Runs each of these in turn, round after round, so that each is the first as often as the others; answers the
        results of each."""
        results, names = {name: [] for name in runs}, list(runs)
        for index in range(self.options.rounds):
            first = index % len(names)
            for name in names[first:] + names[:first]:
                results[name].append(runs[name]())
        return results

    # One file, one peer.

    def by_floor(self, what="get"):
        cascade = self.path("data.cascade")
        server = Server(self.floor, "serve", self.path("data"), cascade, "2", says=True)
        output = others.fresh(self.path("out"))
        return timed(server, [self.floor, what, server.line, cascade, output], asked=False)

    def by_cascade(self, name="data"):
        server = self.peer(name)
        output = others.fresh(self.path("out"))
        command = [self.cascade, "get", "-p", server.line.split()[-1], "-o", output, self.path(f"{name}.cascade")]
        return timed(server, command)

    def transfer(self):
        runs = {
            "the floor": self.by_floor,
            "the floor, without the hash of the whole file": lambda: self.by_floor("blocks"),
            "**cascade**": self.by_cascade,
        }
        for kind in others.ALL:
            try:
                other = kind(self.room)
                runs[other.name] = other.run
            except Missing as missing:
                print(f"  without {kind.name}: {missing} is not installed", flush=True)
        # Once for nothing: memory that the machine has not used for a while is slower.
        self.by_floor()
        results = self.rounds(runs)
        walls = {name: [wall for wall, _ in rounds] for name, rounds in results.items()}
        costs = {name: [cost for _, cost in rounds] for name, rounds in results.items()}
        own, floor = walls["**cascade**"], walls["the floor"]
        print(f"\n| {self.options.size} MiB in blocks of 1 MiB | MB/s | wall, over the floor | CPU s, both sides |")
        print("|---|---|---|---|")
        for name in runs:
            rate = self.options.size * MIB / 1e6 / median(walls[name])
            print(f"| {name} | {rate:.0f} | {ratio(walls[name], floor):.2f} | {median(costs[name]):.2f} |")
        print(flush=True)
        over = ratio(own, floor)
        self.row("wall time, over the floor's", f"{over:.2f}", "at most 1.15", over <= 1.15)
        over = ratio(costs["**cascade**"], costs["the floor"])
        self.row("CPU time of both sides, over the floor's", f"{over:.2f}", "at most 1.2", over <= 1.2)
        for kind, wanted in ((others.Libtorrent, 1.5), (others.Aria2, 1.5), (others.Curl, 1.0), (others.Rsync, None)):
            if kind.name in walls:
                times = ratio(walls[kind.name], own)
                goal = f"at least {wanted}" if wanted else ""
                self.row(f"times as fast as {kind.name}", f"{times:.2f}", goal, times >= (wanted or 0))

    def memory_of_get(self):
        server = self.peer("data")
        address, cascade = server.line.split()[-1], self.path("data.cascade")
        command = [self.cascade, "get", "-w", "4", "-p", address, "-o", others.fresh(self.path("out")), cascade]
        most = peak(*command) / 1024
        server.stop()
        self.row("memory of `get -w 4`, PSS of all its processes", f"{most:.1f} MiB", "below 64 MiB + 4 × 4 MiB", most < 80)

    # Small blocks.

    def small_blocks(self):
        mib = 100
        self.make("small", mib, 1024)

        def each():
            server = self.peer("small")
            address = server.line.split()[-1]
            output = others.fresh(self.path("out"))
            command = [self.floor, "each", address, self.path("small.cascade"), output, str(EACH)]
            return timed(server, command)[0] * mib * 1024 / EACH

        results = self.rounds({"ahead": lambda: self.by_cascade("small")[0], "each": each})
        rate = mib * MIB / 1e6 / median(results["ahead"])
        self.row(f"{mib} MiB in blocks of 1 KiB", f"{rate:.0f} MB/s", "at least 100 MB/s", rate >= 100)
        times = ratio(results["each"], results["ahead"])
        self.row("times as fast as a connection for each block", f"{times:.0f}", "at least 20", times >= 20)
        os.unlink(self.path("small"))

    # Hashing and starting.

    def hashing(self):
        cores, data = len(os.sched_getaffinity(0)), self.path("data")
        size = os.path.getsize(data)
        hashed = lambda threads: int(quietly(self.floor, "hash", str(threads), str(size))) / 1e9
        results = self.rounds({
            "one": lambda: hashed(1),
            "create": lambda: wall(self.cascade, "create", "-f", "-o", self.path("again.cascade"), data),
            "all": lambda: hashed(cores),
            "verify": lambda: wall(self.cascade, "verify", self.path("data.cascade")),
        })
        self.row("SHA-256 of one core", f"{size / 1e9 / median(results['one']):.2f} GB/s")
        part = ratio(results["all"], results["verify"])
        self.row(f"`verify`, over the SHA-256 rate of {cores} cores", f"{part:.2f}", "at least 0.9", part >= 0.9)
        part = ratio(results["one"], results["create"])
        self.row("`create`, over the SHA-256 rate of one core", f"{part:.2f}", "at least 0.9", part >= 0.9)

    def sparse(self):
        with open(self.path("sparse"), "wb") as file:
            file.truncate(self.options.sparse << 30)
        most = peak(self.cascade, "create", "-f", self.path("sparse")) / 1024
        self.row(f"memory of `create`, a sparse file of {self.options.sparse} GiB", f"{most:.1f} MiB", "below 32 MiB", most < 32)
        os.unlink(self.path("sparse"))

    def start_up(self):
        with open(self.path("tiny"), "w") as file:
            file.write("tiny\n")
        quietly(self.cascade, "create", self.path("tiny"))

        def many(*command):
            return lambda: sum(wall(*command) for _ in range(40))

        results = self.rounds({"true": many("/bin/true"), "info": many(self.cascade, "info", self.path("tiny.cascade"))})
        times = ratio(results["info"], results["true"])
        self.row("`cascade info`, over `/bin/true`", f"{times:.2f}", "at most 3", times <= 3)

    # A server under load.

    def load(self, clients):
        server = self.peer("data")
        address = server.line.split()[-1]
        output = quietly(self.floor, "load", address, self.path("data.cascade"), str(clients), "2000")
        server.stop()
        return [int(line) for line in output.split()]

    def under_load(self):
        results = self.rounds({"one": lambda: self.load(1), "many": lambda: self.load(64)})
        totals = {name: [sum(clients) for clients in rounds] for name, rounds in results.items()}
        part = ratio(totals["many"], totals["one"])
        self.row("64 clients together, over one alone", f"{part:.2f}", "at least 0.9", part >= 0.9)
        spread = median([max(clients) / max(min(clients), 1) for clients in results["many"]])
        self.row("the most that one of 64 gets, over the least", f"{spread:.2f}", "at most 2", spread <= 2)

    def idle(self, count=1000):
        server = self.peer("tiny")
        host, port = server.line.split()[-1].split(":")
        with open(self.path("tiny.cascade"), "rb") as file:
            name = hashlib.sha256(file.read()).digest()
        request = b"CASCADE1" + bytes(24) + name
        before, clients = memory(server.pid)[0], []
        try:
            for _ in range(count):
                client = socket.create_connection((host, int(port)))
                client.sendall(request)
                clients.append(client)
            for client in clients:
                assert client.recv(64), "the server has closed a connection"
            after, processes = memory(server.pid)
        finally:
            for client in clients:
                client.close()
            server.stop()
        each = (after - before) / count
        self.row(f"{count} idle connections, PSS of each", f"{each:.0f} KiB", "below 150 KiB", each < 150 and processes > count)


def machine():
    model = "an unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) / MIB
    cores, kernel = len(os.sched_getaffinity(0)), platform.release()
    return f"{cores} cores of {model}, {total:.0f} GiB of memory, Linux {kernel}, load {os.getloadavg()[0]:.1f} before"


PARTS = {
    "transfer": Bench.transfer, "memory": Bench.memory_of_get, "small": Bench.small_blocks, "hashing": Bench.hashing,
    "sparse": Bench.sparse, "start": Bench.start_up, "load": Bench.under_load, "idle": Bench.idle,
}


def main():
    parser = argparse.ArgumentParser(description="transfers over loopback, side by side")
    parser.add_argument("--binary", required=True, help="the cascade to be tried")
    parser.add_argument("--floor", required=True, help="the program in benches/floor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file")
    parser.add_argument("--sparse", type=int, default=10, help="GiB of the sparse file")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    options = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as room:
        bench = Bench(options, room)
        parts = options.only.split(",")
        bench.make("data", options.size, MIB)
        if "idle" in parts and "start" not in parts:
            parts.insert(0, "start")
        for part in parts:
            print(f"{part}:", flush=True)
            PARTS[part](bench)
    print(f"\nMedians of {options.rounds} rounds, on {about}.\n")
    print("| | measured | wanted |\n|---|---|---|")
    for row in bench.rows:
        print(f"| {' | '.join(row)} |")
    return int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
