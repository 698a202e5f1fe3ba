"""A leader whose two workers are folders: then every byte that syncd reads or writes goes through
its one I/O module, where the fault points are."""

import os
import shutil
import subprocess
import tempfile

from harness import bank, repository
from harness.leader import PROJECT, Leader, Run, Worker, check_exit, program

HERE = os.path.dirname(os.path.abspath(__file__))
# A build with fault points; that which counts lines has them too.
DEBUG = program() if "/build/coverage/" in program() else \
    os.path.join(PROJECT, "build/debug/syncd/syncd")
SANITIZER_EXIT = 99


class LocalHouse:
    def __init__(self, case, name="leader"):
        self.case = case
        self.db = case.path(f"{name}.sqlite")
        bank.create(self.db, case.seed, size_bytes=300_000)
        # A folder is a worker too, but not on the source's own file system.
        self.memory = case.new_folder("/dev/shm")
        self.roots = [os.path.join(self.memory, w) for w in ("w1", "w2")]
        self.leader = Leader(case.folder, [Worker(os.path.basename(r), "file://" + r)
                                           for r in self.roots],
                             {"db": {"path": self.db, "max_age": "1h", "keep_last": 10000}}, name=name)
        case.addCleanup(self.leader.close)
        self.taken = {}  # snapshot -> state, oldest first
        self.kept = None

    def commit(self, items=20):
        live = bank.connect(self.db)
        seq, _ = bank.Hand(live, 1, self.case.rng).transaction(items)
        live.execute("COMMIT")
        live.close()
        return seq

    def state(self):
        return bank.examine(self.db).seq

    def backup(self):
        """By the release build, without faults: must simply work."""
        source = self.leader.backup("db")
        self.taken[source["snapshot"]] = self.state()
        while self.kept and len(self.taken) > self.kept:
            del self.taken[next(iter(self.taken))]
        return source

    def keep_last(self, count):
        """From now on prune drops the older ones; `taken` forgets them."""
        self.leader.sources["db"]["keep_last"] = count
        self.leader.write_conf()
        self.kept = count

    def faulty(self, *args, fault=None, count=None, timeout_s=60):
        """A command by the debug build (sanitizers, fault points); answers with its Result."""
        env = {"ASAN_OPTIONS": f"exitcode={SANITIZER_EXIT}:detect_leaks=1",
               "UBSAN_OPTIONS": f"exitcode={SANITIZER_EXIT}:halt_on_error=1"}
        if fault:
            env["SYNCD_FAULT"] = fault
        if count:
            env["SYNCD_FAULT_COUNT"] = count
        argv = self.leader.argv(*args, json_output=True)
        return run_as(self.leader, [DEBUG, *argv[1:]], env, timeout_s)

    def calls_of(self, *args, expect=0):
        """How many calls through the I/O module a command makes when nothing fails."""
        file = self.case.path("calls")
        result = self.faulty(*args, count=file)
        check_exit(result, expect)
        with open(file, encoding="ascii") as f:
            return int(f.read())

    def assert_all_restore(self, where):
        """Every snapshot that was ever reported stored, bit for bit; and nothing that bears a final
        name is damaged."""
        for snapshot, state in self.taken.items():
            target = tempfile.mkdtemp(dir=self.case.folder)
            copy = self.leader.restored("db", snapshot, target, self.db)
            self.case.assertEqual(bank.examine(copy).seq, state, where)
            shutil.rmtree(target)
        for root in self.roots:
            repository.parts(root)  # all names are names of parts
        result = self.leader.run("verify", "db", "--read-data", expect=(0, 3))
        damaged = [d for w in result.json["workers"] for d in w["damaged"]]
        self.case.assertEqual(damaged, [], where)

    def assert_sane(self, result, where):
        """Whatever failed: no crash, no leak, nothing that a sanitizer objects to."""
        self.case.assertIn(result.exit, (0, 1, 2, 3, 4), f"{where}: {result}")
        self.case.assertNotIn("ERROR: ", result.stderr, where)
        self.case.assertNotIn("runtime error", result.stderr, where)


def run_as(leader, argv, env, timeout_s=60):
    run = Run(argv, leader.environment(env), cwd=leader.folder)
    leader.runs.append(run)
    return run.wait(timeout_s)


def allocation_faults(case):
    """The library that makes the Nth allocation fail (LD_PRELOAD, FAIL_MALLOC=N)."""
    library = case.path("fail_malloc.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library,
                    os.path.join(HERE, "fail_malloc.c")], check=True, timeout=60)
    return library
