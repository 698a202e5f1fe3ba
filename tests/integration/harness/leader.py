"""A leader: a folder with syncd.conf, state_dir, key and known_hosts, and the program run in it."""

import os
import select
import shutil
import subprocess
import tempfile
import threading
import time

from . import contract, processes
from .sshd import keygen

SAMPLE_S = 0.005
PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))


def program():
    return os.environ.get("SYNCD_PROGRAM") or os.path.join(PROJECT, "build/release/syncd/syncd")


def has_sanitizer():
    """Then memory and time say nothing."""
    return not program().endswith("build/release/syncd/syncd")


class Result:
    """peak_kb is VmHWM; written_bytes what the process had written to disks (both 0: not known)."""

    def __init__(self, argv, exit_code, stdout="", stderr="", duration_s=0.0, peak_kb=0,
                 written_bytes=0):
        self.argv, self.exit, self.stdout, self.stderr = argv, exit_code, stdout, stderr
        self.duration_s = duration_s
        self.peak_kb, self.written_bytes = peak_kb, written_bytes
        self.json = None

    def __str__(self):
        return (f"{' '.join(self.argv)}\n  exit {self.exit} after {self.duration_s:.2f} s\n"
                f"  stdout: {self.stdout[-3000:]}\n  stderr: {self.stderr[-3000:]}")


class Run:
    """A command that is running. wait() answers with its Result."""

    def __init__(self, argv, env, stdin=None, cwd=None, own_session=False):
        self.argv = argv
        self.begun = time.monotonic()
        self.process = processes.start(
            argv, own_session, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL)
        self.pid = self.process.pid
        self._out = {}
        self._readers = []
        self._peak_kb = 0
        for name in ("stdout", "stderr"):
            reader = threading.Thread(target=self._drain, args=(name,), daemon=True)
            reader.start()
            self._readers.append(reader)
        if stdin is not None:
            self.process.stdin.write(stdin.encode())
            self.process.stdin.close()

    def _drain(self, name):
        self._out[name] = getattr(self.process, name).read()

    def running(self):
        return not self._ended_within(0)

    def _ended_within(self, timeout_s):
        """Without reaping it: wait() wants its resource usage."""
        deadline = time.monotonic() + timeout_s
        handle = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            while True:
                self._look()
                left = deadline - time.monotonic()
                if poll.poll(max(0, min(left, SAMPLE_S) * 1000)):
                    return True
                if left <= 0:
                    return False
        finally:
            os.close(handle)

    def _look(self):
        """The peak of memory so far. What wait4() says would be no good: it counts what this
        process held between fork and exec."""
        try:
            with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as f:
                text = f.read()
            if "VmHWM:" in text:
                self._peak_kb = int(text.partition("VmHWM:")[2].split()[0])
        except OSError:
            pass

    def wait(self, timeout_s=120):
        if not self._ended_within(timeout_s):
            stack = self._where()
            processes.kill_tree(self.process)
            self._join()
            raise TimeoutError(f"{' '.join(self.argv)} still runs after {timeout_s} s; {stack}\n"
                               f"stderr: {self._out.get('stderr', b'')[-3000:]!r}")
        duration = time.monotonic() - self.begun
        _, status, usage = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self._join()
        return Result(self.argv, self.process.returncode,
                      self._out.get("stdout", b"").decode(errors="replace"),
                      self._out.get("stderr", b"").decode(errors="replace"), duration,
                      self._peak_kb, usage.ru_oublock * 512)

    def _join(self):
        for reader in self._readers:
            reader.join(5)
        for f in (self.process.stdout, self.process.stderr):
            f.close()

    def _where(self):
        lines = []
        for task in sorted(os.listdir(f"/proc/{self.pid}/task")):
            try:
                with open(f"/proc/{self.pid}/task/{task}/wchan", encoding="ascii") as f:
                    lines.append(f"thread {task} in {f.read()}")
            except OSError:
                pass
        return ", ".join(lines)

    def kill(self):
        processes.kill_tree(self.process)
        self._join()


class Worker:
    """What the leader's config says of one worker. `port` may be a proxy's."""

    def __init__(self, name, url, known_hosts_line="", **settings):
        self.name, self.url, self.known_hosts_line = name, url, known_hosts_line
        self.settings = settings

    @classmethod
    def of(cls, sshd, proxy=None, name=None, folder="leader", **settings):
        port = proxy.port if proxy else sshd.port
        return cls(name or sshd.name,
                   f"sftp://{sshd.user}@{sshd.host}:{port}{os.path.join(sshd.root, folder)}",
                   sshd.known_hosts_line(port), **settings)


