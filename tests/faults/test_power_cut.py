"""The power goes, or the process is killed, before and after any call that changes a disk: on the
leader and its folders (the whole run is recorded once, and what the disks would hold is put back for
any moment of it), and on an SFTP worker (its server is killed there, and what it had not fsynced is
lost). Then: every snapshot that was ever reported stored restores bit for bit, nothing that bears a
final name is damaged, running again simply works, leftovers are collected."""

import hashlib
import os
import shutil
import sqlite3
import tempfile

import disk
from harness import bank, repository
from harness.case import Case, at_level, by_level
from harness.leader import Leader, Worker
from local_house import LocalHouse

OLD_S = 25 * 3600


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def age(paths, seconds=OLD_S):
    for path in paths:
        st = os.stat(path)
        os.utime(path, (st.st_atime - seconds, st.st_mtime - seconds))


class CutCase(Case):
    syncd_proof = True

    def setUp(self):
        super().setUp()
        self.recorder = disk.Recorder(self.folder)
        self.oracle = {}  # snapshot -> digest of its restored database

    def moments(self, ops, count):
        """(number of calls done, loss): the whole matrix when there is room for it; the end, where
        all is reported stored, with every loss in any case."""
        points = range(len(ops) + 1)
        pairs = [(p, loss) for p in points for loss in disk.LOSSES]
        end = [pair for pair in pairs if pair[0] == len(ops)]
        return pairs if len(pairs) <= count else sorted(self.rng.sample(pairs, count) + end)

    def where(self, ops, point, loss):
        last = f"{ops[point - 1]}" if point else "nothing"
        return f"{point} of {len(ops)} calls done, the last {last}; lost: {loss}"

    def note(self, leader, snapshot, db):
        """Reported stored: from now on it must restore to these bits."""
        self.oracle[snapshot] = self.restored_digest(leader, snapshot, db)

    def restored_digest(self, leader, snapshot, db):
        target = tempfile.mkdtemp(dir=self.folder)
        copy = leader.restored("db", snapshot, target, db)
        bank.examine(copy)
        answer = digest(copy)
        shutil.rmtree(target)
        return answer

    def assert_whole(self, leader, db, where, roots):
        for root in roots:
            repository.parts(root)  # all names are names of parts
        result = leader.run("verify", "db", "--read-data", expect=(0, 3))
        damaged = [d for w in result.json["workers"] for d in w["damaged"]]
        self.assertEqual(damaged, [], f"{where}: {result}")
        for snapshot, wanted in self.oracle.items():
            self.assertEqual(self.restored_digest(leader, snapshot, db), wanted, where)

    def assert_backs_up(self, leader, db, where):
        source = leader.backup("db")
        self.assertTrue(all(w["stored"] for w in source["workers"]), f"{where}: {source}")
        copy = self.restored(leader, source["snapshot"], db)
        self.assertEqual(bank.examine(copy).seq, bank.examine(db).seq, where)

    def assert_collected(self, leader, roots, where):
        """Leftovers, once they are old enough."""
        for root in roots:
            tmp = os.path.join(root, "tmp")
            age([os.path.join(tmp, n) for n in os.listdir(tmp)])
        leader.run("prune")
        for root in roots:
            self.assertEqual(os.listdir(os.path.join(root, "tmp")), [], where)


