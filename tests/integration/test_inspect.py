"""inspect: questions to stored databases are answered as the database itself would answer them, from
the blocks that they need."""

import csv
import io
import json
import os
import signal
import sqlite3
import time

from harness import bank, repository
from harness.case import Case
from harness.leader import Worker

MB = 1_000_000

AWKWARD = """
CREATE TABLE awkward(id INTEGER PRIMARY KEY, v);
INSERT INTO awkward(v) VALUES (NULL), (''), ('plain'), ('a,b"c'), ('two' || char(10) || 'lines'),
    (char(27) || '[31mred'), (x'00ff10'), (CAST(x'c328' AS TEXT)), ('nul' || char(0) || 'inside'),
    (3.25), (-9223372036854775808), (9e999), ('grüße'), (zeroblob(100)), ('\\x41');
CREATE VIEW reds AS SELECT * FROM awkward WHERE v LIKE '%red%';
CREATE TABLE "odd ""name"(x PRIMARY KEY) WITHOUT ROWID;
"""


class TestInspect(Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("source"))
        self.db = self.bank("source/bank.sqlite", size_bytes=3 * MB)
        self.odd = self.path("source", "odd.sqlite")
        with open(self.path("source", "notes.txt"), "w", encoding="utf-8") as f:
            f.write("no database\n")
        db = sqlite3.connect(self.odd)
        db.executescript(AWKWARD)
        db.close()
        self.leader_ = self.two_workers(self.path("source"))
        self.snapshot = self.leader_.backup("db")["snapshot"]

    def inspect(self, *words, **kwargs):
        return self.leader_.run("inspect", *words, **kwargs).json

    def text(self, *words, **kwargs):
        return self.leader_.text("inspect", *words, **kwargs)

    def error(self, *words, expect=2):
        """The error with its hint, as one text."""
        errors = self.inspect(*words, expect=expect)["errors"]
        return " | ".join(f"{e['message']} ({e['hint']})" for e in errors)

    def test_which_database(self):
        listed = self.inspect("latest")
        self.assertEqual([d["path"] for d in listed["databases"]], [self.db, self.odd])
        self.assertEqual({d["kind"] for d in listed["databases"]}, {"SQLite"})
        self.assertIn(self.odd, self.text("latest").stdout)
        for path in (self.odd, "odd.sqlite", "source/odd.sqlite"):
            answer = self.inspect(self.snapshot[:8], path, "sql", "SELECT count(*) FROM awkward")
            self.assertEqual((answer["path"], answer["rows"]), (self.odd, [[15]]))
        for words, expect, parts in (
                (("latest", "tables"), 2, ("2 databases", self.db, self.odd)),
                (("latest", "od.sqlite", "tables"), 1, ("no entry", "did you mean", "odd.sqlite")),
                (("latest", "notes.txt", "tables"), 2, ("is a file", "restore")),
                (("latest", "odd.sqlite", "buckets"), 2, ("no question", "tables", "sql")),
                (("latest", "odd.sqlite"), 2, ("tables", "sql")),
                (("latest", "odd.sqlite", "sql"), 2, ("usage",)),
                (("ffffffffff", "tables"), 1, ("no snapshot",)),
                (("zz", "tables"), 2, ("zz",)),
                ((), 2, ("which snapshot",))):
            found = self.error(*words, expect=expect)
            for part in parts:
                self.assertIn(part, found)

    def test_tables(self):
        tables = {t["name"]: t for t in self.inspect("latest", "odd.sqlite", "tables", "--count")
                  ["tables"]}
        self.assertEqual({n: (t["kind"], t["rows"], t["columns"]) for n, t in tables.items()},
                         {"awkward": ("table", 15, "id, v"), "reds": ("view", None, "id, v"),
                          'odd "name': ("table", 0, "x")})
        shown = self.text("latest", "bank.sqlite", "tables", "--count").stdout
        live = sqlite3.connect(self.db)
        for name in ("account", "item", "ledger", "state"):
            count, = live.execute(f"SELECT count(*) FROM {name}").fetchone()
            self.assertRegex(shown, rf"{name} +table +{count} ")
        live.close()
        self.assertNotIn("ROWS", self.text("latest", "bank.sqlite", "tables").stdout)

    def test_values_as_they_are(self):
        sql = "SELECT id, v, typeof(v) AS kind FROM awkward ORDER BY id"
        live = sqlite3.connect(self.odd)
        live.text_factory = bytes
        expected = live.execute(sql).fetchall()
        live.close()

        def as_json(v):
            if isinstance(v, float) and v == float("inf"):
                return "Inf"
            if not isinstance(v, bytes):
                return v
            text = v.replace(b"\\x41", b"\\x5cx41").replace(b"\0", b"\\x00")
            return text.decode(errors="backslashreplace")

        # The whole object, the array of objects, and CSV say the same.
        rows = self.inspect("latest", "odd.sqlite", "sql", sql)["rows"]
        objects = json.loads(self.text("latest", "odd.sqlite", "sql", sql, "--format", "json")
                             .stdout)
        result = self.leader_.start("inspect", "latest", "odd.sqlite", "sql", sql, "--format",
                                    "csv").wait()
        self.assertEqual(result.exit, 0)
        table = list(csv.reader(io.StringIO(result.stdout, newline="")))
        self.assertEqual(table[0], ["id", "v", "kind"])
        self.assertEqual([[o["id"], o["v"], o["kind"]] for o in objects], rows)
        for (ident, v, kind), row, line in zip(expected, rows, table[1:], strict=True):
            if kind == b"blob":
                self.assertEqual(row[1], {"blob": v.hex()})
                self.assertEqual(line[1], f"x'{v.hex()}'")
            else:
                self.assertEqual(row[1], as_json(v), ident)
                text = v.decode(errors="replace") if isinstance(v, bytes) else v
                self.assertEqual(line[1], {None: "", float("inf"): "Inf"}.get(text, str(text)))
        raw = result.stdout.splitlines()
        self.assertIn("1,,null", raw)
        self.assertIn('2,"",text', raw)

        shown = self.text("latest", "odd.sqlite", "sql", sql).stdout
        self.assertNotIn("\x1b", shown)
        self.assertNotIn("\0", shown)
        for part in ("NULL", r"\x1b[31mred", "x'00ff10'", r"nul\x00inside", r"two\x0alines",
                     "grüße", "... (100 bytes)"):
            self.assertIn(part, shown)

    def test_many_rows(self):
        sql = ("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<20000) "
               "SELECT i, 'row ' || i AS name FROM c")
        shown = self.text("latest", "odd.sqlite", "sql", sql).stdout.splitlines()
        rows = [line.split()[-1] for line in shown if "row " in line]
        self.assertEqual(rows, [str(i) for i in range(1, 20001)])
        objects = json.loads(self.text("latest", "odd.sqlite", "sql", sql, "--format", "json")
                             .stdout)
        self.assertEqual(len(objects), 20000)
        self.assertEqual(objects[-1], {"i": 20000, "name": "row 20000"})
        self.assertEqual(self.text("latest", "odd.sqlite", "sql", "SELECT 1 WHERE 0", "--format",
                                   "json").stdout, "[]\n")

    def test_nothing_but_reading(self):
        other = self.path("other.sqlite")
        for sql in ("DELETE FROM awkward", "CREATE TABLE x(y)", "PRAGMA journal_mode=DELETE",
                    f"ATTACH '{other}' AS o", "SELECT load_extension('/x.so')", "BEGIN",
                    "PRAGMA temp_store_directory='/tmp'", f"VACUUM INTO '{other}'",
                    "CREATE TEMP TABLE x(y)", "SELECT 1; SELECT 2", "", "SELECT nosuch FROM awkward",
                    "SELEKT 1", "UPDATE sqlite_schema SET sql = ''"):
            self.error("latest", "odd.sqlite", "sql", sql)
        self.assertFalse(os.path.exists(other))
        self.assertIn("only reads", self.error("latest", "odd.sqlite", "sql", "DROP TABLE awkward"))
        for sql in ("PRAGMA integrity_check", "PRAGMA table_info(awkward)", "SELECT 1; -- the end",
                    "EXPLAIN SELECT * FROM awkward", "PRAGMA journal_mode"):
            self.assertTrue(self.inspect("latest", "odd.sqlite", "sql", sql)["rows"], sql)
        self.assertIn("exclude", self.error("latest", "odd.sqlite", "sql", "SELECT 1", "--format",
                                            "csv"))
        self.text("latest", "odd.sqlite", "sql", "SELECT 1", "--format", "xml", expect=2)

    def test_a_signal_ends_it(self):
        endless = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) SELECT max(i) FROM c"
        run = self.leader_.start("inspect", "latest", "odd.sqlite", "sql", endless)
        time.sleep(1)
        os.kill(run.pid, signal.SIGINT)
        self.assertEqual(run.wait(20).exit, 130)


