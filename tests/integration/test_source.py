"""A backup never holds its source for as long as a network takes, and no commit fails for it."""

import time

from harness import bank, holds
from harness.case import Case, at_level
from harness.leader import Worker

MB = 1_000_000
UPLINK = 2 * MB


class TestHold(Case):
    def reading_s(self, path):
        begun = time.monotonic()
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 20):
                pass
        return time.monotonic() - begun

    def measured_backup(self, leader, db, timeout_s=200):
        run = leader.start("backup", "db", json_output=True)
        meter = holds.HoldMeter(db, run.pid)
        result = run.wait(timeout_s)
        meter.stop()
        self.assertEqual(result.exit, 0, str(result))
        print(f"{self.id()}: {len(meter.holds)} holds, longest {meter.longest_s:.2f} s, run "
              f"{result.duration_s:.1f} s", flush=True)
        return meter, result

    @at_level("default", timeout_s=300)
    def test_a_slow_uplink_does_not_hold_the_source(self):
        db = self.bank(size_bytes=40 * MB)
        w1 = self.sshd("w1")
        line = self.proxy(w1)
        leader = self.leader([Worker.of(w1, line)], {"db": {"path": db}}, authorize=(w1,))
        leader.run("setup")
        line.rate_bytes = UPLINK
        writers = self.writers(db, count=2, rate=20, busy_ms=2000, checkpoint="TRUNCATE",
                               checkpoint_every=0.5)
        writers.wait_for_commits(20)
        begun = time.time()
        meter, result = self.measured_backup(leader, db)
        ended = time.time()
        self.assertTrue(meter.holds, "no hold was seen: the meter is blind")
        writers.wait_for_commits(20)
        writers.stop()
        self.assertGreater(result.duration_s, 10, "the line was not slow")
        self.assertEqual(writers.failures, [], "commits failed")
        # 2 x reading + 2 s, with half a second for a busy machine and the sampling.
        self.assertLess(meter.longest_s, 2 * self.reading_s(db) + 2.5)
        snapshot = leader.snapshots("db")[0]["id"]
        bank.examine_between(self.restored(leader, snapshot, db), writers.journals, begun, ended)

    @at_level("default", timeout_s=300)
    def test_the_application_can_empty_its_log_meanwhile(self):
        db = self.bank(size_bytes=20 * MB)
        w1 = self.sshd("w1")
        line = self.proxy(w1)
        leader = self.leader([Worker.of(w1, line)], {"db": {"path": db}}, authorize=(w1,))
        leader.run("setup")
        line.rate_bytes = UPLINK
        writers = self.writers(db, count=1, rate=50, busy_ms=5000, checkpoint="RESTART",
                               checkpoint_every=0.2)
        self.measured_backup(leader, db)
        writers.stop()
        self.assertEqual(writers.failures, [])
        worst = max(seconds for _, seconds, *_ in writers.checkpoints)
        self.assertLess(worst, 5)

    @at_level("quick")
    def test_commits_are_hardly_slower(self):
        db = self.bank(size_bytes=60 * MB)
        leader = self.two_workers(db)
        writers = self.writers(db, count=2, rate=50)
        writers.wait_for_commits(200)
        calm_ended = time.time()
        for _ in range(3):
            leader.backup("db")
        busy_ended = time.time()
        writers.stop()
        self.assertEqual(writers.failures, [])
        calm = writers.latency_ms(1, ended=calm_ended)
        worst = writers.latency_ms(1, begun=calm_ended, ended=busy_ended)
        # Both processors are full meanwhile; a lock held would show as seconds.
        self.assertLess(worst, max(250, 3 * calm))
