"""MQTT against a real mosquitto: started, killed, restarted, mute, with login and with TLS."""

import datetime
import json
import os
import signal
import subprocess
import time

from harness import processes
from harness.broker import Broker, MuteServer
from harness.case import at_level
from harness.leader import quoted
from test_daemon import DaemonCase

STATE_KEYS = {"state", "running", "last_result", "as_of", "fresh_until", "max_age_s", "snapshot",
              "proven_at", "next_run", "duration_s", "bytes_read", "bytes_changed", "bytes_sent",
              "size_bytes", "error", "workers"}
WORKER_KEYS = {"name", "state", "as_of", "fresh_until", "proven_at", "behind", "error"}


class MqttCase(DaemonCase):
    def broker(self, **options):
        broker = Broker(self.folder, **options)
        self.addCleanup(broker.kill)
        broker.start()
        return broker

    def listen(self, broker, pattern="#"):
        listener = broker.listen(pattern)
        self.addCleanup(listener.close)
        return listener

    def house(self, port, mqtt=None, **source):
        """The usual house with an mqtt section."""
        leader = self.two_workers(self.bank(), **{"every": "1h", **source})
        self.mqtt = {"host": "127.0.0.1", "port": port, **(mqtt or {})}
        write_conf = leader.write_conf

        def with_mqtt():
            write_conf()
            with open(leader.conf, "a", encoding="utf-8") as f:
                f.write("mqtt {\n")
                f.writelines(f"  {k} = {quoted(v)}\n" for k, v in self.mqtt.items())
                f.write("}\n")
        leader.write_conf = with_mqtt
        leader.write_conf()
        return leader

    def state(self, broker, source="db"):
        return json.loads(broker.retained().get(f"syncd/leader/{source}/state", "null"))

    def wait_state(self, broker, check, timeout_s=30, source="db"):
        def found():
            state = self.state(broker, source)
            return state if state and check(state) else None
        return processes.wait_until(found, timeout_s, "the state is as expected")


@at_level("quick")
class TestMqtt(MqttCase):
    def test_publishes_states_and_says_goodbye(self):
        broker = self.broker()
        leader = self.house(broker.port)
        run = self.daemon(leader)
        state = self.wait_state(broker, lambda s: s["state"] == "fresh" and not s["running"])
        self.assertEqual(STATE_KEYS - state.keys(), set())
        self.assertEqual([WORKER_KEYS - w.keys() for w in state["workers"]], [set(), set()])
        self.assertEqual([w["state"] for w in state["workers"]], ["fresh", "fresh"])
        self.assertEqual(state["last_result"], "ok")
        self.assertEqual(state["snapshot"], leader.snapshots("db")[-1]["id"])
        self.assertEqual(broker.retained()["syncd/leader/availability"], "online")
        result = self.stop(run, within_s=3)
        self.assertEqual(broker.retained()["syncd/leader/availability"], "offline")
        self.assertNotIn("MQTT", result.stderr)

    def test_will_when_the_daemon_is_killed(self):
        broker = self.broker()
        leader = self.house(broker.port)
        run = self.daemon(leader)
        self.wait_state(broker, lambda s: True)
        os.kill(run.pid, signal.SIGKILL)
        run.wait(10)
        processes.wait_until(
            lambda: broker.retained()["syncd/leader/availability"] == "offline", 10, "the will")

    def test_everything_again_after_the_broker_lost_it(self):
        broker = self.broker()
        leader = self.house(broker.port, {"homeassistant": True})
        run = self.daemon(leader)
        self.wait_state(broker, lambda s: s["state"] == "fresh")
        before = set(broker.retained())
        broker.kill()
        time.sleep(3)
        broker.start()
        processes.wait_until(lambda: set(broker.retained()) == before, 30, "all is back")
        self.assertEqual(broker.retained()["syncd/leader/availability"], "online")
        result = self.stop(run)
        self.assertEqual(result.stderr.count("cannot be used"), 1, result.stderr)
        self.assertEqual(result.stderr.count("again"), 2, result.stderr)  # and "trying again"

    def test_everything_again_when_home_assistant_is_born(self):
        broker = self.broker()
        leader = self.house(broker.port, {"homeassistant": True})
        run = self.daemon(leader)
        self.wait_state(broker, lambda s: s["state"] == "fresh")
        listener = self.listen(broker, "homeassistant/device/#")
        processes.wait_until(lambda: len(listener.messages) == 1, 5, "the retained one")
        broker.publish("homeassistant/status", "offline")
        broker.publish("homeassistant/status", "online")
        processes.wait_until(lambda: len(listener.messages) == 2, 10, "the announcement again")
        self.stop(run)


