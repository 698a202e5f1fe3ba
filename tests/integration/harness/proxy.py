"""A TCP proxy of ours between the leader and a worker: slow, late, stalled, cut."""

import collections
import socket
import struct
import threading
import time

CHUNK = 16 * 1024
WINDOW = 64 * 1024  # small socket buffers, so that a slow line is felt at once


class _Flow:
    """One direction of one connection: a thread that reads and one that writes."""

    def __init__(self, proxy, source, target, upward):
        self.proxy, self.source, self.target, self.upward = proxy, source, target, upward
        self.queue = collections.deque()  # (when to send, bytes)
        self.queued = 0
        self.changed = threading.Condition()
        self.ended = False

    def start(self):
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self):
        limit = max(4 * WINDOW, int(self.proxy.rate_bytes * self.proxy.delay_s) if
                    self.proxy.rate_bytes else (1 << 24 if self.proxy.delay_s else 4 * WINDOW))
        try:
            while True:
                data = self.source.recv(CHUNK)
                if not data:
                    break
                with self.changed:
                    self.changed.wait_for(lambda: self.queued < limit or self.ended)
                    if self.ended:
                        return
                    self.queue.append((time.monotonic() + self.proxy.delay_s, data))
                    self.queued += len(data)
                    self.changed.notify_all()
        except OSError:
            pass
        with self.changed:
            self.queue.append((0, b""))
            self.changed.notify_all()

    def _write(self):
        try:
            while True:
                with self.changed:
                    self.changed.wait_for(lambda: self.queue or self.ended)
                    if self.ended:
                        return
                    when, data = self.queue.popleft()
                    self.queued -= len(data)
                    self.changed.notify_all()
                if not data:
                    self.target.shutdown(socket.SHUT_WR)
                    return
                wait = when - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                self.proxy._admit(self, data)
        except OSError:
            # The other end is gone; an end that is left alone would wait for ever.
            self.end()
            self.proxy.reset_pair(self)

    def end(self):
        with self.changed:
            self.ended = True
            self.changed.notify_all()


class Proxy:
    """Listens on `port` and forwards to 127.0.0.1:target_port.

    rate_bytes: bytes per second from leader to worker, over all connections; 0: no limit
    delay_s: each way
    cut_after: after that many bytes from the leader every connection is reset, and new ones are
               refused by reset, until restore() is called; None: never"""

    def __init__(self, target_port, rate_bytes=0, delay_s=0.0, cut_after=None):
        self.target_port = target_port
        self.rate_bytes, self.delay_s, self.cut_after = rate_bytes, delay_s, cut_after
        self.bytes_up = self.bytes_down = 0
        self.connections = 0
        self.cut_at = None  # when cut_after struck, monotonic
        self._strike = None  # (at how many bytes both ways, what to do then)
        self._lock = threading.Lock()
        self._next_free = 0.0
        self._open = threading.Event()  # not set: stalled
        self._open.set()
        self._pairs = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.cut_at is not None:
                self._reset(client)
                continue
            try:
                server = socket.socket()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WINDOW)
                server.connect(("127.0.0.1", self.target_port))
            except OSError:
                self._reset(client)
                continue
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            flows = (_Flow(self, client, server, True), _Flow(self, server, client, False))
            with self._lock:
                self._pairs.append((client, server, flows))
            for flow in flows:
                flow.start()

    def strike(self, after_bytes, action):
        """Once that many further bytes have gone by, both ways counted: action(), from one of the
        proxy's threads and before the bytes that reach the number go on."""
        with self._lock:
            self._strike = (self.bytes_up + self.bytes_down + after_bytes, action)

    def _struck(self, size):
        with self._lock:
            if not self._strike or self.bytes_up + self.bytes_down + size < self._strike[0]:
                return None
            action, self._strike = self._strike[1], None
        return action

    def _admit(self, flow, data):
        action = self._struck(len(data))
        if action:
            action()
        self._open.wait()
        if flow.upward:
            with self._lock:
                self.bytes_up += len(data)
                if self.rate_bytes:
                    now = time.monotonic()
                    self._next_free = max(self._next_free, now - 0.02) + len(data) / self.rate_bytes
                    wait = self._next_free - now
                else:
                    wait = 0
                cut = self.cut_after is not None and self.bytes_up >= self.cut_after
            if cut:
                self.cut()
                return
            if wait > 0:
                time.sleep(wait)
        else:
            with self._lock:
                self.bytes_down += len(data)
        flow.target.sendall(data)

    @staticmethod
    def _reset(s):
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        try:
            # A reader in recv() would keep the socket alive past close().
            s.shutdown(socket.SHUT_RD)
        except OSError:
            pass
        s.close()

    def reset_pair(self, flow):
        with self._lock:
            found = [pair for pair in self._pairs if flow in pair[2]]
            self._pairs = [pair for pair in self._pairs if flow not in pair[2]]
        self._reset_all(found)

    def reset(self):
        """Every connection is reset; new ones are fine."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        self._reset_all(pairs)

    def _reset_all(self, pairs):
        for client, server, flows in pairs:
            for flow in flows:
                flow.end()
            self._reset(client)
            self._reset(server)

    def cut(self):
        """Every connection is reset, and new ones too."""
        self.cut_at = time.monotonic()
        self.reset()

    def restore(self):
        self.cut_after = None
        self.cut_at = None
        self._strike = None
        self._open.set()

    def half_close(self, upward):
        """One direction of every connection ends in order, the other goes on."""
        with self._lock:
            pairs = list(self._pairs)
        for client, server, flows in pairs:
            flows[0 if upward else 1].end()
            try:
                (server if upward else client).shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def stall(self):
        """Nothing moves any more, and nothing is closed."""
        self._open.clear()

    def resume(self):
        self._open.set()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept() that waits on it
        self._listener.close()
        self.cut()
        self._open.set()
