"""A PostgreSQL server of the test's own: its folder and socket, as a user who is not root, made for
speed and not for surviving a power cut."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile

from . import processes

SETTINGS = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB",
    "max_connections": "30", "autovacuum": "off", "logging_collector": "off",
    "max_prepared_transactions": "4", "wal_level": "minimal", "max_wal_senders": "0",
}


def folder_of_programs():
    """The newest of Debian's, or where PATH leads."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"),
                   key=lambda p: int(p.split("/")[4]))
    initdb = found[-1] if found else shutil.which("initdb")
    if not initdb:
        raise RuntimeError("PostgreSQL's server is missing: conf/install-packages test")
    return os.path.dirname(initdb)


def plain(text):
    """A dump's text without what differs from run to run."""
    return "\n".join(line for line in text.splitlines()
                     if not line.startswith(("--", "\\restrict", "\\unrestrict")))


class Postgres:
    """Superuser "boss", who needs no password on the socket; over TCP everybody needs one."""

    def __init__(self, **settings):
        self.programs = folder_of_programs()
        self.settings = {**SETTINGS, **settings}
        self.port = 5432  # of the socket's name; free in a folder of our own
        self.process = None
        # Not in the test's folder, which only its owner can enter; a socket's path must be short.
        self.folder = tempfile.mkdtemp(prefix="syncd-pg-", dir="/tmp")
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(self.folder, "log")
        self.user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chmod(self.folder, 0o755)
        self._initdb()

    def program(self, name):
        return os.path.join(self.programs, name)

    def _initdb(self):
        subprocess.run([self.program("initdb"), "-D", self.data, "-U", "boss", "-A", "trust", "-N",
                        "-E", "UTF8", "--locale=C", "--no-instructions"], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120,
                       cwd="/", **self.user)
        with open(os.path.join(self.data, "pg_hba.conf"), "w", encoding="ascii") as f:
            f.write("local all asked scram-sha-256\nlocal all all trust\n"
                    "host all all 127.0.0.1/32 scram-sha-256\n")
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as f:
            f.writelines(f"{k} = '{v}'\n" for k, v in self.settings.items())
            f.write(f"unix_socket_directories = '{self.folder}'\nlisten_addresses = ''\n")

    def start(self):
        with open(self.log, "ab") as log:
            self.process = processes.start([self.program("postgres"), "-D", self.data,
                                            "-p", str(self.port)],
                                           stdout=log, stderr=log, cwd="/", **self.user)
        processes.wait_until(self._answers, 30, f"PostgreSQL in {self.folder} does not answer")
        return self

    def _answers(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                raise RuntimeError("PostgreSQL ended: " + f.read()[-2000:])
        return subprocess.run([self.program("pg_isready"), "-q", "-h", self.folder], timeout=20,
                              stdin=subprocess.DEVNULL, check=False).returncode == 0

    def stop(self):
        """As an administrator would: waits for nobody."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
        self.process = None

    def crash(self):
        """kill -9 of the postmaster and of all that it has started."""
        processes.kill_tree(self.process)
        self.process = None

    def close(self):
        if self.process:
            processes.kill_tree(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- talking to it

    def conninfo(self, database, user="boss", **more):
        pairs = {"host": self.folder, "dbname": database, "user": user, **more}
        return " ".join(f"{k}={v}" for k, v in pairs.items())

    def argv(self, program, database, *args, user="boss"):
        return [self.program(program), "-h", self.folder, "-U", user, "-d", database, *args]

    def run(self, program, database, *args, user="boss", stdin=None, check=True, timeout_s=120):
        answer = subprocess.run(self.argv(program, database, *args, user=user), input=stdin,
                                capture_output=True, text=True, timeout=timeout_s, check=False)
        if check and answer.returncode:
            raise AssertionError(f"{program} {args}: exit {answer.returncode}: {answer.stderr}")
        return answer

    def sql(self, database, text, user="boss"):
        """The rows as text, without decoration."""
        return self.run("psql", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
                        "-f", "-", user=user, stdin=text).stdout.strip()

    @contextlib.contextmanager
    def holding(self, database, statement):
        """Another session, in whose transaction the statement was executed."""
        session = processes.start(self.argv("psql", database, "-X", "-q", "-A", "-t", "-f", "-"),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            session.stdin.write(f"BEGIN;\n{statement};\n\\echo held\n".encode())
            session.stdin.flush()
            line = session.stdout.readline()
            if line.strip() != b"held":
                raise AssertionError(f"{statement}: {line!r}")
            yield session
        finally:
            processes.kill_tree(session)
            session.stdin.close()
            session.stdout.close()

    def create(self, database, script="", owner="boss", options=""):
        self.sql("postgres", f'CREATE DATABASE "{database}" OWNER "{owner}" {options}')
        if script:
            self.sql(database, script)

    def dump(self, database, *args):
        """The oracle: what pg_dump says in plain text, without what differs from run to run."""
        return plain(self.run("pg_dump", database, *args).stdout)
