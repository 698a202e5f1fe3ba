"""A LevelDB that its owner (python3-plyvel) writes, and what any state of it must hold.

Batch n puts chain/n, puts n into one of a few keys that are overwritten all the time, deletes an old
extra, and sets `last`. As a program, under Debian's Python, which has plyvel:

    leveldb.py write FOLDER BATCHES RATE SEED   BATCHES 0: until stdin ends; prints the last one
    leveldb.py check FOLDER                     prints the last one; exit 1 when anything is wrong"""

import hashlib
import os
import random
import select
import subprocess
import sys
import time

HOT = 200
EXTRAS = 500
PYTHON = "/usr/bin/python3"


def _chain(n, pad):
    return hashlib.sha256(b"%d:" % n + pad).digest() + pad


def _batch(db, n, rng):
    with db.write_batch() as b:
        b.put(b"chain/%09d" % n, _chain(n, rng.randbytes(rng.randrange(400))))
        b.put(b"hot/%d" % (n % HOT), b"%d" % n)
        b.put(b"extra/%d" % n, rng.randbytes(300))
        b.delete(b"extra/%d" % (n - EXTRAS))
        b.put(b"last", b"%d" % n)


def _write(plyvel, folder, batches, rate, seed):
    rng = random.Random(seed)
    db = plyvel.DB(folder, create_if_missing=True, write_buffer_size=128 << 10,
                   max_file_size=128 << 10)
    n = int(db.get(b"last", b"0"))
    begun, done = time.monotonic(), 0
    print("ready", flush=True)
    while done != batches or not batches:
        n, done = n + 1, done + 1
        _batch(db, n, rng)
        wait = begun + done / rate - time.monotonic() if rate else 0
        if not batches and select.select([0], [], [], max(0, wait))[0]:
            break
    db.close()
    return n


def _check(plyvel, folder):
    db = plyvel.DB(folder, paranoid_checks=True)
    try:
        last = int(db.get(b"last", b"0"))
        chain = list(db.iterator(prefix=b"chain/", include_key=True))
        if [k for k, _ in chain] != [b"chain/%09d" % n for n in range(1, last + 1)]:
            raise AssertionError(f"{len(chain)} links, the last batch is {last}")
        for n, (_, v) in enumerate(chain, 1):
            if _chain(n, v[32:]) != v:
                raise AssertionError(f"link {n} is not what was put")
        for k in range(HOT):
            newest = last - (last - k) % HOT
            if newest > 0 and db.get(b"hot/%d" % k) != b"%d" % newest:
                raise AssertionError(f"hot/{k} is {db.get(b'hot/%d' % k)}, not {newest}")
        extras = sum(1 for _ in db.iterator(prefix=b"extra/"))
        if extras != min(last, EXTRAS):
            raise AssertionError(f"{extras} extras, the last batch is {last}")
        return last
    finally:
        db.close()


def _run(*args):
    done = subprocess.run([PYTHON, os.path.abspath(__file__), *map(str, args)], text=True,
                          capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise AssertionError(f"{args}: {done.stderr}")
    return int(done.stdout.split()[-1])


def write(folder, batches, seed=1):
    """Answers with the number of the last batch."""
    return _run("write", folder, batches, 0, seed)


def check(folder):
    """LevelDB opens it, and it holds exactly the batches up to the last, whose number it gives."""
    return _run("check", folder)


class Owner:
    """A process that has it open and writes."""

    def __init__(self, folder, rate=0, seed=1):
        self.folder = folder
        self.process = processes.start([PYTHON, os.path.abspath(__file__), "write", folder, "0",
                                        str(rate), str(seed)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the owner of {folder} did not start")

    def stop(self):
        """Answers with the number of its last batch."""
        self.process.stdin.close()
        last = int(self.process.stdout.readline())
        self.process.stdout.close()
        if self.process.wait(30) != 0:
            raise RuntimeError(f"the owner of {self.folder} failed")
        return last

    def kill(self):
        processes.kill_tree(self.process)
        for f in (self.process.stdin, self.process.stdout):
            f.close()


def main():
    import plyvel
    if sys.argv[1] == "check":
        print(_check(plyvel, sys.argv[2]))
    else:
        print(_write(plyvel, sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])),
              flush=True)


if __name__ == "__main__":
    main()
else:
    from . import processes
