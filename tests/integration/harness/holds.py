"""How long a process keeps a SQLite database from its application, seen from outside: by the
kernel's table of locks, sampled."""

import os
import threading
import time

# Bytes of SQLite's locks: the five reader marks in the -shm (a WAL reader that has pinned its
# snapshot holds one), and the shared range in the database file (a rollback mode reader; in WAL
# mode every open connection has it, and it disturbs nobody).
WAL_READ = (123, 127)
SHARED = (1073741826, 1073742335)


def _device(st):
    return f"{os.major(st.st_dev):02x}:{os.minor(st.st_dev):02x}:{st.st_ino}"


class HoldMeter:
    """Measures from creation until stop(); `longest_s` then is the longest single hold."""

    def __init__(self, db, pid, wal=True, interval_s=0.001):
        self.path = db + "-shm" if wal else db
        self.range = WAL_READ if wal else SHARED
        self.pid, self.interval_s = pid, interval_s
        self.holds = []  # (begun, seconds), monotonic
        self._since = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _held(self):
        try:
            device = _device(os.stat(self.path))
            with open("/proc/locks", encoding="ascii") as f:
                for line in f:
                    fields = line.split()
                    if len(fields) < 8 or fields[1] != "POSIX" or fields[5] != device \
                            or int(fields[4]) != self.pid:
                        continue
                    last = float("inf") if fields[7] == "EOF" else int(fields[7])
                    if int(fields[6]) <= self.range[1] and last >= self.range[0]:
                        return True
        except FileNotFoundError:
            pass
        return False

    def _watch(self):
        while not self._stop.is_set():
            now = time.monotonic()
            if self._held():
                self._since = self._since or now
            elif self._since:
                self.holds.append((self._since, now - self._since))
                self._since = None
            self._stop.wait(self.interval_s)

    def stop(self):
        self._stop.set()
        self._thread.join(5)
        if self._since:
            self.holds.append((self._since, time.monotonic() - self._since))

    @property
    def longest_s(self):
        return max((s for _, s in self.holds), default=0.0)
