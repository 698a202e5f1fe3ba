"""A machine whose clock and disk the test rules over: tests/faults/machine.c under the programs. Not
for a sanitizer's build, whose own wrappers come first."""

import mmap
import os
import struct
import subprocess

from .leader import PROJECT

SOURCE = os.path.join(PROJECT, "tests/faults/machine.c")
LAYOUT = "=qqi256s4xqi108s"
NS = 1_000_000_000


class Machine:
    """env goes into the environment of the programs that are to live on it."""

    def __init__(self, case):
        library = case.path("machine.so")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True,
                       timeout=60, stdin=subprocess.DEVNULL)
        path = case.path("machine")
        size = struct.calcsize(LAYOUT)
        with open(path, "wb") as f:
            f.write(bytes(size))
        with open(path, "r+b") as f:
            self._memory = mmap.mmap(f.fileno(), size)
        case.addCleanup(self._memory.close)
        self.env = {"LD_PRELOAD": library, "MACHINE": path}
        self.wall_s = self.elapsed_s = 0
        self.disk_errno, self.disk_under, self.disk_bytes = 0, "", 0
        self.disk_hangs, self.journal = False, ""

    def set(self, **state):
        """wall_s, elapsed_s (both on top of the real ones), disk_errno, disk_bytes
        and disk_hangs of what is below disk_under, journal."""
        for name, value in state.items():
            getattr(self, name)
            setattr(self, name, value)
        self._memory[:] = struct.pack(
            LAYOUT, int(self.wall_s * NS), int(self.elapsed_s * NS), self.disk_errno,
            self.disk_under.encode(), self.disk_bytes, self.disk_hangs, self.journal.encode())

    def sleep(self, seconds):
        """As if it had been asleep for so long."""
        self.set(wall_s=self.wall_s + seconds, elapsed_s=self.elapsed_s + seconds)
