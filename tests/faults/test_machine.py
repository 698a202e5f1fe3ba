"""The leader's own troubles: its clock, its disk, its sleep. tests/faults/machine.c rules over them
while the daemon runs."""

import errno
import json
import os
import signal
import socket
import time

from harness import bank, processes, repository
from harness.case import at_level
from harness.leader import Worker
from harness.machine import Machine
from harness.notify import Notify
from test_daemon import DaemonCase

MB = 1_000_000
DAY = 86400


class MachineCase(DaemonCase):
    def begin(self, leader, **state):
        """The daemon on a machine in this state."""
        self.machine = Machine(self)
        self.machine.set(**state)
        return self.planned(leader, self.daemon(leader, env=self.machine.env))

    def run_on(self, leader, *args, **kwargs):
        return leader.run(*args, env=self.machine.env, **kwargs)

    def nudge(self, run):
        """A reason to look at the clock now and not within a minute."""
        os.kill(run.pid, signal.SIGHUP)

    def count(self, leader, source="db"):
        return len([r for r in self.runs(leader, source) if r[2]])

    def wait_idle(self, run):
        """Until the job that has just shown its work has ended, and the daemon knows."""
        processes.wait_until(lambda: not processes.descendants(run.pid), 10, "the job has ended")

    def pass_time(self, run, leader, within_s=1.5):
        """Lets the daemon see the time, and waits for the backup that may follow from that: whether
        one has ended."""
        before = self.count(leader)
        self.nudge(run)
        try:
            self.wait_runs(leader, before + 1, within_s)
        except TimeoutError:
            return False
        return True


