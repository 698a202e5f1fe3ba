"""restore --from URL on a machine that has nothing: everything comes back, and it leads again."""

import grp
import os
import shutil
import subprocess
import time

from harness import bank, repository
from harness.case import at_level, by_level
from harness.enrolment import EnrolmentCase
from harness.user import PASSWORD, User

MB = 1_000_000


def metadata(root):
    """Everything that `cp -a` would keep, by relative path."""
    answer = {}
    for folder, folders, files in os.walk(root):
        for name in [""] + folders + files:
            path = os.path.join(folder, name).rstrip("/")
            st = os.lstat(path)
            link = os.path.islink(path)
            content = os.readlink(path) if link else None
            if os.path.isfile(path) and not link:
                with open(path, "rb") as f:
                    content = f.read()
            attributes = {n: os.getxattr(path, n, follow_symlinks=False)
                          for n in os.listxattr(path, follow_symlinks=False)}
            answer[os.path.relpath(path, root)] = (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns,
                                                   attributes, content)
    return answer


class RebuildCase(EnrolmentCase):
    """Two workers with a password login; a leader with a database and a tree, backed up."""

    hooks = ""

    def setUp(self):
        super().setUp()
        self.data = self.path("data")
        os.mkdir(self.data)
        self.db = os.path.join(self.data, "bank.sqlite")
        bank.create(self.db, self.seed, size_bytes=1 * MB)
        self.tree = os.path.join(self.data, "tree")
        self.make_tree()
        self.servers = [self.worker("w1"), self.worker("w2")]
        self.below = ["one/leader", "two/leader"]
        self.house_ = self.house()
        self.house_.write(
            f'source "db" {{ path = "{self.db}"  max_age = "1h" {self.hooks} }}\n'
            f'source "tree" {{ path = "{self.tree}"  max_age = "1h" }}\n')
        for server, folder, name in zip(self.servers, self.below, ("w1", "w2")):
            self.enrol(self.house_, server, "--name", name, folder=folder)
        self.house_.backup()
        self.seq = self.commit()
        self.house_.backup()
        self.wanted = metadata(self.tree)
        self.config = self.house_.read()

    def make_tree(self):
        os.makedirs(os.path.join(self.tree, "storage", "empty"))
        for i in range(10):
            with open(os.path.join(self.tree, "storage", f"{i}.bin"), "wb") as f:
                f.write(self.rng.randbytes(self.rng.randrange(60_000)))
        config = os.path.join(self.tree, "config.ini")
        with open(config, "w", encoding="ascii") as f:
            f.write("[a]\n")
        os.setxattr(config, "user.note", b"hello")
        os.chmod(config, 0o640)
        os.chown(config, self.user.uid, self.user.gid)
        os.chown(os.path.join(self.tree, "storage"), self.user.uid, grp.getgrnam("www-data").gr_gid)
        os.chmod(os.path.join(self.tree, "storage"), 0o2775)
        os.symlink("config.ini", os.path.join(self.tree, "link"))
        for name in ("storage/empty", "storage", "."):
            os.utime(os.path.join(self.tree, name), (1_500_000_000, 1_500_000_000))

    def commit(self):
        live = bank.connect(self.db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(3):
            seq, _ = hand.transaction(20)
            live.execute("COMMIT")
        live.close()
        return seq

    def wipe(self):
        """The card is dead: data, config, keys and records."""
        self.kept = self.path("old card")
        shutil.copytree(self.house_.folder, self.kept)
        shutil.rmtree(self.data)
        shutil.rmtree(self.house_.state_dir)
        os.unlink(self.house_.conf)
        shutil.rmtree(self.house_.run_dir)
        os.mkdir(self.house_.run_dir)

    def words(self, *which, password=True, keys=True):
        words = []
        for i in which or (0, 1):
            words += ["--from", self.url(self.servers[i], self.below[i])]
            host = f"127.0.0.1:{self.servers[i].port}"
            words += ["--host-key", f"{host}={self.servers[i].fingerprint()}"] if keys else []
        return words + (["--password-file", self.password] if password else [])

    def assert_back(self):
        self.assertEqual(bank.examine(self.db).seq, self.seq)
        now = metadata(self.tree)
        self.assertEqual(sorted(now), sorted(self.wanted))
        for name, value in self.wanted.items():
            self.assertEqual(now[name], value, name)

    def assert_leads(self):
        self.assertEqual(self.house_.read(), self.config)
        status = self.house_.run("status").json
        self.assertEqual({s["name"]: s["state"] for s in status["sources"]},
                         {"db": "fresh", "tree": "fresh"})
        self.commit()
        taken = self.house_.backup("db")
        self.assertLess(taken["bytes_sent"], 300_000)
        self.house_.run("check", expect=(0, 3))
        self.house_.run("verify", "--read-data")

    def assert_old_is_fenced(self):
        """The dead card comes back to life."""
        mine = self.path("mine")
        os.rename(self.house_.state_dir, mine)
        shutil.copytree(os.path.join(self.kept, "state"), self.house_.state_dir)
        result = self.house_.run("backup", expect=1)
        self.assertEqual(result.json["errors"][-1]["code"], "fenced")
        shutil.rmtree(self.house_.state_dir)
        os.rename(mine, self.house_.state_dir)
        self.house_.backup()


@at_level("quick")
class TestRebuild(RebuildCase):
    def test_as_a_person(self):
        self.wipe()
        terminal = self.terminal(self.house_, "restore", *self.words(password=False, keys=False))
        for server in self.servers:
            terminal.expect_next(server.fingerprint())
            terminal.type("y")
            terminal.expect_next("Password of")
            terminal.type(PASSWORD)
        terminal.expect("set aside, nothing is deleted")
        for text in ("the repository of 'leader'", "db: snapshot", f"to {self.db}",
                     "tree: snapshot", f"to {self.tree}"):
            self.assertIn(text, terminal.shown)
        terminal.type("y")
        terminal.expect("from now on?", 60)
        self.assert_back()
        terminal.type("y")
        self.assertEqual(terminal.wait(120), 0, terminal.shown)
        self.assertNotIn(PASSWORD, terminal.shown)
        self.assertTrue(terminal.shown.rstrip().endswith("every source is fresh on every worker."),
                        terminal.shown)
        if os.environ.get("SYNCD_TRANSCRIPT"):
            print(terminal.shown)
        self.assert_back()
        self.assert_leads()
        self.assert_old_is_fenced()

    def test_without_a_terminal(self):
        self.wipe()
        for words, flag in ((self.words(), "--lead"), ([*self.words(), "--yes"], "--lead"),
                            ([*self.words(), "--lead"], "--yes"),
                            (self.words(keys=False), "--host-key"),
                            (self.words(password=False), "--password-file")):
            result = self.house_.run("restore", *words, expect=2)
            self.assertIn(flag, str(result.json["errors"]))
            self.assertFalse(os.path.exists(self.data))
        answer = self.house_.run("restore", *self.words(), "--yes", "--lead").json
        self.assertEqual([(s["name"], s["restored"]) for s in answer["sources"]],
                         [("db", True), ("tree", True)])
        self.assertEqual((answer["missing"], answer["epoch"]), ([], 2))
        self.assert_back()
        self.assert_leads()

    def test_one_worker_then_the_other(self):
        self.wipe()
        self.servers[1].kill()
        answer = self.house_.run("restore", *self.words(0), "--yes", "--lead", expect=3).json
        self.assertTrue(any("w2" in line for line in answer["missing"]), answer)
        self.assert_back()
        self.servers[1].start()
        self.house_.run("setup", self.url(self.servers[1], self.below[1]), "--host-key",
                        self.servers[1].fingerprint(), "--password-file", self.password)
        self.house_.backup()
        self.assert_leads()

    def test_not_the_leader(self):
        self.wipe()
        terminal = self.terminal(self.house_, "restore", *self.words())
        terminal.expect("nothing is deleted")
        terminal.type("y")
        terminal.expect("from now on?")
        terminal.type("n")
        self.assertEqual(terminal.wait(), 0, terminal.shown)
        self.assertIn("`syncd adopt`", terminal.shown)
        self.assert_back()
        self.assertFalse(os.path.exists(self.house_.conf))
        self.assertFalse(os.path.exists(self.house_.state_dir))
        # Again, with --lead: nothing is to be restored, the rest goes on.
        answer = self.house_.run("restore", *self.words(), "--yes", "--lead").json
        self.assertEqual({f["result"] for f in answer["files"]}, {"equal"})
        self.assert_leads()

    def test_dry_run_and_one_source(self):
        self.wipe()
        self.house_.run("restore", *self.words(), "--dry-run")
        self.assertFalse(os.path.exists(self.data))
        self.house_.run("restore", "db", *self.words(), "--lead", expect=2)
        self.house_.run("restore", "db", *self.words(), "--yes")
        self.assertEqual(bank.examine(self.db).seq, self.seq)
        self.assertFalse(os.path.exists(self.tree))


@at_level("quick")
class TestReadme(RebuildCase):
    """A person who has nothing but the repository's folder follows its README.txt."""

    def command(self, folder, beginning, **words):
        """The line of the README that begins so, with the placeholders filled in."""
        text = self.text_of(os.path.join(folder, "README.txt"))
        self.assertIn("the leader 'leader'", text)
        line = next(x.strip() for x in text.splitlines() if x.strip().startswith(beginning))
        command = line.split("    ")[0].split()
        for name, value in words.items():
            command = [value if w == name else w for w in command]
        return command

    def follow(self, folder, command):
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60,
                              check=True, stdin=subprocess.DEVNULL).stdout

    def test_without_syncd(self):
        folder, out = self.path("copy"), self.path("out")
        shutil.copytree(os.path.join(self.user.home, self.below[0]), folder)
        listed = self.follow(folder, self.command(folder, "python3 rescue.py . "))
        self.assertIn("tree", listed)
        for source in ("db", "tree"):
            self.follow(folder, self.command(folder, "python3 rescue.py . latest", OUTPUT=out,
                                             **{"latest:SOURCE": f"latest:{source}"}))
        self.assertEqual(bank.examine(out + self.db).seq, self.seq)
        back = metadata(out + self.tree)
        self.assertEqual({name: v[-1] for name, v in back.items()},
                         {name: v[-1] for name, v in self.wanted.items()})

    def test_with_syncd(self):
        self.wipe()
        shutil.rmtree(os.path.join(self.user.home, self.below[1]))
        server = self.servers[0]
        command = self.command(os.path.join(self.user.home, self.below[0]), "syncd restore")
        url = command[-1].replace("USER@THIS-MACHINE", f"{self.user.name}@127.0.0.1:{server.port}")
        self.house_.run(*command[1:-1], url, "--host-key", server.fingerprint(), "--password-file",
                        self.password, "--yes", "--lead", expect=3)
        self.assert_back()


