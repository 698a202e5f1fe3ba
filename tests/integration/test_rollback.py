"""Databases in rollback mode, where a reader stops every writer: held for an instant at a time."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

from harness import bank, holds, processes
from harness.case import Case, at_level
from harness.leader import Worker, has_sanitizer
from harness.sqlite_oracle import look

MB = 1_000_000

# Writes so much in one transaction that it spills into the database file, and says when.
CRASHER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size=5")
db.execute("BEGIN")
db.execute("UPDATE item SET body = zeroblob(length(body))")
print("spilled", flush=True)
time.sleep(600)
"""


class TestRollback(Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("source"))
        os.mkdir(self.path("worker"))

    def house(self, db):
        leader = self.leader([Worker("w1", "file://" + self.path("worker", "repo"))],
                             {"db": {"path": db}})
        leader.run("setup")
        return leader

    def backups(self, leader, db, writers, count):
        """Takes some, then proves each."""
        taken = []
        for _ in range(count):
            begun = time.time()
            source = leader.backup("db")
            taken.append((source["snapshot"], begun, time.time()))
            writers.wait_for_commits(10)
        writers.stop()
        self.assertEqual(writers.failures, [], "commits failed")
        for snapshot, begun, ended in taken:
            copy = self.restored(leader, snapshot, db)
            bank.examine_between(copy, writers.journals, begun, ended)

    @at_level("quick")
    def test_writers_that_wait_200_ms_never_fail(self):
        for mode in ("DELETE", "TRUNCATE", "PERSIST"):
            with self.subTest(mode=mode):
                db = self.bank(f"source/{mode}.sqlite", size_bytes=12 * MB, journal_mode=mode)
                if mode == "DELETE":
                    leader = self.house(db)
                leader.sources["db"]["path"] = db
                leader.write_conf()
                writers = self.writers(db, count=3, rate=8, busy_ms=200, journal_mode=mode,
                                       synchronous="OFF", first={"D": 1, "T": 4, "P": 7}[mode[0]])
                writers.wait_for_commits(10)
                self.backups(leader, db, writers, 3)

    @at_level("default", timeout_s=300)
    def test_a_slow_uplink_stops_no_writer(self):
        db = self.bank("source/bank.sqlite", size_bytes=20 * MB, journal_mode="DELETE")
        w1 = self.sshd("w1")
        line = self.proxy(w1)
        leader = self.leader([Worker.of(w1, line)], {"db": {"path": db}}, authorize=(w1,))
        leader.run("setup")
        line.rate_bytes = 2 * MB
        writers = self.writers(db, count=3, rate=5, busy_ms=200, synchronous="OFF")
        writers.wait_for_commits(10)
        begun = time.time()
        run = leader.start("backup", "db", json_output=True)
        meter = holds.HoldMeter(db, run.pid, wal=False, interval_s=0.002)
        result = run.wait(200)
        ended = time.time()
        meter.stop()
        writers.stop()
        self.assertEqual(result.exit, 0, str(result))
        self.assertGreater(result.duration_s, 6, "the line was not slow")
        self.assertTrue(meter.holds, "no hold was seen: the meter is blind")
        print(f"{self.id()}: {len(meter.holds)} holds, longest {meter.longest_s * 1000:.0f} ms",
              flush=True)
        self.assertEqual(writers.failures, [], "commits failed")
        bank.examine_between(self.restored(leader, leader.snapshots("db")[0]["id"], db),
                             writers.journals, begun, ended)

    @at_level("long", timeout_s=600)
    def test_too_large_for_its_writers(self):
        """Longer to read than its writers pause: an error that says so, and still no failure."""
        if has_sanitizer():
            self.skipTest("it is about speed")
        db = self.bank("source/bank.sqlite", size_bytes=700 * MB, journal_mode="DELETE")
        leader = self.house(db)
        writers = self.writers(db, count=2, rate=50, busy_ms=200, synchronous="OFF")
        writers.wait_for_commits(10)
        source = leader.backup("db", expect=(0, 1), timeout_s=300)
        writers.wait_for_commits(10)
        writers.stop()
        self.assertEqual(writers.failures, [])
        if not source["complete"]:
            self.assertIn("writers are too fast", source["failed_entries"][0]["reason"])
            self.assertIn("after hooks", source["result"].json["errors"][0]["hint"])

    def test_a_machine_that_puts_it_to_sleep(self):
        """A hold in which it gets no processor for long ends late, but what it has copied counts."""
        db = self.bank("source/bank.sqlite", size_bytes=60 * MB, journal_mode="DELETE")
        leader = self.house(db)
        run = leader.start("backup", "db", json_output=True)
        sleeps = 0
        while run.running():
            os.kill(run.pid, signal.SIGSTOP)
            time.sleep(0.15)
            os.kill(run.pid, signal.SIGCONT)
            sleeps += 1
            time.sleep(0.005)
        result = run.wait(10)
        self.assertEqual(result.exit, 0, str(result))
        self.assertGreater(sleeps, 10, "it slept too rarely to prove anything")
        bank.examine(self.restored(leader, leader.snapshots("db")[0]["id"], db))

    def test_locked_for_good(self):
        db = self.bank("source/bank.sqlite", size_bytes=MB, journal_mode="DELETE")
        leader = self.house(db)
        first = leader.backup("db")["snapshot"]
        live = bank.connect(db)
        live.execute("BEGIN EXCLUSIVE")
        live.execute("UPDATE account SET balance = balance")
        source = leader.backup("db", expect=1)
        self.assertIn("locked by another program", source["failed_entries"][0]["reason"])
        live.execute("ROLLBACK")
        live.close()
        self.assertEqual([s["id"] for s in leader.snapshots("db")], [first])

    def test_a_writer_that_readers_starve(self):
        """A reader that never ends keeps the writer waiting with its PENDING lock, which in turn
        keeps us out: no snapshot, and not our doing."""
        db = self.bank("source/bank.sqlite", size_bytes=MB, journal_mode="DELETE")
        leader = self.house(db)
        reader, writer = bank.connect(db), bank.connect(db, timeout_s=0.2)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM item").fetchone()
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE account SET balance = balance + 1 WHERE id = 1")
        with self.assertRaises(sqlite3.OperationalError):
            writer.execute("COMMIT")
        source = leader.backup("db", expect=1)
        self.assertIn("locked by another program", source["failed_entries"][0]["reason"])
        reader.execute("ROLLBACK")
        writer.execute("COMMIT")
        leader.backup("db")
        reader.close()
        writer.close()

    def test_the_journal_of_a_crashed_owner(self):
        db = self.bank("source/bank.sqlite", size_bytes=2 * MB, journal_mode="DELETE")
        leader = self.house(self.path("source"))
        with open(self.path("source", "other"), "w", encoding="ascii") as f:
            f.write("a file")
        leader.backup("db")
        crasher = processes.start([sys.executable, "-c", CRASHER, db], stdout=subprocess.PIPE)
        self.assertEqual(crasher.stdout.readline(), b"spilled\n")
        crasher.send_signal(signal.SIGKILL)
        crasher.wait(10)
        crasher.stdout.close()
        self.assertGreater(os.path.getsize(db + "-journal"), 0)
        before = look(self.path("source"))
        source = leader.backup("db", expect=3)
        self.assertEqual(look(self.path("source")), before)
        self.assertEqual([f["path"] for f in source["failed_entries"]], [db])
        self.assertIn("left a -journal", source["failed_entries"][0]["reason"])
        self.assertEqual(bank.examine(self.restored(leader, source["snapshot"], db)).seq, 1)
        live = bank.connect(db)  # the application starts again
        self.assertEqual(live.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        live.close()
        source = leader.backup("db")
        self.assertEqual(bank.examine(self.restored(leader, source["snapshot"], db)).seq, 1)
