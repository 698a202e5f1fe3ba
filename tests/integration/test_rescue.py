"""restore/rescue.py against repositories that a small writer makes here, from snapshot/FORMAT.md
and nothing else: whole, damaged, cut and hostile ones."""

import ctypes
import hashlib
import importlib.util
import json
import os
import random
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESCUE = os.path.join(PROJECT, "restore", "rescue.py")
SEED = hashlib.sha256(b"seed").digest()
REPOSITORY = bytes(range(16))
M64 = (1 << 64) - 1
TURNS = {"quick": 15, "default": 60, "long": 500}[os.environ.get("SYNCD_TEST_LEVEL", "default")]
FILE, DIRECTORY, SYMLINK, HARD_LINK, IMAGE, DUMP, CONFIG = range(1, 8)


class Xxh128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


xxhash = ctypes.CDLL("libxxhash.so.0").XXH3_128bits_withSeed
xxhash.restype = Xxh128
xxhash.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def page_hash(data, page):
    return xxhash(data, len(data), (int.from_bytes(SEED[:8], "little") + page) & M64)


def blake(data, size=32, key=b""):
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def zigzag(value):
    return varint((value << 1) ^ (value >> 63))


def compress(raw, content_size=True):
    size = [f"--stream-size={len(raw)}"] if content_size else []
    return subprocess.run(["zstd", "-cq", "-1", *size], input=raw, stdout=subprocess.PIPE,
                          check=True).stdout


def block(kind, raw, count, listing, method=0, stored=None, raw_length=None):
    """(stored bytes, metadata of the block)"""
    if stored is None:
        stored = compress(raw) if method else raw
    length = len(raw) if raw_length is None else raw_length
    return stored, (bytes([kind, method]) + varint(len(stored)) + varint(length) + blake(stored)
                    + varint(count) + listing)


def pages(image, pages_held, page_size=4096, **more):
    """A block of [(page number, bytes)], in the order given."""
    numbers, data = [n for n, _ in pages_held], [d for _, d in pages_held]
    listing = struct.pack("<QB", image, page_size.bit_length() - 1) + varint(numbers[0])
    listing += b"".join(zigzag(b - a) for a, b in zip(numbers, numbers[1:]))
    listing += b"".join(struct.pack("<Q", page_hash(d, n).low) for n, d in pages_held)
    return block(1, b"".join(data), len(data), listing, **more)


def chunks(chunk_list, **more):
    listing = b"".join(blake(c, 16, SEED) + varint(len(c)) for c in chunk_list)
    return block(2, b"".join(chunk_list), len(chunk_list), listing, **more)


def runs(*rows):
    return varint(len(rows)) + b"".join(varint(v) for row in rows for v in row)


def fields(**tags):
    """A record: t4=b"...", as bytes; whole numbers become varints."""
    body = b""
    for tag, value in sorted((int(name[1:]), value) for name, value in tags.items()):
        value = varint(value) if isinstance(value, int) else value
        body += varint(tag) + varint(len(value)) + value
    return varint(len(body)) + body


def entry(kind, path, **tags):
    return fields(**{"t2": bytes([kind]), "t4": path, "t6": 0o644, **tags})


