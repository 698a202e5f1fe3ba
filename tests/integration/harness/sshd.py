"""A worker: a real sshd on a free loopback port, with a host key and a folder of its own."""

import os
import pwd
import signal
import socket
import subprocess
import time

from . import processes

SSHD = "/usr/sbin/sshd"


def keygen(path, kind="ed25519", *options):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path, *options], check=True,
                   stdin=subprocess.DEVNULL, timeout=60)


def root_is_locked():
    """Debian's installer can lock root's password; sshd then lets root in only by way of PAM."""
    if os.geteuid() != 0:
        return False
    with open("/etc/shadow", encoding="ascii", errors="replace") as f:
        return any(line.startswith("root:!") for line in f)


class Sshd:
    """`options` are sshd_config keywords, for example Ciphers="aes256-gcm@openssh.com"."""

    host = "127.0.0.1"
    prefix = ()  # of its argv

    def __init__(self, folder, name, host_key="ed25519", **options):
        self.name = name
        self.folder = os.path.join(folder, name)
        self.root = os.path.join(self.folder, "data")  # where its repositories are
        self.log = os.path.join(self.folder, "sshd.log")
        self.authorized_keys = os.path.join(self.folder, "authorized_keys")
        self.host_key = os.path.join(self.folder, "host_key")
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.options = options
        self.process = None
        self.port = None
        os.makedirs(self.root, mode=0o700)
        with open(self.authorized_keys, "w", encoding="ascii"):
            os.chmod(self.authorized_keys, 0o600)
        keygen(self.host_key, host_key)

    def authorize(self, public_key_file):
        with open(public_key_file, encoding="ascii") as key, \
                open(self.authorized_keys, "a", encoding="ascii") as f:
            f.write(key.read())

    def new_host_key(self, kind="ed25519"):
        os.unlink(self.host_key)
        os.unlink(self.host_key + ".pub")
        keygen(self.host_key, kind)

    def known_hosts_line(self, port=None):
        with open(self.host_key + ".pub", encoding="ascii") as f:
            kind, key = f.read().split()[:2]
        return f"[{self.host}]:{port or self.port} {kind} {key}\n"

    def fingerprint(self):
        answer = subprocess.run(["ssh-keygen", "-l", "-E", "sha256", "-f", self.host_key + ".pub"],
                                check=True, capture_output=True, text=True, timeout=60)
        return answer.stdout.split()[1]

    def start(self):
        """On the port that it had before, if it had one."""
        if self.port is None:
            self.port = processes.free_port()
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        settings = {
            "Port": self.port, "ListenAddress": self.host, "HostKey": self.host_key,
            "PidFile": "none", "AuthorizedKeysFile": self.authorized_keys,
            "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no",
            "UsePAM": "yes" if root_is_locked() else "no", "StrictModes": "no", "UseDNS": "no",
            "PermitRootLogin": "prohibit-password", "MaxStartups": "200", "MaxSessions": "100",
            "PrintMotd": "no", "LogLevel": "VERBOSE", "Subsystem": "sftp internal-sftp",
        }
        settings.update(self.options)
        config = os.path.join(self.folder, "sshd_config")
        with open(config, "w", encoding="ascii") as f:
            f.writelines(f"{key} {value}\n" for key, value in settings.items())
        self.process = processes.start([*self.prefix, SSHD, "-D", "-f", config, "-E", self.log])
        processes.wait_until(self._answers, 15, f"sshd {self.name} answers on port {self.port}")

    def _answers(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                raise RuntimeError(f"sshd {self.name} ended: {f.read()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as s:
                return s.recv(4) == b"SSH-"
        except OSError:
            return False

    def kill(self):
        """The server and every session, at once, as a power cut would."""
        if self.process:
            processes.kill_tree(self.process)
            self.process = None

    def kill_sessions(self):
        """Only the sessions; the server goes on."""
        for pid in processes.descendants(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def sessions_cpu_s(self):
        """Processor seconds of the sessions that are alive."""
        ticks = 0
        for pid in processes.descendants(self.process.pid):
            try:
                with open(f"/proc/{pid}/stat", "rb") as f:
                    fields = f.read().rpartition(b")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK")

    def wait_idle(self, timeout_s=10):
        """Until the last session has gone, so that nothing is still being written."""
        deadline = time.monotonic() + timeout_s
        while processes.descendants(self.process.pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"sshd {self.name} still has sessions after {timeout_s} s")
            time.sleep(0.01)