class TestHooks(RebuildCase):
    """Commands in the repository's config: shown, and run only when they are trusted."""

    @property
    def hooks(self):
        log = self.path("hooks")
        return "".join(f'{name} = {{"sh", "-c", "echo {name} >> {log}"}} '
                       for name in ("before", "before_restore", "after_restore"))

    def log(self):
        path = self.path("hooks")
        if not os.path.exists(path):
            return []
        with open(path, encoding="ascii") as f:
            return f.read().split()

    def test_shown_and_not_run(self):
        os.unlink(self.path("hooks"))
        self.wipe()
        result = self.house_.run("restore", *self.words(), "--yes", "--lead", expect=2)
        self.assertIn("--run-hooks", result.json["errors"][-1]["hint"])
        terminal = self.terminal(self.house_, "restore", *self.words(), "--yes")
        terminal.expect("echo before_restore")
        terminal.expect("Trust these commands?")
        terminal.type("n")
        self.assertEqual(terminal.wait(), 3, terminal.shown)
        self.assert_back()
        self.assertEqual(self.log(), [])
        self.assertFalse(os.path.exists(self.house_.conf))
        # A single source, the plain way.
        shutil.rmtree(self.data)
        shown = self.house_.text("restore", "db", *self.words(), "--yes", "--in-place").stdout
        self.assertIn("they are not run", shown)
        self.assertEqual(self.log(), [])
        shutil.rmtree(self.data)
        self.house_.run("restore", "db", *self.words(), "--yes", "--in-place", "--run-hooks")
        self.assertEqual(self.log(), ["before_restore", "after_restore"])

    def test_trusted(self):
        os.unlink(self.path("hooks"))
        self.wipe()
        self.house_.run("restore", *self.words(), "--yes", "--lead", "--run-hooks")
        self.assertEqual(self.log(), ["before_restore", "after_restore", "before"])
        self.assert_back()


