"""A database that can prove which of its states a copy is.

Every transaction moves money between accounts, changes items, keeps a digest of all rows up to date
(the sum modulo 2^128 of a hash of each row) and appends a row to `ledger` with a hash over the row
before it. So a copy whose rows give the digest that its last ledger row names is the state after
exactly that transaction; and each writer's journal, kept outside the database, says when that
transaction began and when its commit was acknowledged."""

import dataclasses
import hashlib
import os
import random
import sqlite3
import struct
import urllib.parse

MODULUS = 1 << 128
ACCOUNTS = 100
BALANCE = 1000
RECORD = struct.Struct("<qq16sddd")  # seq, writer, chain, begun, commit begun, acknowledged

SCHEMA = """
CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE item(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL, stamp TEXT NOT NULL, body BLOB);
CREATE INDEX item_by_stamp ON item(stamp);
CREATE TABLE ledger(seq INTEGER PRIMARY KEY, writer INTEGER NOT NULL, digest BLOB NOT NULL,
                    chain BLOB NOT NULL);
CREATE TABLE state(id INTEGER PRIMARY KEY CHECK(id = 0), digest BLOB NOT NULL);
"""


def row_hash(table, *values):
    h = hashlib.blake2b(digest_size=16, person=table.encode())
    for v in values:
        data = v if isinstance(v, bytes) else str(v).encode()
        h.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(h.digest(), "little")


def chained(chain, seq, writer, digest):
    link = chain + struct.pack("<qq", seq, writer) + digest
    return hashlib.blake2b(link, digest_size=16).digest()


def connect(path, timeout_s=5.0):
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None)


def open_copy(path):
    """A restored copy, without a -wal or -shm appearing beside it."""
    name = urllib.parse.quote(os.path.abspath(path))
    return sqlite3.connect(f"file:{name}?immutable=1", uri=True, isolation_level=None)


