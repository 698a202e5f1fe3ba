"""bolt databases, live and without their lock, through backup and restore; judged by bbolt itself."""

import os
import shutil
import signal
import subprocess
import sys
import time

from harness import bolt, processes
from harness.case import Case, at_level, by_level
from harness.etcd import Etcd
from harness.leader import PROJECT, Worker


class BoltCase(Case):
    def setUp(self):
        super().setUp()
        self.src = self.path("src")
        os.mkdir(self.src)
        os.mkdir(self.path("w1"))
        self.db = f"{self.src}/state_boltdb.db"

    def house(self, path=None, source=(), **settings):
        leader = self.leader([Worker("w1", "file://" + self.path("w1", "repo"))],
                             {"b": {"path": path or self.src, **dict(source)}}, **settings)
        leader.run("setup")
        return leader

    def owner(self, path=None, **options):
        owner = bolt.Owner(path or self.db, seed=self.rng.randrange(1 << 30), **options)
        self.addCleanup(owner.kill)
        return owner

    def out(self, leader, path=None, snapshot="latest"):
        return self.restored(leader, snapshot, path or self.db, source="b")

    def live_copies(self, leader, path, count, mode):
        """Backups of a live database, each restored and judged; what a judge printed. Answers with
        how often the database was read per backup."""
        tries = []
        for i in range(count):
            source = leader.backup("b")
            copy = self.out(leader, path, source["snapshot"])
            bolt.judge(self, [copy], mode)
            tries.append(source["bytes_read"] / os.path.getsize(copy))
            shutil.rmtree(os.path.dirname(copy))
            time.sleep(self.rng.random() * 0.02)
        return sum(tries) / count, max(tries)


