"""What `cmake --install` puts where, and whether systemd and promtool accept it."""

import os
import subprocess

from harness.case import Case, at_level
from harness.leader import PROJECT, program


@at_level("quick")
class TestInstall(Case):
    def run_tool(self, *argv, cwd=None):
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=cwd,
                                stdin=subprocess.DEVNULL)
        self.assertEqual(answer.returncode, 0, f"{argv}\n{answer.stdout}\n{answer.stderr}")
        return answer.stdout

    def installed(self):
        """A tree as a package would have it."""
        build = os.path.dirname(os.path.dirname(program()))
        root = self.path("root")
        env = dict(os.environ, DESTDIR=root)
        subprocess.run(["cmake", "--install", build, "--prefix", "/usr"], check=True, env=env,
                       capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        return root

    def test_files_are_where_they_belong(self):
        root = self.installed()
        for name in ("usr/bin/syncd", "usr/lib/systemd/system/syncd.service",
                     "usr/lib/sysusers.d/syncd.conf", "usr/lib/tmpfiles.d/syncd.conf",
                     "usr/share/doc/syncd/syncd.conf.example",
                     "usr/share/doc/syncd/presets/pioreactor.md",
                     "usr/share/syncd/monitoring/prometheus.rules.yml"):
            self.assertTrue(os.path.isfile(os.path.join(root, name)), name)

    def test_unit_is_hardened_and_starts_what_is_installed(self):
        unit = os.path.join(self.installed(), "usr/lib/systemd/system/syncd.service")
        with open(unit, encoding="utf-8") as f:
            text = f.read()
        self.assertIn("ExecStart=/usr/bin/syncd run\n", text)
        self.assertNotIn("@", text.replace("@system-service", "").replace("@privileged", "")
                         .replace("@resources", ""))
        self.run_tool("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)

    def test_prometheus_rules(self):
        folder = os.path.join(PROJECT, "conf/monitoring")
        self.run_tool("promtool", "check", "rules", "prometheus.rules.yml", cwd=folder)
        self.run_tool("promtool", "test", "rules", "prometheus.rules.test.yml", cwd=folder)

    def test_homeassistant_automation_fires_on_silence_too(self):
        with open(os.path.join(PROJECT, "conf/monitoring/homeassistant.yaml"),
                  encoding="utf-8") as f:
            lines = [line.strip() for line in f]
        for wanted in ('- "on"', '- "unavailable"', "- binary_sensor.syncd_leader_db_problem"):
            self.assertIn(wanted, lines)
