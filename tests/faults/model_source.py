"""The folder that test_model.py has backed up: databases and files that change, change back, fail
and heal, and what a copy of each has to hold. Nothing in it changes while syncd runs.

What is written is a function of its place and of a small number, so that pages and files often
become what they once were: that is where a list of parts of which the newest wins can go wrong."""

import hashlib
import os
import random
import shutil
import sqlite3

from harness import bank

PAGE_SIZES = (512, 512, 1024, 4096)
VERSIONS = 3
DATABASES = ("a.db", "b.db", "sub/c.sqlite")


def digest(data):
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def database_state(db):
    """All that a user can see of it."""
    h = hashlib.blake2b(digest_size=8)
    for pragma in ("page_size", "user_version"):
        h.update(f"{pragma}={db.execute(f'PRAGMA {pragma}').fetchone()[0]};".encode())
    for name, sql in db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall():
        h.update(f"{name} {sql};".encode())
        if sql and sql.startswith("CREATE TABLE"):
            for row in db.execute(f"SELECT * FROM {name} ORDER BY 1"):
                h.update(repr(row).encode())
    return "database", h.hexdigest()


def copy_state(path):
    """Of a restored database, which must be sound, too."""
    db = bank.open_copy(path)
    try:
        answer = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if answer != "ok":
            return "database", f"integrity_check: {answer}"
        return database_state(db)
    except sqlite3.DatabaseError as e:
        return "database", str(e)
    finally:
        db.close()


