"""A repository that a newer syncd went on writing: nothing of it is taken for damage, shipped again
or let go."""

import hashlib
import os

from harness import bank, repository
from harness.case import Case, at_level

NEWER = "written by a newer syncd"


@at_level("quick")
class TestNewer(Case):
    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=300_000)
        self.house = self.two_workers(self.db, keep_last=1)
        for _ in range(3):
            self.house.backup("db")
            live = bank.connect(self.db)
            bank.Hand(live, 1, self.rng).transaction(5)
            live.execute("COMMIT")
            live.close()
        self.roots = [repository.of(w) for w in (self.w1, self.w2)]
        self.raised = [repository.raise_version(repository.parts(root, "db", "snap")[-1])
                       for root in self.roots]
        self.before = self.state()

    def state(self):
        """Every part: its name, its inode, what is in it."""
        found = []
        for root in self.roots:
            for part in repository.parts(root):
                with open(part.path, "rb") as f:
                    found.append((part.path, part.inode, hashlib.sha256(f.read()).digest()))
        return found

    def told(self, *words, expect):
        result = self.house.run(*words, expect=expect)
        codes = [e["code"] for e in result.json["errors"]]
        text = " ".join(f"{e['message']} {e['hint']}" for e in result.json["errors"])
        self.assertEqual(self.state(), self.before, words)
        return result.json, codes, text

    def test_verify_and_sync_leave_it_alone(self):
        for words in (("verify",), ("verify", "--read-data"), ("sync",)):
            answer, codes, text = self.told(*words, expect=3)
            self.assertEqual(codes, ["version"], words)
            self.assertIn(NEWER, text)
            self.assertIn("Update syncd on this machine", text)
            self.assertEqual([w["damaged"] for w in answer["workers"]], [[], []])
        self.assertEqual([w["lacking"] for w in answer["workers"]], [0, 0])
        self.assertNotIn("damaged or missing", self.house.text("verify", expect=3).stderr)

    def test_one_that_is_on_one_worker_alone(self):
        os.unlink(self.raised[1])
        self.before = self.state()
        for words in (("verify",), ("sync",)):
            answer, codes, _ = self.told(*words, expect=3)
            self.assertEqual(codes, ["version"], words)
            self.assertEqual([w["damaged"] for w in answer["workers"]], [[], []])

    def test_nothing_is_pruned_or_backed_up(self):
        """Two of the three are more than keep_last asks for."""
        _, codes, text = self.told("prune", expect=3)
        self.assertEqual(codes, ["version"])
        self.assertIn(NEWER, text)
        _, codes, text = self.told("backup", expect=1)
        self.assertIn("version", codes)
        self.assertIn("newer syncd", text)

    def test_retention_never_drops_it(self):
        """One that the rules do not keep is another's to judge all the same."""
        for root in self.roots:
            repository.raise_version(repository.parts(root, "db", "snap")[-2])
        answer = self.house.run("prune", "--dry-run", expect=3).json
        mine = [s for s in answer["snapshots"] if NEWER in s["reasons"]]
        self.assertEqual([s["keep"] for s in mine], [True, True])
        self.assertIn([NEWER], [s["reasons"] for s in mine])

    def test_check_says_it(self):
        answer, _, text = self.told("check", expect=1)
        self.assertIn(NEWER, text)
        found = [c for c in answer["checks"] if NEWER in c["message"]]
        self.assertEqual([c["level"] for c in found], ["error", "error"])
