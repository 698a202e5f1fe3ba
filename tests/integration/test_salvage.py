"""Damage that no worker can mend, targets that are in the way, snapshots that lie: refused whole, or
salvaged with exactly what is lost."""

import os
import shutil
import subprocess

import test_rescue as lie  # it knows how to write a repository by hand
from harness import bank, repository
from harness.case import Case, at_level
from harness.enrolment import House

MB = 1_000_000
PAGE = 4096


def read(path):
    with open(path, "rb") as f:
        return f.read()


class SalvageCase(Case):
    def setUp(self):
        super().setUp()
        self.data = self.path("data")
        os.mkdir(self.data)
        self.db = os.path.join(self.data, "bank.sqlite")
        bank.create(self.db, self.seed, size_bytes=1 * MB)
        self.house = self.two_workers(self.data)
        self.target = self.path("target")

    def commit(self, count=3):
        live = bank.connect(self.db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(count):
            hand.transaction(5)
            live.execute("COMMIT")
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        live.close()

    def three_snapshots(self):
        self.house.backup("db")
        self.commit(10)
        self.house.backup("db")
        self.commit(1)
        self.house.backup("db")
        self.house.run("restore", "--target", self.target)
        good = read(self.target + self.db)
        shutil.rmtree(self.target)
        return good

    def both(self, index):
        return [repository.parts(repository.of(w))[index] for w in (self.w1, self.w2)]

    def salvage(self):
        """The pages that are said to be lost, and what came back."""
        self.house.run("restore", "--target", self.target, expect=1)
        self.assertFalse(os.path.exists(self.target + self.db))
        answer = self.house.run("restore", "--target", self.target, "--salvage", expect=3).json
        told = next(f for f in answer["files"] if f["path"] == self.db)
        self.assertEqual(told["result"], "salvaged")
        lost = {page for first, count in told["lost"] for page in range(first, first + count)}
        self.assertEqual(told["lost_pages"], len(lost))
        return lost, read(self.target + self.db), told

    def assert_exact(self, good, now, lost):
        self.assertEqual(len(now), len(good))
        for page in range(len(good) // PAGE):
            if page not in lost:
                at = page * PAGE
                self.assertEqual(now[at:at + PAGE], good[at:at + PAGE], f"page {page}")


@at_level("quick")
class TestSalvage(SalvageCase):
    def test_the_same_block_on_both(self):
        good = self.three_snapshots()
        for part in self.both(0):
            repository.damage(part, self.rng, at=300_000)
        lost, now, _ = self.salvage()
        self.assertTrue(0 < len(lost) <= 64, lost)
        self.assert_exact(good, now, lost)
        for page in lost:
            self.assertEqual(now[page * PAGE:(page + 1) * PAGE], bytes(PAGE))

    def test_what_came_before_the_damage_stays(self):
        """Exit code 1 says that the target is unchanged."""
        first = os.path.join(self.data, "a.sqlite")
        bank.create(first, self.seed, size_bytes=MB // 4)
        self.house.backup("db")
        self.commit()
        self.house.backup("db")
        for part in self.both(-1):
            repository.damage(part, self.rng, at=200)
        cut = self.house.run("restore", "--target", self.target, expect=3)
        self.assertEqual(cut.json["errors"][-1]["code"], "damaged")
        self.assertEqual(bank.examine(self.target + first).seq, bank.examine(first).seq)
        self.assertFalse(os.path.exists(self.target + self.db))
        self.house.run("restore", "--target", self.target, expect=1)
        os.unlink(self.target + first)
        self.assertIn("1 entry is in place",
                      self.house.text("restore", "--target", self.target, expect=3).stdout)

    def test_a_part_that_nobody_can_read(self):
        """Which pages it had nobody knows: all that could be older are given as lost."""
        good = self.three_snapshots()
        for part in self.both(1):
            repository.damage(part, self.rng, at=part.size - 100)
        lost, now, told = self.salvage()
        self.assert_exact(good, now, lost)
        self.assertTrue(lost)
        self.assertIn("older state", told["check_note"])
        differing = {page for page in range(len(good) // PAGE)
                     if now[page * PAGE:(page + 1) * PAGE] != good[page * PAGE:(page + 1) * PAGE]}
        self.assertTrue(differing)
        self.assertLessEqual(differing, lost)


@at_level("quick")
class TestTargets(SalvageCase):
    def setUp(self):
        super().setUp()
        with open(os.path.join(self.data, "file"), "wb") as f:
            f.write(self.rng.randbytes(50_000))
        self.house.backup("db")

    def leftovers(self, folder):
        return [n for _, _, files in os.walk(folder) for n in files
                if n.startswith(".syncd-") and n.endswith(".tmp")]

    def test_full_disk(self):
        """A file system that is too small: refused before anything is written."""
        small = self.path("small")
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", small], check=True,
                       timeout=30)
        self.addCleanup(subprocess.run, ["umount", small], check=True, timeout=30)
        result = self.house.run("restore", "--target", small, expect=1)
        self.assertEqual(result.json["errors"][-1]["code"], "no-space")
        self.assertEqual(os.listdir(small), [])
        # One that fills up meanwhile: what is unfinished goes.
        result = self.house.run("restore", "--target", small, "--path", "file", expect=0)
        self.assertEqual(self.leftovers(small), [])

    def test_disk_of_its_own_in_place(self):
        """A source that is a mounted disk; first with room, then full."""
        disk = self.path("disk")
        os.mkdir(disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True,
                       timeout=30)
        self.addCleanup(subprocess.run, ["umount", disk], check=True, timeout=30)
        db, file = os.path.join(disk, "x.sqlite"), os.path.join(disk, "file")
        bank.create(db, self.seed, size_bytes=1 * MB)
        with open(file, "wb") as f:
            f.write(self.rng.randbytes(50_000))
        self.house.sources["disk"] = {"path": disk, "max_age": "1h"}
        self.house.write_conf()
        self.house.backup("disk")
        good, seq = read(file), bank.examine(db).seq
        for path in (db, file):
            with open(path, "r+b") as f:
                f.write(b"destroyed")
        answer = self.house.run("restore", "disk", "--in-place", "--yes").json
        self.assertTrue(answer["old_kept_at"].startswith(disk + "/.syncd-restore/"))
        self.assertEqual((read(file), bank.examine(db).seq), (good, seq))
        shutil.rmtree(os.path.join(disk, ".syncd-restore"))
        with open(db, "r+b") as f:
            f.write(b"destroyed")
        with open(os.path.join(disk, "fill"), "wb") as f:
            f.write(bytes(2_600_000))
        before = read(db)
        result = self.house.run("restore", "disk", "--in-place", "--yes", expect=1)
        error = result.json["errors"][-1]
        self.assertEqual(error["code"], "no-space")
        self.assertTrue(error["message"].startswith(disk + "/.syncd-restore/"), error["message"])
        self.assertEqual(read(db), before)
        self.assertEqual(sorted(os.listdir(disk)), ["file", "fill", "x.sqlite"])

    def test_target_on_another_file_system(self):
        other = self.new_folder("/dev/shm")
        self.house.run("restore", "--target", other)
        self.assertEqual(bank.examine(other + self.db).seq, bank.examine(self.db).seq)

    def test_planted_links(self):
        outside = self.path("outside")
        os.mkdir(outside)
        for at in (self.target + self.data, self.target + self.db):
            os.makedirs(os.path.dirname(at))
            os.symlink(outside if at != self.target + self.db else
                       os.path.join(outside, "x"), at)
            self.house.run("restore", "--target", self.target, expect=1)
            self.assertEqual(os.listdir(outside), [])
            shutil.rmtree(self.target)

    def test_what_a_killed_run_left_is_collected(self):
        for folder in (self.target + self.data, os.path.dirname(self.target + self.data)):
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, ".syncd-0123456789abcdef.tmp"), "wb") as f:
                f.write(b"half")
            with open(os.path.join(folder, ".syncd-mine.tmp"), "wb") as f:
                f.write(b"not ours")
        self.house.run("restore", "--target", self.target)
        self.assertEqual(self.leftovers(self.target), [".syncd-mine.tmp"] * 2)
        self.assertEqual(read(self.target + self.data + "/file"), read(self.data + "/file"))


@at_level("quick")
class TestHostile(Case):
    """A snapshot that was made to reach out of the target."""

    def setUp(self):
        super().setUp()
        self.outside = self.path("outside")
        os.mkdir(self.outside)
        with open(os.path.join(self.outside, "secret"), "w", encoding="ascii") as f:
            f.write("secret")
        self.base = self.path("place")  # what in-place entries are below
        os.mkdir(self.base)
        self.blank = House(self.folder, "blank")
        self.addCleanup(self.blank.close)

    def lies(self):
        base, outside = self.base.encode(), self.outside.encode()
        file, link, hard = lie.FILE, lie.SYMLINK, lie.HARD_LINK
        return {
            "up": [lie.entry(file, base + b"/../outside/x", t18=0)],
            "up and down": [lie.entry(file, base + b"/a/../../outside/x", t18=0)],
            "dot": [lie.entry(file, base + b"/./x", t18=0)],
            "relative": [lie.entry(file, b"x", t18=0)],
            "through its own link": [lie.entry(link, base + b"/l", t22=outside),
                                     lie.entry(file, base + b"/l/x", t18=0)],
            "image through a link": [lie.entry(link, base + b"/l", t22=outside),
                                     lie.image_entry(base + b"/l/db", 1, b"", count=0)],
            "hard link to outside": [lie.entry(hard, base + b"/h", t22=base + b"/../outside/secret")],
            "hard link through a link": [lie.entry(link, base + b"/l", t22=outside),
                                         lie.entry(hard, base + b"/m", t22=base + b"/l/secret")],
            "dump": [lie.entry(lie.DUMP, b"a/../../../outside/x", t18=0)],
        }

    def test_nothing_outside_is_touched(self):
        for name, entries in self.lies().items():
            repo = self.path("repo " + name.replace(" ", "-"))
            lie.Writer(repo).snapshot(entries)
            for words in (["--target", self.path("target")], ["--in-place", "--yes"]):
                with self.subTest(lie=name, words=words[0]):
                    # A relative path is one below the target; in place there is none.
                    harmless = name == "relative" and words[0] == "--target"
                    self.blank.run("restore", "--from", "file://" + repo, *words,
                                   expect=0 if harmless else 1)
                    self.assertEqual(os.listdir(self.outside), ["secret"])
                    self.assertEqual(os.stat(self.outside + "/secret").st_nlink, 1)
                    shutil.rmtree(self.path("target"), ignore_errors=True)
                    shutil.rmtree(self.base)
                    os.mkdir(self.base)
