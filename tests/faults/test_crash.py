"""The crash matrix: every call by which syncd changes or reads a file is made the last one. Then
running again must simply work, and every snapshot that was ever reported stored must restore."""

import os
import shutil
import signal

from harness import bank
from harness.case import Case, at_level, by_level
from local_house import LocalHouse


def spread(rng, calls, count):
    """`count` of the calls 1..calls, all when that is fewer; the first and last are in it."""
    if calls <= count:
        return list(range(1, calls + 1))
    return sorted({1, calls, *rng.sample(range(1, calls + 1), count - 2)})


class TestCrashMatrix(Case):
    syncd_proof = True

    @at_level("default", timeout_s=3600)
    def test_backup(self):
        house = LocalHouse(self)
        house.leader.run("setup")
        house.backup()
        house.commit()
        calls = house.calls_of("backup", "db")
        house.backup()
        points = spread(self.rng, calls, by_level(5, 60, 100000))
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