def quoted(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "{" + ", ".join(quoted(v) for v in value) + "}"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


class Leader:
    """`sources` is {name: {key: value}}; workers a list of Worker."""

    def __init__(self, folder, workers, sources, name="leader", **settings):
        self.folder = os.path.join(folder, name)
        self.name = name
        self.conf = os.path.join(self.folder, "syncd.conf")
        self.state_dir = os.path.join(self.folder, "state")
        self.key = os.path.join(self.folder, "id_ed25519")
        self.known_hosts = os.path.join(self.folder, "known_hosts")
        self.workers, self.sources = list(workers), dict(sources)
        self.settings = settings
        self.runs = []
        os.makedirs(self.folder, mode=0o700)
        os.mkdir(self.state_dir, mode=0o700)
        # In memory, as /run is.
        self.run_dir = tempfile.mkdtemp(prefix="syncd-run-", dir="/dev/shm")
        keygen(self.key)
        self.write_conf()

    def write_conf(self):
        with open(self.known_hosts, "w", encoding="ascii") as f:
            f.writelines(w.known_hosts_line for w in self.workers)
        lines = [f"name = {quoted(self.name)}", f"state_dir = {quoted(self.state_dir)}"]
        lines += [f"{k} = {quoted(v)}" for k, v in self.settings.items()]
        for w in self.workers:
            lines += [f"worker {quoted(w.name)} {{", f"  url = {quoted(w.url)}"]
            settings = {"min_free": "1M", **w.settings}
            if w.url.startswith("sftp:"):
                settings = {"identity_file": self.key, "known_hosts": self.known_hosts, **settings}
            lines += [f"  {k} = {quoted(v)}" for k, v in settings.items()] + ["}"]
        for name, source in self.sources.items():
            lines += [f"source {quoted(name)} {{"]
            lines += [f"  {k} = {quoted(v)}" for k, v in source.items()] + ["}"]
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")

    def environment(self, extra=None):
        env = {k: v for k, v in os.environ.items()
               if k not in ("SYNCD_CONFIG", "SSH_AUTH_SOCK", "SUDO_USER")}
        # The fingerprints live under /run/syncd; leaders of different tests must not share them.
        env["RUNTIME_DIRECTORY"] = self.run_dir
        env["HOME"] = self.folder
        env.update(extra or {})
        return env

    def argv(self, *args, json_output=False):
        return [program(), "-c", self.conf, *args, *(["--json"] if json_output else [])]

    def start(self, *args, env=None, stdin=None, json_output=False, prefix=(), own_session=False):
        """own_session: as cron and systemd start it. Then a backup gives way to all other sessions
        of the machine, those of other tests too."""
        run = Run([*prefix, *self.argv(*args, json_output=json_output)], self.environment(env),
                  stdin, cwd=self.folder, own_session=own_session)
        self.runs.append(run)
        return run

    def run(self, *args, expect=0, timeout_s=120, env=None, stdin=None):
        """Runs a command with --json, checks its exit code and its JSON's shape; `expect` is a
        code, several, or None for any."""
        result = self.start(*args, env=env, stdin=stdin, json_output=True).wait(timeout_s)
        check_exit(result, expect)
        result.json = contract.check_json(args[0], result)
        return result

    def text(self, *args, expect=0, timeout_s=120, env=None, stdin=None):
        """Runs a command as a person would; the answer is text."""
        result = self.start(*args, env=env, stdin=stdin).wait(timeout_s)
        check_exit(result, expect)
        return result

    def backup(self, *sources, expect=0, **kwargs):
        """The first source's part of the answer."""
        result = self.run("backup", *sources, expect=expect, **kwargs)
        source = dict(result.json["sources"][0])
        source["result"] = result
        return source

    def restored(self, source, snapshot, target, path):
        """Restores a snapshot into `target`; answers with where `path` is in there."""
        self.run("restore", source, "--snapshot", snapshot, "--target", target)
        return os.path.join(target, path.lstrip("/"))

    def snapshots(self, source=None):
        return self.run("snapshots", *([source] if source else [])).json["snapshots"]

    def close(self):
        for run in self.runs:
            if run.process.returncode is None:
                run.kill()
        shutil.rmtree(self.run_dir, ignore_errors=True)


def check_exit(result, expect):
    if expect is None:
        return
    wanted = expect if isinstance(expect, (tuple, list, set)) else (expect,)
    if result.exit not in wanted:
        raise AssertionError(f"exit {result.exit}, expected {expect}: {result}")
