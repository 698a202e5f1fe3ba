"""Whole trees: what lives in a folder comes back as it was; what fails costs only itself."""

import os
import shutil
import sqlite3
import subprocess
import time

from harness.case import Case, at_level
from harness.leader import Worker

FORMAT = r"%P\0%y\0%m\0%s\0%T@\0%u\0%g\0%n\0%l\0\0"


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def listing(folder):
    """What find says of everything in a folder; sizes of folders are the file system's own."""
    out = subprocess.run(["find", ".", "-printf", FORMAT], cwd=folder, capture_output=True,
                         check=True).stdout
    rows = [row.split(b"\0") for row in out.split(b"\0\0") if row]
    return sorted(r[:3] + ([b""] if r[1] == b"d" else r[3:4]) + r[4:] for r in rows)


@at_level("quick")
class TestTree(Case):
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

    def out(self, leader, name):
        leader.run("restore", "t", "--target", self.path(name))
        return self.path(name) + self.src

    def fill(self):
        for folder in ("a/b/c", "a-b", "empty"):
            os.makedirs(f"{self.src}/{folder}")
        for i in range(200):
            write(f"{self.src}/a/f{i}", self.rng.randbytes(self.rng.randrange(5000)))
        write(f"{self.src}/a/b/big", self.rng.randbytes(2_000_000))
        write(os.fsencode(self.src) + b"/a/new\nline\xff\xfe", b"odd name")
        os.symlink("a/f0", f"{self.src}/link")
        os.symlink("/nowhere", f"{self.src}/a-b/dangling")
        os.symlink(".", f"{self.src}/a/loop")
        os.link(f"{self.src}/a/f1", f"{self.src}/a-b/hard")
        with open(f"{self.src}/sparse", "wb") as f:
            f.truncate(50_000_000)
            f.seek(20_000_000)
            f.write(b"hello" * 2000)
        os.chmod(f"{self.src}/a/b", 0o2775)
        os.utime(f"{self.src}/a/f4", ns=(10**18, 10**18 + 123456789))
        os.chmod(f"{self.src}/a-b", 0o555)

    def test_everything_comes_back(self):
        self.fill()
        leader = self.house()
        self.assertTrue(leader.backup("t")["complete"])
        leader.run("verify", "--read-data")
        out = self.out(leader, "out")
        subprocess.run(["diff", "-r", "--no-dereference", self.src, out], check=True)
        self.assertEqual(listing(self.src), listing(out))
        self.assertLess(os.stat(f"{out}/sparse").st_blocks * 512, 1_000_000)

    def test_unchanged_and_one_file_changed(self):
        self.fill()
        leader = self.house()
        time.sleep(2.2)
        leader.backup("t")
        again = leader.backup("t")
        self.assertTrue(again["unchanged"])
        self.assertEqual(again["bytes_sent"], 0)
        write(f"{self.src}/a/f7", b"changed")
        third = leader.backup("t")
        self.assertFalse(third["unchanged"])
        self.assertLess(third["bytes_read"], 100_000)
        subprocess.run(["diff", "-r", "--no-dereference", self.src, self.out(leader, "out")],
                       check=True)

    def test_excludes_and_special_files(self):
        self.fill()
        os.mkfifo(f"{self.src}/fifo")
        leader = self.house(exclude=["f1?", "empty/"])
        leader.backup("t")
        out = self.out(leader, "out")
        self.assertEqual(set(os.listdir(self.src)) - set(os.listdir(out)), {"fifo", "empty"})
        self.assertEqual(set(os.listdir(f"{self.src}/a")) - set(os.listdir(f"{out}/a")),
                         {f"f1{i}" for i in range(10)})

    def test_databases_by_their_header(self):
        live = sqlite3.connect(f"{self.src}/odd.name")
        live.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(7)")
        leader = self.house()
        leader.backup("t")
        out = self.out(leader, "out")
        self.assertEqual(os.listdir(out), ["odd.name"])
        copy = sqlite3.connect(f"{out}/odd.name")
        self.assertEqual(copy.execute("SELECT a FROM t").fetchall(), [(7,)])
        copy.close()
        live.close()

    def test_a_damaged_database_is_carried_over(self):
        db = f"{self.src}/x.db"
        live = sqlite3.connect(db)
        live.executescript("CREATE TABLE t(a); INSERT INTO t VALUES(7)")
        live.close()
        leader = self.house()
        leader.backup("t")
        with open(db, "r+b") as f:
            f.seek(16)
            f.write(b"\xff" * 84)
        write(f"{self.src}/new", b"new")
        source = leader.backup("t", expect=3)
        self.assertFalse(source["complete"])
        self.assertEqual([f["path"] for f in source["failed_entries"]], [db])
        out = self.out(leader, "out")
        copy = sqlite3.connect(f"{out}/x.db")
        self.assertEqual(copy.execute("SELECT a FROM t").fetchall(), [(7,)])
        copy.close()
        with open(f"{out}/new", "rb") as f:
            self.assertEqual(f.read(), b"new")

    def test_what_vanishes_with_most_of_the_source_waits_an_hour(self):
        for i in range(6):
            os.mkdir(f"{self.src}/d{i}")
            write(f"{self.src}/d{i}/f", b"x" * i)
        leader = self.house()
        leader.backup("t")
        os.rename(self.src, self.src + ".away")
        self.assertEqual(len(leader.backup("t", expect=(1, 3))["failed_entries"]), 1)
        os.mkdir(self.src)
        self.assertEqual(len(leader.backup("t", expect=(1, 3))["failed_entries"]), 1)
        os.rmdir(self.src)
        os.rename(self.src + ".away", self.src)
        self.assertTrue(leader.backup("t")["complete"])
        for i in range(5):
            shutil.rmtree(f"{self.src}/d{i}")
        self.assertFalse(leader.backup("t", expect=3)["complete"])
        self.assertEqual(len(os.listdir(self.out(leader, "kept"))), 6)
        jumped = {"SYNCD_TEST_CLOCK_OFFSET_S": "172800"}
        self.assertFalse(leader.backup("t", expect=3, env=jumped)["complete"])
        later = {"SYNCD_TEST_BOOT_OFFSET_S": "3700"}
        self.assertTrue(leader.backup("t", env=later)["complete"])
        self.assertEqual(os.listdir(self.out(leader, "gone")), ["d5"])
