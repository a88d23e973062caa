"""A dead connection that a ping or a look finds before it is lent."""

from __future__ import annotations

import sqlalchemy as sa

import poolproof
from plugins.harm import pid_of
from poolproof import Fault

SELECT = sa.text("select 42")


def test_a_dead_connection_found_by_a_ping_is_reported_and_replaced(
    make_engine, driver, observer, events
):
    engine = make_engine(driver, pool_size=1, pool_pre_ping=True)
    poolproof.guard(engine)
    with engine.connect() as connection:
        pid = pid_of(connection)
    observer.terminate(pid)
    with engine.connect() as connection:
        assert connection.execute(SELECT).scalar() == 42
    (event,) = events
    assert event.fault in {Fault.TERMINATED, Fault.CONNECTION_LOST}
    assert (event.verdict.cost, event.verdict.retry) == ("generation", "reconnect")


def test_a_ping_that_is_answered_by_a_reset_finds_the_connection_dead(
    make_engine, driver, proxy, events
):
    """pg8000 lets the system's own error through, which is no error of a driver's."""
    engine = make_engine(driver, proxy, pool_size=1, pool_pre_ping=True)
    poolproof.guard(engine)
    with engine.connect() as connection:
        assert connection.execute(SELECT).scalar() == 42
    proxy.reset()
    with engine.connect() as connection:
        assert connection.execute(SELECT).scalar() == 42
    (event,) = events
    assert event.fault is Fault.CONNECTION_LOST
    assert event.verdict.retry == "reconnect"


def test_our_pool_sees_a_dead_connection_and_hands_out_another(
    make_engine, driver, observer, events
):
    engine = make_engine(driver, pool_size=2, poolclass=poolproof.Pool)
    with engine.connect() as one, engine.connect() as other:
        dead, alive = pid_of(one), pid_of(other)
    observer.terminate(dead)
    with engine.connect() as one, engine.connect() as other:
        pids = {pid_of(one), pid_of(other)}
    assert dead not in pids
    assert alive in pids
    assert events == []
