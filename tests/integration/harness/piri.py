"""A Piri node's data folder: its four databases, each a bank that proves its states, the LevelDB
folders of its datastores and wallet, journals and blobs - and the process that writes the LevelDBs.

A LevelDB's key is the number of its put, and so is its value: a copy that opens must hold the
numbers without a gap, and end between what was done before the backup began and by its end."""

import argparse
import os
import signal
import struct
import time

if __name__ != "__main__":
    from . import bank, processes

DATABASES = ("replicator/replicator.db", "pdp/state/state.db", "aggregator/jobqueue/jobqueue.db",
             "egress_tracker/jobqueue/jobqueue.db")
LEVELDBS = ("aggregator/datastore", "allocation", "claim", "publisher", "receipt", "wallet")
FILES = {
    "egress_tracker/journal/egress.1.car": b"journal" * 100,
    "blobs/ab/blob": b"stored blob",
    "pdp/datastore/cd/piece": b"stored piece",
    "service.pem": b"a private key",
}
NUMBER = struct.Struct(">q")
COUNTER = struct.Struct("<q")


def key(n):
    return NUMBER.pack(n)


def value(n):
    return NUMBER.pack(n) + bytes((n * 7 + i) % 251 for i in range(200 + n % 700))


def open_leveldb(path, create=False):
    import plyvel
    # A small buffer, so that tables are written and merged all the time.
    return plyvel.DB(path, create_if_missing=create, write_buffer_size=65536, max_file_size=65536,
                     paranoid_checks=True)


def _debian(*args):
    """This file by the Python that has plyvel."""
    done = processes.subprocess.run([processes.DEBIAN_PYTHON, os.path.abspath(__file__), *args],
                                    capture_output=True, text=True, timeout=60,
                                    stdin=processes.subprocess.DEVNULL)
    if done.returncode != 0:
        raise AssertionError(done.stderr.strip().splitlines()[-1])
    return done.stdout


def create(data_dir, seed):
    for i, name in enumerate(DATABASES):
        path = os.path.join(data_dir, name)
        os.makedirs(os.path.dirname(path))
        bank.create(path, seed + i, size_bytes=200_000)
    for name in LEVELDBS:
        os.makedirs(os.path.join(data_dir, name))
    _debian("--create", "--data-dir", data_dir)
    for name, data in FILES.items():
        path = os.path.join(data_dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)


# ---- writing ----

def write_on(settings):
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    stores = [open_leveldb(os.path.join(settings.data_dir, name)) for name in LEVELDBS]
    with open(settings.journal, "ab", buffering=0) as journal:
        print("ready", flush=True)
        n = settings.first
        while not stopped:
            journal.write(COUNTER.pack(n))
            for store in stores:
                store.put(key(n), value(n))
            journal.write(COUNTER.pack(n))
            n += 1
            time.sleep(settings.pause_s)


class LevelWriter:
    """One process, as with Piri: a LevelDB belongs to one at a time."""

    def __init__(self, data_dir, journal, rate=200, first=0):
        self.journal, self.first = journal, first
        self.process = processes.start(
            [processes.DEBIAN_PYTHON, os.path.abspath(__file__), "--data-dir", data_dir, "--journal",
             journal, "--pause-s", str(1 / rate), "--first", str(first)],
            stdout=processes.subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("the LevelDB writer did not start")

    def counts(self):
        """(done, begun): how many puts."""
        records = os.path.getsize(self.journal) // COUNTER.size
        return self.first + records // 2, self.first + (records + 1) // 2

    def wait_for(self, more, timeout_s=30):
        goal = self.counts()[0] + more
        processes.wait_until(lambda: self.counts()[0] >= goal, timeout_s, f"{more} more puts")

    def kill(self):
        if self.process:
            processes.kill_tree(self.process)
            self.process.stdout.close()
            self.process = None


# ---- judging ----

def count_puts(path):
    """Opens it as its owner would, which replays its log."""
    store = open_leveldb(path)
    count = 0
    for k, v in store:
        if k != key(count) or v != value(count):
            raise AssertionError(f"{path}: put {count} is missing or not what was put")
        count += 1
    store.close()
    return count


def check_leveldb(path, before, after):
    count = int(_debian("--count", path))
    if not before[0] <= count <= after[1]:
        raise AssertionError(f"{path}: holds {count} puts; {before[0]} were done before the backup "
                             f"and {after[1]} begun before its end")
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    parser.add_argument("--create", action="store_true")
    parser.add_argument("--count")
    parser.add_argument("--journal")
    parser.add_argument("--pause-s", type=float)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    if given.create:
        for leveldb in LEVELDBS:
            open_leveldb(os.path.join(given.data_dir, leveldb), create=True).close()
    elif given.count:
        print(count_puts(given.count))
    else:
        write_on(given)
