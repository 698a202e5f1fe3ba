"""setup URL, cut or failing at any call by which it changes or reads a file: running it again
completes it, and nothing is there twice."""

import os
import signal

from harness.case import at_level, by_level
from harness.enrolment import EnrolmentCase
from local_house import DEBUG, SANITIZER_EXIT, run_as
from test_crash import spread


class TestEnrolment(EnrolmentCase):
    def setUp(self):
        super().setUp()
        self.server = self.worker()
        self.count = 0

    def words(self, folder):
        return ("setup", self.url(self.server, folder), "--host-key", self.server.fingerprint(),
                "--password-file", self.password)

    def faulty(self, house, folder, **env):
        env = {"ASAN_OPTIONS": f"exitcode={SANITIZER_EXIT}:detect_leaks=1",
               "UBSAN_OPTIONS": f"exitcode={SANITIZER_EXIT}:halt_on_error=1", **env}
        argv = house.argv(*self.words(folder), json_output=True)
        return run_as(house, [DEBUG, *argv[1:]], env)

    def fresh(self):
        self.count += 1
        house = self.house(f"leader{self.count}")
        house.write()
        return house, house.read(), f"repo{self.count}"

    def calls(self):
        house, _, folder = self.fresh()
        file = self.path("calls")
        self.assertEqual(self.faulty(house, folder, SYNCD_FAULT_COUNT=file).exit, 0)
        return int(self.text_of(file))

    def completes(self, house, before, folder, where):
        self.assertIn(house.read().count("worker "), (0, 1), where)
        self.assertTrue(house.read().startswith(before), where)
        house.run(*self.words(folder))
        self.assertEqual(house.read().count("worker "), 1, where)
        comment = f"syncd@{house.name}\n"
        self.assertEqual(self.text_of(self.user.authorized_keys).count(comment), 1, where)
        self.assertEqual(self.text_of(house.known_hosts).count("\n"), 1, where)
        self.assertEqual(sorted(os.listdir(house.folder)), ["state", "syncd.conf"], where)
        self.assertEqual(house.state(), ["catalog.db", "catalog.db-journal", "id_ed25519",
                                         "id_ed25519.pub", "known_hosts",
                                         "repository.json", "token"], where)
        self.assertEqual(os.listdir(os.path.join(self.user.home, folder, "tmp")), [], where)
        epochs = os.listdir(os.path.join(self.user.home, folder, "epoch"))
        self.assertEqual(epochs, ["1"], where)

    @at_level("default", timeout_s=1200)
    def test_cut_at_any_call(self):
        calls = self.calls()
        for point in spread(self.rng, calls, by_level(3, 12, 100000)):
            where = f"killed at call {point} of {calls}"
            house, before, folder = self.fresh()
            result = self.faulty(house, folder, SYNCD_FAULT=f"{point}:kill")
            self.assertEqual(result.exit, -signal.SIGKILL, f"{where}: {result}")
            self.completes(house, before, folder, where)

    @at_level("default", timeout_s=1200)
    def test_any_call_fails(self):
        calls = self.calls()
        for kind in ("ENOSPC", "EIO"):
            for point in spread(self.rng, calls, by_level(2, 8, 100000)):
                where = f"call {point} of {calls} gave {kind}"
                house, before, folder = self.fresh()
                result = self.faulty(house, folder, SYNCD_FAULT=f"{point}:{kind}")
                self.assertIn(result.exit, (0, 1, 2), f"{where}: {result}")
                self.assertNotIn("ERROR: ", result.stderr, where)
                if result.exit == 0:
                    self.assertEqual(house.read().count("worker "), 1, where)
                self.completes(house, before, folder, where)
