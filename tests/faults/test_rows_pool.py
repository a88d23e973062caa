"""Rows about deadlines, forks and disappointing answers; what the pool finds out."""

from __future__ import annotations

import os
import pickle
import time

import pytest
import sqlalchemy as sa

import poolproof
from plugins.harm import driver_connections, first_error
from plugins.rows import decided_by, row
from poolproof import DeadlineExceeded, Fault

SELECT = sa.text("select 42")

# --- a deadline of ours ---------------------------------------------------------------


@pytest.mark.parametrize("commit", [False, True], ids=["execute", "commit"])
def test_a_deadline_that_passes_costs_the_one_connection(
    make_engine, driver, watched, events, commit
):
    engine = make_engine(
        driver, watched, poolclass=poolproof.Pool, pool_size=2, ping_idle_after=None
    )
    with engine.connect() as other, engine.connect() as connection:
        for one in (other, connection):
            one.execute(SELECT)
        _, link = watched.links
        with poolproof.deadline(0.3):
            link.stall()
            started = time.monotonic()
            error = first_error(
                connection.commit if commit else lambda: connection.execute(SELECT)
            )
            assert time.monotonic() - started < 10
        assert other.execute(SELECT).scalar() == 42
    assert decided_by(error) == row("caused by `poolproof.DeadlineExceeded`")
    assert isinstance(error.orig.__cause__, DeadlineExceeded)
    (event,) = events
    assert (event.fault, event.verdict.cost) == (Fault.CONNECTION_LOST, "connection")
    assert (event.verdict.retry, event.verdict.outcome) == (
        ("never", "unknown") if commit else ("whole_unit", "not_done")
    )
    assert engine.pool.stats().discarded == {"deadline_timeout": 1}


def test_a_deadline_by_itself_is_judged_as_what_it_led_to():
    error = DeadlineExceeded("ping", 2.0, 4711)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert decided_by(one) == row("caused by `poolproof.DeadlineExceeded`")
        assert poolproof.classify(one).cost == "connection"


# --- the pool's own, and SQLAlchemy's -------------------------------------------------


def test_a_checkout_that_a_deadline_ended_is_a_pool_timeout(make_engine):
    engine = make_engine("psycopg2", poolclass=poolproof.Pool, pool_size=1)
    with poolproof.deadline(0.01):
        time.sleep(0.02)
        error = first_error(engine.connect)
    assert isinstance(error.__cause__, DeadlineExceeded)
    assert decided_by(error) == row("sqlalchemy.exc.TimeoutError")


@pytest.mark.fork
def test_what_a_child_inherits_is_forked(make_engine, driver):
    engine = make_engine(driver, poolclass=poolproof.Pool)
    with engine.connect() as connection:
        connection.execute(SELECT)
        child = os.fork()
        if child == 0:
            try:
                error = first_error(lambda: connection.execute(SELECT))
                expected = row("poolproof.ConnectionForked")
                os._exit(0 if decided_by(error) == expected else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (
            lambda r: [r.close(), r.fetchall()],
            row("sqlalchemy.exc.ResourceClosedError"),
        ),
        (lambda r: r.mappings().one()["other"], row("exc.NoSuchColumnError")),
    ],
)
def test_an_answer_that_does_not_fit_is_suspect(make_engine, driver, ask, expected):
    with make_engine(driver).connect() as connection:
        error = first_error(lambda: ask(connection.execute(sa.text("select 1 as n"))))
    assert decided_by(error) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, row("exc.NoResultFound")), (2, row("exc.MultipleResultsFound"))],
)
def test_an_answer_of_another_length_is_suspect(make_engine, driver, rows, expected):
    statement = sa.text(f"select * from generate_series(1, {rows})")
    with make_engine(driver).connect() as connection:
        error = first_error(connection.execute(statement).one)
    assert decided_by(error) == expected


# --- what the pool has to find out ----------------------------------------------------


def entry_of(connection):
    return connection.connection._connection_record


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])  # pg8000 always is
def test_a_mistake_of_the_caller_leaves_the_connection_suspect(
    make_engine, driver, events
):
    engine = make_engine(driver, poolclass=poolproof.Pool, pool_size=1)
    (before,) = driver_connections(engine, 1)
    with engine.connect() as connection:

        @sa.event.listens_for(engine, "do_execute", once=True)
        def fail(*_):
            raise TypeError("before anything was sent")

        error = first_error(lambda: connection.execute(SELECT))
        assert isinstance(error, TypeError)
        assert entry_of(connection).suspect
    assert events == []
    # The pool has asked, and the connection was in step.
    assert driver_connections(engine, 1) == [before]
    with engine.connect() as connection:
        assert not entry_of(connection).suspect
    assert engine.pool.stats().discarded == {}


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_an_ordinary_error_leaves_it_above_suspicion(make_engine, driver):
    engine = make_engine(driver, poolclass=poolproof.Pool)
    with engine.connect() as connection:
        first_error(lambda: connection.execute(sa.text("selec")))
        assert not entry_of(connection).suspect


def test_an_error_of_the_drivers_own_code_is_suspect(make_engine, events):
    engine = make_engine("pg8000", poolclass=poolproof.Pool)
    with engine.connect() as connection:
        names = [f"p{n}" for n in range(66_000)]  # more than two bytes can count
        many, values = ", ".join(f":{name}" for name in names), dict.fromkeys(names, 1)
        statement = sa.text(f"select array[{many}]")
        error = first_error(lambda: connection.execute(statement, values))
        assert entry_of(connection).suspect
    assert decided_by(error) == row(
        "no DBAPI error, but raised by the driver's own code"
    )
    assert [one.fault for one in events] == [Fault.SUSPECT]