class TestInspectFile(Case):
    def ask(self, leader, path, *words, **kwargs):
        return leader.run("inspect", "--file", path, *words, **kwargs).json

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("live"))
        self.leader_ = self.leader([], {})
        os.unlink(self.leader_.conf)  # none is needed

    def count(self, path, **kwargs):
        return self.ask(self.leader_, path, "sql", "SELECT count(*) FROM account", **kwargs)

    def test_idle_and_live_without_a_trace(self):
        for mode in ("WAL", "DELETE"):
            path = self.bank(f"live/{mode}.sqlite", journal_mode=mode)
            files = sorted(os.listdir(self.path("live")))
            before = os.stat(path).st_ctime_ns
            self.assertEqual(self.count(path)["rows"], [[bank.ACCOUNTS]])
            self.assertEqual(len(self.ask(self.leader_, path, "tables", "--count")["tables"]), 4)
            self.assertEqual(sorted(os.listdir(self.path("live"))), files)
            self.assertEqual(os.stat(path).st_ctime_ns, before)
            # Its owner is there, and wrote what is not in the database file yet.
            live = sqlite3.connect(path, isolation_level=None)
            live.execute("DELETE FROM account WHERE id = 1")
            files = sorted(os.listdir(self.path("live")))
            self.assertEqual(self.count(path)["rows"], [[bank.ACCOUNTS - 1]])
            self.assertEqual(sorted(os.listdir(self.path("live"))), files)
            live.execute("BEGIN EXCLUSIVE")  # nobody holds it
            live.execute("ROLLBACK")
            live.close()
            shown = self.leader_.text("inspect", "--file", path, "sql",
                                      "SELECT count(*) AS n FROM account", "--format", "csv").stdout
            self.assertEqual(shown.split(), ["n", str(bank.ACCOUNTS - 1)])
            self.ask(self.leader_, path, "sql", "DELETE FROM account", expect=2)

    def test_what_a_crash_left_is_not_touched(self):
        path = self.bank("live/bank.sqlite")
        live = bank.connect(path)
        live.execute("DELETE FROM account WHERE id = 1")
        crashed = self.path("crashed.sqlite")
        for suffix in ("", "-wal"):
            with open(path + suffix, "rb") as a, open(crashed + suffix, "wb") as b:
                b.write(a.read())
        live.close()
        error, = self.count(crashed, expect=1)["errors"]
        self.assertIn("without its -shm", error["message"])
        self.assertFalse(os.path.exists(crashed + "-shm"))

    def test_damaged_and_foreign_files(self):
        path = self.bank("live/bank.sqlite", size_bytes=MB)
        with open(path, "r+b") as f:
            f.seek(4096)
            f.write(self.rng.randbytes(60000))
        self.count(path, expect=1)
        with open(path, "r+b") as f:
            f.truncate(1000)
        self.count(path, expect=1)
        with open(path, "wb") as f:
            f.write(b"SQLite format 3\0" + self.rng.randbytes(5000))
        self.count(path, expect=1)


