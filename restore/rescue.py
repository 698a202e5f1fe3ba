#!/usr/bin/env python3
"""Gets data back from a syncd repository without syncd: with Python 3.9 and the program zstd.

  rescue.py [options] REPOSITORY [SOURCE]               lists the snapshots
  rescue.py [options] REPOSITORY SNAPSHOT OUTPUT        restores one below the folder OUTPUT

REPOSITORY is the folder that holds syncd.repo, or a copy of it. SNAPSHOT is an id as listed (six
digits or more), "latest", or "latest:SOURCE". Each entry goes to OUTPUT/<its absolute path>,
PostgreSQL dumps and the config to OUTPUT/<source>/. Nothing that is there already is overwritten
and nothing is written outside OUTPUT, whatever the repository says. Every block and chunk is
checked against its digest, every database image against its sum.

Exit: 0 all is well; 1 nothing was restored or listed; 2 usage; 3 some of it is missing.

Written from snapshot/FORMAT.md alone; that page explains every name used here.
"""

import argparse
import array
import bisect
import collections
import concurrent.futures
import ctypes
import datetime
import errno
import grp
import hashlib
import itertools
import json
import operator
import os
import pwd
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile

HEADER, TRAILER = 80, 48
MAX_METADATA = 64 << 20
MAX_BLOCK = 262144
MAX_BLOCKS = 1048576
MAX_ITEMS = 4194304
MAX_LISTED = 65536
MAX_RECORD = 8 << 20
MAX_PATH = 4096
MAX_PAGES = 1 << 32
BATCH = 32                  # blocks that one zstd process decompresses
METADATA_CACHE = 48 << 20   # bytes of metadata kept in memory
WINDOW_FILES = 500          # files written at the same time
WINDOW_SPANS = 20000        # pieces of blocks planned ahead

PAGES, CHUNKS = 1, 2
COLUMNS = 2                     # method of a block
KNOWN_TAGS = range(2, 27, 2)
FILE, DIRECTORY, SYMLINK, HARD_LINK, IMAGE, DUMP, CONFIG = range(1, 8)
SQLITE, BOLT = 1, 2

STEM = re.compile(r"([0-9]{4,10})-([0-9]{8,20})-([0-9]{8}T[0-9]{6}Z)-([0-9a-f]{64})"
                  r"\.(snap|pack|del)")
SOURCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class Damage(Exception):
    """Something in the repository, or in the way of restoring it, in one line."""


class Full(Exception):
    """No space: nothing else will fit either."""


def warn(text):
    print(f"rescue.py: {text}", file=sys.stderr)


def show(path):
    """A path or name from the repository, safe to print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1]
                   for c in os.fsdecode(path).encode("utf-8", "backslashreplace").decode())


def show_time(micros):
    try:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=micros)
        return moment.isoformat(" ", "seconds") + "Z"
    except OverflowError:
        return f"{micros} us"


# ---- numbers -----------------------------------------------------------------------------------

HIGH_BYTES = bytes(range(128, 256))


class Cursor:
    """Reads fields one after the other; what runs past the end is Damage."""

    def __init__(self, data, at=0, what="metadata"):
        self.data, self.at, self.what = data, at, what

    def wrong(self, why):
        return Damage(f"{self.what}, byte {self.at}: {why}")

    def take(self, count):
        if count > len(self.data) - self.at:
            raise self.wrong(f"ends where {count} more bytes were expected")
        self.at += count
        return self.data[self.at - count:self.at]

    def unsigned(self, count):
        return int.from_bytes(self.take(count), "little")

    def varint(self):
        value = shift = 0
        for at in range(self.at, min(self.at + 10, len(self.data))):
            byte = self.data[at]
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64 or (byte == 0 and shift):
                    break
                self.at = at + 1
                return value
            shift += 7
        raise self.wrong("is not a varint")

    def zigzag(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def skip_varints(self, count):
        while count:
            span = self.take(count)
            count -= len(span.translate(None, HIGH_BYTES))

    def bounded(self, low, high, what):
        value = self.varint()
        if not low <= value <= high:
            raise self.wrong(f"{what} is {value}; {low} to {high} are allowed")
        return value

    def ended(self):
        return self.at == len(self.data)


def read_runs(cursor):
    """Runs of chunks: (epoch, sequence, first chunk, number of chunks)."""
    count = cursor.bounded(0, MAX_RECORD, "number of runs")
    return [(cursor.varint(), cursor.varint(), cursor.varint(), cursor.varint())
            for _ in range(count)]


# ---- XXH3-128, for inputs over 240 bytes (xxHash 0.8's published algorithm) ---------------------

M64 = (1 << 64) - 1
PRIME32 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
PRIME64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
           0x27D4EB2F165667C5)
SECRET = struct.unpack("<24Q", bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"))


def xxh3_accumulate(lanes, data, secret):
    """Adds whole 64-byte stripes; each stripe's key begins 8 bytes further in the secret."""
    count = len(data) // 64
    key = b"".join([secret[8 * n:8 * n + 64] for n in range(count)])
    mixed = (int.from_bytes(data, "little") ^ int.from_bytes(key, "little"))
    words = struct.unpack(f"<{8 * count}Q", data)
    halves = struct.unpack(f"<{16 * count}I", mixed.to_bytes(64 * count, "little"))
    for i in range(8):
        products = map(operator.mul, halves[2 * i::16], halves[2 * i + 1::16])
        lanes[i] = (lanes[i] + sum(words[i ^ 1::8]) + sum(products)) & M64


def xxh3_merge(lanes, key, start):
    for i in range(0, 8, 2):
        product = (lanes[i] ^ key[i]) * (lanes[i + 1] ^ key[i + 1])
        start += (product & M64) ^ (product >> 64)
    start &= M64
    start = (start ^ start >> 37) * 0x165667919E3779F9 & M64
    return start ^ start >> 32


def xxh3_128_python(data, seed):
    """(low, high) of XXH3-128 of more than 240 bytes; some 30 MB/s."""
    secret = struct.pack("<24Q", *[(w - seed if n & 1 else w + seed) & M64
                                   for n, w in enumerate(SECRET)])
    lanes = [PRIME32[2], PRIME64[0], PRIME64[1], PRIME64[2],
             PRIME64[3], PRIME32[1], PRIME64[4], PRIME32[0]]
    size = len(data)
    last = (size - 1) // 1024 * 1024
    scramble = struct.unpack_from("<8Q", secret, 128)
    for at in range(0, last, 1024):
        xxh3_accumulate(lanes, data[at:at + 1024], secret)
        lanes = [(lane ^ lane >> 47 ^ key) * PRIME32[0] & M64
                 for lane, key in zip(lanes, scramble)]
    stripes = (size - 1 - last) // 64
    if stripes:
        xxh3_accumulate(lanes, data[last:last + 64 * stripes], secret)
    xxh3_accumulate(lanes, data[-64:], secret[121:])
    return (xxh3_merge(lanes, struct.unpack_from("<8Q", secret, 11), size * PRIME64[0]),
            xxh3_merge(lanes, struct.unpack_from("<8Q", secret, 117), ~(size * PRIME64[1]) & M64))


def find_xxh3():
    """The same from the library where there is one: a hundred times faster."""
    class Halves(ctypes.Structure):
        _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]
    try:
        function = ctypes.CDLL("libxxhash.so.0").XXH3_128bits_withSeed
    except (OSError, AttributeError):
        return xxh3_128_python
    function.restype = Halves
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]

    def xxh3_128_library(data, seed):
        halves = function(data, len(data), seed)
        return halves.low, halves.high
    sample = bytes(range(256)) * 5
    if xxh3_128_library(sample, 7) != xxh3_128_python(sample, 7):
        return xxh3_128_python
    return xxh3_128_library


