"""Two workers at once: one that is down, slow, stalled, full or refuses us never costs the other
its snapshot, and catches up by itself at the next run."""

import os
import subprocess
import time

from harness import bank, contract, processes, repository
from harness.case import Case, at_level
from harness.leader import Worker
from harness.sshd import keygen

MB = 1_000_000


class WorkerCase(Case):
    def stored(self, source):
        return {w["name"]: w["stored"] for w in source["workers"]}

    def error_of(self, source, name):
        return next(w["error"] for w in source["workers"] if w["name"] == name)

    def commit(self, db, count=20, items=5):
        live = bank.connect(db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(count):
            seq, _ = hand.transaction(items)
            live.execute("COMMIT")
        live.close()
        return seq

    def assert_partial(self, leader, missing="w2", kept="w1", **kwargs):
        source = leader.backup("db", expect=3, **kwargs)
        self.assertEqual(self.stored(source), {kept: True, missing: False}, str(source["result"]))
        self.assertTrue(self.error_of(source, missing))
        return source

    def assert_restores_from(self, leader, only, snapshot, db, seq):
        """With the other worker gone."""
        other = self.w2 if only is self.w1 else self.w1
        other.kill()
        try:
            self.assertEqual(bank.examine(self.restored(leader, snapshot, db)).seq, seq)
        finally:
            other.start()


@at_level("quick")
class TestKilled(WorkerCase):
    def test_worker_killed_mid_upload_and_back(self):
        db = self.bank(size_bytes=60 * MB)
        leader = self.two_workers(db, proxies=True)
        self.proxies[1].rate_bytes = 15 * MB
        run = leader.start("backup", "db", json_output=True)
        processes.wait_until(lambda: self.proxies[1].bytes_up > 5 * MB, 60, "5 MB went to w2")
        self.w2.kill()
        result = run.wait(120)
        self.assertEqual(result.exit, 3, str(result))
        source = contract.check_json("backup", result)["sources"][0]
        self.assertEqual(self.stored(source), {"w1": True, "w2": False})
        self.assertTrue(self.error_of(source, "w2"))
        self.assertEqual(bank.examine(self.restored(leader, source["snapshot"], db)).seq, 1)
        self.w2.start()
        self.proxies[1].rate_bytes = 0
        seq = self.commit(db)
        again = leader.backup("db")  # exit 0: w2 has caught up by itself
        self.assertEqual(self.stored(again), {"w1": True, "w2": True})
        for only in (self.w1, self.w2):
            self.assert_restores_from(leader, only, again["snapshot"], db, seq)
        self.assertEqual(bank.examine(self.restored(leader, source["snapshot"], db)).seq, 1)
        leader.run("verify", "db", "--read-data")

    def test_unchanged_source_catches_up_too(self):
        db = self.bank(size_bytes=2 * MB)
        leader = self.two_workers(db)
        self.w2.kill()
        first = self.assert_partial(leader)
        time.sleep(2.5)
        self.assert_partial(leader)
        self.w2.start()
        again = leader.backup("db")
        self.assertEqual(self.stored(again), {"w1": True, "w2": True})
        self.assert_restores_from(leader, self.w2, "latest", db, 1)
        self.assertEqual(bank.examine(self.restored(leader, first["snapshot"], db)).seq, 1)

    def test_workers_that_take_turns(self):
        db = self.bank(size_bytes=2 * MB)
        leader = self.two_workers(db)
        taken = [(leader.backup("db")["snapshot"], 1)]
        for away, here in ((self.w1, "w2"), (self.w2, "w1"), (self.w1, "w2")):
            seq = self.commit(db)
            away.kill()
            source = self.assert_partial(leader, missing=away.name, kept=here)
            taken.append((source["snapshot"], seq))
            away.start()
        seq = self.commit(db)
        last = leader.backup("db")
        taken.append((last["snapshot"], seq))
        for snapshot, seq in taken:
            self.assertEqual(bank.examine(self.restored(leader, snapshot, db)).seq, seq)

    def test_the_only_worker_that_had_the_parts_fails(self):
        """w1 lacks what it was away for; before it can get that, w2 goes."""
        db = self.bank(size_bytes=2 * MB)
        leader = self.two_workers(db, proxies=True)
        leader.backup("db")
        self.w1.kill()
        self.commit(db, 20, 20)
        kept = self.assert_partial(leader, missing="w1", kept="w2")
        self.w1.start()
        seq = self.commit(db, 20, 20)
        self.proxies[1].cut_after = self.proxies[1].bytes_up + 100_000
        source = leader.backup("db", expect=(1, 3))
        stored = self.stored(source)
        self.assertFalse(stored["w1"], "w1 cannot have the whole snapshot")
        self.assertEqual(source["result"].exit, 3 if stored["w2"] else 1)
        self.proxies[1].restore()
        last = leader.backup("db")
        self.assertEqual(self.stored(last), {"w1": True, "w2": True})
        for only in (self.w1, self.w2):
            self.assert_restores_from(leader, only, "latest", db, seq)
            self.assert_restores_from(leader, only, last["snapshot"], db, seq)
            self.assert_restores_from(leader, only, kept["snapshot"], db, 21)

    def test_a_rotten_old_part_does_not_hide_that_the_new_snapshot_is_stored(self):
        """w2 lost its copy of an old part, and w1's is rotten: old snapshots are lost with it, but
        what is taken from now on is on both workers, and must be called so."""
        db = self.bank(size_bytes=2 * MB)
        leader = self.two_workers(db)
        leader.backup("db")
        repository.damage(repository.parts(repository.of(self.w1))[0], self.rng, at=200)
        os.unlink(repository.parts(repository.of(self.w2))[0].path)
        self.commit(db)
        leader.backup("db", expect=(1, 3))  # finds it out
        for _ in range(2):
            seq = self.commit(db)
            source = leader.backup("db", expect=3)
            self.assertEqual(self.stored(source), {"w1": True, "w2": True}, str(source["result"]))
            for name in ("w1", "w2"):
                self.assertIn("older ones need", self.error_of(source, name))
        for worker in leader.run("status").json["sources"][0]["workers"]:
            self.assertEqual(worker["state"], "fresh")
        for only in (self.w1, self.w2):
            self.assert_restores_from(leader, only, source["snapshot"], db, seq)

    def test_both_away_is_a_failure(self):
        db = self.bank()
        leader = self.two_workers(db)
        leader.backup("db")
        self.w1.kill()
        self.w2.kill()
        self.commit(db)
        source = leader.backup("db", expect=1)
        self.assertEqual(self.stored(source), {"w1": False, "w2": False})
        self.w1.start()
        self.w2.start()
        leader.backup("db")


class TestNetwork(WorkerCase):
    def test_a_folder_that_one_worker_cannot_make(self):
        db = self.bank()
        leader = self.two_workers(db)
        in_the_way = os.path.join(self.w2.root, "leader", "db")
        with open(in_the_way, "w", encoding="ascii"):
            pass
        self.assert_partial(leader)
        os.unlink(in_the_way)
        self.assertTrue(leader.backup("db")["complete"])

    def test_cut_before_the_first_block(self):
        """Wherever that is - handshake, login, who leads, what is held - it is told."""
        db = self.bank()
        leader = self.two_workers(db, proxies=True)
        leader.backup("db")
        for after in range(2_000, 8_000, 300):
            self.commit(db)
            with self.subTest(after=after):
                self.proxies[1].cut_after = self.proxies[1].bytes_up + after
                source = leader.run("backup", "db", expect=(0, 3)).json["sources"][0]
                self.proxies[1].restore()
                for worker in source["workers"]:
                    self.assertTrue(worker["stored"] or worker["error"], source)

    def test_cut_line(self):
        db = self.bank(size_bytes=30 * MB)
        leader = self.two_workers(db, proxies=True)
        for after in (100, 3_000, 20_000, 1 * MB, 10 * MB, 29 * MB):
            with self.subTest(after=after):
                self.proxies[1].cut_after = self.proxies[1].bytes_up + after
                begun = time.monotonic()
                self.assert_partial(leader)
                self.assertLess(time.monotonic() - begun, 60)
                self.proxies[1].restore()
                self.commit(db, items=200)
        last = leader.backup("db")
        seq = self.commit(db, 1)
        self.assert_restores_from(leader, self.w2, last["snapshot"], db, seq - 1)
        leader.run("verify", "db", "--read-data")

    def test_short_reset_is_healed_within_the_run_or_the_next(self):
        db = self.bank(size_bytes=30 * MB)
        leader = self.two_workers(db, proxies=True)
        self.proxies[1].rate_bytes = 10 * MB
        run = leader.start("backup", "db", json_output=True)
        processes.wait_until(lambda: self.proxies[1].bytes_up > 5 * MB, 60, "5 MB went to w2")
        self.proxies[1].reset()
        self.assertIn(run.wait(120).exit, (0, 3))
        self.assertEqual(self.stored(leader.backup("db")), {"w1": True, "w2": True})

    @at_level("default", timeout_s=300)
    def test_stalled_worker_is_given_up(self):
        db = self.bank(size_bytes=30 * MB)
        leader = self.two_workers(db, proxies=True)
        self.proxies[1].rate_bytes = 10 * MB
        run = leader.start("backup", "db", json_output=True)
        processes.wait_until(lambda: self.proxies[1].bytes_up > 5 * MB, 60, "5 MB went to w2")
        self.proxies[1].stall()
        result = run.wait(120)
        self.assertEqual(result.exit, 3, str(result))
        self.proxies[1].reset()
        self.proxies[1].resume()
        self.proxies[1].rate_bytes = 0
        self.assertEqual(self.stored(leader.backup("db")), {"w1": True, "w2": True})

    @at_level("default", timeout_s=300)
    def test_slow_worker_is_detached_and_catches_up(self):
        db = self.bank(size_bytes=60 * MB)
        leader = self.two_workers(db, proxies=True)
        self.proxies[1].rate_bytes = 200_000
        run = leader.start("backup", "db", json_output=True)
        # At that rate w2 would take 5 minutes; w1 has its snapshot after a little more than the
        # 10 s for which it waits for w2.
        processes.wait_until(lambda: repository.parts(repository.of(self.w1), "db", "snap"), 40,
                             "the snapshot is stored on w1")
        self.assertEqual(repository.parts(repository.of(self.w2), "db", "snap"), [])
        self.proxies[1].rate_bytes = 0
        self.assertIn(run.wait(120).exit, (0, 3))
        snapshot = leader.backup("db")
        self.assertEqual(self.stored(snapshot), {"w1": True, "w2": True})
        self.assert_restores_from(leader, self.w2, snapshot["snapshot"], db, 1)

    def test_far_away_worker(self):
        db = self.bank(size_bytes=10 * MB)
        leader = self.two_workers(db, proxies=True)
        self.proxies[1].delay_s = 0.02
        snapshot = leader.backup("db")["snapshot"]
        self.assert_restores_from(leader, self.w2, snapshot, db, 1)


class TestRefused(WorkerCase):
    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=2 * MB)
        self.leader_ = self.two_workers(self.db)
        self.leader_.backup("db")
        self.seq = self.commit(self.db)

    def assert_refused_then_mended(self, mend, *words):
        source = self.assert_partial(self.leader_)
        text = str(source["result"].json).lower()
        for word in words:
            self.assertIn(word, text)
        self.leader_.run("check", expect=1)
        mend()
        again = self.leader_.backup("db")
        self.assertEqual(self.stored(again), {"w1": True, "w2": True})
        self.assert_restores_from(self.leader_, self.w2, again["snapshot"], self.db, self.seq)

    def test_key(self):
        keys = self.w2.authorized_keys
        os.rename(keys, keys + ".aside")
        self.assert_refused_then_mended(lambda: os.rename(keys + ".aside", keys), "key")

    def test_host_key(self):
        self.w2.kill()
        os.rename(self.w2.host_key, self.w2.host_key + ".aside")
        self.w2.host_key, old = self.w2.host_key + ".new", self.w2.host_key
        keygen(self.w2.host_key)
        self.w2.start()

        def mend():
            self.w2.kill()
            os.rename(old + ".aside", old)
            self.w2.host_key = old
            self.w2.start()
        self.assert_refused_then_mended(mend, "host key")

    def test_repository_that_is_not_mounted(self):
        root = repository.of(self.w2)
        os.rename(root, root + ".aside")
        self.assert_refused_then_mended(lambda: os.rename(root + ".aside", root), "mounted")
        self.assertFalse(os.path.exists(root + ".aside"))

    def test_another_leaders_repository(self):
        """Two machines must not share a folder, nor a repository take over another's place."""
        other = self.leader([Worker.of(w, folder="other") for w in (self.w1, self.w2)],
                            {"db": {"path": self.db}}, authorize=(self.w1, self.w2), name="other")
        other.run("setup")
        mine, its = repository.of(self.w2), repository.of(self.w2, "other")
        os.rename(mine, mine + ".aside")
        os.rename(its, mine)
        self.assert_partial(self.leader_)
        self.assertEqual(repository.parts(mine), [])
        os.rename(mine, its)
        os.rename(mine + ".aside", mine)
        self.leader_.backup("db")

    def test_ciphers_that_libssh2_lacks(self):
        self.w2.kill()
        self.w2.options["Ciphers"] = "aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"
        self.w2.start()
        self.assert_refused_then_mended(self.other_ciphers, "cipher")

    def other_ciphers(self):
        self.w2.kill()
        del self.w2.options["Ciphers"]
        self.w2.start()


