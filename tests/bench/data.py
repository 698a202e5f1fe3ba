"""The databases that the benchmark works on: time series as a small leader writes them."""

import random
import sqlite3

PAGE = 4096
BATCH = 5000


def create(path, size_bytes):
    """A WAL database without a log, of about size_bytes (the index is the last third): readings of
    40 units, half of them text that compresses, an index as wide as the application's."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size={PAGE}")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("CREATE TABLE reading(id INTEGER PRIMARY KEY, experiment TEXT, unit TEXT, "
               "at TEXT, value REAL, note TEXT)")
    row = 0
    while db.execute("PRAGMA page_count").fetchone()[0] * PAGE < size_bytes * 0.69:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO reading SELECT i, 'experiment-' || (i / 500000), 'unit' || (i % 40), "
            "strftime('%Y-%m-%dT%H:%M:%fZ', 1700000000 + i * 0.07, 'unixepoch'), "
            "(random() % 1000000) / 997.0, hex(randomblob(24)) FROM n", (row + 1, row + BATCH))
        row += BATCH
        if row % (80 * BATCH) == 0:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("CREATE INDEX reading_by_unit ON reading(experiment, unit, at)")
    db.close()


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


def fingerprints(path):
    with open(path, "rb") as f:
        found = []
        while page := f.read(PAGE):
            found.append(hash(page))
        return found
