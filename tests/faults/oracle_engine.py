#!/usr/bin/env python3
"""Random work on a real database while backups run; every snapshot's restore is compared with an
oracle: the digest of the whole content, taken after each commit by the one who committed.

    oracle_engine.py [--snapshots N] [--seed N] [--modes wal,delete,...] [--keep]

Each operation and each round draws from its own generator, seeded with the seed and its number, so
that a seed repeats the same work whatever the machine's speed."""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "integration"))

from harness import bank, repository  # noqa: E402
from harness.leader import Leader, Worker, check_exit  # noqa: E402
from harness.contract import check_json  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.sshd import Sshd  # noqa: E402

PAGE_SIZES = (512, 1024, 2048, 4096, 4096, 8192, 16384, 32768, 65536)
SIZE_LIMIT = 4_000_000  # of the database, so that a digest after each commit stays cheap


def content_digest(db):
    """All that a user can see of a database: schema, rows, and the settings kept in its header."""
    h = hashlib.blake2b(digest_size=16)
    for pragma in ("page_size", "encoding", "user_version", "application_id", "auto_vacuum"):
        h.update(f"{pragma}={db.execute(f'PRAGMA {pragma}').fetchone()[0]};".encode())
    schema = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    h.update(repr(schema).encode())
    for kind, name, _ in schema:
        if kind == "table":
            for row in db.execute(f'SELECT * FROM "{name}" ORDER BY 1'):
                h.update(repr(row).encode())
    return h.hexdigest()


