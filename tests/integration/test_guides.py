"""The guides of the presets: every command in their code blocks is run, from nothing to a proven
restore, and their config blocks are read."""

import os
import shlex
import shutil

from harness import pioreactor, piri
from harness.case import at_level
from harness.guide import GuideCase, blocks, commands
from harness.leader import PROJECT

FIXTURES = os.path.join(PROJECT, "tests/unit/snapshot/fixtures")


@at_level("default", timeout_s=300)
class TestGuides(GuideCase):
    def system_folder(self, name):
        """The system's own folder here."""
        path = self.path("system", name.lstrip("/"))
        os.makedirs(path)
        self.names = {name: path, **self.names}
        # Under a restore's folder it is at its whole path.
        self.names = {"/var/tmp/look" + name: self.path("look") + path, **self.names}
        return path

    def read_block(self, text):
        """It says nothing that a config may not say."""
        conf = self.path("block.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(f'name = "x"\nstate_dir = "{self.house_.state_dir}"\n{text}')
        own, self.house_.conf = self.house_.conf, conf
        self.house_.text("check", expect=(0, 1, 3))
        self.house_.conf = own

    def follow(self, page, env=None):
        self.house_.write()  # its state_dir is not the machine's
        ran = 0
        for language, text in blocks("conf", "presets", page):
            if language != "sh":
                self.read_block(text)
                continue
            for given, words in commands(text):
                ran += 1
                if words[0] == "syncd":
                    # Warnings only: that syncd runs as root, and the like.
                    expect = (0, 3) if words[1] == "check" else 0
                    given = {name: self.here(value) for name, value in given.items()}
                    self.syncd(words[1:], {**(env or {}), **given}, expect=expect)
                elif words[0] == "sqlite3":
                    self.assertTrue(self.run_here(*[self.here(w) for w in words]).strip())
                else:
                    self.fail(f"{page} has a command that no test runs: {shlex.join(words)}")
        self.assertGreater(ran, 8)

    def assert_both(self, path):
        for target in ("look", "rebuilt"):
            self.assertTrue(os.path.exists(self.path(target) + path), path)

    def test_pioreactor(self):
        tree = self.system_folder("/home/pioreactor/.pioreactor")
        place = pioreactor.create(tree, self.rng, rows=100)
        self.follow("pioreactor.md", {"DOT_PIOREACTOR": tree})
        self.assert_both(place.db)

    def test_piri(self):
        data_dir = self.system_folder("/data/piri")
        piri.create(data_dir, self.seed)
        self.follow("piri.md")
        self.assert_both(os.path.join(data_dir, piri.DATABASES[0]))

    def test_bacalhau(self):
        folder = self.system_folder("/data/bacalhau")
        for name, fixture in (("orchestrator", "small.bolt"), ("compute", "nofreelist.bolt")):
            os.mkdir(os.path.join(folder, name))
            shutil.copy(os.path.join(FIXTURES, fixture),
                        os.path.join(folder, name, "state_boltdb.db"))
        self.follow("bacalhau.md")
        self.assert_both(os.path.join(folder, "compute/state_boltdb.db"))
