#!/usr/bin/env python3
"""A swarm in a laboratory: one tracker, one seed, N peers, each behind an uplink of its own.

Run as root (`make swarm`). Everything happens in a mount, a network and a process namespace that this program makes:
when it ends, however it ends, the kernel takes the hosts, the links, the processes and the files with it.

The hosts hang on a bridge. What a host sends passes `tc tbf`; what it receives is not limited. For each scenario it
prints when each peer was complete, as a multiple of the lower bound

    max(F/u, F/d_min, N*F/(u + sum of u_i))

for F bytes from a seed with the goodput u to N peers with goodputs u_i; how often the seed sent the file, by the
counters of its interface; and what was asked for or received in vain.

The environment variable CASCADE_WITHOUT_MAPS, which exists for this program, keeps `cascade` from asking for maps.
"""

import argparse
import ctypes
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time

import report

ROOM = "/run/swarm"
PORT = 8888


def run(*command):
    """Runs a command that must succeed; answers its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"cannot run {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


# Hosts and links.


class Host:
    """A network namespace with one interface, whose uplink is slow."""

    def __init__(self, number, uplink):
        self.name, self.address = f"h{number}", f"10.77.{number // 200}.{number % 200 + 1}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"v{number}", "master", "hub", "up")
        run("ip", "-n", self.name, "address", "add", f"{self.address}/16", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        if uplink:
            shape = ["rate", f"{uplink}mbit", "burst", "16kb", "latency", "50ms"]
            run("tc", "-n", self.name, "qdisc", "add", "dev", "eth0", "root", "tbf", *shape)

    def command(self, *command):
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def sent(self):
        """Bytes that left through the uplink."""
        link = json.loads(run("ip", "-n", self.name, "-s", "-j", "link", "show", "eth0"))
        return link[0]["stats64"]["tx"]["bytes"]


SINK = """
import socket, sys, time
server = socket.create_server(("0.0.0.0", 9999))
print("ready", flush=True)
stream, _ = server.accept()
total, begin = len(stream.recv(1 << 16)), time.monotonic()
first = total
while (n := len(stream.recv(1 << 16))): total += n
print((total - first) / (time.monotonic() - begin), total, flush=True)
"""

SOURCE = """
import socket, sys, time
stream = socket.create_connection((sys.argv[1], 9999))
end = time.monotonic() + 5
while time.monotonic() < end: stream.sendall(bytes(1 << 16))
"""


def goodput(source, sink):
    """Bytes per second that one connection carries over an uplink, and bytes on the wire per byte of it."""
    before = source.sent()
    receiver = subprocess.Popen(sink.command(sys.executable, "-c", SINK), stdout=subprocess.PIPE, text=True)
    receiver.stdout.readline()
    run(*source.command(sys.executable, "-c", SOURCE, sink.address))
    rate, total = receiver.stdout.readline().split()
    receiver.wait()
    return float(rate), (source.sent() - before) / int(total)


# Peers.


class Peer:
    """A `cascade get` that goes on serving; its output is a file, except for the line that says it is complete."""

    def __init__(self, host, lab, environment):
        self.host, self.complete, self.killed, self.started = host, None, False, time.monotonic()
        directory = f"{ROOM}/{host.name}"
        os.mkdir(directory)
        self.log = f"{directory}.log"
        command = [lab.binary, "get", "-v", "--seed-for", "1h", "-t", f"{lab.tracker}:{PORT}"]
        command += [*lab.options, "-l", f"{host.address}:{PORT}", "-d", directory, lab.cascade]
        self.process = subprocess.Popen(
            host.command(*command), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=open(self.log, "w"), start_new_session=True,
        )

    def figures(self):
        """What the peer said of its requests."""
        with open(self.log) as log:
            said = re.search(r": (\d+) requests, (\d+) in vain; (\d+) bytes received, (\d+) in vain", log.read())
        return [int(figure) for figure in said.groups()] if said else None


class Lab:
    """The laboratory, between two scenarios."""

    def __init__(self, options):
        self.options, self.seed_options = options.get_options, options.seed_options
        self.binary, self.size, self.block = os.path.abspath(options.binary), options.size << 20, options.block
        self.uplink, self.keep = options.uplink, options.logs
        self.hosts = []
        run("ip", "link", "add", "hub", "type", "bridge")
        run("ip", "link", "set", "hub", "up")
        self.cascade = f"{ROOM}/data.cascade"
        with open(f"{ROOM}/data", "wb") as data:
            for _ in range(options.size):
                data.write(os.urandom(1 << 20))
        run(self.binary, "create", "-b", str(self.block), f"{ROOM}/data")
        self.add_hosts(options.peers + 2)
        self.rate, self.overhead = goodput(self.hosts[1], self.hosts[2])
        self.tracker = self.hosts[0].address

    def add_hosts(self, count):
        while len(self.hosts) < count:
            # The first one runs the tracker, whose uplink is nobody's business.
            self.hosts.append(Host(len(self.hosts), self.uplink if self.hosts else None))

    def scenario(self, name, peers, goal, late=0, delay=0, kill=False, maps=True):
        """Runs a scenario and prints what became of it."""
        self.add_hosts(peers + 2)
        environment = {**os.environ, **({} if maps else {"CASCADE_WITHOUT_MAPS": "1"})}
        environment.pop("CASCADE_TRACKER", None)
        servers = [self.serve(self.hosts[0], "tracker", "--open", "-l", str(PORT))]
        seed = self.hosts[1]
        servers.append(self.serve(seed, "peer", *self.seed_options, "-t", f"{self.tracker}:{PORT}", "-l", str(PORT), self.cascade))
        time.sleep(1)
        before, begin = seed.sent(), time.monotonic()
        swarm = [Peer(host, self, environment) for host in self.hosts[2 : 2 + peers - late]]
        waiting = self.hosts[2 + peers - late : 2 + peers]
        seed_sent = self.watch(swarm, waiting, begin, delay, kill, environment, seed)
        result = report.Result(name, goal, self.bound(peers, late, delay, kill))
        result.copies = (seed_sent - before) / self.overhead / self.size
        result.add(swarm, begin)
        self.end(servers + [peer.process for peer in swarm], name, swarm)
        return result

    def bound(self, peers, late, delay, kill):
        """The lower bound for the last of those that live. Here d_min is no limit, and all uplinks are the same. Who is
        late has nothing at `delay`, and the others no more than the seed can have sent by then; what is left to send
        after that, the seed and all peers send together."""
        peers -= kill
        copy = self.size / self.rate
        left = (peers - late) * max(copy - delay, 0) + late * copy
        return max(copy, delay + left / (1 + peers))

    def serve(self, host, *arguments):
        server = subprocess.Popen(
            host.command(self.binary, *arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )
        server.stdout.readline()
        return server

    def watch(self, swarm, waiting, begin, delay, kill, environment, seed):
        """Waits until all are complete; answers what the seed had sent by then."""
        ready = selectors.DefaultSelector()
        for peer in swarm:
            ready.register(peer.process.stdout, selectors.EVENT_READ, peer)
        limit = begin + 10 * (self.size / self.rate) + 60
        victim_at = begin + 0.4 * self.size / self.rate
        while waiting or any(peer.complete is None and not peer.killed for peer in swarm):
            for key, _ in ready.select(0.1):
                key.data.complete = time.monotonic()
                if not key.fileobj.readline():
                    raise SystemExit(f"cannot go on: a peer ended; see {self.keep_logs('ended', swarm)}")
                ready.unregister(key.fileobj)
            now = time.monotonic()
            if waiting and now >= begin + delay:
                late = [Peer(host, self, environment) for host in waiting]
                for peer in late:
                    ready.register(peer.process.stdout, selectors.EVENT_READ, peer)
                swarm.extend(late)
                waiting = []
            if kill and now >= victim_at:
                # Nobody gets a chance to say farewell.
                swarm[0].killed, kill = True, False
                ready.unregister(swarm[0].process.stdout)
                swarm[0].process.kill()
            if now > limit:
                break
        return seed.sent()

    def end(self, processes, name, swarm):
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            process.stdout.close()
        self.keep_logs(name, swarm)
        for peer in swarm:
            run("rm", "-rf", f"{ROOM}/{peer.host.name}", peer.log)

    def keep_logs(self, name, swarm):
        if self.keep:
            os.makedirs(f"{self.keep}/{name}", exist_ok=True)
            run("cp", *[peer.log for peer in swarm], f"{self.keep}/{name}/")
        return self.keep


# The room: namespaces that end with this program.


def enter(arguments):
    """Runs this program again in namespaces of its own, and ends them with itself."""
    if os.geteuid() != 0:
        raise SystemExit("cannot make network namespaces: this needs root")
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    die_with_parent = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    room = subprocess.Popen([*command, sys.executable, __file__, "--inside", *arguments], preexec_fn=die_with_parent)

    def end(number, _):
        room.kill()
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    raise SystemExit(room.wait())


def parse():
    parser = argparse.ArgumentParser(description="a swarm behind slow uplinks, against the lower bound")
    parser.add_argument("--binary", required=True, help="the cascade to be tried")
    parser.add_argument("--size", type=int, default=256, help="MiB (256)")
    parser.add_argument("--block", type=int, default=256 << 10, help="bytes (256 KiB)")
    parser.add_argument("--uplink", type=int, default=40, help="Mbit/s of each host (40)")
    parser.add_argument("--peers", type=int, default=8, help="peers in the usual swarm (8)")
    parser.add_argument("--only", default="", help="scenarios, by comma: map, plain, churn, large")
    parser.add_argument("--runs", type=int, default=1, help="how often each scenario is run")
    parser.add_argument("--logs", help="a directory for the logs of the peers")
    parser.add_argument("--svg", help="draw the completion times into this file")
    parser.add_argument("--get-options", type=str.split, default=[], help="options for cascade get")
    parser.add_argument("--seed-options", type=str.split, default=[], help="options for the seed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse()
    if not options.inside:
        enter(sys.argv[1:])
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.makedirs(ROOM)
    lab = Lab(options)
    n, bound = options.peers, lab.size / lab.rate
    print(f"{options.size} MiB in blocks of {options.block >> 10} KiB; uplinks of {options.uplink} Mbit/s,"
          f" goodput {lab.rate * 8e-6:.1f} Mbit/s; a copy takes {bound:.1f} s", flush=True)
    scenarios = {
        "map": dict(peers=n, goal=1.15),
        "plain": dict(peers=n, goal=1.5, maps=False),
        "churn": dict(peers=n, goal=1.3, late=n // 2, delay=bound / 2, kill=True),
        "large": dict(peers=2 * n, goal=1.15),
    }
    chosen = options.only.split(",") if options.only else list(scenarios)
    results = [lab.scenario(name, **scenarios[name]) for name in chosen for _ in range(options.runs)
               if report.announce(name)]
    for result in results:
        result.show_line()
    if options.svg:
        report.draw(results, options.svg)
    return 0 if all(result.holds() for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