class TestMqttTrouble(MqttCase):
    def test_broker_that_never_answers_delays_nothing(self):
        mute = MuteServer()
        self.addCleanup(mute.close)
        leader = self.house(mute.port, every="2s")
        run = self.daemon(leader)
        self.wait_runs(leader, 3, 15)
        processes.wait_until(lambda: mute.accepted, 10, "it connected")
        self.stop(run, within_s=1)

    def test_broker_that_never_answers_is_named(self):
        mute = MuteServer()
        self.addCleanup(mute.close)
        leader = self.house(mute.port)
        run = self.daemon(leader)
        processes.wait_until(lambda: len(mute.accepted) >= 2, 40, "it gave up and tried again")
        result = self.stop(run, within_s=2)
        self.assertEqual(result.stderr.count("does not answer"), 1, result.stderr)

    def test_wrong_password_then_the_right_one(self):
        broker = self.broker(password=("syncd", "right"))
        secret = self.path("mqtt.pass")
        with open(secret, "w", encoding="ascii") as f:
            os.chmod(secret, 0o600)
            f.write("wrong\n")
        leader = self.house(broker.port, {"username": "syncd", "password_file": secret},
                            every="2s")
        run = self.daemon(leader)
        self.wait_runs(leader, 2)
        with open(secret, "w", encoding="ascii") as f:
            f.write("right\n")
        self.wait_state(broker, lambda s: s["state"] == "fresh", 40)
        result = self.stop(run)
        self.assertEqual(result.stderr.count("cannot be used"), 1, result.stderr)
        self.assertEqual(result.stderr.count("MQTT: connected"), 1, result.stderr)
        self.assertNotIn("wrong", result.stderr)

    def test_tls_with_client_certificate(self):
        tls = self.certificates()
        broker = self.broker(tls=tls, client_certificates=True)
        leader = self.house(broker.port, {"ca_file": f"{tls}/ca.crt",
                                          "cert_file": f"{tls}/client.crt",
                                          "key_file": f"{tls}/client.key"})
        run = self.daemon(leader)
        self.wait_state(broker, lambda s: s["state"] == "fresh")
        result = self.stop(run)
        self.assertNotIn("cannot be used", result.stderr)

    def test_tls_with_a_foreign_authority_fails_and_is_said_once(self):
        tls = self.certificates()
        other = self.certificates("other")
        broker = self.broker(tls=tls)
        leader = self.house(broker.port, {"ca_file": f"{other}/ca.crt"}, every="2s")
        run = self.daemon(leader)
        self.wait_runs(leader, 3)
        result = self.stop(run, within_s=3)
        self.assertEqual(result.stderr.count("cannot be used"), 1, result.stderr)

    def certificates(self, name="tls"):
        folder = self.path(name)
        os.mkdir(folder)

        def openssl(*args):
            subprocess.run(["openssl", *args], check=True, cwd=folder, capture_output=True,
                           stdin=subprocess.DEVNULL, timeout=60)
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", f"/CN={name} ca")
        for who, host in (("server", "127.0.0.1"), ("client", "leader")):
            kind = "IP" if who == "server" else "DNS"
            openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={host}")
            with open(os.path.join(folder, f"{who}.ext"), "w", encoding="ascii") as f:
                f.write(f"subjectAltName={kind}:{host}\n")
            openssl("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                    "-CAcreateserial", "-days", "2", "-out", f"{who}.crt", "-extfile",
                    f"{who}.ext")
        return folder


