"""verify --drill: proving, worker by worker, that the newest snapshot comes back; and the share of
the data that verify reads, longest unread first."""

import glob
import importlib.util
import json
import os
import sqlite3

from harness import bank, repository
from harness.case import Case, at_level
from harness.leader import PROJECT, Worker

MB = 1_000_000
SPEC = importlib.util.spec_from_file_location("rescue", f"{PROJECT}/restore/rescue.py")
rescue = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(rescue)


class DrillCase(Case):
    def house(self, **settings):
        self.db = self.bank(size_bytes=2 * MB)
        self.w1, self.w2 = self.sshd("w1"), self.sshd("w2")
        leader = self.leader([Worker.of(self.w1), Worker.of(self.w2)],
                             {"db": {"path": self.db, "max_age": "1h"}},
                             authorize=(self.w1, self.w2), **settings)
        leader.run("setup")
        return leader

    def commit(self, items=50):
        live = bank.connect(self.db)
        bank.Hand(live, 1, self.rng).transaction(items)
        live.execute("COMMIT")
        live.close()

    def drill(self, leader, expect=0):
        answer = leader.run("verify", "db", "--drill", expect=expect).json
        return {d["worker"]: d for d in answer["drills"]}

    def newest(self, worker):
        return repository.parts(repository.of(worker), "db", "snap")[-1]

    def states(self, leader):
        """By what the workers show and by what the catalog knows, which is all that the daemon
        goes by: they are to say the same."""
        def ask():
            state, = leader.run("status", expect=(0, 3, 4)).json["sources"]
            return [state["state"], *(w["state"] for w in state["workers"])]
        shown = ask()
        for worker in (self.w1, self.w2):
            worker.kill()
        self.assertEqual(ask(), shown)
        for worker in (self.w1, self.w2):
            worker.start()
        return shown