class TestMissing(RebuildCase):
    def test_secrets_and_a_config_that_is_there(self):
        with open(self.house_.conf, "a", encoding="utf-8") as f:
            f.write('mqtt { host = "127.0.0.1"  username = "x"  '
                    f'password_file = "{self.path("mqtt.pass")}" }}\n')
        self.house_.backup()
        self.wipe()
        with open(self.house_.conf, "w", encoding="utf-8") as f:
            f.write("# something else\n")
        answer = self.house_.run("restore", *self.words(), "--yes", "--lead", expect=3).json
        self.assertTrue(any("mqtt.pass" in line for line in answer["missing"]), answer)
        folder = os.path.dirname(self.house_.conf)
        aside = [n for n in os.listdir(folder) if ".before-" in n]
        self.assertEqual(len(aside), 1)
        self.assertEqual(self.text_of(os.path.join(folder, aside[0])), "# something else\n")

    def test_histories_that_differ(self):
        """The workers took turns being away; the newer history is named and taken."""
        self.servers[1].kill()
        self.commit()
        first = self.house_.backup("db", expect=3)["snapshot"]
        self.servers[0].kill()
        self.servers[1].start()
        self.seq = self.commit()
        second = self.house_.backup("db", expect=3)["snapshot"]
        self.servers[0].start()
        look = self.house_.text("restore", "db", "--target", self.path("look"))
        self.assertIn("the two histories differ", look.stdout)
        self.wipe()
        result = self.house_.text("restore", *self.words(), "--yes", "--lead")
        self.assertIn("the two histories differ", result.stdout)
        self.assertIn(first[:12], result.stdout)
        self.assertIn(second[:12], result.stdout)
        self.assert_back()

    def test_a_source_that_cannot_come_back(self):
        """The others do; and nothing of what is not back is backed up over its history."""
        roots = [os.path.join(self.user.home, below) for below in self.below]
        self.wipe()
        for root in roots:
            for part in repository.parts(root):
                repository.damage(part, self.rng, at=200)
        os.makedirs(self.data)
        bank.create(self.db, self.seed + 1)  # what a fresh installation has put there
        before = [repository.parts(root) for root in roots]
        answer = self.house_.run("restore", *self.words(), "--yes", "--lead", expect=3).json
        self.assertEqual([(s["name"], s["restored"]) for s in answer["sources"]],
                         [("db", False), ("tree", True)])
        self.assertTrue(any("source db" in line for line in answer["missing"]), answer)
        self.assertEqual(answer["epoch"], 2)
        self.assertEqual([repository.parts(root) for root in roots], before)


