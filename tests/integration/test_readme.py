"""Every command in a code block of README.md is run here; one that no rule knows fails."""

import os
import shlex

from harness.case import at_level
from harness.guide import GuideCase, blocks, commands
from harness.leader import PROJECT, program

README_DB = "/home/pioreactor/.pioreactor/storage/pioreactor.sqlite"


@at_level("default", timeout_s=300)
class TestReadme(GuideCase):
    def rescue(self, words):
        repository = os.path.join(self.user.home, "syncd/leader1")
        words = [w.replace("/path/to/repository", repository)
                 .replace("/path/to/folder", self.path("rescued")) for w in words]
        self.run_here(*words)

    def other(self, words):
        """What has a test of its own, or changes the machine: it is there and understands us."""
        if words[0] in ("conf/quickstart", "tests/run"):
            self.assertTrue(os.access(os.path.join(PROJECT, words[0]), os.X_OK))
            self.assertIn(words[0], self.run_here(words[0], "--help"))
        elif words == ["conf/install-packages", "build"]:
            self.run_here(*words)
        elif words[:3] == ["cmake", "--preset", "release"] or words[:2] == ["cmake", "--build"]:
            self.assertTrue(os.access(program(), os.X_OK), "the runner built by these two")
        elif words[:2] == ["cmake", "--install"]:
            self.run_here(*words, DESTDIR=self.path("root"))
            self.assertTrue(os.access(self.path("root", "usr/local/bin/syncd"), os.X_OK))
        else:
            self.fail(f"README.md has a command that no test runs: {shlex.join(words)}")

    def test_every_command(self):
        db, ran = self.bank(), 0
        for language, text in blocks("README.md"):
            if "piri" in text and ("postgres = " in text or "--to " in text):
                continue  # test_postgres.py runs it against a server
            if language == "" and 'source "' in text:
                self.assertIn(README_DB, text)
                lines = [l for l in text.splitlines() if not l.startswith("name")]
                self.house_.write("\n".join(lines).replace(README_DB, db) + "\n")
            if language != "sh":
                continue
            for _, words in commands(text):
                ran += 1
                if words[0] == "syncd":
                    self.syncd(words[1:])
                elif words[0] == "restore/rescue.py":
                    self.rescue(words)
                else:
                    self.other(words)
        self.assertGreater(ran, 10)
        self.assertTrue(os.path.exists(self.path("look") + db))
        self.assertTrue(os.path.exists(self.path("rebuilt") + db))
        self.assertTrue(os.path.exists(self.path("rescued") + db))
