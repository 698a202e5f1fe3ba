"""Documentation is true: the commands in a page's code blocks are run in their order, with the names
of the reader's machines and folders replaced by the test's own."""

import os
import re
import shlex
import subprocess

from .enrolment import EnrolmentCase
from .leader import PROJECT


def blocks(*page):
    """(language, text) of the code blocks, continuation lines joined."""
    with open(os.path.join(PROJECT, *page), encoding="utf-8") as f:
        text = f.read().replace("\\\n", " ")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


def commands(text):
    """({variable: value}, words) of each line of a block."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        env = {}
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if words:
            yield env, words


class GuideCase(EnrolmentCase):
    """self.names: what stands in the page -> what it is here."""

    def setUp(self):
        super().setUp()
        self.servers = {"worker1.local": self.worker("w1"), "worker2.local": self.worker("w2")}
        self.house_ = self.house()
        self.names = {"/var/tmp/look": self.path("look"), "/var/tmp/rebuilt": self.path("rebuilt")}

    def run_here(self, *argv, **env):
        done = subprocess.run(argv, cwd=PROJECT, env={**os.environ, **env}, timeout=280,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{argv}: {done.stdout}{done.stderr}")
        return done.stdout

    def here(self, word):
        longest_first = sorted(self.names, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda m: self.names[m[0]], word)

    def syncd(self, words, env=None, expect=0):
        known = words[0] == "restore"  # it logs in anew, with nothing but the password
        more = []
        for i, word in enumerate(words):
            for host, server in self.servers.items():
                if host in word:
                    # worker1 and worker2 are one machine here: their paths must differ.
                    words[i] = self.url(server) + host[6]
                    more = ["--host-key", server.fingerprint(), "--password-file", self.password,
                            *([] if known else ["--name", host.split(".")[0]])]
        if known and "--from" in words and not {"--target", "--in-place"} & set(words):
            more += ["--yes", "--lead"]  # what the person answers in the dialogue
        return self.house_.text(*[self.here(w) for w in words], *more, env=env, expect=expect)
