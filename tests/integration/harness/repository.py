"""A worker's repository folder, looked at from the worker's side."""

import dataclasses
import functools
import hashlib
import importlib.util
import os
import re

from .leader import PROJECT

STEM = re.compile(r"(\d{4,})-(\d{8,})-(\d{8}T\d{6}Z)-([0-9a-f]{64})\.(snap|pack|del|bad)\Z")


@dataclasses.dataclass(frozen=True)
class Part:
    path: str
    name: str
    order: tuple
    id: str
    mark: str
    size: int
    inode: int
    mtime: float


def parts(root, source="db", *marks):
    """All parts of a source, oldest first; AssertionError when a name is none of a part."""
    folder = os.path.join(root, source)
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        match = STEM.match(name)
        if not match:
            raise AssertionError(f"{folder} holds {name}, which is no part's name")
        path = os.path.join(folder, name)
        try:
            st = os.stat(path)
        except FileNotFoundError:
            continue  # renamed since the listing
        if not marks or match[5] in marks:
            found.append(Part(path, name, (int(match[1]), int(match[2])), match[4], match[5],
                              st.st_size, st.st_ino, st.st_mtime))
    return sorted(found, key=lambda p: p.order)


@functools.cache
def rescue():
    """restore/rescue.py as a module: it reads what a snapshot says."""
    spec = importlib.util.spec_from_file_location("rescue",
                                                  os.path.join(PROJECT, "restore/rescue.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def snapshot(root, wanted, source="db"):
    """What rescue.py reads of a snapshot; AssertionError when it is not there."""
    held = rescue().Repository([root])
    for part in held.sources[source].values():
        if part.id == wanted:
            return held.load(part).section()
    raise AssertionError(f"{wanted} is not in {root}")


def as_of_us(root, wanted, source="db"):
    return snapshot(root, wanted, source).as_of


def of(sshd, folder="leader"):
    return os.path.join(sshd.root, folder)


def damage(part, rng, at=None):
    """Flips one bit; by default in the middle of the file."""
    with open(part.path, "r+b") as f:
        f.seek(part.size // 2 if at is None else at)
        byte = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte ^ 1 << rng.randrange(8)]))


def raise_version(part, version=3):
    """Makes of it what a newer syncd might have written: every digest and its name fit. The new path.
    """
    with open(part.path, "rb") as f:
        data = bytearray(f.read())
    length = int.from_bytes(data[-48:-40], "little")
    start = len(data) - 48 - length
    for at in (0, start):  # the header, and the metadata's copy of it
        assert data[at:at + 8] == data[:8]
        data[at + 8:at + 10] = version.to_bytes(2, "little")
    new_id = hashlib.blake2b(data[start:-48], digest_size=32).digest()
    data[-40:-8] = new_id
    path = part.path.replace(part.id, new_id.hex())
    with open(path, "wb") as f:
        f.write(data)
    os.utime(path, (part.mtime, part.mtime))
    os.unlink(part.path)
    return path


def truncate(part, size):
    os.truncate(part.path, size)
