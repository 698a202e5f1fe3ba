"""What the benchmark's rows share: two workers, leaders, peers, timing, ratios."""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                                "integration"))

from harness import processes, repository  # noqa: E402
from harness.leader import Leader, Worker, check_exit  # noqa: E402
from harness.contract import check_json  # noqa: E402
from harness.sshd import Sshd  # noqa: E402


class Series:
    """Measured values of one thing, one per round."""

    def __init__(self, values=()):
        self.values = list(values)

    def add(self, value):
        self.values.append(value)

    @property
    def median(self):
        return statistics.median(self.values)

    def ratio(self, other):
        """Round by round: what was measured side by side is compared side by side."""
        return Series(a / b for a, b in zip(self.values, other.values))

    def as_json(self):
        return {"median": self.median, "min": min(self.values), "max": max(self.values),
                "values": self.values}

    def text(self, form="{:.2f}"):
        if len(self.values) == 1:
            return form.format(self.values[0])
        return (form + " (" + form + "-" + form + ")").format(
            self.median, min(self.values), max(self.values))


class House:
    def __init__(self, folder, workers_folder=None):
        self.ends = contextlib.ExitStack()
        self.folder = self.new_folder(folder)
        theirs = self.new_folder(workers_folder) if workers_folder else self.folder
        self.workers = []
        for name in ("w1", "w2"):
            sshd = Sshd(theirs, name)
            self.ends.callback(sshd.kill)
            sshd.start()
            self.workers.append(sshd)
        self.count = 0
        self.keys = Leader(self.folder, [], {}, name="keys")  # the peers' key and known_hosts
        self.ends.callback(self.keys.close)
        for sshd in self.workers:
            sshd.authorize(self.keys.key + ".pub")
        with open(self.keys.known_hosts, "w", encoding="ascii") as f:
            f.writelines(s.known_hosts_line() for s in self.workers)

    def new_folder(self, parent):
        folder = tempfile.mkdtemp(prefix="syncd-bench-", dir=parent)
        self.ends.callback(shutil.rmtree, folder)
        return folder

    def close(self):
        self.ends.close()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def leader(self, db, proxies=(None, None)):
        """A new leader with empty repositories, set up."""
        self.count += 1
        name = f"leader{self.count}"
        leader = Leader(self.folder, [Worker.of(s, p, folder=name)
                                      for s, p in zip(self.workers, proxies)],
                        {"db": {"path": db, "max_age": "1h"}}, name=name)
        self.ends.callback(leader.close)
        for sshd in self.workers:
            sshd.authorize(leader.key + ".pub")
        leader.run("setup")
        return leader

    def forget(self, leader):
        """Frees the space of a leader that is done with."""
        for sshd in self.workers:
            shutil.rmtree(os.path.join(sshd.root, leader.name), ignore_errors=True)

    def stored_bytes(self, leader, sshd=None):
        root = os.path.join((sshd or self.workers[0]).root, leader.name)
        return sum(p.size for p in repository.parts(root))

    def ssh(self, port=None):
        """The ssh command to worker 1, as a list without the host's command."""
        sshd = self.workers[0]
        return ["ssh", "-F", "none", "-i", self.keys.key, "-p", str(port or sshd.port),
                "-o", f"HostKeyAlias=[127.0.0.1]:{sshd.port}",
                "-o", f"UserKnownHostsFile={self.keys.known_hosts}", "-o", "IdentitiesOnly=yes",
                "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
                f"{sshd.user}@127.0.0.1"]

    def timed(self, argv, env=None, timeout_s=1800):
        begun = time.monotonic()
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, timeout=timeout_s)
        return time.monotonic() - begun

    def piped(self, script, port=None, timeout_s=1800):
        """A pipe as a person would type it, in bash; $SSH is the way to worker 1."""
        return self.timed(["bash", "-o", "pipefail", "-c", script],
                          {"SSH": " ".join(self.ssh(port))}, timeout_s)


def settle():
    """Nothing of one measurement is to be written back in the next."""
    os.sync()


def folder_bytes(path):
    return sum(os.path.getsize(os.path.join(folder, name))
               for folder, _, names in os.walk(path) for name in names)


