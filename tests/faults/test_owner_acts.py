"""The owner acts at every moment: at each call by which a backup looks at or reads a database's
files, before it is done, the database's owner commits, checkpoints, closes, switches the journal
mode, vacuums to another page size, renames a new file over it, or leaves half of a transaction in
the file for some calls. The backup must succeed all the same, with a state that the database had,
and may not claim a moment at which there was a newer one."""

import json
import os
import random
import select
import shutil
import sqlite3
import subprocess
import time

from harness import repository
from harness.case import Case, at_level, by_level
from harness.leader import Leader, Worker
from local_house import HERE
from oracle_engine import Work
from test_crash import spread

EARLY = 80  # calls, in which all but the reading of the pages is done
LATER = 7  # calls from the owner's act to its end
ACTS = {"commit": "insert", "checkpoint": "checkpoint", "vacuum": "vacuum", "close": "close",
        "switch": "switch", "rename": "renamed_over", "half": "half", "return": "return"}


class Owner(Work):
    """Does one thing when asked, and ends it when asked again. What it is locked out of, because it
    is asked while the backup holds a lock, is not done."""

    def __init__(self, path, seed, modes):
        super().__init__(path, seed, modes)
        self.half = False

    def connect_again(self):
        if self.db is None:
            self.open()
        self.db.execute("PRAGMA busy_timeout=10")

    def become(self, mode, is_open):
        """How the backup finds it."""
        self.connect_again()
        self.mode = self.db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
        with self.commit():
            self.insert_some(self.rng(), "t0")
        if not is_open:
            self.close()

    def rng(self):
        """Another one for each act."""
        self.count += 1
        return random.Random(f"{self.seed}/act{self.count}")

    def act(self, name):
        try:
            self.connect_again()
            getattr(self, "op_" + name)(self.rng())
        except sqlite3.OperationalError as e:
            self.undo(e)

    def end(self):
        """Of what was begun."""
        try:
            if self.half:
                self.half = False
                self.db.execute("COMMIT")
                self.next_state(time.time())
        except sqlite3.OperationalError as e:
            self.undo(e)

    def undo(self, why):
        self.half = False
        if "locked" not in str(why):
            raise why
        if self.db is not None and self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def op_close(self, rng):
        with self.commit():
            self.insert_some(rng, "t0")
        self.close()

    def op_switch(self, rng):
        """To the other mode, where it goes on."""
        self.close()
        self.connect_again()
        other = "DELETE" if self.mode == "wal" else "WAL"
        self.mode = self.db.execute(f"PRAGMA journal_mode={other}").fetchone()[0]
        self.op_half(rng)

    def op_return(self, rng):
        """To the other mode and back: the files bear the old names again."""
        self.close()
        self.connect_again()
        first = self.mode
        self.mode = self.db.execute(
            f"PRAGMA journal_mode={'DELETE' if first == 'wal' else 'WAL'}").fetchone()[0]
        with self.commit():
            self.change_some(rng, "t0")
        self.mode = self.db.execute(f"PRAGMA journal_mode={first}").fetchone()[0]

    def op_half(self, rng):
        """Its cache is too small, so that pages of it are written before it is committed."""
        self.db.execute("PRAGMA cache_size=2")
        self.db.execute("BEGIN IMMEDIATE")
        self.half = True
        self.db.execute("UPDATE oracle_state SET state=?", (self.state + 1,))
        for _ in range(5):
            self.insert_some(rng, "t0")
        self.change_some(rng, "t0", limit=200)
        self.db.execute("DELETE FROM t0 WHERE id % 3 = 0")


