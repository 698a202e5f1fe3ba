"""Workers as if on machines of their own: what they do takes neither the leader's disk nor, as far as
the kernel can arrange it, its processors.

Their repositories lie in memory, and their processes in a cgroup that runs only when nobody else
wants to. What is left of them is what they take from caches and memory."""

import contextlib
import os
import shutil

from house import House

MEMORY = "/dev/shm"


def mounted(kind, option=None):
    with open("/proc/mounts", encoding="utf-8") as f:
        for line in f:
            _, path, found, options = line.split()[:4]
            if found == kind and (option is None or option in options.split(",")):
                return path
    return None


def parent_of_group():
    """Where a group for processors can be made: below our own in cgroup v1; in v2, which allows no
    processes beside groups, at the top."""
    old = mounted("cgroup", "cpu")
    if old is None:
        return mounted("cgroup2")
    with open("/proc/self/cgroup", encoding="utf-8") as f:
        for line in f:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "cpu" in controllers.split(","):
                return old + path.rstrip("/")
    return old


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


@contextlib.contextmanager
def idle_group():
    """A folder whose cgroup.procs takes processes that are to run only when nobody else wants to.
    OSError when this kernel or this user has none to give."""
    parent = parent_of_group()
    if parent is None:
        raise OSError("no cgroups are mounted")
    group = os.path.join(parent, f"syncd-bench-{os.getpid()}")
    os.mkdir(group)
    try:
        write(os.path.join(group, "cpu.idle"), "1")
        yield group
    finally:
        os.rmdir(group)


@contextlib.contextmanager
def house(folder, room_bytes):
    """A House, the leader's part of it in a folder, whose workers are out of the way. OSError tells
    why that cannot be here."""
    if not os.path.ismount(MEMORY):
        raise OSError(f"{MEMORY} is no file system of its own")
    if shutil.disk_usage(MEMORY).free < room_bytes:
        raise OSError(f"{MEMORY} has no room for {room_bytes / 1e6:.0f} MB")
    with idle_group() as group, contextlib.closing(House(folder, MEMORY)) as h:
        for sshd in h.workers:  # and what they start from now on
            write(os.path.join(group, "cgroup.procs"), str(sshd.process.pid))
        yield h
