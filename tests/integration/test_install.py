"""What `cmake --install` puts where, and whether systemd and promtool accept it."""

import gzip
import json
import os
import re
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
                     "usr/share/syncd/monitoring/prometheus.rules.yml",
                     "usr/share/man/man8/syncd.8.gz", "usr/share/man/man5/syncd.conf.5.gz",
                     "usr/share/bash-completion/completions/syncd"):
            self.assertTrue(os.path.isfile(os.path.join(root, name)), name)

    def test_unit_is_hardened_and_starts_what_is_installed(self):
        unit = os.path.join(self.installed(), "usr/lib/systemd/system/syncd.service")
        with open(unit, encoding="utf-8") as f:
            text = f.read()
        self.assertIn("ExecStart=/usr/bin/syncd run\n", text)
        # The daemon asks for the state of the clock, which ProtectClock= forbids.
        self.assertIn("\nSystemCallErrorNumber=EPERM\n", text)
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

    def manual(self, page):
        """The page as a person reads it, and what mandoc has to say of it."""
        plain = self.path(page)
        with gzip.open(os.path.join(self.installed(), f"usr/share/man/man{page[-1]}/{page}.gz"),
                       "rb") as packed, open(plain, "wb") as f:
            f.write(packed.read())
        lint = subprocess.run(["mandoc", "-T", "lint", plain], capture_output=True, text=True,
                              timeout=60, stdin=subprocess.DEVNULL)
        # Pages that it names may not be installed here.
        findings = [line for line in (lint.stdout + lint.stderr).splitlines()
                    if "referenced manual not found" not in line and "mandoc.db" not in line]
        self.assertEqual(findings, [])
        text = self.run_tool("mandoc", "-T", "utf8", "-O", "width=200", plain)
        return re.sub(".\b", "", text)

    def test_manual_of_commands(self):
        page = self.manual("syncd.8")
        overview = json.loads(self.run_tool(program(), "--help", "--json"))["text"]
        commands = re.findall(r"^  ([a-z]+) ", overview, re.M)
        self.assertGreater(len(commands), 10)
        for command in commands:
            self.assertRegex(page, rf"(?m)^ +syncd {command}\b")
            text = json.loads(self.run_tool(program(), command, "--help", "--json"))["text"]
            for option in re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", text, re.M):
                self.assertIn(option, page, command)

    def test_manual_of_the_config(self):
        page = self.manual("syncd.conf.5")
        with open(os.path.join(PROJECT, "conf/keys.def"), encoding="utf-8") as f:
            keys = re.findall(r"^KEY\((\w+), (\w+),", f.read(), re.M)
        self.assertGreater(len(keys), 40)
        for _, key in keys:
            self.assertRegex(page, rf"(?m)^ +{key}\b")

    def complete(self, *words):
        """What bash offers for the last word."""
        script = os.path.join(self.installed(), "usr/share/bash-completion/completions/syncd")
        answer = subprocess.run(
            ["bash", "-c", 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _syncd; '
             'printf "%s\n" "${COMPREPLY[@]}"', "bash", script, *words],
            capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, cwd=self.folder)
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        return answer.stdout.split()

    def test_completion(self):
        conf = self.path("syncd.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write('name = "x"\nsource "lab" { }\n  source "piri"{ }\n#source "old" { }\n')
        self.assertIn("backup", self.complete("syncd", ""))
        self.assertEqual(self.complete("syncd", "sn"), ["snapshots"])
        self.assertEqual(self.complete("syncd", "-c", conf, "backup", ""), ["lab", "piri"])
        self.assertEqual(self.complete("syncd", "-c", conf, "restore", "p"), ["piri"])
        self.assertEqual(self.complete("syncd", "restore", "--in"), ["--in-place"])
        self.assertEqual(self.complete("syncd", "status", "--nag"), ["--nagios"])
        self.assertIn("--json", self.complete("syncd", "prune", "--"))
        self.assertEqual(self.complete("syncd", "-c", "synd"), [])
        self.assertEqual(self.complete("syncd", "-c", "sync"), ["syncd.conf"])
        self.assertEqual(self.complete("syncd", "check", ""), [])
        self.run_tool("shellcheck", "-s", "bash", os.path.join(
            self.folder, "root", "usr/share/bash-completion/completions/syncd"))

    @at_level("default")
    def test_debian_package(self):
        build = os.path.dirname(os.path.dirname(program()))
        folder = self.path("package")
        os.mkdir(folder)
        self.run_tool("cpack", "-G", "DEB", "-B", folder, "--config",
                      os.path.join(build, "CPackConfig.cmake"))
        package = os.path.join(folder, next(n for n in os.listdir(folder) if n.endswith(".deb")))
        answer = self.run_tool("lintian", "--allow-root", "--fail-on", "error,warning", package)
        self.assertEqual(answer, "")
        self.run_tool("dpkg-deb", "-x", package, self.path("unpacked"))
        installed = {os.path.relpath(os.path.join(at, n), self.path("unpacked"))
                     for at, _, names in os.walk(self.path("unpacked")) for n in names}
        for name in ("usr/bin/syncd", "usr/lib/sysusers.d/syncd.conf",
                     "usr/share/doc/syncd/syncd.conf.example", "usr/share/man/man8/syncd.8.gz"):
            self.assertIn(name, installed)
        with open(self.path("unpacked", "usr/lib/systemd/system/syncd.service"),
                  encoding="utf-8") as f:
            self.assertIn("ExecStart=/usr/bin/syncd run\n", f.read())
        self.assertIn("syncd ", self.run_tool(self.path("unpacked", "usr/bin/syncd"), "--version"))