class House:
    """One worker, a folder; a database; the preloaded library and its pipes."""

    def __init__(self, case, number):
        self.case = case
        self.folder = case.path(f"house{number}")
        os.mkdir(self.folder)
        os.mkdir(os.path.join(self.folder, "source"))
        self.db = os.path.join(self.folder, "source", "work.sqlite")
        self.owner = Owner(self.db, case.rng.randrange(1 << 30), ["wal"])
        case.addCleanup(self.owner.close)
        for _ in range(30):
            with self.owner.commit():
                self.owner.insert_some(case.rng, "t0")
        self.root = os.path.join(case.new_folder("/dev/shm"), "w1")
        self.leader = Leader(self.folder, [Worker("w1", "file://" + self.root)],
                             {"db": {"path": self.db, "max_age": "1h", "keep_last": 10000}})
        case.addCleanup(self.leader.close)
        self.leader.run("setup")
        self.pipes = {}
        for name in ("ask", "answer"):
            path = os.path.join(self.folder, name)
            os.mkfifo(path)
            self.pipes[name] = os.open(path, os.O_RDWR)
            case.addCleanup(os.close, self.pipes[name])
        self.count = os.path.join(self.folder, "count")

    def backup(self, act=None, at=0):
        """A backup at whose call `at` the owner does `act`."""
        env = {"LD_PRELOAD": self.case.library, "OWNER_PATH": self.db, "OWNER_COUNT": self.count}
        if at:
            env |= {"OWNER_AT": f"{at}:{LATER}", "OWNER_ASK": os.path.join(self.folder, "ask"),
                    "OWNER_ANSWER": os.path.join(self.folder, "answer")}
        run = self.leader.start("backup", "db", json_output=True, env=env)
        asked = 0
        deadline = time.monotonic() + 60
        while run.running() and time.monotonic() < deadline:
            if select.select([self.pipes["ask"]], [], [], 0.01)[0]:
                os.read(self.pipes["ask"], 1)
                asked += 1
                if asked == 1:
                    self.owner.act(act)
                else:
                    self.owner.end()
                os.write(self.pipes["answer"], b"x")
        self.owner.end()
        return run.wait(60), asked

    def calls(self):
        self.backup()
        with open(self.count, encoding="ascii") as f:
            return int(f.read())


@at_level("default", timeout_s=3600)
class TestOwnerActs(Case):
    syncd_proof = True

    def setUp(self):
        super().setUp()
        self.library = self.path("owner_acts.so")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", self.library,
                        os.path.join(HERE, "owner_acts.c")], check=True, timeout=60)

    def one(self, house, act, at, where):
        owner = house.owner
        first = owner.state
        result, asked = house.backup(act, at)
        self.assertEqual(result.exit, 0, f"{where}: {result}")
        snapshot = json.loads(result.stdout)["sources"][0]["snapshot"]
        target = self.path("target")
        copy = house.leader.restored("db", snapshot, target, house.db)
        state = owner.examine(copy)
        self.assertTrue(first <= state <= owner.state, f"{where}: {first} {state} {owner.state}")
        owner.assert_not_newer(state, repository.as_of_us(house.root, snapshot))
        shutil.rmtree(target)
        return asked

    def points(self, calls):
        """Most of them where it is found out what is there, and how it is opened."""
        first = min(calls, EARLY)
        early = spread(self.rng, first, by_level(1, 3, EARLY))
        return sorted({*early, *self.rng.sample(range(1, calls + 1), min(calls, by_level(1, 1, 20)))})

    def each_act(self, mode, is_open):
        all_points = all_asked = 0
        for number, (act, operation) in enumerate(ACTS.items()):
            house = House(self, f"{mode}-{is_open}-{number}")
            house.owner.become(mode, is_open)
            calls = house.calls()
            points = self.points(calls)
            asked = 0
            for at in points:
                house.owner.become(mode, is_open)
                asked += self.one(house, operation, at, f"{mode}, {'open' if is_open else 'closed'}: "
                                                        f"{act} before call {at} of {calls}")
            house.owner.close()
            print(f"{mode}, {'open' if is_open else 'closed'}: {act} before {len(points)} of "
                  f"{calls} calls", flush=True)
            all_points += len(points)
            all_asked += asked
        # A backup may make fewer calls than the one that was counted (after a VACUUM to larger pages,
        # say), and then nobody is asked; but most of them are asked twice.
        self.assertGreater(all_asked, all_points, mode)

    def test_wal(self):
        self.each_act("wal", True)

    def test_wal_that_nobody_has_open(self):
        self.each_act("wal", False)

    def test_delete(self):
        self.each_act("delete", self.rng.random() < 0.5)

    def test_truncate(self):
        self.each_act("truncate", self.rng.random() < 0.5)

    def test_persist(self):
        self.each_act("persist", self.rng.random() < 0.5)