class TestInspectStored(Case):
    def changed(self, db, rows):
        live = bank.connect(db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(rows):
            hand.transaction()
            live.execute("COMMIT")
        live.close()

    def test_history_is_read_as_it_was(self):
        db = self.bank(size_bytes=5 * MB)
        leader = self.two_workers(db)
        states = []
        for _ in range(4):
            live = sqlite3.connect(db)
            state = live.execute("SELECT count(*), max(seq), hex(max(digest)) FROM ledger").fetchone()
            check = live.execute("SELECT sum(length(body)), count(*) FROM item").fetchone()
            live.close()
            states.append((leader.backup("db")["snapshot"], [list(state), list(check)]))
            self.changed(db, 20)
        for snapshot, expected in reversed(states):
            found = [leader.run("inspect", snapshot, "sql", sql).json["rows"][0] for sql in
                     ("SELECT count(*), max(seq), hex(max(digest)) FROM ledger",
                      "SELECT sum(length(body)), count(*) FROM item")]
            self.assertEqual(found, expected)
        # Another machine, without a config.
        check = leader.run("inspect", "latest", "sql", "PRAGMA integrity_check").json
        self.assertEqual(check["rows"], [["ok"]])

    def test_only_the_blocks_that_are_needed(self):
        db = self.bank(size_bytes=30 * MB)
        leader = self.two_workers(db, proxies=True)
        snapshot = leader.backup("db")["snapshot"]
        before = sum(p.bytes_down for p in self.proxies)
        answer = leader.run("inspect", snapshot, "sql", "SELECT balance FROM account WHERE id = 7")
        read = sum(p.bytes_down for p in self.proxies) - before
        self.assertEqual(len(answer.json["rows"]), 1)
        self.assertLess(answer.json["bytes_read"], 1_500_000)
        self.assertLess(read, 2_000_000)  # with the lists, and two log-ins

    def test_damage_is_told_and_gone_round(self):
        db = self.bank(size_bytes=2 * MB)
        leader = self.two_workers(db)
        leader.backup("db")
        sql = "SELECT sum(length(body)) FROM item"
        good = leader.run("inspect", "latest", "sql", sql).json["rows"]
        part, = repository.parts(repository.of(self.w1))
        repository.damage(part, self.rng)
        result = leader.text("inspect", "latest", "sql", sql, "--format", "csv")
        self.assertIn(str(good[0][0]), result.stdout)
        self.assertIn("fails its digest", result.stderr)
        part, = repository.parts(repository.of(self.w2))
        repository.damage(part, self.rng)
        error, = leader.run("inspect", "latest", "sql", sql, expect=1).json["errors"]
        self.assertIn("block at byte", error["message"])
        self.assertIn(part.id, error["message"])

    def test_sources_and_workers(self):
        first, second = self.bank("one.sqlite"), self.bank("two.sqlite")
        leader = self.two_workers(first)
        leader.sources["other"] = {"path": second, "max_age": "1h"}
        leader.write_conf()
        ids = {s: leader.backup(s)["snapshot"] for s in ("db", "other")}
        for name, path in (("db", first), ("other", second)):
            for words in ((ids[name],), (ids[name][:12],), ("latest", "--source", name)):
                answer = leader.run("inspect", *words).json
                self.assertEqual((answer["source"], answer["snapshot"]), (name, ids[name]))
                self.assertEqual([d["path"] for d in answer["databases"]], [path])
        error, = leader.run("inspect", "latest", expect=2).json["errors"]
        self.assertIn("--source", error["hint"])
        self.w1.kill()
        answer = leader.run("inspect", ids["other"], "sql", "SELECT count(*) FROM account").json
        self.assertEqual(answer["rows"], [[bank.ACCOUNTS]])
        answer = leader.run("inspect", ids["other"], "tables", "--from", "w2").json
        self.assertEqual(len(answer["tables"]), 4)

    def test_a_folder_as_a_worker_without_a_config(self):
        db = self.bank()
        stick = self.path("stick")
        os.mkdir(stick)
        leader = self.leader([Worker("stick", f"file://{stick}/leader")],
                             {"db": {"path": db, "max_age": "1h"}})
        leader.run("setup")
        snapshot = leader.backup("db")["snapshot"]
        os.unlink(leader.conf)
        answer = leader.run("inspect", snapshot, "--from", f"file://{stick}/leader", "sql",
                            "SELECT count(*) FROM account").json
        self.assertEqual(answer["rows"], [[bank.ACCOUNTS]])
