"""Stand-ins of strangers: peers that are worth nothing, trackers that lie, and what they saw of those that came."""

import os
import random
import selectors
import socket
import struct
import threading
import time

REQUEST = 64
BACKLOG = 128


def record(address, good=0):
    host, port = address
    return socket.inet_aton(host) + struct.pack(">HIBB", port, int(time.time()), good, 0)


def subscribe(tracker, digest, peer, source=None):
    """Registers a peer, from an address."""
    with socket.socket() as client:
        if source:
            client.bind((source, 0))
        client.settimeout(10)
        client.connect(tracker)
        client.sendall(b"CASC" + struct.pack(">III", 1, 2, 38) + digest + socket.inet_aton(peer[0]) + struct.pack(">H", peer[1]))
        reply = b""
        while part := client.recv(4096):
            reply += part
    return reply[:1] == b"\0"


class Server:
    """Listens at addresses in a thread of its own; what is done with a connection is for the others to say."""

    def __init__(self, addresses, backlog=BACKLOG):
        self.accepted, self.addresses, self.open = 0, [], []
        self.selector = selectors.DefaultSelector()
        for address in addresses:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(backlog)
            listener.setblocking(False)
            self.addresses.append(listener.getsockname())
            self.selector.register(listener, selectors.EVENT_READ, None)
        self.stopped = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopped:
            for key, _ in self.selector.select(0.2):
                try:
                    self.ready(key)
                except OSError:
                    self.forget(key.fileobj)

    def ready(self, key):
        if key.data is None:
            conn, _ = key.fileobj.accept()
            self.accepted += 1
            conn.setblocking(False)
            self.selector.register(conn, selectors.EVENT_READ, bytearray())
        else:
            received = key.fileobj.recv(65536)
            if received:
                key.data.extend(received)
                self.received(key.fileobj, key.data)
            else:
                self.forget(key.fileobj)

    def received(self, conn, data):
        """Says nothing."""

    def forget(self, conn):
        self.selector.unregister(conn)
        conn.close()

    def stop(self):
        self.stopped = True
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


class Liar(Server):
    """Sends a wrong block for each request."""

    def __init__(self, addresses, block):
        self.body = os.urandom(block)
        super().__init__(addresses)

    def received(self, conn, data):
        while len(data) >= REQUEST:
            del data[:REQUEST]
            conn.setblocking(True)
            conn.sendall(b"\0" + struct.pack(">Q", len(self.body)) + self.body)
            conn.setblocking(False)


class Closer(Server):
    """Accepts, and closes at the first byte."""

    def received(self, conn, data):
        self.forget(conn)


class Tracker(Server):
    """Answers with some of its records, whatever the question is: at random, but those of `always` in each list."""

    def __init__(self, records, always=(), most=20):
        self.records, self.always, self.most = list(records), list(always), most
        super().__init__([("127.0.0.1", 0)])

    def received(self, conn, data):
        if len(data) < 54:
            return
        others = random.sample(self.records, min(len(self.records), self.most - len(self.always)))
        listed = [record(address) for address in self.always + others]
        random.shuffle(listed)
        body = b"".join(listed)
        conn.setblocking(True)
        conn.sendall(b"\0" + struct.pack(">I", len(body)) + body)
        self.forget(conn)


class Full:
    """Addresses that take no connection: their backlogs are full, and nobody accepts."""

    def __init__(self, hosts):
        self.sockets, self.addresses = [], []
        for host in hosts:
            listener = socket.socket()
            listener.bind((host, 0))
            listener.listen(0)
            self.addresses.append(listener.getsockname())
            self.sockets.append(listener)
            for _ in range(2):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
                self.sockets.append(client)

    def stop(self):
        for one in self.sockets:
            one.close()


def closed_ports(hosts):
    """Addresses at which nobody listens."""
    return [(host, 40000 + number % 20000) for number, host in enumerate(hosts)]


def hosts(count, first=1):
    """Addresses of this machine, each in a network of its own as far as that goes."""
    return [f"127.{first + number // 250}.{number % 250}.1" for number in range(count)]