def image_entry(path, image, content, page_size=4096, kind=1, total=None, count=None, **tags):
    held = len(content) // page_size
    if total is None:
        total = sum(page_hash(content[n * page_size:(n + 1) * page_size], n).high
                    for n in range(held) if kind == 2 or n != (1 << 30) // page_size) & M64
    return entry(IMAGE, path, t16=struct.pack("<QBBQQ", image, kind, page_size.bit_length() - 1,
                                              held if count is None else count, total), **tags)


class Writer:
    """Makes the folder of a repository."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(os.path.join(folder, "epoch"))
        os.makedirs(os.path.join(folder, "tmp"))
        with open(os.path.join(folder, "syncd.repo"), "w", encoding="utf-8") as file:
            json.dump({"format": 1, "repository": REPOSITORY.hex(), "seed": SEED.hex(),
                       "leader": "test", "created": "2025-01-01T00:00:00Z"}, file)
        self.sequence = 0

    def epoch(self, number, **continues):
        with open(os.path.join(self.folder, "epoch", str(number)), "w", encoding="utf-8") as file:
            json.dump({"token": "00" * 16, "continues": continues}, file)

    def part(self, blocks=(), section=None, source="s", epoch=1, mark=None, sequence=None,
             header_source=None, repository=REPOSITORY, version=1, flags=0, shown_id=None):
        """Writes a part; answers with its row for the list of parts."""
        self.sequence = sequence or self.sequence + 1
        seconds = 1735689600 + 900 * self.sequence
        header = struct.pack("<8sHHIQQ16s32s", b"syncdprt", version, flags, epoch, self.sequence,
                             seconds * 1000000 + 123456, repository,
                             (header_source or source).encode())
        metadata = header + varint(len(blocks)) + b"".join(m for _, m in blocks)
        metadata += b"\0" if section is None else b"\1" + section(seconds, epoch, self.sequence)
        part_id = blake(metadata)
        data = (header + b"".join(s for s, _ in blocks) + metadata
                + struct.pack("<Q32s8s", len(metadata), part_id, b"syncdend"))
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
        name = (f"{epoch:04}-{self.sequence:08}-{stamp}-{shown_id or part_id.hex()}."
                f"{mark or ('snap' if section else 'pack')}")
        os.makedirs(os.path.join(self.folder, source), exist_ok=True)
        path = os.path.join(self.folder, source, name)
        with open(path, "wb") as file:
            file.write(data)
        return Row(epoch, self.sequence, seconds, len(data), part_id, path)

    def snapshot(self, entries, blocks=(), listed=(), complete=True, as_of=None, cut=700, **more):
        """A part that closes a snapshot; its entry list is stored in chunks of `cut` bytes."""
        listing = b"".join(entries)
        pieces = [listing[at:at + cut] for at in range(0, len(listing), cut)]
        blocks = list(blocks)
        first = sum(int(getattr(b, "chunks", 0)) for b in blocks)
        for at in range(0, len(pieces), 200000 // cut):
            blocks.append(chunks(pieces[at:at + 200000 // cut], method=1))

        def section(seconds, epoch, sequence):
            out = struct.pack("<QB", as_of or seconds * 1000000, complete) + varint(len(listed))
            before = seconds
            for row in sorted(listed, key=lambda row: (row.epoch, row.sequence)):
                out += (varint(row.epoch) + varint(row.sequence) + zigzag(row.seconds - before)
                        + varint(row.size) + row.id)
                before = row.seconds
            rows = [(epoch, sequence, first, len(pieces))] if pieces else []
            return out + varint(len(listing)) + runs(*rows)
        return self.part(blocks, section, **more)


class Row:
    def __init__(self, epoch, sequence, seconds, size, part_id, path):
        self.epoch, self.sequence, self.seconds = epoch, sequence, seconds
        self.size, self.id, self.path = size, part_id, path

    @property
    def hex(self):
        return self.id.hex()


class Case(unittest.TestCase):
    syncd_level = "quick"

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="rescue-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.repository = os.path.join(self.folder, "repo")
        self.output = os.path.join(self.folder, "out")
        self.writer = Writer(self.repository)
        self.seed = int(os.environ.get("SYNCD_TEST_SEED")
                        or random.SystemRandom().randrange(1 << 31))
        self.random = random.Random(self.seed)

    def rescue(self, *words, code=0):
        run = subprocess.run([sys.executable, RESCUE, *words], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        self.said = run.stdout + run.stderr
        self.assertNotIn("Traceback", self.said)
        if code is not None:
            self.assertEqual(run.returncode, code, self.said)
        self.code = run.returncode
        return run.stdout

    def restore(self, *words, what="latest", code=0):
        return self.rescue(self.repository, what, self.output, *words, code=code)

    def placed(self, path):
        with open(self.output + path, "rb") as file:
            return file.read()

    def everything(self):
        """What lies in OUTPUT: path -> bytes, link target or None for a folder."""
        found = {}
        for base, folders, files in os.walk(self.output):
            for name in folders + files:
                path = os.path.join(base, name)
                kind = os.lstat(path).st_mode
                with open(path, "rb") if stat.S_ISREG(kind) else open(os.devnull, "rb") as file:
                    found[path[len(self.output):]] = (
                        os.readlink(path) if stat.S_ISLNK(kind)
                        else None if stat.S_ISDIR(kind) else file.read())
        return found

    def bytes(self, count):
        return self.random.getrandbits(8 * count).to_bytes(count, "little") if count else b""

    def random_pages(self, count, page_size=4096):
        """Pages of some text and some noise."""
        return [(self.bytes(16) * page_size)[:page_size - 64] + self.bytes(64)
                for _ in range(count)]


def numbered_chunks(chunk_list, **more):
    """A block of chunks that knows how many it holds."""
    return Numbered(chunks(chunk_list, **more), len(chunk_list))


class Numbered(tuple):
    def __new__(cls, pair, count):
        self = super().__new__(cls, pair)
        self.chunks = count
        return self


class TestTree(Case):
    def test_everything_comes_back_as_it_was(self):
        a, b, c, d = (self.bytes(n) for n in (1000, 70000, 3, 40000))
        old = self.writer.part([chunks([a, b], method=1), chunks([c])])
        holes = varint(4096) + varint(8192) + varint(20480) + varint(1 << 20)
        sparse = self.bytes(4096 + 8192)
        xattr = varint(9) + b"user.name" + varint(5) + b"val\0e"
        self.writer.snapshot([
            entry(DIRECTORY, b"/srv", t6=0o755, t12=2 * 10**9 * 10**9),
            entry(DIRECTORY, b"/srv/d", t6=0o2750, t8=os.getuid(), t10=os.getgid(),
                  t12=2 * 1234567890123456789),
            entry(FILE, b"/srv/d/a", t12=2 * 1600000000000000001, t18=71003, t24=xattr,
                  t20=runs((1, 1, 0, 2), (1, 1, 2, 1))),
            entry(FILE, b"/srv/d/again", t6=0o4600, t18=43003, t11=b"state",
                  t20=runs((1, 1, 2, 1), (1, 2, 0, 1), (1, 1, 2, 1), (1, 2, 1, 1))),
            entry(FILE, b"/srv/d/empty", t18=0, t20=runs()),
            entry(HARD_LINK, b"/srv/d/hard", t22=b"/srv/d/a"),
            entry(SYMLINK, b"/srv/d/link", t22=b"../../etc/passwd", t12=2 * 10**18),
            entry(FILE, b"/srv/d/n\xff\n", t18=0, t13=b"could not be read"),
            entry(FILE, b"/srv/sparse", t18=20480 + (1 << 20), t26=holes, t20=runs((1, 2, 2, 1))),
            entry(DUMP, b"app.dump", t18=3, t20=runs((1, 1, 2, 1)), t15=b"{}"),
            entry(CONFIG, b"syncd.conf", t6=0o600, t18=3, t20=runs((1, 1, 2, 1))),
        ], [numbered_chunks([d, b"1" * 2997, sparse], method=1)], [old], complete=False)
        self.restore()
        self.assertIn("could not be read", self.said)
        self.assertEqual(self.placed("/srv/d/a"), a + b + c)
        self.assertEqual(self.placed("/srv/d/again"), c + d + c + b"1" * 2997)
        self.assertEqual(self.placed("/srv/d/empty"), b"")
        self.assertEqual(self.placed("/srv/sparse"), sparse[:4096] + bytes(8192) + sparse[4096:]
                         + bytes(1 << 20))
        self.assertLess(os.stat(self.output + "/srv/sparse").st_blocks * 512, 1 << 18)
        self.assertEqual(self.placed("/s/app.dump"), c)
        self.assertEqual(self.placed("/s/syncd.conf"), c)
        about = os.stat(self.output + "/srv/d/a")
        self.assertEqual(about.st_mtime_ns, 1600000000000000001)
        self.assertEqual(stat.S_IMODE(about.st_mode), 0o644)
        self.assertEqual(about.st_ino, os.stat(self.output + "/srv/d/hard").st_ino)
        self.assertEqual(os.getxattr(self.output + "/srv/d/a", "user.name"), b"val\0e")
        self.assertEqual(os.readlink(self.output + "/srv/d/link"), "../../etc/passwd")
        self.assertEqual(os.lstat(self.output + "/srv/d/link").st_mtime_ns, 10**18)
        about = os.stat(self.output + "/srv/d")
        self.assertEqual((stat.S_IMODE(about.st_mode), about.st_mtime_ns),
                         (0o2750, 1234567890123456789))
        self.assertEqual(stat.S_IMODE(os.stat(self.output + "/srv/d/again").st_mode), 0o600)
        self.assertIn(b"n\xff\n", os.listdir((self.output + "/srv/d").encode()))
        self.assertNotIn("n\n", self.said)
        self.assertFalse([p for p in self.everything() if ".tmp" in p])

    @unittest.skipUnless(os.getuid() == 0, "only root can give files away")
    def test_owners_come_back_by_name_then_by_number(self):
        self.writer.snapshot([
            entry(FILE, b"/known", t7=b"daemon", t8=54321, t9=b"daemon", t10=54321, t18=0),
            entry(FILE, b"/number", t7=b"no-such-user", t8=54321, t10=54322, t18=0),
            entry(SYMLINK, b"/symlink", t8=54321, t10=54322, t22=b"/etc/passwd")])
        before = os.stat("/etc/passwd")
        self.restore()
        self.assertEqual(os.stat(self.output + "/known").st_uid, 1)
        about = os.lstat(self.output + "/number")
        self.assertEqual((about.st_uid, about.st_gid), (54321, 54322))
        about = os.lstat(self.output + "/symlink")
        self.assertEqual((about.st_uid, about.st_gid), (54321, 54322))
        self.assertEqual(os.stat("/etc/passwd").st_uid, before.st_uid)

    def test_many_files_in_many_parts(self):
        rows, where, contents = [], [], {}
        for number in range(1, 9):
            blocks = []
            for _ in range(5):
                held = [self.bytes(self.random.randrange(1, 900)) for _ in range(40)]
                where += [(1, number, 40 * len(blocks) + n, 1, c) for n, c in enumerate(held)]
                blocks.append(chunks(held, method=self.random.randrange(2)))
            rows.append(self.writer.part(blocks))
        entries = []
        for number in range(1300):
            picks = self.random.sample(where, self.random.randrange(6))
            path = f"/f/{number:06}"
            contents[path] = b"".join(p[4] for p in picks)
            entries.append(entry(FILE, path.encode(), t18=len(contents[path]),
                                 t20=runs(*(p[:4] for p in picks))))
        self.writer.snapshot(entries, (), rows, cut=5000)
        self.restore()
        found = self.everything()
        self.assertIsNone(found.pop("/f"))
        self.assertEqual(found, contents, f"SYNCD_TEST_SEED={self.seed}")

    def test_nothing_that_is_there_is_overwritten(self):
        self.writer.snapshot([entry(FILE, b"/a", t18=0), entry(FILE, b"/b", t18=0)])
        os.makedirs(self.output)
        with open(self.output + "/b", "w", encoding="utf-8") as file:
            file.write("mine")
        self.restore(code=1)
        self.assertEqual(self.everything(), {"/b": b"mine"})


class TestImages(Case):
    def database(self):
        path = os.path.join(self.folder, "db")
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v BLOB)")
        for _ in range(200):
            db.execute("REPLACE INTO t VALUES (?, ?)",
                       (self.random.randrange(1000), self.bytes(self.random.randrange(3000))))
        db.commit()
        db.close()
        with open(path, "rb") as file:
            data = file.read()
        return [data[at:at + 4096] for at in range(0, len(data), 4096)]

    def blocks(self, image, changed):
        held = sorted(changed.items())
        return [pages(image, held[at:at + 64], method=1) for at in range(0, len(held), 64)]

    def test_a_database_over_many_snapshots(self):
        known, rows, states, ids = {}, [], [], []
        for _ in range(6):
            state = self.database()
            changed = {n: p for n, p in enumerate(state) if known.get(n) != p}
            known.update(changed)
            row = self.writer.snapshot([image_entry(b"/var/db", 7, b"".join(state))],
                                       self.blocks(7, changed), rows)
            rows.append(row)
            states.append(b"".join(state))
            ids.append(row.hex)
        for state, part_id in zip(states, ids):
            shutil.rmtree(self.output, ignore_errors=True)
            self.restore(what=part_id[:12])
            self.assertEqual(self.placed("/var/db"), state)
        check = sqlite3.connect(self.output + "/var/db").execute("PRAGMA integrity_check")
        self.assertEqual(check.fetchone()[0], "ok")
        shutil.rmtree(self.output)
        self.restore()
        self.assertEqual(self.placed("/var/db"), states[-1])

    def test_order_twice_held_and_surplus_pages(self):
        p = self.random_pages(12)
        old = self.writer.part([pages(3, [(5, p[0]), (1, p[1]), (9, p[2])]),
                                pages(4, [(0, p[3])], method=1)])
        self.writer.snapshot([
            image_entry(b"/three", 3, p[6] + p[1] + p[5] + p[7] + p[8], kind=2),
        ], [pages(3, [(0, p[4]), (2, p[5]), (0, p[3])]),
            pages(3, [(0, p[9]), (3, p[7]), (4, p[8]), (0, p[6]), (7, p[9]), (1 << 40, p[9])],
                  method=1)],
            [old])
        self.restore()
        self.assertEqual(self.placed("/three"), p[6] + p[1] + p[5] + p[7] + p[8])

    def test_the_lock_page_stays_zero(self):
        size, noise = 65536, self.bytes(65536)
        lock = (1 << 30) // size
        zero = pages(1, [(n, bytes(size)) for n in range(4)], size, method=1)
        held, content = [], [bytes(size)] * lock
        for at in range(0, lock, 4):
            listing = struct.pack("<QB", 1, 16) + varint(at) + b"\2\2\2" + b"".join(
                struct.pack("<Q", page_hash(bytes(size), n).low) for n in range(at, at + 4))
            held.append(block(1, b"", 4, listing, 1, zero[0], 4 * size))
        total = sum(page_hash(page, n).high for n, page in enumerate(content))
        total += page_hash(noise, lock + 1).high
        held.append(pages(1, [(lock, noise), (lock + 1, noise)], size))
        self.writer.snapshot([image_entry(b"/db", 1, b"", size, total=total & M64, count=lock + 2)],
                             held)
        self.restore()
        with open(self.output + "/db", "rb") as file:
            self.assertEqual(os.fstat(file.fileno()).st_size, size * (lock + 2))
            file.seek(size * lock)
            self.assertEqual(file.read(), bytes(size) + noise)

    def test_sums_and_fingerprints_are_checked(self):
        p = self.random_pages(3)
        for total, damaged in ((1, None), (None, 1)):
            held = pages(5, list(enumerate(p)))
            if damaged:
                held = held[0], held[1][:-1] + bytes([held[1][-1] ^ 1])
            self.writer.snapshot([image_entry(b"/db", 5, b"".join(p), total=total)], [held])
            shutil.rmtree(self.output, ignore_errors=True)
            self.restore(code=1)
            self.assertEqual(self.everything(), {})
            self.assertIn("image sum" if total else "fingerprint", self.said)
            self.restore("--no-sums")
            self.assertEqual(self.placed("/db"), b"".join(p))

    def test_a_missing_page_is_an_error(self):
        p = self.random_pages(3)
        self.writer.snapshot([image_entry(b"/db", 5, b"".join(p))],
                             [pages(5, [(0, p[0]), (2, p[2])])])
        self.restore(code=1)
        self.assertIn("page 1", self.said)
        self.assertEqual(self.everything(), {})
        self.restore("--salvage", code=3)
        self.assertEqual(self.everything(), {"/db.damaged": p[0] + bytes(4096) + p[2]})

    def test_memory_is_bounded(self):
        one = self.random_pages(64)
        stored, _ = pages(1, list(enumerate(one)), method=1)
        held, total = [], 0
        for at in range(0, 64 * 800, 64):
            sums = [page_hash(page, at + n) for n, page in enumerate(one)]
            total += sum(s.high for s in sums)
            listing = struct.pack("<QB", 1, 12) + varint(at) + b"\2" * 63 + b"".join(
                struct.pack("<Q", s.low) for s in sums)
            held.append(block(1, b"", 64, listing, 1, stored, 64 * 4096))
        self.writer.snapshot([image_entry(b"/db", 1, b"", total=total & M64, count=64 * 800)], held)
        code = ("import resource, subprocess, sys; c = subprocess.call(sys.argv[1:]); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(c)")
        run = subprocess.run([sys.executable, "-c", code, sys.executable, RESCUE, self.repository,
                              "latest", self.output], stdout=subprocess.PIPE, text=True, check=True)
        self.assertLess(int(run.stdout.split()[-1]), 128 * 1024, run.stdout)
        self.assertEqual(os.path.getsize(self.output + "/db"), 64 * 4096 * 800)


class TestChoice(Case):
    def test_list(self):
        pack = self.writer.part([chunks([b"x"])])
        first = self.writer.snapshot([entry(FILE, b"/a", t18=0)], (), [pack], as_of=10**15)
        second = self.writer.snapshot([], source="t", complete=False)
        self.writer.snapshot([], mark="del")
        listed = json.loads(self.rescue(self.repository, "--json"))
        self.assertEqual([(s["id"], s["source"], s["complete"], s["parts"], s["missing"],
                           s["taken_at"]) for s in listed["snapshots"]],
                         [(first.hex, "s", True, 2, [], "2001-09-09T01:46:40Z"),
                          (second.hex, "t", False, 1, [], listed["snapshots"][1]["taken_at"])])
        os.rename(pack.path, pack.path.replace(".pack", ".bad"))
        text = self.rescue(self.repository, "s")
        self.assertIn("1 of 2 MISSING", text)
        self.assertIn(pack.hex[:12], text)
        self.assertNotIn(second.hex[:12], text)
        self.assertEqual(len(self.rescue(self.repository, "--all").splitlines()), 5)
        self.rescue(self.repository, "nothing", code=1)
        self.rescue(self.folder, code=1)
        self.rescue(self.folder + "/none", code=1)

    def test_one_damaged_snapshot_does_not_hide_the_others(self):
        good = self.writer.snapshot([])
        bad = self.writer.snapshot([])
        with open(bad.path, "r+b") as file:
            file.truncate(100)
        self.assertIn(good.hex[:12], self.rescue(self.repository, code=3))
        self.assertIn(os.path.basename(bad.path), self.said)
        self.restore(code=1)
        self.assertIn(good.hex[:12], self.said)

    def test_latest_is_not_the_old_leaders(self):
        def snapshot(epoch, sequence, name):
            return self.writer.snapshot([entry(FILE, name, t18=0)], epoch=epoch, sequence=sequence)
        snapshot(1, 5, b"/ours")
        old = snapshot(1, 6, b"/the-old-leaders")
        self.writer.epoch(1)
        self.writer.epoch(2, s=[1, 5])
        with open(os.path.join(self.repository, "epoch", "3"), "w", encoding="utf-8"):
            pass    # a number that is spent
        self.restore("-v")
        self.assertEqual(self.everything(), {"/ours": b""})
        self.assertIn("old leader", self.rescue(self.repository))
        shutil.rmtree(self.output)
        snapshot(2, 6, b"/new")
        snapshot(1, 7, b"/the-old-leaders-too")
        self.restore()
        self.assertEqual(self.everything(), {"/new": b""})
        shutil.rmtree(self.output)
        self.restore(what=old.hex[:6])
        self.assertEqual(self.everything(), {"/the-old-leaders": b""})
        self.restore(what=old.hex[:5], code=1)
        self.restore(what="ffffffffffff", code=1)
        self.restore(what="latest:t", code=1)

    def test_a_copy_helps(self):
        p, c = self.random_pages(100), [self.bytes(30000) for _ in range(5)]
        numbered = list(enumerate(p))
        pack = self.writer.part([pages(5, numbered[at:at + 20]) for at in range(0, 100, 20)]
                                + [chunks(c)])
        row = self.writer.snapshot([image_entry(b"/db", 5, b"".join(p)),
                                    entry(FILE, b"/f", t18=150000, t20=runs((1, 1, 0, 5)))],
                                   (), [pack])
        copy = os.path.join(self.folder, "copy")
        shutil.copytree(self.repository, copy)
        for folder, offset in ((self.repository, 90), (copy, 80 + 40 * 4096)):
            with open(pack.path.replace(self.repository, folder), "r+b") as file:
                file.seek(offset)
                file.write(b"damaged")
        os.unlink(row.path)
        self.rescue(copy, "latest", self.output, code=3)
        self.assertIn("offset 163920", self.said)
        self.assertEqual(self.everything(), {"/f": b"".join(c)})
        shutil.rmtree(self.output)
        self.restore("--also", copy)
        self.assertEqual(self.everything(), {"/f": b"".join(c), "/db": b"".join(p)})


class TestDamage(Case):
    def make(self):
        p, c = self.random_pages(40), [self.bytes(3000) for _ in range(20)]
        pack = self.writer.part([pages(5, list(enumerate(p))[:30], method=1), chunks(c[:10]),
                                 chunks(c[10:], method=1)])
        row = self.writer.snapshot([image_entry(b"/db", 5, b"".join(p)),
                                    entry(FILE, b"/f", t18=60000, t20=runs((1, 1, 0, 20)))],
                                   [pages(5, list(enumerate(p))[30:])], [pack])
        return {"/db": b"".join(p), "/f": b"".join(c)}, (pack, row)

    def test_a_flipped_bit_or_a_cut_never_passes(self):
        truth, parts = self.make()
        for turn in range(TURNS):
            part = self.random.choice(parts)
            with open(part.path, "rb") as file:
                data = bytearray(file.read())
            spot = self.random.choice([self.random.randrange(len(data)), len(data) - 1 - turn,
                                       turn, len(data) - 400 + turn])
            changed = data[:spot] if turn % 4 == 0 else (
                data[:spot] + bytes([data[spot] ^ 1 << self.random.randrange(8)]) + data[spot + 1:])
            with open(part.path, "wb") as file:
                file.write(changed)
            shutil.rmtree(self.output, ignore_errors=True)
            self.restore(code=None)
            found = self.everything() if os.path.exists(self.output) else {}
            note = f"SYNCD_TEST_SEED={self.seed} turn {turn} byte {spot}: {self.said}"
            self.assertNotEqual(self.code, 0, note)
            self.assertEqual(found, {path: truth[path] for path in found}, note)
            self.assertIn(part.hex[:12], self.said)
            with open(part.path, "wb") as file:
                file.write(data)
        shutil.rmtree(self.output, ignore_errors=True)
        self.restore()
        self.assertEqual(self.everything(), truth)

    def test_salvage_keeps_what_is_whole(self):
        truth, (pack, _) = self.make()
        with open(pack.path, "r+b") as file:
            file.seek(100)
            file.write(b"damaged")
        self.restore("--salvage", code=3)
        self.assertEqual(self.everything(), {
            "/f": truth["/f"], "/db.damaged": bytes(30 * 4096) + truth["/db"][30 * 4096:]})

    def test_blocks_that_are_not_what_they_say(self):
        text = b"some text " * 1000
        frame = compress(text)
        for number, (stored, raw) in enumerate((
                (compress(text, content_size=False), text),     # allowed
                (compress(text, content_size=False), text[:-1]),
                (compress(text, content_size=False), text + b"1"),
                (frame, text[:-1]), (frame, text + b"1"), (frame + frame, text + text),
                (frame + compress(b""), text), (frame[:-1], text),
                (frame + b"1", text), (b"no frame at all", text),
                (b"\x50\x2a\x4d\x18\0\0\0\0" + frame, text),
                (compress(bytes(1 << 27)), text),
                (compress(bytes(1 << 27), content_size=False), text),
                (compress(bytes(1 << 27)), bytes(262144)))):
            self.writer.snapshot(
                [entry(FILE, b"/f", t18=len(raw), t20=runs((1, number + 1, 0, 1))),
                 entry(FILE, b"/g", t18=3, t20=runs((1, number + 1, 1, 1)))],
                [numbered_chunks([raw], method=1, stored=stored), numbered_chunks([b"abc"])])
            shutil.rmtree(self.output, ignore_errors=True)
            self.restore(code=0 if number == 0 else 3)
            self.assertEqual(self.everything(),
                             {"/g": b"abc"} if number else {"/f": text, "/g": b"abc"})
        here = self.writer.sequence + 1
        self.writer.snapshot([entry(FILE, b"/f", t18=3, t20=runs((1, here, 0, 1)))],
                             [Numbered(block(2, b"abc", 1, blake(b"abd", 16, SEED) + b"\3"), 1)])
        shutil.rmtree(self.output)
        self.restore(code=1)
        self.assertIn("another chunk", self.said)

    def test_parts_that_are_not_what_they_say(self):
        good = [entry(FILE, b"/f", t18=0)]
        for more in ({"version": 3}, {"version": 0}, {"flags": 1}, {"repository": bytes(16)},
                     {"header_source": "t"}, {"shown_id": "ab" * 32}):
            self.writer.snapshot(good, **more)
            self.restore(code=1)
            self.rescue(self.repository, code=1)
            shutil.rmtree(os.path.join(self.repository, "s"))
        huge = varint(1 << 63)
        page = struct.pack("<QB", 1, 12)
        for listing in (
                block(3, b"abc", 1, b""), block(2, b"abc", 1, bytes(16) + b"\2"),
                block(2, b"abc", 1, bytes(16) + b"\x83\0"), block(1, b"abc", 1, page + b"\0"),
                (b"abc", b"\2\0" + huge), (b"abc", b"\2\2" + b"\3\3" + blake(b"abc") + b"\1"),
                (b"abc", b"\2\0\3\3" + blake(b"abc") + huge),
                (b"abcd", block(2, b"abc", 1, bytes(16) + b"\3")[1])):
            self.writer.part([listing], lambda *_: b"", mark="snap")
            self.rescue(self.repository, code=1)
            self.assertIn("metadata", self.said)
            shutil.rmtree(os.path.join(self.repository, "s"))

    def test_bad_sections(self):
        def section(parts, entry_bytes=0, at=b"\0", rest=b""):
            return lambda *_: struct.pack("<QB", 1, 1) + parts + varint(entry_bytes) + at + rest
        one = b"\1\1\0\1" + bytes(32)
        for number, bad in enumerate((
                section(varint(1 << 60)), section(b"\1"), section(b"\2" + one + one),
                section(b"\0", rest=b"\0"), section(b"\0", at=varint(1 << 60)))):
            self.writer.part((), bad, sequence=number + 1)
        self.rescue(self.repository, code=1)
        self.writer.part((), section(b"\0", 5, runs((1, 9, 0, 1))), sequence=9)
        self.restore(code=1)
        self.assertIn("chunks", self.said)
        self.writer.part((), section(b"\0", 5, runs((1, 8, 0, 1))), sequence=10)
        self.restore(code=1)
        self.assertIn("not listed", self.said)


class TestHostile(Case):
    def test_nothing_leaves_the_folder(self):
        outside = os.path.join(self.folder, "outside")
        os.makedirs(outside)
        with open(outside + "/secret", "w", encoding="utf-8") as file:
            file.write("secret")
        relative = os.path.relpath(outside, self.output).encode()
        self.writer.snapshot([
            entry(FILE, b"/../outside/x", t18=0),
            entry(FILE, b"/./x", t18=0),
            entry(FILE, b"//x", t18=0),
            entry(FILE, b"/a/../../outside/x", t18=0),
            entry(SYMLINK, b"/link", t22=outside.encode()),
            entry(HARD_LINK, b"/link/hard", t22=b"/ok"),
            entry(FILE, b"/link/x", t18=0),
            entry(HARD_LINK, b"/linked", t22=b"/link/secret"),
            entry(HARD_LINK, b"/linked2", t22=b"/../outside/secret"),
            entry(HARD_LINK, b"/linked3", t22=outside.encode() + b"/secret"),
            entry(HARD_LINK, b"/linked4", t22=b"/"),
            entry(FILE, b"/ok", t18=0),
            entry(SYMLINK, b"/relative", t22=relative),
            image_entry(b"/relative/db", 1, b"", count=0),
            entry(SYMLINK, b"/secret", t22=outside.encode() + b"/secret"),
            entry(HARD_LINK, b"/secret-too", t22=b"/secret"),
            entry(FILE, b"/x\0y", t18=0),
            entry(FILE, b"/x/", t18=0),
            entry(DUMP, b"a/../../../outside/x", t18=0),
            entry(CONFIG, b"relative/x", t18=0),
            entry(FILE, b"x", t18=0),
        ])
        self.restore(code=3)
        self.assertEqual(os.listdir(outside), ["secret"])
        self.assertEqual(os.stat(outside + "/secret").st_nlink, 1)
        self.assertEqual(self.everything(), {
            "/link": outside, "/ok": b"", "/relative": os.fsdecode(relative),
            "/secret": outside + "/secret", "/secret-too": outside + "/secret"})
        self.assertEqual(sorted(os.listdir(self.folder)), ["out", "outside", "repo"])

    def test_a_folder_below_a_link_is_a_folder_below_the_output(self):
        outside = os.path.join(self.folder, "outside")
        os.makedirs(outside, 0o755)
        self.writer.snapshot([entry(SYMLINK, b"/link", t22=outside.encode()),
                              entry(DIRECTORY, b"/link/d", t6=0o777),
                              entry(FILE, b"/link/d/x", t18=0)])
        self.restore(code=3)
        self.assertEqual(os.listdir(outside), [])
        self.assertEqual(self.everything(), {"/link": None, "/link/d": None, "/link/d/x": b""})
        shutil.rmtree(self.output)
        os.makedirs(self.output)
        os.symlink(outside, self.output + "/link")
        self.restore(code=1)
        self.assertEqual(os.listdir(outside), [])

    def test_bad_entries_do_not_stop_the_good(self):
        big = struct.pack("<QBBQQ", 1, 1, 12, 1 << 62, 0)
        self.writer.snapshot([
            entry(FILE, b"/a", t18=1 << 63),
            entry(FILE, b"/a", t18=0),
            entry(FILE, b"/a", t18=0),
            entry(FILE, b"/b", t18=5, t20=runs((1, 1, 0, 1 << 40))),
            entry(FILE, b"/c", t18=1 << 50),
            entry(FILE, b"/d", t18=0, t20=varint(1 << 60)),
            entry(IMAGE, b"/e", t16=big),
            image_entry(b"/f", 1, b"", count=1 << 30),
            entry(9, b"/g"),
            entry(FILE, b"/h", t18=0, t28=b""),
            entry(FILE, b"/i", t18=0, t29=b"skipped"),
            entry(FILE, b"/j", t18=10, t26=varint(5) + varint(6)),
            entry(FILE, b"/k", t18=0, t12=varint(M64), t8=1 << 60),
            entry(SYMLINK, b"/l", t22=b""),
            fields(t2=b"\1\1", t4=b"/m"),
            entry(FILE, b"/n", t18=0, t24=varint(3) + b"bad" + varint(0)),
            entry(FILE, b"/o" * 2500, t18=0),
            entry(FILE, b"/p" + b"p" * 255, t18=0),
            varint(2) + b"\4\x7f",
            entry(FILE, b"/z", t18=0),
        ])
        self.restore(code=3)
        self.assertEqual({p: c for p, c in self.everything().items() if p != "/k"},
                         {p: b"" for p in ("/a", "/i", "/n", "/z")})

    def mutate(self, data):
        """One small change anywhere, of a kind that parsers dislike."""
        at = self.random.randrange(len(data))
        change = self.random.randrange(4)
        if change == 0:
            data[at] ^= 1 << self.random.randrange(8)
        elif change == 1:
            del data[at:at + self.random.randrange(1, 20)]
        elif change == 2:
            data[at:at] = self.bytes(self.random.randrange(1, 12))
        else:
            data[at:at + self.random.randrange(10)] = varint(
                self.random.choice((0, 127, 5000, 1 << 20, 1 << 32, 1 << 63, M64)))

    def test_nonsense_with_right_digests(self):
        p, c = self.random_pages(12), [self.bytes(300) for _ in range(8)]
        pack = self.writer.part([chunks(c, method=1), pages(5, list(enumerate(p))[:8], method=1)])
        entries = [
            entry(DIRECTORY, b"/d", t12=2 * 10**18),
            entry(FILE, b"/d/a", t18=900, t20=runs((1, 1, 0, 3)),
                  t24=varint(6) + b"user.a" + varint(1) + b"x"),
            image_entry(b"/d/db", 5, b"".join(p)),
            entry(HARD_LINK, b"/d/h", t22=b"/d/a"), entry(SYMLINK, b"/d/l", t22=b".."),
            entry(FILE, b"/d/s", t18=1300, t26=varint(100) + varint(1000), t20=runs((1, 1, 5, 1)))]
        for turn in range(TURNS):
            listing = bytearray(b"".join(entries))
            if turn % 2:
                self.mutate(listing)
            row = self.writer.snapshot([bytes(listing)], [pages(5, list(enumerate(p))[8:])], [pack],
                                       sequence=2)
            path = row.path if turn % 2 else self.mutate_metadata(row.path)
            self.restore(*["--salvage"][:turn // 2 % 2], code=None)
            note = f"SYNCD_TEST_SEED={self.seed} turn {turn}: {self.said}"
            self.assertIn(self.code, (0, 1, 3), note)
            self.assertEqual(set(os.listdir(self.folder)) - {"out"}, {"repo"}, note)
            for base, _, files in os.walk(self.output):
                self.assertFalse([name for name in files if name.endswith(".tmp")], note)
                os.chmod(base, 0o700)
            shutil.rmtree(self.output, ignore_errors=True)
            os.unlink(path)

    def mutate_metadata(self, path):
        """Changes a part's metadata and makes its id right again; answers with the new path."""
        with open(path, "rb") as file:
            data = file.read()
        begin = len(data) - 48 - int.from_bytes(data[-48:-40], "little")
        body = bytearray(data[begin + 80:-48])
        self.mutate(body)
        metadata = data[begin:begin + 80] + body
        part_id = blake(metadata)
        os.unlink(path)
        path = path[:-69] + part_id.hex() + path[-5:]
        with open(path, "wb") as file:
            file.write(data[:begin] + metadata
                       + struct.pack("<Q32s8s", len(metadata), part_id, b"syncdend"))
        return path

    def test_special_files_in_the_repository(self):
        row = self.writer.snapshot([entry(FILE, b"/a", t18=0)])
        os.unlink(row.path)
        os.mkfifo(row.path)
        self.restore(code=1)
        os.unlink(row.path)
        os.symlink("/etc/passwd", row.path)
        self.restore(code=1)

    def test_a_cut_entry_list(self):
        self.writer.snapshot([entry(FILE, b"/a", t18=0), varint(300) + b"x"])
        self.restore(code=1)
        self.writer.snapshot([entry(FILE, b"/a", t18=0), varint(1 << 21)])
        self.restore(code=1)


class TestXxh3(unittest.TestCase):
    syncd_level = "quick"

    def test_python_equals_the_library(self):
        spec = importlib.util.spec_from_file_location("rescue", RESCUE)
        rescue = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(rescue)
        noise = random.Random(1)
        for size in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 241, 1023, 1025, 4161):
            for seed in (0, 1, 0x123456789ABCDEF, 1 << 63, M64):
                data = noise.getrandbits(8 * size).to_bytes(size, "little")
                expected = xxhash(data, size, seed)
                self.assertEqual(rescue.xxh3_128_python(data, seed), (expected.low, expected.high))


if __name__ == "__main__":
    unittest.main()
