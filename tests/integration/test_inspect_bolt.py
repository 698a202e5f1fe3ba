"""inspect of bolt databases, stored and live, held against what bbolt says of the same file."""

import os
import shutil
import subprocess

from harness import bolt
from harness.case import Case
from harness.leader import Worker


class TestInspectBolt(Case):
    def setUp(self):
        super().setUp()
        self.db = self.path("state.db")
        bolt.make(self.db, keys=2000, seed=self.rng.randrange(1 << 30))
        os.mkdir(self.path("w1"))
        self.leader_ = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                                   {"b": {"path": self.db, "max_age": "1h"}})

    def stored(self):
        self.leader_.run("setup")
        self.leader_.backup("b")
        return ("latest",)

    def bytes_of(self, *argv, expect=0):
        done = subprocess.run(argv, capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
                              env=self.leader_.environment(), cwd=self.leader_.folder)
        self.assertEqual(done.returncode, expect, done.stderr)
        return done.stdout

    def ours(self, where, *words, expect=0):
        return self.bytes_of(*self.leader_.argv("inspect", *where, *words), expect=expect)

    def theirs(self, verb, *words, expect=0):
        return self.bytes_of(bolt.TOOL, "bbolt", verb, self.db, *words, expect=expect)

    def questions(self):
        """Buckets, nested ones too, and some keys, all of them from bbolt's own dump."""
        yield ("check",)
        yield ("buckets",)
        yield ("stats",)
        yield ("stats", "j")
        items = [line.split() for line in bolt.dump(self.db).splitlines()]
        paths = [[bytes.fromhex(n).decode() for n in i[0].strip("/").split("/")] for i in items]
        buckets = [p for p, i in zip(paths, items) if i[1] == "bucket"]
        keys = [p for p, i in zip(paths, items) if i[1] != "bucket"]
        for path in self.rng.sample(buckets, 12) + [max(buckets, key=len)]:
            yield ("keys", *path)
        largest = max(zip(paths, items), key=lambda b: b[1][1].isdigit() and int(b[1][1]))[0]
        for path in self.rng.sample(keys, 12) + [max(keys, key=len), largest]:
            # The owner's digest is binary; it may hold what is no argument.
            if path[0] != "digest":
                yield ("get", *path)

    def all_the_same(self, where):
        asked = 0
        for question in self.questions():
            verb, *words = question
            self.assertEqual(self.ours(where, *question), self.theirs(verb, *words), question)
            asked += 1
        self.assertGreater(asked, 20)

    def errors(self, where, *words, expect=1):
        answer = self.leader_.run("inspect", *where, *words, expect=expect).json
        return " | ".join(f"{e['message']} ({e['hint']})" for e in answer["errors"])

    def test_a_stored_one_as_bbolt_prints_it(self):
        where = self.stored()
        self.all_the_same(where)
        answer = self.leader_.run("inspect", *where).json
        self.assertEqual([d["kind"] for d in answer["databases"]], ["bolt"])
        as_json = self.leader_.run("inspect", *where, "keys", "jobs").json["keys"]
        self.assertEqual([k["key"].encode() for k in as_json],
                         self.theirs("keys", "jobs").splitlines())
        self.assertTrue(all(k["bucket"] for k in as_json))
        hexed = self.leader_.run("inspect", *where, "--hex", "keys", b"jobs".hex()).json["keys"]
        self.assertEqual([bytes.fromhex(k["key"]) for k in hexed],
                         [k["key"].encode() for k in as_json])
        self.assertIn("bucket not found", self.errors(where, "keys", "nosuch"))
        self.assertIn("bucket not found", self.errors(where, "get", "nosuch", "key"))
        self.assertIn("key not found", self.errors(where, "get", "items", "nosuch"))
        self.assertIn("is a bucket", self.errors(where, "get", "jobs", as_json[0]["key"]))
        self.assertIn("no question", self.errors(where, "sql", "SELECT 1", expect=2))
        self.assertIn("-o FILE", self.errors(where, "compact", expect=2))
        self.assertIn("hex", self.errors(where, "--hex", "keys", "xyz", expect=2))

    def compacted(self, where, name):
        target = self.path(name)
        shown = self.ours(where, "compact", "-o", target).decode()
        self.assertIn(f"-> {os.path.getsize(target)} bytes (gain=", shown)
        return target

    def test_compact(self):
        """What it writes is smaller, is whole for bbolt, holds the same, and can be gone on with."""
        for i, size in enumerate((1024, 4096, 65536)):
            os.unlink(self.db)
            bolt.make(self.db, keys=3000, page_size=size, no_freelist=size == 4096)
            copy = self.compacted(("--file", self.db), f"compact-{size}")
            self.assertLess(os.path.getsize(copy), os.path.getsize(self.db))
            bolt.judge(self, [copy])
            self.assertEqual(bolt.dump(copy), bolt.dump(self.db))
            for _ in range(5):
                bolt.commit(copy)
            bolt.judge(self, [copy])
            if i == 0:
                self.assertIn("there already",
                              self.errors(("--file", self.db), "compact", "-o", copy))
                stored = self.compacted(self.stored(), "from-the-worker")
                self.assertEqual(bolt.dump(stored), bolt.dump(self.db))
        self.assertEqual([n for n in os.listdir(self.folder) if "syncd-" in n], [])

    def test_a_live_one_without_its_lock(self):
        """Its owner holds the lock and commits; the answers are of states that it really had."""
        owner = bolt.Owner(self.path("live.db"), keys=1000, rate=50)
        self.addCleanup(owner.kill)
        where = ("--file", self.path("live.db"))
        for i in range(5):
            self.assertEqual(self.ours(where, "check"), b"OK\n")
            bolt.judge(self, [self.compacted(where, f"copy-{i}")])
        self.assertIn(b"jobs\n", self.ours(where, "buckets"))
        owner.stop()
        self.assertEqual(bolt.dump(self.compacted(where, "last")), bolt.dump(self.path("live.db")))
        self.all_the_same(("--file", self.db))  # nobody has this one open

    def test_an_owner_that_is_too_fast_is_told_of(self):
        owner = bolt.Owner(self.path("live.db"), keys=20000, rate=0)
        self.addCleanup(owner.kill)
        result = self.leader_.text("inspect", "--file", self.path("live.db"), "check",
                                   expect=(0, 1))
        if result.exit == 1:
            self.assertIn("commits faster", result.stderr)
            self.assertNotIn("damaged", result.stderr)
        else:
            self.assertEqual(result.stdout, "OK\n")

    def test_damaged_files_are_no_crash(self):
        with open(self.db, "rb") as f:
            whole = f.read()
        broken = self.path("broken.db")
        for i in range(12):
            data = bytearray(whole[:len(whole) if i % 3 else self.rng.randrange(len(whole))])
            for _ in range(self.rng.randrange(30)):
                at = self.rng.randrange(9000, len(whole))
                if at < len(data):
                    data[at] ^= 1 << self.rng.randrange(8)
            with open(broken, "wb") as f:
                f.write(data)
            for words in (("check",), ("keys", "items"), ("stats",),
                          ("compact", "-o", self.path("out"))):
                result = self.leader_.start("inspect", "--file", broken, *words).wait(60)
                self.assertIn(result.exit, (0, 1), f"{self.seed} {i}: {result}")
            if os.path.exists(self.path("out")):
                os.unlink(self.path("out"))

    def test_what_is_no_database(self):
        shutil.copy(__file__, self.path("text"))
        self.assertIn("neither", self.errors(("--file", self.path("text")), "check", expect=2))
        self.assertIn("cannot open", self.errors(("--file", self.path("none")), "check"))
        self.assertIn("no regular", self.errors(("--file", "/dev/null"), "check", expect=2))
