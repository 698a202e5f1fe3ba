"""A real etcd with a steady load of puts, one after the other, whose values prove themselves."""

import base64
import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import threading
import time

from . import processes


def _text(data):
    return base64.b64encode(data).decode()


class Etcd:
    """Its database is at `db`, and keeps every put. `rate` puts per second, into `keys` different
    keys; etcd commits them every 100 ms."""

    def __init__(self, folder, seed, rate=100, keys=500, value_bytes=1000):
        self.folder = folder
        self.db = os.path.join(folder, "member/snap/db")
        self.rate, self.keys, self.value_bytes = rate, keys, value_bytes
        self.random = random.Random(seed)
        self.puts, self.failure = 0, None
        self.ended = threading.Event()
        self.port = processes.free_port()
        client, peer = (f"http://127.0.0.1:{p}" for p in (self.port, processes.free_port()))
        with open(folder + ".log", "wb") as log:
            self.process = processes.start(
                ["etcd", "--data-dir", folder, "--listen-client-urls", client,
                 "--advertise-client-urls", client, "--listen-peer-urls", peer,
                 "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
                stdout=log, stderr=subprocess.STDOUT)
        processes.wait_until(self._answers, 30, f"etcd does not answer, see {folder}.log",
                             interval_s=0.1)
        self.thread = threading.Thread(target=self._load, daemon=True)
        self.thread.start()

    def _answers(self):
        try:
            self._connect().close()
            return True
        except OSError:
            return False

    def _connect(self):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        c.connect()
        return c

    def _put(self, connection):
        data = b"load:" + self.random.randbytes(self.random.randrange(1, self.value_bytes))
        body = json.dumps({"key": _text(b"key%d" % self.random.randrange(self.keys)),
                           "value": _text(data + hashlib.sha256(data).digest())})
        connection.request("POST", "/v3/kv/put", body)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise OSError(f"etcd: {answer.status} {told!r}")
        self.puts += 1

    def _load(self):
        begun = time.monotonic()
        try:
            connection = self._connect()
            while not self.ended.wait(max(0, begun + self.puts / self.rate - time.monotonic())):
                self._put(connection)
            connection.close()
        except (OSError, http.client.HTTPException) as e:
            self.failure = e

    def wait_for_puts(self, count, timeout_s=60):
        processes.wait_until(lambda: self.failure or self.puts >= count, timeout_s,
                             f"{count} puts; there were {self.puts}")
        if self.failure:
            raise self.failure

    def stop_load(self):
        """Answers with the number of puts."""
        self.ended.set()
        self.thread.join(15)
        if self.failure:
            raise self.failure
        return self.puts

    def stop(self):
        """In order: everything is in the database then."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def close(self):
        self.ended.set()
        self.thread.join(15)
        processes.kill_tree(self.process)
