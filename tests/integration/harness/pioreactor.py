"""A Pioreactor leader's folder: its databases with the triggers that keep the wide table, config,
calibrations, a cache folder of old releases - and the processes that write there.

Every row carries the number of its insert, so that a copy can be judged without knowing when it was
taken: a writer's numbers must have no gap, and end between what was acknowledged before the backup
began and what was begun before it ended. The wide table must agree with the narrow ones."""

import argparse
import grp
import os
import pwd
import signal
import sqlite3
import struct
import time

if __name__ != "__main__":
    from . import processes

UNITS = 8
EXPERIMENT = "exp-1"
COUNTER = struct.Struct("<q")

# narrow table -> (its value's column, the wide table's column)
NARROW = {
    "od_readings": ("od_reading", "od_reading"),
    "od_readings_filtered": ("normalized_od_reading", "normalized_od_reading"),
    "growth_rates": ("rate", "growth_rate"),
    "temperature_readings": ("temperature_c", "temperature_c"),
    "stirring_rates": ("measured_rpm", "measured_rpm"),
}
WIDE = "pioreactor_unit_activity_data"
KEY = "experiment TEXT NOT NULL, pioreactor_unit TEXT NOT NULL, timestamp TEXT NOT NULL"
TO_EXPERIMENT = ("FOREIGN KEY (experiment) REFERENCES experiments(experiment) ON DELETE CASCADE")


def schema():
    yield "CREATE TABLE experiments(experiment TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL)"
    columns = ", ".join(f"{wide} REAL" for _, wide in NARROW.values())
    yield f"CREATE TABLE {WIDE}({KEY}, {columns}, {TO_EXPERIMENT})"
    yield f"CREATE UNIQUE INDEX {WIDE}_ix ON {WIDE}(experiment, pioreactor_unit, timestamp)"
    for table, (column, wide) in NARROW.items():
        yield f"CREATE TABLE {table}({KEY}, {column} REAL NOT NULL, {TO_EXPERIMENT})"
        yield f"CREATE INDEX {table}_ix ON {table}(experiment, pioreactor_unit, timestamp)"
        yield (f"CREATE TRIGGER wide_{table} AFTER INSERT ON {table} BEGIN "
               f"INSERT INTO {WIDE}(experiment, pioreactor_unit, timestamp, {wide}) "
               f"VALUES(new.experiment, new.pioreactor_unit, new.timestamp, new.{column}) "
               "ON CONFLICT(experiment, pioreactor_unit, timestamp) "
               f"DO UPDATE SET {wide} = excluded.{wide}; END")
    yield f"CREATE TABLE logs({KEY}, message TEXT NOT NULL, source TEXT, level TEXT, task TEXT)"
    yield "CREATE INDEX logs_ix ON logs(experiment, timestamp DESC)"


def stamp(second):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_700_000_000 + second)) + ".000000Z"


def streamed(db, n):
    """The n-th insert of the process that streams readings into the database."""
    tables = list(NARROW)
    at, which = divmod(n, len(tables))
    table = tables[which]
    db.execute(f"INSERT INTO {table} VALUES(?, ?, ?, ?)",
               (EXPERIMENT, f"unit{at % UNITS + 1}", stamp(at), float(n)))


def logged(db, n):
    db.execute("INSERT INTO logs VALUES(?, ?, ?, ?, 'app', 'INFO', 'stirring')",
               (EXPERIMENT, f"unit{n % UNITS + 1}", stamp(n), str(n)))


def cached_value(n):
    return n.to_bytes(8, "little") * 5000  # above what is kept in the row itself


class Place:
    """The folder's parts."""

    def __init__(self, tree):
        self.tree = tree
        self.storage = os.path.join(tree, "storage")
        self.db = os.path.join(self.storage, "pioreactor.sqlite")
        self.local = os.path.join(self.storage, "local_persistent_pioreactor_metadata.sqlite")
        self.cache = os.path.join(self.storage, "pwm_hz")
        self.config = os.path.join(tree, "config.ini")
        self.own_backup = self.db + ".backup"


FOLDERS = ("models", "hardware", "experiment_profiles", "exportable_datasets", "ui/contrib",
           "plugins/__pycache__", "storage/calibrations/od", "storage/estimators/od")
