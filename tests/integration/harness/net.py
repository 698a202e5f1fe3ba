"""A house with a network of its own: each machine in a network namespace, the leader joined to each
worker by a cable that can be pulled. Needs root and `ip`."""

import os
import subprocess

from .sshd import Sshd


def ip(*words):
    answer = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30,
                            stdin=subprocess.DEVNULL)
    if answer.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {answer.stderr}")


class Net:
    """Namespaces "leader" and one for each worker; worker number i (from 1) is 10.77.<i>.2."""

    count = 0

    def __init__(self, workers=2):
        Net.count += 1
        self.stem = f"sy{os.getpid()}x{Net.count}"
        self.made = []
        self._add("leader")
        for i in range(1, workers + 1):
            self._add(f"w{i}")
            self._join(i)

    def name(self, machine):
        return f"{self.stem}{machine}"

    def prefix(self, machine):
        return ("ip", "netns", "exec", self.name(machine))

    def _add(self, machine):
        ip("netns", "add", self.name(machine))
        self.made.append(machine)
        ip("-n", self.name(machine), "link", "set", "lo", "up")

    def _join(self, i):
        leader, worker = self.name("leader"), self.name(f"w{i}")
        ip("-n", leader, "link", "add", f"to{i}", "type", "veth", "peer", "name", "up0", "netns",
           worker)
        ip("-n", leader, "address", "add", f"10.77.{i}.1/24", "dev", f"to{i}")
        ip("-n", worker, "address", "add", f"10.77.{i}.2/24", "dev", "up0")
        ip("-n", worker, "link", "set", "up0", "up")
        self.plug(i)

    def plug(self, i):
        ip("-n", self.name("leader"), "link", "set", f"to{i}", "up")

    def pull(self, i):
        """Nothing answers any more, not even with a refusal."""
        ip("-n", self.name("leader"), "link", "set", f"to{i}", "down")

    def sent_bytes(self, i):
        """What the leader has sent to the worker so far."""
        answer = subprocess.run([*self.prefix("leader"), "cat", "/proc/net/dev"], check=True,
                                capture_output=True, text=True, timeout=30)
        for line in answer.stdout.splitlines():
            if line.strip().startswith(f"to{i}:"):
                return int(line.split(":")[1].split()[8])
        raise AssertionError(f"no cable to{i}: {answer.stdout}")

    def close(self):
        for machine in self.made:
            ip("netns", "del", self.name(machine))


class NetSshd(Sshd):
    """A worker's sshd in its namespace."""

    def __init__(self, net, i, folder, **options):
        self.host = f"10.77.{i}.2"
        self.prefix = net.prefix(f"w{i}")
        super().__init__(folder, f"w{i}", **options)

    def _said(self):
        if not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def _answers(self):
        """Nobody here can reach it; it says so itself."""
        if self.process.poll() is not None:
            raise RuntimeError(f"sshd {self.name} ended: {self._said()[-2000:]}")
        return "Server listening on" in self._said()
