#!/usr/bin/env python3
"""Whether --upload-limit and --download-limit hold over ten seconds, across processes, on loopback.

Others download a file from a seed. What they have is counted in their data files, block by block. It prints the rate
between the second and the twelfth second over the limit, and fails where that is more than 5 % off.
"""

import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time

SECONDS = 10
BLOCK = 16 << 10


def main():
    parser = argparse.ArgumentParser(description="rate limits over ten seconds")
    parser.add_argument("--binary", required=True, help="the cascade to be tried")
    binary = os.path.abspath(parser.parse_args().binary)
    with tempfile.TemporaryDirectory() as room:
        data = f"{room}/data"
        with open(data, "wb") as file:
            for _ in range(256):
                file.write(os.urandom(1 << 20))
        subprocess.run([binary, "create", "-b", str(BLOCK), data], check=True, stdout=subprocess.DEVNULL)
        ratios = [
            measure(binary, room, limit, seed, get)
            for limit in (1 << 20, 8 << 20)
            for seed, get in ((["--upload-limit", str(limit)], []), ([], ["--download-limit", str(limit)]))
        ]
    return 0 if all(abs(ratio - 1) <= 0.05 for ratio in ratios) else 1


def measure(binary, room, limit, seed_options, get_options):
    """Runs a seed and the downloads; answers the rate over the limit."""
    seed = subprocess.Popen(
        [binary, "peer", *seed_options, "-l", "127.0.0.1:0", f"{room}/data.cascade"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    address = seed.stdout.readline().split()[-1]
    # An upload limit holds over all who download, a download limit over all workers of one.
    gets = [start(binary, room, address, number, get_options) for number in range(2 if seed_options else 1)]
    time.sleep(2)
    # The first look is slow, and what it counts is of no one moment.
    held(room)
    before, begin = held(room), time.monotonic()
    time.sleep(SECONDS)
    after, end = held(room), time.monotonic()
    for process in [seed, *gets]:
        process.kill()
        process.wait()
    for number in range(len(gets)):
        for part in parts(room, number):
            os.unlink(part)
    ratio = (after - before) / (end - begin) / limit
    what = (seed_options or get_options)[0]
    print(f"{what} {limit >> 20} MiB/s, {len(gets)} downloading: {ratio:.3f} of it over {end - begin:.1f} s", flush=True)
    return ratio


def start(binary, room, address, number, options):
    os.makedirs(f"{room}/{number}", exist_ok=True)
    command = [binary, "get", *options, "-p", address, "-d", f"{room}/{number}", f"{room}/data.cascade"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def held(room):
    """Bytes that were written to the data files: their blocks that are not zeros."""
    total = 0
    for number in range(2):
        for path in parts(room, number):
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    total += len(block) * any(block[:64])
    return total


def parts(room, number):
    """The data file of a download while it is incomplete; its name has the beginning of the cascade hash."""
    return glob.glob(f"{room}/{number}/data.*.part")


if __name__ == "__main__":
    sys.exit(main())
