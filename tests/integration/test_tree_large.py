"""Trees of very many files: memory is bounded by what is configured, not by what is there."""

import os
import subprocess

from harness.case import Case, at_level
from harness.leader import Worker, has_sanitizer

LIMIT_KB = 24 * 1024


class TestTreeLarge(Case):
    def fill(self, count):
        for i in range(count):
            folder = f"{self.src}/{i % 100}/{i // 100 % 100}"
            if i < 10_000:
                os.makedirs(folder)
            with open(f"{folder}/file-{i}", "wb") as f:
                f.write(self.rng.randbytes(i % 200))

    @at_level("long", timeout_s=3000)
    def test_a_million_small_files(self):
        self.src = self.path("src")
        os.mkdir(self.path("w1"))
        leader = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                             {"t": {"path": self.src}})
        leader.run("setup")
        self.fill(1_000_000)
        first = leader.backup("t", timeout_s=1500)
        self.assertTrue(first["complete"])
        with open(f"{self.src}/0/0/file-0", "wb") as f:
            f.write(b"changed")
        second = leader.backup("t", timeout_s=1500)
        self.assertLess(second["bytes_sent"], 1_000_000)
        peaks = [run["result"].peak_kb for run in (first, second)]
        print(f"{self.id()}: VmHWM {peaks} kB", flush=True)
        if not has_sanitizer():
            self.assertLessEqual(max(peaks), LIMIT_KB)
        leader.run("restore", "t", "--target", self.path("out"), "--path", f"{self.src}/0/*",
                   timeout_s=600)
        subprocess.run(["diff", "-r", f"{self.src}/0", f"{self.path('out')}{self.src}/0"],
                       check=True)