class TestBolt(BoltCase):
    """In CI 30 copies of live databases, 600 in --long."""

    def test_every_page_size_with_nested_inline_and_big(self):
        """Written while they are taken; then each comes back as its owner left it."""
        sizes = {f"{self.src}/{n}.db": n for n in (1024, 4096, 16384, 65536)}
        owners = [self.owner(path, page_size=n, keys=2000, rate=10, no_freelist=n == 16384)
                  for path, n in sizes.items()]
        leader = self.house()
        source = leader.backup("b")
        bolt.judge(self, [self.out(leader, path, source["snapshot"]) for path in sizes])
        for owner in owners:
            owner.stop()
        snapshot = leader.backup("b")["snapshot"]
        leader.run("verify", "--read-data")
        repository = self.path("w1", "repo")
        for path in sizes:
            copy = self.out(leader, path, snapshot)
            self.assertEqual(bolt.dump(copy), bolt.dump(path))
            rescued = self.rescued(repository, snapshot, path)
            subprocess.run(["cmp", copy, rescued], check=True)
            bolt.commit(copy)  # its owner can go on with it
            bolt.commit(copy)
            bolt.judge(self, [copy])

    def test_an_increment_ships_pages_and_an_idle_one_nothing(self):
        bolt.make(self.db, keys=20000, puts=100)
        leader = self.house(path=self.db)  # a single file
        first = leader.backup("b")
        self.assertGreater(first["bytes_changed"], 3_000_000)
        bolt.commit(self.db)
        second = leader.backup("b")
        self.assertFalse(second["unchanged"])
        self.assertLess(second["bytes_changed"], 1_000_000)
        self.assertEqual(bolt.dump(self.out(leader)), bolt.dump(self.db))
        time.sleep(2.2)
        third = leader.backup("b")  # may have looked changed a moment ago
        self.assertLess(third["bytes_changed"], 20_000)
        fourth = leader.backup("b")
        self.assertTrue(fourth["unchanged"])
        self.assertEqual((fourth["bytes_read"], fourth["bytes_sent"]), (0, 0))

    @at_level("default", timeout_s=900)
    def test_live_copies(self):
        """Beside an owner whose commits fall into every moment of a copy."""
        count = by_level(3, 15, 300)
        owner = self.owner(keys=3000, rate=40, reader=True)
        leader = self.house()
        mean, most = self.live_copies(leader, self.db, count, "check")
        size = os.path.getsize(self.db)
        print(f"     {count} copies of {size / 1e6:.1f} MB beside {owner.stop():.0f} commits/s: read "
              f"{mean:.2f} times each, at most {most:.2f}", flush=True)

    @at_level("default", timeout_s=900)
    def test_a_live_etcd(self):
        count = by_level(2, 15, 300)
        etcd = Etcd(self.path("src", "etcd"), self.seed)
        self.addCleanup(etcd.close)
        etcd.wait_for_puts(100)
        leader = self.house(path=etcd.db)
        mean, most = self.live_copies(leader, etcd.db, count, "etcd")
        puts = etcd.stop_load()
        etcd.stop()
        snapshot = leader.backup("b")["snapshot"]
        told = bolt.judge(self, [self.out(leader, etcd.db, snapshot)], "etcd")
        self.assertEqual(told, f"puts {puts}\n")
        print(f"     {count} copies of {os.path.getsize(etcd.db) / 1e6:.1f} MB of a live etcd: read "
              f"{mean:.2f} times each, at most {most:.2f}", flush=True)

    def test_an_owner_that_is_too_fast_and_the_way_out(self):
        """One that commits as fast as it can is met between two commits or fails by name, and what was
        stored stays (the unit tests have one that is always too fast); paused by hooks it works."""
        bolt.make(self.db, keys=30000, puts=100)
        leader = self.house()
        good = leader.backup("b")
        owner = self.owner(keys=30000, puts=1)
        found = leader.backup("b", expect=(0, 3))
        for failed in found["failed_entries"]:
            self.assertEqual(failed["path"], self.db)
            self.assertIn("commits faster", failed["reason"])
            self.assertIn("`before` and `after` hooks", failed["reason"])
        snapshot = found["snapshot"] if found["complete"] else good["snapshot"]
        bolt.judge(self, [self.out(leader, snapshot=snapshot)])
        kill = shutil.which("kill")
        leader.sources["b"].update(before=[kill, "-STOP", str(owner.process.pid)],
                                   after=[kill, "-CONT", str(owner.process.pid)])
        leader.write_conf()
        paused = leader.backup("b")
        self.assertTrue(paused["complete"])
        bolt.judge(self, [self.out(leader, snapshot=paused["snapshot"])])
        owner.stop()

    def test_a_damaged_one_is_carried_over(self):
        other = f"{self.src}/whole.db"
        bolt.make(self.db, keys=500)
        bolt.make(other, keys=500)
        leader = self.house()
        leader.backup("b")
        good = bolt.dump(self.db)
        bolt.commit(other)
        with open(self.db, "r+b") as f:
            f.seek(2 * 4096)
            f.write(bytes(os.path.getsize(self.db) - 2 * 4096))
        source = leader.backup("b", expect=3)
        self.assertEqual([f["path"] for f in source["failed_entries"]], [self.db])
        self.assertIn("damaged", source["failed_entries"][0]["reason"])
        target = self.path("target")
        leader.run("restore", "b", "--target", target)
        self.assertEqual(bolt.dump(target + self.db), good)
        self.assertEqual(bolt.dump(target + other), bolt.dump(other))

    def test_the_second_meta_tells_what_it_is(self):
        """The owner goes on with one meta; so does syncd."""
        bolt.make(self.db, keys=500)
        with open(self.db, "r+b") as f:
            f.write(bytes(80))
        leader = self.house()
        leader.backup("b")
        bolt.judge(self, [self.out(leader)])

    @at_level("quick")
    def test_verify_and_drill(self):
        scratch = self.path("scratch")
        os.mkdir(scratch)
        bolt.make(self.db, keys=500)
        leader = self.house(path=self.db, scratch_dir=scratch)
        self.assertIn("(a bolt database)", leader.text("check", expect=None).stdout)
        leader.backup("b")
        drill = leader.run("verify", "b", "--drill").json["drills"][0]
        self.assertTrue(drill["proven"])
        self.assertEqual((drill["integrity_checked"], drill["not_integrity_checked"]), (1, 0))
        self.assertEqual(os.listdir(scratch), [])

    @at_level("quick")
    def test_in_place(self):
        """Never under a process that has it open; the old one is set aside."""
        bolt.make(self.db, keys=500)
        leader = self.house()
        leader.backup("b")
        good = bolt.dump(self.db)
        owner = self.owner(keys=500, rate=50)
        refused = leader.run("restore", "b", "--in-place", "--yes", expect=1).json
        self.assertIn("open in another process", refused["errors"][0]["message"])
        owner.stop()
        newer = bolt.dump(self.db)
        self.assertNotEqual(newer, good)
        answer = leader.run("restore", "b", "--in-place", "--yes").json
        self.assertEqual(bolt.dump(self.db), good)
        self.assertEqual(bolt.dump(answer["old_kept_at"] + self.db), newer)
        # A file that only looks like one of SQLite's is a file like others.
        beside = self.db + "-journal"
        with open(beside, "w", encoding="ascii") as f:
            f.write("beside")
        leader.backup("b")
        target = self.path("beside")
        leader.run("restore", "b", "--target", target)
        with open(target + beside, encoding="ascii") as f:
            self.assertEqual(f.read(), "beside")