@at_level("quick")
class TestDrill(DrillCase):
    def test_what_does_not_come_back_is_sent_again(self):
        """All bytes are whole, but the leader's table called pages stored that are not."""
        leader = self.house()
        leader.backup("db")
        root = repository.of(self.w1)
        with open(os.path.join(root, "syncd.repo"), encoding="ascii") as f:
            about = json.load(f)
        seed = int.from_bytes(bytes.fromhex(about["seed"])[:8], "little")
        self.commit()
        table, = glob.glob(os.path.join(leader.run_dir, about["repository"], "db", "*.fp"))
        with open(self.db, "rb") as pages, open(table, "r+b") as f:
            pages.seek(4096)
            f.seek(72 + 8)
            for number in range(1, os.path.getsize(table) // 8 - 9):
                low, _ = rescue.xxh3_128_python(pages.read(4096), (seed + number) % (1 << 64))
                f.write(low.to_bytes(8, "little"))
        leader.backup("db")
        answer = leader.run("verify", "db", "--drill", expect=1).json
        self.assertEqual([d["proven"] for d in answer["drills"]], [False, False])
        self.assertIn("image sum", answer["drills"][0]["failed_entries"][0]["reason"])
        leader.backup("db")
        self.assertEqual([d["proven"] for d in self.drill(leader).values()], [True, True])

    def test_proven_on_each_worker(self):
        scratch = self.path("scratch")
        os.mkdir(scratch)
        leader = self.house(scratch_dir=scratch)
        leader.run("verify", "--drill")  # nothing stored yet, nothing wrong
        leader.backup("db")
        self.commit()
        snapshot = leader.backup("db")["snapshot"]
        # What a killed drill left.
        with open(os.path.join(scratch, "syncd-drill-0123456789abcdef"), "wb") as f:
            f.write(b"x")
        self.assertIsNone(leader.snapshots("db")[-1]["proven_at"])
        drills = self.drill(leader)
        self.assertEqual(sorted(drills), ["w1", "w2"])
        for d in drills.values():
            self.assertTrue(d["proven"])
            self.assertEqual(d["snapshot"], snapshot)
            self.assertEqual((d["images"], d["integrity_checked"], d["not_integrity_checked"]),
                             (1, 1, 0))
            self.assertEqual(d["files"], 1)  # the config
            self.assertGreater(d["bytes"], 2 * MB)
            self.assertGreater(d["restore_estimate_s"], 0)
        self.assertEqual(os.listdir(scratch), [])
        self.assertEqual([s["proven_at"] is not None for s in leader.snapshots("db")],
                         [False, True])
        self.commit()
        leader.backup("db")  # which nobody has proven yet; what was proven stays so
        self.assertEqual([s["proven_at"] is not None for s in leader.snapshots("db")],
                         [False, True, False])
        text = leader.text("verify", "--drill").stdout
        for words in ("is proven", "integrity_check and foreign_key_check", "takes at least"):
            self.assertIn(words, text)

    def test_without_scratch_dir(self):
        leader = self.house()
        leader.backup("db")
        d = self.drill(leader)["w1"]
        self.assertTrue(d["proven"])
        self.assertEqual((d["integrity_checked"], d["not_integrity_checked"]), (0, 1))
        self.assertIn("scratch_dir is not set", leader.text("verify", "--drill").stdout)

    def test_damage_is_found_where_it_is(self):
        leader = self.house()
        leader.backup("db")
        first = self.newest(self.w1)
        self.commit()
        leader.backup("db")
        repository.damage(first, self.rng, at=200)  # in the first block
        drills = self.drill(leader, expect=3)
        self.assertEqual({w: d["proven"] for w, d in drills.items()}, {"w1": False, "w2": True})
        self.assertEqual(drills["w1"]["failed_entries"][0]["path"], self.db)
        self.assertIsNone(drills["w1"]["restore_estimate_s"])
        # The drill's find is enough for sync.
        leader.run("sync")
        self.assertTrue(all(d["proven"] for d in self.drill(leader).values()))
        for worker in (self.w1, self.w2):
            repository.damage(repository.parts(repository.of(worker))[0], self.rng, at=200)
        error = leader.run("verify", "db", "--drill", expect=1).json["errors"][-1]
        self.assertIn("--salvage what is whole of this one", error["hint"])

    def test_what_is_damaged_is_not_fresh(self):
        leader = self.house()
        leader.backup("db")
        for how in ("--drill", "--read-data"):
            self.assertEqual(self.states(leader), ["fresh", "fresh", "fresh"])
            repository.damage(self.newest(self.w1), self.rng, at=200)
            leader.run("verify", how, expect=3)
            self.assertEqual(self.states(leader), ["degraded", "stale", "fresh"])
            leader.run("sync")
        self.assertEqual(self.states(leader), ["fresh", "fresh", "fresh"])
        os.unlink(self.newest(self.w2).path)
        leader.run("verify", expect=3)
        self.assertEqual(self.states(leader), ["degraded", "fresh", "stale"])
        leader.run("sync")
        self.assertEqual(self.states(leader), ["fresh", "fresh", "fresh"])

    def test_a_worker_that_was_caught_up_is_fresh(self):
        leader = self.house()
        leader.backup("db")
        self.w2.kill()
        self.commit()
        leader.backup("db", expect=3)
        self.w2.start()
        leader.run("sync")
        newest = leader.snapshots("db")[-1]["id"]
        catalog = sqlite3.connect(os.path.join(leader.state_dir, "catalog.db"))
        held = catalog.execute("SELECT worker, lower(hex(snapshot)), as_of FROM held").fetchall()
        catalog.close()
        self.assertEqual({h[:2] for h in held}, {("w1", newest), ("w2", newest)})
        self.assertEqual(len({h[2] for h in held}), 1)

    def test_what_hinders_a_drill_says_nothing(self):
        scratch = self.path("scratch")
        os.mkdir(scratch)
        leader = self.house(scratch_dir=scratch)
        leader.backup("db")
        os.rmdir(scratch)
        leader.run("verify", "--drill", expect=1)
        self.assertEqual(self.states(leader), ["fresh", "fresh", "fresh"])

    def test_a_worker_away(self):
        leader = self.house()
        leader.backup("db")
        self.w2.kill()
        self.assertEqual(list(self.drill(leader, expect=3)), ["w1"])


class TestMore(DrillCase):
    def test_a_broken_database_is_not_proven(self):
        """Every byte is as it was stored, and yet nobody could use it: only SQLite can tell."""
        scratch = self.path("scratch")
        os.mkdir(scratch)
        leader = self.house(scratch_dir=scratch)
        live = bank.connect(self.db)
        live.execute("CREATE TABLE victim(a, b)")
        live.execute("CREATE INDEX victims ON victim(a)")
        live.executemany("INSERT INTO victim VALUES(?, ?)", [(i, -i) for i in range(2000)])
        live.execute("PRAGMA writable_schema=1")
        live.execute("UPDATE sqlite_schema SET sql='CREATE INDEX victims ON victim(b)' "
                     "WHERE name='victims'")
        live.close()
        leader.backup("db")
        drills = self.drill(leader, expect=1)
        self.assertIn("SQLite's check", drills["w1"]["failed_entries"][0]["reason"])
        self.assertEqual(self.states(leader), ["stale", "stale", "stale"])
        leader.run("sync")
        self.assertEqual(self.states(leader), ["stale", "stale", "stale"])
        live = bank.connect(self.db)
        live.execute("PRAGMA writable_schema=1")
        live.execute("UPDATE sqlite_schema SET sql='CREATE INDEX victims ON victim(a)' "
                     "WHERE name='victims'")
        live.close()
        leader.backup("db")
        self.assertEqual(self.states(leader), ["fresh", "fresh", "fresh"])

    def test_scratch_dir_that_is_too_small(self):
        leader = self.house(scratch_dir="/proc/self")  # no file can be made there
        leader.backup("db")
        self.drill(leader)

    def test_longest_unread_first(self):
        leader = self.house()
        for _ in range(4):
            leader.backup("db")
            self.commit(200)
        names = {p.name.rpartition(".")[0] for p in repository.parts(repository.of(self.w1))}

        def verified():
            catalog = sqlite3.connect(os.path.join(leader.state_dir, "catalog.db"))
            rows = dict(catalog.execute("SELECT part, at FROM verified WHERE worker='w1'"))
            catalog.close()
            return rows
        runs = 0
        while set(verified()) != names:
            before = verified()
            leader.run("verify", "--read-data=30")
            self.assertGreater(set(verified()), set(before))  # what was never read comes first
            runs += 1
        self.assertGreater(runs, 1)
        before = verified()
        leader.run("verify", "--read-data=30")
        oldest = min(before, key=before.get)
        self.assertGreater(verified()[oldest], before[oldest])

    def test_many_databases(self):
        """An entry list of several chunks, in parts that are not those of the pages."""
        paths = []
        for i in range(120):
            paths.append(self.path(f"a-rather-long-name-of-a-database-{i:03}.sqlite"))
            live = sqlite3.connect(paths[-1])
            live.execute("CREATE TABLE t(x)")
            live.execute("INSERT INTO t VALUES(?)", (i,))
            live.commit()
            live.close()
        worker = self.sshd("w1")
        leader = self.leader([Worker.of(worker)], {"db": {"path": paths, "max_age": "1h"}},
                             authorize=(worker,))
        leader.run("setup")
        leader.backup("db")
        live = sqlite3.connect(paths[50])
        live.execute("INSERT INTO t VALUES(1000)")
        live.commit()
        live.close()
        leader.backup("db")
        d = self.drill(leader)["w1"]
        self.assertEqual((d["proven"], d["images"]), (True, 120))
        target = self.path("t")
        leader.run("restore", "db", "--target", target)
        for i, path in enumerate(paths):
            rows = sqlite3.connect(target + path).execute("SELECT x FROM t").fetchall()
            self.assertEqual(rows, [(i,), (1000,)] if i == 50 else [(i,)])
