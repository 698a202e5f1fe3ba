"""What lies beside a database - -wal, -shm, -journal - is read by SQLite's own rules, and left as it
was: nothing appears, nothing changes, nothing goes."""

import json
import os
import shutil
import signal
import subprocess
import sys

from harness import bank, processes
from harness.case import Case, at_level
from harness.leader import Worker
from harness.sqlite_oracle import content, look
from harness.user import User

MB = 1_000_000

# Commits and then holds the database open until it is killed.
OWNER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE IF NOT EXISTS owned(a)")
for i in range(100):
    db.execute("INSERT INTO owned VALUES(randomblob(500))")
print("ready", flush=True)
time.sleep(600)
"""


class TestSidecars(Case):
    def setUp(self):
        super().setUp()
        self.source = self.path("source")
        os.mkdir(self.source)
        os.mkdir(self.path("worker"))
        self.db = self.bank("source/bank.sqlite", size_bytes=MB)

    def house(self, path=None):
        leader = self.leader([Worker("w1", "file://" + self.path("worker", "repo"))],
                             {"db": {"path": path or self.db}})
        leader.run("setup")
        return leader

    def owner(self, db):
        owner = processes.start([sys.executable, "-c", OWNER, db], stdout=subprocess.PIPE)
        self.addCleanup(processes.kill_tree, owner)
        self.assertEqual(owner.stdout.readline(), b"ready\n")
        owner.stdout.close()
        return owner

    def crash(self, *left):
        """An owner dies; of its files those with these suffixes are left."""
        owner = self.owner(self.db)
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        for suffix in {"-wal", "-shm"} - set(left):
            os.unlink(self.db + suffix)

    def check(self, leader):
        """One backup: it says what sqlite3 says, and leaves everything alone."""
        wanted = content(self.db)
        before = look(self.source)
        source = leader.backup("db", expect=0 if wanted else None)
        self.assertEqual(look(self.source), before)
        if wanted:
            self.assertEqual(content(self.restored(leader, source["snapshot"], self.db)), wanted)
        return wanted

    @at_level("quick")
    def test_a_wal_without_a_shm(self):
        self.crash("-wal")
        leader = self.house()
        self.assertIsNotNone(self.check(leader))
        self.assertEqual(sorted(os.listdir(self.source)), ["bank.sqlite", "bank.sqlite-wal"])
        self.check(leader)

    @at_level("quick")
    def test_the_shm_of_a_dead_owner(self):
        self.crash("-wal", "-shm")
        self.assertIsNotNone(self.check(self.house()))

    def test_a_shm_without_a_wal(self):
        self.crash("-shm")
        self.assertIsNotNone(self.check(self.house()))

    def test_the_wal_ends_in_the_middle_of_a_commit(self):
        self.crash("-wal")
        os.truncate(self.db + "-wal", os.path.getsize(self.db + "-wal") - 5000)
        self.assertIsNotNone(self.check(self.house()))

    def test_a_wal_of_garbage_or_of_nothing(self):
        leader = self.house()
        for data in (self.rng.randbytes(200_000), b"", b"\0" * 40_000):
            with open(self.db + "-wal", "wb") as f:
                f.write(data)
            self.assertIsNotNone(self.check(leader))

    def test_a_journal_is_not_passed_over(self):
        """Beside a -wal that does not count, or in WAL mode: what it would undo must not be kept."""
        leader = self.house()
        with open(self.db + "-journal", "wb") as f:
            f.write(bytes.fromhex("d9d505f920a163d7") + b"\0\0\0\1" * 100)
        for data in (None, b"garbage" * 100):
            if data:
                with open(self.db + "-wal", "wb") as f:
                    f.write(data)
            before = look(self.source)
            source = leader.backup("db", expect=1)
            self.assertIn("left a -journal", source["failed_entries"][0]["reason"])
            self.assertEqual(look(self.source), before)
        os.unlink(self.db + "-wal")
        with open(self.db + "-journal", "wb") as f:
            f.write(b"\0" * 512)  # one that persists, and is done with
        self.assertIsNotNone(self.check(leader))

    def test_the_wal_of_another_database(self):
        """SQLite cannot tell: it takes the pages over. So do we, or we say that it is damaged."""
        for page_size in (4096, 1024):
            other = self.bank(f"other{page_size}.sqlite", size_bytes=MB // 4, page_size=page_size)
            keep, self.db = self.db, other
            self.crash("-wal")
            self.db = keep
            shutil.copyfile(other + "-wal", self.db + "-wal")
            if page_size == 4096:
                leader = self.house()
            self.check(leader)

    @at_level("quick")
    def test_an_application_that_is_open(self):
        """Its -shm is used, and is its own affair."""
        leader = self.house()
        owner = self.owner(self.db)
        names, wal = sorted(os.listdir(self.source)), os.stat(self.db + "-wal")
        snapshot = leader.backup("db")["snapshot"]
        self.assertEqual(sorted(os.listdir(self.source)), names)
        self.assertEqual(os.stat(self.db + "-wal").st_mtime_ns, wal.st_mtime_ns)
        self.assertEqual(content(self.restored(leader, snapshot, self.db)), content(self.db))
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)

    def test_an_application_that_starts_meanwhile(self):
        """What was read without a lock does not count then, and is read again."""
        self.db = self.bank("source/large.sqlite", size_bytes=12 * MB)
        os.unlink(self.path("source", "bank.sqlite"))
        self.crash("-wal")
        w1 = self.sshd("w1")
        line = self.proxy(w1)
        leader = self.leader([Worker.of(w1, line)], {"db": {"path": self.db}}, authorize=(w1,))
        leader.run("setup")
        line.rate_bytes = MB
        run = leader.start("backup", "db", json_output=True)
        begun = line.bytes_up
        processes.wait_until(lambda: line.bytes_up > begun + 100_000, 30, "the backup to be reading")
        live = bank.connect(self.db)
        live.execute("UPDATE account SET balance = balance")
        live.execute("INSERT INTO owned VALUES('meanwhile')")
        line.rate_bytes = 0
        result = run.wait(60)
        self.assertEqual(result.exit, 0, str(result))
        names = sorted(os.listdir(self.source))
        self.assertEqual(names, [f"large.sqlite{s}" for s in ("", "-shm", "-wal")])
        live.close()
        self.assertEqual(os.listdir(self.source), ["large.sqlite"])
        copy = self.restored(leader, leader.snapshots("db")[0]["id"], self.db)
        self.assertEqual(content(copy), content(self.db))

    def as_user(self, leader, user):
        """A backup by that user, who owns all but what the test took from him."""
        return leader.start("backup", "db", json_output=True, prefix=(
            "setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")).wait(60)

    def test_a_folder_that_may_not_be_written(self):
        user = User()
        self.addCleanup(user.close)
        leader = self.house(self.source)
        for wal in (False, True):
            with self.subTest(wal=wal):
                if wal:
                    self.crash("-wal")
                subprocess.run(["chown", "-R", user.name, self.folder, leader.run_dir], check=True)
                os.chmod(self.source, 0o555)
                wanted, before = content(self.db), look(self.source)
                result = self.as_user(leader, user)
                self.assertEqual(result.exit, 0, str(result))
                self.assertEqual(look(self.source), before)
                snapshot = json.loads(result.stdout)["sources"][0]["snapshot"]
                self.assertEqual(content(self.restored(leader, snapshot, self.db)), wanted)

    def test_a_log_that_may_not_be_read(self):
        user = User()
        self.addCleanup(user.close)
        self.crash("-wal")
        leader = self.house(self.source)
        with open(f"{self.source}/file", "w", encoding="ascii") as f:
            f.write("x")
        subprocess.run(["chown", "-R", user.name, self.folder, leader.run_dir], check=True)
        os.chown(self.db + "-wal", 0, 0)
        os.chmod(self.db + "-wal", 0o600)
        before = look(self.source)
        result = self.as_user(leader, user)
        self.assertEqual(result.exit, 3, str(result))
        self.assertIn("Permission denied", result.stdout)
        self.assertEqual(look(self.source), before)

    def test_a_database_of_another_user(self):
        """Sidecars of ours would lock him out, so it is left alone, by name."""
        user = User()
        self.addCleanup(user.close)
        self.crash("-wal")
        leader = self.house(self.source)
        with open(f"{self.source}/file", "w", encoding="ascii") as f:
            f.write("x")
        subprocess.run(["chown", "-R", user.name, self.folder, leader.run_dir], check=True)
        os.chown(self.db, 0, 0)
        os.chmod(self.db, 0o644)
        before = look(self.source)
        result = self.as_user(leader, user)
        self.assertEqual(result.exit, 3, str(result))
        self.assertIn("belongs to root", result.stdout)
        self.assertEqual(look(self.source), before)
