"""Freshness that cannot lie: `status` against real sshds, with and without a leader."""

import glob
import os
import re
import shutil
import sqlite3
import subprocess
import time

from harness import bank, repository
from harness.case import Case, at_level

HOUR, DAY, MB = 3600, 86400, 1 << 20

@at_level("quick")
class Status(Case):
    def commit(self, db):
        live = sqlite3.connect(db, isolation_level=None)
        seq, _ = bank.Hand(live, 1, self.rng).transaction(2)
        live.execute("COMMIT")
        live.close()
        return seq

    def status(self, leader, expect, *args, **kwargs):
        result = leader.run("status", *args, expect=expect, **kwargs)
        return {s["name"]: s for s in result.json["sources"]}

    @staticmethod
    def states(source):
        return source["state"], [w["state"] for w in source["workers"]]

    def at(self, offset_s):
        return {"SYNCD_TEST_CLOCK_OFFSET_S": str(offset_s)}

    def test_from_never_to_stale(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        source = self.status(leader, 4)["db"]
        self.assertEqual(self.states(source), ("never", ["never", "never"]))
        self.assertEqual(source["last_result"], "none")
        backup = leader.backup("db")
        source = self.status(leader, 0)["db"]
        self.assertEqual(self.states(source), ("fresh", ["fresh", "fresh"]))
        self.assertEqual(source["snapshot"], backup["snapshot"])
        self.assertEqual(source["as_of"], backup["as_of"])
        self.assertEqual(source["last_result"], "ok")
        self.assertEqual([w["behind"] for w in source["workers"]], [0, 0])
        self.assertEqual(source["max_age_s"], HOUR)
        # The second worker is down for a while: degraded once its state is too old.
        self.w2.kill()
        self.commit(db)
        leader.backup("db", expect=3, env=self.at(1800))
        source = self.status(leader, 3, env=self.at(HOUR + 60))["db"]
        self.assertEqual(self.states(source), ("degraded", ["fresh", "stale"]))
        self.assertTrue(source["workers"][1]["error"])
        self.w2.start()
        source = self.status(leader, 3, env=self.at(HOUR + 60))["db"]
        self.assertEqual(self.states(source), ("degraded", ["fresh", "stale"]))
        self.assertGreater(source["workers"][1]["behind"], 0)
        source = self.status(leader, 4, env=self.at(2 * HOUR))["db"]
        self.assertEqual(self.states(source), ("stale", ["stale", "stale"]))

    def test_both_repositories_are_gone(self):
        """Stored it was, so "never" would be a lie: the text says that it is gone, and what it was."""
        leader = self.two_workers(self.bank(size_bytes=MB))
        leader.backup("db")
        for worker in (self.w1, self.w2):
            os.rename(repository.of(worker), repository.of(worker) + "-")
        source = self.status(leader, 4)["db"]
        self.assertEqual(self.states(source), ("stale", ["stale", "stale"]))
        self.assertIsNone(source["as_of"])
        rows = leader.text("status", expect=4).stdout.splitlines()[1:]
        self.assertEqual(len(rows), 3, rows)
        for row in rows:
            self.assertRegex(row, r"stale +- +gone ")
        self.assertRegex(rows[0], r"no worker holds what was stored \(as of 2\d\d\d-.*\) any more")

    def test_what_is_gone_is_not_fresh(self):
        """The catalog says that it is there; the worker shows that it is not."""
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        leader.backup("db")
        root = repository.of(self.w1)
        part = repository.parts(root)[0]
        os.rename(part.path, part.path + "-")
        source = self.status(leader, 3)["db"]
        self.assertEqual(self.states(source), ("degraded", ["stale", "fresh"]))
        os.rename(part.path + "-", part.path)
        self.status(leader, 0)
        repository.truncate(part, part.size - 1)
        self.status(leader, 3)
        os.rename(root, root + "-")  # not mounted
        source = self.status(leader, 3)["db"]
        self.assertEqual(self.states(source), ("degraded", ["stale", "fresh"]))
        self.assertIn("mounted", leader.text("status", expect=3).stderr)

    def test_a_repository_that_is_gone_is_remembered(self):
        """What a backup has seen counts when nobody can be asked, too: for the daemon, say."""
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        leader.backup("db")
        root = repository.of(self.w2)
        os.rename(root, root + "-")
        leader.backup("db", expect=3)
        self.w1.kill()
        self.w2.kill()
        source = self.status(leader, 3)["db"]
        self.assertEqual(self.states(source), ("degraded", ["fresh", "stale"]))
        self.w1.start()
        self.w2.start()
        os.rename(root + "-", root)
        leader.backup("db")
        self.w1.kill()
        self.w2.kill()
        self.status(leader, 0)

    def test_unchanged_counts_and_outlives_the_catalog(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        time.sleep(2.1)  # younger signatures do not count as unchanged
        leader.backup("db")
        later = self.at(3 * HOUR)
        self.status(leader, 4, env=later)
        again = leader.backup("db", env=later)
        self.assertTrue(again["unchanged"])
        self.assertEqual(self.status(leader, 0, env=later)["db"]["as_of"], again["as_of"])
        for name in os.listdir(leader.state_dir):
            if name.startswith("catalog"):
                os.unlink(os.path.join(leader.state_dir, name))
        source = self.status(leader, 0, env=later)["db"]
        self.assertEqual(source["as_of"], again["as_of"])
        self.status(leader, 4, env=self.at(4 * HOUR + 60))

    def test_times_of_a_copied_repository_do_not_count(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        leader.backup("db", env=self.at(-3 * DAY))
        self.commit(db)
        leader.backup("db", env=self.at(-2 * DAY))
        for name in os.listdir(leader.state_dir):
            if name.startswith("catalog"):
                os.unlink(os.path.join(leader.state_dir, name))
        for w in (self.w1, self.w2):
            for part in repository.parts(repository.of(w)):
                os.utime(part.path)
        self.status(leader, 4)

    def test_wrong_clocks(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        leader.backup("db")
        for offset in (2 * DAY, -2 * DAY):
            source = self.status(leader, 4, env=self.at(offset))["db"]
            self.assertEqual(source["state"], "clock")
        # Set back by hours: how old the state is cannot be told any more.
        source = self.status(leader, 4, env=self.at(-5 * HOUR))["db"]
        self.assertEqual(source["state"], "stale")
        self.status(leader, 0)

    def test_a_date_ahead_is_no_promise(self):
        """Stored while the clock was 20 hours ahead: when that moment has come, it is not fresh."""
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        leader.backup("db", env=self.at(20 * HOUR))
        self.commit(db)
        self.w2.kill()
        leader.backup("db", expect=3)
        self.w1.kill()
        leader.backup("db", expect=1)
        late = self.at(20 * HOUR + 600)
        source = self.status(leader, 4, env=late)["db"]  # by the catalog alone
        self.assertEqual(self.states(source), ("stale", ["stale", "stale"]))
        self.w1.start()
        source = self.status(leader, 4, env=late)["db"]
        self.assertEqual(self.states(source), ("stale", ["stale", "stale"]))
        for file in glob.glob(os.path.join(leader.state_dir, "catalog.db*")):
            os.unlink(file)
        source = self.status(leader, 4, env=late)["db"]  # by what lies on the worker alone
        self.assertEqual(source["workers"][0]["state"], "stale")

    def test_without_workers_the_catalog_tells_and_without_both_nothing(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        leader.backup("db")
        self.w1.kill()
        self.w2.kill()
        source = self.status(leader, 0)["db"]
        self.assertTrue(all(w["error"] for w in source["workers"]))
        self.status(leader, 4, env=self.at(HOUR + 60))
        for name in os.listdir(leader.state_dir):
            if name.startswith("catalog"):
                os.unlink(os.path.join(leader.state_dir, name))
        self.assertEqual(leader.run("status", expect=1).json["exit"], 1)
        answer = leader.text("status", "--nagios", expect=3)
        self.assertTrue(answer.stdout.startswith("SYNCD UNKNOWN - "), answer.stdout)

    def test_nagios_and_prometheus(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        answer = leader.text("status", "--nagios", expect=2)
        self.assertRegex(answer.stdout, r"\ASYNCD CRITICAL - db never.* \| 'db_age'=U\n\Z")
        backup = leader.backup("db")
        answer = leader.text("status", "--nagios", expect=0)
        self.assertRegex(answer.stdout, r"\ASYNCD OK - db fresh \| 'db_age'=\d+s;3600;3600;0 "
                                        r"'db_size'=\d+B;;;0\n\Z")
        metrics = leader.text("status", "--prometheus").stdout
        values = dict(re.findall(r'^(\w+\{[^}]*\}) (\S+)$', metrics, re.M))
        for worker in ("w1", "w2"):
            labels = f'source="db",worker="{worker}"'
            as_of = float(values[f"syncd_as_of_timestamp_seconds{{{labels}}}"])
            until = float(values[f"syncd_fresh_until_timestamp_seconds{{{labels}}}"])
            self.assertEqual(until, as_of + HOUR)
            self.assertLess(abs(time.time() - as_of), 60)
        self.assertEqual(values['syncd_last_run_result{source="db",result="ok"}'], "1")
        self.assertEqual(values['syncd_last_run_sent_bytes{source="db"}'],
                         str(backup["bytes_sent"]))
        if shutil.which("promtool"):
            check = subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True,
                                   capture_output=True, timeout=60)
            self.assertEqual(check.returncode, 0, check.stdout + check.stderr)
        leader.run("status", "--nagios", expect=2)  # --json and --nagios exclude each other

    def test_without_max_age_it_cannot_tell(self):
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db, setup=False)
        del leader.sources["db"]["max_age"]
        leader.write_conf()
        leader.run("setup")
        leader.backup("db")
        answer = leader.run("status", expect=1).json
        self.assertIn("max_age", answer["errors"][0]["message"])
        self.assertIsNone(answer["sources"][0]["max_age_s"])
        leader.text("status", "--nagios", expect=3)

    def test_from_needs_no_leader(self):
        """A third machine asks the workers; the leader is dead."""
        db = self.bank(size_bytes=MB)
        leader = self.two_workers(db)
        backup = leader.backup("db")
        leader.close()
        env = {"HOME": self.path("elsewhere"), "SYNCD_CONFIG": "/nonexistent/syncd.conf",
               "SYNCD_NO_AGENT": "1"}
        os.makedirs(self.path("elsewhere"))
        os.rename(leader.conf, leader.conf + "-")
        common = ["--identity", leader.key]
        for w, worker in zip((self.w1, self.w2), leader.workers):
            common += ["--from", worker.url, "--host-key", f"127.0.0.1={w.fingerprint()}"]
        before = [repository.parts(repository.of(w)) for w in (self.w1, self.w2)]
        one = common[:2] + common[2:6]
        source = self.status(leader, 0, *one, env=env)["db"]
        self.assertEqual(source["as_of"], backup["as_of"])
        self.assertEqual(source["snapshot"], backup["snapshot"])
        self.assertEqual(source["max_age_s"], HOUR)  # from the config that the snapshot brought
        self.assertGreater(source["size_bytes"], MB / 2)
        self.status(leader, 4, *one, env={**env, **self.at(HOUR + 60)})
        answer = leader.text("status", "--nagios", *one, env=env)
        self.assertTrue(answer.stdout.startswith("SYNCD OK - db fresh"), answer.stdout)
        self.assertEqual([repository.parts(repository.of(w)) for w in (self.w1, self.w2)], before)
        self.w1.kill()
        self.assertEqual(leader.run("status", *one, env=env, expect=1).json["exit"], 1)
