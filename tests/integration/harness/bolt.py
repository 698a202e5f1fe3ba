"""A bolt database that its owner writes, and bbolt's own judgement of copies: bolt_writer/main.go,
built by CMake."""

import json
import os
import subprocess

from . import processes
from .leader import PROJECT

TOOL = os.path.join(PROJECT, "build/release/tests/bolt_writer")


def tool(*args, timeout_s=120):
    """Runs it; the result with exit code and output."""
    if not os.access(TOOL, os.X_OK):
        raise AssertionError(f"{TOOL} is not built: needs golang-go, golang-github-coreos-bbolt-dev,"
                             " and cmake --preset release once they are there")
    return subprocess.run([TOOL, *args], capture_output=True, text=True, timeout=timeout_s,
                          stdin=subprocess.DEVNULL)


def judge(test, paths, mode="check"):
    """Tx.Check and the contents' own digest ("etcd": revisions) must find nothing."""
    done = tool(mode, *paths)
    test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    return done.stdout


def dump(path):
    done = tool("dump", path)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout


def make(path, **options):
    """A database that nobody has open."""
    done = tool("write", *_flags(commits=1, **options), path)
    if done.returncode != 0:
        raise AssertionError(done.stderr)


def commit(path):
    done = tool("commit", path)
    if done.returncode != 0:
        raise AssertionError(done.stderr)


def _flags(**options):
    return [f"-{k.replace('_', '-')}={str(v).lower() if isinstance(v, bool) else v}"
            for k, v in options.items()]


class Owner:
    """A process that has the database open, and its lock, and commits at a rate (0: all the time).
    Keywords are options of bolt_writer."""

    def __init__(self, path, **options):
        options = {"no_sync": True, **options}
        self.path = path
        self.process = processes.start([TOOL, "write", *_flags(**options), path],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the owner of {path} did not start")

    def stop(self):
        """Answers with its commits per second."""
        self.process.stdin.close()
        told = json.loads(self.process.stdout.readline())
        if self.process.wait(30) != 0:
            raise RuntimeError(f"the owner of {self.path} ended with {self.process.returncode}")
        self.process.stdout.close()
        return told["commits"] / told["seconds"]

    def kill(self):
        processes.kill_tree(self.process)
        for f in (self.process.stdin, self.process.stdout):
            f.close()
