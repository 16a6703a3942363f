#!/usr/bin/env python3
"""One peer at a distance: how fast `get` is beside curl, by the time of the round trip.

Two network namespaces are joined by a link with a rate and a delay (link.py). In one of them a peer and a web server
have the same file, in the other curl and `get` fetch it in turns. Of each the median of the times counts. It prints the
ratio of the rates, and fails where one is below the bound. As root.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SERVER = "10.99.0.1"
WEB = 8000
BOUND = 0.85


def numbers(text):
    return [int(number) for number in text.split(",")]


def options():
    parser = argparse.ArgumentParser(description="get beside curl, by the round trip")
    parser.add_argument("--binary", required=True, help="the cascade to be tried")
    parser.add_argument("--mbit", type=float, default=100, help="rate of the link in Mbit/s")
    parser.add_argument("--mib", type=int, default=64, help="size of the file")
    parser.add_argument("--rtt", type=numbers, default=[0, 50, 100, 300, 600], help="round trips in ms")
    parser.add_argument("--block", type=numbers, default=[64, 1024], help="block sizes in KiB")
    parser.add_argument("--workers", default="1,default", help="values of -w")
    parser.add_argument("--times", type=int, default=5, help="how often each is measured")
    parser.add_argument("--mtu", type=int, default=1500, help="MTU of the link; more costs less processor time")
    return parser.parse_args()


class Lab:
    """The namespaces, and what runs in them for one round trip."""

    def __init__(self, room, binary, chosen, rtt):
        self.room, self.binary, self.chosen = room, binary, chosen
        self.names = [f"rtt{side}-{os.getpid()}" for side in "ab"]
        self.running = []
        for name in self.names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        rate = str(chosen.mbit * 1e6 / 8)
        link = [sys.executable, str(HERE / "link.py"), *self.names, rate, str(rtt / 1000), str(chosen.mtu)]
        # It stands for hardware: nothing else should keep it waiting.
        self.start(link, preexec_fn=lambda: os.nice(-15)).stdout.readline()
        self.start(
            self.inside(0, sys.executable, "-u", "-m", "http.server", "-b", SERVER, "-d", room, str(WEB)),
            stderr=subprocess.DEVNULL,
        ).stdout.readline()

    def inside(self, side, *command):
        return ["ip", "netns", "exec", self.names[side], *command]

    def start(self, command, **how):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how)
        self.running.append(process)
        return process

    def peer(self, cascade):
        """Starts a peer; answers where it is."""
        command = self.inside(0, self.binary, "peer", "-l", f"{SERVER}:0", cascade)
        return self.start(command, stderr=subprocess.DEVNULL).stdout.readline().split()[-1]

    def seconds(self, *command):
        """How long a command takes that leaves the file in `got`."""
        begin = time.monotonic()
        subprocess.run(self.inside(1, *command), check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - begin
        got = f"{self.room}/got"
        if os.path.getsize(got) != self.chosen.mib << 20:
            raise SystemExit(f"{command[0]} did not fetch the file")
        os.unlink(got)
        return took

    def close(self):
        for process in reversed(self.running):
            process.terminate()
            process.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=True)


def measure(lab, cascades):
    """Fetches in turns; answers the time of curl, and that of each of the others."""
    got, web = f"{lab.room}/got", f"http://{SERVER}:{WEB}/data"
    gets = {}
    for block, cascade in cascades.items():
        address = lab.peer(cascade)
        for workers in lab.chosen.workers.split(","):
            few = [] if workers == "default" else ["-w", workers]
            gets[block, workers] = [lab.binary, "get", "-q", "-p", address, *few, "-o", got, cascade]
    times = {key: [] for key in ("curl", *gets)}
    for _ in range(lab.chosen.times):
        times["curl"].append(lab.seconds("curl", "-sS", "-o", got, web))
        for key, get in gets.items():
            times[key].append(lab.seconds(*get))
    return {key: statistics.median(values) for key, values in times.items()}


def make_files(room, binary, chosen):
    """The data, and a cascade file for each size of block."""
    data = f"{room}/data"
    with open(data, "wb") as file:
        for _ in range(chosen.mib):
            file.write(os.urandom(1 << 20))
    cascades = {}
    for block in chosen.block:
        cascade = cascades[block] = f"{room}/{block}/data.cascade"
        os.mkdir(os.path.dirname(cascade))
        os.link(data, f"{room}/{block}/data")
        command = [binary, "create", "-b", str(block << 10), "-o", cascade, data]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return cascades


def main():
    chosen = options()
    binary = os.path.abspath(chosen.binary)
    missing = [tool for tool in ("ip", "curl") if not shutil.which(tool)]
    if missing or os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        raise SystemExit(f"this needs root, /dev/net/tun, ip and curl{' (missing: ' + ', '.join(missing) + ')' if missing else ''}")
    print(f"{chosen.mib} MiB from one peer at {chosen.mbit:g} Mbit/s; rate of get over that of curl, median of {chosen.times}")
    worst = float("inf")
    with tempfile.TemporaryDirectory() as room:
        cascades = make_files(room, binary, chosen)
        for rtt in chosen.rtt:
            lab = Lab(room, binary, chosen, rtt)
            try:
                times = measure(lab, cascades)
            finally:
                lab.close()
            curl = times.pop("curl")
            line = [f"{rtt:4} ms  curl {chosen.mib * 1.048576 / curl:5.1f} MB/s"]
            for (block, workers), seconds in times.items():
                worst = min(worst, curl / seconds)
                line.append(f"{block} KiB -w {workers}: {curl / seconds:.2f}")
            print("   ".join(line), flush=True)
    print(f"lowest: {worst:.2f} (at least {BOUND} is wanted)")
    return 0 if worst >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
