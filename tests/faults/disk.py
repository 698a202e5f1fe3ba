"""What a disk holds when the power goes: a record of record_io.c, replayed up to any call, without
what no fsync had made durable by then.

The model is the strict one: a file's bytes last when the file was fsynced, a name when the folder
that holds it was. A rename is one step, as on every journaled file system, and lasts with either of
its folders. With `by_file` an fsync of a file also makes its own names last, as ext4 does and as
an SFTP worker has to be taken, which cannot sync folders."""

import dataclasses
import os
import shutil
import stat
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))

# What may be lost of all that no fsync has made durable.
NOTHING = "nothing"  # the process was killed, the machine lives on
ALL, DATA, NAMES, SOME = "all", "data", "names", "some"
LOSSES = (NOTHING, ALL, DATA, NAMES, SOME)


def build_recorder(folder):
    """The library that records (LD_PRELOAD)."""
    library = os.path.join(folder, "record_io.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library,
                    os.path.join(HERE, "record_io.c")], check=True, timeout=60)
    return library


class Recorder:
    """The library in a folder, and the file to which it writes."""

    def __init__(self, folder):
        self.library, self.file = build_recorder(folder), os.path.join(folder, "record")

    def environment(self, roots, kill=None):
        env = {"LD_PRELOAD": self.library, "RECORD_IO": self.file, "RECORD_ROOTS": ":".join(roots)}
        return {**env, "RECORD_KILL": kill} if kill else env

    def ops(self):
        return read_ops(self.file)

    def forget(self):
        for file in (self.file, self.file + ".dead"):
            if os.path.exists(file):
                os.unlink(file)

    def restart(self, sshd, root, kill=None):
        """The worker with an SFTP server whose calls are recorded; `kill` as in record_io.c."""
        self.forget()
        sshd.kill()
        words = " ".join(f"{k}={v}" for k, v in self.environment([root], kill).items())
        sshd.options["Subsystem"] = f"sftp /usr/bin/env {words} /usr/lib/openssh/sftp-server"
        sshd.start()

    @staticmethod
    def restart_plainly(sshd):
        sshd.kill()
        sshd.options.pop("Subsystem", None)
        sshd.start()


@dataclasses.dataclass
class Op:
    what: str
    at_ms: int
    key: str  # device and inode
    path: str
    to: str
    number: int
    data: bytes

    def __str__(self):
        number = f" {self.number}" if self.what in ("write", "truncate") else ""
        size = f"+{len(self.data)}" if self.data else ""
        return f"{self.what}{number}{size} {self.path}" + \
            (f" -> {self.to}" if self.to not in ("", self.path) else "")


def read_ops(file):
    with open(file, "rb") as f:
        text = f.read()
    ops, at = [], 0
    while at < len(text):
        end = text.index(b"\n", at)
        what, at_ms, key, path, to, number, size = text[at:end].decode().split("\t")
        at = end + 1 + int(size)
        ops.append(Op(what, int(at_ms), key, path, to, int(number), text[end + 1:at]))
    return ops


def changed(content, pending):
    content = bytearray(content)
    for op in pending:
        if op.what == "truncate":
            del content[op.number:]
            content += bytes(op.number - len(content))
        else:
            content += bytes(max(0, op.number - len(content)))
            content[op.number:op.number + len(op.data)] = op.data
    return bytes(content)


class Node:
    def __init__(self, kind, mtime=0.0, content=b"", mode=0o600):
        self.kind, self.content, self.mode = kind, content, mode
        self.mtime = self.mtime_now = mtime
        self.pending = []  # writes and truncates since the last fsync

    def synced(self):
        self.content, self.pending = changed(self.content, self.pending), []
        self.mtime = self.mtime_now

    def content_left(self, loss, rng):
        if loss in (NOTHING, NAMES):
            return changed(self.content, self.pending)
        if loss in (ALL, DATA):
            return self.content
        # Some writes have reached the disk, in any order; the size goes with the inode.
        content = changed(self.content, [op for op in self.pending if rng.random() < 0.5])
        if self.pending and rng.random() < 0.5:
            size = len(changed(self.content, self.pending))
            content = content[:size] + bytes(max(0, size - len(content)))
        return content


@dataclasses.dataclass
class Step:
    """A change of names or of a time, which a file system does as a whole or not at all."""
    folders: set
    names: dict = dataclasses.field(default_factory=dict)  # path -> Node or None
    times: list = dataclasses.field(default_factory=list)  # (Node, mtime)

    def keep(self, names, times):
        for path, node in self.names.items():
            if node is None:
                names.pop(path, None)
            else:
                names[path] = node
        times.update({id(node): mtime for node, mtime in self.times})


