"""A database that was stored as it was and was broken even then: what else the snapshot has comes
back, and of that one nothing is put in place unless it is asked for."""

import os
import sqlite3

from harness.case import Case, at_level
from harness.leader import Worker

PAGE = 4096


@at_level("quick")
class TestOwnCheck(Case):
    def setUp(self):
        super().setUp()
        self.src = self.path("src")
        os.makedirs(os.path.join(self.src, "sub"))
        os.mkdir(self.path("w1"))
        self.good = os.path.join(self.src, "a.db")
        self.broken = os.path.join(self.src, "sub", "m.db")
        self.last = os.path.join(self.src, "z.db")
        for db in (self.good, self.broken, self.last):
            live = sqlite3.connect(db)
            live.executescript("CREATE TABLE t(a, b); CREATE INDEX i ON t(a);")
            live.executemany("INSERT INTO t VALUES(?, ?)", [(i, "x" * 100) for i in range(2000)])
            live.commit()
            live.close()
        with open(self.broken, "r+b") as f:  # a page in the middle of the table
            f.seek(10 * PAGE)
            f.write(b"\x0d\xff" + b"\xff" * 200)
        with open(os.path.join(self.src, "file"), "wb") as f:
            f.write(b"a file")
        os.link(self.broken, os.path.join(self.src, "sub", "other-name"))
        self.house = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                                 {"t": {"path": self.src}})
        self.house.run("setup")
        self.assertTrue(self.house.backup("t")["complete"])
        self.target = self.path("target")

    def names(self):
        return sorted(os.path.relpath(os.path.join(folder, name), self.target + self.src)
                      for folder, _, names in os.walk(self.target) for name in names)

    def test_the_others_come_back(self):
        answer = self.house.run("restore", "--target", self.target, expect=3).json
        self.assertEqual(self.names(), ["a.db", "file", "z.db"])
        results = {os.path.basename(f["path"]): f for f in answer["files"]}
        self.assertEqual({n: f["result"] for n, f in results.items()},
                         {"a.db": "restored", "file": "restored", "m.db": "failed",
                          "other-name": "failed", "z.db": "restored"})
        note = results["m.db"]["check_note"]
        self.assertIn("fails SQLite's check", note)
        self.assertNotIn("?", note)
        self.assertNotIn("***", note)
        self.assertEqual([e["code"] for e in answer["errors"]], ["damaged"])
        self.assertIn("not restored", answer["errors"][0]["message"])
        self.assertIn("--salvage", answer["errors"][0]["hint"])
        text = self.house.text("restore", "--target", self.path("again"), expect=3)
        self.assertIn("3 of 5 entries", text.stderr + text.stdout)
        self.assertIn(self.broken, text.stdout)
        self.assertIn("fails SQLite's check", text.stdout)

    def test_alone_it_leaves_nothing_behind(self):
        for target in (self.target, self.path("made", "on", "the", "way")):
            result = self.house.run("restore", "--target", target, "--path", "m.db", expect=1)
            self.assertEqual(result.json["errors"][0]["code"], "damaged")
        self.assertFalse(os.path.exists(self.target))
        self.assertFalse(os.path.exists(self.path("made")))
        os.makedirs(os.path.join(self.target, "mine"))  # what was there stays
        self.house.run("restore", "--target", self.target, "--path", "m.db", expect=1)
        self.assertEqual(os.listdir(self.target), ["mine"])

    def test_salvage_and_in_place(self):
        self.house.run("restore", "--target", self.target, "--salvage", expect=3)
        self.assertEqual(self.names(), ["a.db", "file", "sub/m.db", "sub/other-name", "z.db"])
        with open(self.target + self.broken, "rb") as a, open(self.broken, "rb") as b:
            self.assertEqual(a.read()[10 * PAGE:11 * PAGE], b.read()[10 * PAGE:11 * PAGE])
        os.unlink(self.good)
        before = sorted(os.listdir(self.src))
        self.house.run("restore", "--in-place", "--paranoid", "--yes", expect=1)
        self.assertEqual([n for n in sorted(os.listdir(self.src)) if n != ".syncd-restore"],
                         before)