def create(path, seed, size_bytes=0, journal_mode="WAL", page_size=4096, body_bytes=2000):
    """A new one with about size_bytes of items that do not compress."""
    rng = random.Random(seed)
    db = connect(path)
    db.execute(f"PRAGMA page_size={page_size}")
    db.execute(f"PRAGMA journal_mode={journal_mode}")
    db.execute("PRAGMA synchronous=OFF")
    db.executescript(SCHEMA)
    digest = 0
    db.execute("BEGIN")
    for i in range(1, ACCOUNTS + 1):
        db.execute("INSERT INTO account VALUES(?, ?)", (i, BALANCE))
        digest += row_hash("account", i, BALANCE)
    for i in range(1, size_bytes // (body_bytes + 60) + 1):
        row = (i, 0, f"{rng.random():.6f}", rng.randbytes(body_bytes))
        db.execute("INSERT INTO item VALUES(?, ?, ?, ?)", row)
        digest += row_hash("item", *row)
    stored = (digest % MODULUS).to_bytes(16, "little")
    db.execute("INSERT INTO state VALUES(0, ?)", (stored,))
    db.execute("INSERT INTO ledger VALUES(1, 0, ?, ?)", (stored, chained(b"", 1, 0, stored)))
    db.execute("COMMIT")
    db.close()


class Hand:
    """One writer's way of doing a transaction; `rng` makes it repeatable."""

    def __init__(self, db, writer, rng, body_bytes=200):
        self.db, self.writer, self.rng, self.body_bytes = db, writer, rng, body_bytes

    def transaction(self, items=1):
        """All but the COMMIT. Answers with (seq, chain)."""
        db, rng = self.db, self.rng
        db.execute("BEGIN IMMEDIATE")
        (stored,) = db.execute("SELECT digest FROM state").fetchone()
        digest = int.from_bytes(stored, "little")
        amount = rng.randrange(1, 100)
        for account, change in zip(rng.sample(range(1, ACCOUNTS + 1), 2), (amount, -amount)):
            (balance,) = db.execute("SELECT balance FROM account WHERE id=?", (account,)).fetchone()
            digest -= row_hash("account", account, balance)
            digest += row_hash("account", account, balance + change)
            db.execute("UPDATE account SET balance=? WHERE id=?", (balance + change, account))
        for _ in range(items):
            digest += self._item()
        seq, chain = db.execute("SELECT seq, chain FROM ledger ORDER BY seq DESC").fetchone()
        stored = (digest % MODULUS).to_bytes(16, "little")
        seq, chain = seq + 1, chained(chain, seq + 1, self.writer, stored)
        db.execute("INSERT INTO ledger VALUES(?, ?, ?, ?)", (seq, self.writer, stored, chain))
        db.execute("UPDATE state SET digest=?", (stored,))
        return seq, chain

    def _item(self):
        """Adds, changes or deletes one item; answers with the change of the digest."""
        db, rng = self.db, self.rng
        (last,) = db.execute("SELECT ifnull(max(id), 0) FROM item").fetchone()
        what = rng.random()
        if what < 0.4 or last == 0:
            row = self._row(last + 1)
            db.execute("INSERT INTO item VALUES(?, ?, ?, ?)", row)
            return row_hash("item", *row)
        old = db.execute("SELECT * FROM item WHERE id>=? ORDER BY id LIMIT 1",
                         (rng.randrange(1, last + 1),)).fetchone()
        change = -row_hash("item", *old)
        db.execute("DELETE FROM item WHERE id=?", (old[0],))
        if what < 0.8:
            row = self._row(old[0], len(old[3]))
            db.execute("INSERT INTO item VALUES(?, ?, ?, ?)", row)
            change += row_hash("item", *row)
        return change

    def _row(self, row_id, size=None):
        rng = self.rng
        if size is None:
            size = rng.randrange(10, 2 * self.body_bytes)
        return (row_id, self.writer, f"{rng.random():.6f}", rng.randbytes(size))


@dataclasses.dataclass
class State:
    seq: int
    chain: bytes
    digest: bytes
    items: int


def examine(path):
    """The state that a copy is in; AssertionError when it never was in any."""
    db = open_copy(path)
    try:
        (answer,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if answer != "ok":
            raise AssertionError(f"{path}: integrity_check: {answer}")
        (total,) = db.execute("SELECT sum(balance) FROM account").fetchone()
        if total != ACCOUNTS * BALANCE:
            raise AssertionError(f"{path}: the accounts' sum is {total}: half a transaction")
        digest = sum(row_hash("account", *row) for row in db.execute("SELECT * FROM account"))
        items = 0
        for row in db.execute("SELECT id, writer, stamp, body FROM item"):
            digest += row_hash("item", *row)
            items += 1
        found = (digest % MODULUS).to_bytes(16, "little")
        chain, last, claimed = b"", 0, b""
        for seq, writer, claimed, link in db.execute("SELECT * FROM ledger ORDER BY seq"):
            chain = chained(chain, seq, writer, claimed)
            if seq != last + 1 or chain != link:
                raise AssertionError(f"{path}: the ledger breaks at {seq} after {last}")
            last = seq
        if found != claimed:
            raise AssertionError(f"{path}: the rows are not those of transaction {last}")
        return State(last, chain, found, items)
    finally:
        db.close()


def read_journal(path):
    with open(path, "rb") as f:
        data = f.read()
    return [RECORD.unpack_from(data, at)
            for at in range(0, len(data) - RECORD.size + 1, RECORD.size)]


def examine_between(path, journals, begun, ended, first_seq=1):
    """The copy's state, proven to be one that the database really had between two moments (wall
    clock): all that was acknowledged before `begun` is in it, nothing that was begun after `ended`,
    and it is on the one line of history that the writers acknowledged."""
    state = examine(path)
    history = {}
    for journal in journals:
        for seq, _, chain, start, _, acknowledged in read_journal(journal):
            history[seq] = (chain, start, acknowledged)
    must = max([first_seq] + [s for s, (_, _, ack) in history.items() if ack < begun])
    may = max([first_seq] + [s for s, (_, start, _) in history.items() if start < ended])
    if not must <= state.seq <= may:
        raise AssertionError(f"{path}: holds transaction {state.seq}, but {must} was acknowledged "
                             f"before the backup began and {may} was the last begun before its end")
    if state.seq > first_seq and state.seq not in history:
        raise AssertionError(f"{path}: transaction {state.seq} was never acknowledged")
    if state.seq in history and history[state.seq][0] != state.chain:
        raise AssertionError(f"{path}: transaction {state.seq} is not that which was acknowledged")
    return state
