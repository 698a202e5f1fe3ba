"""A live database to two workers over real sshds, and back."""

import hashlib
import os
import time

from harness import bank, repository
from harness.case import Case, at_level, by_level
from harness.leader import has_sanitizer

MB = 1_000_000


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(1 << 20):
            h.update(data)
    return h.hexdigest()


def seconds(text):
    """An RFC 3339 time as CONTRACT writes it."""
    return time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone


@at_level("quick")
class TestConsistent(Case):
    def test_restored_equals_the_oracle_while_three_processes_commit(self):
        db = self.bank(size_bytes=20 * MB)
        leader = self.two_workers(db)
        writers = self.writers(db, count=3, rate=200)
        writers.wait_for_commits(100)
        taken = []
        for _ in range(by_level(3, 6, 20)):
            begun = time.time()
            source = leader.backup("db")
            ended = time.time()
            self.assertFalse(source["unchanged"])
            self.assertTrue(source["complete"])
            self.assertEqual([w["stored"] for w in source["workers"]], [True, True])
            self.assertLessEqual(int(begun), seconds(source["as_of"]))
            self.assertLessEqual(seconds(source["as_of"]), ended)
            taken.append((source, begun, ended))
            writers.wait_for_commits(50)
        writers.stop()
        self.assertEqual(writers.failures, [])
        self.assertGreater(writers.rate(), 200)
        last = 0
        for source, begun, ended in taken:
            copy = self.restored(leader, source["snapshot"], db)
            # What was committed before as_of, which counts whole seconds, is in it, too.
            state = bank.examine_between(copy, writers.journals,
                                         max(begun, seconds(source["as_of"])), ended)
            self.assertGreater(state.seq, last)
            last = state.seq
        listed = [s["id"] for s in leader.snapshots("db")]
        self.assertEqual(sorted(listed), sorted(s["snapshot"] for s, _, _ in taken))

    def test_rescue_restores_the_same_bytes(self):
        db = self.bank(size_bytes=10 * MB)
        leader = self.two_workers(db)
        writers = self.writers(db, count=1, rate=300)
        snapshots = []
        for _ in range(3):
            writers.wait_for_commits(50)
            snapshots.append(leader.backup("db")["snapshot"])
        writers.stop()
        for snapshot in snapshots:
            restored = sha256(self.restored(leader, snapshot, db))
            for worker in (self.w1, self.w2):
                rescued = self.rescued(repository.of(worker), snapshot, db)
                self.assertEqual(sha256(rescued), restored)

    def test_page_sizes(self):
        for page_size in (512, 1024, 65536):
            with self.subTest(page_size=page_size):
                db = self.bank(f"bank{page_size}.sqlite", size_bytes=3 * MB, page_size=page_size)
                if page_size == 512:
                    leader = self.two_workers(db)
                else:
                    leader.sources[f"db{page_size}"] = {"path": db}
                    leader.write_conf()
                source = "db" if page_size == 512 else f"db{page_size}"
                writers = self.writers(db, count=1, rate=100, first=page_size)
                writers.wait_for_commits(5)
                begun = time.time()
                snapshot = leader.backup(source)["snapshot"]
                ended = time.time()
                writers.stop()
                copy = self.restored(leader, snapshot, db, source)
                bank.examine_between(copy, writers.journals, begun, ended)


