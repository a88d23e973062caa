"""At home without a hook: programs that fork in the ways that libraries have."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.programs import Told
from plugins.server import DRIVERS
from plugins.threads import eventually

PROGRAMS = Path(__file__).with_name("programs.py")
KINDS = {
    "c code": 60,
    "multiprocessing fork": 130,
    "multiprocessing spawn": 80,
    "multiprocessing forkserver": 80,
    "executor": 150,
    "threads that fork": 140,
    "jobs": 65,
}
# These start interpreters, and inherit nothing.
FRESH = {"multiprocessing spawn", "multiprocessing forkserver"}
ALIKE = "multiprocessing forkserver"  # to spawn, once it is there
# A fork beside threads at work: with each driver.
TELLING = {"threads that fork"}
NAME = "poolproof-at-home"


def rows(observer, table):
    return {n for (n,) in observer.rows(f"select n from {table}")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "driver"),
    [
        pytest.param(
            kind,
            driver,
            marks=[pytest.mark.soak]
            * (kind == ALIKE or (kind not in TELLING and driver != "psycopg2")),
        )
        for kind in KINDS
        for driver in DRIVERS
    ],
)
def test_every_answer_is_right_and_every_row_is_there(
    pg_url, observer, table, kind, driver
):
    url = pg_url(driver, application_name=NAME)
    told = Told(PROGRAMS, kind, url=url, table=table)
    assert not told.hung, told.noise
    assert (told.noise, told.status) == ("", 0)
    assert told.all("wrong") == []
    committed = told.all("committed")
    assert len(committed) >= KINDS[kind]
    assert rows(observer, table) == set(committed)
    if kind == "executor":
        assert told.all("broken") == [5001]
        assert told.all("never") == [5001]
    eventually(lambda: not observer.backends(NAME), what="the end of all sessions")


@pytest.mark.slow
@pytest.mark.quick("multiprocessing fork")
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - FRESH))
def test_with_queuepool_the_fault_shows(pg_url, observer, table, kind):
    told = Told(
        *(PROGRAMS, kind),
        url=pg_url("psycopg2", application_name=NAME),
        table=table,
        pool="queue",
        seconds=20,
        until=lambda line: line.get("wrong"),
    )
    there = rows(observer, table)
    assert (
        told.hung
        or told.all("wrong")
        or set(told.all("committed")) - there
        or set(told.all("never")) & there
    )
