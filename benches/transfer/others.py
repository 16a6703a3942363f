"""Other programs that transfer a file over loopback: each as fast as its options make it."""

import hashlib
import os
import shutil
import sys

from measure import Missing, Server, quietly, timed

PORT = 18800
TORRENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torrent.py")
# Either may have libtorrent: this one, or the distribution's.
PYTHONS = [sys.executable, "/usr/bin/python3"]


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Missing(program)


def fresh(path):
    """What a program downloads to is new every time: nobody is spared the work by what is there."""
    for name in (path, f"{path}.part", f"{path}.aria2"):
        if os.path.exists(name):
            os.unlink(name)
    return path


class Nginx:
    """One file served by nginx, with sendfile and a worker for each core."""

    def __init__(self, room):
        need("nginx")
        self.room = room
        with open(f"{room}/nginx.conf", "w") as file:
            file.write(
                f"daemon off; user root; worker_processes auto; pid {room}/nginx.pid; error_log /dev/null;\n"
                "events { worker_connections 256; }\n"
                "http { access_log off; sendfile on; sendfile_max_chunk 2m; tcp_nopush on; "
                f"server {{ listen 127.0.0.1:{PORT}; root {room}; }} }}\n"
            )

    def start(self):
        return Server("nginx", "-c", f"{self.room}/nginx.conf", port=PORT)


class Curl:
    name = "curl from nginx, then `openssl dgst -sha256`"

    def __init__(self, room):
        need("curl", "openssl")
        self.room, self.nginx = room, Nginx(room)

    def run(self):
        output = fresh(f"{self.room}/out")
        return timed(
            self.nginx.start(),
            ["curl", "-sf", "-o", output, f"http://127.0.0.1:{PORT}/data"],
            ["openssl", "dgst", "-sha256", output],
        )


class Aria2:
    name = "aria2, metalink with SHA-256, from nginx"

    def __init__(self, room):
        need("aria2c")
        self.room, self.nginx = room, Nginx(room)
        whole, pieces = hashlib.sha256(), []
        with open(f"{room}/data", "rb") as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
                pieces.append(f"<hash>{hashlib.sha256(piece).hexdigest()}</hash>")
        with open(f"{room}/data.meta4", "w") as file:
            file.write(
                '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="out">'
                f"<size>{os.path.getsize(f'{room}/data')}</size>"
                f'<hash type="sha-256">{whole.hexdigest()}</hash>'
                f'<pieces length="{1 << 20}" type="sha-256">{"".join(pieces)}</pieces>'
                f"<url>http://127.0.0.1:{PORT}/data</url></file></metalink>"
            )

    def run(self):
        fresh(f"{self.room}/out")
        options = ["--no-conf", "-q", "-s4", "-x4", "--file-allocation=none", "--min-split-size=1M"]
        return timed(
            self.nginx.start(),
            ["aria2c", *options, "--disk-cache=64M", "-d", self.room, "-M", f"{self.room}/data.meta4"],
        )


class Rsync:
    name = "rsync from its daemon"

    def __init__(self, room):
        need("rsync")
        self.room = room
        with open(f"{room}/rsyncd.conf", "w") as file:
            file.write(f"use chroot = no\nuid = root\ngid = root\n[room]\npath = {room}\nread only = yes\n")

    def run(self):
        output = fresh(f"{self.room}/out")
        server = Server(
            "rsync", "--daemon", "--no-detach", f"--port={PORT + 1}", "--address=127.0.0.1",
            f"--config={self.room}/rsyncd.conf", port=PORT + 1,
        )
        return timed(server, ["rsync", "--whole-file", f"rsync://127.0.0.1:{PORT + 1}/room/data", output])


class Libtorrent:
    name = "libtorrent 2, tuned"

    def __init__(self, room):
        self.room, self.python = room, self.find_python()
        quietly(self.python, TORRENT, "create", room)

    def find_python(self):
        for python in PYTHONS:
            try:
                quietly(python, "-c", "import libtorrent")
                return python
            except (SystemExit, OSError):
                pass
        raise Missing("python3-libtorrent")

    def run(self):
        os.makedirs(f"{self.room}/torrent", exist_ok=True)
        fresh(f"{self.room}/torrent/data")
        server = Server(self.python, TORRENT, "seed", self.room, str(PORT + 2), says=True)
        return timed(server, [self.python, TORRENT, "get", self.room, str(PORT + 2)])


ALL = [Libtorrent, Aria2, Curl, Rsync]
