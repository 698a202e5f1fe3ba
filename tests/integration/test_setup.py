"""setup URL: enrolling a worker, from nothing to a first backup; who syncd runs as; and what check
finds."""

import os
import shutil
import subprocess
import tempfile

from harness import processes
from harness.case import Case, at_level
from harness.enrolment import EnrolmentCase
from harness.leader import PROJECT, Worker
from harness.sshd import keygen
from harness.user import PASSWORD


@at_level("quick")
class TestSetupUrl(EnrolmentCase):
    def test_from_nothing_to_a_backup(self):
        server, house = self.worker(), self.house()
        house.write()
        answer = self.enrol(house, server).json["worker"]
        self.assertEqual(answer["host_key"], server.fingerprint())
        for what in ("pinned", "key_made", "key_added", "repository_created", "config_written"):
            self.assertTrue(answer[what], what)
        self.assertEqual(os.stat(house.key).st_mode & 0o7777, 0o600)
        line = self.text_of(self.user.authorized_keys)
        public = " ".join(self.text_of(house.key + ".pub").split()[:2])
        self.assertEqual(line, f'restrict,command="internal-sftp" {public} syncd@leader\n')
        self.assertEqual(self.text_of(house.known_hosts), server.known_hosts_line())
        self.assertEqual(house.state(), ["catalog.db", "catalog.db-journal", "id_ed25519",
                                         "id_ed25519.pub", "known_hosts",
                                         "repository.json", "token"])
        # A second run needs no password and changes nothing.
        before = house.read(), line, house.state()
        again = self.enrol(house, server, password=False).json["worker"]
        self.assertEqual([k for k, v in again.items() if v is True], [])
        self.assertEqual((house.read(), self.text_of(self.user.authorized_keys), house.state()),
                         before)
        with open(house.conf, "a", encoding="utf-8") as f:
            f.write(f'source "db" {{ path = "{self.bank()}"  max_age = "1h" }}\n')
        house.run("backup")
        house.run("check")

    def test_a_dialogue_at_the_terminal(self):
        server, house = self.worker(), self.house()
        house.write()
        terminal = self.terminal(house, "setup", self.url(server), "--name", "shed")
        terminal.expect("[y/N]")
        self.assertIn(server.fingerprint(), terminal.shown)
        terminal.type("y")
        terminal.expect("Password of " + self.user.name)
        terminal.type(PASSWORD)
        self.assertEqual(terminal.wait(), 0, terminal.shown)
        self.assertNotIn(PASSWORD, terminal.shown)
        self.assertIn('worker "shed" {', house.read())
        # Again: everything is known, nothing is asked.
        terminal = self.terminal(house, "setup", self.url(server))
        self.assertEqual(terminal.wait(), 0, terminal.shown)
        self.assertNotIn("[y/N]", terminal.shown)

    def test_a_no_writes_nothing(self):
        server, house = self.worker(), self.house()
        before = house.write()
        terminal = self.terminal(house, "setup", self.url(server), "--yes")
        terminal.expect("[y/N]")
        terminal.type("")
        self.assertEqual(terminal.wait(), 1, terminal.shown)
        self.assertIn("not confirmed", terminal.shown)
        self.assertEqual((house.read(), house.state()), (before, []))
        self.assertEqual(os.listdir(self.user.home), [])

    def test_without_a_terminal_the_flags_are_named(self):
        server, house = self.worker(), self.house()
        before = house.write()
        for yes in ((), ("--yes",)):
            result = house.text("setup", self.url(server), "--password-file", self.password, *yes,
                                expect=2)
            self.assertIn("--host-key " + server.fingerprint(), result.stderr)
        self.assertEqual((house.read(), house.state()), (before, []))
        result = house.text("setup", self.url(server), "--host-key", server.fingerprint(),
                            expect=2)
        self.assertIn("--password-file", result.stderr)
        self.assertIn("restrict,command=", result.stderr)  # what to add by hand
        self.assertEqual(house.read(), before)
        self.assertEqual(os.listdir(self.user.home), [])

    def test_another_host_key_is_refused(self):
        server, other, house = self.worker(), self.worker("w2"), self.house()
        before = house.write()
        words = ("setup", self.url(server), "--password-file", self.password)
        for flag in (other.fingerprint(), "127.0.0.1=" + other.fingerprint(),
                     f"127.0.0.1:{server.port}=" + other.fingerprint()):
            result = house.text(*words, "--host-key", flag, expect=1)
            self.assertIn(server.fingerprint(), result.stderr)
        for flag in ("SHA256:short", "127.0.0.1", "MD5:00", "=" + server.fingerprint() + "x"):
            house.run(*words, "--host-key", flag, expect=2)
        # For another host: as if none were given.
        house.run(*words, "--host-key", "elsewhere=" + server.fingerprint(), expect=2)
        self.assertEqual((house.read(), house.state()), (before, []))
        house.run(*words, "--host-key", f"127.0.0.1:{server.port}={server.fingerprint()}",
                  "--host-key", other.fingerprint())
        # The machine now shows another key: neither --yes nor a flag takes it.
        server.kill()
        server.new_host_key()
        server.start()
        text = self.text_of(house.known_hosts)
        result = house.text(*words, "--yes", "--host-key", server.fingerprint(), expect=1)
        self.assertIn("has changed", result.stderr)
        self.assertEqual(self.text_of(house.known_hosts), text)

    def test_a_wrong_password_and_then_the_right_one(self):
        server, house = self.worker(), self.house()
        before = house.write()
        wrong = self.path("wrong")
        with open(wrong, "w", encoding="ascii") as f:
            f.write("wrong\n")
        os.chmod(wrong, 0o600)
        result = house.text("setup", self.url(server), "--host-key", server.fingerprint(),
                            "--password-file", wrong, expect=1)
        self.assertIn("does not accept the password", result.stderr)
        self.assertEqual(house.read(), before)
        self.assertEqual(os.listdir(self.user.home), [])
        answer = self.enrol(house, server).json["worker"]
        self.assertFalse(answer["pinned"] or answer["key_made"])
        os.chmod(self.password, 0o644)
        self.assertIn("0600", house.text("setup", self.url(server), "--password-file",
                                         self.password, expect=1).stderr)

    def test_a_key_that_the_server_does_not_take(self):
        server, house = self.worker(AuthorizedKeysFile="/nonexistent"), self.house()
        before = house.write()
        result = self.enrol(house, server, expect=1)
        self.assertIn("does not let it in", result.stdout)
        self.assertEqual(house.read(), before)
        server.kill()
        server.options["AuthorizedKeysFile"] = ".ssh/authorized_keys"
        server.start()
        self.enrol(house, server, password=False)
        self.assertEqual(self.text_of(self.user.authorized_keys).count("\n"), 1)

    def test_no_login_by_password(self):
        server, house = self.worker(PasswordAuthentication="no"), self.house()
        house.write()
        result = self.enrol(house, server, expect=1)
        self.assertIn("allows no login by password", result.stdout)
        # By hand, as the message says.
        line = result.json["errors"][0]["hint"].partition("run setup again: ")[2]
        ssh = os.path.join(self.user.home, ".ssh")
        os.mkdir(ssh, 0o700)
        with open(self.user.authorized_keys, "w", encoding="ascii") as f:
            f.write(line + "\n")
        for path in (ssh, self.user.authorized_keys):
            os.chown(path, self.user.uid, self.user.gid)
        self.assertFalse(self.enrol(house, server, password=False).json["worker"]["key_added"])

    def test_two_workers_one_repository_and_no_third(self):
        first, second, third = self.worker("a"), self.worker("b"), self.worker("c")
        house = self.house()
        house.write()
        self.enrol(house, first, folder="one")
        self.enrol(house, second, folder="two")
        repos = [self.text_of(os.path.join(self.user.home, name, "syncd.repo"))
                 for name in ("one", "two")]
        self.assertEqual(repos[0], repos[1])
        self.assertIn('worker "127-0-0-1" {', house.read())
        self.assertIn('worker "127-0-0-1-2" {', house.read())
        before = house.read()
        result = self.enrol(house, third, folder="three", expect=1)
        self.assertIn("two workers already", result.stdout)
        self.assertEqual(house.read(), before)
        self.assertFalse(os.path.exists(os.path.join(self.user.home, "three")))

    def test_a_further_worker_needs_the_existing_repository_at_hand(self):
        first, second, house = self.worker("a"), self.worker("b"), self.house()
        house.write()
        self.enrol(house, first, folder="one")
        record = os.path.join(house.state_dir, "repository.json")
        os.rename(record, record + ".away")
        first.kill()
        before = house.read()
        result = self.enrol(house, second, folder="two", expect=1)
        self.assertIn("cannot be asked now", result.stdout)
        self.assertEqual(house.read(), before)
        self.assertFalse(os.path.exists(os.path.join(self.user.home, "two/syncd.repo")))
        # From the other worker, when that is back.
        first.start()
        self.enrol(house, second, folder="two", password=False)
        self.assertEqual(*(self.text_of(os.path.join(self.user.home, name, "syncd.repo"))
                           for name in ("one", "two")))
        self.assertEqual(self.text_of(record), self.text_of(record + ".away"))

    def test_a_worker_that_is_away_does_not_matter_when_state_dir_knows(self):
        first, second, house = self.worker("a"), self.worker("b"), self.house()
        house.write()
        self.enrol(house, first, folder="one")
        first.kill()
        answer = self.enrol(house, second, folder="two")
        self.assertEqual(answer.json["errors"], [])

    def test_who_leads_must_be_known_for_a_further_worker(self):
        first, second, house = self.worker("a"), self.worker("b"), self.house()
        house.write(f'source "db" {{ path = "{self.bank()}"  max_age = "1h" }}\n')
        self.enrol(house, first, folder="one")
        token = os.path.join(house.state_dir, "token")
        os.rename(token, token + ".away")
        first.kill()
        self.assertIn("which epoch rules", self.enrol(house, second, folder="two",
                                                      expect=1).stdout)
        os.rename(token + ".away", token)
        first.start()
        # As after an `adopt`: the third epoch rules.
        epochs = os.path.join(self.user.home, "one/epoch/")
        os.rename(epochs + "1", epochs + "3")
        house.run("backup")
        first.kill()
        self.assertIn("which epoch rules", self.enrol(house, second, folder="two",
                                                      expect=1).stdout)
        self.assertFalse(os.path.exists(os.path.join(self.user.home, "two/syncd.repo")))
        first.start()
        self.enrol(house, second, folder="two")
        self.assertEqual(os.listdir(os.path.join(self.user.home, "two/epoch")), ["3"])
        house.run("backup")

    def test_someone_elses_repository_is_left_alone(self):
        server, mine, other = self.worker(), self.house("mine"), self.house("other")
        other.write()
        self.enrol(other, server, folder="taken")
        taken = os.path.join(self.user.home, "taken")
        there = sorted(os.listdir(taken)), os.listdir(os.path.join(taken, "epoch"))
        for first in (True, False):  # with nothing of its own, and with a repository
            before = mine.write() if first else mine.read()
            result = self.enrol(mine, server, folder="taken", expect=1)
            for word in ("restore --from", "adopt", "'other'"):
                self.assertIn(word, result.stdout)
            self.assertEqual(mine.read(), before)
            self.assertEqual(len(result.json["errors"]), 1)
            if first:
                self.assertNotIn("repository.json", mine.state())
                self.enrol(mine, server, folder="own", password=False)
        self.assertEqual((sorted(os.listdir(taken)), os.listdir(os.path.join(taken, "epoch"))),
                         there)

    def test_half_made_by_another_leader(self):
        server, mine, other = self.worker(), self.house("mine"), self.house("other")
        mine.write()
        other.write()
        self.enrol(other, server, folder="half")
        os.unlink(os.path.join(self.user.home, "half/epoch/1"))
        result = self.enrol(mine, server, folder="half", expect=1)
        self.assertIn("another leader, 'other'", result.stdout)
        self.enrol(other, server, folder="half", password=False)

    def test_the_config_keeps_text_mode_and_owner(self):
        server, house = self.worker(), self.house()
        text = house.write("# no newline at the end, trailing blanks   \n\n\tlog_level = \"info\"")
        os.chmod(house.conf, 0o640)
        os.chown(house.conf, 12345, 23456)
        link = self.path("link.conf")
        os.symlink(house.conf, link)
        house.conf, real = link, house.conf
        self.enrol(house, server)
        self.assertTrue(os.path.islink(link))
        new = self.text_of(real)
        self.assertTrue(new.startswith(text + "\n\nworker "), new)
        st = os.stat(real)
        self.assertEqual((st.st_mode & 0o7777, st.st_uid, st.st_gid), (0o640, 12345, 23456))
        self.assertEqual(sorted(os.listdir(house.folder)), ["state", "syncd.conf"])

    def test_a_new_config(self):
        server, house = self.worker(), self.house()
        state = self.path("home/.local/state")
        os.makedirs(state)
        house.conf = self.path("etc/syncd/syncd.conf")
        os.chown(self.user.home, self.user.uid, self.user.gid)
        # As root it would be /var/lib/syncd, which is not the test's to make.
        run = ["setpriv", "--reuid", str(self.user.uid), "--regid", str(self.user.gid),
               "--clear-groups"]
        os.chmod(self.folder, 0o755)
        os.chmod(house.folder, 0o755)
        for path in (self.folder, self.password, house.run_dir):
            os.chown(path, self.user.uid, self.user.gid)
        words = ("setup", self.url(server), "--host-key", server.fingerprint(), "--password-file",
                 self.password)
        env = {"HOME": self.user.home, "XDG_STATE_HOME": ""}
        result = house.start(*words, prefix=run, env=env).wait(60)
        self.assertEqual(result.exit, 0, str(result))
        text = self.text_of(house.conf)
        self.assertIn(f'state_dir = "{self.user.home}/.local/state/syncd"', text)
        self.assertIn('#source "data" {', text)
        self.assertIn("Next:", result.stdout)
        result = house.start("snapshots", prefix=run, env=env).wait(60)
        self.assertNotEqual(result.exit, 2, str(result))

    def test_a_config_that_cannot_be_written_is_told_first(self):
        server, house = self.worker(), self.house()
        house.write()
        os.chmod(self.folder, 0o755)
        os.chmod(house.folder, 0o755)
        for path in (self.password, house.state_dir, house.run_dir):
            os.chown(path, self.user.uid, self.user.gid)
        result = house.start("setup", self.url(server), "--host-key", server.fingerprint(),
                             "--password-file", self.password,
                             prefix=["setpriv", "--reuid", str(self.user.uid), "--regid",
                                     str(self.user.gid), "--clear-groups"]).wait(60)
        self.assertEqual(result.exit, 1, str(result))
        self.assertIn("sudo", result.stderr)
        self.assertEqual(house.state(), [])

    def test_a_key_that_works_already(self):
        server, house = self.worker(), self.house()
        house.write()
        key = self.path("mine")
        keygen(key)
        os.mkdir(os.path.dirname(self.user.authorized_keys), 0o700)
        shutil.copy(key + ".pub", self.user.authorized_keys)
        os.chown(os.path.dirname(self.user.authorized_keys), self.user.uid, self.user.gid)
        os.chown(self.user.authorized_keys, self.user.uid, self.user.gid)
        before = self.text_of(self.user.authorized_keys)
        answer = self.enrol(house, server, "--identity", key, password=False).json["worker"]
        self.assertFalse(answer["key_made"] or answer["key_added"])
        self.assertEqual(self.text_of(self.user.authorized_keys), before)
        self.assertIn(f'identity_file = "{key}"', house.read())
        self.enrol(house, server, "--identity", self.path("else"), password=False, expect=2)

    def test_the_agents_key_lets_ours_in(self):
        server, house = self.worker(), self.house()
        house.write()
        key = self.path("mine")
        keygen(key)
        os.mkdir(os.path.dirname(self.user.authorized_keys), 0o700)
        shutil.copy(key + ".pub", self.user.authorized_keys)
        os.chown(os.path.dirname(self.user.authorized_keys), self.user.uid, self.user.gid)
        os.chown(self.user.authorized_keys, self.user.uid, self.user.gid)
        socket = self.path("agent")
        agent = processes.start(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
        self.addCleanup(processes.kill_tree, agent)
        processes.wait_until(lambda: os.path.exists(socket), 10, "the agent answers")
        env = {"SSH_AUTH_SOCK": socket}
        subprocess.run(["ssh-add", "-q", key], env={**os.environ, **env}, check=True, timeout=30)
        answer = self.enrol(house, server, password=False, env=env).json["worker"]
        self.assertTrue(answer["key_made"] and answer["key_added"])
        self.enrol(house, server, password=False)  # and now without it

    def test_keys_that_will_not_do(self):
        server, house = self.worker(), self.house()
        before = house.write()
        rsa, locked, open_to_all = self.path("rsa"), self.path("locked"), self.path("open")
        keygen(rsa, "rsa", "-b", "2048")
        keygen(locked)
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True,
                       timeout=30, stdout=subprocess.DEVNULL)
        keygen(open_to_all)
        os.chmod(open_to_all, 0o644)
        for key, word in ((rsa, "RSA"), (locked, "passphrase"), (open_to_all, "chmod 600"),
                          (rsa + ".pub", "can be read by others")):
            result = self.enrol(house, server, "--identity", key, expect=1)
            self.assertIn(word, result.stdout)
        self.assertEqual(house.read(), before)
        self.assertEqual(os.listdir(self.user.home), [])

    def test_without_ssh_keygen(self):
        server, house = self.worker(), self.house()
        house.write()
        result = self.enrol(house, server, expect=1, env={"PATH": "/nonexistent"})
        self.assertIn("openssh-client", result.stdout)
        self.enrol(house, server)

    def test_usage(self):
        house = self.house()
        before = house.write()
        for words in (("ftp://h/x",), ("sftp://h",), ("sftp://h/~",), ("sftp://u:pw@h/x",),
                      ("file:///x", "--host-key", "SHA256:x"), ("file:///x", "--identity", "/x"),
                      ("sftp://h/x", "--name", "Bad Name"), ("sftp://h/x", "--name", "tmp"),
                      ("--name", "x"), ("--password-file", "x"), ("sftp://h/x", "sftp://h/y")):
            with self.subTest(words=words):
                house.text("setup", *words, expect=2)
        self.assertEqual((house.read(), house.state()), (before, []))
        with open(house.conf, "a", encoding="utf-8") as f:
            f.write('nonsense = "x"\nmore = "y"\n')
        result = house.text("setup", "sftp://h/x", expect=2)
        self.assertIn("nonsense", result.stderr)
        self.assertIn("more", result.stderr)

    def test_a_folder_as_worker(self):
        house = self.house()
        text = house.write(f'source "db" {{ path = "{self.bank()}"  max_age = "1h" }}\n')
        result = house.text("setup", "file://" + self.path("repo"), expect=1)
        self.assertIn("mounted", result.stderr)  # the source's own disk
        self.assertEqual(house.read(), text)
        memory = tempfile.mkdtemp(prefix="syncd-test-", dir="/dev/shm")
        self.addCleanup(shutil.rmtree, memory)
        for _ in range(2):
            house.run("setup", "file://" + memory + "/stick/leader")
        self.assertEqual(house.read(), text + '\nworker "disk" {\n'
                                              f'    url = "file://{memory}/stick/leader"\n}}\n')
        house.run("backup")


