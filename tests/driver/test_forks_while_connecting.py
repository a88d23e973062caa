"""Forks while other threads connect over TLS: in the middle of each step of it."""

from __future__ import annotations

import contextlib
import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

import poolproof
from plugins.processes import said_in_fork
from plugins.threads import eventually

pytestmark = pytest.mark.fork

THREADS = 8
SECONDS = 60


@pytest.mark.parametrize(
    "forks",
    [10, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
@pytest.mark.parametrize("kind", [poolproof.Pool, NullPool])
def test_no_fork_meets_a_connection_that_is_being_opened(
    debian_pg, debian_observer, forks, kind
):
    """Each thread has the answers to its own questions, and so has each child."""
    url = debian_pg.url("poolproof", application_name="forks-while-connecting")
    options = {"pool_size": THREADS} if kind is poolproof.Pool else {}
    engine = create_engine(
        url, poolclass=kind, connect_args={"sslmode": "require"}, **options
    )
    stop = threading.Event()
    failures: list[object] = []
    connected = [0] * THREADS

    def ask(number):
        with engine.connect() as connection:
            found = connection.execute(
                text("select cast(:n as int), ssl from pg_stat_ssl where pid = :pid"),
                {"n": number, "pid": connection.connection.driver_connection.wire.pid},
            )
            row = tuple(found.one())
            connection.invalidate()  # to connect anew
        return row

    def work(number):
        while not stop.is_set():
            value = number * 1_000_000 + connected[number]
            try:
                row = ask(value)
            except BaseException as error:
                failures.append(error)
                return
            if row != (value, True):
                failures.append((value, row))
            connected[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    said: list[str] = []
    try:
        eventually(lambda: all(connected))
        said += [said_in_fork(lambda fork=fork: ask(-fork)) for fork in range(forks)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
        with contextlib.suppress(Exception):
            engine.dispose()
    assert failures == []
    assert said == [str((-fork, True)) for fork in range(forks)]
    assert sum(connected) > THREADS
    # None is left behind on the server, by a child or by its parent.
    query = "select count(*) from pg_stat_activity where application_name = %s"
    eventually(lambda: debian_observer.value(query, "forks-while-connecting") == 0)
