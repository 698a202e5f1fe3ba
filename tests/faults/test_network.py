"""A line that fails at any moment of any command: the command ends in time and says so, nothing is
taken for done that is not, the other worker's copy is as good as ever, and running again works."""

import os
import shutil
import signal
import tempfile
import time

import disk
from harness import bank, processes, repository
from harness.case import Case, at_level, by_level
from harness.leader import Worker
from harness.sshd import Sshd

ENDS_S = 150  # a stalled line is given up after 30 s; making durable, 4 times that


class LineCase(Case):
    def commit(self, items=20):
        live = bank.connect(self.db)
        seq, _ = bank.Hand(live, 1, self.rng).transaction(items)
        live.execute("COMMIT")
        live.close()
        return seq

    def restored_seq(self, *words, **kwargs):
        with tempfile.TemporaryDirectory(dir=self.folder) as target:
            self.leader_.run("restore", "db", *words, "--target", target, **kwargs)
            return bank.examine(target + self.db).seq


class TestLine(LineCase):
    """The line to w2 fails after any share of what a command needs of it."""

    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=400_000)
        self.leader_ = self.two_workers(self.db, proxies=True, keep_last=10000)
        self.line = self.proxies[1]
        self.taken = {}
        for _ in range(3):
            self.commit()
            self.note()

    def note(self):
        self.taken[self.leader_.backup("db")["snapshot"]] = bank.examine(self.db).seq

    def faults(self):
        return {"reset": self.line.reset, "cut": self.line.cut, "stall": self.line.stall,
                "half close from the leader": lambda: self.line.half_close(True),
                "half close from the worker": lambda: self.line.half_close(False)}

    def lose_one(self):
        parts = repository.parts(repository.of(self.w2), "db", "snap")
        os.unlink(self.rng.choice(parts).path)

    def commands(self):
        """(words, what makes it work for its living, exits with the fault)"""
        def nothing():
            pass
        return ((("backup", "db"), self.commit, (0, 3)),
                (("restore", "db", "--target", self.path("target")), nothing, (0,)),
                (("sync",), self.lose_one, (0, 1, 3)),
                (("verify", "--read-data"), nothing, (0, 3)),
                (("verify", "--drill"), nothing, (0, 3)),
                (("prune",), nothing, (0, 1, 3)),
                (("snapshots",), nothing, (0, 1, 3)),
                (("check",), nothing, (0, 1, 3)))

    def traffic(self, words, prepare):
        """How many bytes the command moves on the line when all is well."""
        prepare()
        before = self.line.bytes_up + self.line.bytes_down
        self.leader_.run(*words, expect=(0, 3))
        self.tidy()
        return self.line.bytes_up + self.line.bytes_down - before

    def tidy(self):
        shutil.rmtree(self.path("target"), ignore_errors=True)
        self.leader_.run("sync")

    def strike(self, words, prepare, exits, fault, after):
        prepare()
        self.line.strike(after, self.faults()[fault])
        begun = time.monotonic()
        result = self.leader_.run(*words, expect=exits, timeout_s=ENDS_S)
        if fault != "stall":
            self.assertLess(time.monotonic() - begun, 60)
        self.line.restore()
        self.line.reset()  # what still hangs
        self.w2.wait_idle()
        if words[0] == "backup":
            source = result.json["sources"][0]
            self.taken[source["snapshot"]] = bank.examine(self.db).seq
            for worker in source["workers"]:
                self.assertTrue(worker["stored"] or worker["error"], str(result))
            whole = all(worker["stored"] for worker in source["workers"])
            self.assertEqual(result.exit, 0 if whole else 3, str(result))
        if words[0] == "restore":
            self.assertEqual(bank.examine(self.path("target") + self.db).seq,
                             list(self.taken.values())[-1])
        if result.exit == 3 and words[0] in ("sync", "verify", "prune"):
            self.assertIn("w2", str(result.json["errors"]) + str(result.json.get("workers")))

    def matrix(self, faults, each):
        for words, prepare, exits in self.commands():
            traffic = self.traffic(words, prepare)
            for fault in faults:
                for _ in range(each):
                    # Half of them in the handshake and the login, which come first.
                    after = self.rng.randrange(1, 4000 if self.rng.random() < 0.3 else traffic + 1)
                    with self.subTest(f"{' '.join(words)}: {fault} after {after} of {traffic} "
                                      "bytes"):
                        self.strike(words, prepare, exits, fault, after)
                        self.tidy()
        self.note()
        for snapshot, seq in self.taken.items():
            self.assertEqual(self.restored_seq("--snapshot", snapshot), seq)
        self.leader_.run("verify", "--read-data")

    @at_level("default", timeout_s=4 * 3600)
    def test_cut(self):
        quick = [f for f in self.faults() if f != "stall"]
        faults = quick if by_level(0, 0, 1) else self.rng.sample(quick, 2)
        self.matrix(faults, by_level(1, 1, 20))

    @at_level("long", timeout_s=4 * 3600)
    def test_stall(self):
        self.matrix(["stall"], 4)


