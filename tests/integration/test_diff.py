"""diff: what changed between two snapshots, counted by the test while it changes it."""

import os
import sqlite3

from harness import bolt, repository
from harness.case import Case
from harness.leader import Worker

MB = 1_000_000


class TestDiff(Case):
    def setUp(self):
        super().setUp()
        self.src = self.path("src")
        os.makedirs(self.src + "/sub")
        for i in (1, 2):
            os.mkdir(self.path(f"w{i}"))
        self.leader_ = self.leader([Worker(f"w{i}", "file://" + self.path(f"w{i}", "repo"))
                                    for i in (1, 2)], {"s": {"path": self.src, "max_age": "1h"}})

    def write(self, name, text):
        with open(f"{self.src}/{name}", "w", encoding="utf-8") as f:
            f.write(text)

    def begin(self):
        self.leader_.run("setup")
        return self.backup()

    def backup(self):
        return self.leader_.backup("s")["snapshot"]

    def diff(self, *words, **kwargs):
        return self.leader_.run("diff", *words, **kwargs).json

    def entries(self, *words):
        return {e["path"].removeprefix(self.src + "/"): e for e in self.diff(*words)["entries"]}

    def error(self, *words, expect):
        errors = self.diff(*words, expect=expect)["errors"]
        return " | ".join(f"{e['message']} ({e['hint']})" for e in errors)

    def test_entries(self):
        for name in ("same", "grows", "rewritten", "mode", "gone", "sub/same", "turns", "touched"):
            self.write(name, name * 1000)
        os.symlink("same", f"{self.src}/link")
        first = self.begin()
        self.assertEqual(self.diff(first, first)["entries"], [])
        self.write("grows", "x" * 20000)
        self.write("rewritten", "rewritteN" * 1000)
        os.chmod(f"{self.src}/mode", 0o600)
        os.unlink(f"{self.src}/gone")
        self.write("sub/come \x1b[31m", "new")
        os.unlink(f"{self.src}/turns")
        os.mkdir(f"{self.src}/turns")
        os.utime(f"{self.src}/touched", (1, 1))
        os.unlink(f"{self.src}/link")
        os.symlink("grows", f"{self.src}/link")
        second = self.backup()
        found = self.entries(first, second)
        self.assertEqual({n: e["change"] for n, e in found.items()},
                         {"gone": "removed", "sub/come \x1b[31m": "added",
                          **dict.fromkeys(("grows", "rewritten", "mode", "turns", "touched",
                                           "link"), "changed")})
        fields = {n: e["fields"] for n, e in found.items() if e["change"] == "changed"}
        self.assertEqual(fields["grows"], ["size", "content", "mtime"])
        self.assertEqual(fields["rewritten"], ["content", "mtime"])
        self.assertEqual(fields["mode"], ["mode"])
        self.assertEqual(fields["touched"], ["mtime"])
        self.assertIn("target", fields["link"])
        self.assertIn("type", fields["turns"])
        self.assertEqual((found["grows"]["before"]["bytes"], found["grows"]["after"]["bytes"]),
                         (5000, 20000))
        # The other way round, a part of it, and as a person.
        back = self.entries(second, first)
        self.assertEqual((back["gone"]["change"], back["sub/come \x1b[31m"]["change"]),
                         ("added", "removed"))
        self.assertEqual(list(self.entries(first, second, self.src + "/sub")), ["sub/come \x1b[31m"])
        self.assertEqual(list(self.entries(first, second, "mode")), ["mode"])
        shown = self.leader_.text("diff", first, second).stdout
        self.assertIn("mode 0644 -> 0600", shown)
        self.assertIn("1 added, 1 removed, 6 changed", shown)
        self.assertNotIn("\x1b", shown)
        for words, expect, part in (((first, second, "nosuch"), 1, "neither"),
                                    ((first, "ffffffff"), 1, "no snapshot"),
                                    ((first,), 2, ""), ((first, "latest", ""), 2, "empty")):
            self.assertIn(part, self.error(*words, expect=expect))

    def test_rows(self):
        path = f"{self.src}/a.sqlite"
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript("""PRAGMA journal_mode=WAL;
            CREATE TABLE jobs(name TEXT PRIMARY KEY, state TEXT, body BLOB);
            CREATE TABLE log(at, line);
            CREATE TABLE still(id INTEGER PRIMARY KEY, v);
            CREATE TABLE drops(x); INSERT INTO drops VALUES (1), (2);""")
        db.execute("BEGIN")
        db.executemany("INSERT INTO jobs VALUES (?, 'new', ?)",
                       [(f"job {i}", self.rng.randbytes(400)) for i in range(5000)])
        db.executemany("INSERT INTO log VALUES (?, ?)", [(i, f"line {i}") for i in range(3000)])
        db.executemany("INSERT INTO still(v) VALUES (?)", [(i,) for i in range(1000)])
        db.execute("COMMIT")
        first = self.begin()
        db.execute("BEGIN")
        db.execute("UPDATE jobs SET state = 'done' WHERE rowid % 100 = 3")
        db.execute("REPLACE INTO jobs SELECT name, 'again', body FROM jobs WHERE rowid % 500 = 7")
        db.execute("DELETE FROM jobs WHERE rowid IN (11, 12, 13)")
        db.execute("INSERT INTO jobs VALUES ('one more', 'new', NULL)")
        db.execute("INSERT INTO log VALUES (0, 'more'), (1, 'more')")
        db.execute("DROP TABLE drops")
        db.execute("CREATE TABLE comes AS SELECT 1 AS x")
        db.execute("COMMIT")
        second = self.backup()
        db.close()
        entry, = self.diff(first, second)["entries"]
        self.assertIn("content", entry["fields"])
        tables = {t["name"]: t for t in entry["tables"]}
        self.assertEqual({n: (t["change"], t["inserted"], t["updated"], t["deleted"])
                          for n, t in tables.items()},
                         {"jobs": ("compared", 1, 60, 3), "log": ("compared", 2, 0, 0),
                          "still": ("compared", 0, 0, 0), "drops": ("removed", 0, 0, 2),
                          "comes": ("added", 1, 0, 0)})
        self.assertEqual([n for n, t in tables.items() if not t["primary_key"]],
                         ["drops", "log", "comes"])
        shown = self.leader_.text("diff", first, second).stdout
        self.assertIn("table jobs: 1 inserted, 60 updated, 3 deleted\n", shown)
        self.assertIn("no primary key", shown)
        self.assertNotIn("table still", shown)
        self.assertNotIn("table", self.leader_.text("diff", first, second, "--entries").stdout)
        back, = self.diff(second, first)["entries"]
        jobs, = (t for t in back["tables"] if t["name"] == "jobs")
        self.assertEqual((jobs["inserted"], jobs["updated"], jobs["deleted"]), (3, 60, 1))

    def test_unchanged_databases_are_not_read(self):
        self.bank("src/bank.sqlite", size_bytes=4 * MB)
        first = self.begin()
        os.utime(f"{self.src}/bank.sqlite")
        self.write("file", "new")
        answer = self.diff(first, self.backup())
        self.assertEqual(answer["bytes_read"], 0)
        changed, = (e for e in answer["entries"] if e["change"] == "changed")
        self.assertEqual(changed["fields"], ["mtime"])
        self.assertNotIn("tables", changed)

    def test_keys(self):
        path = f"{self.src}/state.db"
        bolt.make(path, keys=2000, seed=5)

        def items():
            lines = (line.split(" ", 1) for line in bolt.dump(path).splitlines())
            return {tuple(k.strip("/").split("/")): v for k, v in lines}

        before = items()
        first = self.begin()
        for _ in range(3):
            bolt.commit(path)
        after = items()
        entry, = self.diff(first, self.backup())["entries"]
        expected = {}
        for key in before.keys() | after.keys():
            old, new = before.get(key), after.get(key)
            if old == new or (old or new).startswith("bucket"):
                continue
            count = expected.setdefault(key[:-1], [0, 0, 0])
            count[0 if old is None else 1 if new is None else 2] += 1
        self.assertTrue(expected)
        found = {tuple(n.encode().hex() for n in b["path"]): [b["added"], b["removed"], b["changed"]]
                 for b in entry["buckets"]}
        self.assertEqual({k: v for k, v in found.items() if any(v)}, expected)
        shown = self.leader_.text("diff", first, "latest").stdout
        self.assertIn("bucket items: ", shown)

    def test_a_damaged_database_does_not_stop_the_rest(self):
        path = f"{self.src}/a.sqlite"
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t(v) VALUES (?)", [(self.rng.randbytes(900),)
                                                      for _ in range(3000)])
        db.execute("COMMIT")
        first = self.begin()
        db.execute("UPDATE t SET v = zeroblob(900) WHERE id % 1000 = 1")
        self.write("file", "new")
        second = self.backup()
        db.close()
        good = self.diff(first, second)
        for name in ("w1", "w2"):
            part = repository.parts(self.path(name, "repo"), "s")[0]
            repository.damage(part, self.rng)
            answer = self.diff(first, second, expect=0 if name == "w1" else 3)
            self.assertEqual((answer["added"], answer["changed"]), (1, 1))
            entry = next(e for e in answer["entries"] if e["path"] == path)
            if name == "w1":
                self.assertEqual(answer["entries"], good["entries"])
            else:
                self.assertIn("block at byte", entry["error"])
                self.assertIn(part.id, entry["error"])