class TestFull(WorkerCase):
    def test_full_worker(self):
        if os.geteuid() != 0:
            self.skipTest("needs root: mounts a small tmpfs")
        db = self.bank(size_bytes=40 * MB)
        self.w1, self.w2 = self.sshd("w1"), self.sshd("w2")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", self.w2.root], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.w2.root], check=True)
        leader = self.leader([Worker.of(self.w1), Worker.of(self.w2)], {"db": {"path": db}},
                             authorize=(self.w1, self.w2))
        leader.run("setup")
        source = self.assert_partial(leader)
        self.assertIn("no-space", str(source["result"].json))
        subprocess.run(["mount", "-o", "remount,size=200m", self.w2.root], check=True)
        again = leader.backup("db")
        self.assertEqual(self.stored(again), {"w1": True, "w2": True})
        self.assert_restores_from(leader, self.w2, again["snapshot"], db, 1)

    def test_read_only_worker(self):
        if os.geteuid() != 0:
            self.skipTest("needs root: mounts a tmpfs")
        db = self.bank(size_bytes=1 * MB)
        self.w1, self.w2 = self.sshd("w1"), self.sshd("w2")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", self.w2.root], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.w2.root], check=True)
        leader = self.leader([Worker.of(self.w1), Worker.of(self.w2)], {"db": {"path": db}},
                             authorize=(self.w1, self.w2))
        leader.run("setup")
        leader.backup("db")
        subprocess.run(["mount", "-o", "remount,ro", self.w2.root], check=True)
        seq = self.commit(db)
        self.assert_partial(leader)
        subprocess.run(["mount", "-o", "remount,rw", self.w2.root], check=True)
        again = leader.backup("db")
        self.assert_restores_from(leader, self.w2, again["snapshot"], db, seq)
