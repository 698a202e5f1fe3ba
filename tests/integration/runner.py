#!/usr/bin/env python3
"""Runs the tests in tests/integration and tests/faults, one line each.

    runner.py [--quick|--long] [--preset P] [--jobs N] [--list] [--seed N] [--counts FILE] [--each]
              [NAME...]

NAME is any part of a test's full name, for example `test_kill` or `TestKill.test_random_moments`.
With --each one that no test has in its name is a failure.
Every test has a deadline; one that passes it fails, and what it started is ended.

Most tests wait more than they work, so N processes (3) take one class of tests after the other. A
class with `syncd_first` is begun first, because it is long; one with `syncd_alone` runs when all
the others have ended. Up to AGAIN_MAX tests that failed are run once more, alone and with the same
seed: what only failed because the machine was busy passes then, and both lines stay."""

import argparse
import faulthandler
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "faults")]

from harness.case import LEVELS  # noqa: E402
from harness.leader import PROJECT  # noqa: E402

DEADLINE_S = 240
AGAIN_MAX = 3


class Overdue(Exception):
    pass


def say(text):
    """Whole texts, whatever the other processes say."""
    sys.stdout.flush()
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(1, data):]


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
        self.proved = set()  # not to be run again

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
        text = f"{word:4} {self.preset} {test.id()} ({time.monotonic() - self.begun:.1f} s)\n"
        for _, details in self.told:
            if details:
                text += "     | " + details.rstrip().replace("\n", "\n     | ") + "\n"
        say(text)
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
        whole = getattr(test, "test_case", test)
        if issubclass(err[0], AssertionError) and getattr(whole, "syncd_proof", False):
            self.proved.add(whole)
        details = self._exc_info_to_string(err, test)  # without the frames of unittest
        if hasattr(self, "told"):
            self.told.append(("FAIL", details))
        else:
            say(f"FAIL {test.id()}\n{details}\n")

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


def by_class(tests):
    """The classes' tests, in the order in which they are to begin; those that run alone apart."""
    groups = {}
    for test in tests:
        groups.setdefault(type(test), []).append(test)
    alone = [g for c, g in groups.items() if getattr(c, "syncd_alone", False)]
    shared = [g for c, g in groups.items() if not getattr(c, "syncd_alone", False)]
    shared.sort(key=lambda g: not getattr(type(g[0]), "syncd_first", False))
    return shared, alone


def run_groups(groups, preset, failures):
    """Passed, failed, skipped. What failed goes into the file `failures`: a line with name, seed and
    whether it may be run again."""
    signal.signal(signal.SIGALRM, on_alarm)
    result = Lines(preset)
    for group in groups:
        unittest.TestSuite(group).run(result)
    # A failed subtest counts as its test.
    failed = {getattr(t, "test_case", t) for t, _ in result.errors + result.failures}
    for test in failed:
        final = "final" if test in result.proved else "again"
        os.write(failures, f"{test.id()} {getattr(test, 'seed', 0)} {final}\n".encode())
    skipped = len(result.skipped)
    return max(0, result.testsRun - len(failed) - skipped), len(failed), skipped


def run_again(a, failures):
    """How many of the tests that failed pass now."""
    failed = [line.split() for line in os.pread(failures, 1 << 20, 0).decode().splitlines()]
    passed = 0
    for name, seed, final in failed if len(failed) <= AGAIN_MAX else []:
        if final == "final":
            continue
        words = [sys.executable, os.path.abspath(__file__), "--preset", a.preset, "--seed", seed,
                 "--exactly", name, "--counts", os.devnull] + ([f"--{a.level}"] if a.level != "default" else [])
        say(f"again, alone: {name}\n")
        passed += subprocess.run(words, stdin=subprocess.DEVNULL).returncode == 0
    return passed


NUMBER, COUNTS = struct.Struct("=H"), struct.Struct("=3I")


def taken(groups, queue):
    """The groups whose numbers this process gets hold of."""
    while record := os.read(queue, NUMBER.size):
        yield groups[NUMBER.unpack(record)[0]]


def run_parallel(groups, preset, jobs, failures):
    queue_out, queue_in = os.pipe()
    counts_out, counts_in = os.pipe()
    os.write(queue_in, b"".join(NUMBER.pack(i) for i in range(len(groups))))
    os.close(queue_in)
    children = []
    for _ in range(jobs):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(counts_out)
            counts = run_groups(taken(groups, queue_out), preset, failures)
            os.write(counts_in, COUNTS.pack(*counts))
            os._exit(0)
        children.append(pid)
    os.close(counts_in)
    os.close(queue_out)
    total = (0, 0, 0)
    while record := os.read(counts_out, COUNTS.size):
        total = tuple(map(sum, zip(total, COUNTS.unpack(record))))
    for pid in children:
        if os.waitpid(pid, 0)[1] != 0:
            say("FAIL a process of the runner has ended; its tests are not counted\n")
            total = (total[0], total[1] + 1, total[2])
    return total


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", dest="level", action="store_const", const="quick", default="default")
    p.add_argument("--long", dest="level", action="store_const", const="long")
    p.add_argument("--preset", default="release", help="the build to test (release)")
    p.add_argument("--jobs", type=int, default=3)
    p.add_argument("--list", action="store_true")
    p.add_argument("--seed", type=int)
    p.add_argument("--exactly", metavar="NAME", help="this one test, by its full name, once")
    p.add_argument("--counts", help="file for `passed failed skipped again`; again: of the passed, "
                   "those that had failed first")
    p.add_argument("--each", action="store_true")
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    os.environ["SYNCD_TEST_LEVEL"] = a.level
    os.environ.setdefault("SYNCD_PROGRAM", os.path.join(PROJECT, f"build/{a.preset}/syncd/syncd"))
    # A sanitizer's word is a crash, not the program's own exit 1.
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
        os.environ.setdefault(name, "exitcode=99")
    if a.seed is not None:
        os.environ["SYNCD_TEST_SEED"] = str(a.seed)
    tests = list(chosen(a.level, [a.exactly] if a.exactly else a.names))
    if a.exactly:
        tests = [t for t in tests if t.id() == a.exactly]
    unknown = [n for n in a.names if a.each and not any(n in t.id() for t in tests)]
    for name in unknown:
        say(f"FAIL no test has {name} in its name\n")
    if a.list:
        print("\n".join(t.id() for t in tests))
        return 1 if unknown else 0
    shared, alone = by_class(tests)
    with tempfile.TemporaryFile() as f:
        counts = (0, 0, 0)
        if shared:
            counts = run_parallel(shared, a.preset, max(1, min(a.jobs, len(shared))), f.fileno())
        passed, failed, skipped = map(sum, zip(counts, run_groups(alone, a.preset, f.fileno())))
        again = 0 if a.exactly else run_again(a, f.fileno())
    passed, failed = passed + again, failed - again + len(unknown)
    if a.counts:
        with open(a.counts, "w", encoding="ascii") as f:
            f.write(f"{passed} {failed} {skipped} {again}\n")
    else:
        print(f"{passed} passed, {failed} failed, {skipped} skipped; {again} of the passed only "
              "when run once more")
    return 0 if passed and not failed and not skipped else 1


if __name__ == "__main__":
    sys.exit(main())
