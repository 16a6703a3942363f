#!/usr/bin/env python3
"""A link between two network namespaces that has a rate and a delay: what tc-netem(8) does, where the kernel lacks it.

Each end is a tun device. Packets are read here, kept for the time that they need, and written at the other end. What does
not fit into the queue of a direction is dropped. As root.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000


class Direction:
    """What goes one way: packets with the time at which they arrive."""

    def __init__(self, source, target, rate, delay, longest):
        self.source, self.target = source, target
        self.rate, self.delay, self.longest = rate, delay, longest
        self.free, self.queue = 0.0, collections.deque()

    def take(self):
        """Reads what the source has sent."""
        for _ in range(64):
            try:
                packet = os.read(self.source, 65536)
            except BlockingIOError:
                return
            now = time.monotonic()
            begins = max(now, self.free)
            if begins - now > self.longest:
                continue
            self.free = begins + len(packet) / self.rate
            self.queue.append((self.free + self.delay, packet))

    def give(self):
        """Writes what has arrived; answers how long the next packet takes, if there is one."""
        while self.queue:
            left = self.queue[0][0] - time.monotonic()
            if left > 0:
                return left
            os.write(self.target, self.queue.popleft()[1])
        return None


def open_end(name, mtu, namespace, address):
    """Makes a tun device in a namespace; answers its descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    ip = ["ip", "-n", namespace]
    for command in (
        ["ip", "link", "set", name, "netns", namespace],
        [*ip, "link", "set", "lo", "up"],
        [*ip, "addr", "add", f"{address}/24", "dev", name],
        [*ip, "link", "set", name, "mtu", str(mtu), "txqueuelen", "10000", "up"],
    ):
        subprocess.run(command, check=True)
    return tun


def main():
    """Arguments: two namespaces, the rate in bytes a second, the round trip in seconds, the MTU. Prints a line when it is up."""
    one, other = sys.argv[1:3]
    rate, round_trip, mtu = float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
    ends = [
        open_end(f"rtt{number}-{os.getpid()}"[:15], mtu, namespace, f"10.99.0.{number + 1}")
        for number, namespace in enumerate((one, other))
    ]
    # As much waits at most as is under way: a common rule for the buffer of a router.
    longest = max(round_trip, 0.05)
    ways = [
        Direction(source, target, rate, round_trip / 2, longest)
        for source, target in (ends, reversed(ends))
    ]
    print("up", flush=True)
    while os.getppid() != 1:
        waits = [wait for way in ways if (wait := way.give()) is not None]
        readable, _, _ = select.select(ends, [], [], min(waits, default=1.0))
        for way in ways:
            if way.source in readable:
                way.take()


if __name__ == "__main__":
    main()