class Work:
    """The application: random operations on one database file, and the oracle's record."""

    def __init__(self, path, seed, modes):
        self.path, self.seed, self.modes = path, seed, modes
        self.count = 0  # operations so far
        self.state = 0  # number of the last committed state
        self.digests = {}
        self.committed = {}  # state -> when its commit was acknowledged, in seconds of time.time()
        self.failed = []  # commits that failed although nothing but a backup was in their way
        self.mode = modes[0]
        self.db = None
        self.reader = None
        rng = random.Random(f"{seed}/create")
        self.db = bank.connect(path)
        self.db.execute(f"PRAGMA page_size={rng.choice(PAGE_SIZES)}")
        self.db.execute(f"PRAGMA encoding='{rng.choice(('UTF-8', 'UTF-16le'))}'")
        self.db.execute(f"PRAGMA auto_vacuum={rng.choice(('NONE', 'FULL', 'INCREMENTAL'))}")
        self.db.execute("CREATE TABLE oracle_state(id INTEGER PRIMARY KEY CHECK(id = 0), state)")
        self.db.execute("INSERT INTO oracle_state VALUES(0, 0)")
        self.db.execute("CREATE TABLE t0(id INTEGER PRIMARY KEY, a, b)")
        self.db.execute(f"PRAGMA journal_mode={self.mode}")
        self.open()
        self.digests[0] = content_digest(self.db)

    def open(self):
        if self.db is None:
            self.db = bank.connect(self.path)
        rng = random.Random(f"{self.seed}/open{self.count}")
        # A small cache spills pages of transactions that are not committed.
        self.db.execute(f"PRAGMA cache_size={rng.choice((5, 50, 2000))}")
        self.db.execute(f"PRAGMA synchronous={rng.choice(('OFF', 'NORMAL'))}")
        self.db.execute(f"PRAGMA wal_autocheckpoint={rng.choice((0, 10, 1000))}")

    def close(self):
        for db in (self.reader, self.db):
            if db is not None:
                db.close()
        self.reader = self.db = None

    def step(self):
        """One operation."""
        self.count += 1
        rng = random.Random(f"{self.seed}/op{self.count}")
        names = [n for n in OPERATIONS for _ in range(OPERATIONS[n])]
        if self.db.execute("PRAGMA page_count").fetchone()[0] * \
                self.db.execute("PRAGMA page_size").fetchone()[0] > SIZE_LIMIT:
            names = ["delete", "vacuum", "checkpoint"]
        name = rng.choice(names)
        try:
            getattr(self, "op_" + name)(rng)
        except sqlite3.OperationalError as e:
            if self.db is not None and self.db.in_transaction:
                self.db.execute("ROLLBACK")
            if "locked" not in str(e) and "SQL statements in progress" not in str(e):
                raise
            # What wants the database alone may have to wait for a reader; a commit never.
            if name not in ("journal_mode", "vacuum", "checkpoint", "last_closer", "renamed_over"):
                self.failed.append((self.count, name, str(e)))

    def tables(self):
        return [r[0] for r in self.db.execute(
            "SELECT name FROM sqlite_schema WHERE type='table' AND name LIKE 't%' ORDER BY name")]

    @contextlib.contextmanager
    def commit(self):
        """A transaction that ends as the next state."""
        self.db.execute("BEGIN IMMEDIATE")
        yield
        self.db.execute("UPDATE oracle_state SET state=?", (self.state + 1,))
        self.db.execute("COMMIT")
        self.next_state(time.time())

    def next_state(self, at_s):
        """Its commit was acknowledged at at_s."""
        self.state += 1
        self.committed[self.state] = at_s
        self.digests[self.state] = content_digest(self.db)

    def insert_some(self, rng, table):
        for _ in range(rng.choice((1, 1, 5, 50, 200))):
            size = rng.choice((0, 20, 100, 100, 400, 5000 if rng.random() < 0.1 else 30))
            self.db.execute(f"INSERT INTO {table}(a, b) VALUES(?, ?)",
                            (rng.randrange(10**6), rng.randbytes(size)))

    def change_some(self, rng, table, limit=100):
        last = self.db.execute(f"SELECT ifnull(max(id), 0) FROM {table}").fetchone()[0]
        for _ in range(rng.randrange(1, limit)):
            self.db.execute(f"UPDATE {table} SET a=?, b=? WHERE id=?",
                            (rng.random(), rng.randbytes(rng.choice((10, 100, 3000))),
                             rng.randrange(last + 1)))

    def op_insert(self, rng):
        with self.commit():
            self.insert_some(rng, rng.choice(self.tables()))

    def op_update(self, rng):
        with self.commit():
            self.change_some(rng, rng.choice(self.tables()))

    def op_delete(self, rng):
        with self.commit():
            self.db.execute(f"DELETE FROM {rng.choice(self.tables())} WHERE id % ? = 0",
                            (rng.choice((1, 2, 3, 50)),))

    def op_rollback(self, rng):
        self.db.execute("BEGIN IMMEDIATE")
        for table in self.tables():
            self.insert_some(rng, table)
            self.change_some(rng, table)
        self.db.execute("ROLLBACK")

    def op_savepoint(self, rng):
        table = rng.choice(self.tables())
        with self.commit():
            self.insert_some(rng, table)
            self.db.execute("SAVEPOINT s")
            self.change_some(rng, table)
            self.db.execute("ROLLBACK TO s")
            self.insert_some(rng, table)

    def op_schema(self, rng):
        tables = self.tables()
        with self.commit():
            what = rng.randrange(5)
            table = rng.choice(tables)
            if what == 0 and len(tables) < 8:
                self.db.execute(f"CREATE TABLE t{self.count}(id INTEGER PRIMARY KEY, a, b)")
                self.insert_some(rng, f"t{self.count}")
            elif what == 1 and len(tables) > 1:
                self.db.execute(f"DROP TABLE {table}")
            elif what == 2:
                self.db.execute(f"CREATE INDEX i{self.count} ON {table}(a)")
            elif what == 3:
                self.db.execute(f"ALTER TABLE {table} ADD COLUMN c{self.count} DEFAULT 7")
            else:
                self.db.execute(f"PRAGMA user_version={rng.randrange(1 << 30)}")

    def op_vacuum(self, rng):
        if rng.random() < 0.3:
            self.db.execute("PRAGMA incremental_vacuum(20)").fetchall()
            return
        if self.mode != "wal" and rng.random() < 0.5:
            self.db.execute(f"PRAGMA page_size={rng.choice(PAGE_SIZES)}")
        self.db.execute("VACUUM")
        # The same state, possibly with another page size.
        self.digests[self.state, "vacuumed"] = content_digest(self.db)

    def op_checkpoint(self, rng):
        mode = rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
        self.db.execute("PRAGMA busy_timeout=300")
        try:
            self.db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            self.db.execute("PRAGMA busy_timeout=5000")

    def op_reader(self, rng):
        """Another connection that keeps an old state alive for a while."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None
        elif self.mode == "wal":
            self.reader = bank.connect(self.path)
            self.reader.execute("BEGIN")
            self.reader.execute("SELECT state FROM oracle_state").fetchone()

    def op_last_closer(self, rng):
        self.close()
        self.open()

    def op_journal_mode(self, rng):
        self.op_last_closer(rng)
        mode = rng.choice(self.modes)
        self.db.execute("PRAGMA busy_timeout=50")
        try:
            self.mode = self.db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
        finally:
            self.db.execute("PRAGMA busy_timeout=5000")
            self.mode = self.db.execute("PRAGMA journal_mode").fetchone()[0]

    def op_renamed_over(self, rng):
        """As a tool does that writes a new file and renames it over the old one, with care: the log
        is empty before, and what a reader still keeps of it is removed."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None
        if self.mode == "wal":
            busy = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                return
        else:
            return
        new = self.path + ".new"
        for leftover in (new, new + "-wal", new + "-shm", new + "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        self.db.execute("VACUUM INTO ?", (new,))
        other = bank.connect(new)
        other.execute(f"PRAGMA journal_mode={self.mode}")
        other.execute("UPDATE oracle_state SET state=?", (self.state + 1,))
        other.close()
        self.close()
        for sidecar in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path + sidecar)
        os.rename(new, self.path)
        at = time.time()
        self.open()
        self.next_state(at)

    def assert_not_newer(self, state, as_of_us):
        """What holds `state` may not claim a moment at which there was a newer one."""
        newer = self.committed.get(state + 1)
        if newer is not None and as_of_us > newer * 1e6:
            raise AssertionError(f"state {state} claims to be as of {as_of_us} us, but state "
                                 f"{state + 1} was there at {newer * 1e6:.0f} us")

    def examine(self, copy):
        """The number of the state that a restored copy holds, which it does to the last bit."""
        db = bank.open_copy(copy)
        try:
            answer = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if answer != "ok":
                raise AssertionError(f"{copy}: integrity_check: {answer}")
            state = db.execute("SELECT state FROM oracle_state").fetchone()[0]
            known = {self.digests.get(state), self.digests.get((state, "vacuumed"))} - {None}
            if content_digest(db) not in known:
                raise AssertionError(f"{copy}: is not what state {state} was")
            return state
        finally:
            db.close()


