"""The whole story on three machines with a network of their own: live writers, a cable pulled in the
middle of a backup, rot on a worker, the leader's card dead, everything rebuilt by password."""

import os
import shutil
import time

from harness import bank, processes, repository
from harness.case import at_level
from harness.enrolment import EnrolmentCase, House
from harness.net import Net, NetSshd

MB = 1_000_000


class NetHouse(House):
    """A leader in its own network namespace."""

    def __init__(self, folder, net, name="leader"):
        super().__init__(folder, name)
        self.net = net

    def argv(self, *args, json_output=False):
        return [*self.net.prefix("leader"), *super().argv(*args, json_output=json_output)]


@at_level("default", timeout_s=400)
class TestThreeMachines(EnrolmentCase):
    below = "syncd/{}"

    def setUp(self):
        super().setUp()
        self.net = Net()
        self.addCleanup(self.net.close)
        self.servers = [self.machine(i) for i in (1, 2)]
        self.data = self.path("data")
        os.mkdir(self.data)
        self.db = os.path.join(self.data, "bank.sqlite")
        bank.create(self.db, self.seed, size_bytes=3 * MB)
        self.house_ = NetHouse(self.folder, self.net)
        self.addCleanup(self.house_.close)
        self.house_.write(f'source "db" {{ path = "{self.db}"  max_age = "1h" }}\n')
        for server in self.servers:
            self.enrol(self.house_, server, "--name", server.name,
                       folder=self.below.format(server.name))

    def machine(self, i):
        server = NetSshd(self.net, i, self.folder, PasswordAuthentication="yes", UsePAM="no",
                         AuthorizedKeysFile=".ssh/authorized_keys")
        self.addCleanup(server.kill)
        server.start()
        return server

    def root(self, i):
        return os.path.join(self.user.home, self.below.format(self.servers[i].name))

    def pull_in_the_middle(self):
        """Worker 2's cable, while a backup is on its way to it."""
        live = bank.connect(self.db, timeout_s=30)
        live.execute("PRAGMA wal_autocheckpoint=0")
        live.execute("CREATE TABLE IF NOT EXISTS bulk(body BLOB)")
        live.execute("INSERT INTO bulk WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                     "FROM n WHERE i < 6000) SELECT randomblob(2000) FROM n")
        live.close()
        before = self.net.sent_bytes(2)
        run = self.house_.start("backup", json_output=True)
        processes.wait_until(lambda: self.net.sent_bytes(2) > before + 200_000, 60,
                             "some of it is sent to worker 2")
        self.net.pull(2)
        result = run.wait(120)
        self.assertEqual(result.exit, 3, str(result))
        self.net.plug(2)

    def rebuild(self):
        words = []
        for server in self.servers:
            words += ["--from", self.url(server, self.below.format(server.name)), "--host-key",
                      f"{server.host}:{server.port}={server.fingerprint()}"]
        return self.house_.run("restore", *words, "--password-file", self.password, "--yes",
                               "--lead", timeout_s=240)

    def wipe(self):
        self.card = self.path("old card")
        shutil.copytree(self.house_.state_dir, self.card)
        shutil.rmtree(self.data)
        shutil.rmtree(self.house_.state_dir)
        os.unlink(self.house_.conf)
        shutil.rmtree(self.house_.run_dir)
        os.mkdir(self.house_.run_dir)

    def assert_old_card_is_fenced(self):
        mine = self.path("mine")
        os.rename(self.house_.state_dir, mine)
        shutil.copytree(self.card, self.house_.state_dir)
        before = [repository.parts(self.root(i)) for i in (0, 1)]
        result = self.house_.run("backup", expect=1)
        self.assertEqual(result.json["errors"][-1]["code"], "fenced")
        self.assertEqual([repository.parts(self.root(i)) for i in (0, 1)], before)
        shutil.rmtree(self.house_.state_dir)
        os.rename(mine, self.house_.state_dir)

    def test_the_whole_story(self):
        writers = self.writers(self.db, count=2, rate=30)
        self.house_.backup("db")
        self.pull_in_the_middle()
        processes.wait_until(lambda: self.house_.backup("db", expect=(0, 3))["result"].exit == 0,
                             120, "both workers are level again")
        self.assertEqual({p.id for p in repository.parts(self.root(0), "db", "snap")},
                         {p.id for p in repository.parts(self.root(1), "db", "snap")})
        begun = time.time()
        self.house_.backup("db")
        ended = time.time()
        writers.stop()
        journals = writers.journals
        # Rot in the largest part of worker 1: it is in use for sure.
        largest = max(repository.parts(self.root(0)), key=lambda p: p.size)
        repository.damage(largest, self.rng)
        self.wipe()
        answer = self.rebuild().json
        self.assertEqual(answer["missing"], [])
        state = bank.examine_between(self.db, journals, begun, ended)
        # The next one is incremental, and the old card may not write.
        live = bank.connect(self.db)
        hand = bank.Hand(live, 9, self.rng)
        seq, _ = hand.transaction(5)
        live.execute("COMMIT")
        live.close()
        self.assertEqual(seq, state.seq + 1)
        self.assertLess(self.house_.backup("db")["bytes_sent"], 200_000)
        self.assert_old_card_is_fenced()
        self.house_.backup("db")
        self.house_.run("sync")
        self.house_.run("verify", "--read-data")
