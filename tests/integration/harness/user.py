"""A throw-away user of the system with a home, a password and nothing else; needs root."""

import os
import pwd
import shutil
import subprocess
import tempfile

PASSWORD = "correct horse"
PASSWORD_HASH = ("$6$syncdtest$rdjnwbZ4QfqTq8TiayfXQB/Eir3iOKJI8.VcDHyt.t9/"
                 "6ElEiPU0RrmvbXDnjxdgZB1nFA9Kzu/5qAc4XLZEk0")


class User:
    count = 0

    def __init__(self, name=None):
        User.count += 1
        self.name = name or f"syncdu{os.getpid()}x{User.count}"
        self.home = tempfile.mkdtemp(prefix="syncd-test-home-")
        try:
            subprocess.run(["useradd", "-M", "-d", self.home, "-p", PASSWORD_HASH, "-s", "/bin/sh",
                            self.name], check=True, capture_output=True, timeout=60)
        except Exception:
            shutil.rmtree(self.home)
            raise
        entry = pwd.getpwnam(self.name)
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        os.chown(self.home, self.uid, self.gid)

    def close(self):
        subprocess.run(["userdel", "-f", self.name], capture_output=True, timeout=60)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def authorized_keys(self):
        return os.path.join(self.home, ".ssh/authorized_keys")
