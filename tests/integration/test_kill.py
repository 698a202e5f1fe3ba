"""kill -9 of a backup at any moment: every earlier snapshot restores, and the next run simply
works."""

import os
import signal
import time

from harness import bank, processes, repository
from harness.case import Case, at_level, by_level

MB = 1_000_000


class TestKill(Case):
    syncd_proof = True

    def commit(self, db, count, items):
        live = bank.connect(db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(count):
            seq, _ = hand.transaction(items)
            live.execute("COMMIT")
        live.close()
        return seq

    @at_level("quick", timeout_s=1800)
    def test_random_moments(self):
        db = self.bank(size_bytes=8 * MB, body_bytes=3000)
        leader = self.two_workers(db)
        begun = time.monotonic()
        snapshots = [(leader.backup("db")["snapshot"], 1)]
        full_s = time.monotonic() - begun
        struck = 0
        for round_number in range(by_level(4, 15, 50)):
            seq = self.commit(db, 20, self.rng.choice((1, 20, 200)))
            moment_s = self.rng.uniform(0, full_s)
            run = leader.start("backup", "db")
            # Nothing to wait for: the moment is the test.
            time.sleep(moment_s)
            struck += run.running()
            run.kill()
            self.w1.wait_idle()
            self.w2.wait_idle()
            for snapshot, expected in snapshots:
                copy = self.restored(leader, snapshot, db)
                self.assertEqual(bank.examine(copy).seq, expected,
                                 f"round {round_number}, killed after {moment_s:.3f} s")
                os.unlink(copy)
            source = leader.backup("db")
            self.assertEqual([w["stored"] for w in source["workers"]], [True, True])
            copy = self.restored(leader, source["snapshot"], db)
            self.assertEqual(bank.examine(copy).seq, seq)
            if source["snapshot"] not in [s for s, _ in snapshots]:
                snapshots.append((source["snapshot"], seq))
        self.assertGreater(struck, 0, "the backup was always faster than the kill")
        leader.run("verify", "db", "--read-data")

    @at_level("default", timeout_s=300)
    def test_complete_parts_are_not_sent_again(self):
        db = self.bank(size_bytes=220 * MB, body_bytes=3000)
        leader = self.two_workers(db, proxies=True)
        roots = [repository.of(w) for w in (self.w1, self.w2)]
        for proxy in self.proxies:
            proxy.rate_bytes = 40 * MB
        run = leader.start("backup", "db")
        processes.wait_until(
            lambda: all(len(repository.parts(r, "db", "pack")) >= 2 for r in roots), 120,
            "two complete parts on each worker")
        run.kill()
        self.w1.wait_idle()
        self.w2.wait_idle()
        complete = [repository.parts(r, "db", "pack") for r in roots]
        for proxy in self.proxies:
            proxy.rate_bytes = 0
        before = [p.bytes_up for p in self.proxies]
        source = leader.backup("db")
        size = os.path.getsize(db)
        for root, kept, proxy, was in zip(roots, complete, self.proxies, before):
            now = {p.name: p.inode for p in repository.parts(root)}
            for part in kept:
                self.assertEqual(now.get(part.name), part.inode, "a complete part was replaced")
            sent = proxy.bytes_up - was
            self.assertLess(sent, size - sum(p.size for p in kept) + 8 * MB)
        self.assertEqual(bank.examine(self.restored(leader, source["snapshot"], db)).seq, 1)

    @at_level("quick")
    def test_signals_end_it_in_order(self):
        db = self.bank(size_bytes=30 * MB)
        leader = self.two_workers(db, proxies=True)
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            for proxy in self.proxies:
                proxy.rate_bytes = 3 * MB
            goal = self.proxies[0].bytes_up + 2 * MB
            run = leader.start("backup", "db")
            processes.wait_until(lambda: self.proxies[0].bytes_up > goal, 30, "2 MB went to w1")
            os.kill(run.pid, number)
            begun = time.monotonic()
            self.assertEqual(run.wait(15).exit, code)
            self.assertLess(time.monotonic() - begun, 10)
        for proxy in self.proxies:
            proxy.rate_bytes = 0
        leader.backup("db")