class Database:
    """One that is written, and fails at times. Its owner keeps it open now and then."""

    def __init__(self, path, rng):
        self.path = path
        self.db = None
        self.good = None  # the file's bytes while what lies there fails
        self.state = None
        self.saved = []  # (bytes, state) of earlier whole files
        live = self.open(rng)
        live.execute(f"PRAGMA page_size={rng.choice(PAGE_SIZES)}")
        live.execute(f"PRAGMA journal_mode={rng.choice(('wal', 'delete'))}")
        live.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        live.execute("CREATE TABLE u(id INTEGER PRIMARY KEY, k TEXT)")
        live.execute("CREATE INDEX i ON u(k)")
        self.insert(live, rng, 60)
        self.done(rng)

    def open(self, rng):
        if self.db is None:
            self.db = bank.connect(self.path)
            self.db.execute("PRAGMA synchronous=OFF")
            self.db.execute(f"PRAGMA wal_autocheckpoint={rng.choice((0, 10, 1000))}")
        return self.db

    def close(self):
        if self.db is not None:
            self.db.close()
            self.db = None

    def done(self, rng):
        """After a change: the state that counts from now on."""
        self.state = database_state(self.db)
        if rng.random() < 0.6:
            self.close()
            if rng.random() < 0.3:
                self.saved.append((self.read(), self.state))
                del self.saved[:-4]

    def read(self):
        with open(self.path, "rb") as f:
            return f.read()

    def write(self, data, in_place):
        self.close()
        for sidecar in ("-wal", "-shm", "-journal"):
            if os.path.exists(self.path + sidecar):
                os.unlink(self.path + sidecar)
        new = self.path if in_place else self.path + ".new"
        with open(new, "r+b" if in_place else "wb") as f:
            f.write(data)
            f.truncate()
        os.rename(new, self.path)

    @staticmethod
    def value(row, version):
        rng = random.Random(row * 1000 + version)
        return rng.randbytes(300) if version else bytes(300)

    def insert(self, live, rng, count):
        live.execute("BEGIN IMMEDIATE")
        for _ in range(count):
            row = live.execute("SELECT ifnull(max(id), 0) + 1 FROM t").fetchone()[0]
            live.execute("INSERT INTO t VALUES(?, ?)",
                         (row, self.value(row, rng.randrange(VERSIONS))))
            live.execute("INSERT INTO u(k) VALUES(?)", (f"{rng.random():.9f}",))
        live.execute("COMMIT")

    def op_update(self, live, rng):
        """Some neighbours, all to the same version."""
        last = live.execute("SELECT ifnull(max(id), 1) FROM t").fetchone()[0]
        first = rng.randrange(1, last + 1) if rng.random() < 0.5 else 1
        version = rng.randrange(VERSIONS)
        live.execute("BEGIN IMMEDIATE")
        for row in range(first, first + rng.choice((1, 1, 2, 5, 20))):
            live.execute("UPDATE t SET v=? WHERE id=?", (self.value(row, version), row))
        live.execute("COMMIT")

    def op_insert(self, live, rng):
        if live.execute("SELECT count(*) FROM t").fetchone()[0] < 200:
            self.insert(live, rng, rng.choice((1, 5, 30)))

    def op_delete(self, live, rng):
        live.execute("DELETE FROM t WHERE id % ? = 0", (rng.choice((7, 11, 50)),))
        live.execute("DELETE FROM u WHERE id % ? = 0", (rng.choice((2, 7)),))

    def op_vacuum(self, live, rng):
        live.execute("VACUUM")

    def op_page_size(self, live, rng):
        mode = live.execute("PRAGMA journal_mode=delete").fetchone()[0]
        live.execute(f"PRAGMA page_size={rng.choice(PAGE_SIZES)}")
        live.execute("VACUUM")
        if mode == "delete" and rng.random() < 0.5:
            live.execute("PRAGMA journal_mode=wal")

    def op_mode(self, live, rng):
        live.execute(f"PRAGMA journal_mode={rng.choice(('wal', 'delete'))}")

    def op_version(self, live, rng):
        live.execute(f"PRAGMA user_version={rng.randrange(3)}")

    def op_checkpoint(self, live, rng):
        live.execute(f"PRAGMA wal_checkpoint({rng.choice(('PASSIVE', 'TRUNCATE'))})")

    def op_put_back(self, live, rng):
        """A whole earlier file, in place or renamed over it."""
        if self.saved:
            data, _ = rng.choice(self.saved)
            self.write(data, rng.random() < 0.5)
            self.open(rng)

    def change(self, rng):
        name = rng.choice(("update",) * 10 + ("insert", "delete", "vacuum", "page_size", "mode",
                                              "version", "checkpoint", "put_back", "put_back"))
        getattr(self, "op_" + name)(self.open(rng), rng)
        self.done(rng)
        return name

    # ---- failing ----

    def fail(self, rng, may_be_empty):
        how = rng.choice(("header", "journal", "empty" if may_be_empty else "header"))
        self.open(rng)
        self.close()
        self.good = self.read()
        if how == "header":
            self.write(self.good[:16] + b"\xff" * 84 + self.good[100:], True)
        elif how == "empty":
            self.write(b"", True)
        else:
            self.leave_journal(rng)
        return how

    def leave_journal(self, rng):
        """As an application that crashed in the middle of a write leaves it."""
        live = self.open(rng)
        live.execute("PRAGMA journal_mode=delete")
        live.close()
        self.good, self.db = self.read(), None
        live = bank.connect(self.path)
        live.execute("PRAGMA cache_size=1")
        live.execute("BEGIN IMMEDIATE")
        live.execute("UPDATE t SET v=randomblob(300)")
        half = self.read()
        with open(self.path + "-journal", "rb") as f:
            journal = f.read()
        live.execute("ROLLBACK")
        live.close()
        self.write(half, True)
        with open(self.path + "-journal", "wb") as f:
            f.write(journal)

    def heal(self, rng):
        if os.path.exists(self.path + "-journal") and rng.random() < 0.7:
            self.open(rng)  # which rolls it back
        else:
            self.write(self.good, rng.random() < 0.5)
            self.open(rng)
        before, self.good = self.state, None
        self.state = database_state(self.db)
        if self.state != before:
            raise AssertionError(f"{self.path} has not healed: the model is wrong")
        self.done(rng)


