"""Retention and prune against real sshds: what is dropped and when it goes, by an oracle of its own;
kills at random moments; and that nothing which was dropped comes back."""

import datetime
import os
import sqlite3
import time

from harness import bank, processes, repository
from harness.case import Case, at_level, by_level

DAY = 86400
KEEP = {"keep_last": 2, "keep_daily": 4, "keep_weekly": 3}
MB = 1 << 20


class PruneCase(Case):
    def commit(self, db, count=1):
        live = sqlite3.connect(db, isolation_level=None)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(count):
            seq, _ = hand.transaction(2)
            live.execute("COMMIT")
        live.close()
        return seq

    def history(self, leader, db, days, per_day=2, first_day=0):
        """Snapshots taken over the last days, oldest first: (id, taken, seq)."""
        taken = []
        for day in range(days - 1, first_day - 1, -1):
            for part in range(per_day):
                seq = self.commit(db)
                offset = -day * DAY - (per_day - 1 - part) * 3600 - 60
                source = leader.backup("db", env={"SYNCD_TEST_CLOCK_OFFSET_S": str(offset)})
                self.assertFalse(source["unchanged"])
                at = datetime.datetime.fromisoformat(source["as_of"].replace("Z", "+00:00"))
                taken.append((source["snapshot"], at, seq))
        return taken

    @staticmethod
    def expected(taken, last=2, daily=4, weekly=3):
        """What KEEP keeps, told by sets of periods."""
        keep = {s for s, _, _ in taken[-last:]}
        for count, period in ((daily, lambda t: t.date()),
                              (weekly, lambda t: t.isocalendar()[:2])):
            newest = {}
            for s, at, _ in taken:
                newest[period(at)] = s
            keep |= set(list(newest.values())[-count:])
        return keep

    def marks(self, root):
        return {p.id: p.mark for p in repository.parts(root)}

    def snaps(self, root):
        return {p.id for p in repository.parts(root, "db", "snap")}

    def roots(self):
        return [repository.of(w) for w in (self.w1, self.w2)]

    def make_tight(self, leader):
        for w in leader.workers:
            w.settings["min_free"] = "900000G"
        leader.write_conf()

    def assert_restorable(self, leader, db, taken, ids):
        for snapshot, _, seq in taken:
            if snapshot not in ids:
                continue
            copy = self.restored(leader, snapshot, db)
            self.assertEqual(bank.examine(copy).seq, seq)
            os.unlink(copy)


