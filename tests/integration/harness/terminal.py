"""A person at a terminal: runs a command on a pseudo terminal, reads what it shows, types."""

import fcntl
import os
import select
import subprocess
import termios
import time


def _take_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    def __init__(self, argv, env, cwd=None):
        self.argv, self.shown = argv, ""
        self.seen = 0  # of what was shown: up to here by expect_next
        self.fd, slave = os.openpty()
        self.process = subprocess.Popen(argv, env=env, cwd=cwd, stdin=slave, stdout=slave,
                                        stderr=slave, start_new_session=True,
                                        preexec_fn=_take_terminal)
        os.close(slave)

    def _read(self, deadline, what):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.fd], [], [], left)[0]:
            raise TimeoutError(f"{' '.join(self.argv)} did not {what}; it showed: {self.shown}")
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the last one that had the terminal open has ended
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)

    def expect(self, text, timeout_s=30):
        """Waits until the text has been shown; answers all that was shown so far."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown:
            if not self._read(deadline, f"show {text!r}"):
                raise AssertionError(f"{' '.join(self.argv)} ended without {text!r}: {self.shown}")
        return self.shown

    def expect_next(self, text, timeout_s=30):
        """The same for what comes after the last text that this has waited for."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown[self.seen:]:
            if not self._read(deadline, f"show {text!r}"):
                raise AssertionError(f"{' '.join(self.argv)} ended without {text!r}: {self.shown}")
        self.seen = self.shown.index(text, self.seen) + len(text)

    def type(self, line):
        os.write(self.fd, line.encode() + b"\n")

    def wait(self, timeout_s=60):
        """Its exit code, when it has ended by itself."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline, "end"):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
