"""Who may write: two machines at one repository, an old card put back, a worker that missed the
change of leader, a take-over in the middle of a backup."""

import json
import os
import shutil

from harness import bank, processes, repository
from harness.case import Case, at_level
from harness.leader import Worker
from harness.terminal import Terminal

MB = 1_000_000


class AdoptCase(Case):
    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=1 * MB)
        self.old = self.two_workers(self.db, proxies=True)

    def other(self, name="second", sshds=None):
        """A further machine with the same workers in its config."""
        sshds = sshds or (self.w1, self.w2)
        return self.leader([Worker.of(w) for w in sshds],
                           {"db": {"path": self.db, "max_age": "1h"}},
                           authorize=(self.w1, self.w2), name=name)

    def commit(self, count=5, items=5):
        live = bank.connect(self.db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(count):
            seq, _ = hand.transaction(items)
            live.execute("COMMIT")
        live.close()
        return seq

    def assert_fenced(self, leader, *command):
        before = [repository.parts(repository.of(w)) for w in (self.w1, self.w2)]
        result = leader.run(*(command or ("backup",)), expect=1)
        error = result.json["errors"][-1]
        self.assertEqual(error["code"], "fenced", str(result))
        self.assertIn("syncd restore --from", error["hint"])
        self.assertIn("syncd adopt", error["hint"])
        self.assertEqual([repository.parts(repository.of(w)) for w in (self.w1, self.w2)], before)

    def epochs(self, worker):
        folder = os.path.join(repository.of(worker), "epoch")
        answer = {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="ascii") as f:
                answer[int(name)] = json.load(f)
        return answer


@at_level("quick")
class TestAdopt(AdoptCase):
    def test_question(self):
        self.old.backup("db")
        second = self.other()
        self.assert_fenced(second)
        self.assert_fenced(second, "sync")
        for words in ((), ("--yes",)):
            result = second.run("adopt", *words, expect=2)
            self.assertIn("--lead", result.json["errors"][-1]["hint"])
        terminal = Terminal(second.argv("adopt"), second.environment(), cwd=second.folder)
        self.addCleanup(terminal.close)
        terminal.expect("The old leader is refused")
        terminal.type("n")
        self.assertEqual(terminal.wait(), 1, terminal.shown)
        self.assertEqual([list(self.epochs(w)) for w in (self.w1, self.w2)], [[1], [1]])
        self.assertFalse(os.path.exists(os.path.join(second.state_dir, "token")))
        terminal = Terminal(second.argv("adopt"), second.environment(), cwd=second.folder)
        self.addCleanup(terminal.close)
        terminal.expect("The old leader is refused")
        terminal.type("y")
        self.assertEqual(terminal.wait(), 0, terminal.shown)
        second.backup("db")

    def test_take_over_and_back(self):
        first = self.old.backup("db")["snapshot"]
        second = self.other()
        answer = second.run("adopt", "--lead").json
        self.assertEqual(answer["epoch"], 2)
        self.assertEqual([w["adopted"] for w in answer["workers"]], [True, True])
        last = repository.parts(repository.of(self.w1))[-1].order
        for worker in (self.w1, self.w2):
            self.assertEqual(self.epochs(worker)[2]["continues"], {"db": list(last)})
        # A second time nothing is to be done.
        second.run("adopt")
        self.assertEqual(sorted(self.epochs(self.w1)), [1, 2])
        # Both workers vouch for the old leader's snapshot: the new one goes on from it.
        seq = self.commit()
        taken = second.backup("db")
        self.assertLess(taken["bytes_sent"], 300_000)
        self.assertEqual(bank.examine(self.restored(second, "latest", self.db)).seq, seq)
        self.assertEqual([(s["id"], s["from_old_leader"]) for s in second.snapshots("db")],
                         [(first, False), (taken["snapshot"], False)])
        # The old card put back.
        self.assert_fenced(self.old)
        self.assertEqual(bank.examine(self.restored(self.old, "latest", self.db)).seq, seq)
        self.old.run("adopt", "--lead")
        self.assert_fenced(second)
        self.commit()
        self.old.backup("db")
        self.old.run("verify", "--read-data")

    def test_reinstalled_card_with_an_empty_database(self):
        self.old.backup("db")
        shutil.rmtree(self.old.state_dir)
        os.mkdir(self.old.state_dir, 0o700)
        os.unlink(self.db)
        live = bank.connect(self.db)
        live.execute("CREATE TABLE t(x)")
        live.close()
        self.assert_fenced(self.old)
        self.assert_fenced(self.old, "setup")

    def test_copied_card(self):
        """A copy has the same token; whoever adopts gets a new one."""
        self.old.backup("db")
        second = self.other()
        shutil.rmtree(second.state_dir)
        shutil.copytree(self.old.state_dir, second.state_dir)
        third = self.other("third")
        third.run("adopt", "--lead")
        self.assert_fenced(self.old)
        second.run("adopt", "--lead")
        self.assert_fenced(self.old)
        second.backup("db")


@at_level("quick")
class TestAbsentWorker(AdoptCase):
    def test_old_leader_goes_on_at_the_absent_one(self):
        self.old.backup("db")
        second = self.other()
        self.w2.kill()
        answer = second.run("adopt", "--lead", expect=3).json
        self.assertEqual([w["adopted"] for w in answer["workers"]], [True, False])
        self.assert_fenced(self.old)
        # The old leader meets only the worker that does not know yet.
        self.w1.kill()
        self.w2.start()
        self.commit()
        lost = self.old.backup("db", expect=3)["snapshot"]
        # The new one meets it alone, too, and rules there from now on.
        seq = self.commit()
        mine = second.backup("db", expect=3)
        self.assertIn(2, self.epochs(self.w2))
        self.assertEqual(self.epochs(self.w2)[2], self.epochs(self.w1)[2])
        self.assert_fenced(self.old)
        self.w1.start()
        self.assert_fenced(self.old)
        rows = {s["id"]: s["from_old_leader"] for s in second.snapshots("db")}
        self.assertEqual((rows[lost], rows[mine["snapshot"]]), (True, False))
        self.assertIn("from the old leader", second.text("snapshots").stdout)
        self.assertEqual(bank.examine(self.restored(second, "latest", self.db)).seq, seq)
        second.backup("db")
        self.restored(second, lost, self.db)  # whole, when asked for by name
        second.run("verify", "--read-data")

    def test_latest_is_never_the_old_leaders(self):
        first = self.old.backup("db")["snapshot"]
        second = self.other()
        self.w2.kill()
        second.run("adopt", "--lead", expect=3)
        self.w1.kill()
        self.w2.start()
        self.commit()
        self.old.backup("db", expect=3)
        self.w1.start()
        # Before the new leader has stored anything.
        target = self.path("t")
        answer = second.run("restore", "db", "--target", target).json
        self.assertEqual(answer["snapshot"], first)
        # Back at the helm, the old machine does not build on what it wrote meanwhile.
        self.old.run("adopt", "--lead")
        seq = self.commit()
        self.old.backup("db")
        self.assertEqual(bank.examine(self.restored(self.old, "latest", self.db)).seq, seq)


class TestMoment(AdoptCase):
    def test_take_over_in_the_middle_of_a_backup(self):
        self.old.backup("db")
        second = self.other()
        self.commit(200, 100)
        for proxy in self.proxies:
            proxy.rate_bytes = 100_000
        run = self.old.start("backup", "db", json_output=True)
        base = [p.bytes_up for p in self.proxies]
        processes.wait_until(lambda: self.proxies[0].bytes_up > base[0] + 30_000, 60,
                             "some of it is sent")
        second.run("adopt", "--lead")
        for proxy in self.proxies:
            proxy.rate_bytes = 0
        result = run.wait(120)
        self.assertEqual(result.exit, 1, str(result))
        self.assertIn('"fenced"', result.stdout)
        for worker in (self.w1, self.w2):
            self.assertEqual(len(repository.parts(repository.of(worker), "db", "snap")), 1)

    def test_two_adopt_at_the_same_moment(self):
        self.old.backup("db")
        houses = [self.other(f"m{i}") for i in range(3)]
        runs = [h.start("adopt", "--lead", json_output=True) for h in houses]
        for run in runs:
            run.wait(60)
        # Whatever came of it: at most one may write, and each worker knows of one ruler.
        wrote = [h.run("backup", "db", expect=(0, 1, 3)).exit for h in houses]
        self.assertLessEqual(sum(code != 1 for code in wrote), 1)
        houses[0].run("adopt", "--lead", expect=None)
        houses[0].backup("db")
        self.assert_fenced(houses[1])

    def test_other_repository_of_its_own(self):
        """A machine that was set up for itself first takes over the repository of another."""
        self.old.backup("db")
        second = self.other()
        second.workers = [Worker.of(w, folder="own") for w in (self.w1, self.w2)]
        second.write_conf()
        second.run("setup")
        second.backup("db")
        second.workers = [Worker.of(w) for w in (self.w1, self.w2)]
        second.write_conf()
        result = second.run("backup", expect=1)
        self.assertEqual(result.json["errors"][-1]["code"], "foreign")
        second.run("adopt", "--lead")
        second.backup("db")
        self.assertTrue([n for n in os.listdir(second.state_dir) if "former" in n])
