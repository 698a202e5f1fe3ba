"""CONTRACT: commands, exit codes, JSON, usage errors."""

import json
import os
import subprocess
import time

from harness import bank, contract, repository
from harness.case import Case, at_level
from harness.leader import Run, Worker, program
from harness.sshd import keygen

MB = 1_000_000


@at_level("quick")
class TestUsage(Case):
    def setUp(self):
        super().setUp()
        self.db = self.bank()
        # A folder is a worker too, but not on the source's own file system.
        self.memory = self.new_folder("/dev/shm")
        self.repo = os.path.join(self.memory, "repo")
        self.house = self.leader([Worker("w1", "file://" + self.repo)],
                                 {"db": {"path": self.db}})

    def test_wrong_words_are_exit_2(self):
        for words in ((), ("nonsense",), ("backup", "--nonsense"), ("backup", "nosuchsource"),
                      ("restore", "db"), ("restore", "db", "--target"),
                      ("restore", "db", "--target", self.path("t"), "--output", "-"),
                      ("restore", "db", "--target", self.path("t"), "--at", "yesterdayish"),
                      ("restore", "db", "--target", self.path("t"), "--snapshot", "xyz"),
                      ("restore", "nosuchsource", "--target", self.path("t")),
                      ("snapshots", "nosuchsource"), ("verify", "--read-data=101"),
                      ("verify", "--read-data=x")):
            with self.subTest(words=words):
                result = self.house.text(*words, expect=2)
                self.assertTrue(result.stderr.strip(), "said nothing")
                self.assertEqual(result.stdout, "")
                if words and words[0] != "nonsense":  # those name no command
                    answer = self.house.start(*words, json_output=True).wait(30)
                    self.assertEqual(answer.exit, 2, str(answer))
                    contract.check_json(words[0], answer)
        self.assertFalse(os.path.exists(self.path("t")))

    def test_quiet_and_begun_words(self):
        for words in (("setup",), ("backup",), ("verify", "--read-data"), ("sync",), ("prune",),
                      ("restore", "db", "--target", self.path("t"))):
            with self.subTest(words=words):
                result = self.house.text("-q", *words)
                self.assertEqual(result.stdout + result.stderr, "")
        self.assertIn("did you mean \"--dry-run\"?",
                      self.house.text("prune", "--dry", expect=2).stderr)
        wrong = self.house.text("backup", "bd", expect=2).stderr
        self.assertIn("did you mean 'db'?", wrong)
        self.assertIn("it has db", wrong)
        self.assertIn("w1: nothing to let go", self.house.text("prune", "--dry-run").stdout)

    def test_help_and_version(self):
        for words in (("--version",), ("--help",), ("backup", "--help"), ("restore", "--help"),
                      ("verify", "--version")):
            with self.subTest(words=words):
                result = self.house.text(*words)
                self.assertIn("syncd", result.stdout)

    def test_config_errors_are_exit_2_and_name_the_line(self):
        good = open(self.house.conf, encoding="utf-8").read()
        lines = good.count("\n")
        for extra, word in (('sourze "x" { }', "source"), ('state_dir = "/elsewhere"', "state_dir"),
                            ('source "db" { path = "/x" }', "db"),
                            ("log_level = debug", "log_level"),
                            ('source "Bad Name" { path = "/x" }', "Bad Name"),
                            ('worker "w2" { url = "ftp://x/y" }', "ftp"),
                            ('source "y" { path = "/x" every = "5 parsecs" }', "parsecs")):
            with self.subTest(extra=extra):
                with open(self.house.conf, "w", encoding="utf-8") as f:
                    f.write(good + extra + "\n")
                result = self.house.text("backup", expect=2)
                self.assertIn(word, result.stderr)
                self.assertIn(f"{self.house.conf}:{lines + 1}", result.stderr)
                self.house.run("backup", expect=2)
        os.unlink(self.house.conf)
        self.assertIn(self.house.conf, self.house.text("backup", expect=2).stderr)

    def test_config_from_the_environment(self):
        self.house.run("setup")
        run = Run([program(), "backup", "--json"],
                  self.house.environment({"SYNCD_CONFIG": self.house.conf}))
        self.assertEqual(run.wait(30).exit, 0)

    def test_only_setup_makes_a_repository(self):
        source = self.house.run("backup", "db", expect=1)
        self.assertTrue(source.json["errors"])
        self.assertFalse(os.path.exists(self.repo))
        self.house.run("setup")
        self.house.run("backup", "db")
        self.house.run("setup")  # again: nothing to do
        self.assertEqual(len(self.house.snapshots("db")), 1)

    def test_files_are_for_their_owner_alone(self):
        self.house.run("setup")
        self.house.run("backup", "db")
        for folder, _, names in os.walk(self.repo):
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700, folder)
            for name in names:
                path = os.path.join(folder, name)
                self.assertEqual(os.stat(path).st_mode & 0o777, 0o600, path)