class TestStates(MqttCase):
    def test_stale_and_fresh_again_with_on_change(self):
        broker = self.broker()
        log = self.path("changes")
        script = self.path("on-change")
        with open(script, "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\necho "$SYNCD_SOURCE $SYNCD_STATE $SYNCD_AS_OF" >>{log}\n')
        os.chmod(script, 0o755)
        leader = self.house(broker.port, every="2s", max_age="5s", on_change=[script])
        run = self.daemon(leader)
        self.wait_state(broker, lambda s: s["state"] == "fresh")
        self.w1.kill()
        self.wait_state(broker, lambda s: s["state"] == "degraded")
        self.w2.kill()
        state = self.wait_state(broker, lambda s: s["state"] == "stale")
        self.assertTrue(state["error"])
        self.w1.start()
        self.w2.start()
        # A failed backup is tried again at its next regular time, here after 2 s.
        self.wait_state(broker, lambda s: s["state"] == "fresh")
        self.stop(run)
        with open(log, encoding="ascii") as f:
            words = [line.split()[1] for line in f]
        self.assertEqual(words[:1], ["fresh"])  # from never
        self.assertEqual(words[-1], "fresh")
        self.assertIn("degraded", words)
        self.assertIn("stale", words)

    def test_what_runs_out_is_told_at_once(self):
        """No job ends then, and nothing else happens: only time goes by."""
        broker = self.broker()
        leader = self.house(broker.port, every="1h", max_age="4s")
        listener = self.listen(broker, "syncd/leader/db/state")
        run = self.daemon(leader)

        def told(word):
            found = [i for i, (_, _, p) in enumerate(list(listener.messages))
                     if json.loads(p)["state"] == word]
            return found and (listener.times[found[0]], json.loads(listener.messages[found[0]][2]))
        _, fresh = processes.wait_until(lambda: told("fresh"), 30, "it is fresh")
        when, _ = processes.wait_until(lambda: told("stale"), 30, "it is stale")
        until = datetime.datetime.fromisoformat(fresh["fresh_until"].replace("Z", "+00:00"))
        self.assertLess(when - until.timestamp(), 3)
        self.stop(run)

    def test_metrics_are_written_after_each_run(self):
        metrics = self.path("syncd.prom")
        leader = self.two_workers(self.bank(), every="1h")
        leader.settings["prometheus_file"] = metrics
        leader.write_conf()
        run = self.daemon(leader)

        def known():
            with open(metrics, encoding="utf-8") as f:
                return [line for line in f if line.startswith("syncd_as_of_timestamp_seconds{")
                        and float(line.split()[-1]) > time.time() - 300]
        processes.wait_until(lambda: os.path.exists(metrics) and len(known()) == 2, 30,
                             "both workers are in the metrics")
        self.stop(run)
        with open(metrics, encoding="utf-8") as f:
            subprocess.run(["promtool", "check", "metrics"], input=f.read(), text=True, check=True,
                           timeout=30, capture_output=True)

    def test_source_that_is_gone_leaves_no_state(self):
        broker = self.broker()
        leader = self.house(broker.port)
        leader.sources["other"] = {"path": self.bank("other.sqlite"), "every": "1h"}
        leader.write_conf()
        run = self.daemon(leader)
        self.wait_state(broker, lambda s: True, source="other")
        del leader.sources["other"]
        leader.write_conf()
        os.kill(run.pid, signal.SIGHUP)
        processes.wait_until(
            lambda: "syncd/leader/other/state" not in broker.retained(), 20, "it is gone")
        self.assertIn("syncd/leader/db/state", broker.retained())
        self.stop(run)

    def test_hooks_before_and_after(self):
        log = self.path("hooks")
        script = self.path("hook")
        with open(script, "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\necho "$1 $SYNCD_SOURCE $SYNCD_STATE" >>{log}\n'
                    f'[ "$1" = after ] || [ ! -e {self.folder}/refuse ]\n')
        os.chmod(script, 0o755)
        leader = self.two_workers(self.bank(), before=[script, "before"], after=[script, "after"])
        leader.backup("db")
        with open(self.path("refuse"), "w", encoding="ascii"):
            pass
        failed = leader.backup("db", expect=1)
        self.assertIn("cancelled", failed["result"].json["errors"][0]["message"])
        with open(log, encoding="ascii") as f:
            self.assertEqual(f.read().split("\n"),
                             ["before db running", "after db ok", "before db running",
                              "after db failed", ""])
        self.assertEqual(len(leader.snapshots("db")), 1)

    def test_hook_that_hangs_is_ended(self):
        leader = self.two_workers(self.bank(), before=["sleep", "100"], hook_timeout="1s")
        begun = time.monotonic()
        leader.backup("db", expect=1)
        self.assertLess(time.monotonic() - begun, 10)
