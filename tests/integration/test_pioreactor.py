"""The preset pioreactor: its layout backed up live, the leader lost and rebuilt; setup --preset; its
MQTT dialect against a real mosquitto."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import sqlite3
import unittest

from harness import pioreactor, processes
from harness.case import Case, at_level
from harness.leader import Worker
from harness.net import Net, NetSshd
from harness.pioreactor import Place
from harness.user import PASSWORD, User
from test_mqtt import MqttCase
from test_net import NetHouse


class PioreactorCase(Case):
    def setUp(self):
        super().setUp()
        self.tree = self.path("home/pioreactor/.pioreactor")
        os.makedirs(self.tree)
        self.place = pioreactor.create(self.tree, self.rng)
        self.environment = {"DOT_PIOREACTOR": self.tree}

    def house(self, **source):
        """Two workers, and the source as `setup --preset` writes it."""
        self.w1, self.w2 = self.sshd("w1"), self.sshd("w2")
        leader = self.leader([Worker.of(self.w1), Worker.of(self.w2)], {},
                             authorize=(self.w1, self.w2))
        self.answer = leader.run("setup", "--preset", "pioreactor", env=self.environment).json
        leader.sources["pioreactor"] = {"preset": "pioreactor", "path": self.tree, **source}
        leader.run("setup")
        return leader

    def writers(self, **options):
        writers = pioreactor.Writers(self.place, self.folder, **options)
        self.addCleanup(writers.kill)
        return writers

    def shape(self, root):
        """What must come back besides the databases."""
        answer = {}
        for folder, folders, files in os.walk(root):
            folders[:] = [f for f in folders if f != ".syncd-restore"]
            for name in [*folders, *files]:
                path = os.path.join(folder, name)
                if name.endswith((".sqlite", ".val", ".db", "-wal", "-shm", "-journal")):
                    continue
                content = None
                if os.path.isfile(path):
                    with open(path, "rb") as f:
                        content = f.read()
                answer[os.path.relpath(path, root)] = (pioreactor.owner_of(path), content)
        return {k: v for k, v in answer.items() if "pwm_hz" not in k}


class TestDrill(PioreactorCase):
    def start_again(self):
        """A writer that was killed in the middle of a commit leaves a -journal; its next start rolls
        it back."""
        for path in (self.place.db, self.place.local):
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA schema_version").fetchone()

    def test_live_then_lost_then_rebuilt(self):
        leader = self.house()
        writers = self.writers()
        writers.wait_for(20)
        first = leader.backup("pioreactor")
        self.assertTrue(first["complete"], first)
        writers.wait_for(20)
        before = writers.counts()
        second = leader.backup("pioreactor")
        after = writers.counts()
        self.assertTrue(second["complete"], second)
        self.assertLess(second["bytes_sent"], first["bytes_sent"] / 2)
        writers.wait_for(5)
        writers.kill()

        # Beside: into a folder.
        target = self.path("target")
        leader.run("restore", "pioreactor", "--target", target)
        pioreactor.check(target + self.tree, before, after)
        wanted = self.shape(self.tree)
        for gone in ("storage/pioreactor.sqlite.backup", "plugins/__pycache__",
                     "plugins/__pycache__/mine.pyc"):
            del wanted[gone]
        self.assertEqual(self.shape(target + self.tree), wanted)

        # The card is lost; everything comes back to its place.
        shutil.rmtree(self.tree)
        leader.run("restore", "pioreactor", "--in-place", "--yes")
        pioreactor.check(self.tree, before, after)
        self.assertEqual(self.shape(self.tree), wanted)
        self.assertEqual(oct(os.stat(self.place.storage).st_mode & 0o7777), "0o2775")

        # Its programs go on from there, and the next backup ships only what is new.
        again = pioreactor.Writers(self.place, self.path("target"), first=2000 + after["stream"][1])
        self.addCleanup(again.kill)
        again.wait_for(5)
        again.kill()
        self.start_again()
        third = leader.backup("pioreactor")
        self.assertTrue(third["complete"], third)
        self.assertLess(third["bytes_sent"], first["bytes_sent"] / 2)

    def test_old_files_are_set_aside_and_the_snapshot_wins(self):
        leader = self.house()
        leader.backup("pioreactor")
        before = self.shape(self.tree)
        writers = self.writers()
        writers.wait_for(5)
        writers.kill()  # its -wal and -shm stay, as after a power cut
        with open(self.place.config, "a", encoding="ascii") as f:
            f.write("[broken]\n")
        self.assertTrue(os.path.exists(self.place.db + "-wal"))
        answer = leader.run("restore", "pioreactor", "--in-place", "--yes").json
        nothing = {k: (0, 0) for k in pioreactor.KINDS}
        pioreactor.check_main(self.place.db, nothing, nothing)
        pioreactor.check_local(self.place.local, nothing, nothing)
        self.assertFalse(os.path.exists(self.place.db + "-wal"))
        self.assertEqual(self.shape(self.tree)["config.ini"], before["config.ini"])
        with open(answer["old_kept_at"] + self.place.config, encoding="ascii") as f:
            self.assertIn("[broken]", f.read())
        # What the snapshot leaves out stays untouched.
        self.assertTrue(os.path.exists(self.place.own_backup))


class TestServices(PioreactorCase):
    """Around a restore in place; systemctl is a script that writes down what it is told."""

    def setUp(self):
        super().setUp()
        self.log = self.path("systemctl.log")
        os.mkdir(self.path("bin"))
        with open(self.path("bin", "systemctl"), "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\necho "$*" >>{self.log}\n[ "$1" = list-units ] || exit 0\n'
                    'echo "huey.service loaded active running Huey"\n'
                    'echo "pioreactor-web.target loaded active active Web"\n')
        os.chmod(self.path("bin", "systemctl"), 0o755)
        self.path_ = {"PATH": self.path("bin") + ":" + os.environ["PATH"]}

    def restore(self, leader):
        """What systemctl was told, and what the restore said."""
        with open(self.place.config, "a", encoding="ascii") as f:
            f.write("changed\n")
        if os.path.exists(self.log):
            os.unlink(self.log)
        text = leader.text("restore", "pioreactor", "--in-place", "--yes", env=self.path_).stdout
        told = []
        if os.path.exists(self.log):
            with open(self.log, encoding="ascii") as f:
                told = f.read().splitlines()
        return told, text

    @at_level("quick")
    def test_what_runs_is_stopped_and_started_again(self):
        leader = self.house()
        leader.backup("pioreactor")
        told, text = self.restore(leader)
        self.assertEqual(len(told), 3, told)
        self.assertIn("-- pioreactor* huey.service lighttpd.service", told[0])
        self.assertEqual(told[1:], ["stop huey.service pioreactor-web.target",
                                    "start huey.service pioreactor-web.target"])
        self.assertIn("stopped huey.service, pioreactor-web.target", text)
        # Its own commands stand in for that.
        leader.sources["pioreactor"]["after_restore"] = []
        leader.write_conf()
        told, text = self.restore(leader)
        self.assertEqual([t.split()[0] for t in told], ["list-units", "stop"])
        self.assertIn("stay stopped", text)
        leader.sources["pioreactor"]["before_restore"] = ["true"]
        leader.write_conf()
        self.assertEqual(self.restore(leader)[0], [])

    def test_what_cannot_be_stopped_ends_it(self):
        leader = self.house()
        leader.backup("pioreactor")
        with open(self.path("bin", "systemctl"), "a", encoding="ascii") as f:
            f.write('echo "no units here"\n')
        with open(self.path("bin", "systemctl"), encoding="ascii") as f:
            script = f.read().replace("|| exit 0", "|| [ $1 = start ] || exit 1")
        with open(self.path("bin", "systemctl"), "w", encoding="ascii") as f:
            f.write(script)
        with open(self.place.config, "a", encoding="ascii") as f:
            f.write("changed\n")
        answer = leader.run("restore", "pioreactor", "--in-place", "--yes", env=self.path_,
                            expect=1).json
        self.assertIn("stopping Pioreactor's services", answer["errors"][-1]["message"])
        self.assertFalse(os.path.exists(os.path.join(self.tree, ".syncd-restore")))
        with open(self.place.config, encoding="ascii") as f:
            self.assertIn("changed", f.read())


@at_level("quick")
class TestSetup(PioreactorCase):
    def setup_preset(self, leader, *words, **kwargs):
        return leader.run("setup", "--preset", "pioreactor", *words, **kwargs)

    def test_writes_literal_paths_once(self):
        leader = self.leader([], {})
        answer = self.setup_preset(leader, env=self.environment).json
        self.assertEqual(answer["source"]["paths"], [self.tree])
        self.assertTrue(answer["source"]["config_written"])
        left_out = [l["path"] for l in answer["source"]["left_out"]]
        self.assertIn("storage/pioreactor.sqlite.backup*", left_out)
        with open(leader.conf, encoding="utf-8") as f:
            text = f.read()
        self.assertIn(f'path = {{"{self.tree}"}}', text)
        self.assertIn('every = "15m"', text)
        # The variable has done its work: again, and without it.
        answer = self.setup_preset(leader).json
        self.assertFalse(answer["source"]["config_written"])
        with open(leader.conf, encoding="utf-8") as f:
            self.assertEqual(f.read(), text)
        # Another name, from the usual place, which this machine does not have.
        error = self.setup_preset(leader, "--source", "other", expect=1).json["errors"][0]
        self.assertEqual(error["code"], "not-found")
        self.assertIn("/home/pioreactor/.pioreactor", error["message"])
        self.assertIn("DOT_PIOREACTOR", error["hint"])

    def test_refusals(self):
        leader = self.leader([], {"pioreactor": {"path": self.tree}})
        error = self.setup_preset(leader, env=self.environment, expect=1).json["errors"][0]
        self.assertEqual(error["code"], "exists")
        for words in (("setup", "--preset", "pireactor"), ("setup", "--source", "x"),
                      ("setup", "--preset", "piri", "--workers"),
                      ("setup", "--preset", "pioreactor", "sftp://a@b/~/c"),
                      ("setup", "--preset", "pioreactor", "--password-file", "x")):
            leader.run(*words, env=self.environment, expect=2)
        gone = {"DOT_PIOREACTOR": self.path("nowhere")}
        error = self.setup_preset(leader, "--source", "p", env=gone, expect=1).json["errors"][0]
        self.assertIn("named by DOT_PIOREACTOR", error["message"])
        os.unlink(self.place.db)
        answer = self.setup_preset(leader, "--source", "p", env=self.environment).json
        self.assertIn("all experiments", answer["errors"][0]["message"])

    def test_check_says_what_is_taken_and_what_is_not(self):
        leader = self.house()
        leader.write_conf()
        text = leader.text("check", expect=(0, 3)).stdout
        self.assertIn(f"{self.tree} (a folder)", text)
        self.assertIn("left out: storage/pioreactor.sqlite.backup*", text)
        self.assertIn("left out: /home/pioreactor/.ssh", text)
        self.assertIn("secrets = true takes it", text)
        self.assertIn("not in it: /etc/mosquitto", text)
        self.assertIn("pioreactor*, huey.service", text)
        os.unlink(self.place.db)
        checks = leader.run("check", expect=3).json["checks"]
        self.assertTrue([c for c in checks if "all experiments" in c["message"]])

    def test_workers_are_chosen_by_name_and_named(self):
        with open(self.place.config, "a", encoding="ascii") as f:
            f.write("[cluster.addresses]\nleader=10.42.0.1\npio03=pio03.invalid\n"
                    "pio01=pio01.invalid ; the first\npio02=pio02.invalid\nself=127.0.0.1\n")
        leader = self.leader([], {})
        result = leader.run("setup", "--preset", "pioreactor", "--workers", expect=1,
                            env=self.environment)
        self.assertEqual(result.json["workers_chosen"], ["pio01", "pio02"])
        self.assertIn("pio01", result.json["errors"][-1]["message"])
        text = leader.text("setup", "--preset", "pioreactor", "--workers", expect=1,
                           env=self.environment).stdout
        self.assertIn("of 3 in [cluster.addresses] of config.ini the first by name", text)


class PioreactorUser(User):
    """Who Pioreactor's workers let in."""

    def __init__(self):
        try:
            pwd.getpwnam("pioreactor")
        except KeyError:
            super().__init__(name="pioreactor")
        else:
            raise unittest.SkipTest("NOTICE: this machine has a user pioreactor of its own")


