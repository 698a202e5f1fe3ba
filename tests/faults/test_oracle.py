"""The oracle engine, as a test."""

import contextlib

from harness.case import Case, at_level, by_level
from oracle_engine import Engine


class TestOracleEngine(Case):
    syncd_first = syncd_proof = True

    @at_level("quick", timeout_s=3 * 3600)
    def test_every_snapshot_is_a_state_that_the_database_had(self):
        engine = Engine(self.folder, self.seed, ["wal"])
        with contextlib.closing(engine):
            engine.run(by_level(10, 100, 2000))
