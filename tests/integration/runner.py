#!/usr/bin/env python3
"""Runs the tests in tests/integration and tests/faults, one line each.

    runner.py [--quick|--long] [--preset P] [--list] [--seed N] [--counts FILE] [NAME...]

NAME is any part of a test's full name, for example `test_kill` or `TestKill.test_random_moments`.
Every test has a deadline; one that passes it fails, and what it started is ended."""

import argparse
import faulthandler
import os
import signal
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "faults")]

from harness.case import LEVELS  # noqa: E402
from harness.leader import PROJECT  # noqa: E402

DEADLINE_S = 240


class Overdue(Exception):
    pass


def on_alarm(*_):
    raise Overdue("the test did not end in time")


def option_of(test, name, default):
    method = getattr(test, test._testMethodName, None)
    return getattr(method, name, getattr(test, name, default))


class Lines(unittest.TestResult):
    """One line per test; details of a failure right below it."""

    def __init__(self, preset):
        super().__init__()
        self.preset = preset

    def startTest(self, test):
        super().startTest(test)
        self.begun = time.monotonic()
        self.told = []
        limit = option_of(test, "syncd_timeout_s", DEADLINE_S)
        signal.alarm(limit)
        # Should the alarm be swallowed, the stacks of all threads show where.
        faulthandler.dump_traceback_later(limit + 60, exit=True)

    def stopTest(self, test):
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        word, details = self.told[0] if self.told else ("ok", "")
        print(f"{word:4} {self.preset} {test.id()} ({time.monotonic() - self.begun:.1f} s)", flush=True)
        for _, details in self.told:
            if details:
                print("     | " + details.rstrip().replace("\n", "\n     | "), flush=True)
        super().stopTest(test)

    def addError(self, test, err):
        super().addError(test, err)
        self._failed(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._failed(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed(subtest, err)

    def _failed(self, test, err):
        details = self._exc_info_to_string(err, test)  # without the frames of unittest
        if hasattr(self, "told"):
            self.told.append(("FAIL", details))
        else:
            print(f"FAIL {test.id()}\n{details}", flush=True)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.told.append(("skip", reason))


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def discover():
    loader = unittest.TestLoader()
    for folder in (HERE, os.path.join(os.path.dirname(HERE), "faults")):
        yield from flat(loader.discover(folder, pattern="test_*.py", top_level_dir=folder))


def chosen(level, names):
    allowed = LEVELS[:LEVELS.index(level) + 1]
    for test in discover():
        broken = isinstance(test, unittest.loader._FailedTest)
        if names and not broken and not any(n in test.id() for n in names):
            continue
        if broken or names or option_of(test, "syncd_level", "default") in allowed:
            yield test


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", dest="level", action="store_const", const="quick", default="default")
    p.add_argument("--long", dest="level", action="store_const", const="long")
    p.add_argument("--preset", default="release", help="the build to test (release)")
    p.add_argument("--list", action="store_true")
    p.add_argument("--seed", type=int)
    p.add_argument("--counts", help="file for `passed failed skipped`")
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    os.environ["SYNCD_TEST_LEVEL"] = a.level
    os.environ.setdefault("SYNCD_PROGRAM", os.path.join(PROJECT, f"build/{a.preset}/syncd/syncd"))
    # A sanitizer's word is a crash, not the program's own exit 1.
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
        os.environ.setdefault(name, "exitcode=99")
    if a.seed is not None:
        os.environ["SYNCD_TEST_SEED"] = str(a.seed)
    tests = list(chosen(a.level, a.names))
    if a.list:
        print("\n".join(t.id() for t in tests))
        return 0
    signal.signal(signal.SIGALRM, on_alarm)
    result = Lines(a.preset)
    unittest.TestSuite(tests).run(result)
    # A failed subtest counts as its test.
    failed = len({getattr(t, "test_case", t).id() for t, _ in result.errors + result.failures})
    skipped = len(result.skipped)
    passed = max(0, result.testsRun - failed - skipped)
    if a.counts:
        with open(a.counts, "w", encoding="ascii") as f:
            f.write(f"{passed} {failed} {skipped}\n")
    else:
        print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and not failed and not skipped else 1


if __name__ == "__main__":
    sys.exit(main())