@at_level("quick")
class TestRestore(Case):
    def setUp(self):
        super().setUp()
        self.db = self.bank(size_bytes=2 * MB)
        self.house = self.two_workers(self.db)
        self.taken = []  # (snapshot, seq, when it was finished)
        self.take(3)

    def take(self, count, apart_s=0):
        for _ in range(count):
            live = bank.connect(self.db)
            hand = bank.Hand(live, 1, self.rng)
            seq, _ = hand.transaction(30)
            live.execute("COMMIT")
            live.close()
            self.taken.append((self.house.backup("db")["snapshot"], seq, time.time()))
            time.sleep(apart_s)

    def test_which_snapshot(self):
        time.sleep(2)
        self.taken = []
        self.take(3, apart_s=2)  # --at tells seconds apart
        ids = [s for s, _, _ in self.taken]
        listed = self.house.snapshots("db")
        self.assertLessEqual(set(ids), {s["id"] for s in listed})
        for entry in listed:
            self.assertEqual(entry["source"], "db")
            self.assertTrue(entry["complete"])
        for number, (snapshot, seq, when) in enumerate(self.taken):
            at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(int(when) + 1))
            for how in (("--snapshot", snapshot), ("--snapshot", snapshot[:12]), ("--at", at)):
                with self.subTest(how=how):
                    target = self.path(f"t{number}{how[0]}{len(how[1])}")
                    result = self.house.run("restore", "db", *how, "--target", target)
                    self.assertEqual(result.json["snapshot"], snapshot)
                    self.assertEqual(bank.examine(target + self.db).seq, seq)
        target = self.path("newest")
        self.house.run("restore", "db", "--target", target)
        self.assertEqual(bank.examine(target + self.db).seq, self.taken[-1][1])
        self.house.run("restore", "db", "--snapshot", "0" * 64, "--target", self.path("none"),
                       expect=(1, 2))
        self.house.run("restore", "db", "--at", "2001-01-01", "--target", self.path("none"),
                       expect=(1, 2))
        self.assertFalse(os.path.exists(self.path("none") + self.db))

    def test_target_equal_left_and_different_refused(self):
        target = self.path("target")
        self.house.run("restore", "db", "--target", target)
        before = os.stat(target + self.db)
        again = self.house.run("restore", "db", "--target", target)
        after = os.stat(target + self.db)
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))
        self.assertTrue(again.json["files"])
        self.house.run("restore", "db", "--snapshot", self.taken[0][0], "--target", target,
                       expect=1)
        self.assertEqual(bank.examine(target + self.db).seq, self.taken[-1][1])
        names = [n for _, _, files in os.walk(target) for n in files]
        self.assertEqual(names, [os.path.basename(self.db)], "something was left in the target")

    def test_dry_run_writes_nothing(self):
        target = self.path("target")
        self.house.run("restore", "db", "--target", target, "--dry-run")
        self.assertFalse(os.path.exists(target))

    def test_output(self):
        out = self.path("out.sqlite")
        self.house.run("restore", "db", "--output", out)
        self.assertEqual(bank.examine(out).seq, self.taken[-1][1])
        target = self.path("target")
        self.house.run("restore", "db", "--target", target)
        with open(out, "rb") as a, open(target + self.db, "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_output_to_stdout(self):
        piped = self.path("piped.sqlite")
        with open(piped, "wb") as f:
            subprocess.run([program(), "-c", self.house.conf, "restore", "db", "--output", "-"],
                           stdout=f, env=self.house.environment(), check=True, timeout=60,
                           stdin=subprocess.DEVNULL)
        self.assertEqual(bank.examine(piped).seq, self.taken[-1][1])

    def test_a_damaged_part_is_replaced_by_the_other_workers(self):
        newest = self.taken[-1][1]
        for part in repository.parts(repository.of(self.w2)):
            repository.damage(part, self.rng)
        self.house.run("verify", "db", "--read-data", expect=3)
        for worker in (self.w1, self.w2):  # whichever is asked first
            target = self.path("target-" + worker.name)
            self.house.run("restore", "db", "--target", target)
            self.assertEqual(bank.examine(target + self.db).seq, newest)
            self.house.workers.reverse()
            self.house.write_conf()

    def test_damage_on_both_is_never_put_in_place(self):
        first = [min(repository.parts(repository.of(w)), key=lambda p: p.order)
                 for w in (self.w1, self.w2)]
        for part in first:
            repository.damage(part, self.rng)
        result = self.house.run("verify", "db", "--read-data", expect=1)
        damaged = [d for w in result.json["workers"] for d in w["damaged"]]
        self.assertEqual(len(damaged), 2, damaged)
        target = self.path("target")
        self.house.run("restore", "db", "--snapshot", self.taken[0][0], "--target", target,
                       expect=1)
        self.assertFalse(os.path.exists(target + self.db))

    def test_verify_says_each_damage_once(self):
        count = len(repository.parts(repository.of(self.w1)))
        bad = {"its metadata": (-1, lambda p: p.size - 60), "a block": (0, lambda p: 200)}
        for index, place in bad.values():
            part = repository.parts(repository.of(self.w2))[index]
            repository.damage(part, self.rng, at=place(part))
        names = [repository.parts(repository.of(self.w2))[i].name for i, _ in bad.values()]
        for _ in range(2):  # found, and known from before
            said = self.house.text("verify", "db", "--read-data", expect=3)
            lines = (said.stdout + said.stderr).splitlines()
            for name in names:
                about = [line for line in lines if name in line]
                self.assertEqual(len(about), 1, lines)
                self.assertEqual(about[0].count(name), 1, about)
            self.assertTrue(any(line.startswith(f"w2: {count - 2} file") and
                                "2 damaged" in line for line in lines), lines)
        said = self.house.text("sync")
        self.assertIn("w2: 2 files copied", said.stdout)
        self.assertIn("w1: 0 files copied", said.stdout)
        for worker in (self.w1, self.w2):
            repository.damage(repository.parts(repository.of(worker))[0], self.rng, at=200)
        said = self.house.text("verify", "db", "--read-data", expect=1)
        self.assertIn("1 file is damaged or missing on every worker", said.stderr)
        self.assertNotIn(" 1 files", said.stdout + said.stderr)

    def test_verify_without_reading_sees_sizes_and_absence(self):
        self.house.run("verify", "db")
        parts = repository.parts(repository.of(self.w2))
        os.truncate(parts[0].path, parts[0].size - 1)
        self.house.run("verify", "db", expect=3)
        os.unlink(parts[0].path)
        self.house.run("verify", "db", expect=3)
        self.w2.kill()
        self.house.run("verify", "db", expect=3)

    def test_a_rotten_old_part_heals_by_the_next_backup(self):
        """DESIGN 5: a page counts as unchanged only while the part that holds it is there."""
        for worker in (self.w1, self.w2):
            os.unlink(repository.parts(repository.of(worker))[0].path)
        source = self.house.backup("db", expect=(0, 3))
        copy = self.restored(self.house, source["snapshot"], self.db)
        self.assertEqual(bank.examine(copy).seq, self.taken[-1][1])


@at_level("quick")
class TestCheck(Case):
    def test_good_and_bad(self):
        db = self.bank()
        leader = self.two_workers(db)
        leader.run("check", expect=(0, 3))
        result = leader.text("check", expect=(0, 3))
        self.assertTrue(result.stdout.strip())
        leader.sources["db"]["path"] = db + ".missing"
        leader.write_conf()
        answer = leader.run("check", expect=1)
        self.assertIn(db + ".missing", json.dumps(answer.json))

    def test_rsa_key_is_explained(self):
        db = self.bank()
        leader = self.two_workers(db)
        os.unlink(leader.key)
        os.unlink(leader.key + ".pub")
        keygen(leader.key, "rsa", "-b", "2048")
        for worker in (self.w1, self.w2):
            worker.authorize(leader.key + ".pub")
        self.assertIn("RSA", json.dumps(leader.run("check", expect=1).json))
