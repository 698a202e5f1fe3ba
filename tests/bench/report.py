"""What the benchmarks write: rows, the machine they were measured on, one JSON file, one table."""

import json
import os
import platform
import sqlite3
import subprocess

from house import Series
from harness.leader import PROJECT, program


def row(what, measured, bar, good, **details):
    return {"what": what, "measured": measured, "bar": bar,
            "good": good, "details": {k: v.as_json() if isinstance(v, Series) else v
                                      for k, v in details.items()}}


def version_of(*argv):
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=20,
                                stdin=subprocess.DEVNULL)
        return (answer.stdout or answer.stderr).strip().split("\n")[0]
    except OSError:
        return None


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        models = [line.partition(":")[2].strip() for line in f if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": models[0] if models else platform.machine(), "cores": os.cpu_count(),
            "memory_bytes": memory, "kernel": platform.release(), "sqlite": sqlite3.sqlite_version,
            "syncd": version_of(program(), "--version"), "restic": version_of("restic", "version"),
            "borg": version_of("borg", "--version"), "zstd": version_of("zstd", "--version"),
            "ssh": version_of("ssh", "-V"),
            "commit": version_of("git", "-C", PROJECT, "rev-parse", "--short", "HEAD")}


def table(results, about):
    m = results["machine"]
    lines = [f"Measured {results['at']} at commit {m['commit']}: {m['processor']}, {m['cores']} "
             f"cores, {m['memory_bytes'] / 2**30:.0f} GiB, Linux {m['kernel']}; {about}.", "",
             "| work | measured | bar | |", "|---|---|---|---|"]
    lines += [f"| {r['what']} | {r['measured']} | {r['bar']} | {'yes' if r['good'] else 'NO'} |"
              for r in results["rows"]]
    return "\n".join(lines) + "\n"


def write(results, prefix, about):
    """build/bench/<prefix><time>.json and .md."""
    folder = os.path.join(PROJECT, "build/bench")
    os.makedirs(folder, exist_ok=True)
    base = os.path.join(folder, prefix + results["at"].replace(":", "").replace("-", ""))
    with open(base + ".json", "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
    with open(base + ".md", "w", encoding="utf-8") as f:
        f.write(table(results, about))
    print(f"\n{table(results, about)}\n{base}.json\n{base}.md")