class Prune(PruneCase):
    @at_level("quick")
    def test_rules_reasons_and_the_way_of_a_part(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db, **KEEP)
        taken = self.history(leader, db, by_level(9, 16, 30))
        keep = self.expected(taken)
        before = [repository.parts(r) for r in self.roots()]
        dry = leader.run("prune", "--dry-run").json
        self.assertEqual([repository.parts(r) for r in self.roots()], before)
        self.assertEqual({s["id"] for s in dry["snapshots"]}, {s for s, _, _ in taken})
        self.assertEqual({s["id"] for s in dry["snapshots"] if s["keep"]}, keep)
        for s in dry["snapshots"]:
            self.assertTrue(s["reasons"])
            self.assertEqual(s["source"], "db")
            self.assertEqual(s["workers"], ["w1", "w2"] if s["keep"] else [])
        newest = [s for s in dry["snapshots"] if s["id"] == taken[-1][0]][0]
        self.assertIn("last", newest["reasons"])
        self.assertIn(f"daily {taken[-1][1]:%Y-%m-%d}", newest["reasons"])

        wet = leader.run("prune").json
        self.assertEqual(wet["snapshots"], dry["snapshots"])
        for root, worker in zip(self.roots(), wet["workers"]):
            self.assertEqual(self.snaps(root), keep)
            self.assertEqual(worker["snapshots_dropped"], len(taken) - len(keep))
            for part in repository.parts(root, "db", "del"):
                self.assertLess(abs(part.mtime - time.time()), 60)
        self.assert_restorable(leader, db, taken, keep)
        self.assertEqual({s["id"] for s in leader.snapshots("db")}, keep)
        leader.run("verify", "--read-data")

        after = [repository.parts(r) for r in self.roots()]
        again = leader.run("prune").json
        self.assertTrue(all(s["keep"] for s in again["snapshots"]))
        self.assertEqual([repository.parts(r) for r in self.roots()], after)
        leader.run("sync")
        self.assertEqual([repository.parts(r) for r in self.roots()], after)

    @at_level("quick")
    def test_del_goes_after_a_day(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db, keep_last=1)
        old = leader.backup("db")["snapshot"]
        # Damaged everywhere: the next snapshot ships all again and does not list it.
        for root in self.roots():
            repository.damage(repository.parts(root)[0], self.rng)
        leader.run("verify", "--read-data", expect=1)
        seq = self.commit(db)
        new = leader.backup("db")["snapshot"]
        leader.run("prune")
        for root in self.roots():
            self.assertEqual(self.marks(root), {old: "del", new: "snap"})
            self.assertLess(abs(repository.parts(root, "db", "del")[0].mtime - time.time()), 60)
        leader.run("prune")
        for root in self.roots():
            self.assertEqual(self.marks(root), {old: "del", new: "snap"})
            os.utime(repository.parts(root, "db", "del")[0].path, (time.time() - DAY - 60,) * 2)
        leader.run("prune")
        for root in self.roots():
            self.assertEqual(self.marks(root), {new: "snap"})
        leader.run("verify", "--read-data")
        self.assert_restorable(leader, db, [(new, None, seq)], {new})

    @at_level("quick")
    def test_what_was_dropped_does_not_come_back(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db, **KEEP)
        taken = self.history(leader, db, 8)
        keep = self.expected(taken)
        self.w2.kill()
        answer = leader.run("prune", expect=3).json
        self.assertEqual({s["id"] for s in answer["snapshots"] if s["keep"]}, keep)
        self.assertEqual([w["reached"] for w in answer["workers"]], [True, False])
        self.w2.start()
        root1, root2 = self.roots()
        self.assertEqual(self.snaps(root1), keep)
        self.assertEqual(self.snaps(root2), {s for s, _, _ in taken})
        leader.run("sync")
        self.assertEqual(self.snaps(root1), keep)
        leader.run("verify")
        leader.run("prune")
        self.assertEqual(self.snaps(root2), keep)
        self.assertEqual(self.snaps(root1), keep)
        self.assert_restorable(leader, db, taken, keep)

    @at_level("quick")
    def test_clocks_apart(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db, **KEEP)
        self.history(leader, db, 8)
        before = [repository.parts(r) for r in self.roots()]
        for offset in (-2 * DAY, 2 * DAY, 4000 * DAY):
            answer = leader.run("prune", expect=3,
                                env={"SYNCD_TEST_CLOCK_OFFSET_S": str(offset)}).json
            self.assertIn("clock", answer["errors"][0]["message"])
            self.assertEqual([repository.parts(r) for r in self.roots()], before)
        leader.run("prune")
        self.assertNotEqual([repository.parts(r) for r in self.roots()], before)

    @at_level("quick")
    def test_a_clock_that_jumped(self):
        """Snapshots from years ahead and from 1970 in the middle cost none of the others."""
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db, **KEEP)
        taken = self.history(leader, db, 8, first_day=1)
        wrong = []
        for offset in (1500 * DAY, -20000 * DAY):
            self.commit(db)
            wrong.append(leader.backup("db", env={"SYNCD_TEST_CLOCK_OFFSET_S":
                                                  str(offset)})["snapshot"])
        taken += self.history(leader, db, 1)
        keep = {s["id"] for s in leader.run("prune").json["snapshots"] if s["keep"]}
        self.assertLessEqual(self.expected(taken), keep)
        self.assert_restorable(leader, db, taken, keep)

    @at_level("default", timeout_s=1800)
    def test_killed_at_random_moments(self):
        db = self.bank(size_bytes=2 * MB)
        leader = self.two_workers(db, proxies=True, keep_last=3)
        struck = 0
        for round_number in range(by_level(4, 12, 40)):
            taken = self.history(leader, db, 10, per_day=1)
            keep = {s for s, _, _ in taken[-3:]}
            self.make_tight(leader)
            for proxy in self.proxies:
                proxy.delay_s = 0.004
            run = leader.start("prune")
            # Nothing to wait for: the moment is the test.
            time.sleep(self.rng.uniform(0.2, 1.5))
            struck += run.running()
            run.kill()
            for proxy in self.proxies:
                proxy.delay_s = 0
            self.w1.wait_idle()
            self.w2.wait_idle()
            for root in self.roots():
                self.assertLessEqual(keep, self.snaps(root))
            self.assert_restorable(leader, db, taken, keep)
            leader.run("verify", "--read-data")
            leader.run("prune")
            for root in self.roots():
                self.assertEqual(self.snaps(root), keep, f"round {round_number}")
            self.assert_restorable(leader, db, taken, keep)
            for w in leader.workers:
                w.settings["min_free"] = "1M"
            leader.write_conf()
        self.assertGreater(struck, 0, "prune was always faster than the kill")

    @at_level("default")
    def test_restores_go_on_meanwhile(self):
        """A restore of a snapshot that is being dropped finds its parts under their new marks."""
        db = self.bank(size_bytes=20 * MB, body_bytes=3000)
        leader = self.two_workers(db, proxies=True, keep_last=1)
        taken = self.history(leader, db, 6, per_day=1)
        for proxy in self.proxies:
            proxy.rate_bytes = 8 * MB
        target = self.path("target")
        run = leader.start("restore", "db", "--snapshot", taken[0][0], "--target", target)
        down = self.proxies[0].bytes_down + self.proxies[1].bytes_down
        processes.wait_until(lambda: sum(p.bytes_down for p in self.proxies) > down + 2 * MB, 30,
                             "the restore is under way")
        leader.run("prune")
        self.assertEqual(len(self.snaps(self.roots()[0])), 1)
        result = run.wait(60)
        self.assertEqual(result.exit, 0, str(result))
        copy = os.path.join(target, db.lstrip("/"))
        self.assertEqual(bank.examine(copy).seq, taken[0][2])
