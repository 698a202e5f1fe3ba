"""kill -9 at any moment of a restore, to a folder or in place, and of a sync: each file is old or new,
the next run ends well, nothing is lost and nothing lies about."""

import hashlib
import os
import shutil
import signal
import sqlite3
import time

from harness import bank, repository
from harness.case import Case, at_level, by_level

MB = 1_000_000


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def files_below(root):
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}


class TestKill(Case):
    """One house for all rounds: a database in WAL mode and a tree of small files."""
    syncd_proof = True

    def setUp(self):
        super().setUp()
        self.data = self.path("data")
        self.deep = os.path.join(self.data, "deep", "er")
        os.makedirs(self.deep)
        self.db = os.path.join(self.data, "bank.sqlite")
        bank.create(self.db, self.seed, size_bytes=1 * MB)
        self.small = [os.path.join(self.deep, f"{i}.bin") for i in range(20)]
        for path in self.small:
            self.write(path)
        self.house = self.two_workers(self.data)
        self.house.backup("db")
        self.commit()
        self.house.backup("db")
        oracle = self.path("oracle")
        self.house.run("restore", "--target", oracle)
        self.good = {path: digest(oracle + path) for path in [self.db, *self.small]}
        self.took = {}

    def write(self, path):
        with open(path, "wb") as f:
            f.write(self.rng.randbytes(self.rng.randrange(1, 40_000)))

    def commit(self):
        live = bank.connect(self.db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(3):
            hand.transaction(20)
            live.execute("COMMIT")
        live.close()

    def leave_wal(self):
        """A writer that was killed: its last commits are in the -wal alone."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            live = sqlite3.connect(self.db, isolation_level=None)
            live.execute("PRAGMA journal_mode=WAL")
            live.execute("CREATE TABLE IF NOT EXISTS mine(x)")
            live.execute("INSERT INTO mine VALUES(randomblob(100000))")
            os.write(write, b"x")
            signal.pause()
        os.read(read, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)

    def cut(self, kind, *command):
        """Runs the command and kills it at any moment; the first of its kind runs to its end."""
        begun = time.monotonic()
        run = self.house.start(*command)
        if kind in self.took:
            time.sleep(self.rng.random() * self.took[kind])
            run.kill()
            return
        self.assertEqual(run.wait(120).exit, 0)
        self.took[kind] = time.monotonic() - begun

    # ---- the three kinds ----

    def round_target(self):
        target = self.path("target")
        self.cut("target", "restore", "--target", target)
        for path in self.good:
            if os.path.exists(target + path):
                self.assertEqual(digest(target + path), self.good[path], path)
        self.house.run("restore", "--target", target)
        self.assertEqual(files_below(target), {target + path for path in self.good})
        for path, wanted in self.good.items():
            self.assertEqual(digest(target + path), wanted, path)
        shutil.rmtree(target)

    def round_in_place(self):
        self.commit()
        for path in self.rng.sample(self.small, 5):
            self.write(path)
        os.unlink(self.rng.choice(self.small))
        self.leave_wal()
        old = {path: digest(path) for path in self.small if os.path.exists(path)}
        self.cut("in place", "restore", "--in-place", "--yes")
        live = sqlite3.connect(self.db)
        self.assertEqual(live.execute("PRAGMA quick_check").fetchone(), ("ok",))
        live.close()
        for path, before in old.items():
            self.assertIn(digest(path), (before, self.good[path]), path)
        self.house.run("restore", "--in-place", "--yes")
        for path, wanted in self.good.items():
            self.assertEqual(digest(path), wanted, path)
        # Nothing unfinished, and the old files are in one of the runs' folders.
        base = os.path.join(self.folder, ".syncd-restore")
        self.assertEqual([p for p in files_below(self.data) if p not in self.good], [])
        for name in os.listdir(base):
            self.assertFalse(os.path.exists(os.path.join(base, name, "new")), name)
            self.assertFalse(os.path.exists(os.path.join(base, name, "journal")), name)
        kept = {digest(p) for p in files_below(base)}
        changed = {d for path, d in old.items() if d != self.good[path]}
        self.assertLessEqual(changed, kept)

    def round_sync(self):
        parts = repository.parts(repository.of(self.w2))
        wanted = {p.name for p in repository.parts(repository.of(self.w1))}
        for part in self.rng.sample(parts, self.rng.randrange(1, len(parts) + 1)):
            if self.rng.random() < 0.7:
                os.unlink(part.path)
            else:
                repository.truncate(part, part.size // 2)
        self.cut("sync", "sync")
        repository.parts(repository.of(self.w2))  # every name is one of a part
        self.assertEqual({p.name for p in repository.parts(repository.of(self.w1))}, wanted)
        self.house.run("sync")
        for worker in (self.w1, self.w2):
            self.assertEqual({p.name for p in repository.parts(repository.of(worker))
                              if p.mark != "bad"}, wanted)
        self.house.run("verify", "--read-data")

    @at_level("default", timeout_s=1800)
    def test_rounds(self):
        kinds = [self.round_target, self.round_in_place, self.round_sync]
        for kind in kinds:
            kind()
        for i in range(by_level(3, 20, 200)):
            kind = kinds[i % 3]
            try:
                kind()
            except AssertionError as e:
                raise AssertionError(f"round {i} ({kind.__name__}): {e}") from None
