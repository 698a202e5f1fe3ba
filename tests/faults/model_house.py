"""What test_model.py knows of the workers and of each snapshot, and what it holds against the
program's answers. The oracle is the source's model and the names in the workers' folders."""

import dataclasses
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from harness import repository
from harness.leader import PROJECT, Leader, Worker, program
from model_source import Source, digest, tree_states

NAME = "t"
KEEP = 8
EMPTY = ("file", digest(b""))
SHORT_LIST = os.path.join(os.path.dirname(os.path.dirname(program())), "tests/syncd_short_list")


class ShortListLeader(Leader):
    """By the program whose lists of parts are short, on a clock that is `ahead_s` ahead."""

    ahead_s = 0
    shift = memory = ""

    def argv(self, *args, json_output=False):
        return [SHORT_LIST, *super().argv(*args, json_output=json_output)[1:]]

    def environment(self, extra=None):
        return super().environment({"SYNCD_TEST_CLOCK_OFFSET_S": str(int(self.ahead_s)),
                                    "LD_PRELOAD": self.shift, "SHIFT_ROOT": self.memory,
                                    **(extra or {})})

    def now(self):
        return time.time() + self.ahead_s


@dataclasses.dataclass
class Record:
    """What a snapshot holds: for each entry the states that it may have, which is one when it was
    taken, and of what was carried over often several until it is first looked at."""

    order: tuple
    options: dict
    carried: set
    sound: bool  # taken when all damage was known: restores whatever is damaged


class Place:
    """A worker's folder. `rotten`: it may hold damage; `unseen`: something befell it of which no
    command can know yet."""

    def __init__(self, name, root):
        self.name, self.root, self.away_root = name, root, root + ".away"
        self.rotten = self.unseen = self.away = self.is_set_up = False
        self.copy = None
        # Snapshots that retention lets go, after damage: verify does not read them.
        self.unread, self.copy_unread = set(), set()

    def may_lack(self, snapshot):
        return self.rotten or snapshot in self.unread

    def folder(self):
        return self.away_root if self.away else self.root

    def snaps(self):
        """id -> order."""
        return {p.id: p.order for p in repository.parts(self.folder(), NAME, "snap")}


