"""LevelDB folders, written while they are taken: each snapshot is one state, as after a power cut."""

import glob
import os
import shutil
import time

from harness import leveldb
from harness.case import Case, at_level, by_level
from harness.leader import Worker


class LevelDbCase(Case):
    def setUp(self):
        super().setUp()
        self.src = self.path("src")
        self.db = f"{self.src}/wallet"
        os.mkdir(self.src)
        os.mkdir(self.path("w1"))
        with open(f"{self.src}/note.txt", "w", encoding="ascii") as f:
            f.write("beside")

    def house(self):
        leader = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                             {"t": {"path": self.src}})
        leader.run("setup")
        return leader

    def owner(self, **options):
        owner = leveldb.Owner(self.db, seed=self.rng.randrange(1 << 30), **options)
        self.addCleanup(owner.kill)
        return owner

    def out(self, leader, snapshot="latest"):
        return self.restored(leader, snapshot, self.db, source="t")

    def tables(self, folder):
        return sorted(os.path.basename(p) for p in glob.glob(folder + "/*.ldb"))


class TestLevelDb(LevelDbCase):
    def test_live_copies(self):
        """Tables are written and compacted away all the while."""
        count = by_level(2, 8, 100)
        owner = self.owner(rate=1000)
        leader = self.house()
        seen, last = set(), 0
        for _ in range(count):
            source = leader.backup("t")
            self.assertTrue(source["complete"])
            copy = self.out(leader, source["snapshot"])
            seen.update(self.tables(copy))
            now = leveldb.check(copy)
            self.assertGreater(now, last)
            last = now
            shutil.rmtree(copy)
            time.sleep(self.rng.random() * 0.1)
        print(f"     {count} copies up to batch {last}, {len(seen)} different tables", flush=True)
        self.assertGreater(len(seen), 5)
        last = owner.stop()
        copy = self.out(leader, leader.backup("t")["snapshot"])
        self.assertEqual(leveldb.check(copy), last)
        rescued = self.rescued(self.path("w1", "repo"), leader.snapshots("t")[-1]["id"], self.db)
        self.assertEqual(leveldb.check(rescued), last)

    def test_unchanged_tables_are_not_read_and_the_user_is_told_once(self):
        leveldb.write(self.db, batches=5000)
        leader = self.house()
        told = leader.text("backup", "t")
        self.assertIn("is a LevelDB folder", told.stdout + told.stderr)
        first = leader.snapshots("t")[-1]
        time.sleep(2.2)
        leader.backup("t")  # now all is settled
        self.assertTrue(leader.backup("t")["unchanged"])
        leveldb.write(self.db, batches=1)
        again = leader.backup("t")
        self.assertFalse(again["unchanged"])
        self.assertLess(again["bytes_changed"], first["size_bytes"] / 2)
        self.assertEqual(leveldb.check(self.out(leader)), 5001)

    @at_level("quick")
    def test_one_that_fails_is_carried_over_whole(self):
        leveldb.write(self.db, batches=2000)
        leader = self.house()
        leader.backup("t")
        leveldb.write(self.db, batches=2000)
        with open(os.path.join(self.db, self.tables(self.db)[-1]), "r+b") as f:
            f.write(b"SQLite format 3\0")  # no table is like that
        with open(f"{self.src}/note.txt", "w", encoding="ascii") as f:
            f.write("newer")
        source = leader.backup("t", expect=3)
        self.assertEqual([f["path"] for f in source["failed_entries"]], [self.db])
        self.assertIn("LevelDB folder", source["failed_entries"][0]["reason"])
        copy = self.out(leader, source["snapshot"])
        self.assertEqual(leveldb.check(copy), 2000)
        with open(os.path.join(os.path.dirname(copy), "note.txt"), encoding="ascii") as f:
            self.assertEqual(f.read(), "newer")

    @at_level("quick")
    def test_in_place(self):
        """Newer logs and tables must not be read into the older state; never under its owner."""
        leveldb.write(self.db, batches=1500)
        leader = self.house()
        leader.backup("t")
        for _ in range(3):
            leveldb.write(self.db, batches=500)
        owner = self.owner(rate=100)
        refused = leader.run("restore", "t", "--in-place", "--yes", expect=1).json
        self.assertIn("open in another process", refused["errors"][0]["message"])
        newest = owner.stop()
        part = leader.run("restore", "t", "--in-place", "--yes", "--path", "*.ldb", expect=2).json
        self.assertIn("LevelDB folder", part["errors"][0]["message"])
        answer = leader.run("restore", "t", "--in-place", "--yes").json
        self.assertEqual(leveldb.check(self.db), 1500)
        self.assertGreater(newest, 3000)
        self.assertTrue(self.tables(answer["old_kept_at"] + self.db))
        # Now only its own opening has added something: that goes, too, and nothing else.
        leader.run("restore", "t", "--in-place", "--yes")
        again = leader.run("restore", "t", "--in-place", "--yes").json
        self.assertIsNone(again["old_kept_at"])
        self.assertEqual(leveldb.check(self.db), 1500)
