"""The preset bacalhau: two bolt files under their owners' lock backed up live, the node lost and
rebuilt, and its owners go on."""

import os
import shutil

from harness import bolt
from harness.case import Case
from harness.leader import Worker

STORES = ("orchestrator/state_boltdb.db", "compute/state_boltdb.db")
FILES = {"config.yaml": "NameProvider: puuid\n", "system_metadata.yaml": "Version: 4\n",
         "orchestrator/nats-store/jetstream/meta.inf": "{}\n"}
LEFT_OUT = {"user_id.pem": "a private key", "tokens.json": "{}",
            "compute/executions/e-1/stdout": "hello", "plugins/executor": "program"}


class TestDrill(Case):
    def setUp(self):
        super().setUp()
        self.dir = self.path("bacalhau")
        for name, text in {**FILES, **LEFT_OUT}.items():
            path = os.path.join(self.dir, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as f:
                f.write(text)
        self.stores = [os.path.join(self.dir, name) for name in STORES]
        for path in self.stores:
            bolt.make(path, json=True, big=3000, puts=500)

    def own(self):
        """As Bacalhau does: it holds the lock of each, and commits now and then."""
        owners = [bolt.Owner(path, json=True, big=3000, puts=2, rate=20) for path in self.stores]
        for owner in owners:
            self.addCleanup(owner.kill)
        return owners

    def test_live_then_lost_then_rebuilt(self):
        w1 = self.sshd("w1")
        leader = self.leader([Worker.of(w1)], {}, authorize=(w1,))
        leader.run("setup", "--preset", "bacalhau", env={"BACALHAU_DIR": self.dir})
        leader.run("setup")
        owners = self.own()
        first = leader.backup("bacalhau")
        self.assertTrue(first["complete"], first)
        second = leader.backup("bacalhau")
        self.assertTrue(second["complete"], second)
        self.assertLess(second["bytes_sent"], first["bytes_sent"])
        for owner in owners:
            owner.kill()

        target = self.path("target")
        leader.run("restore", "bacalhau", "--target", target)
        bolt.judge(self, [target + path for path in self.stores])

        shutil.rmtree(self.dir)
        leader.run("restore", "bacalhau", "--in-place", "--yes")
        bolt.judge(self, self.stores)
        for name, text in FILES.items():
            with open(os.path.join(self.dir, name), encoding="ascii") as f:
                self.assertEqual(f.read(), text)
        for name in LEFT_OUT:
            self.assertFalse(os.path.exists(os.path.join(self.dir, name)), name)

        # Its owners open them again, and the next backup is an increment.
        for owner in self.own():
            owner.stop()
        third = leader.backup("bacalhau")
        self.assertTrue(third["complete"], third)
        # The owners' commits are in it, but not all of the files, which have grown since the first.
        self.assertLess(third["bytes_changed"], sum(map(os.path.getsize, self.stores)))
