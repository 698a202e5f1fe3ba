"""Torture: the Nth call that touches a file fails, is interrupted or comes short, the Nth allocation
fails - for every command: no crash, no leak, no false success, and nothing stored is lost."""

import os
import shutil
import signal
import tempfile

from harness import bank, repository
from harness.case import Case, at_level, by_level
from local_house import LocalHouse, allocation_faults, run_as
from test_crash import spread


def is_libcs(result):
    """glibc answers a failed allocation in its look-up of names with an assertion of its own."""
    return result.exit == -signal.SIGABRT and "nss_" in result.stderr


class Act:
    """A command under torture. `prepare` is done before each run, so that there is something to do;
    `truth` when it has answered 0."""

    exits = (0,)  # when nothing fails

    def __init__(self, case, house):
        self.case, self.house = case, house

    def prepare(self):
        self.house.commit(1)

    def truth(self, where):
        pass

    def restored(self, *words):
        with tempfile.TemporaryDirectory(dir=self.case.folder) as target:
            self.house.leader.run("restore", "db", *words, "--target", target)
            return bank.examine(target + self.house.db).seq


class Setup(Act):
    """A worker that was replaced by an empty one."""
    words = ("setup",)

    def prepare(self):
        shutil.rmtree(self.house.roots[1])

    def truth(self, where):
        self.house.backup()


class Backup(Act):
    words = ("backup", "db")

    def truth(self, where):
        """On every worker, each by itself."""
        for root in self.house.roots:
            self.case.assertEqual(self.restored("--from", "file://" + root), self.house.state(),
                                  f"{where}; {root}")


class Snapshots(Act):
    words = ("snapshots",)


class Status(Act):
    words = ("status",)
    exits = (0, 3, 4)


class StatusFrom(Status):
    @property
    def words(self):
        return ("status", "--from", "file://" + self.house.roots[0])


class Check(Act):
    words = ("check",)
    exits = (0, 3)


class Verify(Act):
    words = ("verify", "db", "--read-data")


class Drill(Act):
    words = ("verify", "db", "--drill")


class Restore(Act):
    def __init__(self, case, house):
        super().__init__(case, house)
        self.target = case.path("target")
        self.snapshot = house.backup()["snapshot"]
        self.state = house.state()

    @property
    def words(self):
        return ("restore", "db", "--snapshot", self.snapshot, "--target", self.target)

    def prepare(self):
        shutil.rmtree(self.target, ignore_errors=True)

    def truth(self, where):
        self.case.assertEqual(bank.examine(self.target + self.house.db).seq, self.state, where)


class InPlace(Restore):
    @property
    def words(self):
        return ("restore", "db", "--snapshot", self.snapshot, "--in-place", "--yes")

    def prepare(self):
        self.house.commit(1)

    def truth(self, where):
        self.case.assertEqual(bank.examine(self.house.db).seq, self.state, where)


class Sync(Act):
    """A part is missing on one worker, another damaged there."""
    words = ("sync",)

    def prepare(self):
        self.house.leader.run("sync", expect=None)
        missing, damaged = self.case.rng.sample(repository.parts(self.house.roots[1], "db", "snap"),
                                                2)
        os.unlink(missing.path)
        repository.damage(damaged, self.case.rng)
        self.house.leader.run("verify", "--read-data", expect=(0, 3))

    def truth(self, where):
        self.house.leader.run("verify", "--read-data")


class Prune(Act):
    """One more snapshot than is kept."""
    words = ("prune",)

    def prepare(self):
        self.house.commit(1)
        self.house.backup()

    def truth(self, where):
        plan = self.house.leader.run("prune", "--dry-run").json["snapshots"]
        self.case.assertTrue(all(s["keep"] for s in plan), where)


class Adopt(Act):
    words = ("adopt", "--lead")

    def prepare(self):
        os.unlink(os.path.join(self.house.leader.state_dir, "token"))

    def truth(self, where):
        self.house.leader.run("backup", "db")


READING = (Snapshots, Status, StatusFrom, Check, Verify, Drill, Restore)
CHANGING = (Backup, Sync, InPlace, Adopt, Setup, Prune)


class TortureCase(Case):
    def setUp(self):
        super().setUp()
        self.house = LocalHouse(self)
        self.house.leader.run("setup")
        for _ in range(3):
            self.house.commit()
            self.house.backup()

    def acts(self, kinds):
        for kind in kinds:
            if kind is Prune:
                self.house.keep_last(3)
                for _ in range(3):
                    self.house.commit()
                    self.house.backup()
            yield kind(self, self.house)

    def mend(self):
        """What a failed command has left behind is in nobody's way."""
        leader = self.house.leader
        if not os.path.exists(os.path.join(self.house.roots[1], "syncd.repo")):
            leader.run("setup")
        leader.run("adopt", "--lead")  # a failed one has to be run again, any other finds it done
        self.house.backup()
        leader.run("sync")


class TestCalls(TortureCase):
    def torture(self, acts, kinds, points_each):
        for act in self.acts(acts):
            act.prepare()
            calls = self.house.calls_of(*act.words, expect=act.exits)
            for kind in kinds:
                for point in spread(self.rng, calls, points_each):
                    where = f"{' '.join(act.words)}: call {point} of {calls} gave {kind}"
                    with self.subTest(where):
                        self.one(act, f"{point}:{kind}", where)
            self.mend()
        self.house.assert_all_restore("at the end")

    def one(self, act, fault, where):
        try:
            act.prepare()
            result = self.house.faulty(*act.words, fault=fault)
            self.house.assert_sane(result, where)
            if result.exit == 0:
                act.truth(f"{where}: {result}")
            if fault.endswith(("EINTR", "short")):
                self.assertIn(result.exit, act.exits, f"{where}: {result}")
        finally:
            if isinstance(act, CHANGING):
                self.mend()

    @at_level("default", timeout_s=6 * 3600)
    def test_failing_calls_of_what_reads(self):
        self.torture(READING, ("EIO", "ENOSPC", "ENOMEM"), by_level(1, 2, 100000))

    @at_level("default", timeout_s=6 * 3600)
    def test_failing_calls_of_what_changes(self):
        self.torture(CHANGING, ("EIO", "ENOSPC", "ENOMEM"), by_level(1, 2, 100000))

    @at_level("default", timeout_s=6 * 3600)
    def test_interrupted_and_short_calls(self):
        self.torture(READING + CHANGING, ("EINTR", "short"), by_level(1, 2, 100000))


class TestAllocations(TortureCase):
    @at_level("default", timeout_s=6 * 3600)
    def test_failing_allocations(self):
        library = allocation_faults(self)
        count = self.path("allocations")
        leader = self.house.leader

        def run(act, env):
            return run_as(leader, leader.argv(*act.words, json_output=True),
                          {"LD_PRELOAD": library, **env})
        crashes = []
        for act in self.acts(READING + CHANGING):
            act.prepare()
            run(act, {"FAIL_MALLOC_COUNT": count})
            with open(count, encoding="ascii") as f:
                calls = int(f.read())
            self.mend()
            for point in spread(self.rng, calls, by_level(3, 12, 3000)):
                act.prepare()
                result = run(act, {"FAIL_MALLOC": str(point)})
                where = f"{' '.join(act.words)}: allocation {point} of {calls} failed"
                if result.exit not in (0, 1, 2, 3, 4) and not is_libcs(result):
                    crashes.append(f"{where}: {result}")
                if act.__class__ in CHANGING:
                    self.mend()
        self.assertEqual(crashes[:10], [], f"{len(crashes)} crashes")
        self.house.assert_all_restore("at the end")