# ---- zstd --------------------------------------------------------------------------------------

def frame_content_size(data):
    """What one zstd frame says it decompresses to, None when it does not say; Damage unless the
    bytes are exactly one frame. So frames can be decompressed together and told apart."""
    try:
        if data[:4] != b"\x28\xb5\x2f\xfd" or data[4] & 8:
            raise Damage("is no zstd frame")
        descriptor, at = data[4], 5
        single = descriptor >> 5 & 1
        at += (0, 1, 2, 4)[descriptor & 3] + 1 - single
        width = (single, 2, 4, 8)[descriptor >> 6]
        size = int.from_bytes(data[at:at + width], "little") + (256 if width == 2 else 0)
        at += width
        last = 0
        while not last:
            block = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            last, kind = block & 1, block >> 1 & 3
            at += 3 + (1 if kind == 1 else block >> 3)
        at += 4 * (descriptor >> 2 & 1)
    except IndexError:
        raise Damage("is a cut zstd frame") from None
    if at != len(data):
        raise Damage("is not exactly one zstd frame")
    return size if width else None


def scratch_file():
    """A file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("rescue"), "w+b")
    return tempfile.TemporaryFile()


def decompress(frames, length):
    """The bytes that the frames hold together, None unless they are exactly length."""
    with scratch_file() as source:
        source.write(b"".join(frames))
        source.seek(0)
        with subprocess.Popen(["zstd", "-dcq"], stdin=source, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as zstd:
            raw = zstd.stdout.read(length + 1)
            zstd.stdout.close()     # ends it when it has more to say
            return raw if zstd.wait() == 0 and len(raw) == length else None


# ---- pages as columns --------------------------------------------------------------------------

class Columns:
    """The streams that a block's pages are made of (FORMAT.md 2.5)."""

    NAMES = ("rest", "shapes", "headers", "high", "low", "rowids")
    PER_KIND = 16

    def __init__(self, data):
        cursor = Cursor(data, 0, "columns")
        lengths = [cursor.varint() for _ in range(len(self.NAMES) + 2 * self.PER_KIND)]
        streams = [Cursor(cursor.take(length), 0, f"stream {number} of its columns")
                   for number, length in enumerate(lengths)]
        if not cursor.ended():
            raise cursor.wrong("more than its streams")
        self.streams = streams
        for name, stream in zip(self.NAMES, streams):
            setattr(self, name, stream)

    def pages(self, size, count):
        raw = b"".join(self.page(size) for _ in range(count))
        for stream in self.streams:
            if not stream.ended():
                raise stream.wrong("bytes that belong to no page")
        return raw

    def page(self, size):
        head = self.rest.data[self.rest.at:self.rest.at + 8]
        if len(head) < 8:
            raise self.rest.wrong("no page's head")
        cells = head[3] << 8 | head[4]
        if head[0] not in (0x0d, 0x0a) or not 1 <= cells <= (size - 8) // 2:
            return self.rest.take(size)
        page, used = bytearray(size), bytearray(size)
        used[8:8 + 2 * cells] = b"\1" * (2 * cells)
        rows = self.rows(page, used, head[0] == 0x0d, self.pointers(page, cells))
        self.values(page, rows, len(self.NAMES) + (self.PER_KIND if head[0] == 0x0a else 0))
        at = 0
        while (at := used.find(0, at)) >= 0:
            end = used.find(1, at)
            end = size if end < 0 else end
            page[at:end] = self.rest.take(end - at)
            at = end
        return bytes(page)

    def pointers(self, page, cells):
        at, found = len(page), []
        for high, low in zip(self.high.take(cells), self.low.take(cells)):
            at = at - (high << 8 | low) & 0xffff
            found.append(at)
        page[8:8 + 2 * cells] = struct.pack(f">{cells}H", *found)
        return found

    def rows(self, page, used, is_table, pointers):
        """What stands before the columns; answers with (where they begin, their widths)."""
        shapes, rows, rowid = [], [], 0
        for at, number in zip(pointers, self.shapes.take(len(pointers))):
            if number == 255:
                continue
            if number == len(shapes):
                shapes.append(self.shape())
            if number >= len(shapes):
                raise self.shapes.wrong(f"a shape {number} of {len(shapes)}")
            header, widths = shapes[number]
            cell = sqlite_varint(len(header) + sum(widths))
            if is_table:
                rowid = rowid + self.rowids.zigzag() & M64
                cell += sqlite_varint(rowid)
            cell += header
            begin, end = at + len(cell), at + len(cell) + sum(widths)
            if end > len(page) or used.find(1, at, end) >= 0 or at < 8:
                raise self.shapes.wrong(f"a row at {at} that has no place")
            page[at:begin] = cell
            used[at:end] = b"\1" * (end - at)
            rows.append((begin, widths))
        return rows

    def shape(self):
        """A record header and the widths of its columns."""
        length = self.headers.bounded(1, 127, "length of a record header")
        header, widths = Cursor(self.headers.take(length - 1), 0, "a record header"), []
        while not header.ended():
            kind = sqlite_varint_read(header)
            if kind in (10, 11) or len(widths) == 64:
                raise header.wrong(f"serial type {kind} of column {len(widths)}")
            widths.append((0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind] if kind < 12 else (kind - 12) // 2)
        return bytes([length]) + header.data, widths

    def values(self, page, rows, first_stream):
        for column in range(max((len(widths) for _, widths in rows), default=0)):
            stream = self.streams[first_stream + min(column, self.PER_KIND - 1)]
            having = [(at + sum(widths[:column]), widths[column]) for at, widths in rows
                      if column < len(widths)]
            width = having[0][1]
            if 2 <= width <= 64 and all(w == width for _, w in having):
                planes = stream.take(width * len(having))
                for number, (at, _) in enumerate(having):
                    page[at:at + width] = planes[number::len(having)]
            else:
                for at, width in having:
                    page[at:at + width] = stream.take(width)


def sqlite_varint(value):
    """Big-endian, seven bits a byte; of nine bytes the last is whole."""
    if value >> 56:
        return bytes([value >> 57 - 7 * i & 127 | 128 for i in range(8)] + [value & 255])
    out = [value & 127]
    while value := value >> 7:
        out.append(value & 127 | 128)
    return bytes(reversed(out))


def sqlite_varint_read(cursor):
    value = 0
    for _ in range(8):
        byte = cursor.unsigned(1)
        value = value << 7 | byte & 127
        if byte < 128:
            return value
    return value << 8 | cursor.unsigned(1)


# ---- parts -------------------------------------------------------------------------------------

class Part:
    """One immutable file of a repository, which may lie in several folders."""

    def __init__(self, source, epoch, sequence, part_id):
        self.source, self.epoch, self.sequence, self.id = source, epoch, sequence, part_id
        self.copies = []        # (path, mark, size)
        self.metadata = None    # None while not loaded
        self.image_ids = None   # known once it has been loaded, and kept

    def __str__(self):
        return f"{self.source}/{os.path.basename(self.copies[0][0])}"

    def open(self, copy):
        fd = os.open(self.copies[copy][0], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("is not a file")
        return fd

    def each_copy(self, read):
        """read(fd, copy) of the first copy with which it works."""
        trouble = []
        for copy, (path, _, _) in enumerate(self.copies):
            try:
                fd = self.open(copy)
                try:
                    return read(fd, copy)
                finally:
                    os.close(fd)
            except (Damage, OSError) as e:
                why = e.strerror or e if isinstance(e, OSError) else e
                trouble.append(f"{show(path) if copy else self}: {why}")
        raise Damage("; ".join(trouble))

    def load(self, repository):
        """Reads and checks the metadata; the block table stays until unload()."""
        if self.metadata is None:
            try:
                self.each_copy(lambda fd, copy: self.read_metadata(fd, repository))
            except Damage:
                self.unload()
                raise
        return self

    def unload(self):
        self.metadata = self.images = self.blocks = self.chunk_ends = None

    def read_metadata(self, fd, repository):
        size = os.fstat(fd).st_size
        if size < HEADER + HEADER + TRAILER:
            raise Damage(f"is cut: {size} bytes")
        header = os.pread(fd, HEADER, 0)
        trailer = os.pread(fd, TRAILER, size - TRAILER)
        length = int.from_bytes(trailer[:8], "little")
        if trailer[40:] != b"syncdend":
            raise Damage(f"is cut or damaged: no trailer at offset {size - TRAILER}")
        if not HEADER <= length <= min(MAX_METADATA, size - HEADER - TRAILER):
            raise Damage(f"trailer at offset {size - TRAILER}: metadata of {length} bytes")
        self.size, self.metadata_at = size, size - TRAILER - length
        metadata = read_exactly(fd, length, self.metadata_at)
        part_id = hashlib.blake2b(metadata, digest_size=32).hexdigest()
        if part_id != self.id or trailer[8:40].hex() != self.id:
            raise Damage(f"metadata at offset {self.metadata_at} is damaged: its digest is "
                         f"{part_id[:12]}, the name says {self.id[:12]}")
        if metadata[:HEADER] != header:
            raise Damage("header at offset 0 differs from its copy in the metadata")
        self.check_header(header, repository)
        self.metadata = metadata
        self.read_blocks()

    def check_header(self, header, repository):
        magic, version, flags, epoch, sequence, begun, repository_id, source = struct.unpack(
            "<8sHHIQQ16s32s", header)
        if magic != b"syncdprt":
            raise Damage("header at offset 0: this is no part of syncd")
        if version not in (1, 2) or flags != 0:
            raise Damage(f"header at offset 8: version {version}, flags {flags:#x}; this program "
                         "reads versions 1 and 2 without flags: get a newer one")
        if (epoch, sequence) != (self.epoch, self.sequence):
            raise Damage(f"header at offset 12 says {epoch}-{sequence}, unlike the name")
        if source.rstrip(b"\0") != self.source.encode():
            raise Damage(f"header at offset 48: it belongs to the source {show(source)}")
        if repository.id and repository_id != repository.id:
            raise Damage(f"header at offset 32: belongs to the repository {repository_id.hex()}")
        self.begun = begun

    def read_blocks(self):
        """The block table, in arrays: a part may have a million blocks."""
        cursor = self.cursor(HEADER)
        count = cursor.bounded(0, MAX_BLOCKS, "number of blocks")
        self.blocks = {name: array.array(code) for name, code in (
            ("kind", "B"), ("method", "B"), ("stored", "I"), ("raw", "I"), ("offset", "Q"),
            ("digest_at", "I"), ("list_at", "I"), ("count", "I"), ("first", "I"))}
        self.chunk_ends = array.array("Q")
        self.images = {}
        offset, items = HEADER, 0
        for number in range(count):
            kind, method = cursor.unsigned(1), cursor.unsigned(1)
            stored = cursor.bounded(1, MAX_BLOCK, "stored length")
            raw = cursor.bounded(1, MAX_BLOCK, "raw length")
            digest_at = cursor.at
            cursor.take(32)
            held = cursor.bounded(1, MAX_ITEMS - items, "number of pages or chunks")
            if (kind not in (PAGES, CHUNKS) or method > COLUMNS or (method == 0 and stored != raw)
                    or (method == COLUMNS and kind != PAGES)):
                raise cursor.wrong(f"block {number} of kind {kind}, method {method}, lengths "
                                   f"{stored} and {raw}")
            row = (kind, method, stored, raw, offset, digest_at, cursor.at, held,
                   len(self.chunk_ends))
            for column, value in zip(self.blocks.values(), row):
                column.append(value)
            if kind == PAGES:
                self.skip_pages(cursor, number, held, raw)
            else:
                self.read_chunks(cursor, number, held, raw)
            offset += stored
            items += held
        if offset != self.metadata_at:
            raise Damage(f"is {self.size} bytes long, but its blocks end at offset {offset} and "
                         f"its metadata begin at {self.metadata_at}")
        self.section_at = cursor.at
        self.image_ids = frozenset(self.images)

    def skip_pages(self, cursor, number, held, raw):
        image, logarithm = cursor.unsigned(8), cursor.unsigned(1)
        if not 9 <= logarithm <= 16 or held << logarithm != raw:
            raise cursor.wrong(f"block {number}: {held} pages of 2^{logarithm} bytes in {raw}")
        cursor.skip_varints(held)
        cursor.take(8 * held)
        self.images.setdefault(image, array.array("I")).append(number)

    def read_chunks(self, cursor, number, held, raw):
        before = at = self.chunk_ends[-1] if self.chunk_ends else 0
        for _ in range(held):
            cursor.take(16)
            at += cursor.bounded(0, raw, "length of a chunk")
            self.chunk_ends.append(at)
        if at - before != raw:
            raise cursor.wrong(f"block {number}: chunks of {at - before} bytes in {raw}")

    def cursor(self, at):
        return Cursor(self.metadata, at, f"metadata at offset {self.metadata_at}")

    def pages(self, number):
        """(logarithm, page numbers, where the fingerprints are) of a block of pages."""
        cursor = self.cursor(self.blocks["list_at"][number])
        cursor.take(8)
        logarithm, count = cursor.unsigned(1), self.blocks["count"][number]
        first = cursor.varint()
        steps = self.metadata[cursor.at:cursor.at + count - 1]
        if steps.isascii():
            cursor.at += count - 1
            if steps == b"\2" * (count - 1):
                return logarithm, range(first, first + count), cursor.at
            steps = [step >> 1 ^ -(step & 1) for step in steps]
        else:
            steps = [cursor.zigzag() for _ in range(count - 1)]
        return logarithm, list(itertools.accumulate(steps, initial=first)), cursor.at

    def chunk_start(self, index):
        return self.chunk_ends[index - 1] if index else 0

    def section(self):
        """The snapshot section as a Snapshot without entries, None when there is none."""
        cursor = self.cursor(self.section_at)
        there = cursor.unsigned(1)
        section = Snapshot(self, cursor) if there == 1 else None
        if there > 1 or not cursor.ended():
            raise cursor.wrong("bytes that do not belong here")
        return section

    def stored(self, number):
        """A block's stored bytes, digest checked, from the first copy that has them whole."""
        table = self.blocks
        offset, length = table["offset"][number], table["stored"][number]
        digest = self.metadata[table["digest_at"][number]:][:32]

        def read(fd, _):
            data = read_exactly(fd, length, offset)
            if hashlib.blake2b(data, digest_size=32).digest() != digest:
                raise Damage(f"block {number} at offset {offset} is damaged (digest differs)")
            return data
        return self.each_copy(read)

    def decode(self, numbers):
        """The raw bytes, or the Damage, of up to BATCH blocks by number."""
        found, frames = {}, {}
        for number in numbers:
            raw = self.blocks["raw"][number]
            try:
                found[number] = data = self.stored(number)
                method = self.blocks["method"][number]
                if method:
                    size = frame_content_size(data)
                    if method == COLUMNS and (size is None or size > MAX_BLOCK):
                        raise Damage(f"holds columns of {size} bytes")
                    if size is None:
                        found[number] = self.decode_frame(number, data, raw)
                    elif size == raw or method == COLUMNS:
                        frames[number] = data, size
                    else:
                        raise Damage(f"holds {size} bytes, {raw} are recorded")
            except Damage as e:
                found[number] = e if ": block " in str(e) else self.block_damage(number, e)
        length = sum(size for _, size in frames.values())
        together = decompress([data for data, _ in frames.values()], length) if frames else None
        at = 0
        for number, (data, size) in frames.items():
            if together is not None:
                found[number] = together[at:at + size]
                at += size
            else:
                found[number] = self.decode_frame(number, data, size)
            if self.blocks["method"][number] == COLUMNS and not isinstance(found[number], Damage):
                found[number] = self.join(number, found[number])
        return found

    def decode_frame(self, number, data, size):
        raw = decompress([data], size)
        return self.block_damage(number, "does not decompress") if raw is None else raw

    def join(self, number, data):
        """The pages of a block from their columns, or the Damage."""
        try:
            return Columns(data).pages(1 << self.pages(number)[0], self.blocks["count"][number])
        except Damage as e:
            return self.block_damage(number, e)

    def block_damage(self, number, why):
        return Damage(f"{self}: block {number} at offset {self.blocks['offset'][number]} {why}")

    def check_chunks(self, number, raw, seed):
        """Compares the ids of a block's chunks; None or Damage."""
        table = self.blocks
        cursor = self.cursor(table["list_at"][number])
        at = 0
        for index in range(table["count"][number]):
            chunk_id = cursor.take(16)
            length = cursor.varint()
            if hashlib.blake2b(raw[at:at + length], digest_size=16, key=seed).digest() != chunk_id:
                return self.block_damage(
                    number, f"holds another chunk {table['first'][number] + index} than recorded")
            at += length
        return None


def read_exactly(fd, length, offset):
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise Damage(f"is cut at offset {offset + len(data)}")
        data += more
    return data


class Snapshot:
    """What the snapshot section of a part says."""

    def __init__(self, part, cursor):
        self.part = part
        self.as_of = cursor.unsigned(8)
        self.complete = bool(cursor.unsigned(1) & 1)
        count = cursor.bounded(0, MAX_LISTED, "number of listed parts")
        self.listed = []    # (epoch, sequence, seconds, size, id), ascending
        seconds = part.begun // 1000000
        for _ in range(count):
            epoch, sequence = cursor.varint(), cursor.varint()
            seconds += cursor.zigzag()
            self.listed.append((epoch, sequence, seconds, cursor.varint(), cursor.take(32).hex()))
        order = [row[:2] for row in self.listed] + [(part.epoch, part.sequence)]
        if any(a >= b for a, b in zip(order, order[1:])):
            raise cursor.wrong("the listed parts are not in ascending order")
        self.entry_bytes = cursor.varint()
        self.runs = read_runs(cursor)
        self.parts = {}     # (epoch, sequence) -> Part, when found

    def find_parts(self, repository):
        """Looks up what is listed; answers with what is missing, one line each."""
        held = repository.sources[self.part.source]
        missing = []
        self.parts = {(self.part.epoch, self.part.sequence): self.part}
        for epoch, sequence, _, size, part_id in self.listed:
            part = held.get((epoch, sequence, part_id))
            sizes = [copy[2] for copy in part.copies] if part else []
            if size in sizes:
                self.parts[epoch, sequence] = part
            else:
                missing.append(f"{epoch:04}-{sequence:08}-...-{part_id[:12]} "
                               + (f"has {sizes[0]} bytes instead of {size}" if part
                                  else "is not there"))
        return missing


class Repository:
    """One folder, or several that hold copies of the same repository."""

    def __init__(self, folders):
        self.folders = folders
        self.id = self.seed = self.leader = None
        self.epochs = {}        # number -> continues
        self.sources = {}       # name -> {(epoch, sequence, id): Part}
        self.loaded = collections.OrderedDict()
        for folder in folders:
            self.read_identity(folder)
            self.read_epochs(folder)
            self.scan(folder)

    def read_identity(self, folder):
        path = os.path.join(folder, "syncd.repo")
        try:
            about = read_json(path)
            version, repository_id = about["format"], bytes.fromhex(about["repository"])
            seed = bytes.fromhex(about["seed"])
            if len(repository_id) != 16 or len(seed) != 32:
                raise ValueError("wrong lengths")
        except (OSError, ValueError, KeyError, TypeError) as e:
            warn(f"{path}: {e}; going on without it: chunk ids and image sums are not checked")
            return
        if version != 1:
            raise Damage(f"{path}: format {show(str(version))}; this program reads format 1")
        if self.id not in (None, repository_id):
            raise Damage(f"{path}: another repository than that of {self.folders[0]}")
        self.id, self.seed, self.leader = repository_id, seed, show(str(about.get("leader", "")))

    def read_epochs(self, folder):
        for name in listdir(os.path.join(folder, "epoch")):
            path = os.path.join(folder, "epoch", name)
            if not re.fullmatch("[0-9]{1,10}", name) or os.path.getsize(path) == 0:
                continue
            try:
                continues = read_json(path).get("continues") or {}
                self.epochs[int(name)] = {source: (int(last[0]), int(last[1]))
                                          for source, last in continues.items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
                warn(f"{path}: {e}; it is left out")

    def scan(self, folder):
        if not os.path.isdir(folder):
            raise Damage(f"{folder}: there is no such folder")
        for source in sorted(listdir(folder)):
            if not SOURCE.fullmatch(source) or source in ("tmp", "epoch"):
                continue
            held = self.sources.setdefault(source, {})
            for name in sorted(listdir(os.path.join(folder, source))):
                match = STEM.fullmatch(name)
                if match:
                    epoch, sequence, part_id = int(match[1]), int(match[2]), match[4]
                    path = os.path.join(folder, source, name)
                    key = epoch, sequence, part_id
                    part = held.setdefault(key, Part(source, *key))
                    part.copies.append((path, match[5], os.lstat(path).st_size))
        self.sources = {name: held for name, held in self.sources.items() if held}

    def load(self, part):
        """Loads a part's metadata, dropping what was not used for longest."""
        part.load(self)
        self.loaded[part] = len(part.metadata)
        self.loaded.move_to_end(part)
        while len(self.loaded) > 1 and sum(self.loaded.values()) > METADATA_CACHE:
            self.loaded.popitem(last=False)[0].unload()
        return part

    def overruled(self, part):
        """Whether an old leader wrote this after a new one had gone on without it."""
        ruling = max(self.epochs, default=0)
        return part.epoch < ruling and (
            (part.epoch, part.sequence) > self.epochs[ruling].get(part.source, (0, 0)))

    def snapshots(self, source=None, kept_only=True):
        """(part, Snapshot or Damage) of each snapshot, in order of source and age."""
        for name in sorted(self.sources):
            if source in (None, name):
                for _, part in sorted(self.sources[name].items(), key=lambda item: item[0]):
                    if not kept_only or any(mark == "snap" for _, mark, _ in part.copies):
                        try:
                            yield part, self.load(part).section()
                        except Damage as e:
                            yield part, e if str(part) in str(e) else Damage(f"{part}: {e}")


def listdir(folder):
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_json(path):
    with open(path, "rb") as file:
        return json.loads(file.read(1 << 20))


# ---- entries -----------------------------------------------------------------------------------

class Entry:
    """One record of the entry list."""

    def __init__(self, record, what):
        cursor, fields, tag = Cursor(record, 0, what), {}, 0
        while not cursor.ended():
            before, tag = tag, cursor.varint()
            if tag <= before:
                raise cursor.wrong(f"tag {tag} after {before}")
            fields[tag] = cursor.take(cursor.varint())
        self.fields, self.what = fields, what
        self.type = self.number(2)
        self.path = fields.get(4, b"")
        self.mode = self.number(6, None)
        self.uid, self.gid = self.number(8, None), self.number(10, None)
        self.mtime = self.signed(12)
        self.as_of = self.signed(14)
        self.size = self.number(18, 0)
        if self.size >> 62:
            raise Damage(f"a file of {self.size} bytes")

    def cursor(self, tag):
        return Cursor(self.fields.get(tag, b""), 0, f"{self.what}, tag {tag}")

    def number(self, tag, default=0):
        if tag not in self.fields:
            return default
        cursor = self.cursor(tag)
        value = cursor.unsigned(1) if tag == 2 else cursor.varint()
        if not cursor.ended():
            raise cursor.wrong("bytes that do not belong here")
        return value

    def signed(self, tag):
        value = self.number(tag, None)
        return None if value is None else value >> 1 ^ -(value & 1)

    def image(self):
        """(image id, kind, page size, page count, image sum)"""
        if len(self.fields.get(16, b"")) != 26:
            raise Damage("its image record has not 26 bytes")
        image, kind, logarithm, count, total = struct.unpack("<QBBQQ", self.fields[16])
        if kind not in (SQLITE, BOLT) or not 9 <= logarithm <= 16 or count > MAX_PAGES:
            raise Damage(f"its image record says kind {kind}, pages of 2^{logarithm} bytes, "
                         f"{count} pages")
        return image, kind, 1 << logarithm, count, total

    def runs(self):
        return read_runs(self.cursor(20)) if 20 in self.fields else []

    def segments(self):
        """Where the content goes in the file: (offset, length) of all that is not a hole."""
        cursor, at, segments = self.cursor(26), 0, []
        while not cursor.ended():
            offset, length = cursor.varint(), cursor.varint()
            if offset < at or offset + length > self.size:
                raise cursor.wrong(f"hole at {offset} of {length} bytes")
            if offset > at:
                segments.append((at, offset - at))
            at = offset + length
        if at < self.size:
            segments.append((at, self.size - at))
        return segments

    def attributes(self):
        cursor = self.cursor(24)
        while not cursor.ended():
            name = cursor.take(cursor.varint())
            yield name, cursor.take(cursor.varint())

    def places(self, source):
        """The names from OUTPUT down to this entry; Damage for what could lead elsewhere."""
        names = split_path(self.path) if self.type not in (DUMP, CONFIG) else [
            source.encode(), *split_path(b"/" + self.path)]
        if self.type in (DUMP, CONFIG) and len(names) != 2:
            raise Damage("the name of a dump or config has no folder")
        if not names and self.type != DIRECTORY:
            raise Damage("only a folder can be at /")
        return names


def split_path(path):
    """The names of an absolute path, refusing every way to leave the folder it is put below."""
    if not path.startswith(b"/") or len(path) > MAX_PATH or b"\0" in path:
        raise Damage("its path is not absolute, too long or holds a zero byte")
    names = path[1:].split(b"/") if path != b"/" else []
    if any(name in (b"", b".", b"..") or len(name) > 255 for name in names):
        raise Damage("its path holds '..', '.' or a bad name: refused")
    return names


# ---- placing -----------------------------------------------------------------------------------

class Target:
    """The folder OUTPUT. Every name below it is opened from its folder's descriptor without
    following links, so that no link from the repository can lead outside."""

    def __init__(self, output, keep_special):
        os.makedirs(output, exist_ok=True)
        self.root = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
        self.keep_special = keep_special
        self.at, self.fd = None, None   # the folder used last
        self.temporary = 0
        self.refused_attributes = 0

    def folder(self, names, create=False):
        """A descriptor, ours until the next call, of the folder; None when it is not there."""
        if self.at == names:
            return self.fd
        fd = os.dup(self.root)
        for depth, name in enumerate(names):
            try:
                if create:
                    make_folder(name, fd, 0o777)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except FileNotFoundError:
                return None
            except OSError as e:
                raise Damage(f"{show(b'/'.join(names[:depth + 1]))} in OUTPUT is no folder that "
                             f"can be entered ({e.strerror}); links are not followed") from None
            finally:
                os.close(fd)
            fd = inner
        if self.fd is not None:
            os.close(self.fd)
        self.at, self.fd = list(names), fd
        return fd

    def lstat(self, names):
        folder = self.folder(names[:-1])
        try:
            return None if folder is None else os.lstat(names[-1], dir_fd=folder)
        except FileNotFoundError:
            return None

    def create(self, names):
        """(descriptor, name) of a new file with a temporary name beside its place."""
        folder = self.folder(names[:-1], create=True)
        self.temporary += 1
        name = f".rescue-{os.getpid()}-{self.temporary}.tmp".encode()
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600,
                       dir_fd=folder), name

    def place(self, names, temporary, suffix=b""):
        """The temporary file gets its name, unless something is there by now."""
        names = names[:-1] + [names[-1] + suffix]
        if self.lstat(names):
            raise Damage("something of that name is there already")
        folder = self.folder(names[:-1])
        os.rename(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, names, temporary):
        os.unlink(temporary, dir_fd=self.folder(names[:-1]))

    def owner(self, entry):
        """uid and gid: the name counts where this machine knows it, else the number."""
        def known(tag, number, find):
            try:
                return find(entry.fields[tag].decode())
            except (KeyError, UnicodeDecodeError):
                return -1 if number is None or number >> 32 else number
        return (known(7, entry.uid, lambda name: pwd.getpwnam(name).pw_uid),
                known(9, entry.gid, lambda name: grp.getgrnam(name).gr_gid))

    def dress(self, entry, fd):
        """Owner, mode, extended attributes and mtime of an open file or folder."""
        if os.geteuid() == 0:
            os.fchown(fd, *self.owner(entry))
        if entry.mode is not None:
            special = entry.type == DIRECTORY or self.keep_special
            os.fchmod(fd, entry.mode & (0o7777 if special else 0o777))
        self.set_attributes(entry, fd)
        if entry.mtime is not None:
            os.utime(fd, ns=(entry.mtime, entry.mtime))

    def dress_link(self, entry, names):
        folder, name = self.folder(names[:-1]), names[-1]
        if os.geteuid() == 0:
            os.chown(name, *self.owner(entry), dir_fd=folder, follow_symlinks=False)
        self.set_attributes(entry, f"/proc/self/fd/{folder}/".encode() + name)
        if entry.mtime is not None:
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    def set_attributes(self, entry, place):
        for name, value in entry.attributes():
            if name.startswith((b"security.", b"trusted.")) and not self.keep_special:
                self.refused_attributes += 1
                continue
            try:
                os.setxattr(place, name, value, **({} if isinstance(place, int)
                                                   else {"follow_symlinks": False}))
            except (OSError, ValueError):
                self.refused_attributes += 1


def make_folder(name, parent, mode):
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass


def write_all(fd, data, offset):
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


class Output:
    """A file that is being written, under its temporary name."""

    def __init__(self, entry, names, fd, temporary):
        self.entry, self.names, self.fd, self.temporary = entry, names, fd, temporary
        self.error = None
        self.lost = 0           # bytes left as zeros
        self.planned = False    # all its pieces are known
        self.segments = []      # (offset, length) still to be filled

    def fail(self, error, lost):
        self.error = self.error or error
        self.lost += lost

    def take(self, length):
        """(offset, length) pieces of the file that the next bytes of content fill."""
        while length:
            offset, free = self.segments[-1]
            piece = min(free, length)
            if piece == free:
                self.segments.pop()
            else:
                self.segments[-1] = offset + piece, free - piece
            yield offset, piece
            length -= piece


class Restorer:
    """Restores one snapshot. Chunks are written window by window: within one, each needed block
    is decompressed once, whatever number of files it serves."""

    def __init__(self, repository, snapshot, target, options):
        self.repository, self.snapshot, self.target = repository, snapshot, target
        self.options = options
        self.source = snapshot.part.source
        self.seed = repository.seed
        self.page_seed = int.from_bytes(self.seed[:8], "little") if self.seed else 0
        self.xxh3 = find_xxh3() if options.sums and self.seed else None
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.outputs, self.spans, self.span_count = [], {}, 0
        self.restored = self.bytes = self.failed = self.damaged = self.older = 0
        self.contents, self.links, self.folders = (array.array("Q") for _ in range(3))

    # -- blocks --

    def decoded(self, part, numbers):
        """(number, raw bytes or Damage) of the blocks, decompressing a batch ahead."""
        batches = [numbers[at:at + BATCH] for at in range(0, len(numbers), BATCH)]
        ahead = self.pool.submit(part.decode, batches[0])
        for following in batches[1:] + [None]:
            found = ahead.result()
            if following:
                ahead = self.pool.submit(part.decode, following)
            for number in sorted(found):
                raw = found[number]
                if not isinstance(raw, Damage) and self.seed and (
                        part.blocks["kind"][number] == CHUNKS):
                    raw = part.check_chunks(number, raw, self.seed) or raw
                yield number, raw

    # -- content of chunks --

    def check_runs(self, runs, length):
        """Damage unless every run is there and together they have the length."""
        total = 0
        for epoch, sequence, first, count in runs:
            part = self.snapshot.parts.get((epoch, sequence))
            if part is None:
                raise Damage(f"part {epoch}-{sequence} is missing or not listed")
            ends = self.repository.load(part).chunk_ends
            if first + count > len(ends):
                raise Damage(f"{part}: has {len(ends)} chunks, {first} to {first + count} wanted")
            total += part.chunk_start(first + count) - part.chunk_start(first)
        if total != length:
            raise Damage(f"its chunks have {total} bytes, {length} are recorded")

    def plan(self, output, runs, segments):
        """Notes which piece of which block goes where in the file."""
        output.segments = segments[::-1]
        for epoch, sequence, first, count in runs:
            part = self.snapshot.parts[epoch, sequence]
            end = first + count
            while first < end:
                self.repository.load(part)
                block = bisect.bisect_right(part.blocks["first"], first) - 1
                begin = part.blocks["first"][block]
                stop = min(end, begin + part.blocks["count"][block])
                at = part.chunk_start(first) - part.chunk_start(begin)
                pieces = self.spans.setdefault(part, {}).setdefault(block, [])
                for offset, length in output.take(part.chunk_start(stop) - part.chunk_start(first)):
                    pieces.append((output, at, length, offset))
                    at += length
                    self.span_count += 1
                first = stop
                if self.span_count >= WINDOW_SPANS:
                    self.flush()
        output.planned = True

    def flush(self):
        """Fills what was planned and finishes the files that are whole."""
        spans, self.spans, self.span_count = self.spans, {}, 0
        for part, blocks in spans.items():
            try:
                self.repository.load(part)
                for number, raw in self.decoded(part, sorted(blocks)):
                    self.fill(blocks[number], raw)
            except Damage as e:
                for number in blocks:
                    self.fill(blocks[number], e)
        for output in [output for output in self.outputs if output.planned]:
            self.finish(output)

    @staticmethod
    def fill(pieces, raw):
        for output, at, length, offset in pieces:
            if isinstance(raw, Damage):
                output.fail(raw, length)
                continue
            try:
                write_all(output.fd, raw[at:at + length], offset)
            except OSError as e:
                output.fail(e, length)

    # -- images --

    def restore_image(self, output):
        image, kind, page_size, count, total = output.entry.image()
        os.ftruncate(output.fd, count * page_size)
        missing, found_sum = count, 0
        taken = bytearray(count + 7 >> 3)   # one bit per page
        lock_page = (1 << 30) // page_size
        if kind == SQLITE and lock_page < count:
            taken[lock_page >> 3] |= 1 << (lock_page & 7)
            missing -= 1
        order = sorted(self.snapshot.parts, reverse=True)
        for part in (self.snapshot.parts[key] for key in order):
            if output.error and not self.options.salvage:
                return
            if missing and (part.image_ids is None or image in part.image_ids):
                self.repository.load(part)
                plan, found = self.plan_pages(part, image, page_size, taken, count)
                missing -= found
                found_sum += self.write_pages(output, part, plan, page_size)
        if len(self.snapshot.parts) <= len(self.snapshot.listed):
            output.fail(Damage("parts are missing: some pages may be older than the snapshot"), 0)
        if missing:
            first = next(n for n in range(count) if not taken[n >> 3] & 1 << (n & 7))
            output.fail(Damage(f"{missing} pages are in none of the listed parts, the first is "
                               f"page {first}"), missing * page_size)
        if self.xxh3 and not output.error and found_sum & M64 != total:
            output.fail(Damage(f"its image sum is {found_sum & M64:016x}, recorded is "
                               f"{total:016x}"), 0)

    @staticmethod
    def plan_pages(part, image, page_size, taken, count):
        """Which pages of a part count: block -> [(index in the block, page, number of pages)].
        Backwards, for of a page held twice the later one counts."""
        plan, found = {}, 0
        for block in reversed(part.images.get(image, ())):
            logarithm, pages, _ = part.pages(block)
            if 1 << logarithm != page_size:
                raise part.block_damage(block, f"has pages of {1 << logarithm} bytes, the "
                                        f"image of {page_size}")
            for index, page, length in reversed(consecutive(pages)):
                length = min(length, count - page)
                if page < 0 or length <= 0:
                    continue
                for free_page, free in claim(taken, page, length):
                    plan.setdefault(block, []).append((index + free_page - page, free_page, free))
                    found += free
        return plan, found

    def write_pages(self, output, part, plan, page_size):
        """Writes the planned pages; answers with their share of the image sum."""
        total = 0
        for block, raw in self.decoded(part, sorted(plan)) if plan else ():
            if isinstance(raw, Damage):
                output.fail(raw, sum(length for _, _, length in plan[block]) * page_size)
                continue
            fingerprints = part.pages(block)[2]
            for index, page, length in plan[block]:
                data = raw[index * page_size:(index + length) * page_size]
                if data != bytes(len(data)):    # zeros stay a hole
                    write_all(output.fd, data, page * page_size)
                if self.xxh3:
                    total += self.sum_pages(output, part, block, data, page, page_size,
                                            fingerprints + 8 * index)
        return total

    def sum_pages(self, output, part, block, data, page, page_size, fingerprints):
        total = 0
        for at in range(0, len(data), page_size):
            low, high = self.xxh3(data[at:at + page_size], self.page_seed + page & M64)
            recorded = part.metadata[fingerprints:fingerprints + 8]
            if low.to_bytes(8, "little") != recorded:
                output.fail(part.block_damage(block, f"has another fingerprint of page {page} "
                                              "than recorded"), 0)
            total += high
            page += 1
            fingerprints += 8
        return total

    # -- entries --

    def spool(self):
        """The entry list as a file without a name."""
        self.check_runs(self.snapshot.runs, self.snapshot.entry_bytes)
        spool = tempfile.TemporaryFile()
        output = Output(None, None, spool.fileno(), None)
        self.plan(output, self.snapshot.runs, [(0, self.snapshot.entry_bytes)][
            :1 if self.snapshot.entry_bytes else 0])
        self.flush()
        if output.error:
            raise Damage(f"the entry list cannot be read: {output.error}")
        return spool

    @staticmethod
    def record(spool, at):
        """(Entry or Damage, where the next record begins)"""
        spool.seek(at)
        what = f"entry list, record at {at}"
        cursor = Cursor(spool.read(10), 0, what)
        length = cursor.bounded(1, MAX_RECORD, "length")
        spool.seek(at + cursor.at)
        record = spool.read(length)
        if len(record) != length:
            raise cursor.wrong("the list ends within it")
        try:
            return Entry(record, what), at + cursor.at + length
        except Damage as e:
            return e, at + cursor.at + length

    def survey(self, spool):
        """Notes where each entry is in the list. Bad ones are refused; so is all when something
        is in the way, before anything is written."""
        at, end, before, in_the_way = 0, os.fstat(spool.fileno()).st_size, b"", 0
        while at < end:
            entry, following = self.record(spool, at)
            try:
                if isinstance(entry, Damage):
                    raise entry
                self.check_entry(entry, before)
                before = entry.path
                if self.is_in_the_way(entry):
                    in_the_way += 1
            except Damage as e:
                self.refuse(b"an entry" if isinstance(entry, Damage) else entry.path, e)
            else:
                {HARD_LINK: self.links, DIRECTORY: self.folders}.get(
                    entry.type, self.contents).append(at)
            at = following
        if in_the_way:
            raise Damage(f"{in_the_way} files are in the way; nothing was written: give an OUTPUT "
                         "that is empty or does not exist")

    @staticmethod
    def check_entry(entry, before):
        if before and entry.path <= before:
            raise Damage("is out of order in the entry list")
        if entry.type not in range(FILE, CONFIG + 1):
            raise Damage(f"is of the unknown type {entry.type}")
        for tag in entry.fields:
            if tag % 2 == 0 and tag not in KNOWN_TAGS:
                raise Damage(f"has the field {tag}, which this program does not know: get a newer "
                             "one")

    def is_in_the_way(self, entry):
        names = entry.places(self.source)
        beside = [b""]
        if entry.type == IMAGE and entry.image()[1] == SQLITE:
            beside += [b"-wal", b"-shm", b"-journal"]   # would be replayed into the database
        for suffix in beside if names else ():
            found = self.target.lstat(names[:-1] + [names[-1] + suffix])
            if found and not (entry.type == DIRECTORY and stat.S_ISDIR(found.st_mode)):
                warn(f"{show(entry.path + suffix)}: is in OUTPUT already")
                return True
        return False

    def refuse(self, path, why):
        """An entry that does not come back."""
        if isinstance(why, OSError):
            if why.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Full(f"{show(path)}: {why.strerror}; stopped")
            why = why.strerror or why
        self.failed += 1
        warn(f"{show(path)}: not restored: {why}")

    def each(self, spool, offsets, work):
        """work(entry, names) for each; what fails concerns that entry only."""
        for at in offsets:
            entry, _ = self.record(spool, at)
            try:
                work(entry, entry.places(self.source))
            except (Damage, OSError, OverflowError) as e:
                self.refuse(entry.path, e)

    # -- the passes --

    def run(self):
        """Restores everything; answers with the exit code."""
        try:
            with self.spool() as spool:
                self.survey(spool)
                self.each(spool, self.folders, self.make_folder)
                self.each(spool, self.contents, self.restore)
                self.flush()
                self.each(spool, self.links, self.restore_hard_link)
                self.each(spool, reversed(self.folders), self.dress_folder)
            os.sync()
        finally:
            for output in self.outputs:
                os.close(output.fd)
                self.target.remove(output.names, output.temporary)
            self.pool.shutdown()
        if self.failed or self.damaged:
            return 3 if self.restored else 1
        return 0

    def done(self, entry, size=0):
        self.restored += 1
        self.bytes += size
        if 13 in entry.fields:
            self.older += 1
            if self.older <= 20:
                warn(f"{show(entry.path)}: is of {show_time(entry.as_of or 0)}, carried over: "
                     f"{show(entry.fields[13])}")
        if self.options.verbose:
            print(show(entry.path))

    def make_folder(self, _, names):
        if names:
            parent = self.target.folder(names[:-1], create=True)
            make_folder(names[-1], parent, 0o700)

    def dress_folder(self, entry, names):
        if names:
            fd = self.target.folder(names)
            if fd is None:
                raise Damage("is gone from OUTPUT")
            self.target.dress(entry, fd)
        self.done(entry)

    def restore(self, entry, names):
        if entry.type == SYMLINK:
            return self.restore_symlink(entry, names)
        runs, segments = entry.runs(), entry.segments()
        self.check_runs(runs, sum(length for _, length in segments))
        output = Output(entry, names, *self.target.create(names))
        self.outputs.append(output)
        try:
            if entry.type == IMAGE:
                self.restore_image(output)
            else:
                self.plan(output, runs, segments)
        except (Damage, OSError) as e:
            output.fail(e, 0)
        output.planned = True
        if entry.type == IMAGE:
            self.finish(output)
        elif len(self.outputs) >= WINDOW_FILES:
            self.flush()
        return None

    def finish(self, output):
        """The file gets its attributes and its name, or goes."""
        entry, placed = output.entry, False
        try:
            if output.error and not self.options.salvage:
                raise output.error
            if entry.type != IMAGE:
                os.ftruncate(output.fd, entry.size)
            size = os.fstat(output.fd).st_size
            self.target.dress(entry, output.fd)
            if entry.type != FILE:
                os.fsync(output.fd)
            self.target.place(output.names, output.temporary,
                              b".damaged" if output.error else b"")
            placed = True
            if output.error:
                self.damaged += 1
                warn(f"{show(entry.path)}: restored as .damaged, {output.lost} bytes are lost: "
                     f"{output.error}")
            self.done(entry, size)
        except (Damage, OSError, OverflowError) as e:
            self.refuse(entry.path, e)
        finally:
            os.close(output.fd)
            self.outputs.remove(output)
            if not placed:
                self.target.remove(output.names, output.temporary)

    def restore_symlink(self, entry, names):
        goal = entry.fields.get(22, b"")
        if not 0 < len(goal) <= MAX_PATH or b"\0" in goal:
            raise Damage("has no valid link target")
        os.symlink(goal, names[-1], dir_fd=self.target.folder(names[:-1], create=True))
        self.target.dress_link(entry, names)
        self.done(entry)

    def restore_hard_link(self, entry, names):
        goal = split_path(entry.fields.get(22, b""))
        found = self.target.lstat(goal) if goal else None
        if not found or stat.S_ISDIR(found.st_mode):
            raise Damage(f"equals {show(entry.fields.get(22, b''))}, which is not there")
        source = os.dup(self.target.folder(goal[:-1]))
        try:
            os.link(goal[-1], names[-1], src_dir_fd=source, follow_symlinks=False,
                    dst_dir_fd=self.target.folder(names[:-1], create=True))
        finally:
            os.close(source)
        self.done(entry)


def consecutive(pages):
    """Page numbers as (index, first page, number of pages)."""
    if isinstance(pages, range):
        return [(0, pages.start, len(pages))]
    runs, begin = [], 0
    for index in range(1, len(pages) + 1):
        if index == len(pages) or pages[index] != pages[index - 1] + 1:
            runs.append((begin, pages[begin], index - begin))
            begin = index
    return runs


def claim(taken, page, length):
    """Sets the bits of these pages; answers with the runs of them that were clear."""
    low, high = page >> 3, (page + length + 7) >> 3
    wanted = ((1 << length) - 1) << (page & 7)
    held = int.from_bytes(taken[low:high], "little")
    taken[low:high] = (held | wanted).to_bytes(high - low, "little")
    if not held & wanted:
        return [(page, length)]
    free = [n for n in range(length) if not held >> (page & 7) + n & 1]
    return [(page + first, count) for _, first, count in consecutive(free)] if free else []


# ---- commands ----------------------------------------------------------------------------------

def list_snapshots(repository, options):
    rows, errors = [], []
    for part, snapshot in repository.snapshots(options.source, not options.all):
        if isinstance(snapshot, Damage):
            errors.append(str(snapshot))
        elif snapshot:
            rows.append((part, snapshot, snapshot.find_parts(repository)))
    if options.json:
        print(json.dumps({"command": "list", "repository": repository.id and repository.id.hex(),
                          "leader": repository.leader, "errors": errors, "snapshots": [{
                              "id": part.id, "source": part.source,
                              "taken_at": show_time(snapshot.as_of).replace(" ", "T"),
                              "epoch": part.epoch, "sequence": part.sequence,
                              "complete": snapshot.complete, "parts": 1 + len(snapshot.listed),
                              "missing": missing, "overruled": repository.overruled(part),
                              "size_bytes": part.copies[0][2],
                              "kept": any(mark == "snap" for _, mark, _ in part.copies)}
                              for part, snapshot, missing in rows]}, indent=1))
    else:
        print_snapshots(repository, rows)
        for error in errors:
            warn(error)
    return 1 if not rows else 3 if errors else 0


def print_snapshots(repository, rows):
    print(f"{'SOURCE':20} {'TIME':20} {'ID':12} {'COMPLETE':8} PARTS")
    for part, snapshot, missing in rows:
        count = 1 + len(snapshot.listed)
        parts = f"all {count} there" if not missing else f"{len(missing)} of {count} MISSING"
        note = ", from the old leader" if repository.overruled(part) else ""
        print(f"{part.source:20} {show_time(snapshot.as_of):20} {part.id[:12]} "
              f"{'yes' if snapshot.complete else 'no':8} {parts}{note}")
        for line in missing[:3]:
            print(f"{'':20} missing: {line}")


def choose(repository, wanted):
    """The Snapshot that the user means, with its parts looked up."""
    name, _, source = wanted.partition(":")
    if name == "latest":
        return choose_latest(repository, source)
    if source or not re.fullmatch("[0-9a-f]{6,64}", name):
        raise Damage(f"{show(wanted)}: give six or more digits of a snapshot's id, latest or "
                     "latest:SOURCE")
    found = [part for held in repository.sources.values() for part in held.values()
             if part.id.startswith(name)]
    if len(found) != 1:
        raise Damage(f"{name}: {'no part' if not found else f'{len(found)} parts'} with this id; "
                     "without SNAPSHOT this program lists them")
    snapshot = repository.load(found[0]).section()
    if not snapshot:
        raise Damage(f"{found[0]}: holds no snapshot")
    return snapshot


def choose_latest(repository, source):
    names = sorted(repository.sources)
    if not source and len(names) == 1:
        source = names[0]
    if source not in names:
        raise Damage(f"say latest:SOURCE; the sources are: {', '.join(names) or 'none'}")
    parts = sorted(((key, part) for key, part in repository.sources[source].items()
                    if any(mark == "snap" for _, mark, _ in part.copies)
                    and not repository.overruled(part)), key=lambda item: item[0], reverse=True)
    if not parts:
        raise Damage(f"{source}: has no snapshot but from the old leader; choose one by its id")
    reasons = []
    for _, part in parts:
        try:
            snapshot = repository.load(part).section()
            missing = snapshot.find_parts(repository) if snapshot else ["holds no snapshot"]
        except Damage as e:
            snapshot, missing = None, [str(e)]
        if not missing and not reasons:
            return snapshot
        if not missing:
            raise Damage(f"{reasons[0]}; the newest that is whole is {part.id[:12]} of "
                         f"{show_time(snapshot.as_of)}: give this id to restore it")
        reasons.append(f"the latest, {part.id[:12]}, cannot be restored: {missing[0]}")
    raise Damage(reasons[0])


def restore_snapshot(repository, options):
    snapshot = choose(repository, options.snapshot)
    missing = snapshot.find_parts(repository)
    if missing and not options.salvage:
        raise Damage(f"{len(missing)} parts are missing, the first: {missing[0]}; give the folder "
                     "of the other worker too (--also), or see --salvage")
    for line in missing:
        warn(f"part {line}")
    target = Target(options.output, options.keep_special)
    restorer = Restorer(repository, snapshot, target, options)
    code = restorer.run()
    if restorer.older > 20:
        warn(f"and {restorer.older - 20} more entries were carried over from earlier")
    if target.refused_attributes:
        warn(f"{target.refused_attributes} extended attributes were not set")
    if restorer.failed or restorer.damaged:
        warn(f"{restorer.failed} entries were not restored, {restorer.damaged} are damaged")
    print(f"{restorer.restored} entries ({restorer.bytes} bytes) of {snapshot.part.source} as of "
          f"{show_time(snapshot.as_of)} are in {options.output}"
          + ("" if snapshot.complete else "; the snapshot was not complete"))
    return code


def arguments():
    parser = argparse.ArgumentParser(
        prog="rescue.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS)
    parser.add_argument("words", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--also", metavar="REPOSITORY", action="append", default=[],
                        help="a copy, say the other worker's: each block from whoever has it whole")
    parser.add_argument("--all", action="store_true",
                        help="list also snapshots that are no longer kept (.pack, .del)")
    parser.add_argument("--json", action="store_true", help="list as JSON")
    parser.add_argument("--keep-special", action="store_true",
                        help="restore setuid, setgid of files, security.*, trusted.* attributes")
    parser.add_argument("--no-sums", dest="sums", action="store_false",
                        help="skip the image sums (slow on a small machine without libxxhash)")
    parser.add_argument("--salvage", action="store_true",
                        help="restore what is damaged too, as NAME.damaged, lost bytes as zeros")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each entry")
    options = parser.parse_args()
    if len(options.words) > 3:
        parser.error("too many arguments")
    options.repository, second, options.output = (options.words + [None, None])[:3]
    options.source, options.snapshot = (None, second) if options.output else (second, None)
    if options.json and options.output:
        parser.error("--json is for the list")
    return options


def stop(number, _):
    raise SystemExit(128 + number)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if not shutil.which("zstd"):
        warn("the program zstd is needed; on Debian: apt install zstd")
        return 2
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        repository = Repository([options.repository, *options.also])
        if options.output:
            return restore_snapshot(repository, options)
        if options.source not in (None, *repository.sources):
            raise Damage(f"there is no source {show(options.source)}; there are: "
                         f"{', '.join(repository.sources) or 'none'}")
        return list_snapshots(repository, options)
    except (Damage, Full) as e:
        warn(e)
    except OSError as e:
        warn(f"{e.filename or options.output or options.repository}: {e.strerror}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
