"""A server that sleeps until somebody asks, and then takes its time."""

from __future__ import annotations

import os
import signal
import time

import pytest
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.cluster import Cluster
from plugins.threads import Task


@pytest.fixture
def machine(pg):
    """Run a server of one test's own, which may be stopped."""
    cluster = Cluster(pg.binaries, package=pg.package)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
@pytest.mark.quick("psycopg2")
def test_server_that_wakes_slowly_serves_all(
    machine, driver, engine_of, kind, monkeypatch
):
    """Longer than the wait for a slot and the time to ask together."""
    monkeypatch.setattr("poolproof.pool.settings.ASKING_S", 0.5)
    url = machine.url(driver)
    # A busy machine takes its time as well; that nothing was repeated is counted.
    patience = {"connect_retry_for": 20} if kind is poolproof.Pool else {}
    engine = engine_of(url, poolclass=kind, pool_size=3, pool_timeout=0.5, **patience)
    attempts, asked = [], []

    @event.listens_for(engine, "do_connect")
    def begin(*_):
        attempts.append(time.monotonic())

    @event.listens_for(engine, "connect")
    def ask(connection, _entry):
        cursor = connection.cursor()
        cursor.execute("select 1")
        asked.append(cursor.fetchone()[0])
        connection.rollback()

    postmaster = int((machine.data / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        tasks = [Task(engine.connect) for _ in range(3)]
        time.sleep(2.5)  # more than libpq's least, which is 2 s
    finally:
        os.kill(postmaster, signal.SIGCONT)
    for task in tasks:
        task.result().close()
    assert asked == [1, 1, 1]
    assert len(attempts) == 3


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({"pool_timeout": 1}, 20, 30),
        ({"pool_timeout": 60}, 60, 65),
        ({"pool_timeout": 1, "checkout_timeout": 9}, 0, 9),
    ],
    ids=["default", "patient", "chosen"],
)
def test_listeners_of_connect_have_as_long_as_connecting(
    pg_url, driver, engine_of, options, least, most
):
    """With QueuePool they have no bound; a small `pool_timeout` is none of theirs."""
    engine = engine_of(pg_url(driver), **options)
    left = []

    @event.listens_for(engine, "connect")
    def begin(_connection, entry):
        left.append(entry.due - time.monotonic())

    engine.connect().close()
    assert least < left[0] <= most


def test_block_bounds_listeners_of_connect_sooner(pg_url, driver, engine_of):
    engine = engine_of(pg_url(driver), pool_timeout=1)
    left = []

    @event.listens_for(engine, "connect")
    def begin(_connection, entry):
        left.append(entry.due - time.monotonic())

    with poolproof.deadline(15):
        engine.connect().close()
    assert left[0] <= 15