OPERATIONS = {"insert": 12, "update": 12, "delete": 3, "rollback": 4, "savepoint": 4, "schema": 3,
              "vacuum": 1, "checkpoint": 4, "reader": 3, "last_closer": 2, "journal_mode": 1,
              "renamed_over": 1}


class Engine:
    def __init__(self, folder, seed, modes, log=print):
        self.folder, self.seed, self.log = folder, seed, log
        self.ends = contextlib.ExitStack()
        os.mkdir(os.path.join(folder, "source"))
        self.db = os.path.join(folder, "source", "work.sqlite")
        self.work = Work(self.db, seed, modes)
        self.ends.callback(self.work.close)
        self.sshds, self.proxies = [], []
        for name in ("w1", "w2"):
            sshd = Sshd(folder, name)
            self.ends.callback(sshd.kill)
            sshd.start()
            proxy = Proxy(sshd.port)
            self.ends.callback(proxy.close)
            self.sshds.append(sshd)
            self.proxies.append(proxy)
        keep = {"keep_last": 100000}
        self.leader = Leader(folder, [Worker.of(s, p) for s, p in zip(self.sshds, self.proxies)],
                             {"db": {"path": self.db, "max_age": "1h", **keep}})
        self.ends.callback(self.leader.close)
        for sshd in self.sshds:
            sshd.authorize(self.leader.key + ".pub")
        self.leader.run("setup")
        self.repository = repository.of(self.sshds[0])
        self.taken = {}  # snapshot -> state
        self.killed = self.partial = self.unchanged = self.slow = 0

    def close(self):
        self.ends.close()

    def restored_state(self, snapshot):
        target = os.path.join(self.folder, "restored")
        copy = self.leader.restored("db", snapshot, target, self.db)
        try:
            return self.work.examine(copy)
        finally:
            # Kept when the comparison fails.
            if sys.exc_info()[0] is None:
                shutil.rmtree(target)

    def backup(self, rng):
        """One backup with work going on beside it."""
        for proxy in self.proxies:
            proxy.rate_bytes = rng.choice((0, 0, 0, 2_000_000, 500_000))
        idle = rng.random() < 0.1
        if idle:
            self.work.close()
            names = os.listdir(os.path.dirname(self.db))
        first = self.work.state
        kill_at = time.monotonic() + rng.uniform(0, 0.3) if rng.random() < 0.15 else None
        cut = rng.random() < 0.1
        if cut:
            self.proxies[1].cut_after = self.proxies[1].bytes_up + rng.randrange(30_000)
        run = self.leader.start("backup", "db", json_output=True)
        begun = time.monotonic()
        while run.running():
            if idle:
                time.sleep(0.005)
            else:
                self.work.step()
            if kill_at is not None and time.monotonic() > kill_at:
                run.kill()
                self.killed += 1
                break
            if time.monotonic() - begun > 120:
                raise AssertionError("the backup does not end while work goes on")
        last = self.work.state
        was_cut = self.proxies[1].cut_at is not None
        self.proxies[1].restore()
        if idle:
            left = os.listdir(os.path.dirname(self.db))
            self.work.open()
            if sorted(left) != sorted(names):
                raise AssertionError(f"an idle database had {names} beside it, now {left}")
        if run.process.returncode is not None:
            return None  # killed
        result = run.wait(60)
        # A busy machine can make a worker too slow, which the other does not wait for.
        slow = not was_cut and "w2 is too slow" in result.stdout
        check_exit(result, (0, 3) if was_cut or slow else 0)
        self.partial += was_cut and result.exit == 3
        self.slow += slow
        source = check_json("backup", result)["sources"][0]
        return source, first, last

    def round(self, number):
        rng = random.Random(f"{self.seed}/round{number}")
        for _ in range(rng.choice((0, 1, 5, 20))):
            self.work.step()
        answer = self.backup(rng)
        if answer is None:
            return
        source, first, last = answer
        snapshot = source["snapshot"]
        state = self.restored_state(snapshot)
        if snapshot in self.taken:
            self.unchanged += 1
            if self.taken[snapshot] != state:
                raise AssertionError(f"{snapshot} was state {self.taken[snapshot]}, now {state}")
        self.taken[snapshot] = state
        self.work.assert_not_newer(state, repository.as_of_us(self.repository, snapshot))
        if not first <= state <= last:
            raise AssertionError(f"{snapshot} holds state {state}, but the backup ran from {first} "
                                 f"to {last}")
        if self.work.failed:
            raise AssertionError(f"operations failed because of a backup: {self.work.failed}")

    def run(self, snapshots):
        """Until that many snapshots are compared; then all that are kept once more."""
        number = 0
        begun = time.monotonic()
        while len(self.taken) < snapshots:
            number += 1
            try:
                self.round(number)
            except Exception:
                self.log(f"round {number}, operation {self.work.count}, seed {self.seed}")
                raise
            if number % 100 == 0:
                self.log(f"{len(self.taken)} snapshots after {time.monotonic() - begun:.0f} s")
            if number > 20 * snapshots + 100:
                raise AssertionError(f"{number} rounds gave only {len(self.taken)} snapshots")
        listed = [s["id"] for s in self.leader.snapshots("db")]
        missing = set(self.taken) - set(listed)
        if missing:
            raise AssertionError(f"snapshots that were reported stored are gone: {missing}")
        again = random.Random(f"{self.seed}/again").sample(listed, min(len(listed), 200))
        for snapshot in again:
            state = self.restored_state(snapshot)
            if self.taken.get(snapshot, state) != state:
                raise AssertionError(f"{snapshot} was state {self.taken[snapshot]}, now {state}")
        self.leader.run("sync")  # the last round may have been one whose line was cut
        self.leader.run("verify", "db", "--read-data", timeout_s=600)
        self.log(f"seed {self.seed}: {len(self.taken)} snapshots of {self.work.state} states equal "
                 f"their oracle, {len(again)} of them again at the end; {self.killed} backups "
                 f"killed, {self.partial} with a worker cut off, {self.slow} with one too slow, "
                 f"{self.unchanged} unchanged; {self.work.count} operations, {time.monotonic() - begun:.0f} s")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--snapshots", type=int, default=100)
    p.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    p.add_argument("--modes", default="wal", help="journal modes that the work switches between")
    p.add_argument("--keep", action="store_true", help="keep the files also on success")
    a = p.parse_args()
    folder = tempfile.mkdtemp(prefix="syncd-oracle-")
    print(f"seed {a.seed}, files in {folder}", flush=True)
    engine = Engine(folder, a.seed, a.modes.split(","))
    with contextlib.closing(engine):
        engine.run(a.snapshots)
    if not a.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
