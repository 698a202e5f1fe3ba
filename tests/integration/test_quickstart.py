"""conf/quickstart on a clean clone."""

import os
import shutil
import subprocess

from harness import bank
from harness.case import Case, at_level
from harness.leader import PROJECT


def processes_of(folder):
    """Processes with `folder` in their command line."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if folder.encode() in f.read():
                    found.append(pid)
        except OSError:
            pass
    return found


class TestQuickstart(Case):
    def quickstart(self, *args, expect=0):
        env = {**os.environ, "TMPDIR": self.path("tmp")}
        answer = subprocess.run([os.path.join(self.clone, "conf/quickstart"), *args], env=env,
                                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=500)
        self.assertEqual(answer.returncode, expect, f"{answer.stdout}\n{answer.stderr}")
        self.assertEqual(processes_of(self.path("tmp")), [], "something was left running")
        return answer

    def copy_project(self):
        self.clone = self.path("clone")
        os.mkdir(self.path("tmp"))
        # What a clone would hold, and what is not committed yet.
        names = subprocess.run(["git", "-C", PROJECT, "ls-files", "-z", "--cached", "--others",
                                "--exclude-standard"], check=True, capture_output=True, text=True)
        for name in filter(None, names.stdout.split("\0")):
            if os.path.lexists(os.path.join(PROJECT, name)):
                target = os.path.join(self.clone, name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy2(os.path.join(PROJECT, name), target, follow_symlinks=False)

    @at_level("default", timeout_s=600)
    def test_clean_clone_then_a_path(self):
        self.copy_project()
        answer = self.quickstart()
        self.assertIn("nothing else: the state of one moment", answer.stdout)
        db = self.bank(size_bytes=2_000_000)
        before = (os.stat(db).st_mtime_ns, os.stat(db).st_ctime_ns, sorted(os.listdir(self.folder)))
        answer = self.quickstart(db)
        self.assertIn("Yes: 1 equal", answer.stdout)
        self.assertEqual(before, (os.stat(db).st_mtime_ns, os.stat(db).st_ctime_ns,
                                  sorted(os.listdir(self.folder))))
        copies = [os.path.join(folder, name) for folder, _, names in os.walk(self.path("tmp"))
                  for name in names if name == os.path.basename(db)]
        self.assertEqual([bank.examine(c).seq for c in copies], [1])
        # One that is in use.
        writers = self.writers(db, count=1, rate=100)
        self.quickstart(db)
        writers.stop()
        self.assertEqual(writers.failures, [])
        # A file of which no three copies could ever be held.
        huge = self.path("huge")
        with open(huge, "wb") as f:
            f.truncate(shutil.disk_usage(self.folder).free // 2)
        self.assertIn("three times", self.quickstart(huge, expect=1).stderr)
        self.assertIn("does not exist", self.quickstart(self.path("none"), expect=1).stderr)
