"""restore --in-place: over live databases' files, with their sidecars, cut anywhere."""

import hashlib
import os
import signal
import sqlite3

from harness import bank, repository
from harness.case import Case, at_level
from harness.leader import Worker
from harness.terminal import Terminal

MB = 1_000_000


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class InPlaceCase(Case):
    def setUp(self):
        super().setUp()
        self.dir = self.path("data")
        os.mkdir(self.dir)
        self.db = os.path.join(self.dir, "bank.sqlite")
        bank.create(self.db, self.seed, size_bytes=2 * MB)
        self.other = os.path.join(self.dir, "deep", "er", "other.sqlite")
        os.makedirs(os.path.dirname(self.other))
        self.write_other(1)
        os.chmod(self.other, 0o640)
        self.neighbour = os.path.join(self.dir, "neighbour.txt")
        with open(self.neighbour, "w", encoding="ascii") as f:
            f.write("leave me alone")
        self.w1 = self.sshd("w1")
        self.leader_ = self.leader([Worker.of(self.w1)],
                                   {"db": {"path": [self.db, self.other], "max_age": "1h"}},
                                   authorize=(self.w1,))
        self.leader_.run("setup")
        self.leader_.backup("db")
        target = self.path("oracle")
        self.leader_.run("restore", "--target", target)
        self.good = {p: digest(target + p) for p in (self.db, self.other)}

    def write_other(self, x):
        live = sqlite3.connect(self.other)
        live.execute("CREATE TABLE IF NOT EXISTS t(x)")
        live.execute("INSERT INTO t VALUES(?)", (x,))
        live.commit()
        live.close()

    def commit(self):
        live = bank.connect(self.db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(5):
            hand.transaction(50)
            live.execute("COMMIT")
        live.close()

    def leave_wal(self):
        """A writer that was killed: its last commits are in the -wal alone."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            live = sqlite3.connect(self.db, isolation_level=None)
            live.execute("PRAGMA journal_mode=WAL")
            live.execute("CREATE TABLE IF NOT EXISTS mine(x)")
            live.execute("INSERT INTO mine VALUES(randomblob(100000))")
            os.write(write, b"x")
            signal.pause()
        os.read(read, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
        self.assertGreater(os.path.getsize(self.db + "-wal"), 0)

    def restore(self, *words, expect=0, **kwargs):
        return self.leader_.run("restore", "--in-place", "--yes", *words, expect=expect, **kwargs)

    def assert_back(self):
        for path, wanted in self.good.items():
            self.assertEqual(digest(path), wanted, path)
            for suffix in ("-wal", "-shm", "-journal"):
                self.assertFalse(os.path.exists(path + suffix), path + suffix)
        with open(self.neighbour, encoding="ascii") as f:
            self.assertEqual(f.read(), "leave me alone")

    def runs(self):
        folder = os.path.join(self.dir, ".syncd-restore")
        return [os.path.join(folder, n) for n in sorted(os.listdir(folder))]


@at_level("quick")
class TestInPlace(InPlaceCase):
    def test_back_and_set_aside(self):
        self.commit()
        self.leave_wal()
        self.write_other(2)
        before = digest(self.other)
        answer = self.restore().json
        self.assertEqual([f["result"] for f in answer["files"]], ["restored", "restored"])
        self.assert_back()
        self.assertEqual(os.stat(self.other).st_mode & 0o7777, 0o640)
        old = answer["old_kept_at"]
        self.assertEqual(os.path.dirname(os.path.dirname(old)),
                         os.path.join(self.dir, ".syncd-restore"))
        self.assertEqual(digest(old + self.other), before)
        # The old database is whole: what lay in its -wal is in it.
        aside = sqlite3.connect(old + self.db)
        self.assertEqual(aside.execute("SELECT count(*) FROM mine").fetchone(), (1,))
        self.assertEqual(aside.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        aside.close()
        # Again: there is nothing to be done, and nothing is done.
        runs = self.runs()
        answer = self.restore().json
        self.assertEqual([f["result"] for f in answer["files"]], ["equal", "equal"])
        self.assertIsNone(answer["old_kept_at"])
        self.assertEqual(self.runs(), runs)
        # Only what differs is brought back.
        self.write_other(3)
        answer = self.restore().json
        self.assertEqual([f["result"] for f in answer["files"]], ["equal", "restored"])
        self.assert_back()

    def test_missing_and_destroyed(self):
        os.unlink(self.other)
        os.rmdir(os.path.dirname(self.other))
        with open(self.db, "r+b") as f:
            f.write(os.urandom(5000))
        with open(self.db + "-wal", "wb") as f:
            f.write(os.urandom(9000))
        wal = digest(self.db + "-wal")
        old = self.restore().json["old_kept_at"]
        self.assert_back()
        self.assertEqual(digest(old + self.db + "-wal"), wal)

    def test_question_and_dry_run(self):
        self.write_other(2)
        before = digest(self.other)
        self.leader_.run("restore", "--in-place", expect=2)
        answer = self.leader_.run("restore", "--in-place", "--dry-run").json
        # (The copy's page 1 is not the source's own.)
        self.assertEqual([f["result"] for f in answer["files"]], ["would-restore"] * 2)
        said = self.leader_.text("restore", "--in-place", "--dry-run").stdout
        self.assertRegex(said, r"would restore 2 of 2 entries, [1-9][0-9.]* [KM]iB\n")
        terminal = Terminal(self.leader_.argv("restore", "--in-place"),
                            self.leader_.environment(), cwd=self.leader_.folder)
        self.addCleanup(terminal.close)
        terminal.expect("are set aside")
        terminal.type("n")
        self.assertEqual(terminal.wait(), 1)
        self.assertEqual(digest(self.other), before)
        self.assertFalse(os.path.exists(os.path.join(self.dir, ".syncd-restore")))
        for words in (("--target", self.path("t")), ("--output", "x"), ("--salvage",)):
            self.restore(*words, expect=2)

    def test_refused_while_it_is_open(self):
        self.write_other(2)
        self.commit()
        before = digest(self.db), digest(self.other)
        for path in (self.other, self.db):
            live = sqlite3.connect(path)
            live.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            error = self.restore(expect=1).json["errors"][-1]
            self.assertEqual(error["code"], "busy")
            self.assertIn(path, error["message"])
            live.close()
            self.assertEqual((digest(self.db), digest(self.other)), before)
        self.restore()
        self.assert_back()

    def test_planted_link(self):
        self.write_other(2)
        outside = self.path("outside")
        os.rename(os.path.dirname(self.other), outside)
        os.symlink(outside, os.path.dirname(self.other))
        before = digest(os.path.join(outside, "other.sqlite"))
        self.restore(expect=1)
        self.assertEqual(digest(os.path.join(outside, "other.sqlite")), before)
        os.unlink(os.path.dirname(self.other))
        os.rename(outside, os.path.dirname(self.other))
        # A journal of somebody else's making moves nothing.
        folder = os.path.join(self.dir, ".syncd-restore")
        os.makedirs(os.path.join(folder, "20260101T000000Z", "new", self.dir.lstrip("/")))
        os.chmod(folder, 0o777)
        self.restore(expect=1)

    def test_hooks(self):
        self.leader_.sources["db"]["before_restore"] = ["sh", "-c", f"echo b >> {self.path('log')}"]
        self.leader_.sources["db"]["after_restore"] = ["sh", "-c", f"echo a >> {self.path('log')}"]
        self.leader_.write_conf()
        self.write_other(2)
        self.restore()
        self.assert_back()
        with open(self.path("log"), encoding="ascii") as f:
            self.assertEqual(f.read(), "b\na\n")
        self.leader_.sources["db"]["before_restore"] = ["false"]
        self.leader_.write_conf()
        self.write_other(3)
        before = digest(self.other)
        self.restore(expect=1)
        self.assertEqual(digest(self.other), before)


@at_level("quick")
class TestTree(InPlaceCase):
    def state(self, root):
        answer = {}
        for folder, folders, files in os.walk(root):
            for name in folders + files:
                path = os.path.join(folder, name)
                st = os.lstat(path)
                what = (os.readlink(path) if os.path.islink(path) else
                        digest(path) if os.path.isfile(path) else None)
                answer[os.path.relpath(path, root)] = (st.st_mode, st.st_uid, st.st_gid,
                                                       st.st_mtime_ns, what)
        return answer

    def test_files_folders_and_links(self):
        root = self.path("house")
        os.makedirs(os.path.join(root, "a", "b", "empty"))
        os.chmod(os.path.join(root, "a", "b"), 0o2750)
        for i in range(20):
            with open(os.path.join(root, "a", "b", f"file{i:02}"), "wb") as f:
                f.write(self.rng.randbytes(self.rng.randrange(100_000)))
        os.symlink("b/file00", os.path.join(root, "a", "link"))
        os.link(os.path.join(root, "a", "b", "file01"), os.path.join(root, "a", "hard"))
        database = os.path.join(root, "a", "x.sqlite")
        live = sqlite3.connect(database)
        live.execute("CREATE TABLE t(x)")
        live.commit()
        live.close()
        self.leader_.sources["tree"] = {"path": root, "max_age": "1h"}
        self.leader_.write_conf()
        for name in ("b/empty", "b", "."):
            os.utime(os.path.join(root, "a", name), (1_400_000_000, 1_400_000_000))
        self.leader_.backup("tree")
        wanted = self.state(root)
        os.unlink(os.path.join(root, "a", "link"))
        with open(os.path.join(root, "a", "b", "file03"), "ab") as f:
            f.write(b"more")
        os.rename(os.path.join(root, "a", "b"), self.path("away"))
        with open(os.path.join(root, "new"), "wb") as f:
            f.write(b"not in the snapshot")
        answer = self.leader_.run("restore", "tree", "--in-place", "--yes").json
        self.assertEqual(os.path.dirname(os.path.dirname(answer["old_kept_at"])),
                         self.path(".syncd-restore"))
        now = self.state(root)
        self.assertEqual(now.pop("new")[0] & 0o170000, 0o100000)
        self.assertEqual(sorted(now), sorted(wanted))
        for name, value in wanted.items():
            if name != "a/x.sqlite":
                self.assertEqual(now[name], value, name)
        hard = os.path.join(root, "a", "hard")
        file01 = os.path.join(root, "a", "b", "file01")
        self.assertEqual(os.stat(hard).st_ino, os.stat(file01).st_ino)
        # Again: all is equal, and stays as it is.
        answer = self.leader_.run("restore", "tree", "--in-place", "--yes").json
        self.assertEqual({f["result"] for f in answer["files"]}, {"equal"})
        # A link that is gone; the file's time; a folder's mode: only these come back.
        os.unlink(hard)
        os.utime(os.path.join(root, "a", "b", "file05"))
        os.chmod(os.path.join(root, "a", "b"), 0o700)
        answer = self.leader_.run("restore", "tree", "--in-place", "--yes").json
        back = [f["path"] for f in answer["files"] if f["result"] == "restored"]
        self.assertEqual([os.path.basename(p) for p in back], ["file05", "hard"])
        self.assertEqual(answer["bytes_fetched"], 0)
        self.assertEqual(os.stat(hard).st_ino, os.stat(file01).st_ino)
        # With the content of a file that has two names both change.
        with open(hard, "r+b") as f:
            f.write(b"X")
        self.leader_.run("restore", "tree", "--in-place", "--yes")
        self.assertEqual(os.stat(hard).st_ino, os.stat(file01).st_ino)
        now = self.state(root)
        del now["new"]
        for name, value in wanted.items():
            if name != "a/x.sqlite":
                self.assertEqual(now[name], value, name)


@at_level("quick")
class TestDelta(InPlaceCase):
    """What is right already is copied, not fetched."""

    def test_database(self):
        self.restore()
        pages = os.path.getsize(self.db) // 4096
        live = bank.connect(self.db)
        for _ in range(5):
            live.execute("UPDATE item SET stamp = 'x' WHERE id = ?",
                         (self.rng.randrange(1, pages // 3),))
        live.close()
        answer = self.restore("--path", "bank.sqlite").json
        self.assertEqual([f["result"] for f in answer["files"]], ["restored"])
        # A block holds 64 pages.
        self.assertLess(answer["bytes_fetched"], 20 * 256 * 1024)
        self.assertLess(answer["bytes_fetched"], os.path.getsize(self.db))
        self.assert_back()
        live = bank.connect(self.db)
        live.execute("UPDATE item SET stamp = 'x' WHERE id = 7")
        live.close()
        answer = self.restore("--path", "bank.sqlite", "--paranoid").json
        self.assertGreater(answer["bytes_fetched"], os.path.getsize(self.db) // 2)
        self.assert_back()

    def test_file(self):
        path = os.path.join(self.dir, "big.bin")
        with open(path, "wb") as f:
            f.write(self.rng.randbytes(4 * MB))
        self.leader_.sources["file"] = {"path": path, "max_age": "1h"}
        self.leader_.write_conf()
        self.leader_.backup("file")
        wanted = digest(path)
        with open(path, "r+b") as f:
            f.seek(2 * MB)
            f.write(b"other")
        answer = self.leader_.run("restore", "file", "--in-place", "--yes").json
        self.assertEqual(digest(path), wanted)
        self.assertLess(answer["bytes_fetched"], 2 * MB)
        with open(path, "r+b") as f:
            f.write(b"other")
        answer = self.leader_.run("restore", "file", "--in-place", "--yes", "--paranoid").json
        self.assertEqual(digest(path), wanted)
        self.assertGreaterEqual(answer["bytes_fetched"], 4 * MB)

    def test_staging_that_fails_leaves_nothing(self):
        """Damage on the one worker: nothing is changed, and no empty folder stays."""
        self.write_other(2)
        self.commit()
        for part in repository.parts(repository.of(self.w1)):
            repository.damage(part, self.rng, at=200)
        before = digest(self.other), digest(self.db)
        self.restore("--paranoid", expect=1)
        self.assertEqual((digest(self.other), digest(self.db)), before)
        self.assertFalse(os.path.exists(os.path.join(self.dir, ".syncd-restore")))
