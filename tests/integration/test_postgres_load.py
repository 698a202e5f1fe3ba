"""Backups of a database that is written to all the time, across its schemas, and every one of them
restored: what holds between the tables holds in each copy."""

import os
import subprocess

from harness import contract, processes
from harness.case import at_level, by_level
from harness.leader import has_sanitizer
from harness.postgres import plain
from test_postgres import PostgresCase

SCHEMAS = ("replicator", "scheduler", "aggregator", "egress_tracker")

# A job goes through the four schemas' queues; what each has done is counted by a trigger. The sum
# over all queues is the number of jobs that were made, in every committed state.
HOUSE = "".join(f"""
CREATE SCHEMA {s};
CREATE SEQUENCE {s}.tickets;
CREATE TABLE {s}.queue (job bigint PRIMARY KEY, ticket bigint NOT NULL DEFAULT nextval('{s}.tickets'),
                        at timestamptz DEFAULT now(), payload text);
CREATE TABLE {s}.seen (id int PRIMARY KEY DEFAULT 1, entered bigint DEFAULT 0, gone bigint DEFAULT 0);
INSERT INTO {s}.seen DEFAULT VALUES;
CREATE FUNCTION {s}.count() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
  UPDATE {s}.seen SET entered = entered + (TG_OP = 'INSERT')::int, gone = gone + (TG_OP = 'DELETE')::int;
  RETURN NULL; END $f$;
CREATE TRIGGER counting AFTER INSERT OR DELETE ON {s}.queue FOR EACH ROW EXECUTE FUNCTION {s}.count();
""" for s in SCHEMAS) + """
CREATE TABLE replicator.made (id bigserial PRIMARY KEY);
INSERT INTO replicator.queue (job, payload)
    SELECT n, repeat(md5(n::text), 20) FROM generate_series(-3000, -1) n;
"""

WRITER = "".join(f"""
SELECT setseed(random());
BEGIN;
INSERT INTO replicator.made DEFAULT VALUES;
INSERT INTO replicator.queue (job, payload) SELECT max(id), md5(random()::text) FROM replicator.made;
COMMIT;
BEGIN;
WITH moved AS (DELETE FROM {a}.queue WHERE job IN (SELECT job FROM {a}.queue ORDER BY random() LIMIT 3)
               RETURNING job, payload) INSERT INTO {b}.queue (job, payload) SELECT * FROM moved;
COMMIT;
""" for a, b in zip(SCHEMAS, SCHEMAS[1:] + SCHEMAS[:1]))

INVARIANT = ("SELECT " + " + ".join(f"(SELECT count(*) FROM {s}.queue)" for s in SCHEMAS)
             + " - 3000 - (SELECT count(*) FROM replicator.made)" + "".join(
                 f", (SELECT count(*) FROM {s}.queue) - (SELECT entered - gone FROM {s}.seen)"
                 for s in SCHEMAS)
             + "".join(f", (SELECT coalesce(max(ticket), 0) FROM {s}.queue) >= "
                       f"nextval('{s}.tickets')" for s in SCHEMAS))


def without_sequences(text):
    """Sequences are in no snapshot: a dump has them a little later than its rows."""
    return "\n".join(line for line in text.splitlines() if "pg_catalog.setval" not in line)


class TestScattered(PostgresCase):
    @at_level("default", timeout_s=600)
    def test_a_dump_in_many_pieces(self):
        """Rows all over a table change again and again, until its dump lies in a hundred thousand
        pieces: all comes back, in memory that does not grow with them."""
        server = self.server(shared_buffers="256MB")
        server.create("piri", "CREATE TABLE big AS SELECT n, 0 AS round, md5(n::text) || md5(n::text)"
                              " AS a FROM generate_series(1, 1000000) n;")
        leader = self.house(server)
        peaks = {}

        def peak(*args):
            result = leader.start(*args, json_output=True).wait(300)
            self.assertEqual(result.exit, 0, result)
            peaks[" ".join(args[:2]) + f" {len(peaks)}"] = result.peak_kb
            return result
        for number in range(6):
            peak("backup")
            server.sql("piri", f"UPDATE big SET round = round + 1 WHERE hashint4(n + {number}) % 10 = 0")
        pages = leader.backup()
        expected = server.dump("piri")
        server.create("copy")
        peak("restore", "--to", server.conninfo("copy"))
        self.assertEqual(server.dump("copy"), expected)
        out = self.path("whole.dump")
        peak("restore", "--output", out)
        made = subprocess.run([server.program("pg_restore"), "-f", "-", out], check=True, timeout=300,
                              capture_output=True, text=True).stdout
        self.assertEqual(plain(made), expected)
        self.assertTrue(contract.check_json("verify", peak("verify", "--drill"))["drills"][0]["proven"])
        peak("diff", "latest", "latest")
        self.assertTrue(pages["complete"])
        if not has_sanitizer():
            self.assertLess(max(peaks.values()), 24 * 1024, peaks)


class TestLoad(PostgresCase):
    @at_level("default", timeout_s=900)
    def test_each_copy_is_one_moment(self):
        server = self.server()
        server.create("piri", HOUSE)
        leader = self.house(server, schemas=list(SCHEMAS))
        # What pg_dump itself says in plain text of the same exported snapshot.
        oracle = self.path("oracle.sql")
        real = server.program("pg_dump")
        env = self.wrapper("pg_dump", f'case "$*" in --version) exec {real} --version;; esac\n'
                           f'{real} "$@" --format=plain > {oracle} || exit 1\nexec {real} "$@"\n')
        script = self.path("writer.sql")
        with open(script, "w", encoding="ascii") as f:
            f.write(WRITER)
        os.chmod(self.folder, 0o755)
        writer = processes.start([server.program("pgbench"), "-h", server.folder, "-U", "boss", "-n",
                                  "-c", "2", "-R", "40", "-T", "600", "-f", script, "piri"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(processes.kill_tree, writer)
        made = []
        for number in range(by_level(2, 5, 20)):
            taken = leader.backup(env=env)
            self.assertFalse(taken["unchanged"])
            copy = f"copy{number}"
            server.sql("postgres", f"CREATE DATABASE {copy}")
            done = leader.run("restore", "--snapshot", taken["snapshot"], "--to",
                              server.conninfo(copy)).json["files"][0]
            with open(oracle, encoding="utf-8") as f:
                self.assertEqual(without_sequences(server.dump(copy)),
                                 without_sequences(plain(f.read())))
            self.assertEqual(server.sql(copy, INVARIANT), "|".join(["0"] * 5 + ["f"] * 4))
            made.append(done["rows"])
            server.sql("postgres", f"DROP DATABASE {copy}")
        self.assertIsNone(writer.poll(), "the writer has ended")
        self.assertEqual(made, sorted(made))
        self.assertLess(made[0], made[-1])
