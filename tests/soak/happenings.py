"""What happens to the network of a soak, one thing at a time."""

import hashlib
import os
import signal
import socket
import struct
import time

from world import Wrong, descendants, send

MIB = 1 << 20


class Happenings:
    """Of a soak. Each thing answers whether it happened."""

    def happen(self):
        """One thing, or none."""
        what = self.random.choice(
            [self.kill_anything] * 8
            + [self.pause_anything, self.kill_tracker, self.kill_peer, self.stop_peer, self.kill_get, self.stop_get]
            + [self.begin_anew, self.write_into_a_seed, self.mend_the_seed, self.fill_disk, self.empty_disk]
            + [self.tell_of_liars]
        )
        if what():
            self.happened[what.__name__] += 1
            self.write(what.__name__.replace("_", " "))

    def anything(self):
        """Some process of ours, be it a child's child."""
        return self.random.choice(descendants(os.getpid()) or [os.getpid()])

    def kill_anything(self):
        pid = self.anything()
        if any(pid == program.pid for program in self.programs if program.process):
            return False
        return send(pid, self.random.choice((signal.SIGKILL, signal.SIGTERM)))

    def pause_anything(self):
        pid = self.anything()
        if not send(pid, signal.SIGSTOP):
            return False
        time.sleep(self.random.uniform(0, 1))
        return send(pid, signal.SIGCONT)

    def kill_tracker(self):
        self.tracker.end(signal.SIGKILL, 5)
        time.sleep(self.random.uniform(0, 2))
        self.tracker.start()
        return True

    def some_peer(self):
        return self.random.choice(self.seeds + self.peers)

    def kill_peer(self):
        self.some_peer().end(signal.SIGKILL, 5)
        return True

    def stop_peer(self):
        """Asked to stop, it ends with status 0, or was killed before."""
        peer = self.some_peer()
        if not peer.runs():
            return False
        if not peer.end(signal.SIGTERM, 30):
            raise Wrong(f"{peer.name} does not stop when it is asked to")
        if peer.status() not in (0, -signal.SIGKILL):
            raise Wrong(f"{peer.name} was asked to stop and ended with {peer.status()}:\n{peer.said()}")
        return True

    def kill_get(self):
        return send(self.random.choice(self.gets).pid, signal.SIGKILL)

    def stop_get(self):
        return send(self.random.choice(self.gets).pid, signal.SIGTERM)

    def begin_anew(self):
        """A peer that lost its data, or a part."""
        peer = self.random.choice(self.peers)
        peer.end(signal.SIGKILL, 5)
        for name in os.listdir(peer.directory):
            path = os.path.join(peer.directory, name)
            if name.endswith(".part") and self.random.random() < 0.5:
                os.truncate(path, self.random.randrange(os.path.getsize(path) + 1))
            else:
                os.remove(path)
        return True

    def write_into_a_seed(self):
        """Under the peer that serves it; the other seed is left alone."""
        name = self.random.choice(list(self.files))
        with open(os.path.join(self.seeds[1].directory, name), "r+b") as file:
            for _ in range(self.random.randrange(1, 5)):
                file.seek(self.random.randrange(len(self.files[name])))
                file.write(self.random.randbytes(100))
            if self.random.random() < 0.3:
                file.truncate(self.random.randrange(len(self.files[name])))
        return True

    def mend_the_seed(self):
        for name, content in self.files.items():
            with open(os.path.join(self.seeds[1].directory, name), "r+b") as file:
                file.write(content)
                file.truncate()
        return True

    def fill_disk(self):
        if not self.disk:
            return False
        free = os.statvfs(self.disk)
        size = max(free.f_bavail * free.f_frsize - self.random.randrange(MIB), 0)
        with open(os.path.join(self.disk, "filler"), "ab") as file:
            try:
                file.write(bytes(size))
            except OSError:
                pass
        return True

    def empty_disk(self):
        if not self.disk or not os.path.exists(os.path.join(self.disk, "filler")):
            return False
        os.remove(os.path.join(self.disk, "filler"))
        return True

    def tell_of_liars(self):
        """They register with the tracker, as any peer does."""
        for cascade in self.cascades:
            with open(cascade, "rb") as file:
                digest = hashlib.sha256(file.read()).digest()
            for liar in self.liars:
                address = socket.inet_aton("127.0.0.1") + struct.pack(">H", liar.port)
                try:
                    with socket.create_connection(("127.0.0.1", self.tracker_port), timeout=2) as tracker:
                        tracker.sendall(b"CASC" + struct.pack(">III", 1, 2, 38) + digest + address)
                        tracker.recv(1)
                except OSError:
                    return False
        return True
