#!/usr/bin/env python3
"""A network of peers on loopback to which things happen: a tracker, seeds, peers, downloads that begin again and again,
and a driver that kills children, workers, peers and the tracker at random, flips bits on the way, writes into a file
that is served, cuts what was downloaded, fills a disk, and starts again what it ended.

At any time what has its final name must be right. In the end every survivor's file must be complete and right; until
then a download that ends otherwise must have said what it could not do. Nothing may be left: no process, no mount.

The same seed makes the same decisions; what they meet depends on the machine.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from ends import Ends
from happenings import Happenings
from liar import Liar
from world import Program, Wrong, adopt_orphans, bury_orphans, descendants, send

KIB, MIB = 1 << 10, 1 << 20
# How long the network may take to be at peace when nothing happens any more.
PEACE = 120
# How a download may end by itself: done, an error, data missing.
ENDS = {0, 1, 3}


class Soak(Happenings):
    """The network, and what must hold of it."""

    def __init__(self, binary, room, seed, disk):
        self.binary, self.room, self.disk = binary, room, disk
        self.random = random.Random(seed)
        self.happened = collections.Counter()
        self.ended = Ends()
        self.programs = []
        self.begun, self.diary = time.monotonic(), []
        self.make_files()
        self.tracker_port = free_port()
        self.tracker = self.program(
            "tracker", ["tracker", "--open", "--state", self.path("peers"), "-l", f"127.0.0.1:{self.tracker_port}"]
        ).start()
        self.wait_for_tracker()
        self.seeds = [self.peer(name, []) for name in ("seed0", "seed1")]
        for peer in self.seeds:
            for file in self.files:
                shutil.copy(self.path(file), peer.directory)
            peer.start()
        self.liars = [Liar(peer.port, self.random.random()) for peer in self.seeds]
        limits = ([], ["--download-limit", "2MiB"], ["--upload-limit", "3MiB", "--model", "event"])
        self.peers = [self.peer(f"peer{number}", options).start() for number, options in enumerate(limits)]
        self.gets = [self.get(f"get{number}", self.path(f"get{number}")).start() for number in range(3)]
        if disk:
            self.on_disk = self.get("disk", disk)
            self.gets.append(self.on_disk.start())

    def path(self, name):
        return os.path.join(self.room, name)

    def write(self, event):
        """Into the diary."""
        self.diary.append(f"{time.monotonic() - self.begun:8.2f} {event}")

    def program(self, name, arguments):
        program = Program(name, self.path(f"{name}.log"), [self.binary, *arguments])
        self.programs.append(program)
        return program

    def make_files(self):
        """Three files of different sizes, and their cascade files."""
        self.files = {}
        for number in range(3):
            name = f"file{number}"
            content = self.random.randbytes(self.random.randrange(2 * MIB, 6 * MIB))
            with open(self.path(name), "wb") as file:
                file.write(content)
            block = self.random.choice((16 * KIB, 40_000, 128 * KIB))
            subprocess.run(
                [self.binary, "create", "-b", str(block), self.path(name)], check=True, stdout=subprocess.DEVNULL
            )
            self.files[name] = content
        self.cascades = [self.path(f"{name}.cascade") for name in self.files]

    def peer(self, name, options):
        """A peer with a directory and a port of its own."""
        directory, port = self.path(name), free_port()
        os.mkdir(directory)
        where = ["-t", f"127.0.0.1:{self.tracker_port}", "-l", f"127.0.0.1:{port}", "-d", directory]
        peer = self.program(name, ["peer", *where, *options, *self.cascades])
        peer.directory, peer.port = directory, port
        return peer

    def get(self, name, directory):
        """A download of all files, which gives up after a while, and knows a liar by name."""
        if not os.path.isdir(directory):
            os.mkdir(directory)
        where = ["-t", f"127.0.0.1:{self.tracker_port}", "-l", "127.0.0.1:0", "-d", directory, "--timeout", "8"]
        liar = self.random.choice(self.liars)
        get = self.program(name, ["get", *where, "-p", f"127.0.0.1:{liar.port}", *self.cascades])
        get.directory, get.pause = directory, 0
        return get

    def wait_for_tracker(self):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.tracker_port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Wrong("the tracker does not listen")

    def look(self):
        """Starts again what has ended, and checks what it left."""
        bury_orphans({program.pid for program in self.programs if program.process})
        if not self.tracker.runs():
            self.tracker.start()
        for peer in self.seeds + self.peers:
            if not peer.runs():
                if peer.status() not in (0, -signal.SIGKILL):
                    raise Wrong(f"{peer.name} ended with {peer.status()}:\n{peer.said()}")
                self.check_names(peer.directory, altered=peer is self.seeds[1])
                peer.start()
        for get in self.gets:
            if not get.runs() and time.monotonic() >= get.pause:
                self.check_get(get)
                get.start()

    def check_get(self, get):
        """A download that is done is right; one that is not has said why, and nothing wrong has a final name."""
        status = get.status()
        self.ended.note(status, get.said())
        get.note(f"ended with {status}")
        self.write(f"{get.name} ended with {status}")
        self.check_names(get.directory)
        if status == 0:
            for name in self.files:
                self.check_file(os.path.join(get.directory, name))
                os.remove(os.path.join(get.directory, name))
            return
        get.pause = time.monotonic() + 0.5
        if status in (-signal.SIGKILL, -signal.SIGTERM):
            return
        said = get.said()
        if status not in ENDS or "cascade: cannot " not in said or "panicked" in said:
            raise Wrong(f"{get.name} ended with {status} and did not say what it could not do:\n{said}")

    def check_names(self, directory, altered=False):
        for name in os.listdir(directory):
            if name in self.files and not altered:
                self.check_file(os.path.join(directory, name))

    def check_file(self, path):
        with open(path, "rb") as file:
            if file.read() != self.files[os.path.basename(path)]:
                raise Wrong(f"{path} has its final name and is wrong")

    def is_complete(self, peer):
        return all(os.path.exists(os.path.join(peer.directory, name)) for name in self.files)

    def make_peace(self):
        """Nothing happens any more: everybody must get there. Whoever gave a file up, and said so, may begin again."""
        self.empty_disk()
        self.mend_the_seed()
        waiting, end = list(self.peers) + list(self.gets), time.monotonic() + PEACE
        self.look()
        again = set()
        while waiting and time.monotonic() < end:
            time.sleep(0.2)
            if not self.tracker.runs():
                raise Wrong("the tracker ended though nothing happened")
            for program in list(waiting):
                if program in self.peers and self.is_complete(program):
                    waiting.remove(program)
                elif program in self.peers and program not in again and "cascade: cannot " in program.said():
                    again.add(program)
                    program.end(signal.SIGTERM, 30)
                    program.start()
                elif not program.runs() and program.status() == 0:
                    waiting.remove(program)
                elif not program.runs():
                    self.check_get(program)
                    program.start()
        if waiting:
            said = "\n".join(f"--- {program.name}:\n{program.said()[-4000:]}" for program in waiting)
            raise Wrong(f"not complete after {PEACE} s of peace: {[program.name for program in waiting]}\n{said}")
        for program in self.peers + self.gets:
            for name in self.files:
                self.check_file(os.path.join(program.directory, name))

    def keep_logs(self, directory):
        """All that was said, and when what happened."""
        os.makedirs(directory, exist_ok=True)
        for program in self.programs:
            shutil.copy(program.log, directory)
        with open(os.path.join(directory, "diary"), "w") as diary:
            diary.writelines(f"{line}\n" for line in self.diary)

    def close(self, in_order):
        """Ends everything; where that is in order, each is to end as it should, and nothing to be left."""
        for liar in getattr(self, "liars", []):
            liar.close()
        late = [program.name for program in self.programs if program.runs() and not program.end(signal.SIGTERM, 20)]
        left = descendants(os.getpid())
        for _ in range(50):
            bury_orphans(set())
            left = descendants(os.getpid())
            if not left:
                break
            time.sleep(0.1)
        for pid in left:
            send(pid, signal.SIGKILL)
        if in_order and (late or left):
            raise Wrong(f"not ended when asked to: {late}; left: {left}")
        statuses = {program.name: program.status() for program in self.programs if program not in self.gets}
        if in_order and any(statuses.values()):
            raise Wrong(f"asked to stop, they ended with {statuses}")


def free_port():
    """Below those that the system gives to clients: one of them could take it while its server is down."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            pass