@at_level("quick")
class TestIncrement(Case):
    def test_unchanged_sends_nothing_and_stays_fresh(self):
        db = self.bank(size_bytes=5 * MB)
        leader = self.two_workers(db, proxies=True)
        first = leader.backup("db")
        self.assertFalse(first["unchanged"])
        time.sleep(2.5)  # the signs of a file are trusted when they are older than 2 s
        second = leader.backup("db")  # may have had to look into it once more
        before = {p.name: p for p in repository.parts(repository.of(self.w1))}
        sent = [p.bytes_up for p in self.proxies]
        time.sleep(1.1)
        third = leader.backup("db")
        self.assertTrue(third["unchanged"])
        self.assertTrue(third["complete"])
        self.assertEqual(third["snapshot"], second["snapshot"])
        self.assertEqual(third["bytes_sent"], 0)
        self.assertEqual(third["bytes_changed"], 0)
        after = {p.name: p for p in repository.parts(repository.of(self.w1))}
        self.assertEqual(set(before), set(after))
        newest = max(after.values(), key=lambda p: p.order)
        self.assertGreater(newest.mtime, before[newest.name].mtime)
        for proxy, was in zip(self.proxies, sent):
            self.assertLess(proxy.bytes_up - was, 20_000)

    def test_only_what_changed_travels(self):
        db = self.bank(size_bytes=40 * MB)
        leader = self.two_workers(db, proxies=True)
        first = leader.backup("db")
        self.assertGreater(first["bytes_sent"], 30 * MB)
        for round_number in range(3):
            live = bank.connect(db)
            hand = bank.Hand(live, 1, self.rng)
            for _ in range(10):
                seq, _ = hand.transaction()
                live.execute("COMMIT")
            live.close()
            sent = [p.bytes_up for p in self.proxies]
            source = leader.backup("db")
            for proxy, was in zip(self.proxies, sent):
                self.assertLess(proxy.bytes_up - was, 400_000, f"round {round_number}")
            self.assertEqual(bank.examine(self.restored(leader, source["snapshot"], db)).seq, seq)
        self.assertEqual(bank.examine(self.restored(leader, first["snapshot"], db)).seq, 1)

    def test_little_memory_and_little_writing(self):
        db = self.bank(size_bytes=by_level(60, 150, 500) * MB)
        leader = self.two_workers(db)
        first = leader.backup("db")["result"]
        live = bank.connect(db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(100):
            seq, _ = hand.transaction(items=20)
            live.execute("COMMIT")
        live.close()
        second = leader.backup("db")
        target = self.path("target")
        restore = leader.run("restore", "db", "--target", target)
        self.assertEqual(bank.examine(target + db).seq, seq)
        verify = leader.run("verify", "db", "--read-data")
        if has_sanitizer():
            return
        # The budget (24 MiB, 64 KiB) is the benchmark's to judge; this is a guard against growth
        # with the database. The first backup of all makes the catalog, too, and on a busy machine a
        # page that is written in two goes counts twice.
        for result in (first, second["result"], restore, verify):
            self.assertGreater(result.peak_kb, 0)
            self.assertLessEqual(result.peak_kb, 28 * 1024, result.argv)
        self.assertLessEqual(first.written_bytes, 256 * 1024)
        self.assertLessEqual(second["result"].written_bytes, 128 * 1024)



def look(folder):
    """Everything that a stat shows of a folder's files, but for the time of reading."""
    found = {}
    for name in sorted(os.listdir(folder)):
        st = os.stat(os.path.join(folder, name))
        found[name] = (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_mode)
    return found


@at_level("quick")
class TestUntouched(Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("source"))
        self.db = self.bank("source/bank.sqlite", size_bytes=2 * MB)

    def test_an_idle_database_is_left_without_sidecars(self):
        leader = self.two_workers(self.db)
        self.assertEqual(os.listdir(self.path("source")), ["bank.sqlite"])
        before = look(self.path("source"))
        for _ in range(3):
            snapshot = leader.backup("db")["snapshot"]
            self.assertEqual(look(self.path("source")), before)
        self.assertEqual(bank.examine(self.restored(leader, snapshot, self.db)).seq, 1)
        leader.run("check", expect=(0, 3))
        self.assertEqual(look(self.path("source")), before)

    def test_a_log_is_neither_checkpointed_nor_removed(self):
        leader = self.two_workers(self.db)
        live = bank.connect(self.db)
        live.execute("PRAGMA wal_autocheckpoint=0")
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(50):
            seq, _ = hand.transaction()
            live.execute("COMMIT")
        watched = [self.db, self.db + "-wal"]
        before = [sha256(f) for f in watched]
        snapshot = leader.backup("db")["snapshot"]
        self.assertEqual([sha256(f) for f in watched], before)
        hand.transaction()  # and the application goes on
        live.execute("COMMIT")
        self.assertEqual(bank.examine(self.restored(leader, snapshot, self.db)).seq, seq)
        live.close()
        self.assertEqual(os.listdir(self.path("source")), ["bank.sqlite"])

    def test_a_log_without_an_application_stays(self):
        """What a crashed application leaves: its next start must find its -wal."""
        live = bank.connect(self.db)
        live.execute("PRAGMA wal_autocheckpoint=0")
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(50):
            seq, _ = hand.transaction()
            live.execute("COMMIT")
        crashed = self.path("crashed")
        os.mkdir(crashed)
        for suffix in ("", "-wal"):
            with open(self.db + suffix, "rb") as a, \
                    open(f"{crashed}/bank.sqlite{suffix}", "wb") as b:
                b.write(a.read())
        live.close()
        db = f"{crashed}/bank.sqlite"
        leader = self.two_workers(db)
        before = [sha256(db), sha256(db + "-wal")]
        snapshot = leader.backup("db")["snapshot"]
        self.assertEqual([sha256(db), sha256(db + "-wal")], before)
        self.assertEqual(bank.examine(self.restored(leader, snapshot, db)).seq, seq)
        again = bank.connect(db)
        self.assertEqual(again.execute("SELECT max(seq) FROM ledger").fetchone(), (seq,))
        again.close()