class Source:
    """path -> what a copy has to be; those in `failing` must stay what they were stored as."""

    def __init__(self, folder, rng):
        self.folder = folder
        self.databases, self.files, self.links, self.hard = {}, {}, {}, {}
        self.folders = {"sub"}
        os.makedirs(os.path.join(folder, "sub"))
        for name in DATABASES:
            self.databases[name] = Database(self.at(name), rng)
        for i in range(8):
            self.write_file(f"f{i}", rng)
        self.add_link(rng)
        self.changes = 0

    def at(self, name):
        return os.path.join(self.folder, name)

    def close(self):
        for db in self.databases.values():
            db.close()

    def failing(self):
        return sorted(n for n, d in self.databases.items() if d.good is not None)

    def is_empty(self, name):
        return os.path.getsize(self.at(name)) == 0

    def states(self):
        """Of all that does not fail."""
        states = {n: d.state for n, d in self.databases.items() if d.good is None}
        states.update((n, ("file", s)) for n, s in self.files.items())
        states.update((n, ("link", to)) for n, to in self.links.items())
        states.update((n, ("folder",)) for n in self.folders)
        return states

    def write_file(self, name, rng):
        data = random.Random(f"{name}/{rng.randrange(VERSIONS)}").randbytes(
            rng.choice((0, 10, 3000, 3000, 150_000)))
        shared = name in self.hard.values()
        if rng.random() < 0.5 and os.path.exists(self.at(name)) and not shared:
            os.unlink(self.at(name))
        with open(self.at(name), "wb") as f:
            f.write(data)
        self.files[name] = digest(data)
        if shared:
            self.files["hard"] = self.files[name]

    def add_link(self, rng):
        for name in ("link", "hard"):
            if os.path.lexists(self.at(name)):
                os.unlink(self.at(name))
        self.links["link"] = f"f{rng.randrange(8)}"
        os.symlink(self.links["link"], self.at("link"))
        to = rng.choice([n for n in sorted(self.files) if n[0] == "f"])
        os.link(self.at(to), self.at("hard"))
        self.hard = {"hard": to}
        self.files["hard"] = self.files[to]

    def change_files(self, rng):
        """One entry at a time comes or goes: more than half at once would not be believed."""
        what = rng.randrange(8)
        name = f"f{rng.randrange(8)}"
        if what < 4:
            self.write_file(name, rng)
        elif what == 4:
            self.add_link(rng)
        elif what == 5 and name in self.files and len(self.files) > 6 and \
                name not in self.hard.values():
            os.unlink(self.at(name))
            del self.files[name]
        elif what == 6:
            folder = f"d{rng.randrange(3)}"
            if folder not in self.folders:
                os.mkdir(self.at(folder))
                self.folders.add(folder)
                self.write_file(f"{folder}/x", rng)
            elif rng.random() < 0.5:
                shutil.rmtree(self.at(folder))
                self.folders.remove(folder)
                del self.files[f"{folder}/x"]
        else:
            os.utime(self.at(rng.choice([n for n in sorted(self.files)])))

    def change(self, rng):
        self.changes += 1
        if rng.random() < 0.25:
            self.change_files(rng)
            return "files"
        whole = [d for n, d in sorted(self.databases.items()) if d.good is None]
        return rng.choice(whole).change(rng) if whole else "nothing"

    def remake_database(self, rng):
        """One goes, with whatever it was, or a new one comes in its place."""
        self.changes += 1
        name = rng.choice(DATABASES)
        if name in self.databases:
            self.databases.pop(name).write(b"", False)
            os.unlink(self.at(name))
            return f"without {name}"
        self.databases[name] = Database(self.at(name), rng)
        return f"with {name}"


def tree_states(folder):
    """What lies below a folder of restored files."""
    states = {}
    for top, names, files in os.walk(folder):
        for name in names + files:
            path = os.path.join(top, name)
            relative = os.path.relpath(path, folder)
            if os.path.islink(path):
                states[relative] = ("link", os.readlink(path))
            elif os.path.isdir(path):
                states[relative] = ("folder",)
            elif relative in DATABASES and os.path.getsize(path):
                states[relative] = copy_state(path)
            else:
                with open(path, "rb") as f:
                    states[relative] = ("file", digest(f.read()))
    return states
