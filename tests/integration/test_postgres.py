"""The PostgreSQL source: against a real server, with pg_dump and pg_restore as oracles."""

from harness.case import Case
from harness.leader import Worker
from harness.postgres import Postgres

SCRIPT = """
CREATE SCHEMA replicator; CREATE SCHEMA scheduler;
CREATE TABLE replicator.jobs (id bigserial PRIMARY KEY, note text);
CREATE TABLE scheduler.tasks (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                              job bigint REFERENCES replicator.jobs);
INSERT INTO replicator.jobs (note) SELECT 'job ' || n || E'\\n\\\\.' FROM generate_series(1, 500) n;
INSERT INTO scheduler.tasks (job) SELECT id FROM replicator.jobs WHERE id % 2 = 0;
"""


class PostgresCase(Case):
    def server(self, **settings):
        server = Postgres(**settings)
        self.addCleanup(server.close)
        return server.start()

    def house(self, server, database="piri", user="boss", workers=1, **source):
        """A leader with the source "piri", whose workers are folders."""
        urls = [f"file://{self.path(f'w{n}')}" for n in range(1, workers + 1)]
        leader = self.leader([Worker(f"w{n}", url) for n, url in enumerate(urls, 1)],
                             {"piri": {"postgres": server.conninfo(database, user),
                                       "max_age": "1h", **source}})
        leader.run("setup")
        return leader


class TestBackup(PostgresCase):
    def test_dump_comes_back(self):
        server = self.server()
        server.create("piri", SCRIPT)
        leader = self.house(server, schemas=["replicator", "scheduler"])
        before = server.dump("piri", "-n", "replicator", "-n", "scheduler")
        first = leader.backup()
        self.assertTrue(first["complete"])
        self.assertTrue(leader.backup()["unchanged"])
        server.sql("piri", "SELECT nextval('replicator.jobs_id_seq')")
        self.assertFalse(leader.backup()["unchanged"])
        leader.run("restore", "--snapshot", first["snapshot"], "--output", self.path("all.dump"))
        server.create("copy")
        server.run("pg_restore", "copy", "--single-transaction", "--exit-on-error",
                   self.path("all.dump"))
        self.assertEqual(server.dump("copy"), before)
        self.assertEqual(server.sql("copy", "SELECT nextval('replicator.jobs_id_seq')"), "501")
        rescued = self.rescued(self.path("w1"), first["snapshot"], "piri/piri.dump")
        with open(rescued, "rb") as a, open(self.path("all.dump"), "rb") as b:
            self.assertEqual(a.read(), b.read())
