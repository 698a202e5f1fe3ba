"""The daemon: it keeps the schedule by itself, and ends, reloads and comes back in order."""

import json
import os
import signal
import sqlite3
import time

from harness import bank, processes, repository
from harness.case import Case, at_level
from harness.machine import Machine

MB = 1_000_000


class DaemonCase(Case):
    def daemon(self, leader, **kwargs):
        run = leader.start("run", **kwargs)
        path = os.path.join(leader.state_dir, "daemon")

        def begun():
            if not run.running():
                return True
            try:
                with open(path, encoding="ascii") as f:
                    return f.read() == f"{run.pid}\n"
            except OSError:
                return False
        processes.wait_until(begun, 15, "the daemon began")
        return run

    def planned(self, leader, run):
        """Once a leader's first daemon has made its plan, so that time can pass for it."""
        processes.wait_until(lambda: any(k.startswith("state ") for k in self.times(leader)), 15,
                             "the daemon has planned")
        return run

    def stop(self, run, within_s=10):
        begun = time.monotonic()
        os.kill(run.pid, signal.SIGTERM)
        result = run.wait(within_s + 5)
        self.assertEqual(result.exit, 0, str(result))
        self.assertLess(time.monotonic() - begun, within_s, str(result))
        return result

    def runs(self, leader, source="db"):
        """What the catalog says: [(state, started, ended)]."""
        path = os.path.join(leader.state_dir, "catalog.db")
        if not os.path.exists(path):
            return []
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return db.execute("SELECT state, started_at, ended_at FROM runs WHERE source = ? "
                              "ORDER BY number", (source,)).fetchall()
        except sqlite3.OperationalError:
            return []  # it is just being made
        finally:
            db.close()

    @staticmethod
    def times_path(leader):
        return os.path.join(leader.state_dir, "job-times.json")

    def times(self, leader):
        try:
            with open(self.times_path(leader), encoding="utf-8") as f:
                return json.load(f)
        except OSError:
            return {}

    @staticmethod
    def freshness(leader, source="db", **kwargs):
        answer = leader.run("status", expect=None, **kwargs).json
        return next(s for s in answer["sources"] if s["name"] == source)

    def commit(self, db):
        """One transaction by an application that is gone again."""
        live = sqlite3.connect(db, isolation_level=None)
        seq, _ = bank.Hand(live, 1, self.rng).transaction(2)
        live.execute("COMMIT")
        live.close()
        return seq

    def wait_runs(self, leader, count, timeout_s=30, source="db"):
        processes.wait_until(
            lambda: len([r for r in self.runs(leader, source) if r[2]]) >= count, timeout_s,
            f"{count} runs of {source} ended")


@at_level("quick")
class TestDaemon(DaemonCase):
    def test_backs_up_by_itself_and_keeps_the_beat(self):
        db = self.bank()
        leader = self.two_workers(db, every="2s")
        run = self.daemon(leader)
        self.wait_runs(leader, 1)
        writers = self.writers(db)
        self.wait_runs(leader, 4)
        writers.close()
        result = self.stop(run)
        begun = [r[1] for r in self.runs(leader)]
        for earlier, later in zip(begun, begun[1:]):
            self.assertGreater(later - earlier, 1_500_000, str(begun))
        self.assertNotIn("failed", result.stderr)
        snapshots = leader.snapshots("db")
        self.assertGreaterEqual(len(snapshots), 2)
        self.assertGreater(bank.examine(self.restored(leader, snapshots[-1]["id"], db)).seq, 1)

    def test_second_daemon_is_refused(self):
        leader = self.two_workers(self.bank(), every="1h")
        run = self.daemon(leader)
        self.wait_runs(leader, 1)
        second = leader.run("run", expect=1)
        self.assertIn("another syncd runs", second.json["errors"][0]["message"])
        self.assertIn(str(run.pid), second.json["errors"][0]["message"])
        self.stop(run)
        self.stop(self.daemon(leader))

    def test_no_config_and_bad_config(self):
        leader = self.two_workers(self.bank(), setup=False, every="1h")
        with open(leader.conf, "a", encoding="utf-8") as f:
            f.write('evry = "5s"\n')
        self.assertIn("evry", leader.run("run", expect=2).json["errors"][0]["message"])

    def test_what_was_missed_is_caught_up_once(self):
        leader = self.two_workers(self.bank(), every="1h")
        leader.backup("db")
        machine = Machine(self)
        run = self.daemon(leader, env=machine.env)
        time.sleep(2)
        self.assertEqual(len(self.runs(leader)), 1)  # it is not due yet
        machine.sleep(9 * 3600)
        os.kill(run.pid, signal.SIGHUP)  # a reason to look at the clock
        self.wait_runs(leader, 2)
        time.sleep(2)
        self.assertEqual(len(self.runs(leader)), 2)
        self.stop(run)


