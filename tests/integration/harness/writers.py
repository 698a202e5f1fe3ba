"""N processes that commit to one bank at a given rate, and what they went through."""

import json
import os
import signal
import subprocess
import sys
import time

from . import bank, processes

HERE = os.path.dirname(os.path.abspath(__file__))


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


class Writers:
    """Further keywords are options of writer.py: busy_ms, checkpoint, checkpoint_every, ..."""

    def __init__(self, db, folder, count=3, rate=200, seed=1, first=1, **options):
        self.db = db
        self.count = count
        self.journals = [os.path.join(folder, f"writer{first + i}.journal") for i in range(count)]
        self.reports = [os.path.join(folder, f"writer{first + i}.json") for i in range(count)]
        self.failures, self.latencies, self.checkpoints = [], [], []
        self.processes = []
        self.begun = time.time()
        extra = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
        for i in range(count):
            self.processes.append(processes.start(
                [sys.executable, os.path.join(HERE, "writer.py"), "--db", db,
                 "--journal", self.journals[i], "--report", self.reports[i],
                 "--writer", str(first + i), "--seed", str(seed * 1000 + i), "--rate", str(rate),
                 *extra], stdout=subprocess.PIPE))
        for p in self.processes:
            if p.stdout.readline() != b"ready\n":
                raise RuntimeError(f"a writer of {db} did not start")

    def commits(self):
        """Acknowledged so far, over all of them."""
        return sum(os.path.getsize(j) // bank.RECORD.size for j in self.journals)

    def wait_for_commits(self, more, timeout_s=30):
        goal = self.commits() + more
        processes.wait_until(lambda: self.commits() >= goal, timeout_s, f"{more} more commits")

    def stop(self):
        """Ends them in order and gathers their reports."""
        for p in self.processes:
            p.send_signal(signal.SIGTERM)
        for p, report in zip(self.processes, self.reports):
            if p.wait(30) != 0:
                raise RuntimeError(f"a writer of {self.db} ended with {p.returncode}")
            p.stdout.close()
            with open(report, encoding="ascii") as f:
                told = json.load(f)
            self.failures += told["failures"]
            self.latencies += told["latencies"]
            self.checkpoints += told["checkpoints"]
        self.processes = []
        self.latencies.sort()
        self.ended = time.time()

    def close(self):
        for p in self.processes:
            processes.kill_tree(p)
            p.stdout.close()
        self.processes = []

    def latency_ms(self, share, begun=0.0, ended=float("inf")):
        """A percentile of the commits that began between two moments; share 1: the worst."""
        return self.latency_within_ms(share, [(begun, ended)])

    def latency_within_ms(self, share, spans):
        """The same for several spans of time."""
        value = percentile([s for t, s in self.latencies
                            if any(begun <= t <= ended for begun, ended in spans)], share)
        return None if value is None else value * 1000

    def rate(self):
        return len(self.latencies) / (self.ended - self.begun)