@at_level("quick")
class TestWhoRunsIt(EnrolmentCase):
    """Started by root, jobs go on as the owner of state_dir."""

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        self.leader_house = self.house()
        os.chmod(self.leader_house.folder, 0o755)
        self.data = self.path("data")
        os.mkdir(self.data)
        self.db = self.bank("data/bank.sqlite")
        for path in (self.data, self.db, self.leader_house.run_dir):
            os.chown(path, self.user.uid, self.user.gid)

    def source(self, path=None, name="db"):
        return f'source "{name}" {{ path = "{path or self.db}"  max_age = "1h" }}\n'

    def owners(self, folder):
        return {name: os.stat(os.path.join(folder, name)).st_uid for name in os.listdir(folder)}

    def assert_users(self, folder):
        owners = self.owners(folder)
        self.assertTrue(owners)
        self.assertEqual(set(owners.values()), {self.user.uid}, owners)

    def test_setup_and_backup_by_root(self):
        server, house = self.worker(), self.leader_house
        os.rmdir(house.state_dir)
        house.write(self.source())
        self.enrol(house, server)
        st = os.stat(house.state_dir)
        self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o7777),
                         (self.user.uid, self.user.gid, 0o700))
        self.assertEqual(os.stat(house.conf).st_uid, 0)
        house.run("backup")
        house.run("backup")
        house.run("check")
        self.assertIn("catalog.db", house.state())
        for folder in (house.state_dir, self.data, house.run_dir):
            self.assert_users(folder)
        house.run("restore", "db", "--target", self.path("restored"))
        house.run("setup")
        self.assert_users(house.state_dir)

    def test_keys_and_known_hosts_where_only_root_writes(self):
        server, house = self.worker(), self.leader_house
        etc = self.path("etc")
        os.mkdir(etc, 0o755)
        os.chown(house.state_dir, self.user.uid, self.user.gid)
        house.write(f'worker "w" {{ url = "{self.url(server)}"  identity_file = "{etc}/id"  '
                    f'known_hosts = "{etc}/known_hosts" }}\n' + self.source())
        before = house.read()
        answer = self.enrol(house, server).json["worker"]
        self.assertTrue(answer["key_made"] and answer["pinned"] and not answer["config_written"])
        self.assertEqual(self.owners(etc), {"id": self.user.uid, "id.pub": self.user.uid,
                                            "known_hosts": 0})
        self.assertEqual(os.stat(etc + "/id").st_mode & 0o7777, 0o600)
        self.assertEqual(house.read(), before)
        house.run("backup")
        os.chown(etc + "/id", 0, 0)
        self.assertIn(f"chown {self.user.name} {etc}/id",
                      self.enrol(house, server, expect=1).stdout)

    def test_a_config_that_the_owner_cannot_read(self):
        house = self.leader_house
        os.chown(house.state_dir, self.user.uid, self.user.gid)
        house.write(self.source(), mode=0o600)
        result = house.text("backup", expect=1)
        self.assertIn(self.user.name, result.stderr)
        self.assertIn("chmod 644 " + house.conf, result.stderr)

    def test_a_root_that_may_not_become_anybody(self):
        server, house = self.worker(), self.leader_house
        os.chown(house.state_dir, self.user.uid, self.user.gid)
        before = house.write(self.source())
        for words in (("backup",), ("setup",), ("setup", self.url(server))):
            result = house.start(*words, prefix=["setpriv", "--bounding-set=-setuid,-setgid"])
            result = result.wait(60)
            self.assertEqual(result.exit, 1, str(result))
            self.assertIn("sudo -u " + self.user.name, result.stderr)
        self.assertEqual((house.read(), house.state()), (before, []))

    def test_a_source_of_somebody_else_is_named(self):
        house = self.leader_house
        house.write(self.source())
        answer = house.run("check", expect=1).json["checks"]
        found = [c for c in answer if c["level"] == "error" and self.user.name in c["message"]]
        self.assertEqual(len(found), 1, answer)
        self.assertIn(f"chown -R {self.user.name}: {house.state_dir}", found[0]["hint"])

    def test_backup_leaves_somebody_elses_database_alone(self):
        server, house = self.worker(), self.leader_house
        db = self.bank("data/roots.sqlite")
        house.write(self.source(db))
        self.enrol(house, server)
        os.chown(db, self.user.uid, self.user.gid)
        before = sorted(os.listdir(self.data))
        failed = house.run("backup", expect=1).json["errors"][0]
        self.assertIn(f"belongs to {self.user.name}, but syncd runs as root", failed["message"])
        self.assertEqual(sorted(os.listdir(self.data)), before)

    def test_setup_gives_the_unit_and_state_dir_to_the_owner(self):
        server, house = self.worker(), self.leader_house
        units, secret = self.path("units"), os.path.join(house.folder, "mqtt.pass")
        os.mkdir(units)
        with open(secret, "w", encoding="ascii") as f:
            os.chmod(secret, 0o600)
            f.write("secret\n")
        with open(os.path.join(house.state_dir, "left"), "w", encoding="ascii"):
            pass
        house.write(self.source() + f'mqtt {{ host = "localhost"  username = "x"  password_file = "{secret}" }}\n')
        env = {"SYNCD_UNIT_DIR": units}
        self.enrol(house, server, env=env)
        self.assert_users(house.state_dir)
        self.assertEqual(os.stat(house.state_dir).st_uid, self.user.uid)
        self.assertEqual(os.stat(secret).st_uid, self.user.uid)
        path = os.path.join(units, "syncd.service.d/owner.conf")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        self.assertIn(f"\nUser={self.user.name}\nGroup={self.user.name}\n", text)
        self.assertIn(f'ReadWritePaths="-{self.data}"\n', text)
        self.assertIn(f'ReadWritePaths="-{house.state_dir}"\n', text)
        unit = os.path.join(PROJECT, "conf/systemd/syncd.service.in")
        with open(unit, encoding="utf-8") as f, \
                open(os.path.join(units, "syncd.service"), "w", encoding="utf-8") as to:
            to.write(f.read().replace("@CMAKE_INSTALL_PREFIX@/bin/syncd", "/bin/true"))
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                                   os.path.join(units, "syncd.service")], capture_output=True,
                                  text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertNotIn("owner.conf", verified.stderr)
        inode = os.stat(path).st_ino
        house.run("setup", env=env)
        self.assertEqual(os.stat(path).st_ino, inode)  # it was as it should be
        house.run("backup")

    def test_setup_refuses_two_owners(self):
        house = self.leader_house
        house.write(self.source() + self.source(self.bank("roots.sqlite"), "other"))
        self.assertIn("one user", house.run("setup", expect=2).json["errors"][0]["message"])
        self.assertEqual(os.stat(house.state_dir).st_uid, 0)

    def test_two_owners_are_refused_by_name(self):
        server, house = self.worker(), self.leader_house
        house.write(self.source() + self.source(self.bank("roots.sqlite"), "other"))
        answer = house.run("check", expect=1).json["checks"]
        self.assertTrue([c for c in answer if self.user.name in c["message"]
                         and "root" in c["message"] and "one user" in c["message"]], answer)
        os.rename(house.state_dir, house.state_dir + ".away")
        result = self.enrol(house, server, expect=2)
        self.assertIn("one user", result.stdout)
        self.assertFalse(os.path.exists(house.state_dir))


