"""A process that commits to a bank at a given rate until SIGTERM; writers.py starts it."""

import argparse
import json
import random
import signal
import sqlite3
import sys
import time

import bank


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--db", required=True)
    p.add_argument("--journal", required=True)
    p.add_argument("--report", required=True)
    p.add_argument("--writer", type=int, required=True)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--rate", type=float, required=True, help="commits per second, 0: unlimited")
    p.add_argument("--busy-ms", type=int, default=5000)
    p.add_argument("--synchronous", default="NORMAL")
    p.add_argument("--journal-mode", help="what the connection sets, if not the database's own")
    p.add_argument("--autocheckpoint", type=int, default=1000)
    p.add_argument("--checkpoint", default="none", help="PASSIVE, FULL, RESTART, TRUNCATE or none")
    p.add_argument("--checkpoint-every", type=float, default=0.5)
    p.add_argument("--body", type=int, default=200)
    p.add_argument("--items", type=int, default=1)
    return p.parse_args()


class Writer:
    def __init__(self, a):
        self.a = a
        self.stop = False
        self.failures = []  # (when, what)
        self.latencies = []  # (when, seconds)
        self.checkpoints = []  # (when, seconds, busy, frames in the log, frames checkpointed)
        signal.signal(signal.SIGTERM, self._on_stop)

    def _on_stop(self, *_):
        self.stop = True

    def checkpoint(self, db):
        begun = time.time()
        try:
            answer = db.execute(f"PRAGMA wal_checkpoint({self.a.checkpoint})").fetchone()
        except sqlite3.Error as e:
            self.failures.append((begun, f"checkpoint: {e}"))
            return
        self.checkpoints.append((begun, time.time() - begun, *answer))

    def commit(self, db, hand, journal):
        begun = time.time()
        clock = time.perf_counter()
        try:
            seq, chain = hand.transaction(self.a.items)
            committing = time.time()
            db.execute("COMMIT")
        except sqlite3.Error as e:
            self.failures.append((begun, str(e)))
            if db.in_transaction:
                db.execute("ROLLBACK")
            return
        self.latencies.append((begun, time.perf_counter() - clock))
        journal.write(bank.RECORD.pack(seq, self.a.writer, chain, begun, committing, time.time()))

    def work(self):
        a = self.a
        db = bank.connect(a.db, a.busy_ms / 1000)
        if a.journal_mode:
            db.execute(f"PRAGMA journal_mode={a.journal_mode}")
        db.execute(f"PRAGMA synchronous={a.synchronous}")
        db.execute(f"PRAGMA wal_autocheckpoint={a.autocheckpoint}")
        hand = bank.Hand(db, a.writer, random.Random(a.seed), a.body)
        due = checkpoint_due = time.monotonic()
        with open(a.journal, "ab", buffering=0) as journal:
            print("ready", flush=True)
            while not self.stop:
                self.commit(db, hand, journal)
                if a.checkpoint != "none" and time.monotonic() >= checkpoint_due:
                    self.checkpoint(db)
                    checkpoint_due = time.monotonic() + a.checkpoint_every
                if a.rate:
                    due = max(due + 1 / a.rate, time.monotonic() - 0.1)
                    time.sleep(max(0, due - time.monotonic()))
        db.close()
        with open(a.report, "w", encoding="ascii") as f:
            json.dump({"failures": self.failures, "latencies": self.latencies,
                       "checkpoints": self.checkpoints}, f)


if __name__ == "__main__":
    sys.exit(Writer(arguments()).work())
