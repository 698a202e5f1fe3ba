"""Folders of python3-diskcache: cache.db and the value files that it names."""

import glob
import os
import sqlite3
import subprocess

from harness import processes
from harness.case import Case, at_level
from harness.leader import Worker

PYTHON = "/usr/bin/python3"  # Debian's, which has Debian's module

FILL = """
import diskcache, sys
cache = diskcache.Cache(sys.argv[1])
for i in range(20):
    cache[i] = bytes([i]) * 50_000
cache["small"] = "in the database itself"
"""

# The cache's own judgement: raises when a value is missing or a file is not named.
CHECK = """
import diskcache, sys, warnings
warnings.simplefilter("error")
cache = diskcache.Cache(sys.argv[1])
cache.check()
assert [cache[i] for i in range(20)] == [bytes([i]) * 50_000 for i in range(20)]
assert cache["small"] == "in the database itself"
"""

FIX = "import diskcache, sys; diskcache.Cache(sys.argv[1]).check(fix=True)"

# Adds, replaces and removes values of some 30 KB, each the name of its key, until it is ended.
USER = """
import diskcache, random, sys, time
cache = diskcache.Cache(sys.argv[1], disk_min_file_size=1024)
rng, i = random.Random(int(sys.argv[2])), 0
while True:
    i += 1
    cache[f"k{i}"] = f"k{i} ".encode() * 8000
    if i % 5 == 0:
        k = f"k{rng.randrange(1, i)}"
        cache[k] = f"{k} ".encode() * 8000
    if i % 20 == 0:
        cache.delete(f"k{rng.randrange(1, i)}")
    if i == 20:
        print("ready", flush=True)
    time.sleep(0.005)
"""


class TestDiskcache(Case):
    def setUp(self):
        super().setUp()
        self.src = self.path("storage")
        self.folder_of_cache = f"{self.src}/local_intermittent"
        os.makedirs(self.folder_of_cache)
        os.mkdir(self.path("w1"))
        self.leader_ = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                                   {"t": {"path": self.src}})
        self.leader_.run("setup")

    def out(self, name):
        self.leader_.run("restore", "t", "--target", self.path(name))
        return self.path(name) + self.folder_of_cache

    def python(self, program, *args):
        subprocess.run([PYTHON, "-c", program, *args], check=True, timeout=60)

    def named(self, folder):
        db = sqlite3.connect(f"{folder}/cache.db")
        rows = dict(db.execute("SELECT filename, key FROM Cache WHERE filename IS NOT NULL"))
        db.close()
        return rows

    @at_level("quick")
    def test_a_missing_value_is_reported_and_the_rest_is_whole(self):
        self.python(FILL, self.folder_of_cache)
        self.assertTrue(self.leader_.backup("t")["complete"])
        self.python(CHECK, self.out("whole"))
        lost = sorted(glob.glob(f"{self.folder_of_cache}/*/*/*.val"))[3]
        os.unlink(lost)
        for _ in range(2):  # also when cache.db itself has not changed since
            source = self.leader_.backup("t", expect=3)
            self.assertFalse(source["complete"])
            self.assertEqual([f["path"] for f in source["failed_entries"]], [lost])
            self.assertIn("cache.db names it", source["failed_entries"][0]["reason"])
        self.assertEqual(len(glob.glob(self.out("lost") + "/*/*/*.val")), 19)
        self.python(FIX, self.folder_of_cache)
        self.assertTrue(self.leader_.backup("t")["complete"])

    def test_pairs_under_load(self):
        user = processes.start([PYTHON, "-c", USER, self.folder_of_cache, str(self.seed)],
                               stdout=subprocess.PIPE)
        self.addCleanup(processes.kill_tree, user)
        self.assertEqual(user.stdout.readline(), b"ready\n")
        user.stdout.close()
        for i in range(4):
            answer = self.leader_.text("backup", "t")
            folder = self.out(f"out{i}")
            rows = self.named(folder)
            self.assertGreaterEqual(len(rows), 20)
            missing = [f for f in rows if not os.path.exists(f"{folder}/{f}")]
            told = [line for line in (answer.stdout + answer.stderr).splitlines()
                    if "removed while the backup ran" in line]
            self.assertEqual(bool(missing), bool(told), f"{missing} {told}")
            if len(missing) > 1:
                self.assertTrue(any(f"{len(missing)} files in all" in line for line in told), told)
            for name, key in rows.items():
                if name not in missing:
                    with open(f"{folder}/{name}", "rb") as f:
                        self.assertEqual(f.read(), f"{key} ".encode() * 8000)
            print(f"{self.id()}: {len(rows)} value files, {len(missing)} removed meanwhile",
                  flush=True)
