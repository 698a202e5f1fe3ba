"""The row of PostgreSQL: pgbench's tables, to one worker, against the plain pipe and restic."""

import contextlib
import os
import subprocess

from house import Restic, Series, backup, settle
from report import row
from harness.leader import Worker
from harness.postgres import Postgres

MB = 10**6
BYTES_PER_SCALE = 10_200_000  # of dump, for each of pgbench's scale
CHANGE = "UPDATE pgbench_accounts SET abalance = (random() * 100000)::int WHERE random() < 0.01"


class DumpToRestic(Restic):
    """restic over the same stream."""
    name = "restic-dump"

    def __init__(self, house, dump):
        super().__init__(house, None)
        self.dump = dump

    def run(self):
        command = " ".join(f"'{a}'" for a in [*self.argv, "backup", "--stdin"])
        return self.house.timed(["bash", "-o", "pipefail", "-c", f"{self.dump} | {command}"], self.env)


def leader_of(house, server):
    leader = house.leader("/nonexistent")
    leader.workers = [Worker.of(house.workers[0], folder=leader.name)]
    leader.sources = {"db": {"postgres": server.conninfo("bench"), "max_age": "1h"}}
    leader.write_conf()
    return leader


def measure(house, size_bytes, runs):
    """A first backup; then one row in a hundred changed, again and again."""
    with contextlib.closing(Postgres(shared_buffers="256MB")) as server:
        server.start()
        server.create("bench")
        subprocess.run([server.program("pgbench"), "-h", server.folder, "-U", "boss", "-i", "-q", "-s",
                        str(max(1, size_bytes // BYTES_PER_SCALE)), "bench"], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=1800)
        dump = f"{server.program('pg_dump')} -h {server.folder} -U boss -Fc -Z0 bench"
        yield from first(house, server, dump, runs)
        yield from changed(house, server, dump, runs)


def first(house, server, dump, runs):
    ours, pipe, peak = Series(), Series(), Series()
    target = os.path.join(house.workers[0].root, "dump.zst")
    for _ in range(runs):
        leader = leader_of(house, server)
        settle()
        result = backup(leader)
        ours.add(result.duration_s)
        peak.add(result.peak_kb / 1024)
        stored = house.stored_bytes(leader)
        house.forget(leader)
        settle()
        pipe.add(house.piped(f"{dump} | zstd -q -1 | $SSH 'cat > {target}; sync {target}'"))
    ratio = ours.ratio(pipe)
    yield row("PostgreSQL: first backup to one worker, to `pg_dump -Fc -Z0 \\| zstd -1 \\| ssh w1 'cat > "
              "f; sync f'`", f"{ratio.text()} ({ours.text()} s, {stored / MB:.1f} MB; pipe "
              f"{pipe.text()} s, {os.path.getsize(target) / MB:.1f} MB); peak {peak.text('{:.1f}')} MiB",
              "time <= 1.1, peak <= 24 MiB", ratio.median <= 1.1 and peak.median <= 24,
              syncd_s=ours, pipe_s=pipe, peak_mib=peak)


def changed(house, server, dump, runs):
    ours, theirs, wall, peak = Series(), Series(), Series(), Series()
    leader, restic = leader_of(house, server), DumpToRestic(house, dump)
    backup(leader)
    restic.backup()
    for _ in range(runs):
        server.sql("bench", CHANGE)
        settle()
        before = house.stored_bytes(leader)
        result = backup(leader)
        ours.add(house.stored_bytes(leader) - before)
        wall.add(result.duration_s)
        peak.add(result.peak_kb / 1024)
        settle()
        theirs.add(restic.backup()[1])
    house.forget(leader)
    ratio = ours.ratio(theirs)
    yield row("PostgreSQL: 1 % of the rows changed, scattered, to restic over the same stream",
              f"{ratio.text()} ({ours.median / MB:.2f} MB, restic {theirs.median / MB:.2f} MB; "
              f"{wall.text()} s); peak {peak.text('{:.1f}')} MiB", "bytes <= 0.8, peak <= 24 MiB",
              ratio.median <= 0.8 and peak.median <= 24, syncd_bytes=ours, restic_bytes=theirs,
              syncd_s=wall, peak_mib=peak)