class Disk:
    """The watched folders as they are now; apply() goes on by one recorded call."""

    def __init__(self, roots, by_file=False):
        self.roots, self.by_file = list(roots), by_file
        self.nodes = {}  # key -> Node
        self.names = {}  # path -> Node, as programs see them
        self.durable = {}  # path -> Node
        self.pending = []  # Steps, in order
        for root in self.roots:
            self._scan(root)
        self.durable = dict(self.names)

    def _scan(self, path):
        st = os.lstat(path)
        key = f"{st.st_dev:x}:{st.st_ino:x}"
        if key not in self.nodes:
            node = Node("dir" if stat.S_ISDIR(st.st_mode) else "file", st.st_mtime,
                        mode=stat.S_IMODE(st.st_mode))
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    node.content = f.read()
            elif not stat.S_ISDIR(st.st_mode):
                raise ValueError(f"{path}: neither file nor folder")
            self.nodes[key] = node
        self.names[path] = self.nodes[key]
        if stat.S_ISDIR(st.st_mode):
            for name in os.listdir(path):
                self._scan(os.path.join(path, name))

    # ---- going on ----

    def apply(self, op):
        getattr(self, "_" + op.what)(op)

    def _new(self, op, kind):
        node = Node(kind, op.at_ms / 1000, mode=(op.number & 0o777) or
                    (0o700 if kind == "dir" else 0o600))
        self.nodes[op.key] = node
        self._step({op.path: node})

    def _step(self, names):
        step = Step({os.path.dirname(p) for p in names}, names)
        step.keep(self.names, {})
        self.pending.append(step)

    def _create(self, op):
        self._new(op, "file")

    def _mkdir(self, op):
        self._new(op, "dir")

    def _write(self, op):
        node = self.nodes[op.key]
        node.pending.append(op)
        node.mtime_now = op.at_ms / 1000

    _truncate = _write

    def _utimes(self, op):
        node = self.nodes[op.key]
        node.mtime_now = op.number / 1e6
        self.pending.append(Step({os.path.dirname(op.path)}, times=[(node, node.mtime_now)]))

    def _rename(self, op):
        node = self.names[op.path]
        if node.kind == "dir" and any(p.startswith(op.path + "/") for p in self.names):
            raise ValueError(f"a folder with files in it is renamed: {op}")
        self._step({op.path: None, op.to: node})

    def _link(self, op):
        self._step({op.to: self.names[op.path]})

    def _unlink(self, op):
        self._step({op.path: None})

    def _fsync(self, op):
        node = self.nodes[op.key]
        if node.kind == "dir":
            self._commit(lambda step: op.path in step.folders)
            return
        node.synced()
        if self.by_file:
            self._commit(lambda step: any(n is node for n in step.names.values()))

    def _syncfs(self, _):
        for node in {id(n): n for n in [*self.nodes.values(), *self.names.values()]}.values():
            node.synced()
        self._commit(lambda step: True)

    def _commit(self, wanted):
        """Those steps last, and the earlier ones in the folders that they touch."""
        taken, folders = set(), set()
        for i in range(len(self.pending) - 1, -1, -1):
            step = self.pending[i]
            if wanted(step) or step.folders & folders:
                taken.add(i)
                folders |= step.folders
        for i in sorted(taken):
            self.pending[i].keep(self.durable, {})
            for node, mtime in self.pending[i].times:
                node.mtime = mtime
        self.pending = [step for i, step in enumerate(self.pending) if i not in taken]

    # ---- the power goes ----

    def _left(self, loss, rng):
        """Names and times: {path: Node}, {id of a Node: mtime}."""
        if loss == NOTHING:
            return self.names, {id(n): n.mtime_now for n in self.names.values()}
        names, times = dict(self.durable), {}
        kept = {ALL: 0, NAMES: 0, DATA: len(self.pending), SOME: None}[loss]
        if kept is None:
            kept = rng.randrange(len(self.pending) + 1)
        for step in self.pending[:kept]:
            step.keep(names, times)
        return names, times

    def put(self, loss, rng):
        """Makes the real folders what the disk holds after the loss."""
        for root in self.roots:
            shutil.rmtree(root, ignore_errors=True)
        names, times = self._left(loss, rng)
        placed = {}  # id of a Node -> its first path
        for path, node in sorted(names.items()):
            parent = names.get(os.path.dirname(path))
            if path not in self.roots and id(parent) not in placed:
                continue  # its folder's own name was lost
            if node.kind == "dir":
                os.mkdir(path, node.mode | 0o700)
            elif id(node) in placed:
                os.link(placed[id(node)], path)
            else:
                with open(path, "wb") as f:
                    f.write(node.content_left(loss, rng))
                os.chmod(path, node.mode)
                mtime = times.get(id(node), node.mtime)
                os.utime(path, (mtime, mtime))
            placed.setdefault(id(node), path)
