"""The tools that the other tests trust: an oracle that cannot say no proves nothing."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
import unittest

from harness import bank, contract, holds
from harness.case import Case, at_level
from harness.leader import PROJECT, Result


@at_level("quick")
class TestOracle(Case):
    def consistent_copy(self, db, name):
        copy = self.path(name)
        source, target = sqlite3.connect(db), sqlite3.connect(copy)
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM ledger").fetchone()
        source.backup(target)
        source.close()
        target.close()
        return copy

    def test_a_consistent_copy_is_known_and_others_are_not(self):
        db = self.bank(size_bytes=2_000_000)
        writers = self.writers(db, count=2, rate=200, autocheckpoint=100)
        writers.wait_for_commits(20)
        begun = time.time()
        copy = self.consistent_copy(db, "copy.sqlite")
        ended = time.time()
        writers.wait_for_commits(20)
        later = time.time()
        writers.wait_for_commits(20)
        writers.stop()
        self.assertEqual(writers.failures, [])
        bank.examine_between(copy, writers.journals, begun, ended)
        with self.assertRaises(AssertionError):  # too old for this time
            bank.examine_between(copy, writers.journals, later, time.time())
        with self.assertRaises(AssertionError):  # too new for this time
            bank.examine_between(copy, writers.journals, 0, begun - 0.2)

    def test_half_a_transaction_is_found(self):
        db = self.bank(size_bytes=20_000)
        for n, damage in enumerate((
                "UPDATE account SET balance = balance - 1 WHERE id = 1",
                "UPDATE item SET body = x'00' WHERE id = (SELECT min(id) FROM item)",
                "DELETE FROM item WHERE id = (SELECT min(id) FROM item)",
                "DELETE FROM ledger WHERE seq = (SELECT max(seq) FROM ledger)",
                "UPDATE ledger SET chain = x'00' WHERE seq = 3")):
            copy = self.path(f"copy{n}.sqlite")
            live = bank.connect(db)
            hand = bank.Hand(live, 1, self.rng)
            for _ in range(10):
                hand.transaction()
                live.execute("COMMIT")
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            live.close()
            shutil.copyfile(db, copy)
            bank.examine(copy)
            other = bank.connect(copy)
            other.execute("PRAGMA journal_mode=DELETE")
            other.execute(damage)
            other.close()
            with self.subTest(damage), self.assertRaises(AssertionError):
                bank.examine(copy)

    def test_holds_are_seen(self):
        db = self.bank(size_bytes=100_000)
        keeper = bank.connect(db)  # so that the -wal stays
        keeper.execute("UPDATE account SET balance = balance")
        meter = holds.HoldMeter(db, os.getpid())
        reader = bank.connect(db)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM account").fetchall()
        time.sleep(0.5)
        reader.execute("COMMIT")
        time.sleep(0.1)
        meter.stop()
        self.assertAlmostEqual(meter.longest_s, 0.5, delta=0.1)


@at_level("quick")
class TestWorkerTools(Case):
    def sftp(self, sshd, port, key, script, timeout_s=30):
        known = self.path("known")
        with open(known, "w", encoding="ascii") as f:
            f.write(sshd.known_hosts_line(port))
        return subprocess.run(
            ["sftp", "-b", "-", "-P", str(port), "-i", key, "-o", f"UserKnownHostsFile={known}",
             "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes",
             f"{sshd.user}@127.0.0.1:{sshd.root}"],
            input=script, text=True, capture_output=True, timeout=timeout_s)

    def test_sshd_proxy_and_kill(self):
        sshd = self.sshd("w1")
        proxy = self.proxy(sshd, rate_bytes=1_000_000)
        leader = self.leader([], {}, authorize=(sshd,))
        payload = self.path("payload")
        with open(payload, "wb") as f:
            f.write(self.rng.randbytes(2_000_000))
        begun = time.monotonic()
        answer = self.sftp(sshd, proxy.port, leader.key, f"put {payload} a\n")
        took = time.monotonic() - begun
        self.assertEqual(answer.returncode, 0, answer.stderr)
        with open(payload, "rb") as a, open(os.path.join(sshd.root, "a"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.assertGreater(took, 1.7)
        self.assertLess(took, 4)
        proxy.rate_bytes, proxy.cut_after = 0, proxy.bytes_up + 500_000
        put = f"put {payload} b\n"
        self.assertNotEqual(self.sftp(sshd, proxy.port, leader.key, put).returncode, 0)
        proxy.restore()
        self.assertEqual(self.sftp(sshd, proxy.port, leader.key, put).returncode, 0)
        sshd.kill()
        self.assertNotEqual(self.sftp(sshd, proxy.port, leader.key, "ls\n").returncode, 0)
        sshd.start()
        self.assertEqual(self.sftp(sshd, sshd.port, leader.key, "ls\n").returncode, 0)


@at_level("quick")
class TestContract(unittest.TestCase):
    def test_wrong_answers_are_found(self):
        good = ('{"syncd":"1","command":"snapshots","exit":0,"errors":[],"snapshots":[{"id":"' +
                "a" * 64 + '","source":"s","taken_at":"2026-01-01T00:00:00Z","complete":true,'
                '"size_bytes":1,"new_bytes":1,"proven_at":null,"workers":["w1"]}]}\n')

        def check(text, code=0):
            contract.check_json("snapshots", Result(["syncd"], code, text))
        check(good)
        for bad in (good + "{}", good.replace('"errors":[],', ""),
                    good.replace('"proven_at":null,', ""),
                    good.replace("00Z", "00+00:00"), good.replace('"exit":0', '"exit":1'), ""):
            with self.subTest(bad), self.assertRaises(AssertionError):
                check(bad)


@at_level("quick")
class TestRunner(Case):
    """What ran no test has proved nothing."""

    def run_tests(self, *words):
        runner = os.path.join(PROJECT, "tests/integration/runner.py")
        return subprocess.run([sys.executable, runner, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)

    def test_names_that_no_test_has(self):
        answer = self.run_tests("TestNobodyWrote")
        self.assertEqual(answer.returncode, 1, answer.stdout)
        answer = self.run_tests("--each", "--list", "TestOracle.test_half", "TestNobodyWrote")
        self.assertEqual(answer.returncode, 1, answer.stdout)
        self.assertIn("no test has TestNobodyWrote in its name", answer.stdout)
        answer = self.run_tests("--each", "--list", "TestOracle.test_half")
        self.assertEqual(answer.returncode, 0, answer.stdout)