class TestWorkers(PioreactorCase):
    """One command makes a leader's house from Pioreactor's own config; needs root and `ip`."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("NOTICE: not root, so no network can be made")
        self.user = PioreactorUser()
        self.addCleanup(self.user.close)
        self.net = Net(workers=1)
        self.addCleanup(self.net.close)
        self.server = NetSshd(self.net, 1, self.folder, PasswordAuthentication="yes", UsePAM="no",
                              AuthorizedKeysFile=".ssh/authorized_keys")
        self.server.port = 22
        self.addCleanup(self.server.kill)
        self.server.start()
        self.password = self.path("password")
        with open(self.password, "w", encoding="ascii") as f:
            f.write(PASSWORD + "\n")
        os.chmod(self.password, 0o600)

    def test_worker_of_config_ini_is_enrolled(self):
        with open(self.place.config, "a", encoding="ascii") as f:
            f.write(f"[cluster.addresses]\nleader=10.77.1.1\npio01={self.server.host}\n")
        house = NetHouse(self.folder, self.net)
        self.addCleanup(house.close)
        house.write()
        words = ("setup", "--preset", "pioreactor", "--workers", "--password-file", self.password,
                 "--host-key", f"{self.server.host}={self.server.fingerprint()}")
        answer = house.run(*words, env=self.environment).json
        self.assertEqual(answer["workers_chosen"], ["pio01"])
        text = house.read()
        self.assertIn('worker "pio01"', text)
        self.assertIn(f"sftp://pioreactor@{self.server.host}/~/syncd/", text)
        self.assertTrue(house.backup("pioreactor")["complete"])
        # Once more: nothing is left to be done.
        house.run(*words)
        self.assertEqual(house.read(), text)


class TestDialect(MqttCase):
    TOPIC = "pioreactor/leader/$experiment/"

    def house(self, port, mqtt=None, **source):
        leader = super().house(port, mqtt, **source)
        leader.sources["db"]["preset"] = "pioreactor"
        leader.write_conf()
        return leader

    def setting(self, broker, name):
        return broker.retained().get(self.TOPIC + "syncd/" + name)

    def wait_setting(self, broker, name, wanted):
        processes.wait_until(lambda: self.setting(broker, name) == wanted, 30, f"{name} {wanted}")

    def test_states_settings_and_log(self):
        broker = self.broker()
        leader = self.house(broker.port)
        heard = self.listen(broker, "pioreactor/#")
        run = self.daemon(leader)
        self.wait_setting(broker, "db_state", "fresh")
        self.wait_setting(broker, "$state", "ready")
        retained = broker.retained()
        self.assertEqual(retained[self.TOPIC + "syncd/db_last_result"], "ok")
        self.assertEqual(retained[self.TOPIC + "syncd/db_error"], "none")
        self.assertRegex(retained[self.TOPIC + "syncd/db_as_of"], r"^\d{4}-.*Z$")
        self.assertEqual(heard.payloads(self.TOPIC + "syncd/$state"), ["init", "ready"])
        # What its plain dialect says is there too.
        self.assertEqual(json.loads(retained["syncd/leader/db/state"])["state"], "fresh")
        self.assertFalse([t for t in retained if "/logs/" in t])
        lines = [(r, t, json.loads(p)) for r, t, p in list(heard.messages)
                 if t.startswith(self.TOPIC + "logs/")]
        self.assertTrue(lines)
        for kept, topic, line in lines:
            self.assertFalse(kept)
            self.assertEqual(set(line), {"message", "task", "source", "level", "timestamp"})
            self.assertEqual(topic, self.TOPIC + "logs/syncd/" + line["level"].lower())
            self.assertIn(line["level"], ("NOTICE", "WARNING", "ERROR"))
            self.assertRegex(line["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
        self.assertTrue([1 for _, _, line in lines if "running" in line["message"]])
        self.stop(run)
        self.assertEqual(self.setting(broker, "$state"), "disconnected")

    def test_killed_is_lost_and_without_a_schedule_it_sleeps(self):
        broker = self.broker()
        leader = self.house(broker.port)
        del leader.sources["db"]["every"]
        leader.write_conf()
        run = self.daemon(leader)
        self.wait_setting(broker, "$state", "sleeping")
        self.wait_setting(broker, "db_state", "never")
        os.kill(run.pid, signal.SIGKILL)
        run.wait(10)
        self.wait_setting(broker, "$state", "lost")

    def test_failure_is_an_error_on_its_log(self):
        broker = self.broker()
        leader = self.house(broker.port, every="2s")
        heard = self.listen(broker, self.TOPIC + "logs/#")
        run = self.daemon(leader)
        self.wait_setting(broker, "db_state", "fresh")
        self.w1.kill()
        self.w2.kill()
        processes.wait_until(
            lambda: [1 for _, t, _ in heard.messages if not t.endswith("/notice")], 30,
            "a line above notice")
        # A source that is no Pioreactor's any more leaves nothing of it behind.
        del leader.sources["db"]["preset"]
        leader.write_conf()
        os.kill(run.pid, signal.SIGHUP)
        processes.wait_until(lambda: self.setting(broker, "db_state") is None, 20, "it is gone")
        self.stop(run)