class TestBacalhau(Case):
    """A node's two bolt databases, JSON in nested buckets, beside its YAML and keys."""

    FILES = {"config.yaml": "API:\n  Host: 0.0.0.0\n", "system_metadata.yaml": "NodeName: n-1\n",
             "user_id.pem": "-----BEGIN PRIVATE KEY-----\n", "orchestrator/nats-store/meta": "{}"}

    @staticmethod
    def metas(db):
        with open(db, "rb") as f:
            return f.read(2 * 4096)

    def test_the_leader_is_killed_and_rebuilt(self):
        home = self.path("bacalhau")
        for folder in ("orchestrator/nats-store", "compute"):
            os.makedirs(f"{home}/{folder}")
        for name, text in self.FILES.items():
            with open(f"{home}/{name}", "w", encoding="ascii") as f:
                f.write(text)
        os.chmod(f"{home}/user_id.pem", 0o600)
        databases = [f"{home}/{part}/state_boltdb.db" for part in ("orchestrator", "compute")]
        owners = [bolt.Owner(db, json=True, keys=800, rate=20, seed=self.rng.randrange(1 << 30))
                  for db in databases]
        for owner in owners:
            self.addCleanup(owner.kill)
        leader = self.two_workers(home)
        for _ in range(3):
            source = leader.backup("db")
            self.assertTrue(source["complete"])
        metas = [self.metas(db) for db in databases]
        for db, at_snapshot in zip(databases, metas):
            processes.wait_until(lambda db=db, m=at_snapshot: self.metas(db) != m, 30,
                                 "a commit after the snapshot")
        for owner in owners:
            owner.kill()
        dumps = [bolt.dump(db) for db in databases]
        shutil.rmtree(home)
        shutil.rmtree(leader.folder)

        machine = self.leader(leader.workers, leader.sources, authorize=(self.w1, self.w2),
                              name="rebuilt")
        answer = machine.run("restore", "db", "--in-place", "--yes").json
        self.assertEqual(answer["snapshot"], source["snapshot"])
        bolt.judge(self, databases)
        for db, killed in zip(databases, dumps):
            self.assertTrue(bolt.dump(db) != killed, "they went on after the snapshot")
        for name, text in self.FILES.items():
            with open(f"{home}/{name}", encoding="ascii") as f:
                self.assertEqual(f.read(), text)
        self.assertEqual(os.stat(f"{home}/user_id.pem").st_mode & 0o777, 0o600)
        machine.run("adopt", "--lead")
        for db in databases:  # the node starts again, and is backed up again
            owner = bolt.Owner(db, json=True, keys=800, commits=5)
            self.addCleanup(owner.kill)
            owner.stop()
        self.assertTrue(machine.backup("db")["complete"])


class TestBoltCopies(Case):
    @at_level("long", timeout_s=900)
    def test_three_hundred_live_copies(self):
        """The library alone: the unit test's live copies, 300 of them."""
        tool = os.path.join(PROJECT, "build", "release", "tests", "snapshot_test_bolt_copy")
        done = subprocess.run([tool], env={**os.environ, "SYNCD_TEST_COPIES": "300"},
                              capture_output=True, text=True, timeout=800)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("guarded: 100 copies", done.stdout + done.stderr)
