"""Every kind of SQLite database that a folder may hold, good and bad; judged by sqlite3, diff and
the kernel."""

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import time

from harness import bank, processes
from harness.case import Case, at_level
from harness.leader import Worker, has_sanitizer
from harness.sqlite_oracle import ask, content, look
from harness.user import User

MB = 1_000_000
GIB = 1 << 30
PAGE_SIZES = [512 << i for i in range(8)]

# What a copy must answer just as the source does.
TRAITS = ("page_size", "auto_vacuum", "encoding", "user_version", "application_id", "journal_mode",
          "freelist_count", "page_count", "schema_version")

# Overwrites a file for ever; now and then it is shorter for a moment.
RESTLESS = """
import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
data = b"x" * 4096
print("ready", flush=True)
i = 0
while True:
    os.pwrite(f, data, (i * 4096) % 4_000_000)
    i += 1
    if i % 1000 == 0:
        os.truncate(f, 60_000_000)
        os.truncate(f, 64_000_000)
"""


def traits(path):
    return ask(path, *(f"PRAGMA {t}" for t in TRAITS)).split()


class Kinds(Case):
    def setUp(self):
        super().setUp()
        self.src = self.path("src")
        os.mkdir(self.src)
        os.mkdir(self.path("w1"))

    def house(self, **source):
        leader = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                             {"t": {"path": self.src, **source}})
        leader.run("setup")
        return leader

    def slow_house(self, rate):
        w1 = self.sshd("w1s")
        line = self.proxy(w1)
        leader = self.leader([Worker.of(w1, line)], {"t": {"path": self.src}}, authorize=(w1,))
        leader.run("setup")
        line.rate_bytes = rate
        return leader, line

    def started(self, leader, line, bytes_up=150_000):
        """A backup that has shipped some of what it reads."""
        before = line.bytes_up
        run = leader.start("backup", "t", json_output=True)
        processes.wait_until(lambda: line.bytes_up > before + bytes_up, 60, "the backup to read")
        return run

    def out(self, leader, name="out"):
        shutil.rmtree(self.path(name), ignore_errors=True)
        leader.run("restore", "t", "--target", self.path(name))
        return self.path(name) + self.src

    def make(self, name, *statements, page_size=4096):
        db = sqlite3.connect(os.path.join(os.fsencode(self.src), os.fsencode(name)),
                             isolation_level=None)
        db.execute(f"PRAGMA page_size={page_size}")
        for s in statements:
            db.execute(s)
        return db

    def assert_same_databases(self, out, names):
        for name in names:
            with self.subTest(name=name):
                wanted = content(f"{self.src}/{name}")
                self.assertIsNotNone(wanted)
                self.assertEqual(content(f"{out}/{name}"), wanted)
                # Asked last: it may write to what it looks at.
                shutil.copyfile(f"{self.src}/{name}", self.path("asked"))
                self.assertEqual(traits(f"{out}/{name}"), traits(self.path("asked")))


