"""The preset piri: four databases and LevelDB folders backed up live, the node lost and rebuilt."""

import os
import shutil
import time

from harness import bank, piri
from harness.case import Case, at_level
from harness.enrolment import EnrolmentCase
from harness.leader import Worker
from harness.terminal import Terminal


class PiriCase(Case):
    def setUp(self):
        super().setUp()
        self.data_dir = self.path("data/piri")
        os.makedirs(self.data_dir)
        piri.create(self.data_dir, self.seed)
        self.environment = {"PIRI_REPO_DATA_DIR": self.data_dir}

    def house(self, *words):
        self.w1, self.w2 = self.sshd("w1"), self.sshd("w2")
        leader = self.leader([Worker.of(self.w1), Worker.of(self.w2)], {},
                             authorize=(self.w1, self.w2))
        leader.run("setup", "--preset", "piri", *words, env=self.environment)
        leader.run("setup")
        return leader


class TestDrill(PiriCase):
    def setUp(self):
        super().setUp()
        self.leader_ = self.house("--secrets")
        self.banks = {}

    def start(self, first=0):
        """One writer for each database, one for all LevelDBs."""
        for i, name in enumerate(piri.DATABASES):
            path = os.path.join(self.data_dir, name)
            folder = self.path(f"journals-{first}-{i}")
            os.makedirs(folder)
            writers = bank_writers(self, path, folder, i)
            self.banks[name] = (*self.banks.get(name, ()), writers)
        self.level = piri.LevelWriter(self.data_dir, self.path(f"level-{first}.journal"),
                                      first=first)
        self.addCleanup(self.level.kill)

    def wait_for(self, commits, puts):
        for writers in self.banks.values():
            writers[-1].wait_for_commits(commits)
        self.level.wait_for(puts)

    def kill(self):
        for writers in self.banks.values():
            writers[-1].close()
        self.level.kill()

    def check(self, root, begun, ended, before, after):
        for name in piri.DATABASES:
            journals = [j for w in self.banks[name] for j in w.journals]
            bank.examine_between(os.path.join(root, name), journals, begun, ended)
        for name in piri.LEVELDBS:
            # On a copy: to open one changes it, and the next backup is to see what was restored.
            copy = self.path("leveldb-copy")
            shutil.copytree(os.path.join(root, name), copy)
            piri.check_leveldb(copy, before, after)
            shutil.rmtree(copy)

    def test_live_then_lost_then_rebuilt(self):
        leader = self.leader_
        self.start()
        self.wait_for(20, 300)
        first = leader.backup("piri")
        self.assertTrue(first["complete"], first)
        self.wait_for(20, 300)
        begun, before = time.time(), self.level.counts()
        second = leader.backup("piri")
        ended, after = time.time(), self.level.counts()
        self.assertTrue(second["complete"], second)
        self.wait_for(5, 100)
        self.kill()

        target = self.path("target")
        leader.run("restore", "piri", "--target", target)
        self.check(target + self.data_dir, begun, ended, before, after)
        with open(target + os.path.join(self.data_dir, "egress_tracker/journal/egress.1.car"),
                  "rb") as f:
            self.assertEqual(f.read(), piri.FILES["egress_tracker/journal/egress.1.car"])
        # Asked for secrets, it took them; blobs it never takes.
        self.assertTrue(os.path.exists(target + self.data_dir + "/wallet/CURRENT"))
        self.assertTrue(os.path.exists(target + self.data_dir + "/service.pem"))
        self.assertFalse(os.path.exists(target + self.data_dir + "/blobs"))
        self.assertFalse(os.path.exists(target + self.data_dir + "/pdp/datastore"))

        shutil.rmtree(self.data_dir)
        leader.run("restore", "piri", "--in-place", "--yes")
        self.check(self.data_dir, begun, ended, before, after)

        # It goes on from there; the next backup ships only what is new.
        count = piri.check_leveldb(os.path.join(self.data_dir, piri.LEVELDBS[0]), before, after)
        third = leader.backup("piri")
        self.assertTrue(third["complete"], third)
        self.assertLess(third["bytes_sent"], first["bytes_sent"] / 2, (count, first, third))


def bank_writers(case, path, folder, i):
    from harness.writers import Writers
    writers = Writers(path, folder, count=1, rate=50, seed=case.seed % 1000 + i)
    case.addCleanup(writers.close)
    return writers


