"""Bolt at the length that CI has no time for: the unit test's live copies, 300 of them."""

import os
import subprocess

from harness.case import Case, at_level
from harness.leader import PROJECT


class TestBoltCopies(Case):
    @at_level("long", timeout_s=900)
    def test_three_hundred_live_copies(self):
        tool = os.path.join(PROJECT, "build", "release", "tests", "snapshot_test_bolt_copy")
        done = subprocess.run([tool], env={**os.environ, "SYNCD_TEST_COPIES": "300"},
                              capture_output=True, text=True, timeout=800)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("guarded: 100 copies", done.stdout + done.stderr)
