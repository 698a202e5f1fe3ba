"""Starting and ending child processes: by pid, with deadlines, and never one left behind."""

import ctypes
import os
import signal
import socket
import subprocess
import time

_PR_SET_PDEATHSIG = 1
DEBIAN_PYTHON = "/usr/bin/python3"  # with Debian's modules; PATH may have another
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(argv, own_session=True, **kwargs):
    """A child that is killed when the test runner dies, in a session or at least a process group of
    its own.

    Call it from the main thread only: the kernel ties the child to the thread that started it."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    apart = {"start_new_session": True} if own_session else {"process_group": 0}
    return subprocess.Popen(argv, preexec_fn=_die_with_parent, **apart, **kwargs)


def niceness(pid):
    """(the process's, its session's); None for a kernel that does not know the latter."""
    with open(f"/proc/{pid}/stat", "rb") as f:
        own = int(f.read().rpartition(b")")[2].split()[16])
    try:
        with open(f"/proc/{pid}/autogroup", encoding="ascii") as f:
            return own, int(f.read().split()[-1])
    except (OSError, IndexError):
        return own, None


def parents():
    """pid -> parent's pid, of all processes."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as f:
                    # The name of the program stands in brackets and may hold anything.
                    table[int(name)] = int(f.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                pass
    return table


def descendants(pid):
    table = parents()
    found, more = [], [pid]
    while more:
        parent = more.pop()
        children = [p for p, up in table.items() if up == parent]
        found += children
        more += children
    return found


def kill_tree(process, sig=signal.SIGKILL, timeout_s=10):
    """Ends a child that we started, and what it has started in turn."""
    if process.poll() is not None:
        return
    # Stopped first, so that it cannot fork between the look and the kill.
    try:
        os.kill(process.pid, signal.SIGSTOP)
    except ProcessLookupError:
        pass
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, sig)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    process.wait(timeout_s)


def wait_until(condition, timeout_s, what, interval_s=0.01):
    """Waits for condition() to be true and returns its value; TimeoutError names `what`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s} s: {what}")
        time.sleep(interval_s)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
