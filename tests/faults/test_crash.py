"""The crash matrix: every call by which syncd changes or reads a file is made the last one. Then
running again must simply work, and every snapshot that was ever reported stored must restore."""

import os
import shutil
import signal

from harness import bank
from harness.case import Case, at_level, by_level
from local_house import LocalHouse, allocation_faults, run_as


def spread(rng, calls, count):
    """`count` of the calls 1..calls, all when that is fewer; the first and last are in it."""
    if calls <= count:
        return list(range(1, calls + 1))
    return sorted({1, calls, *rng.sample(range(1, calls + 1), count - 2)})


def is_libcs(result):
    """glibc answers a failed allocation in its look-up of names with an assertion of its own."""
    return result.exit == -signal.SIGABRT and "nss_" in result.stderr


class TestCrashMatrix(Case):
    @at_level("default", timeout_s=3600)
    def test_backup(self):
        house = LocalHouse(self)
        house.leader.run("setup")
        house.backup()
        house.commit()
        calls = house.calls_of("backup", "db")
        house.backup()
        points = spread(self.rng, calls, by_level(5, 400, 100000))
        print(f"{self.id()}: {calls} calls, {len(points)} of them the last", flush=True)
        for n, point in enumerate(points):
            where = f"killed at call {point} of {calls}"
            house.commit()
            result = house.faulty("backup", "db", fault=f"{point}:kill")
            self.assertIn(result.exit, (-signal.SIGKILL, 0), f"{where}: {result}")
            # Comparing all of them each time would take the square of the points.
            if n % 8 == 0 or n == len(points) - 1:
                house.assert_all_restore(where)
            source = house.backup()
            target = self.path("target")
            copy = house.leader.restored("db", source["snapshot"], target, house.db)
            self.assertEqual(bank.examine(copy).seq, house.state(), where)
            shutil.rmtree(target)

    @at_level("default", timeout_s=1200)
    def test_restore(self):
        house = LocalHouse(self)
        house.leader.run("setup")
        source = house.backup()
        target = self.path("target")
        calls = house.calls_of("restore", "db", "--target", target)
        for point in spread(self.rng, calls, by_level(5, 40, 100000)):
            where = f"killed at call {point} of {calls}"
            shutil.rmtree(target)
            house.faulty("restore", "db", "--target", target, fault=f"{point}:kill")
            copy = target + house.db
            if os.path.exists(copy):
                self.assertEqual(bank.examine(copy).seq, house.state(), where)
            again = house.leader.restored("db", source["snapshot"], target, house.db)
            self.assertEqual(bank.examine(again).seq, house.state(), where)

    @at_level("default", timeout_s=1200)
    def test_setup(self):
        first = LocalHouse(self, "first")
        calls = first.calls_of("setup")
        for point in spread(self.rng, calls, by_level(5, 20, 100000)):
            house = LocalHouse(self, f"leader{point}")
            house.faulty("setup", fault=f"{point}:kill")
            house.leader.run("setup")
            house.backup()
            house.assert_all_restore(f"setup killed at call {point} of {calls}")
            os.unlink(house.db)


class TestTorture(Case):
    """The Nth call fails: no crash, no leak, no false success."""

    def commands(self, house):
        snapshot = house.backup()["snapshot"]
        target = self.path("target")
        return (("backup", "db"), ("snapshots",), ("verify", "db", "--read-data"),
                ("restore", "db", "--snapshot", snapshot, "--target", target), ("check",))

    def torture(self, kinds, points_each):
        house = LocalHouse(self)
        house.leader.run("setup")
        house.backup()
        for command in self.commands(house):
            house.commit()
            calls = house.calls_of(*command, expect=(0, 3) if command[0] == "check" else 0)
            for kind in kinds:
                for point in spread(self.rng, calls, points_each):
                    shutil.rmtree(self.path("target"), ignore_errors=True)
                    house.commit()
                    where = f"{' '.join(command)}: call {point} of {calls} gave {kind}"
                    result = house.faulty(*command, fault=f"{point}:{kind}")
                    house.assert_sane(result, where)
                    self.assert_truthful(house, command, result, where)
                    if kind in ("EINTR", "short") and command[0] != "check":
                        self.assertEqual(result.exit, 0, f"{where}: {result}")
        house.assert_all_restore("at the end")
        house.backup()

    def assert_truthful(self, house, command, result, where):
        if command[0] == "restore" and result.exit == 0:
            bank.examine(self.path("target") + house.db)
        if command[0] == "backup" and result.exit == 0:
            target = self.path("truth")
            answer = house.leader.run("restore", "db", "--target", target)
            self.assertEqual(bank.examine(target + house.db).seq, house.state(),
                             f"{where}: {result}\nrestored: {answer}")
            shutil.rmtree(target)

    @at_level("default", timeout_s=3600)
    def test_failing_calls(self):
        self.torture(("EIO", "ENOSPC", "ENOMEM"), by_level(3, 8, 100000))

    @at_level("default", timeout_s=3600)
    def test_interrupted_and_short_calls(self):
        self.torture(("EINTR", "short"), by_level(3, 5, 100000))


class TestAllocations(Case):
    """The Nth allocation fails, in syncd or in a library: no crash, and nothing stored is lost."""

    @at_level("default", timeout_s=3600)
    def test_failing_allocations(self):
        library = allocation_faults(self)
        crashes = []
        house = LocalHouse(self)
        house.leader.run("setup")
        snapshot = house.backup()["snapshot"]
        target = self.path("target")
        for command in (("backup", "db"), ("snapshots",), ("verify", "db", "--read-data"),
                        ("restore", "db", "--snapshot", snapshot, "--target", target), ("check",)):
            house.commit()
            count = self.path("allocations")

            def run(env):
                return run_as(house.leader, house.leader.argv(*command, json_output=True),
                              {"LD_PRELOAD": library, **env})
            run({"FAIL_MALLOC_COUNT": count})
            with open(count, encoding="ascii") as f:
                calls = int(f.read())
            for point in spread(self.rng, calls, by_level(5, 60, 3000)):
                shutil.rmtree(target, ignore_errors=True)
                house.commit(1)
                result = run({"FAIL_MALLOC": str(point)})
                where = f"{' '.join(command)}: allocation {point} of {calls} failed"
                if result.exit not in (0, 1, 2, 3, 4) and not is_libcs(result):
                    crashes.append(f"{where}: {result}")
        self.assertEqual(crashes[:10], [], f"{len(crashes)} crashes")
        house.assert_all_restore("at the end")
        house.backup()