class Watch:
    """When the workers let us in: the moment at which each sshd's log says so, to a millisecond.
    sshd itself writes whole seconds only, so the log is watched while it grows."""

    ACCEPTED = re.compile(rb"Accepted publickey")

    def __init__(self, workers):
        self.files = [(s.log, os.path.getsize(s.log)) for s in workers]
        self.seen = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._stop.is_set():
            for path, start in self.files:
                if path not in self.seen and os.path.getsize(path) > start:
                    with open(path, "rb") as f:
                        f.seek(start)
                        if self.ACCEPTED.search(f.read()):
                            self.seen[path] = time.monotonic()
            self._stop.wait(0.0005)

    def last_s(self):
        self._stop.set()
        self._thread.join()
        if len(self.seen) < len(self.files):
            raise RuntimeError("a worker's log shows no login")
        return max(self.seen.values())


def backup(leader, expect=0, timeout_s=1800, own_session=False):
    result = leader.start("backup", "db", json_output=True, own_session=own_session).wait(timeout_s)
    check_exit(result, expect)
    result.json = check_json("backup", result)
    return result


class Peer:
    """Something that people use today, told to do the same to worker 1. backup() answers with its
    seconds and the bytes that it has added there (or, keeping no history, sent)."""

    keeps_history = True

    def __init__(self, house, db):
        self.house, self.db, self.count = house, db, 0
        self.root = os.path.join(house.workers[0].root, self.name)

    def backup(self):
        self.count += 1
        before = folder_bytes(self.root)
        return self.run(), folder_bytes(self.root) - before


class Restic(Peer):
    name = "restic"

    def __init__(self, house, db):
        super().__init__(house, db)
        self.env = {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": house.path("restic-cache"),
                    "RESTIC_REPOSITORY": f"sftp:worker:{self.root}"}
        command = " ".join([*house.ssh(), "-s", "sftp"])
        self.argv = ["restic", "-q", "-o", f"sftp.command={command}"]
        house.timed([*self.argv, "init"], self.env)

    def run(self):
        return self.house.timed([*self.argv, "backup", self.db], self.env)


class Borg(Peer):
    name = "borg"

    def __init__(self, house, db):
        super().__init__(house, db)
        worker = house.workers[0]
        shell = [a for a in house.ssh() if "@" not in a]
        self.env = {"BORG_RSH": " ".join(shell), "BORG_BASE_DIR": house.path("borg-base"),
                    "BORG_REPO": f"ssh://{worker.user}@127.0.0.1:{worker.port}{self.root}",
                    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
                    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        house.timed(["borg", "init", "-e", "none"], self.env)

    def run(self):
        return self.house.timed(["borg", "create", "-C", "zstd,1", f"::{self.count}", self.db],
                                self.env)


class Rsync(Peer):
    """In place over the only copy, as Pioreactor does it today."""
    name = "rsync"
    keeps_history = False

    def backup(self):
        shell = " ".join(a for a in self.house.ssh() if "@" not in a)
        begun = time.monotonic()
        os.makedirs(self.root, exist_ok=True)
        answer = subprocess.run(
            ["rsync", "--inplace", "--stats", "--fsync", "-e", shell, self.db,
             f"{self.house.workers[0].user}@127.0.0.1:{self.root}/"], check=True,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800)
        took = time.monotonic() - begun
        return took, int(re.search(r"Total bytes sent: ([\d,]+)", answer.stdout)[1]
                         .replace(",", ""))


class Dump(Peer):
    """A copy by sqlite3, compressed on its way."""
    name = "`.backup \\| zstd \\| ssh`"

    def __init__(self, house, db):
        super().__init__(house, db)
        self.root = os.path.join(house.workers[0].root, "dump")
        os.makedirs(self.root)

    def run(self):
        copy, target = self.house.path("copy.sqlite"), os.path.join(self.root, f"{self.count}.zst")
        took = self.house.piped(f"sqlite3 {self.db} '.backup {copy}' && zstd -q -1 < {copy} | "
                                f"$SSH 'cat > {target}; sync {target}'")
        os.unlink(copy)
        return took


PEERS = (Restic, Borg, Rsync, Dump)
__all__ = ["House", "Series", "Watch", "PEERS", "backup", "settle", "processes"]