class TestStop(DaemonCase):
    def test_stops_a_job_midway_and_resumes(self):
        db = self.bank(size_bytes=40 * MB)
        leader = self.two_workers(db, proxies=True, every="1h")
        for proxy in self.proxies:
            proxy.rate_bytes = 2 * MB
        run = self.daemon(leader)
        processes.wait_until(lambda: self.proxies[0].bytes_up > 3 * MB, 60, "3 MB went out")
        self.stop(run)
        self.assertEqual(processes.descendants(run.pid), [])
        for proxy in self.proxies:
            proxy.rate_bytes = 0
        run = self.daemon(leader)
        processes.wait_until(lambda: leader.snapshots("db"), 90, "a snapshot", interval_s=1)
        self.stop(run)
        leader.run("verify", "db", "--read-data")

    def test_killed_daemon_leaves_nothing_wrong(self):
        leader = self.two_workers(self.bank(size_bytes=5 * MB), every="2s")
        run = self.daemon(leader)
        self.wait_runs(leader, 1)
        os.kill(run.pid, signal.SIGKILL)
        run.wait(10)
        again = self.daemon(leader)
        count = len(self.runs(leader))
        self.wait_runs(leader, count + 1)
        self.stop(again)
        leader.run("verify", "db", "--read-data")

    def test_dead_workers_are_said_once_and_recovery_too(self):
        leader = self.two_workers(self.bank(), every="1s")
        self.w1.kill()
        self.w2.kill()
        run = self.daemon(leader)
        self.wait_runs(leader, 3)
        self.w1.start()
        self.w2.start()
        count = len(self.runs(leader))
        self.wait_runs(leader, count + 2)
        result = self.stop(run)
        self.assertEqual(result.stderr.count("backup of db failed"), 1, str(result))
        self.assertEqual(result.stderr.count("backup of db: well again"), 1, str(result))


@at_level("quick")
class TestManners(DaemonCase):
    """The databases' writers come first: niceness counts only among the threads of one session where
    the kernel shares the processors out among sessions, so the session must have it too."""

    def slow(self):
        leader = self.two_workers(self.bank(size_bytes=10 * MB), proxies=True, every="1h")
        for proxy in self.proxies:
            proxy.rate_bytes = MB
        return leader

    def wait_for_bytes(self):
        processes.wait_until(lambda: self.proxies[0].bytes_up > MB, 60, "1 MB went out")

    def assert_niceness(self, pid, own, session):
        found = processes.niceness(pid)
        self.assertEqual(found, (own, None if found[1] is None else session))

    def test_a_backup_in_a_session_of_its_own_gives_way(self):
        run = self.slow().start("backup", own_session=True)
        self.wait_for_bytes()
        quiet = max(10, processes.niceness(os.getpid())[0])
        self.assert_niceness(run.pid, quiet, quiet)
        run.kill()

    def test_a_session_of_others_is_left_as_it_is(self):
        before = processes.niceness(os.getpid())
        run = self.slow().start("backup")
        self.wait_for_bytes()
        self.assert_niceness(run.pid, max(10, before[0]), before[1])
        self.assertEqual(processes.niceness(os.getpid()), before)
        run.kill()

    def test_a_daemons_jobs_give_way_and_it_does_not(self):
        leader = self.slow()
        before = processes.niceness(os.getpid())
        run = leader.start("run", own_session=True)
        self.wait_for_bytes()
        jobs = processes.descendants(run.pid)
        self.assertTrue(jobs)
        for job in jobs:
            self.assert_niceness(job, max(10, before[0]), max(10, before[0]))
        self.assert_niceness(run.pid, before[0], max(before[0], 0))
        self.stop(run)


