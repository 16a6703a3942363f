"""A peer that lies: it hands requests on to an honest one, and now and then flips a bit of what comes back, breaks off
or falls silent."""

import random
import select
import socket
import threading
import time

LONGEST = 30


class Liar:
    """Listens on a free port of 127.0.0.1 until it is closed."""

    def __init__(self, port_of_honest, seed):
        self.honest = port_of_honest
        self.random = random.Random(seed)
        self.lies = 0
        self.closed = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.settimeout(0.2)
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self):
        while not self.closed.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue
            seed = self.random.random()
            thread = threading.Thread(target=self.serve, args=(client, seed), daemon=True)
            thread.start()
            self.threads = [old for old in self.threads if old.is_alive()] + [thread]

    def serve(self, client, seed):
        """One connection: in both directions until one of them ends, or it has lasted long enough."""
        rng, end = random.Random(seed), time.monotonic() + LONGEST
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.honest), timeout=5)
            except OSError:
                return
            with server:
                while not self.closed.is_set() and time.monotonic() < end:
                    ready, _, _ = select.select([client, server], [], [], 0.2)
                    for source in ready:
                        try:
                            if not self.move(source, client, server, rng):
                                return
                        except OSError:
                            return

    def move(self, source, client, server, rng):
        """Hands some bytes on; answers whether the connection goes on."""
        part = bytearray(source.recv(1 << 14))
        if not part:
            return False
        if source is client:
            server.sendall(part)
            return True
        mood = rng.random()
        if mood < 0.02:
            return False
        if mood < 0.03:
            self.closed.wait(rng.uniform(0, 3))
        elif mood < 0.10:
            part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
            self.lies += 1
        client.sendall(part)
        return True

    def close(self):
        self.closed.set()
        self.listener.close()
        for thread in self.threads:
            thread.join(10)