class TestClock(MachineCase):
    def test_a_clock_that_is_not_set_is_waited_for(self):
        leader = self.two_workers(self.bank(), every="1h")
        leader.backup("db")
        run = self.begin(leader, wall_s=-400 * DAY)
        time.sleep(2.5)
        self.assertEqual(self.count(leader), 1)
        self.machine.set(wall_s=7200)
        for minute in range(10):  # until the daemon has seen that, and then the jitter
            self.machine.set(elapsed_s=61 * minute)
            if self.pass_time(run, leader):
                break
        self.assertEqual(self.count(leader), 2)
        self.assertTrue(all(r[1] > time.time() * 1e6 for r in self.runs(leader)[1:]))
        result = self.stop(run)
        self.assertEqual(result.stderr.count("waiting up to five minutes"), 1, str(result))
        self.assertIn("clock is set now", result.stderr)
        self.assertNotIn("doubtful", result.stderr)

    def test_check_says_so(self):
        leader = self.two_workers(self.bank(), every="1h")
        self.machine = Machine(self)
        self.assertNotIn("doubtful", str(self.run_on(leader, "check", expect=(0, 3)).json))
        self.machine.set(wall_s=-400 * DAY)
        self.assertIn("doubtful", str(self.run_on(leader, "check", expect=(1, 3)).json))

    def test_after_five_minutes_times_are_doubtful(self):
        leader = self.two_workers(self.bank(), every="2s")
        leader.backup("db")
        run = self.begin(leader, wall_s=-400 * DAY)
        time.sleep(1)
        self.assertEqual(self.count(leader), 1)
        self.machine.set(elapsed_s=301)
        self.nudge(run)
        self.wait_runs(leader, 2, 10)
        source = self.run_on(leader, "backup", expect=0).json["sources"][0]
        self.assertTrue(source["clock_doubtful"])
        self.machine.set(wall_s=0)
        self.wait_runs(leader, self.count(leader) + 2)
        status = self.freshness(leader, env=self.machine.env)
        self.assertEqual((status["clock_doubtful"], status["state"]), (False, "fresh"))
        result = self.stop(run)
        self.assertEqual(result.stderr.count("doubtful"), 1, str(result))
        self.assertEqual(result.stderr.count("clock is set now"), 1, str(result))

    def test_set_back_a_day_while_it_runs(self):
        """What was stored tomorrow is not believed, and backups go on."""
        db = self.bank()
        leader = self.two_workers(db, every="2s")
        run = self.begin(leader, wall_s=DAY + 60)
        self.wait_runs(leader, 1)
        self.w1.kill()
        self.w2.kill()
        self.machine.set(wall_s=0)
        self.nudge(run)
        status = self.freshness(leader, env=self.machine.env)
        self.assertEqual((status["state"], status["clock_doubtful"]), ("clock", True))
        self.w1.start()
        self.w2.start()
        self.commit(db)
        self.wait_runs(leader, self.count(leader) + 3)
        status = self.freshness(leader, env=self.machine.env)
        self.assertEqual((status["state"], status["clock_doubtful"]), ("fresh", False))
        self.assertLess(abs(self.seconds(status["as_of"]) - time.time()), 60)
        self.stop(run)

    @staticmethod
    def seconds(text):
        import datetime
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class TestAway(MachineCase):
    def wear_out_retries(self, run, leader):
        """Until the backup is not tried again before its next regular time."""
        idle = 0
        for _ in range(20):
            self.machine.sleep(330)
            idle = 0 if self.pass_time(run, leader) else idle + 1
            if idle == 2:
                return
        self.fail("the backup is tried again for ever")

    def same(self):
        one, other = ([p.name for p in repository.parts(repository.of(w))]
                      for w in (self.w1, self.w2))
        return one == other

    def test_worker_that_is_away_at_each_backup_is_brought_level(self):
        db = self.bank()
        leader = self.two_workers(db, every="1d")
        leader.backup("db")
        run = self.begin(leader)
        for _ in range(2):
            self.commit(db)
            self.w2.kill()
            before = self.count(leader)
            self.machine.sleep(DAY + 120)  # and the jitter
            self.nudge(run)
            self.wait_runs(leader, before + 1)
            self.wear_out_retries(run, leader)
            self.assertFalse(self.same())
            before = self.count(leader)
            self.w2.start()
            for _ in range(5):  # sync is tried at least every 36 minutes
                self.machine.sleep(2200)
                self.nudge(run)
                try:
                    processes.wait_until(self.same, 5, "both hold the same")
                    break
                except TimeoutError:
                    pass
            self.assertTrue(self.same())
            self.assertEqual(self.count(leader), before)
        self.stop(run)
        leader.run("verify", "--read-data")

    @at_level("quick")
    def test_both_away_for_a_week(self):
        db = self.bank()
        leader = self.two_workers(db, every="1h", max_age="2h")
        run = self.begin(leader)
        self.wait_runs(leader, 1)
        self.w1.kill()
        self.w2.kill()
        for _ in range(7 * 4):
            self.machine.sleep(6 * 3600)
            before = self.count(leader)
            self.nudge(run)
            self.wait_runs(leader, before + 1)
        status = self.freshness(leader, env=self.machine.env)
        self.assertEqual(status["state"], "stale")
        self.assertEqual(status["last_result"], "failed")
        self.assertEqual([w["state"] for w in status["workers"]], ["stale", "stale"])
        self.w1.start()
        self.w2.start()
        seq = self.commit(db)
        before = self.count(leader)
        self.machine.sleep(6 * 3600)
        self.nudge(run)
        self.wait_runs(leader, before + 1)
        self.wait_idle(run)
        result = self.stop(run)
        self.assertEqual(self.runs(leader)[-1][0], 1)  # RUN_OK
        self.assertEqual(result.stderr.count("backup of db failed"), 1, str(result))
        self.assertEqual(result.stderr.count("backup of db: well again"), 1, str(result))
        snapshot = leader.snapshots("db")[-1]
        self.assertEqual(snapshot["workers"], ["w1", "w2"])
        self.assertEqual(bank.examine(self.restored(leader, snapshot["id"], db)).seq, seq)