class TestKilled(RebuildCase):
    """The rebuild itself is killed at any moment; the same command again ends well."""

    @at_level("default", timeout_s=600)
    def test_at_any_moment(self):
        words = ["restore", *self.words(), "--yes", "--lead"]
        took = 2.0
        for i in range(by_level(1, 3, 40)):
            self.wipe()
            begun = time.monotonic()
            run = self.house_.start(*words)
            time.sleep(self.rng.random() * took)
            if run.running():
                run.kill()
            else:
                took = time.monotonic() - begun
                run.wait()
            answer = self.house_.run(*words).json
            self.assertEqual(answer["missing"], [], f"round {i}")
            self.assert_back()
            self.assertEqual(self.house_.read(), self.config)
            shutil.rmtree(self.kept)
            self.seq = self.commit()
            self.house_.backup("db")
        self.assert_leads()


@at_level("quick")
class TestOwner(EnrolmentCase):
    """Rebuilt by root, for the user whose data it is: jobs run as that user again."""

    def test_state_dir_key_and_jobs_are_the_owners(self):
        data = self.path("data")
        os.mkdir(data)
        with open(os.path.join(data, "file"), "wb") as f:
            f.write(self.rng.randbytes(10_000))
        house, server = self.house(), self.worker("w1")
        for path in (data, os.path.join(data, "file"), house.state_dir, house.run_dir):
            os.chown(path, self.user.uid, self.user.gid)
        for path in (self.folder, house.folder):
            os.chmod(path, 0o755)
        house.write(f'source "data" {{ path = "{data}"  max_age = "1h" }}\n')
        self.enrol(house, server, "--name", "w1")
        house.backup()
        shutil.rmtree(data)
        shutil.rmtree(house.state_dir)
        os.unlink(house.conf)
        house.run("restore", "--from", self.url(server), "--host-key", server.fingerprint(),
                  "--password-file", self.password, "--yes", "--lead")
        for path in (data, os.path.join(data, "file"), house.state_dir,
                     *(os.path.join(house.state_dir, name) for name in house.state())):
            self.assertEqual(os.stat(path).st_uid, self.user.uid, path)
        self.assertEqual(os.stat(house.conf).st_uid, 0)
        self.assertEqual(house.run("status").json["sources"][0]["state"], "fresh")

    def test_an_owner_that_is_not_known_here(self):
        """By number, and it says so; where the name is known with another number, by name."""
        data, house, server = self.path("data"), self.house(), self.worker("w1")
        os.mkdir(data)
        stranger, mover = User(), User()
        self.addCleanup(mover.close)
        for user, name in ((stranger, "a"), (mover, "b")):
            with open(os.path.join(data, name), "wb") as f:
                f.write(b"x")
            os.chown(os.path.join(data, name), user.uid, user.gid)
        house.write(f'source "data" {{ path = "{data}"  max_age = "1h" }}\n')
        self.enrol(house, server, "--name", "w1")
        house.backup()
        shutil.rmtree(data)
        stranger.close()
        moved = mover.uid + 1000
        subprocess.run(["usermod", "-u", str(moved), mover.name], check=True, capture_output=True)
        said = house.text("restore", "data", "--from", self.url(server), "--host-key",
                          server.fingerprint(), "--password-file", self.password, "--yes").stdout
        self.assertIn(f"the user '{stranger.name}' is not known on this machine: its files get the "
                      f"number {stranger.uid}", said)
        self.assertNotIn(mover.name, said)
        self.assertEqual(os.stat(os.path.join(data, "a")).st_uid, stranger.uid)
        self.assertEqual(os.stat(os.path.join(data, "b")).st_uid, moved)
