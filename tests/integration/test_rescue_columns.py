"""rescue.py and blocks of pages as columns (FORMAT.md 2.5), written by an encoder that was made here
from that page alone."""

import os
import shutil
import sqlite3
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from test_rescue import (TURNS, Case, blake, compress, image_entry, page_hash, varint,  # noqa: E402
                         zigzag)

NONE = 255
STREAMS = 38


def big_endian(data, at):
    """SQLite's varint: (value, where it ends)."""
    value = 0
    for step in range(8):
        value = value << 7 | data[at + step] & 127
        if data[at + step] < 128:
            return value, at + step + 1
    return value << 8 | data[at + 8], at + 9


def widths_of(header):
    at, found = 1, []
    while at < len(header):
        kind, at = big_endian(header, at)
        found.append((0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind] if kind < 12 else (kind - 12) // 2)
    return found


def cell_at(page, at, is_table):
    """(rowid, header, widths, where the columns begin), None for a cell that stays as it lies."""
    payload, here = big_endian(page, at)
    rowid = 0
    if payload > 1000:      # some of it lies on other pages
        return None
    if is_table:
        rowid, here = big_endian(page, here)
    header = page[here:here + page[here]]
    widths = widths_of(header)
    if len(widths) > 64 or len(header) + sum(widths) != payload:
        return None
    return rowid, header, widths, here + len(header)


def take_apart(page, streams):
    if page[0] not in (0x0d, 0x0a):
        streams[0] += page
        return
    is_table = page[0] == 0x0d
    cells = struct.unpack_from(">H", page, 3)[0]
    pointers = struct.unpack_from(f">{cells}H", page, 8)
    before, shapes, rows, last = len(page), [], [], 0
    left = bytearray(b"\1" * len(page))
    left[8:8 + 2 * cells] = bytes(2 * cells)
    for at in pointers:
        down = before - at & 0xffff
        before = at
        streams[3].append(down >> 8)
        streams[4].append(down & 255)
        cell = cell_at(page, at, is_table)
        if cell is None:
            streams[1].append(NONE)
            continue
        rowid, header, widths, columns = cell
        if header not in shapes:
            shapes.append(header)
            streams[2] += header
        streams[1].append(shapes.index(header))
        if is_table:
            step = rowid - last & (1 << 64) - 1
            streams[5] += zigzag(step - (step >> 63 << 64))
            last = rowid
        end = columns + sum(widths)
        left[at:end] = bytes(end - at)
        rows.append((columns, widths))
    for column in range(max((len(w) for _, w in rows), default=0)):
        values = [page[at + sum(w[:column]):at + sum(w[:column + 1])] for at, w in rows
                  if column < len(w)]
        if len({len(v) for v in values}) == 1 and 2 <= len(values[0]) <= 64:
            together = b"".join(bytes(v[i] for v in values) for i in range(len(values[0])))
        else:
            together = b"".join(values)
        streams[6 + (0 if is_table else 16) + min(column, 15)] += together
    streams[0] += bytes(byte for byte, there in zip(page, left) if there)


def as_columns(pages):
    streams = [bytearray() for _ in range(STREAMS)]
    for page in pages:
        take_apart(page, streams)
    return b"".join(varint(len(s)) for s in streams) + b"".join(map(bytes, streams))


def columns_block(image, numbered, columns=None):
    """Like pages() of test_rescue, but with the method of columns."""
    raw = b"".join(d for _, d in numbered)
    stored = compress(as_columns([d for _, d in numbered]) if columns is None else columns)
    listing = struct.pack("<QB", image, len(numbered[0][1]).bit_length() - 1)
    listing += varint(numbered[0][0])
    listing += b"".join(zigzag(b[0] - a[0]) for a, b in zip(numbered, numbered[1:]))
    listing += b"".join(struct.pack("<Q", page_hash(d, n).low) for n, d in numbered)
    return stored, (b"\1\2" + varint(len(stored)) + varint(len(raw)) + blake(stored)
                    + varint(len(numbered)) + listing)


def database(page_size):
    db = sqlite3.connect(":memory:")
    db.execute(f"PRAGMA page_size={page_size}")
    db.execute("CREATE TABLE reading(id INTEGER PRIMARY KEY, unit TEXT, at TEXT, value, n INTEGER)")
    db.executemany("INSERT INTO reading VALUES(?,?,?,?,?)", (
        (i * i * i * 7919, f"unit{i % 9}", f"2026-01-01T00:{i % 60:02}:00Z",
         (None, i / 7, "x" * (i % 90), -i)[i % 4], i << i % 50) for i in range(-300, 700)))
    db.execute("INSERT INTO reading VALUES(9223372036854775807, 'last', NULL, ?, 1)", (b"z" * 9000,))
    db.execute("CREATE INDEX by_unit ON reading(unit, at)")
    wide = ", ".join(f"c{i}" for i in range(20))
    db.execute(f"CREATE TABLE wide({wide})")
    db.executemany(f"INSERT INTO wide VALUES({','.join('?' * 20)})",
                   ([i * k for k in range(20)] for i in range(200)))
    db.execute(f"CREATE TABLE widest({', '.join(f'c{i}' for i in range(80))})")
    db.execute(f"INSERT INTO widest VALUES({','.join('1' * 80)})")
    data = db.serialize()
    db.close()
    return [data[at:at + page_size] for at in range(0, len(data), page_size)]


class TestColumns(Case):
    def make(self, page_size=4096, change=None):
        held = database(page_size)
        blocks, per_block = [], 262144 // page_size
        for at in range(0, len(held), per_block):
            numbered = list(enumerate(held))[at:at + per_block]
            columns = as_columns([d for _, d in numbered])
            blocks.append(columns_block(3, numbered, change(columns) if change else columns))
        self.writer.snapshot([image_entry(b"/db", 3, b"".join(held), page_size)], blocks, version=2)
        return b"".join(held)

    def test_databases_come_back(self):
        for page_size in (512, 4096, 16384):
            truth = self.make(page_size)
            self.restore()
            self.assertEqual(self.placed("/db"), truth)
            shutil.rmtree(self.output)

    def test_columns_that_are_not_what_they_say_never_pass(self):
        for turn in range(TURNS):
            def change(columns):
                spot = self.random.choice((self.random.randrange(STREAMS),
                                           self.random.randrange(len(columns))))
                if turn % 4 == 0:
                    return columns[:spot]
                return (columns[:spot] + bytes([columns[spot] ^ 1 << self.random.randrange(8)])
                        + columns[spot + 1:])
            self.make(change=change)
            self.restore(code=1)
            self.assertRegex(self.said, "block|image sum", f"SYNCD_TEST_SEED={self.seed} {turn}")
            self.assertFalse(os.path.exists(self.output + "/db"))
            shutil.rmtree(self.output, ignore_errors=True)
