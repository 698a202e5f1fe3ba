"""Documentation is true: every command in a code block of README.md is run here, in its order, with
the names of the reader's machines replaced by the test's own. A command that no rule knows fails."""

import os
import re
import shlex
import subprocess

from harness.case import at_level
from harness.enrolment import EnrolmentCase
from harness.leader import PROJECT, program

README_DB = "/home/pioreactor/.pioreactor/storage/pioreactor.sqlite"


def blocks():
    """(language, text) of the code blocks, continuation lines joined."""
    with open(os.path.join(PROJECT, "README.md"), encoding="utf-8") as f:
        text = f.read().replace("\\\n", " ")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


@at_level("default", timeout_s=300)
class TestReadme(EnrolmentCase):
    def run_here(self, *argv, **env):
        done = subprocess.run(argv, cwd=PROJECT, env={**os.environ, **env}, timeout=280,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{argv}: {done.stdout}{done.stderr}")
        return done.stdout

    def syncd(self, words):
        urls = {"worker1.local": self.servers[0], "worker2.local": self.servers[1]}
        known = words[0] == "restore"  # it logs in anew, with nothing but the password
        more = []
        for i, word in enumerate(words):
            for host, server in urls.items():
                if host in word:
                    words[i] = self.url(server)
                    # worker1 and worker2 are one machine here: their paths must differ.
                    words[i] += host[6]
                    more = ["--host-key", server.fingerprint(), "--password-file", self.password,
                            *([] if known else ["--name", host.split(".")[0]])]
        words = [w.replace("/var/tmp/look", self.path("look"))
                 .replace("/var/tmp/rebuilt", self.path("rebuilt")) for w in words]
        self.house_.text(*words, *more)

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
        self.servers = [self.worker("w1"), self.worker("w2")]
        self.house_ = self.house()
        db, ran = self.bank(), 0
        for language, text in blocks():
            if language == "" and 'source "' in text:
                self.assertIn(README_DB, text)
                lines = [l for l in text.splitlines() if not l.startswith("name")]
                self.house_.write("\n".join(lines).replace(README_DB, db) + "\n")
            if language != "sh":
                continue
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                if not words:
                    continue
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