class House:
    def __init__(self, case, seed):
        self.case, self.seed = case, seed
        self.folder = tempfile.mkdtemp(prefix=f"m{seed}-", dir=case.folder)
        self.memory = case.new_folder("/dev/shm")
        self.source = Source(os.path.join(self.folder, "src"), random.Random(f"{seed}/source"))
        case.addCleanup(self.source.close)
        self.places = [Place(w, os.path.join(self.memory, w)) for w in ("w1", "w2")]
        # All but the source lies in memory: what has to be on a disk is not the question here.
        self.leader = ShortListLeader(
            self.memory, [Worker(p.name, "file://" + p.root) for p in self.places],
            {NAME: {"path": self.source.folder, "max_age": "300d", "keep_last": KEEP}})
        case.addCleanup(self.leader.close)
        self.leader.shift, self.leader.memory = shift_library(case), self.memory
        self.records, self.past = {}, {}
        self.noted = True  # the catalog knows of all damage that there is
        self.is_behind = False  # the clock has been put back
        self.timeline = []
        self.count = dict.fromkeys(("backups", "unchanged", "killed", "snapshots", "restores",
                                    "refused", "rescued", "carried", "consolidated", "lost"), 0)
        self.log = []
        self.setup()

    # ---- what there is ----

    def present(self):
        return [p for p in self.places if not p.away]

    def held(self, snapshot, places=None):
        return [p for p in places or self.places if snapshot in p.snaps()]

    def newest(self, places):
        """Of the snapshots there, or None."""
        held = {i: o for p in places for i, o in p.snaps().items()}
        return max(held, key=held.get, default=None)

    def fail(self, text):
        with open(os.path.join(self.folder, "log"), "w", encoding="utf-8") as f:
            f.write("\n".join(self.log))
        lines = "\n".join(self.log[-40:])
        raise AssertionError(f"SYNCD_TEST_SEED={self.seed}, step {len(self.log)}: {text}\n"
                             f"the last events:\n{lines}")

    def need(self, condition, text):
        if not condition:
            self.fail(text)

    def command(self, *args, expect):
        result = self.leader.start(*args, json_output=True).wait(60)
        self.need(result.exit in expect, f"exit {result.exit}, not one of {expect}: {result}")
        result.json = answer_of(result)
        self.log.append(f"      {brief(args)}: exit {result.exit}")
        return result

    def forget_gone(self):
        for snapshot in [s for s in self.records if not self.held(s)]:
            del self.records[snapshot]

    def pass_time(self, rng):
        """So that what was changed is older than two seconds."""
        self.leader.ahead_s += rng.choice((5, 5, 60, 600, 7200))
        self.timeline.append((self.leader.now(), self.source.states(), self.source.failing()))

    # ---- backups ----

    def is_calm(self, newest):
        """Then a run must build on the newest snapshot and on nothing else."""
        return newest in self.records and len(self.present()) == 2 and \
            len(self.held(newest)) == 2 and not any(p.rotten for p in self.places)

    def carried_options(self, newest):
        """For each entry that fails, what its state in a snapshot that is made now may be."""
        options = {}
        for name in self.source.failing():
            if self.is_calm(newest):
                options[name] = set(self.records[newest].options.get(name, {None}))
            else:
                options[name] = self.past.get(name, set()) | {None}
                # Without what it was before, it is an empty file like others.
                if self.source.is_empty(name):
                    options[name].add(EMPTY)
        return options

    def backup(self, rng, kill_after_s=None):
        self.pass_time(rng)
        before = {i for p in self.places for i in p.snaps()}
        newest = self.newest(self.present())
        options = {n: {s} for n, s in self.source.states().items()}
        carried = self.carried_options(newest)
        calm = self.is_calm(newest)
        result = self.run_backup(kill_after_s)
        new = {i: o for p in self.places for i, o in p.snaps().items() if i not in before}
        self.need(len(new) <= 1, f"one backup has made {len(new)} snapshots")
        for snapshot, order in new.items():
            self.register(snapshot, Record(order, {**options, **carried}, set(carried), False))
        self.leader.ahead_s += 5
        if result is not None:
            self.judge_backup(result.json["sources"][0], result.exit, options, calm)
            for p in self.present():
                p.unseen = False

    def run_backup(self, kill_after_s):
        if kill_after_s is None:
            self.count["backups"] += 1
            return self.command("backup", NAME, expect=(0, 3))
        self.killed("backup", NAME, after_s=kill_after_s)
        return None

    def killed(self, *args, after_s):
        run = self.leader.start(*args, json_output=True)
        time.sleep(after_s)
        if run.running():
            os.kill(run.pid, signal.SIGKILL)
        self.count["killed"] += 1
        result = run.wait(60)
        self.log.append(f"      {brief(args)} killed after {after_s:.3f} s: exit {result.exit}")

    def register(self, snapshot, record):
        self.records[snapshot] = record
        self.count["snapshots"] += 1
        for name, options in record.options.items():
            self.past.setdefault(name, set()).update(o for o in options if o)

    def judge_backup(self, said, exit_code, options, calm):
        failing = self.source.failing()
        snapshot = said["snapshot"]
        self.need(snapshot in self.records, f"no worker has {snapshot}, which was reported: {said}")
        record = self.records[snapshot]
        self.count["consolidated"] += said["consolidated"]
        stored = [w["name"] for w in said["workers"] if w["stored"]]
        self.log.append(f"      {snapshot[:12]} {'unchanged ' if said['unchanged'] else ''}"
                        f"{record.order} stored on {stored}")
        stem = self.source.folder + "/"
        failed = {f["path"].removeprefix(stem): f["lost"] for f in said["failed_entries"]}
        if not calm:
            failing = [n for n in failing if n in failed or not self.source.is_empty(n)]
            record.carried.intersection_update(failing)
        self.need(sorted(failed) == failing, f"it says that {failed} fail, but {failing} do")
        self.need(said["complete"] == (not failing), f"complete is {said['complete']}")
        if said["unchanged"]:
            self.count["unchanged"] += 1
            same = {n: o for n, o in record.options.items() if n in options}
            self.need(same == options, f"unchanged, but {differences(same, options)}")
        for name, lost in failed.items():
            self.judge_failed(record, name, lost, calm)
        for w, p in zip(said["workers"], self.places):
            self.need(not w["stored"] or snapshot in p.snaps() and not p.away,
                      f"{p.name} is said to have {snapshot}")
        self.need(exit_code or len(self.held(snapshot, self.present())) == 2,
                  "exit 0, but not on both workers")
        record.sound |= self.noted and not any(p.unseen for p in self.present())

    def judge_failed(self, record, name, lost, calm):
        self.count["carried"] += 1
        self.count["lost"] += lost
        self.need(not (lost and calm), f"{name} is lost without any damage")
        if lost:
            record.options[name] = {None}

    # ---- restores ----

    def compare(self, snapshot, found, whole, how):
        """`whole`: nothing may be missing. A carried-over entry's state is known from then on."""
        record = self.records[snapshot]
        for name, state in found.items():
            if name not in record.options:
                self.fail(f"{how} of {snapshot} has {name}, which was not there")
            if state not in record.options[name]:
                self.fail(f"{how} of {snapshot}: {name} is {state}, not {record.options[name]}"
                          f"{' (carried over)' if name in record.carried else ''}")
        for name, options in record.options.items():
            if whole and name not in found and None not in options:
                self.fail(f"{how} of {snapshot} lacks {name}")
            if whole and name in record.carried:
                record.options[name] = {found.get(name)}

    def restore(self, snapshot):
        """A snapshot that a worker which answers has."""
        target = os.path.join(self.memory, "out")
        sound = [p for p in self.held(snapshot, self.present()) if not p.may_lack(snapshot)]
        must = bool(sound) or self.records[snapshot].sound
        result = self.command("restore", NAME, "--snapshot", snapshot, "--target", target,
                              expect=(0,) if must else (0, 1, 3))
        found = tree_states(target + self.source.folder)
        self.compare(snapshot, found, result.exit == 0, "the restore")
        self.count["restores" if result.exit == 0 else "refused"] += 1
        if result.exit == 0:
            stem = self.source.folder + "/"
            older = {f["path"].removeprefix(stem) for f in result.json["files"]
                     if f["older_because"]}
            carried = {n for n in self.records[snapshot].carried & set(found)
                       if found[n] != EMPTY}
            self.need(older == carried, f"{older} are said to be older, but {carried} are")
        shutil.rmtree(target, ignore_errors=True)

    def rescue(self, place, snapshot):
        """The same from one folder, by another program."""
        target = os.path.join(self.memory, "rescued")
        answer = subprocess.run(
            [sys.executable, os.path.join(PROJECT, "restore/rescue.py"), place.folder(), snapshot,
             target], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.need(answer.returncode == 0 or place.may_lack(snapshot),
                  f"rescue.py of {snapshot} from {place.name}: {answer.stdout} {answer.stderr}")
        self.compare(snapshot, tree_states(target + self.source.folder), answer.returncode == 0,
                     "the rescue")
        self.count["rescued"] += 1
        shutil.rmtree(target, ignore_errors=True)

    def look_at_status(self):
        """What is called fresh is there, and no newer than it says."""
        answer = self.command("status", expect=(0, 1, 3, 4)).json["sources"][0]
        for said, place in zip(answer["workers"], self.places):
            if said["state"] != "fresh" or place.unseen or place.rotten:
                continue
            newest = self.newest([place])
            self.need(newest, f"{place.name} is fresh, but has no snapshot")
            self.need(newest in self.records, f"{place.name} is fresh with a stranger")
            self.rescue(place, newest)
            record = self.records[newest]
            if not record.carried and not self.is_behind:
                self.judge_as_of(place, said["as_of"], record)

    def judge_as_of(self, place, as_of, record):
        at = datetime.datetime.fromisoformat(as_of.replace("Z", "+00:00")).timestamp() + 1
        then = [(s, f) for when, s, f in self.timeline if when <= at]
        if not then:
            return
        states, failing = then[-1]
        were = {n: {s} for n, s in states.items()}
        self.need(not failing and were == record.options,
                  f"{place.name} is fresh as of {as_of}, but then there was another state: "
                  f"{differences(record.options, were)} {failing}")

    # ---- the workers ----

    def setup(self):
        self.command("setup", expect=(0,))
        for p in self.places:
            p.is_set_up = True


def answer_of(result):
    try:
        return json.loads(result.stdout)
    except ValueError:
        raise AssertionError(f"no JSON: {result}") from None


def brief(args):
    """A command for the log."""
    return " ".join(a[:12] for a in args if not a.startswith("/"))


def differences(left, right):
    return {n: (left.get(n), right.get(n)) for n in sorted(left.keys() | right.keys())
            if left.get(n) != right.get(n)}


def shift_library(case):
    """The workers' clocks run like the leader's."""
    library = case.path("shift_time.so")
    if not os.path.exists(library):
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library,
                        os.path.join(PROJECT, "tests/bench/shift_time.c")], check=True, timeout=60)
    return library
