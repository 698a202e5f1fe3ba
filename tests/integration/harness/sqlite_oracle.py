"""What the sqlite3 program says of a database: the judge of what comes back."""

import os
import shutil
import subprocess
import tempfile

SIDECARS = ("-wal", "-journal")


def ask(path, *commands):
    """The answer of sqlite3, which may write to the folder; an error raises."""
    return subprocess.run(["sqlite3", "-batch", "-bail", path, *commands], capture_output=True,
                          text=True, check=True, timeout=120).stdout


def content(path):
    """The sum over schema and rows of the database with its -wal, read from a copy, so that the
    files themselves stay as they are; None: sqlite3 cannot read it."""
    folder = tempfile.mkdtemp(prefix="oracle-", dir=os.path.dirname(os.path.dirname(path)) or None)
    try:
        copy = os.path.join(folder, "db")
        for suffix in ("", *SIDECARS):
            if os.path.exists(path + suffix):
                shutil.copyfile(path + suffix, copy + suffix)
        if "ok" not in ask(copy, "PRAGMA integrity_check").split():
            return None
        return ask(copy, ".sha3sum --schema").strip()
    except subprocess.CalledProcessError:
        return None
    finally:
        shutil.rmtree(folder)


def look(folder):
    """Everything that a stat shows of a folder's files, but for the time of reading."""
    return {n: (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_mode)
            for n in sorted(os.listdir(folder)) for st in [os.lstat(os.path.join(folder, n))]}
