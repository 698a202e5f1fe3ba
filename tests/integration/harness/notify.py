"""What a daemon tells systemd: a socket in the place of systemd's."""

import os
import socket
import threading
import time


class Notify:
    """env goes into the daemon's environment."""

    def __init__(self, case):
        path = case.path("notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self.env = {"NOTIFY_SOCKET": path}
        self.messages = []  # (when, line)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        case.addCleanup(self.close)

    def _read(self):
        while True:
            data = self._socket.recv(65536)
            if not data:
                return
            now = time.monotonic()
            self.messages += [(now, line) for line in data.decode().splitlines()]

    def has(self, line):
        return any(m == line for _, m in list(self.messages))

    def silence_s(self, line):
        """For how long it was not heard."""
        heard = [when for when, m in list(self.messages) if m == line]
        return time.monotonic() - (heard[-1] if heard else 0)

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b"", self.env["NOTIFY_SOCKET"])
        self._thread.join(5)
        self._socket.close()
        os.unlink(self.env["NOTIFY_SOCKET"])
