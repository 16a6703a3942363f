"""The processes of a soak: what was started, what descends from it, and how one of them is ended and no other."""

import ctypes
import os
import signal
import subprocess

PR_SET_CHILD_SUBREAPER = 36


class Wrong(Exception):
    """A promise was broken."""


def adopt_orphans():
    """Whoever loses its parent becomes a child of this process: nobody gets away."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot adopt orphans")


def stat(pid):
    """State and parent of a process; nothing where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return fields[0], int(fields[1])
    except (OSError, IndexError):
        return None


def descendants(root):
    """All processes below `root` that still run."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (seen := stat(name)) and seen[0] != "Z":
            children.setdefault(seen[1], []).append(int(name))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return sorted(found)


def bury_orphans(known):
    """Reaps processes that were adopted and have ended; those in `known` are somebody's to wait for."""
    for name in os.listdir("/proc"):
        if name.isdigit() and stat(int(name)) == ("Z", os.getpid()) and int(name) not in known:
            os.waitpid(int(name), os.WNOHANG)


def descends(pid, root):
    """Whether `pid` is below `root`; a chain of parents is short."""
    for _ in range(20):
        seen = stat(pid)
        if not seen:
            return False
        pid = seen[1]
        if pid == root:
            return True
    return False


def send(pid, number):
    """Signals a process of ours; a number that was given to another meanwhile is left alone."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not descends(pid, os.getpid()):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


class Program:
    """A program that is started, ends or is ended, and is started again; all that it says goes to a log."""

    def __init__(self, name, log, command):
        self.name, self.log, self.command = name, log, command
        self.process, self.begins, self.starts = None, 0, 0

    def start(self):
        """Starts it; answers itself."""
        self.begins = self.note(" ".join(self.command))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.starts += 1
        return self

    def note(self, line):
        """Writes a line of ours into its log; answers where."""
        with open(self.log, "ab") as log:
            begins = log.tell()
            log.write(f"--- {line}\n".encode())
            return begins

    @property
    def pid(self):
        return self.process.pid

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def status(self):
        """The status with which it ended."""
        return self.process.returncode

    def said(self):
        """What it has said since it was started."""
        with open(self.log, "rb") as log:
            log.seek(self.begins)
            return log.read().decode(errors="replace")

    def end(self, number, patience):
        """Signals it and waits; whether it ended in time."""
        if self.runs():
            self.process.send_signal(number)
        try:
            self.process.wait(patience)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
