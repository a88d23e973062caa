"""At home in a process that gevent has patched: a hundred greenlets, five sessions."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import pytest

from plugins.programs import Told
from plugins.threads import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
    ),
]

PROGRAM = Path(__file__).with_name("greenlets.py")
NAME = "poolproof-greenlets"
GREENLETS, ROUNDS, MOST = 100, 5, 5


WAYS = [
    ("psycopg2", "blocking"),
    ("psycopg2", "wait callback"),
    ("psycopg", "cooperative"),
    ("pg8000", "cooperative"),
]


@pytest.fixture
def backends(observer):
    """Count the program's sessions again and again; the list has every count."""
    over, seen = threading.Event(), [0]

    def count():
        while not over.wait(0.01):
            seen.append(len(observer.backends(NAME)))

    counting = threading.Thread(target=count)
    counting.start()
    yield seen
    over.set()
    counting.join()


@pytest.mark.parametrize(
    ("driver", "how"),
    # psycopg waits in Python, as pg8000 does.
    [
        pytest.param(*way, marks=[pytest.mark.soak] * (way[0] == "psycopg"))
        for way in WAYS
    ],
    ids=[" ".join(way) for way in WAYS],
)
def test_each_is_answered_rightly_and_in_turn(
    pg_url, observer, table, backends, driver, how
):
    url = pg_url(driver, application_name=NAME)
    told = Told(PROGRAM, how, url=url, table=table)
    assert not told.hung
    assert (told.noise, told.status) == ("", 0)
    assert told.all("wrong") == []
    committed = set(told.all("committed"))
    assert len(committed) == GREENLETS * ROUNDS
    assert {n for (n,) in observer.rows(f"select n from {table}")} == committed
    assert told.all("left") == [0]
    assert 0 < max(backends) <= MOST
    if how != "blocking":  # psycopg2 without a callback lets nobody else run, or wait
        # Nobody is two turns ahead of another; one more, for who came before it waited.
        assert told.all("spread")[0] <= 3
        assert told.all("ticks")[0] > 20
    eventually(lambda: not observer.backends(NAME), what="the end of all sessions")


def test_under_queuepool_some_have_every_turn_before_others_have_one(pg_url, table):
    url = pg_url("psycopg2", application_name=NAME)
    told = Told(PROGRAM, "wait callback", url=url, table=table, pool="queue")
    assert told.all("spread") == [ROUNDS]
