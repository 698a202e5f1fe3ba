"""The base of the tests: a folder that stays on failure, a seed that is printed, levels, and
fixtures that are ended whatever happens."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

from . import bank
from .leader import PROJECT, Leader, Worker, program
from .proxy import Proxy
from .sshd import Sshd
from .writers import Writers

LEVELS = ("quick", "default", "long")


def level():
    return os.environ.get("SYNCD_TEST_LEVEL", "default")


def at_level(name, timeout_s=None):
    """Marks a test or a class: "quick" runs always, "long" only in --long. Unmarked: default."""
    def mark(thing):
        thing.syncd_level = name
        if timeout_s:
            thing.syncd_timeout_s = timeout_s
        return thing
    return mark


def by_level(quick, default, long):
    return {"quick": quick, "default": default, "long": long}[level()]


class Case(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        if not os.access(program(), os.X_OK):
            self.fail(f"{program()} is not built: cmake --preset release && "
                      "cmake --build --preset release")
        self.folders = []  # kept on failure
        self.addCleanup(self._tidy)
        self.folder = self.new_folder()
        given = os.environ.get("SYNCD_TEST_SEED")
        self.seed = int(given) if given else random.SystemRandom().randrange(1 << 31)
        self.rng = random.Random(self.seed)

    def _tidy(self):
        result = self._outcome.result
        failed = [getattr(t, "test_case", t) for t, _ in result.failures + result.errors]
        if self not in failed:
            for folder in self.folders:
                shutil.rmtree(folder)
        else:
            print(f"{self.id()}: SYNCD_TEST_SEED={self.seed}; its files stay in "
                  f"{' and '.join(self.folders)}", file=sys.stderr, flush=True)

    def new_folder(self, parent=None):
        """A temporary folder that goes when the test has passed."""
        folder = tempfile.mkdtemp(prefix="syncd-test-", dir=parent)
        self.folders.append(folder)
        return folder

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def sshd(self, name, **options):
        server = Sshd(self.folder, name, **options)
        self.addCleanup(server.kill)
        server.start()
        return server

    def proxy(self, sshd, **options):
        proxy = Proxy(sshd.port, **options)
        self.addCleanup(proxy.close)
        return proxy

    def leader(self, workers, sources, authorize=(), **settings):
        leader = Leader(self.folder, workers, sources, **settings)
        self.addCleanup(leader.close)
        for sshd in authorize:
            sshd.authorize(leader.key + ".pub")
        return leader

    def two_workers(self, path, proxies=False, setup=True, **source):
        """The usual house: sshds w1 and w2 (self.w1, self.w2), each behind a proxy if asked, a
        leader with the source "db" at `path`, repositories made."""
        self.w1, self.w2 = self.sshd("w1"), self.sshd("w2")
        self.proxies = [self.proxy(w) if proxies else None for w in (self.w1, self.w2)]
        workers = [Worker.of(w, p) for w, p in zip((self.w1, self.w2), self.proxies)]
        leader = self.leader(workers, {"db": {"path": path, "max_age": "1h", **source}},
                             authorize=(self.w1, self.w2))
        if setup:
            leader.run("setup")
        return leader

    def bank(self, name="bank.sqlite", **options):
        path = self.path(name)
        bank.create(path, self.seed, **options)
        return path

    def writers(self, db, **options):
        writers = Writers(db, self.folder, seed=self.rng.randrange(1 << 20), **options)
        self.addCleanup(writers.close)
        return writers

    def restored(self, leader, snapshot, db, source="db"):
        """The path of the restored copy in a new folder."""
        target = tempfile.mkdtemp(prefix="restored-", dir=self.folder)
        return leader.restored(source, snapshot, target, db)

    def rescued(self, repository, snapshot, db):
        """The same by restore/rescue.py, from one worker's folder."""
        target = tempfile.mkdtemp(prefix="rescued-", dir=self.folder)
        answer = subprocess.run(
            [sys.executable, os.path.join(PROJECT, "restore/rescue.py"), repository, snapshot,
             target], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        if answer.returncode != 0:
            raise AssertionError(f"rescue.py: exit {answer.returncode}\n{answer.stdout}"
                                 f"\n{answer.stderr}")
        return os.path.join(target, db.lstrip("/"))