class TestReload(DaemonCase):
    def test_takes_over_a_good_config_whole(self):
        leader = self.two_workers(self.bank(), every="1h")
        run = self.daemon(leader)
        self.wait_runs(leader, 1)
        leader.sources["other"] = {"path": self.bank("other.sqlite"), "every": "1h"}
        leader.write_conf()
        os.kill(run.pid, signal.SIGHUP)
        self.wait_runs(leader, 1, source="other")
        self.assertEqual(len(self.runs(leader)), 1)
        self.stop(run)

    def test_keeps_the_old_one_when_the_new_is_bad(self):
        leader = self.two_workers(self.bank(), every="2s")
        run = self.daemon(leader)
        self.wait_runs(leader, 1)
        with open(leader.conf, "a", encoding="utf-8") as f:
            f.write('sorce "x" { }\n')
        os.kill(run.pid, signal.SIGHUP)
        count = len(self.runs(leader))
        self.wait_runs(leader, count + 2)  # the jobs, too, go on with the old one
        result = self.stop(run)
        self.assertIn("going on with the old one", result.stderr)
        self.assertIn("sorce", result.stderr)
        self.assertNotIn("backup of db failed", result.stderr)

    def test_source_removed_while_its_job_runs(self):
        db = self.bank(size_bytes=20 * MB)
        leader = self.two_workers(db, proxies=True, every="1h")
        other = self.bank("other.sqlite")
        for proxy in self.proxies:
            proxy.rate_bytes = 3 * MB
        run = self.daemon(leader)
        processes.wait_until(lambda: self.proxies[0].bytes_up > MB, 60, "1 MB went out")
        leader.sources = {"other": {"path": other, "every": "2s"}}
        leader.write_conf()
        os.kill(run.pid, signal.SIGHUP)
        self.wait_runs(leader, 1, source="other")
        self.wait_runs(leader, 1, 60)
        self.wait_runs(leader, 3, source="other")
        self.stop(run)


class TestUpkeep(DaemonCase):
    def test_verify_finds_damage_and_sync_mends_it(self):
        db = self.bank(size_bytes=2 * MB)
        leader = self.two_workers(db, every="1h", verify_every="3s")
        leader.backup("db")
        folder = os.path.join(self.w1.root, "leader", "db")
        part = next(n for n in sorted(os.listdir(folder)) if n.endswith((".snap", ".pack")))
        path = os.path.join(folder, part)
        with open(path, "r+b") as f:
            f.seek(5000)
            old = f.read(64)
            f.seek(5000)
            f.write(bytes(b ^ 0xff for b in old))
        run = self.daemon(leader)

        def mended():
            try:
                with open(path, "rb") as f:
                    f.seek(5000)
                    return f.read(64) == old
            except FileNotFoundError:  # between the bad one's going and the good one's coming
                return False
        processes.wait_until(mended, 60, "the damaged part was mended", interval_s=0.2)
        self.stop(run)
        leader.run("verify", "--read-data")

    def test_times_of_jobs_outlive_the_daemon(self):
        leader = self.two_workers(self.bank(), every="1h", verify_every="2s")
        run = self.daemon(leader)
        processes.wait_until(lambda: "verify db" in self.times(leader), 30, "verify began")
        self.stop(run)
        self.assertLess(abs(self.times(leader)["verify db"] - time.time()), 60)

    def test_prune_and_drill_run_by_themselves(self):
        db = self.bank()
        leader = self.two_workers(db, every="1h", drill_every="2s", keep_last=1)
        for _ in range(3):
            leader.backup("db")
            self.commit(db)
        with open(self.times_path(leader), "w", encoding="utf-8") as f:
            json.dump({"prune": int(time.time()) - 90000}, f)  # a day and an hour ago
        machine = Machine(self)
        run = self.planned(leader, self.daemon(leader, env=machine.env))
        machine.sleep(61)  # the jitter
        os.kill(run.pid, signal.SIGHUP)
        roots = [repository.of(w) for w in (self.w1, self.w2)]
        processes.wait_until(
            lambda: all(len(repository.parts(r, "db", "snap")) == 1 for r in roots), 30,
            "what retention does not keep is gone")
        processes.wait_until(
            lambda: all(w["proven_at"] for w in self.freshness(leader)["workers"]), 30,
            "a drill has proven both")
        self.stop(run)
        leader.run("verify", "--read-data")


class TestIdle(DaemonCase):
    def test_idle_costs_nothing(self):
        leader = self.two_workers(self.bank(), every="1h")
        leader.backup("db")
        run = self.daemon(leader)
        time.sleep(2)

        def numbers():
            with open(f"/proc/{run.pid}/stat", encoding="ascii") as f:
                fields = f.read().rpartition(")")[2].split()
            with open(f"/proc/{run.pid}/io", encoding="ascii") as f:
                io = dict(line.split(": ") for line in f.read().splitlines())
            with open(f"/proc/{run.pid}/status", encoding="ascii") as f:
                text = f.read()
            anonymous_kb = int(text.partition("RssAnon:")[2].split()[0])
            return int(fields[11]) + int(fields[12]), int(io["write_bytes"]), anonymous_kb
        before = numbers()
        time.sleep(10)
        after = numbers()
        self.stop(run)
        self.assertLessEqual(after[0] - before[0], 1)  # 1 tick of 1000
        self.assertEqual(after[1], before[1])
        self.assertLess(after[2], 4096)
