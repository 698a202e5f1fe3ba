"""What goes wrong with a PostgreSQL source: a clear line, no snapshot, earlier ones as they were."""

import os
import signal
import subprocess

from harness import processes
from test_postgres import SCRIPT, PostgresCase

BIG = SCRIPT + """
    CREATE TABLE replicator.big AS SELECT n, md5(n::text) AS a FROM generate_series(1, 200000) n;
"""


class TestTrouble(PostgresCase):
    def fails(self, leader, word, code=None, env=None):
        """A backup fails with one clear error, and leaves what was there."""
        before = sorted(self.stored())
        result = leader.run("backup", expect=1, env=env)
        error = result.json["errors"][0]
        self.assertIn(word, error["message"] + " " + (error["hint"] or ""))
        self.assertIsNone(result.json["sources"][0]["snapshot"])
        self.assertEqual(sorted(self.stored()), before)
        if code:
            self.assertEqual(error["code"], code, error)
        return error

    def stored(self):
        return [n for n in os.listdir(self.path("w1", "piri")) if n.endswith(".snap")]

    def test_what_is_wrong_from_the_start(self):
        server = self.server()
        server.create("piri", SCRIPT + "CREATE ROLE asked LOGIN PASSWORD 'right'; CREATE SCHEMA own;"
                                       "CREATE TABLE own.secret (a int);"
                                       "CREATE ROLE little LOGIN;"
                                       "GRANT USAGE ON SCHEMA replicator, own TO little;"
                                       "GRANT SELECT ON ALL TABLES IN SCHEMA replicator TO little;"
                                       "GRANT SELECT ON ALL SEQUENCES IN SCHEMA replicator TO little;")
        leader = self.house(server)
        leader.backup()
        source = leader.sources["piri"]

        def with_(**settings):
            leader.sources["piri"] = {**source, **settings}
            leader.write_conf()
        with_(schemas=["replicator", "nobody"])
        error = self.fails(leader, "there is no schema nobody", "not-found")
        self.assertIn("replicator", error["hint"])
        self.assertIn("no schema nobody", leader.run("check", expect=1).stdout)
        with_(postgres=server.conninfo("piri", "little"), schemas=["replicator", "own"])
        error = self.fails(leader, "permission denied", "permission")
        self.assertIn("pg_read_all_data", error["hint"])
        self.assertIn("may not read own.secret", leader.run("check", expect=1).stdout)
        with_(postgres=server.conninfo("nowhere"))
        self.fails(leader, "does not exist", "not-found")
        passfile = self.path("passfile")
        for word in ("wrong", "right"):
            with open(passfile, "w", encoding="ascii") as f:
                os.chmod(passfile, 0o600)
                f.write(f"*:*:*:asked:{word}\n")
            with_(postgres=server.conninfo("piri", "asked", passfile=passfile))
            if word == "wrong":
                self.fails(leader, "password", "auth")
        server.sql("piri", "GRANT pg_read_all_data TO asked")
        self.assertTrue(leader.backup()["complete"])
        with_()
        none = self.new_folder()
        self.fails(leader, "pg_dump is not installed", "not-found", env={"PATH": none})
        self.fails(leader, "is of PostgreSQL 9", "version", env=self.wrapper(
            "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.1'\n"))
        server.stop()
        self.fails(leader, "does not answer", "connect")
        self.assertIn("does not answer", leader.run("check", expect=1).stdout)

    def test_cut_in_the_middle(self):
        """pg_dump, the server and syncd are killed, and a pg_dump that fails after all its bytes."""
        server = self.server()
        server.create("piri", BIG)
        leader = self.house(server)
        real = server.program("pg_dump")
        slow = ('case "$*" in --version) exec %s --version;; esac\n' % real)
        # Half a dump, then the program dies.
        self.assertEqual(leader.run("backup", expect=1, env=self.wrapper(
            "pg_dump", slow + f"{real} \"$@\" | head -c 3000000\nkill -9 $$\n")).json["errors"][0]
            ["message"].count("ended by signal 9"), 1)
        self.assertEqual(self.stored(), [])
        self.fails(leader, "failed (exit 1): no luck", env=self.wrapper(
            "pg_dump", slow + f"{real} \"$@\"\necho 'pg_dump: error: no luck' >&2\nexit 1\n"))
        self.fails(leader, "no whole archive", "damaged", env=self.wrapper(
            "pg_dump", slow + f"{real} \"$@\" | head -c 3000000\nexit 0\n"))
        # The dump stands in the middle until it is told to go on.
        gate = self.path("gate")
        halting = self.wrapper("pg_dump", slow + f"{real} \"$@\" | (head -c 3000000; touch {gate}; "
                                                 "sleep 60; cat)\n")
        run = leader.start("backup", env=halting)
        processes.wait_until(lambda: os.path.exists(gate), 60, "the dump did not begin")
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        self.assertEqual(self.stored(), [])
        first = leader.backup()
        self.assertTrue(first["complete"])
        crashing = self.wrapper("pg_dump", slow + f"{real} \"$@\" | (head -c 3000000; "
                                f"kill -9 {server.process.pid}; cat)\nexit 1\n")
        server.sql("piri", "SELECT nextval('replicator.jobs_id_seq')")
        self.assertIn("its log says why", self.fails(leader, "pg_dump failed", env=crashing)["hint"])
        server.crash()
        server.start()
        self.assertFalse(leader.backup()["unchanged"])
        leader.run("verify", "--read-data")
        server.create("copy")
        leader.run("restore", "--to", server.conninfo("copy"))
        self.assertEqual(server.dump("copy"), server.dump("piri"))

    def test_locks(self):
        """A lock of another's that we cannot get; and another who waits for ours is told of."""
        server = self.server()
        server.create("piri", BIG)
        leader = self.house(server)
        leader.backup()
        real = server.program("pg_dump")
        hasty = self.wrapper("pg_dump", f"exec {real} \"$@\" --lock-wait-timeout=500\n")
        server.sql("piri", "SELECT nextval('replicator.jobs_id_seq')")
        with server.holding("piri", "LOCK TABLE scheduler.tasks IN ACCESS EXCLUSIVE MODE"):
            self.fails(leader, "lock", "busy", env=hasty)
        server.sql("piri", "SELECT nextval('replicator.jobs_id_seq')")
        gate = self.path("gate")
        halting = self.wrapper("pg_dump", f'case "$*" in --version) exec {real} --version;; esac\n'
                               f"{real} \"$@\" --schema-only > /dev/null\n"
                               f"{real} \"$@\" -v 2> {gate} | (sleep 4; cat)\n")
        run = leader.start("backup", env=halting)
        processes.wait_until(lambda: os.path.exists(gate) and "dumping contents" in
                             open(gate, encoding="utf-8").read(), 60, "the dump did not begin")
        altering = processes.start(server.argv("psql", "piri", "-c",
                                               "ALTER TABLE replicator.jobs ADD extra int"))
        result = run.wait()
        self.assertEqual(altering.wait(30), 0)
        self.assertEqual(result.exit, 0, result)
        self.assertIn("ALTER TABLE replicator.jobs", result.stderr)

    def test_a_full_worker(self):
        server = self.server()
        server.create("piri", BIG)
        leader = self.house(server)
        leader.backup()
        server.sql("piri", "UPDATE replicator.big SET a = md5(a)")
        leader.workers[0].settings["min_free"] = "1000G"
        leader.write_conf()
        self.fails(leader, "w1")

    def test_no_room_in_the_middle(self):
        """A worker's disk is full while the dump streams; the earlier snapshot comes back from it."""
        if os.geteuid() != 0:
            self.skipTest("needs root: mounts a small tmpfs")
        server = self.server()
        server.create("piri", BIG)
        os.mkdir(self.path("w1"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "none", self.path("w1")], check=True)
        self.addCleanup(subprocess.run, ["umount", self.path("w1")], check=True)
        leader = self.house(server)
        leader.workers[0].settings["min_free"] = "0"
        leader.write_conf()
        leader.backup()
        before = server.dump("piri")
        server.sql("piri", "UPDATE replicator.big SET a = md5(a) || md5(n::text)")
        self.fails(leader, "space", "no-space")
        server.create("copy")
        leader.run("restore", "--to", server.conninfo("copy"))
        self.assertEqual(server.dump("copy"), before)
        leader.run("verify", "--read-data")

    def test_what_check_says_of_drills(self):
        """What a drill would stumble over tonight is said by check, which changes nothing."""
        server = self.server()
        server.create("piri", SCRIPT + "CREATE ROLE little LOGIN; CREATE ROLE owner;"
                                       "ALTER TABLE replicator.jobs OWNER TO owner;")
        server.create("scratch")
        leader = self.house(server)
        real = {n: server.program(n) for n in ("pg_dump", "pg_restore")}

        def check(word, exit_code, env=None, **settings):
            leader.sources["piri"] = {"postgres": server.conninfo("piri"), "max_age": "1h", **settings}
            leader.write_conf()
            self.assertIn(word, leader.run("check", expect=exit_code, env=env).stdout)
        scratch = {"drill_database": server.conninfo("scratch")}
        check("drill_database is there for a drill", 0, **scratch)
        check("drill_database is there for a drill", 0, drill_database=server.conninfo("postgres"))
        check("does not exist", 1, drill_database=server.conninfo("nowhere"))
        check("may not create schemas in scratch", 1,
              drill_database=server.conninfo("scratch", "little"))
        check("may not create databases at postgres", 1,
              drill_database=server.conninfo("postgres", "little"))
        self.assertEqual(server.sql("postgres", "SELECT count(*) FROM pg_database"), "5")
        server.sql("scratch", "CREATE TABLE mine (a int)")
        check("scratch is not empty", 1, **scratch)
        check("A drill needs an empty database", 1, **scratch)
        server.sql("scratch", "DROP TABLE mine")
        check("does not answer", 1, drill_database="host=/nonexistent dbname=x user=y")
        other = self.server()
        other.create("scratch")
        check("role owner", 1, drill_database=other.conninfo("scratch"))
        other.sql("postgres", "CREATE ROLE owner")
        check("drill_database is there for a drill", 0, drill_database=other.conninfo("scratch"))
        older = self.wrapper("pg_restore", "echo 'pg_restore (PostgreSQL) 9.6.1'\n")
        check("drills fail: pg_restore is of PostgreSQL 9", 1, env=older, **scratch)
        check("drills only count rows", 3, env=older)
        alone = self.new_folder()
        os.symlink(real["pg_dump"], os.path.join(alone, "pg_dump"))
        check("pg_restore is not installed", 3, env={"PATH": alone})

    def test_drill(self):
        """pg_restore lists the stored dump; drill_database takes it, and is empty afterwards."""
        server = self.server()
        server.create("piri", SCRIPT)
        server.create("scratch")
        leader = self.house(server, drill_database=server.conninfo("scratch"))
        leader.backup()
        drill = leader.run("verify", "--drill").json["drills"][0]
        self.assertTrue(drill["proven"])
        self.assertEqual((drill["dumps_listed"], drill["dump_restored"], drill["rows"]),
                         (1, True, 750))
        self.assertEqual(server.sql("scratch", "SELECT to_regnamespace('replicator') IS NULL"), "t")
        server.sql("scratch", "CREATE TABLE mine (a int)")
        refused = leader.run("verify", "--drill", expect=None)
        self.assertFalse(refused.json["drills"][0]["proven"])
        self.assertIn("is not empty", refused.stdout)
        self.assertIn("A drill needs an empty database", refused.stdout)
        self.assertIn("is whole, but not restored into drill_database", refused.stdout)
        self.assertNotIn("comes back from no worker", refused.stdout)
        self.assertEqual(server.sql("scratch", "SELECT count(*) FROM mine"), "0")
