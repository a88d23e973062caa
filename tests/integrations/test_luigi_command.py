"""Luigi as people start it, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
    finally:
        observer.rows(f"drop table if exists {marks}")