class TestLocal(CutCase):
    """Leader and workers on one machine, which loses its power as a whole."""

    def setUp(self):
        super().setUp()
        self.house = LocalHouse(self)
        self.leader_ = self.house.leader
        self.base = None
        self.also = []

    def backup(self):
        source = self.house.backup()
        if source["snapshot"] not in self.oracle:
            self.note(self.leader_, source["snapshot"], self.house.db)
        return source["snapshot"]

    def history(self, count):
        self.leader_.run("setup")
        taken = []
        for _ in range(count):
            self.house.commit()
            taken.append(self.backup())
        return taken

    def cut_anywhere(self, *command, leader=None, again=None, count=None, check=None):
        """Records the command once; then for every moment: the disks of then, the checks."""
        leader = leader or self.leader_
        roots = [leader.state_dir, leader.run_dir, *self.house.roots, *self.also]
        for root in self.house.roots:
            os.makedirs(root, exist_ok=True)
        before = disk.Disk(roots)
        self.times = self.times_of_snapshots()
        result = leader.run(*command, env=self.recorder.environment(roots))
        self.times |= self.times_of_snapshots()
        ops = self.recorder.ops()
        self.assertGreater(len(ops), 5)
        moments = self.moments(ops, count or by_level(4, 16, 100000))
        print(f"{self.id()}: {len(ops)} calls, {len(moments)} moments", flush=True)
        done = 0
        for number, (point, loss) in enumerate(moments):
            while done < point:
                before.apply(ops[done])
                done += 1
            before.put(loss, self.rng)
            if loss != disk.NOTHING:  # the machine was down
                shutil.rmtree(leader.run_dir)
                os.mkdir(leader.run_dir, 0o700)
            where = self.where(ops, point, loss)
            with self.subTest(where):
                self.assertEqual(self.times_of_snapshots() - self.times, set(), where)
                (check or self.check)(leader, again or command, where, result,
                                      point == len(ops), number)

    def times_of_snapshots(self):
        """What freshness is told by: none may ever be another than that of its state."""
        return {(p.path, round(p.mtime, 3)) for root in self.house.roots
                for p in repository.parts(root, "db", "snap")}

    def check(self, leader, command, where, result, complete, number):
        if complete and command[0] == "backup":
            source = result.json["sources"][0]
            copy = self.restored(leader, source["snapshot"], self.house.db)
            self.assertEqual(bank.examine(copy).seq, self.house.state(), where)
        self.assert_whole(leader, self.house.db, where, self.house.roots)
        leader.run(*command)
        self.assert_backs_up(leader, self.house.db, where)
        if number % 4 == 0:
            self.assert_collected(leader, self.house.roots, where)
            if command[0] != "prune":  # there the backup has made one more too old
                self.assert_whole(leader, self.house.db, f"{where}; pruned", self.house.roots)

    @at_level("quick", timeout_s=6 * 3600)
    def test_backup(self):
        self.history(2)
        self.house.commit()
        self.cut_anywhere("backup", "db", count=by_level(6, 30, 100000))

    @at_level("default", timeout_s=6 * 3600)
    def test_first_backup(self):
        self.leader_.run("setup")
        self.cut_anywhere("backup", "db")

    @at_level("default", timeout_s=6 * 3600)
    def test_sync(self):
        """One part is missing on each worker, one damaged."""
        taken = self.history(4)
        for root, missing, damaged in zip(self.house.roots, (0, 1), (2, 3)):
            parts = {p.id: p for p in repository.parts(root)}
            os.unlink(parts[taken[missing]].path)
            repository.damage(parts[taken[damaged]], self.rng)
        self.leader_.run("verify", "--read-data", expect=3)
        self.cut_anywhere("sync", check=self.check_sync)

    def check_sync(self, leader, command, where, result, complete, number):
        """What is damaged on one worker comes from the other, until sync has mended it."""
        for snapshot, wanted in self.oracle.items():
            self.assertEqual(self.restored_digest(leader, snapshot, self.house.db), wanted, where)
        leader.run("verify", "db", "--read-data", expect=(0, 3))
        leader.run("sync")
        leader.run("verify", "db", "--read-data")
        self.check(leader, command, where, result, complete, number)

    @at_level("default", timeout_s=6 * 3600)
    def test_prune(self):
        """Some parts lose their names, some that lost them a day ago go."""
        self.history(4)
        self.leader_.sources["db"]["keep_last"] = 2
        self.leader_.write_conf()
        self.leader_.run("prune")
        for root in self.house.roots:
            age([p.path for p in repository.parts(root, "db", "del")])
        for _ in range(2):
            self.house.commit()
            self.backup()
        keep = [s["id"] for s in self.leader_.run("prune", "--dry-run").json["snapshots"]
                if s["keep"]]
        self.oracle = {s: d for s, d in self.oracle.items() if s in keep}
        self.assertEqual(len(self.oracle), 2)
        self.cut_anywhere("prune")

    @at_level("default", timeout_s=6 * 3600)
    def test_setup(self):
        def check(leader, command, where, result, complete, number):
            leader.run("setup")
            self.assert_backs_up(leader, self.house.db, where)
            self.assert_collected(leader, self.house.roots, where)
        self.cut_anywhere("setup", check=check)

    @at_level("default", timeout_s=6 * 3600)
    def test_adopt(self):
        self.history(2)
        second = Leader(self.folder, self.leader_.workers, self.leader_.sources, name="second")
        self.addCleanup(second.close)

        def check(leader, command, where, result, complete, number):
            if complete:
                self.assert_backs_up(leader, self.house.db, where)
            leader.run(*command)
            self.check(leader, command, where, result, complete, number)
        self.cut_anywhere("adopt", "--lead", leader=second, check=check)

    @at_level("default", timeout_s=6 * 3600)
    def test_restore(self):
        taken = self.history(1)
        target = self.case_folder("target")
        copy = target + self.house.db

        def check(leader, command, where, result, complete, number):
            if complete or os.path.exists(copy):
                self.assertEqual(digest(copy), self.oracle[taken[0]], where)
            leader.run(*command)
            self.assertEqual(digest(copy), self.oracle[taken[0]], where)
            self.assertEqual(len(os.listdir(os.path.dirname(copy))), 1, where)
        self.cut_anywhere("restore", "db", "--target", target, check=check)

    def case_folder(self, name):
        path = self.path(name)
        os.mkdir(path)
        self.also.append(path)
        return path

    @at_level("default", timeout_s=6 * 3600)
    def test_restore_in_place(self):
        """Over a database whose last commits lie in its -wal."""
        folder = self.case_folder("data")
        self.house.db = os.path.join(folder, "bank.sqlite")
        bank.create(self.house.db, self.seed, size_bytes=100_000)
        self.leader_.sources["db"]["path"] = self.house.db
        self.leader_.write_conf()
        taken = self.history(1)
        wanted = self.oracle[taken[0]]
        seq = self.commit_and_die()

        def check(leader, command, where, result, complete, number):
            if complete:
                self.assertEqual(digest(self.house.db), wanted, where)
            else:
                self.assert_old_or_new(wanted, seq, where)
            if digest(self.house.db) == wanted:
                self.assert_set_aside(folder, seq, where)
            leader.run(*command)
            self.assertEqual(digest(self.house.db), wanted, where)
            for suffix in ("-wal", "-journal"):
                self.assertFalse(os.path.exists(self.house.db + suffix), where)
            leader.run("verify", "db", "--read-data")
        self.cut_anywhere("restore", "db", "--in-place", "--yes", "--snapshot", taken[0],
                          check=check)

    def assert_set_aside(self, folder, seq, where):
        """What the new one has replaced is there, too."""
        old = os.path.join(folder, ".syncd-restore")
        found = [os.path.join(at, "bank.sqlite") for at, _, names in os.walk(old)
                 if "/old/" in at and "bank.sqlite" in names]
        self.assertEqual(len(found), 1, where)
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            copy = os.path.join(aside, "copy")
            shutil.copyfile(found[0], copy)
            self.assertEqual(bank.examine(copy).seq, seq, where)

    def commit_and_die(self):
        """The commits of a writer that was killed are in the -wal alone."""
        live = bank.connect(self.house.db)
        live.execute("PRAGMA wal_autocheckpoint=0")
        seq, _ = bank.Hand(live, 1, self.rng).transaction(20)
        live.execute("COMMIT")
        for suffix in ("", "-wal"):
            shutil.copyfile(self.house.db + suffix, self.path("aside" + suffix))
        live.close()
        for suffix in ("", "-wal"):
            shutil.copyfile(self.path("aside" + suffix), self.house.db + suffix)
        self.assertGreater(os.path.getsize(self.house.db + "-wal"), 0)
        return seq

    def assert_old_or_new(self, wanted, seq, where):
        """Looked at in a copy: opening it here would change it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            copy = os.path.join(folder, "copy")
            for suffix in ("", "-wal"):
                if os.path.exists(self.house.db + suffix):
                    shutil.copyfile(self.house.db + suffix, copy + suffix)
            if digest(copy) == wanted and not os.path.exists(copy + "-wal"):
                return
            live = sqlite3.connect(copy)
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            live.close()
            self.assertEqual(bank.examine(copy).seq, seq, where)


class TestWorker(CutCase):
    """An SFTP worker that loses its power before or after any call of its server."""

    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=300_000)
        self.w1 = self.sshd("w1")
        self.leader_ = self.leader([Worker.of(self.w1)],
                                   {"db": {"path": self.db, "keep_last": 10000}},
                                   authorize=(self.w1,))
        self.root = repository.of(self.w1)
        self.leader_.run("setup")

    def commit(self):
        live = bank.connect(self.db)
        seq, _ = bank.Hand(live, 1, self.rng).transaction(20)
        live.execute("COMMIT")
        live.close()
        return seq

    def cuts(self, ops):
        """Before and after calls of every kind, seeded; all of them in the long run."""
        kinds = {}
        for number, op in enumerate(ops, 1):
            kinds.setdefault(op.what, []).append(number)
        each = by_level(1, 2, 100000)
        numbers = [n for found in kinds.values() for n in self.rng.sample(found,
                                                                         min(each, len(found)))]
        for number in sorted(numbers):
            for side in ("before", "after") if by_level(0, 0, 1) else \
                    (self.rng.choice(("before", "after")),):
                yield number, side

    @at_level("default", timeout_s=6 * 3600)
    def test_backup(self):
        self.note_backup()
        self.recorder.restart(self.w1, self.root)
        before = disk.Disk([self.root], by_file=True)
        self.commit()
        self.note_backup()
        ops = self.recorder.ops()
        self.check_stored(before, ops)
        self.assertTrue({"create", "write", "fsync", "link"} <= {op.what for op in ops}, ops)
        for number, side in self.cuts(ops):
            for loss in disk.LOSSES[1:] if by_level(0, 0, 1) else (self.rng.choice(disk.LOSSES[1:]),):
                with self.subTest(f"{side} call {number} ({ops[number - 1]}); lost: {loss}"):
                    self.cut(number, side, loss)

    def check_stored(self, before, ops):
        """Reported stored, and then the power goes: whatever was not made durable by then."""
        self.w1.wait_idle()
        for op in ops:
            before.apply(op)
        for loss in disk.LOSSES[1:]:
            before.put(loss, self.rng)
            with self.subTest(f"all is done; lost: {loss}"):
                self.assert_whole(self.leader_, self.db, loss, [self.root])
        before.put(disk.NOTHING, self.rng)

    def note_backup(self):
        snapshot = self.leader_.backup("db")["snapshot"]
        self.note(self.leader_, snapshot, self.db)

    def cut(self, number, side, loss):
        self.commit()
        before = disk.Disk([self.root], by_file=True)
        self.recorder.restart(self.w1, self.root, f"{number}:{side}")
        result = self.leader_.run("backup", "db", expect=(0, 1, 3))
        self.w1.wait_idle()
        source = result.json["sources"][0]
        for op in self.recorder.ops():
            before.apply(op)
        before.put(loss, self.rng)
        self.recorder.restart_plainly(self.w1)
        where = f"{side} call {number}, {loss} lost, {result}"
        if result.exit == 0:
            self.note(self.leader_, source["snapshot"], self.db)
        self.assert_whole(self.leader_, self.db, where, [self.root])
        self.assert_backs_up(self.leader_, self.db, where)
        self.assert_collected(self.leader_, [self.root], where)
        if len(self.oracle) > 4:  # all of them each time would take the square of the cuts
            del self.oracle[self.rng.choice(list(self.oracle))]
