"""The soak: a daemon that backs up every 5 s while writers write, and workers and broker are killed
and revived at random. What it says of freshness is held against what really was stored when."""

import collections
import datetime
import json
import os
import statistics
import threading
import time

from harness import bank, repository
from harness.case import at_level, by_level
from harness.processes import wait_until
from test_mqtt import MqttCase

MB = 1_000_000
MAX_AGE_S = 12
SAMPLE_S = 0.05
SLACK_S = 2 * SAMPLE_S + 0.3  # from a rename on the worker to when the watcher has seen it
GROWTH_KB = 256


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Watcher(threading.Thread):
    """Notes when each snapshot was first seen on each worker, and how large the daemon is."""

    def __init__(self, roots, pid):
        super().__init__(daemon=True)
        self.roots, self.pid = roots, pid  # name -> folder
        self.seen = {name: {} for name in roots}  # id -> (when, mtime)
        self.anonymous_kb = []  # (when, KiB)
        self.stopping = threading.Event()
        self.start()

    def run(self):
        for count in range(1 << 30):
            if self.stopping.wait(SAMPLE_S):
                return
            for name, root in self.roots.items():
                for part in repository.parts(root, "db", "snap"):
                    # One that is found unchanged is marked again later.
                    before = self.seen[name].setdefault(part.id, (time.time(), part.mtime))
                    if part.mtime > before[1]:
                        self.seen[name][part.id] = (before[0], part.mtime)
            if count % 20 == 0:
                self._measure()

    def _measure(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            text = f.read()
        self.anonymous_kb.append((time.time(), int(text.partition("RssAnon:")[2].split()[0])))

    def stop(self):
        self.stopping.set()
        self.join(10)


class Listening:
    """Takes the states as they are published, whenever there is a broker: (when, state)."""

    def __init__(self, broker):
        self.broker = broker
        self.states = []
        self.listener, self.known = None, 0

    def attach(self):
        self.listener = self.broker.listen("syncd/leader/db/state")
        self.known = 0

    def collect(self):
        """From the main thread, often."""
        if not self.listener:
            return
        messages = list(self.listener.messages)
        for when, (_, _, payload) in list(zip(self.listener.times, messages))[self.known:]:
            if payload:
                self.states.append((when, json.loads(payload)))
        self.known = len(messages)

    def detach(self):
        self.collect()
        self.listener.close()
        self.listener = None


class Soak(MqttCase):
    syncd_proof = True

    @at_level("default", timeout_s=1800)
    def test_soak(self):
        length_s = by_level(60, 60, 600)
        db = self.bank("soak.sqlite", size_bytes=2 * MB)
        broker = self.broker()
        leader = self.house(broker.port, every="5s", max_age=f"{MAX_AGE_S}s", keep_last=100000,
                            verify_every="20s", drill_every="30s")
        leader.sources["db"]["path"] = db
        leader.write_conf()
        writers = self.writers(db, count=2, rate=20)
        run = self.daemon(leader)
        roots = {w.name: repository.of(w) for w in (self.w1, self.w2)}
        watcher = Watcher(roots, run.pid)
        self.addCleanup(watcher.stop)
        listening = Listening(broker)
        listening.attach()
        self.addCleanup(lambda: listening.listener and listening.detach())
        self.wreck(length_s, broker, listening)
        recovered = time.time()

        def all_fresh():
            listening.collect()
            state = listening.states[-1][1] if listening.states else {"state": None}
            return state["state"] == "fresh" and seconds(state["as_of"]) > recovered
        wait_until(all_fresh, 90, "all is fresh again", interval_s=0.1)
        writers.stop()
        listening.collect()
        watcher.stop()
        self.stop(run)
        self.check_reports(listening.states, watcher.seen)
        self.check_memory(watcher.anonymous_kb)
        self.check_snapshots(leader, db, writers)

    def wreck(self, length_s, broker, listening):
        """Kills and revives, and always leaves something alive for a while."""
        down, struck = set(), collections.Counter()
        ends = time.monotonic() + length_s
        while time.monotonic() < ends:
            pause = time.monotonic() + self.rng.uniform(0.3, 3)
            while time.monotonic() < pause:
                listening.collect()
                time.sleep(0.02)
            what = self.rng.choice(["w1", "w2", "broker"])
            struck[what] += 1
            if what == "broker":
                self.toggle_broker(broker, listening, what in down)
            elif what in down:
                getattr(self, what).start()
            else:
                getattr(self, what).kill()
            down ^= {what}
        for what in down:
            if what == "broker":
                self.toggle_broker(broker, listening, True)
            else:
                getattr(self, what).start()
        self.assertEqual(len(struck), 3, "the wrecking was too tame")

    @staticmethod
    def toggle_broker(broker, listening, is_down):
        if is_down:
            broker.start()
            listening.attach()
        else:
            listening.detach()
            broker.kill()

    def check_reports(self, states, seen):
        """Each state that was published, by the files that were on the workers then."""
        self.assertGreater(len(states), by_level(1, 1, 20))  # the broker may be down for most of it
        words = collections.Counter(state["state"] for _, state in states)
        for when, state in states:
            for worker in state["workers"]:
                if not worker["as_of"]:
                    continue
                as_of = seconds(worker["as_of"])
                stored = [s for s, (first, mtime) in seen[worker["name"]].items()
                          if first <= when + SLACK_S and mtime >= int(as_of)]
                self.assertTrue(stored, f"{worker} was reported at {when}")
                if worker["fresh_until"]:
                    self.assertAlmostEqual(seconds(worker["fresh_until"]) - as_of, MAX_AGE_S,
                                           delta=1.01)
            fresh = [w for w in state["workers"] if w["fresh_until"] and
                     seconds(w["fresh_until"]) > when - 2]
            if state["state"] == "fresh":
                self.assertEqual(len(fresh), 2, str(state))
            elif state["state"] == "degraded":
                self.assertGreaterEqual(len(fresh), 1, str(state))
        print(f"     soak: {sum(words.values())} states published: {dict(words)}", flush=True)

    def check_memory(self, samples):
        """Once it has settled it stays as it is."""
        settled = [kb for when, kb in samples if when > samples[0][0] + 10]
        quarter = max(1, len(settled) // 4)
        begin, end = (statistics.median(s) for s in (settled[:quarter], settled[-quarter:]))
        print(f"     soak: the daemon's anonymous memory: {begin:.0f} KiB, at the end {end:.0f} KiB,"
              f" at most {max(kb for _, kb in samples)} KiB", flush=True)
        self.assertLess(end, begin + GROWTH_KB)

    def check_snapshots(self, leader, db, writers):
        """Each comes back, and holds all that was committed before its as_of, which a run that found
        nothing changed has moved forward on the workers."""
        leader.run("sync", expect=(0, 3))
        leader.run("verify", "--read-data")
        snapshots = leader.snapshots("db")
        marks = collections.defaultdict(float)
        for worker in (self.w1, self.w2):
            for part in repository.parts(repository.of(worker), "db", "snap"):
                marks[part.id] = max(marks[part.id], part.mtime)
        for s in snapshots:
            self.assertEqual(s["workers"], ["w1", "w2"], str(s))
            taken = max(seconds(s["taken_at"]), marks[s["id"]])
            copy = self.restored(leader, s["id"], db)
            bank.examine_between(copy, writers.journals, taken, taken + 60)
            os.unlink(copy)
        print(f"     soak: {len(snapshots)} snapshots, each restored and examined; "
              f"{writers.commits()} commits", flush=True)