FILES = {
    "unit_config.ini": "[stirring]\ntarget_rpm=400\n",
    "experiment_profiles/demo.yaml": "experiment_profile_name: demo\n",
    "storage/calibrations/od/od-cal.yaml": "calibration_name: od-cal\ncurve_data_: [1.0, 0.2]\n",
    "storage/estimators/od/e.yaml": "estimator_name: e\n",
    "plugins/mine.py": "print('hello')\n",
    "plugins/__pycache__/mine.pyc": "compiled",
    "storage/pioreactor.sqlite.backup": "its own copy",
}


def create(tree, rng, rows=2000, config=""):
    place = Place(tree)
    for folder in FOLDERS:
        os.makedirs(os.path.join(tree, folder))
    for name, text in FILES.items():
        with open(os.path.join(tree, name), "w", encoding="ascii") as f:
            f.write(text)
    with open(place.config, "w", encoding="ascii") as f:
        f.write("[cluster.topology]\nleader_hostname=leader\n" + config)
    db = sqlite3.connect(place.db, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    for statement in schema():
        db.execute(statement)
    db.execute("BEGIN")
    db.execute("INSERT INTO experiments VALUES(?, ?)", (EXPERIMENT, stamp(0)))
    for n in range(rows):
        streamed(db, n)
    db.execute("COMMIT")
    db.close()
    db = sqlite3.connect(place.local)
    db.execute("CREATE TABLE power(name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
    db.execute("INSERT INTO power VALUES('in', 0), ('out', 0), ('count', 0)")
    db.execute("CREATE TABLE blobs(data BLOB)")
    db.execute("INSERT INTO blobs VALUES(?)", (rng.randbytes(200_000),))
    db.commit()
    db.close()
    own(tree)
    return place


def own(tree):
    """setgid folders of the group that its web server is in, where there is such a group."""
    try:
        group = grp.getgrnam("www-data").gr_gid if os.geteuid() == 0 else -1
    except KeyError:
        group = -1
    for folder, _, files in os.walk(tree):
        os.chown(folder, -1, group)
        os.chmod(folder, 0o2775)
        for name in files:
            os.chown(os.path.join(folder, name), -1, group)
            os.chmod(os.path.join(folder, name), 0o664)


# ---- writers ----

def stream(place, settings):
    db = sqlite3.connect(place.db, timeout=5, isolation_level=None)
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA wal_autocheckpoint=4000")
    return lambda n: streamed(db, settings.first + n)


def log(place, _):
    db = sqlite3.connect(place.db, timeout=5, isolation_level=None)
    db.execute("PRAGMA synchronous=NORMAL")
    return lambda n: logged(db, n)


def local(place, _):
    """A rollback-mode database, and the cache folder of an old release."""
    import diskcache
    db = sqlite3.connect(place.local, timeout=5, isolation_level=None)
    cache = diskcache.Cache(place.cache)

    def write(n):
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE power SET value = value + ? WHERE name = 'in'", (n,))
        db.execute("UPDATE power SET value = value - ? WHERE name = 'out'", (n,))
        db.execute("UPDATE power SET value = ? WHERE name = 'count'", (n + 1,))
        db.execute("COMMIT")
        cache.set(n, cached_value(n))
    return write


KINDS = {"stream": stream, "log": log, "local": local}


def write_on(settings):
    """The journal gets a number before (begun) and after (acknowledged) each commit."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    write = KINDS[settings.kind](Place(settings.tree), settings)
    with open(settings.journal, "ab", buffering=0) as journal:
        print("ready", flush=True)
        n = 0
        while not stopped:
            journal.write(COUNTER.pack(n))
            write(n)
            journal.write(COUNTER.pack(n))
            n += 1
            time.sleep(settings.pause_s)


class Writers:
    """One process of each kind; every one commits `rate` times a second (8 units at default
    settings make 5.5)."""

    def __init__(self, place, folder, rate=20, first=2000):
        self.journals = {k: os.path.join(folder, f"{k}.journal") for k in KINDS}
        self.processes = []
        for kind, journal in self.journals.items():
            self.processes.append(processes.start(
                [processes.DEBIAN_PYTHON, os.path.abspath(__file__), "--kind", kind, "--tree", place.tree,
                 "--journal", journal, "--pause-s", str(1 / rate), "--first", str(first)],
                stdout=processes.subprocess.PIPE))
        for p in self.processes:
            if p.stdout.readline() != b"ready\n":
                raise RuntimeError("a writer did not start")

    def counts(self):
        """kind -> (acknowledged, begun)."""
        answer = {}
        for kind, journal in self.journals.items():
            records = os.path.getsize(journal) // COUNTER.size
            answer[kind] = (records // 2, (records + 1) // 2)
        return answer

    def wait_for(self, more, timeout_s=30):
        goal = {k: acked + more for k, (acked, _) in self.counts().items()}
        processes.wait_until(lambda: all(self.counts()[k][0] >= n for k, n in goal.items()),
                             timeout_s, f"{more} more commits of each writer")

    def kill(self):
        """As a power cut ends them."""
        for p in self.processes:
            processes.kill_tree(p)
            p.stdout.close()
        self.processes = []


# ---- judging a copy ----

def open_copy(path):
    return sqlite3.connect(f"file:{path}?immutable=1", uri=True, isolation_level=None)


def check_range(what, got, before, after):
    if not before[0] <= got <= after[1]:
        raise AssertionError(f"{what}: holds {got} commits; {before[0]} were acknowledged before "
                             f"the backup and {after[1]} begun before its end")


def check_numbers(what, numbers, first=0):
    if numbers != list(range(first, first + len(numbers))):
        raise AssertionError(f"{what}: a commit is missing among {len(numbers)}")
    return len(numbers)


def check_main(path, before, after, first=2000):
    db = open_copy(path)
    for pragma, wanted in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
        if db.execute(f"PRAGMA {pragma}").fetchall() != wanted:
            raise AssertionError(f"{path}: {pragma}")
    numbers = []
    for table, (column, wide) in NARROW.items():
        numbers += [int(n) for (n,) in db.execute(f"SELECT {column} FROM {table}")]
        (apart,) = db.execute(
            f"SELECT count(*) FROM {table} n LEFT JOIN {WIDE} w USING(experiment, pioreactor_unit, "
            f"timestamp) WHERE w.{wide} IS NOT n.{column}").fetchone()
        (rows,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        (filled,) = db.execute(f"SELECT count({wide}) FROM {WIDE}").fetchone()
        if apart or rows != filled:
            raise AssertionError(f"{path}: {WIDE}.{wide} does not agree with {table}")
    check_range("readings", check_numbers(path, sorted(numbers)) - first, before["stream"],
                after["stream"])
    logs = sorted(int(n) for (n,) in db.execute("SELECT message FROM logs"))
    check_range("logs", check_numbers(path, logs), before["log"], after["log"])
    db.close()


def check_local(path, before, after):
    db = open_copy(path)
    power = dict(db.execute("SELECT * FROM power"))
    if power["in"] + power["out"] != 0 or power["in"] != power["count"] * (power["count"] - 1) // 2:
        raise AssertionError(f"{path}: half a transaction: {power}")
    check_range("local", power["count"], before["local"], after["local"])
    db.close()


def check_cache(folder, before, after):
    """Whatever the cache's database names is there, and is what was stored."""
    db = open_copy(os.path.join(folder, "cache.db"))
    rows = db.execute("SELECT key, size, filename FROM Cache ORDER BY key").fetchall()
    db.close()
    check_numbers(folder, [key for key, _, _ in rows])
    check_range("cache", len(rows), before["local"], after["local"])
    for key, size, filename in rows:
        with open(os.path.join(folder, filename), "rb") as f:
            if f.read() != cached_value(key) or size != len(cached_value(key)):
                raise AssertionError(f"{folder}/{filename} is not value {key}")


def check(tree, before, after):
    place = Place(tree)
    check_main(place.db, before, after)
    check_local(place.local, before, after)
    check_cache(place.cache, before, after)


def owner_of(path):
    st = os.lstat(path)
    return pwd.getpwuid(st.st_uid).pw_name, st.st_gid, oct(st.st_mode)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    parser.add_argument("--tree", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--pause-s", type=float, required=True)
    parser.add_argument("--first", type=int, default=0)
    write_on(parser.parse_args())
