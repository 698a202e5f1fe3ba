"""The databases that the benchmark works on: time series as a small leader writes them."""

import random
import sqlite3

PAGE = 4096
BATCH = 5000


def create(path, size_bytes):
    """A WAL database without a log, of about size_bytes (the index is the last third), in the shape
    of a Pioreactor leader's od_readings: texts that repeat, a time with milliseconds, and a reading
    with all the digits of a double, which do not compress."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size={PAGE}")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("CREATE TABLE reading(id INTEGER PRIMARY KEY, experiment TEXT NOT NULL, unit TEXT "
               "NOT NULL, at TEXT NOT NULL, value REAL NOT NULL, angle INTEGER, channel INTEGER)")
    row = 0
    while db.execute("PRAGMA page_count").fetchone()[0] * PAGE < size_bytes * 0.62:
        insert(db, row + 1, row + BATCH)
        row += BATCH
        if row % (80 * BATCH) == 0:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("CREATE INDEX reading_by_unit ON reading(experiment, unit, at)")
    db.close()


def insert(db, first, last):
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO reading SELECT i, 'experiment-' || (i / 500000), 'unit' || (i % 8), "
        "strftime('%Y-%m-%dT%H:%M:%fZ', 1700000000 + i * 0.7 + abs(random() % 50) / 1000.0, "
        "'unixepoch'), 0.1 + abs(random() / 1e19), 90, 1 + i % 2 FROM n", (first, last))


def pages(path):
    db = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    count = db.execute("PRAGMA page_count").fetchone()[0]
    db.close()
    return count


def change(path, count, seed):
    """Changes rows on about `count` pages all over the file. Answers with how many pages differ."""
    rng = random.Random(seed)
    before = fingerprints(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    last = db.execute("SELECT max(id) FROM reading").fetchone()[0]
    db.execute("BEGIN")
    for row in rng.sample(range(1, last + 1), count):
        db.execute("UPDATE reading SET value=? WHERE id=?", (rng.random() * 1000, row))
    db.execute("COMMIT")
    db.close()
    after = fingerprints(path)
    return sum(a != b for a, b in zip(before, after)) + abs(len(before) - len(after))


def append(path, count):
    """Rows for about `count` more pages, at the end of table and index. Answers with `count`."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    last = db.execute("SELECT max(id) FROM reading").fetchone()[0]
    rows = last * count // db.execute("PRAGMA page_count").fetchone()[0]
    insert(db, last + 1, last + rows)
    db.close()
    return count


def fingerprints(path):
    with open(path, "rb") as f:
        found = []
        while page := f.read(PAGE):
            found.append(hash(page))
        return found