class TestChange(MachineCase):
    def test_on_change_hears_of_what_happened_while_no_daemon_ran(self):
        changes, script = self.path("changes"), self.path("on-change")
        with open(script, "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\necho "$SYNCD_STATE" >>{changes}\n')
        os.chmod(script, 0o755)
        leader = self.two_workers(self.bank(), every="1h", on_change=[script])
        run = self.begin(leader)
        self.wait_runs(leader, 1)

        def told(*words):
            def as_told():
                with open(changes, encoding="ascii") as f:
                    return tuple(f.read().split()) == words
            processes.wait_until(lambda: os.path.exists(changes) and as_told(), 10, str(words))
        told("fresh")
        self.stop(run)
        self.w1.kill()
        self.w2.kill()
        self.machine.sleep(2 * 3600)
        run = self.daemon(leader, env=self.machine.env)
        told("fresh", "stale")
        self.stop(run)
        run = self.daemon(leader, env=self.machine.env)
        time.sleep(1)
        self.stop(run)
        told("fresh", "stale")


class TestDisk(MachineCase):
    def house(self, **source):
        self.db = self.bank(size_bytes=4 * MB)
        leader = self.two_workers(self.db, **source)
        leader.backup("db")
        self.machine = Machine(self)
        return leader

    def assert_increment(self, leader, source, env=None):
        """A small change travels small, is on both workers, and comes back."""
        self.assertTrue(all(w["stored"] for w in source["workers"]), str(source))
        self.assertLess(source["bytes_sent"], MB, str(source))
        self.assertEqual(bank.examine(self.restored(leader, source["snapshot"], self.db)).seq,
                         self.seq)

    def backup(self, leader):
        self.seq = self.commit(self.db)
        return leader.backup("db", env=self.machine.env)

    @at_level("quick")
    def test_state_dir_full_or_read_only(self):
        leader = self.house(every="1h")
        for trouble in (errno.ENOSPC, errno.EROFS):
            with self.subTest(errno.errorcode[trouble]):
                before = self.runs(leader)
                self.machine.set(disk_errno=trouble, disk_under=leader.state_dir)
                for _ in range(2):
                    source = self.backup(leader)
                    self.assert_increment(leader, source)
                    self.assertIn("without its record", str(source["result"].json["errors"]))
                self.assertEqual(self.runs(leader), before)
                status = self.freshness(leader, env=self.machine.env)
                self.assertLessEqual(status["as_of"], source["as_of"])
                self.machine.set(disk_errno=0)
                source = self.backup(leader)
                self.assert_increment(leader, source)
                self.assertEqual(source["result"].json["errors"], [])
                self.assertEqual(len(self.runs(leader)), len(before) + 1)

    def test_state_dir_full_with_one_worker(self):
        """What the catalog could not note is known all the same: nothing travels twice."""
        leader = self.house(every="1h")
        del leader.workers[1]
        leader.write_conf()
        self.machine.set(disk_errno=errno.ENOSPC, disk_under=leader.state_dir)
        for _ in range(3):
            self.assert_increment(leader, self.backup(leader))
        self.machine.set(disk_errno=0)
        self.assert_increment(leader, self.backup(leader))

    def test_no_catalog_and_no_room_for_one(self):
        leader = self.house(every="1h")
        os.unlink(os.path.join(leader.state_dir, "catalog.db"))
        self.machine.set(disk_errno=errno.ENOSPC, disk_under=leader.state_dir)
        self.assert_increment(leader, self.backup(leader))

    def test_memory_full(self):
        leader = self.house(every="1h")
        self.machine.set(disk_errno=errno.ENOSPC, disk_under=leader.run_dir)
        source = self.backup(leader)
        self.assert_increment(leader, source)
        self.machine.set(disk_errno=0)
        self.assert_increment(leader, self.backup(leader))

    def test_daemon_on_a_full_disk(self):
        db = self.bank()
        leader = self.two_workers(db, every="2s", max_age="1h")
        leader.backup("db")
        run = self.begin(leader)
        self.machine.set(disk_errno=errno.ENOSPC, disk_under=leader.state_dir)
        roots = [repository.of(w) for w in (self.w1, self.w2)]
        before = {p.id for p in repository.parts(roots[0], "db", "snap")}
        self.commit(db)
        processes.wait_until(
            lambda: all({p.id for p in repository.parts(r, "db", "snap")} > before for r in roots),
            20, "a backup on the full disk")
        self.wait_idle(run)
        self.machine.set(disk_errno=0)
        self.wait_runs(leader, self.count(leader) + 2)
        result = self.stop(run)
        self.assertEqual(result.stderr.count("is done, but"), 1, str(result))
        self.assertEqual(result.stderr.count("well again"), 1, str(result))
        self.assertEqual(self.freshness(leader)["state"], "fresh")


    def test_daemon_starts_on_a_read_only_disk(self):
        db = self.bank()
        leader = self.two_workers(db, every="2s", max_age="1h")
        leader.backup("db")
        self.stop(self.daemon(leader))
        self.commit(db)
        self.machine = Machine(self)
        self.machine.set(disk_errno=errno.EROFS, disk_under=leader.state_dir)
        run = leader.start("run", env=self.machine.env)
        before = {p.id for p in repository.parts(repository.of(self.w1), "db", "snap")}
        processes.wait_until(
            lambda: {p.id for p in repository.parts(repository.of(self.w1), "db", "snap")} > before,
            20, "a backup on the read-only disk")
        self.wait_idle(run)
        self.machine.set(disk_errno=0)
        self.wait_runs(leader, self.count(leader) + 2)
        self.stop(run)
        self.assertEqual(self.freshness(leader)["state"], "fresh")


@at_level("quick")
class TestRoom(MachineCase):
    def test_worker_below_min_free_is_pruned_then_refused(self):
        db = self.bank(size_bytes=MB)
        root = os.path.join(self.new_folder("/dev/shm"), "leader")
        leader = self.leader([Worker("usb", f"file://{root}")], {"db": {"path": db}})
        leader.run("setup")
        leader.backup("db")
        self.machine = Machine(self)
        dropped = os.path.join(root, "db", f"0001-00000000-20200101T000000Z-{'0' * 64}.del")
        with open(dropped, "wb") as f:
            f.truncate(10 * MB)
        used = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(root)
                   for name in names)
        self.machine.set(disk_under=root, disk_bytes=used + MB // 2)  # min_free is 1M
        self.commit(db)
        source = leader.backup("db", env=self.machine.env)
        self.assertTrue(source["workers"][0]["stored"], str(source))
        self.assertFalse(os.path.exists(dropped))
        self.machine.set(disk_bytes=MB // 2)
        self.commit(db)
        refused = leader.backup("db", expect=1, env=self.machine.env)
        self.assertIn("min_free", refused["result"].json["errors"][0]["message"])
        self.assertEqual(leader.snapshots("db")[-1]["id"], source["snapshot"])
        self.machine.set(disk_bytes=0)
        leader.backup("db", env=self.machine.env)


class TestHungFolder(MachineCase):
    """A worker that is a folder, on a file system that does not answer any more."""

    def house(self, size_bytes):
        self.db = self.bank(size_bytes=size_bytes)
        self.root = os.path.join(self.new_folder("/dev/shm"), "leader")
        self.w1 = self.sshd("w1")
        self.proxy1 = self.proxy(self.w1)
        leader = self.leader([Worker.of(self.w1, self.proxy1), Worker("nas", f"file://{self.root}")],
                             {"db": {"path": self.db, "max_age": "1h"}}, authorize=(self.w1,))
        leader.run("setup")
        self.machine = Machine(self)
        return leader

    def assert_only_the_nas_is_missing(self, leader, result):
        source = result.json["sources"][0]
        self.assertEqual([w["stored"] for w in source["workers"]], [True, False], str(result))
        self.assertTrue(source["workers"][1]["error"])
        self.machine.set(disk_hangs=False)
        status = self.freshness(leader)
        self.assertEqual([w["state"] for w in status["workers"]], ["fresh", "never"])
        self.assertEqual(self.runs(leader)[-1][0], 3)  # RUN_PARTIAL
        again = leader.backup("db")
        self.assertTrue(all(w["stored"] for w in again["workers"]), str(again))
        leader.run("verify", "--read-data")

    def test_from_the_beginning(self):
        leader = self.house(MB)
        self.machine.set(disk_hangs=True, disk_under=self.root)
        result = self.run_on(leader, "backup", expect=3, timeout_s=60)
        self.assertLess(result.duration_s, 45)
        self.assert_only_the_nas_is_missing(leader, result)

    @at_level("long")
    def test_in_the_middle(self):
        leader = self.house(30 * MB)
        self.proxy1.rate_bytes = 5 * MB
        run = leader.start("backup", env=self.machine.env, json_output=True)
        tmp = os.path.join(self.root, "tmp")
        processes.wait_until(lambda: any(os.path.getsize(os.path.join(tmp, n)) > MB
                                         for n in os.listdir(tmp)), 30, "1 MB is on the way")
        self.machine.set(disk_hangs=True, disk_under=self.root)
        result = run.wait(90)
        result.json = json.loads(result.stdout)
        self.assertEqual(result.exit, 3, str(result))
        self.assert_only_the_nas_is_missing(leader, result)


class HungCase(MachineCase):
    @staticmethod
    def hang_a_job(run):
        """A job of the daemon does nothing any more, and does not hear SIGTERM."""
        def stopped():
            for pid in processes.descendants(run.pid):
                try:
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.05)
                    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                        return f.read().rpartition(")")[2].split()[0] == "T"
                except OSError:
                    pass  # it has just ended
            return False
        processes.wait_until(stopped, 20, "a job is stopped in the middle")


class TestHung(HungCase):
    def test_stops_within_10_s_beside_a_job_that_hangs(self):
        leader = self.two_workers(self.bank(), every="1s")
        run = self.daemon(leader)
        self.wait_runs(leader, 1)
        self.hang_a_job(run)
        self.stop(run, within_s=10)
        self.assertEqual(processes.descendants(run.pid), [])
        self.stop(self.daemon(leader))
        leader.backup("db")
        leader.run("verify", "--read-data")


class TestSystemd(HungCase):
    def test_watchdog_is_not_fed_while_a_job_hangs(self):
        db = self.bank()
        leader = self.two_workers(db, every="1s", hook_timeout="1s")
        notify = Notify(self)
        self.machine = Machine(self)
        run = self.daemon(leader, env={**notify.env, "WATCHDOG_USEC": "500000"})
        self.wait_runs(leader, 2)
        self.assertTrue(notify.has("READY=1"))

        self.hang_a_job(run)
        # 1.5 s of quiet and a hook's 1 s; SIGTERM is of no use, SIGKILL comes 6 s later.
        processes.wait_until(lambda: notify.silence_s("WATCHDOG=1") > 3, 20, "the watchdog starves")
        count = self.count(leader)
        self.wait_runs(leader, count + 2)
        processes.wait_until(lambda: notify.silence_s("WATCHDOG=1") < 0.5, 10, "it is fed again")
        result = self.stop(run)
        self.assertGreaterEqual(result.stderr.count("hangs: stopping it"), 1, str(result))
        self.assertTrue(notify.has("STOPPING=1"))

    def test_journal_gets_fields(self):
        leader = self.two_workers(self.bank(), every="1s")
        self.w1.kill()
        self.w2.kill()
        journal = self.path("journal")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(journal)
            s.settimeout(20)
            self.machine = Machine(self)
            self.machine.set(journal=journal)
            # Our stderr is a pipe: the kernel tells its name as it tells the journal's.
            script = ('exec 2>"$0.log"; JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) '
                      'exec "$@"')
            run = leader.start("run", env=self.machine.env,
                               prefix=("sh", "-c", script, self.path("stderr")))
            wanted = {"MESSAGE=backup of db failed", "SYNCD_SOURCE=db", "SYNCD_JOB=backup",
                      "PRIORITY=4", "SYSLOG_IDENTIFIER=syncd"}
            while True:
                lines = s.recv(65536).decode().splitlines()
                if all(any(line.startswith(w) for line in lines) for w in wanted):
                    break
            os.kill(run.pid, signal.SIGTERM)
            self.assertEqual(run.wait(15).exit, 0)
