"""A real mosquitto on a free loopback port, and clients of it."""

import os
import socket
import subprocess
import threading
import time

from . import processes

MOSQUITTO = "/usr/sbin/mosquitto"


class Broker:
    """`password` (user, password) makes it ask for a login; tls a folder with ca.crt, server.crt
    and server.key."""

    def __init__(self, folder, password=None, tls=None, client_certificates=False):
        self.folder = os.path.join(folder, "broker")
        self.port = processes.free_port()
        self.process = None
        self.password = password
        self.tls = tls
        os.makedirs(self.folder, mode=0o755)
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "log_dest stderr",
                 "log_type all"]
        if os.geteuid() == 0:
            lines.append("user root")
        if password:
            file = os.path.join(self.folder, "passwords")
            subprocess.run(["mosquitto_passwd", "-b", "-c", file, *password], check=True,
                           stdin=subprocess.DEVNULL, timeout=30)
            lines += ["allow_anonymous false", f"password_file {file}"]
        else:
            lines.append("allow_anonymous true")
        if tls:
            lines += [f"cafile {tls}/ca.crt", f"certfile {tls}/server.crt",
                      f"keyfile {tls}/server.key"]
        if client_certificates:
            lines.append("require_certificate true")
        self.conf = os.path.join(self.folder, "mosquitto.conf")
        with open(self.conf, "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")

    def start(self):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = processes.start([MOSQUITTO, "-c", self.conf], stderr=log)
        processes.wait_until(self._answers, 15, f"mosquitto answers on port {self.port}")

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def kill(self):
        if self.process:
            processes.kill_tree(self.process)
            self.process = None

    def _client(self, program):
        argv = [program, "-h", "127.0.0.1", "-p", str(self.port)]
        if self.password:
            argv += ["-u", self.password[0], "-P", self.password[1]]
        if self.tls:
            argv += ["--cafile", f"{self.tls}/ca.crt", "--cert", f"{self.tls}/client.crt", "--key",
                     f"{self.tls}/client.key"]
        return argv

    def publish(self, topic, payload):
        subprocess.run([*self._client("mosquitto_pub"), "-t", topic, "-m", payload], check=True,
                       stdin=subprocess.DEVNULL, timeout=30)

    def retained(self, seconds=1):
        """{topic: payload} of everything that is retained just now."""
        answer = subprocess.run(
            [*self._client("mosquitto_sub"), "-t", "#", "--retained-only", "-W", str(seconds),
             "-F", "%t\t%p"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
        return dict(line.split("\t", 1) for line in answer.stdout.splitlines() if "\t" in line)

    def listen(self, pattern):
        return Listener([*self._client("mosquitto_sub"), "-t", pattern, "-F", "%r\t%t\t%p"])


class Listener:
    """Collects (retained, topic, payload), and in `times` when each came."""

    def __init__(self, argv):
        self.process = processes.start(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.messages, self.times = [], []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        time.sleep(0.3)  # until it has subscribed

    def _read(self):
        for line in self.process.stdout:
            retained, topic, payload = line.decode().rstrip("\n").split("\t", 2)
            self.times.append(time.time())
            self.messages.append((retained == "1", topic, payload))

    def payloads(self, topic):
        return [p for _, t, p in list(self.messages) if t == topic]

    def close(self):
        processes.kill_tree(self.process)
        self._thread.join(5)


class MuteServer:
    """Accepts connections and never says a word."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.accepted = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                self.accepted.append(self.socket.accept()[0])
            except OSError:
                return

    def close(self):
        self.socket.close()
        for s in self.accepted:
            s.close()
