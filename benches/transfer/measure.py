"""What a run costs: wall time, processor time of everybody who takes part, and memory."""

import os
import resource
import statistics
import subprocess
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """A program to compare with is not installed."""


def family(pid):
    """A process and all that descend from it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
    except OSError:
        return []
    return [pid] + [member for child in children for member in family(child)]


def spent(pid):
    """Processor seconds of a family so far, with those of its dead that were reaped."""
    total = 0
    for member in family(pid):
        try:
            with open(f"/proc/{member}/stat") as file:
                total += sum(int(field) for field in file.read().rpartition(")")[2].split()[11:15])
        except OSError:
            pass
    return total / TICKS


def memory(pid):
    """The PSS of a family in KiB, and how many processes it has."""
    total, members = 0, family(pid)
    for member in members:
        try:
            with open(f"/proc/{member}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except OSError:
            pass
    return total, len(members)


def reaped():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Server:
    """A server that says a line when it is ready, or is ready when its port is."""

    def __init__(self, *command, says=False, port=None):
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE if says else subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        )
        self.pid = self.process.pid
        self.line = self.process.stdout.readline().strip() if says else ""
        if port:
            wait_for_port(port)

    def stop(self, asked=True):
        """Ends it, unless it ends by itself."""
        if asked:
            self.process.terminate()
        self.process.wait(timeout=60)


def wait_for_port(port):
    import socket

    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"nobody listens on port {port}")


def timed(server, *commands, asked=True):
    """Runs commands one after the other against a server, and ends it; answers wall and processor seconds, in which
    what the server did before is not counted."""
    before = reaped() + spent(server.pid)
    begin = time.monotonic()
    try:
        for command in commands:
            quietly(*command)
        wall = time.monotonic() - begin
    finally:
        server.stop(asked)
    return wall, reaped() - before


def quietly(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"cannot run {' '.join(command)}: {done.stdout[-2000:].strip()}")
    return done.stdout


def wall(*command):
    """Wall seconds of a command."""
    begin = time.monotonic()
    quietly(*command)
    return time.monotonic() - begin


def peak(*command):
    """The most memory, in KiB, that a command and its family had, by a look every few milliseconds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0

    def watch():
        nonlocal most
        while process.poll() is None:
            most = max(most, memory(process.pid)[0])
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    watcher.join()
    return most


def median(values):
    return statistics.median(values)


def ratio(these, those):
    """The median of the ratios, round by round: what disturbs a round disturbs both."""
    return median([this / that for this, that in zip(these, those)])