def soak(binary, seconds, seed, disk, logs):
    """Runs for so long; answers whether all went well."""
    adopt_orphans()
    room = tempfile.mkdtemp(prefix="cascade-soak-")
    world, well = None, False
    try:
        world = Soak(binary, room, seed, disk)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(world.random.uniform(0.02, 0.3))
            world.happen()
            world.look()
        world.make_peace()
        well = True
    except Wrong as wrong:
        print(f"seed {seed}: {wrong}", file=sys.stderr)
    finally:
        if world:
            try:
                world.close(well)
            except Wrong as wrong:
                print(f"seed {seed}: {wrong}", file=sys.stderr)
                well = False
    if not world:
        return False
    lies = sum(liar.lies for liar in world.liars)
    things = ", ".join(f"{what.replace('_', ' ')} {count}" for what, count in sorted(world.happened.items()))
    print(f"seed {seed}: {'clean' if well else 'NOT CLEAN'}; downloads ended {world.ended.summary()}; {lies} bits flipped; {things}")
    for line in world.ended.lines():
        print(line)
    if logs:
        world.keep_logs(logs)
    if well:
        shutil.rmtree(room)
    else:
        print(f"the logs are in {room}", file=sys.stderr)
    return well


def main():
    parser = argparse.ArgumentParser(description="a network to which things happen")
    parser.add_argument("--binary", required=True, help="the cascade to be tried")
    parser.add_argument("--seconds", type=float, default=60, help="how long things happen")
    parser.add_argument("--seed", type=int, help="decides what happens; random, and printed, unless it is given")
    parser.add_argument("--logs", help="a directory for what all programs say; otherwise it is kept only where it is needed")
    parser.add_argument("--disk", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    binary = os.path.abspath(options.binary)
    if options.disk is None and os.geteuid() == 0:
        # The small disk is mounted in a namespace that ends with this process, whatever happens. So does its network:
        # downloads that are killed stay on the tracker's lists, and others of this machine may be given their ports.
        with tempfile.TemporaryDirectory(prefix="cascade-disk-") as disk:
            script = 'ip link set lo up && mount -t tmpfs -o size=20m none "$1" && shift && exec "$@"'
            again = [sys.executable, os.path.abspath(__file__), "--binary", binary]
            again += ["--seconds", str(options.seconds), "--seed", str(seed), "--disk", disk]
            again += ["--logs", options.logs] if options.logs else []
            return subprocess.run(["unshare", "-mn", "sh", "-c", script, "sh", disk, *again], check=False).returncode
    if options.disk is None:
        print("skipped: a full disk needs root", file=sys.stderr)
    print(f"seed {seed}: {options.seconds:g} s", flush=True)
    return 0 if soak(binary, options.seconds, seed, options.disk, options.logs) else 1


if __name__ == "__main__":
    sys.exit(main())
