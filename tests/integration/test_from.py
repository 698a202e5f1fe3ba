"""restore --from: a machine that has neither config nor keys nor catalog reads a repository."""

import os
import shutil

from harness import bank, repository
from harness.case import at_level
from harness.enrolment import EnrolmentCase
from harness.user import PASSWORD

MB = 1_000_000


class FromCase(EnrolmentCase):
    """Two workers with a password login, filled by a leader that is then gone."""

    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=1 * MB)
        self.servers = [self.worker("w1"), self.worker("w2")]
        self.below = ["one/leader", "two/leader"]  # one user: one home for both
        self.old = self.house("old")
        self.old.write()
        for server, folder, name in zip(self.servers, self.below, ("w1", "w2")):
            self.enrol(self.old, server, "--name", name, folder=folder)
        self.add_source("db", self.db)
        self.old.backup("db")
        self.commit()
        self.snapshot = self.old.backup("db")["snapshot"]
        self.blank = self.house("blank")

    def add_source(self, name, path):
        with open(self.old.conf, "a", encoding="utf-8") as f:
            f.write(f'source "{name}" {{ path = "{path}"  max_age = "1h" }}\n')

    def commit(self):
        live = bank.connect(self.db)
        hand = bank.Hand(live, 1, self.rng)
        for _ in range(3):
            self.seq, _ = hand.transaction(20)
            live.execute("COMMIT")
        live.close()

    def url_of(self, i):
        return self.url(self.servers[i], self.below[i])

    def root(self, i):
        return os.path.join(self.user.home, self.below[i])

    def words(self, *which, password=True, keys=True):
        words = []
        for i in which or (0,):
            words += ["--from", self.url_of(i)]
            host = f"127.0.0.1:{self.servers[i].port}"
            words += ["--host-key", f"{host}={self.servers[i].fingerprint()}"] if keys else []
        return words + (["--password-file", self.password] if password else [])

    def restored_to(self, target):
        self.assertEqual(bank.examine(target + self.db).seq, self.seq)
        shutil.rmtree(target)


@at_level("quick")
class TestFrom(FromCase):
    def test_one_and_two(self):
        for which in ((0,), (1,), (0, 1)):
            target = self.path("t")
            answer = self.blank.run("restore", *self.words(*which), "--target", target).json
            self.assertEqual(answer["snapshot"], self.snapshot)
            self.restored_to(target)
        self.assertEqual(self.blank.state(), [])  # nothing is left on the machine
        output = self.path("out.sqlite")
        self.blank.run("restore", "db", *self.words(), "--output", output)
        self.assertEqual(bank.examine(output).seq, self.seq)

    def test_as_a_person(self):
        target = self.path("t")
        terminal = self.terminal(self.blank, "restore", *self.words(password=False, keys=False),
                                 "--target", target)
        terminal.expect(self.servers[0].fingerprint())
        terminal.type("y")
        terminal.expect("Password of")
        terminal.type(PASSWORD)
        self.assertEqual(terminal.wait(), 0, terminal.shown)
        self.assertNotIn(PASSWORD, terminal.shown)
        self.restored_to(target)
        # Without a terminal each question is a refusal that names its flag.
        for words, flag in ((self.words(keys=False), "--host-key"),
                            (self.words(password=False), "--password-file")):
            for yes in ((), ("--yes",)):
                result = self.blank.run("restore", *words, *yes, "--target", target, expect=2)
                self.assertIn(flag, str(result.json["errors"]))
        wrong = "SHA256:" + "A" * 43
        self.blank.run("restore", "--from", self.url_of(0), "--host-key", wrong, "--password-file",
                       self.password, "--target", target, expect=1)
        self.assertFalse(os.path.exists(target))

    def test_key(self):
        target = self.path("t")
        self.blank.run("restore", *self.words(password=False), "--identity", self.old.key,
                       "--target", target)
        self.restored_to(target)

    def test_url_without_a_path(self):
        server = self.servers[0]
        words = ["--from", f"sftp://{self.user.name}@127.0.0.1:{server.port}", "--host-key",
                 server.fingerprint(), "--password-file", self.password]
        target = self.path("t")
        answer = self.blank.run("restore", *words, "--target", target, expect=2).json
        self.assertEqual(sorted(answer["repositories"]),
                         [self.url(server, folder) for folder in self.below])
        shutil.rmtree(self.root(1))
        self.blank.run("restore", *words, "--target", target)
        self.restored_to(target)
        shutil.rmtree(self.root(0))
        self.blank.run("restore", *words, "--target", target, expect=1)

    def test_several_sources(self):
        other = self.bank("other.sqlite")
        self.add_source("lab", other)
        self.old.backup("lab")
        target = self.path("t")
        result = self.blank.run("restore", *self.words(), "--target", target, expect=2)
        self.assertIn("db, lab", result.json["errors"][0]["hint"])
        self.blank.run("restore", "none", *self.words(), "--target", target, expect=2)
        self.blank.run("restore", "lab", *self.words(), "--target", target)
        self.assertTrue(os.path.exists(target + other))


class TestPool(FromCase):
    def test_different_damage_on_both(self):
        parts = [repository.parts(self.root(i)) for i in (0, 1)]
        repository.damage(parts[0][0], self.rng, at=200)
        repository.damage(parts[1][1], self.rng, at=200)
        target = self.path("t")
        for i in (0, 1):
            self.blank.run("restore", *self.words(i), "--target", target, expect=1)
            shutil.rmtree(target, ignore_errors=True)
        self.blank.run("restore", *self.words(0, 1), "--target", target)
        self.restored_to(target)

    def test_newest_of_both(self):
        self.servers[1].kill()
        self.commit()
        self.old.backup("db", expect=3)
        self.servers[1].start()
        target = self.path("t")
        self.blank.run("restore", *self.words(1, 0), "--target", target)
        self.restored_to(target)

    def test_one_away(self):
        self.servers[0].kill()
        target = self.path("t")
        answer = self.blank.run("restore", *self.words(1), "--target", target)
        self.restored_to(target)
        words = ["--from", self.url_of(0), *self.words(1)]
        answer = self.blank.run("restore", *words, "--target", target).json
        self.assertEqual([e["code"] for e in answer["errors"]], ["connect"])
        self.restored_to(target)

    def test_two_repositories_are_no_pool(self):
        other = self.house("other")
        other.write()
        self.enrol(other, self.servers[1], folder="third")
        self.below[1] = "third"
        result = self.blank.run("restore", *self.words(0, 1), "--target", self.path("t"), expect=1)
        self.assertEqual(result.json["errors"][-1]["code"], "foreign")

    def test_usage(self):
        target = ["--target", self.path("t")]
        url = self.url_of(0)
        for words in (["--from", url, "--from", url], ["--from", url, "--from", "w1"],
                      ["--from", "sftp://"], ["--password-file", self.password],
                      ["--from", url, "--from", "a", "--from", "b"], ["--from", "w9"]):
            self.old.run("restore", *words, *target, expect=2)

    def test_worker_of_the_config(self):
        self.servers[1].kill()
        target = self.path("t")
        self.old.run("restore", "--from", "w1", "--target", target)
        self.restored_to(target)
        self.old.run("restore", "--from", "w2", "--target", target, expect=1)

    def test_folder(self):
        """A USB stick: file:///, no login at all."""
        stick = self.path("stick")
        shutil.copytree(self.root(0), stick)
        target = self.path("t")
        self.blank.run("restore", "--from", "file://" + stick, "--target", target)
        self.restored_to(target)
