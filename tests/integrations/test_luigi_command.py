"""Luigi as people start it, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from metrics.test_prometheus import scrape, values
from poolproof.metrics.prometheus import MultiProcess

pytestmark = pytest.mark.slow

MODULE = """
import os

import luigi
from sqlalchemy import create_engine, text

from poolproof.integrations.luigi import PoolproofTarget, install

engine = create_engine(os.environ["TEST_URL"])
install(engine)


class Part(luigi.Task):
    n = luigi.IntParameter()

    def output(self):
        return PoolproofTarget(engine, self.task_id, marker_table=os.environ["MARKS"])

    def run(self):
        with engine.begin() as connection:
            insert = text(f"insert into {os.environ['ROWS']} values (:n)")
            connection.execute(insert, {"n": self.n})
            self.output().touch(connection)


class Whole(luigi.WrapperTask):
    def requires(self):
        return [Part(n=n) for n in range(6)]
"""


def test_the_luigi_command_runs_the_same(tmp_path, pg_url, observer, table):
    (tmp_path / "parts.py").write_text(MODULE)
    (tmp_path / "luigi.cfg").write_text("[core]\nautoload_range=false\n")
    marks = f"{table}_marks"
    environment = {
        "LUIGI_CONFIG_PATH": str(tmp_path / "luigi.cfg"),
        "PYTHONPATH": str(tmp_path),
        "TEST_URL": pg_url("psycopg2").render_as_string(hide_password=False),
        "ROWS": table,
        "MARKS": marks,
        "POOLPROOF_METRICS_DIR": str(tmp_path / "metrics"),
    }
    command = ("-m", "luigi", "--module=parts", "Whole", "--local-scheduler")
    try:
        for _ in range(2):  # the second time everything is done
            done = subprocess.run(
                [sys.executable, *command, "--workers=3"],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert ":)" in done.stderr
        assert sorted(observer.rows(f"select n from {table}")) == [
            (n,) for n in range(6)
        ]
        assert observer.value(f"select count(*) from {marks}") == 6
        # Each task had a process of its own, which is gone with all that it counted.
        found = scrape(MultiProcess(tmp_path / "metrics"))
        name = "poolproof_hold_seconds_count"
        of_tasks = [
            (sample.labels["scope"], sample.value)
            for family in found
            for sample in family.samples
            if sample.name == name and "Part" in sample.labels["scope"]
        ]
        assert len(of_tasks) == 1
        assert of_tasks[0][1] >= 6
        # None that is gone is counted among what there is.
        assert sum(values(found, "poolproof_processes")) == 0
        assert sum(values(found, "poolproof_connections")) == 0
    finally:
        observer.rows(f"drop table if exists {marks}")
