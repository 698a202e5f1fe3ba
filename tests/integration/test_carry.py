"""An entry fails while parts of its last good state are damaged on the only worker: what is whole of
it stays, and what can not be kept is said."""

import os
import shutil
import sqlite3

from harness import repository
from harness.case import Case, at_level
from harness.leader import Worker


@at_level("quick")
class TestCarry(Case):
    def setUp(self):
        super().setUp()
        self.src = self.path("src")
        os.mkdir(self.src)
        os.mkdir(self.path("w1"))
        self.house = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                                 {"t": {"path": self.src}})
        self.house.run("setup")
        self.dbs = [os.path.join(self.src, name) for name in ("x.db", "y.db")]
        self.rows = {}
        for db in self.dbs:
            live = sqlite3.connect(db)
            live.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
            live.close()
            self.fill(db, 400)

    def fill(self, db, count=20):
        live = sqlite3.connect(db)
        live.executemany("INSERT INTO t(v) VALUES(?)",
                         [(self.rng.randbytes(500),) for _ in range(count)])
        live.commit()
        live.close()
        self.rows[db] = self.rows.get(db, 0) + count

    def spoil(self, db):
        """It fails from now on."""
        with open(db, "r+b") as f:
            f.seek(16)
            f.write(b"\xff" * 84)

    def snapshot(self, *changed):
        for db in changed:
            self.fill(db)
        self.assertTrue(self.house.backup("t")["complete"])
        return repository.parts(self.path("w1", "repo"), "t", "snap")[-1]

    def damage(self, part):
        """A block of pages; verify finds it and marks the part."""
        repository.damage(part, self.rng, at=200)
        self.house.run("verify", "--read-data", expect=1)

    def came_back(self, *more, expect=0):
        target = self.path("out")
        shutil.rmtree(target, ignore_errors=True)
        self.house.run("restore", "t", "--target", target, *more, expect=expect)
        rows = {}
        for db in self.dbs:
            if os.path.exists(target + db):
                copy = sqlite3.connect(target + db)
                self.assertEqual(copy.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
                rows[db] = copy.execute("SELECT count(*) FROM t").fetchone()[0]
                copy.close()
        return rows

    def failed(self):
        source = self.house.backup("t", expect=3)
        self.assertFalse(source["complete"])
        return source["failed_entries"], source["carried_count"]

    def test_a_damaged_part_that_it_does_not_need(self):
        x, y = self.dbs
        self.snapshot()
        self.damage(self.snapshot(y))
        self.spoil(x)
        failed, carried = self.failed()
        self.assertEqual([(f["path"], f["lost"]) for f in failed], [(x, False)])
        self.assertEqual(carried, 1)
        self.assertEqual(self.came_back(), self.rows)

    def test_a_damaged_part_whose_pages_of_it_are_all_newer_elsewhere(self):
        """Both parts hold the same few pages of x; the newer one is whole."""
        x = self.dbs[0]
        self.snapshot()
        live = sqlite3.connect(x)
        parts = []
        for byte in (b"a", b"b"):
            live.execute("UPDATE t SET v = ? WHERE id = 1", (byte * 500,))
            live.commit()
            parts.append(self.snapshot())
        live.close()
        self.damage(parts[0])
        self.spoil(x)
        failed, carried = self.failed()
        self.assertEqual([(f["path"], f["lost"]) for f in failed], [(x, False)])
        self.assertEqual(carried, 1)
        self.assertEqual(self.came_back(), self.rows)
        copy = sqlite3.connect(self.path("out") + x)
        self.assertEqual(copy.execute("SELECT v FROM t WHERE id = 1").fetchone(), (b"b" * 500,))
        copy.close()

    def test_an_older_snapshot_has_it_whole(self):
        x, y = self.dbs
        self.snapshot()
        before = dict(self.rows)
        self.damage(self.snapshot(x))
        self.spoil(x)
        self.fill(y)
        failed, carried = self.failed()
        self.assertEqual([(f["path"], f["lost"]) for f in failed], [(x, False)])
        self.assertEqual(carried, 1)
        self.assertEqual(self.came_back(), {x: before[x], y: self.rows[y]})
        # And it stays so for as long as it fails.
        self.fill(y)
        self.failed()
        self.assertEqual(self.came_back(), {x: before[x], y: self.rows[y]})

    def test_metadata_that_nobody_has_looked_at(self):
        x, y = self.dbs
        self.snapshot()
        before = dict(self.rows)
        part = self.snapshot(x)
        repository.damage(part, self.rng, at=part.size - 60)
        self.spoil(x)
        failed, _ = self.failed()
        self.assertEqual([(f["path"], f["lost"]) for f in failed], [(x, False)])
        self.assertEqual(self.came_back(), {x: before[x], y: self.rows[y]})

    def test_what_vanishes_with_most_of_its_source(self):
        """It is the walk that misses them, when the databases have had their turn."""
        x, y = self.dbs
        for name in ("file", "other"):
            with open(os.path.join(self.src, name), "wb") as f:
                f.write(b"file")
        self.snapshot()
        before = dict(self.rows)
        self.damage(self.snapshot(x))
        for db in self.dbs:
            os.rename(db, self.path(os.path.basename(db)))
        os.unlink(os.path.join(self.src, "other"))
        with open(os.path.join(self.src, "file"), "wb") as f:
            f.write(b"changed")
        failed, carried = self.failed()
        self.assertEqual([f["lost"] for f in failed], [False])
        self.assertEqual(carried, 3)
        self.assertEqual(self.came_back(), before)

    def test_no_snapshot_has_it_whole(self):
        x, y = self.dbs
        first = self.snapshot()
        self.damage(first)
        self.spoil(x)
        self.fill(y)
        failed, carried = self.failed()
        self.assertEqual([(f["path"], f["lost"]) for f in failed], [(x, True)])
        self.assertEqual(carried, 0)
        self.assertIn("not whole on the workers", failed[0]["reason"])
        self.assertIn("this snapshot has none of it", failed[0]["reason"])
        self.assertIn("syncd restore --snapshot", failed[0]["hint"])
        self.assertEqual(self.came_back(), {y: self.rows[y]})
        # What is left of it the older snapshot still gives.
        self.house.run("restore", "t", "--target", self.path("left"), "--snapshot", first.id,
                       "--salvage", expect=3)
        self.assertTrue(os.path.exists(self.path("left") + x))

    def test_a_damaged_list_of_entries(self):
        """Neither --salvage nor rescue.py can do without it; the words say what can be done."""
        older = self.snapshot()
        part = self.snapshot(self.dbs[0])
        with open(part.path, "rb") as f:
            trailer = f.read()[-48:]
        length = int.from_bytes(trailer[:8], "little")
        repository.damage(part, self.rng, at=part.size - 48 - length - 5)
        for words in (("--target", self.path("out")), ("--in-place", "--yes"),
                      ("--target", self.path("out"), "--salvage")):
            error = self.house.run("restore", *words, expect=1).json["errors"][-1]
            self.assertEqual(error["code"], "damaged")
            self.assertIn("list of the snapshot's entries", error["message"])
            self.assertIn("syncd snapshots", error["hint"])
            self.assertIn("--salvage cannot help", error["hint"])
        self.assertFalse(os.path.exists(self.path("out")))
        error = self.house.run("verify", "--drill", expect=1).json["errors"][-1]
        self.assertIn("--salvage nothing of this one", error["hint"])
        ids = [s["id"] for s in self.house.snapshots("t")]
        self.assertIn(older.id, ids)
        self.came_back("--snapshot", older.id)