class TestKinds(Kinds):
    @at_level("quick")
    def test_all_page_sizes_and_both_modes(self):
        names = [f"{mode}{size}" for size in PAGE_SIZES for mode in ("DELETE", "WAL")]
        for name in names:
            mode = name.rstrip("0123456789")
            self.make(name, f"PRAGMA journal_mode={mode}",
                      "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
                      "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<300) "
                      "INSERT INTO t SELECT i, randomblob(700) FROM n",
                      page_size=int(name[len(mode):])).close()
        leader = self.house()
        self.assertTrue(leader.backup("t")["complete"])
        self.assert_same_databases(self.out(leader), names)
        for name in names:
            self.make(name, "UPDATE t SET a = randomblob(700) WHERE id % 50 = 0").close()
        self.assertTrue(leader.backup("t")["complete"])
        leader.run("verify", "--read-data")
        self.assert_same_databases(self.out(leader), names)

    @at_level("quick")
    def test_features(self):
        rows = ("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<2000) "
                "INSERT INTO t SELECT i, hex(randomblob(100)) FROM n")
        made = {
            "vacuum-full": ("PRAGMA auto_vacuum=FULL", "CREATE TABLE t(i, a)", rows,
                            "DELETE FROM t WHERE i % 2"),
            "vacuum-incremental": ("PRAGMA auto_vacuum=INCREMENTAL", "CREATE TABLE t(i, a)", rows,
                                   "DELETE FROM t WHERE i < 1500", "PRAGMA incremental_vacuum(20)"),
            "freelist": ("CREATE TABLE t(i, a)", rows, "DELETE FROM t WHERE i < 1500"),
            "without-rowid": ("CREATE TABLE t(i PRIMARY KEY, a) WITHOUT ROWID", rows),
            "fts": ("CREATE VIRTUAL TABLE t USING fts5(i, a)", rows),
            "utf16": ("PRAGMA encoding='UTF-16be'", "CREATE TABLE t(i, a)", rows),
            "numbers": ("PRAGMA user_version=77", "PRAGMA application_id=78",
                        "CREATE TABLE t(i, a GENERATED ALWAYS AS (i * 2) STORED, b)",
                        "CREATE INDEX x ON t(a) WHERE i > 10", "CREATE VIEW v AS SELECT a FROM t",
                        "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t WHERE i < 0; END"),
            # Rows that take as much room apart as together, in more than one block.
            "pictures": ("CREATE TABLE t(i INTEGER PRIMARY KEY, a BLOB)",
                         rows.replace("hex(randomblob(100))", "randomblob(3000)")),
            "empty": ("PRAGMA user_version=1",),
        }
        for name, statements in made.items():
            self.make(name, *statements).close()
        live = self.make("live", "PRAGMA journal_mode=WAL", "CREATE TABLE t(i, a)", rows)
        leader = self.house()
        self.assertTrue(leader.backup("t")["complete"])
        out = self.out(leader)
        self.assert_same_databases(out, made)
        self.assertEqual(content(f"{out}/live"), content(f"{self.src}/live"))
        self.assertEqual(sorted(os.listdir(out)), sorted([*made, "live"]))
        live.close()

    def test_names_of_any_bytes(self):
        names = [b"new\nline.db", b"not utf-8 \xff\xfe.db", b"a?b#c%41&mode=rw.db", b" ", b"-wal"]
        for i, name in enumerate(names):
            self.make(name, "CREATE TABLE t(a)", f"INSERT INTO t VALUES({i})").close()
        live = self.make(b"live\n\xff", "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)")
        leader = self.house()
        self.assertTrue(leader.backup("t")["complete"])
        out = os.fsencode(self.out(leader))
        self.assertEqual(sorted(os.listdir(out)), sorted([*names, b"live\n\xff"]))
        for i, name in enumerate(names):
            copy = sqlite3.connect(os.path.join(out, name))
            self.assertEqual(copy.execute("SELECT a FROM t").fetchall(), [(i,)])
            copy.close()
        live.close()

    @at_level("default", timeout_s=300)
    def test_above_1_gib(self):
        """With a lock page in it, and real pages on both of its sides. Nearly all of it is a hole:
        pages of the freelist, which no database needs to have written."""
        db = f"{self.src}/big"
        self.make("big", "CREATE TABLE t(a)", page_size=65536).close()
        pages = lock_page = GIB // 65536 + 1
        pages += 200
        beyond = [*range(lock_page - 100, lock_page), *range(lock_page + 1, pages + 1)]
        rest = list(range(4, lock_page - 100))
        with open(db, "r+b") as f:
            f.truncate(pages * 65536)
            # Two trunks of the freelist: SQLite takes what the first one lists before the rest.
            f.seek(2 * 65536)
            self.assertLess(len(rest), 65536 // 4 - 8)
            f.write(struct.pack(f">II{len(beyond) - 1}I", beyond[0], len(beyond) - 1, *beyond[1:]))
            f.seek((beyond[0] - 1) * 65536)
            f.write(struct.pack(f">II{len(rest)}I", 0, len(rest), *rest))
            f.seek(0)
            head = bytearray(f.read(100))
            head[28:40] = struct.pack(">III", pages, 3, pages - 3)  # the lock page is none of it
            f.seek(0)
            f.write(head)
        self.assertEqual(ask(db, "PRAGMA integrity_check").strip(), "ok")
        fill = ("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{}) "
                "INSERT INTO t SELECT randomblob(65000) FROM n")
        ask(db, fill.format(100))
        leader = self.house()
        leader.backup("t", timeout_s=200)
        ask(db, fill.format(250))
        ask(db, "DELETE FROM t WHERE rowid % 7 = 0")
        self.assertEqual(ask(db, "PRAGMA integrity_check").strip(), "ok")
        second = leader.backup("t", timeout_s=200)
        self.assertLess(second["bytes_sent"], 40 * MB)
        leader.run("verify", "--read-data", timeout_s=200)
        leader.run("restore", "t", "--target", self.path("out"), timeout_s=200)
        out = self.path("out") + db
        self.assertEqual(os.path.getsize(out), pages * 65536)
        self.assertEqual(ask(out, "PRAGMA integrity_check").strip(), "ok")
        self.assertEqual(ask(out, ".sha3sum --schema"), ask(db, ".sha3sum --schema"))


class TestBad(Kinds):
    def setUp(self):
        super().setUp()
        self.make("good", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)").close()

    def write(self, name, data):
        with open(f"{self.src}/{name}", "wb") as f:
            f.write(data)

    def failed(self, leader, expect=3):
        source = leader.backup("t", expect=expect)
        return {os.path.relpath(f["path"], self.src): f["reason"] for f in source["failed_entries"]}

    def test_what_only_looks_like_a_database_or_only_like_something_else(self):
        self.write("encrypted.db", self.rng.randbytes(40_000))
        self.write("encrypted.db-wal", self.rng.randbytes(4_000))
        self.write("zero.db", b"")
        self.write("short.db", b"SQLite format 3\0")
        leader = self.house()
        # A file that begins like one and is none cannot be read as one, and is said to be none.
        self.assertIn("is not a SQLite database", self.failed(leader)["short.db"])
        os.unlink(f"{self.src}/short.db")
        self.assertTrue(leader.backup("t")["complete"])
        out = self.out(leader)
        for name in ("encrypted.db", "encrypted.db-wal", "zero.db"):
            subprocess.run(["cmp", f"{self.src}/{name}", f"{out}/{name}"], check=True)

    def test_damaged_ones_cost_only_themselves(self):
        leader = self.house()
        names = ("cut", "malformed", "header", "unreadable-schema", "encrypted", "first-page")
        for name in names:
            self.make(name, "CREATE TABLE t(a)", "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL "
                      "SELECT i+1 FROM n WHERE i<200) INSERT INTO t SELECT randomblob(500) FROM n"
                      ).close()
        self.assertTrue(leader.backup("t")["complete"])
        good = {name: content(f"{self.src}/{name}") for name in names}
        os.truncate(f"{self.src}/cut", 20_000)
        for name, at, data in (("malformed", 100, b"\xff" * 3000), ("header", 16, b"\x33\x33"),
                               ("unreadable-schema", 3000, self.rng.randbytes(1096)),
                               ("encrypted", 0, self.rng.randbytes(40_000)),
                               ("first-page", 0, bytes(4096))):
            with open(f"{self.src}/{name}", "r+b") as f:
                f.seek(at)
                f.write(data)
        self.write("more", b"another file")
        failed = self.failed(leader)
        self.assertEqual(sorted(failed), sorted(names))
        for name in ("encrypted", "first-page"):
            self.assertIn("was a database and is none any more", failed[name])
        self.assertEqual(sorted(self.failed(leader)), sorted(names))  # time does not confirm it
        out = self.out(leader)
        for name in names:
            self.assertEqual(content(f"{out}/{name}"), good[name])
        subprocess.run(["cmp", f"{self.src}/more", f"{out}/more"], check=True)

    def test_loops_of_links(self):
        os.unlink(f"{self.src}/good")
        os.symlink("b", f"{self.src}/a")
        os.symlink("a", f"{self.src}/b")
        os.mkdir(f"{self.src}/d")
        os.symlink("..", f"{self.src}/d/up")
        os.symlink(self.src, f"{self.src}/d/all")
        leader = self.house()
        self.assertTrue(leader.backup("t")["complete"])
        subprocess.run(["diff", "-r", "--no-dereference", self.src, self.out(leader)], check=True)
        leader.sources["t"]["path"] = f"{self.src}/a"
        leader.write_conf()
        answer = leader.run("backup", "t", expect=(1, 2))
        self.assertIn("too many links", str(answer.json))

    def test_a_folder_without_permission(self):
        user = User()
        self.addCleanup(user.close)
        os.mkdir(f"{self.src}/closed")
        self.write("closed/file", b"was readable")
        self.make("closed/db", "CREATE TABLE t(a)").close()
        leader = self.house()
        subprocess.run(["chown", "-R", user.name, self.folder, leader.run_dir], check=True)
        prefix = ("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
        first = leader.start("backup", "t", json_output=True, prefix=prefix).wait(60)
        self.assertEqual(first.exit, 0, str(first))
        os.chown(f"{self.src}/closed", 0, 0)
        os.chmod(f"{self.src}/closed", 0o700)
        self.write("new", b"new")
        second = leader.start("backup", "t", json_output=True, prefix=prefix).wait(60)
        self.assertEqual(second.exit, 3, str(second))
        answer = json.loads(second.stdout)
        source = answer["sources"][0]
        [closed] = source["failed_entries"]
        self.assertIn("Permission denied", closed["reason"])
        self.assertIn(f"syncd runs as {user.name}", closed["hint"])
        self.assertIn(closed["hint"], [error["hint"] for error in answer["errors"]])
        self.assertEqual(source["carried_count"], 2)  # what is in it
        out = self.out(leader)
        with open(f"{out}/closed/file", "rb") as f:
            self.assertEqual(f.read(), b"was readable")
        self.assertEqual(sorted(os.listdir(f"{out}/closed")), ["db", "file"])
        self.assertTrue(os.path.exists(f"{out}/new"))

    def test_a_file_that_never_stops_changing(self):
        # Large enough that its writer has its turn while it is read, however busy the machine.
        self.write("restless", b"x" * 64_000_000)
        leader = self.house()
        restless = processes.start([sys.executable, "-c", RESTLESS, f"{self.src}/restless"],
                                   stdout=subprocess.PIPE)
        self.addCleanup(processes.kill_tree, restless)
        self.assertEqual(restless.stdout.readline(), b"ready\n")
        restless.stdout.close()
        failed = self.failed(leader)
        self.assertEqual(list(failed), ["restless"])
        self.assertIn("changes faster than it can be read", failed["restless"])
        processes.kill_tree(restless)
        self.assertTrue(leader.backup("t")["complete"])

    def test_extended_attributes(self):
        self.write("file", b"x")
        os.setxattr(f"{self.src}/file", "user.one", b"\0binary\xff")
        os.setxattr(f"{self.src}/file", "user.two", b"v" * 3000)
        os.setxattr(f"{self.src}/good", "user.db", b"of a database")
        os.setxattr(self.src, "user.dir", b"of a folder")
        leader = self.house()
        self.assertTrue(leader.backup("t")["complete"])
        out = self.out(leader)

        def attributes(folder):
            paths = [folder, *(os.path.join(folder, n) for n in sorted(os.listdir(folder)))]
            return [(os.path.basename(p), n, os.getxattr(p, n))
                    for p in paths for n in sorted(os.listxattr(p)) if n.startswith("user.")]
        self.assertEqual(len(attributes(out)), 4)
        self.assertEqual(attributes(out), attributes(self.src))


class TestMeanwhile(Kinds):
    """What happens to databases while a backup runs."""

    @at_level("quick")
    def test_the_mode_is_switched(self):
        db = f"{self.src}/bank"
        bank.create(db, self.seed, size_bytes=2 * MB)
        leader = self.house()
        journal, stop, failures = self.path("journal"), threading.Event(), []

        def work():
            live = bank.connect(db, 5.0)
            live.execute("PRAGMA synchronous=OFF")
            hand = bank.Hand(live, 1, self.rng)
            with open(journal, "ab", buffering=0) as f:
                for mode in ["DELETE", "WAL"] * 100000:
                    if stop.is_set():
                        break
                    try:
                        live.execute(f"PRAGMA journal_mode={mode}")
                    except sqlite3.OperationalError:
                        pass  # a reader is in the way of a switch, in WAL mode
                    for _ in range(4):
                        begun = time.time()
                        try:
                            seq, chain = hand.transaction()
                            committing = time.time()
                            live.execute("COMMIT")
                        except sqlite3.Error as e:
                            failures.append(str(e))
                            continue
                        f.write(bank.RECORD.pack(seq, 1, chain, begun, committing, time.time()))
                        stop.wait(0.01)
            live.close()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.addCleanup(stop.set)
        taken = []
        for _ in range(6):
            begun = time.time()
            source = leader.backup("t", expect=(0, 1, 3))
            if source["complete"]:
                taken.append((source["snapshot"], begun, time.time()))
            else:
                self.assertTrue(source["failed_entries"][0]["reason"])
        stop.set()
        thread.join(30)
        self.assertEqual(failures, [])
        self.assertTrue(taken, "no backup at all")
        for snapshot, begun, ended in taken:
            bank.examine_between(self.restored(leader, snapshot, db, "t"), [journal], begun, ended)

    def test_another_one_is_renamed_over_it(self):
        for mode in ("WAL", "DELETE"):
            with self.subTest(mode=mode):
                db, new = f"{self.src}/{mode}", self.path(f"new-{mode}")
                bank.create(db, 1, size_bytes=12 * MB, journal_mode=mode)
                bank.create(new, 2, size_bytes=MB, journal_mode=mode)
                wanted = content(new)
                if mode == "WAL":
                    leader, line = self.slow_house(0)
                line.rate_bytes = 2 * MB
                run = self.started(leader, line)
                os.rename(new, db)
                line.rate_bytes = 0
                result = run.wait(60)
                self.assertEqual(result.exit, 0, str(result))
                self.assertEqual(content(self.out(leader) + f"/{mode}"), wanted)

    def test_some_are_deleted_and_some_are_made(self):
        """What was there through the whole run is right; the run does not fail for the rest."""
        self.make("stays", "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)").close()
        bank.create(f"{self.src}/a-large", 1, size_bytes=12 * MB)
        for i in range(4):
            self.make(f"goes{i}", "CREATE TABLE t(a)", "INSERT INTO t VALUES(randomblob(9000))"
                      ).close()
        leader, line = self.slow_house(2 * MB)
        run = self.started(leader, line)
        for i in range(4):
            os.unlink(f"{self.src}/goes{i}")
        for mode in ("WAL", "DELETE"):
            self.make(f"new{mode}", f"PRAGMA journal_mode={mode}", "CREATE TABLE t(a)",
                      "INSERT INTO t VALUES(5)").close()
        line.rate_bytes = 0
        result = run.wait(60)
        self.assertEqual(result.exit, 0, str(result))
        out = self.out(leader)
        left = {"stays", "a-large"}
        self.assertLessEqual(left, set(os.listdir(out)))
        self.assertLessEqual(set(os.listdir(out)), left | {"newWAL", "newDELETE"})
        for name in os.listdir(out):
            self.assertEqual(content(f"{out}/{name}"), content(f"{self.src}/{name}"))

    @at_level("quick")
    def test_wal_databases_are_one_cut(self):
        """Two banks that one process commits to in turn: no copy of the second is ahead of the
        first by more than the moment between two BEGINs allows for."""
        names = [f"{self.src}/{i}.db" for i in range(6)]
        for i, db in enumerate(names):
            self.make(f"{i}.db", "PRAGMA journal_mode=WAL",
                      "CREATE TABLE t(n INTEGER PRIMARY KEY, a)",
                      "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<500) "
                      "INSERT INTO t SELECT -i, randomblob(3000) FROM n").close()
        leader, line = self.slow_house(0)
        stop = threading.Event()
        done = [0]

        def work():
            dbs = [bank.connect(db) for db in names]
            for db in dbs:
                db.execute("PRAGMA synchronous=OFF")
            while not stop.is_set():
                done[0] += 1
                for db in dbs:
                    db.execute("INSERT INTO t VALUES(?, ?)", (done[0], time.time()))
                stop.wait(0.002)
            for db in dbs:
                db.close()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.addCleanup(stop.set)
        processes.wait_until(lambda: done[0] > 20, 30, "some commits")
        spans = []
        for rate in (0, 4 * MB):  # the second time the workers are slower than the reading
            line.rate_bytes = rate
            before = done[0]
            self.assertTrue(leader.backup("t")["complete"])
            out = self.out(leader)
            last = []
            for db in names:
                copy = bank.open_copy(out + "/" + os.path.basename(db))
                last.append(copy.execute("SELECT max(n) FROM t").fetchone()[0])
                copy.close()
            spans.append((max(last) - min(last), done[0] - before))
        stop.set()
        thread.join(30)
        print(f"{self.id()}: rounds apart, of those during the backup: {spans}", flush=True)
        for apart, during in spans:
            self.assertGreater(during, 10)
            self.assertLess(apart, max(5, during / 4))