class TestServer(LineCase):
    """The worker's server is there and answers no more, from one of its calls on."""

    def recorded(self, worker):
        """The calls of the worker's server during an increment."""
        recorder, root = disk.Recorder(self.folder), repository.of(worker)
        self.leader_.backup("db")
        recorder.restart(worker, root)
        self.commit()
        self.leader_.backup("db")
        return recorder, root, recorder.ops()

    def stall_at(self, ops, what):
        number = self.rng.choice([n for n, op in enumerate(ops, 1) if op.what == what])
        return f"{number}:stop", f"call {number}: {ops[number - 1]}"

    @at_level("long", timeout_s=2 * 3600)
    def test_stall(self):
        """The other worker does not wait for it, and has the snapshot."""
        self.db = self.bank(size_bytes=400_000)
        self.leader_ = self.two_workers(self.db, keep_last=10000)
        recorder, root, ops = self.recorded(self.w2)
        for what in ("create", "write", "fsync", "link", "unlink", "utimes"):
            stop, where = self.stall_at(ops, what)
            with self.subTest(where):
                seq = self.commit()
                recorder.restart(self.w2, root, stop)
                source = self.leader_.backup("db", expect=3, timeout_s=ENDS_S)
                self.assertEqual([w["stored"] for w in source["workers"]], [True, False])
                self.assertRegex(source["workers"][1]["error"], "too slow|no answer")
                recorder.restart_plainly(self.w2)
                self.assertEqual(self.restored_seq("--snapshot", source["snapshot"]), seq)
                self.leader_.backup("db")
                self.leader_.run("verify", "--read-data")

    @at_level("long", timeout_s=3600)
    def test_stall_of_the_only_worker(self):
        self.db = self.bank(size_bytes=400_000)
        w1 = self.sshd("w1")
        self.leader_ = self.leader([Worker.of(w1)], {"db": {"path": self.db}}, authorize=(w1,))
        self.leader_.run("setup")
        recorder, root, ops = self.recorded(w1)
        for what in ("create", "write", "fsync", "link"):
            stop, where = self.stall_at(ops, what)
            with self.subTest(where):
                self.commit()
                recorder.restart(w1, root, stop)
                result = self.leader_.run("backup", "db", expect=1, timeout_s=ENDS_S)
                self.assertIn("no answer", str(result.json["errors"]))
                recorder.restart_plainly(w1)
                seq = self.commit()
                self.leader_.backup("db")
                self.assertEqual(self.restored_seq(), seq)


class TestRclone(LineCase):
    """rclone's server knows neither fsync nor statvfs, and its rename replaces what is there."""

    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=400_000)
        self.keys = Sshd(self.folder, "keys", host_key="ecdsa")  # only its keys are used
        self.served = self.path("served")
        os.mkdir(self.served)
        self.keys.port = processes.free_port()
        worker = Worker("w1", f"sftp://{self.keys.user}@127.0.0.1:{self.keys.port}/leader",
                        self.keys.known_hosts_line())
        self.leader_ = self.leader([worker], {"db": {"path": self.db, "keep_last": 2}},
                                   authorize=(self.keys,))
        self.serve()

    def serve(self):
        self.server = processes.start(
            ["rclone", "serve", "sftp", self.served, "--addr", f"127.0.0.1:{self.keys.port}",
             "--authorized-keys", self.keys.authorized_keys, "--key", self.keys.host_key,
             "--dir-cache-time", "1ms", "--config", "/dev/null", "--cache-dir", self.folder],
            stdout=open(self.path("rclone.log"), "ab"), stderr=-2)
        self.addCleanup(processes.kill_tree, self.server)
        self.keys.process = self.server
        processes.wait_until(self.keys._answers, 20, "rclone answers")

    def test_all_that_a_worker_is_for(self):
        self.leader_.run("setup")
        answer = self.leader_.text("check", expect=3)
        self.assertIn("fsync", answer.stdout + answer.stderr)
        seqs = []
        for _ in range(3):
            seqs.append(self.commit())
            self.leader_.backup("db")
        self.assertEqual(self.restored_seq(), seqs[-1])
        self.leader_.run("verify", "--read-data")
        self.leader_.run("verify", "--drill")
        self.leader_.run("prune")
        self.leader_.run("sync")
        self.assertEqual(len(self.leader_.snapshots("db")), 2)
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.wait(10)
        self.leader_.backup("db", expect=1)
        self.serve()
        seq = self.commit()
        self.leader_.backup("db")
        self.assertEqual(self.restored_seq(), seq)