@at_level("quick")
class TestPreset(PiriCase):
    def test_keys_are_left_out_and_said(self):
        leader = self.house()
        text = leader.text("check", expect=(0, 3)).stdout
        for words in ("left out: wallet/", "left out: *.pem", "left out: blobs/",
                      "not in it: the identity key", "postgres"):
            self.assertIn(words, text)
        leader.backup("piri")
        target = self.path("target")
        leader.run("restore", "piri", "--target", target)
        root = target + self.data_dir
        for gone in ("wallet", "service.pem", "blobs", "pdp/datastore"):
            self.assertFalse(os.path.exists(os.path.join(root, gone)), gone)
        for there in (*piri.DATABASES, "claim/CURRENT"):
            self.assertTrue(os.path.exists(os.path.join(root, there)), there)

    def test_the_danger_is_said_before_the_question(self):
        leader = self.house()
        leader.backup("piri")
        os.unlink(os.path.join(self.data_dir, piri.DATABASES[0]))
        terminal = Terminal(leader.argv("restore", "piri", "--in-place"), leader.environment(),
                            cwd=leader.folder)
        self.addCleanup(terminal.close)
        shown = terminal.expect("are set aside")
        self.assertIn("nonce", shown[:shown.index("are set aside")])
        terminal.type("n")
        self.assertEqual(terminal.wait(), 1)
        # Also when nobody is asked.
        text = leader.text("restore", "piri", "--in-place", "--yes")
        self.assertIn("nonce", text.stdout + text.stderr)

    def test_memory_and_missing_are_named(self):
        leader = self.leader([], {})
        empty = {"PIRI_REPO_DATA_DIR": ""}
        error = leader.run("setup", "--preset", "piri", env=empty, expect=1).json["errors"][0]
        self.assertIn("in memory", error["message"])
        shutil.rmtree(os.path.join(self.data_dir, "replicator"))
        shutil.rmtree(os.path.join(self.data_dir, "pdp"))
        answer = leader.run("setup", "--preset", "piri", env=self.environment).json
        self.assertIn("PostgreSQL", answer["errors"][0]["message"])

    def test_bacalhau_by_its_variables(self):
        folder = self.path("bacalhau")
        os.makedirs(os.path.join(folder, "orchestrator"))
        for name in ("orchestrator/state_boltdb.db", "executions.db"):
            with open(os.path.join(folder, name), "wb") as f:
                f.write(b"x")
        outside = self.path("jobs.db")
        with open(outside, "wb") as f:
            f.write(b"x")
        leader = self.leader([], {})
        answer = leader.run("setup", "--preset", "bacalhau",
                            env={"BACALHAU_DIR": folder, "BACALHAU_JOB_STORE_PATH": outside,
                                 "BACALHAU_COMPUTE_STORE_PATH": folder + "/executions.db"}).json
        # What lies in the folder anyway is not named twice.
        self.assertEqual(answer["source"]["paths"], [folder, outside])
        self.assertEqual(answer["errors"], [])
        answer = leader.run("setup", "--preset", "bacalhau", "--source", "b2",
                            env={"BACALHAU_DIR": folder,
                                 "BACALHAU_COMPUTE_STORE_TYPE": "inmemory"}).json
        self.assertIn("in memory", answer["errors"][0]["message"])
        gone = {"BACALHAU_DIR": folder, "BACALHAU_JOB_STORE_PATH": self.path("nowhere.db")}
        error = leader.run("setup", "--preset", "bacalhau", "--source", "b3", env=gone,
                           expect=1).json["errors"][0]
        self.assertIn("BACALHAU_JOB_STORE_PATH", error["message"])


class TestRebuild(EnrolmentCase):
    def test_the_danger_is_said_in_the_dialogue_too(self):
        """On a machine that has nothing: the preset's name is in the config that the snapshot keeps."""
        data_dir = self.path("data/piri")
        os.makedirs(data_dir)
        piri.create(data_dir, self.seed)
        house, server = self.house(), self.worker()
        house.write()
        house.run("setup", "--preset", "piri", env={"PIRI_REPO_DATA_DIR": data_dir})
        self.enrol(house, server)
        house.backup("piri")
        blank = self.house("blank")
        shutil.rmtree(data_dir)
        text = blank.text("restore", "--from", self.url(server), "--host-key",
                          server.fingerprint(), "--password-file", self.password, "--yes",
                          "piri", "--in-place").stdout
        self.assertIn("nonce", text)
        self.assertTrue(os.path.exists(os.path.join(data_dir, piri.DATABASES[0])))
        shutil.rmtree(data_dir)
        text = blank.text("restore", "--from", self.url(server), "--host-key",
                          server.fingerprint(), "--password-file", self.password, "--yes",
                          "--lead").stdout
        self.assertLess(text.index("nonce"), text.index("restored "))
        self.assertTrue(os.path.exists(os.path.join(data_dir, piri.DATABASES[0])))
        self.assertIn('preset = "piri"', blank.read())
