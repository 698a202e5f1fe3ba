"""What tests of `setup URL` share: a leader for which nothing is prepared, and workers that let a
throw-away user in by password."""

import os

from .case import Case
from .leader import Leader
from .terminal import Terminal
from .user import PASSWORD, User


class House(Leader):
    """A leader whose config, key and known_hosts are for `setup URL` to make."""

    def __init__(self, folder, name="leader"):
        super().__init__(folder, [], {}, name=name)
        for path in (self.conf, self.key, self.key + ".pub", self.known_hosts):
            os.unlink(path)
        self.key = os.path.join(self.state_dir, "id_ed25519")
        self.known_hosts = os.path.join(self.state_dir, "known_hosts")

    def write(self, text="", mode=0o644):
        text = f'name = "{self.name}"\nstate_dir = "{self.state_dir}"\n' + text
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(self.conf, mode)
        return text

    def read(self):
        with open(self.conf, encoding="utf-8") as f:
            return f.read()

    def state(self):
        return sorted(os.listdir(self.state_dir))


class EnrolmentCase(Case):
    """Workers that let a throw-away user in by password."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("NOTICE: not root, so no user can be made to log in as")
        self.user = User()
        self.addCleanup(self.user.close)
        self.password = self.path("password")
        with open(self.password, "w", encoding="ascii") as f:
            f.write(PASSWORD + "\n")
        os.chmod(self.password, 0o600)

    def worker(self, name="w1", **options):
        server = self.sshd(name, **{"PasswordAuthentication": "yes", "UsePAM": "no",
                                    "AuthorizedKeysFile": ".ssh/authorized_keys", **options})
        return server

    def url(self, server, folder="syncd/leader"):
        return f"sftp://{self.user.name}@{server.host}:{server.port}/~/{folder}"

    def house(self, name="leader"):
        house = House(self.folder, name)
        self.addCleanup(house.close)
        return house

    def enrol(self, house, server, *more, folder="syncd/leader", password=True, **kwargs):
        words = ["--password-file", self.password] if password else []
        return house.run("setup", self.url(server, folder), "--host-key", server.fingerprint(),
                         *words, *more, **kwargs)

    def terminal(self, house, *words):
        terminal = Terminal(house.argv(*words), house.environment(), cwd=house.folder)
        self.addCleanup(terminal.close)
        return terminal

    def text_of(self, path):
        with open(path, encoding="utf-8") as f:
            return f.read()