@at_level("quick")
class TestCheck(Case):
    """What check finds beside workers that do not answer."""

    def setUp(self):
        super().setUp()
        self.db = self.bank()
        self.server = self.sshd("w1")
        self.house = self.leader([Worker.of(self.server)],
                                 {"db": {"path": self.db, "max_age": "1h"}},
                                 authorize=[self.server])
        self.house.run("setup")
        self.house.run("check")

    def finds(self, word, level, expect):
        answer = self.house.run("check", expect=expect).json["checks"]
        found = [c for c in answer if word in c["message"] and c["level"] == level]
        self.assertEqual(len(found), 1, f"{word!r} in {answer}")
        self.assertTrue(found[0]["hint"], found)
        return found[0]

    def with_source(self, **keys):
        self.house.sources["db"] = {"path": self.db, "max_age": "1h", **keys}
        self.house.write_conf()

    def test_times(self):
        self.with_source(every="2h")
        self.finds("max_age", "warning", 3)
        self.with_source(every="30m")
        self.house.run("check")
        self.house.sources["db"] = {"path": self.db}
        self.house.write_conf()
        self.finds("neither every", "warning", 3)

    def test_no_worker_and_no_source(self):
        self.house.workers, self.house.sources = [], {}
        self.house.write_conf()
        self.finds("no worker", "error", 1)
        self.finds("no source", "error", 1)

    def test_keys(self):
        os.chmod(self.house.key, 0o644)
        self.finds("can be read by others", "error", 1)
        os.chmod(self.house.key, 0o600)
        # The agent's key logs in, and the RSA key stays unnoticed till the night.
        socket = self.path("agent")
        agent = processes.start(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
        self.addCleanup(processes.kill_tree, agent)
        processes.wait_until(lambda: os.path.exists(socket), 10, "the agent answers")
        env = {"SSH_AUTH_SOCK": socket}
        subprocess.run(["ssh-add", "-q", self.house.key], env={**os.environ, **env}, check=True,
                       timeout=30)
        for suffix in ("", ".pub"):
            os.unlink(self.house.key + suffix)
        keygen(self.house.key, "rsa", "-b", "2048")
        answer = self.house.run("check", expect=1, env=env).json["checks"]
        self.assertTrue([c for c in answer if "RSA" in c["message"] and c["level"] == "error"])
        os.unlink(self.house.key)
        answer = self.house.run("check", expect=1, env=env).json["checks"]
        self.assertTrue([c for c in answer if "ssh-agent" in c["message"]], answer)
        # The server is away: the key is looked at all the same.
        self.server.kill()
        keygen(self.house.key + "2", "rsa", "-b", "2048")
        os.rename(self.house.key + "2", self.house.key)
        self.finds("RSA", "error", 1)

    def test_folders_secrets_hooks(self):
        self.house.settings = {"scratch_dir": self.path("none"),
                               "prometheus_file": self.path("nowhere", "syncd.prom")}
        self.with_source(before=["/nonexistent/stop", "x"])
        checks = self.house.run("check", expect=1).json["checks"]
        for word in ("scratch_dir", "prometheus_file", "/nonexistent/stop"):
            self.assertTrue([c for c in checks if word in c["message"]
                             and c["level"] == "error"], word)
        secret = self.path("secret")
        with open(secret, "w", encoding="ascii") as f:
            f.write("x\n")
        os.chmod(secret, 0o644)
        self.house.settings = {}
        self.with_source()
        with open(self.house.conf, "a", encoding="utf-8") as f:
            f.write(f'mqtt {{ host = "localhost" username = "u" password_file = "{secret}" }}\n')
        self.finds("open to others", "error", 1)

    def test_config_errors_are_all_listed(self):
        with open(self.house.conf, "a", encoding="utf-8") as f:
            f.write('nonsense = "x"\nloud = "y"\n')
        result = self.house.text("check", expect=2)
        self.assertIn("nonsense", result.stderr)
        self.assertIn("loud", result.stderr)
        self.assertEqual(len(self.house.run("check", expect=2).json["errors"]), 2)
