"""Ctrl-C, or a soft time limit, at the instant at which a unit or block is entered.

Signals are handled after a call: what it has set has to be taken back all the same.
"""

from __future__ import annotations

import contextlib
import sys
from contextvars import ContextVar, copy_context

import pytest
from sqlalchemy import create_engine, exc, text

import poolproof


@contextlib.contextmanager
def interrupted_when_set(name):
    """Interrupt right after a context variable is set, and expect to hear of it."""

    def look(_frame, event, function):
        variable = getattr(function, "__self__", None)
        if event != "c_return" or function.__name__ != "set":
            return
        if isinstance(variable, ContextVar) and variable.name == name:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        sys.setprofile(None)
    pytest.fail(f"{name} was not set")


@pytest.fixture
def local():
    engine = create_engine("sqlite://", poolclass=poolproof.Pool)
    yield engine
    engine.dispose()


def test_a_unit_that_was_interrupted_does_not_go_on_for_ever(local):
    unit = lambda connection: connection.scalar(text("select 1"))  # noqa: E731
    with interrupted_when_set("poolproof_unit"):
        poolproof.run_transaction(local, unit)
    assert poolproof.run_transaction(local, unit) == 1


def test_a_deadline_that_was_interrupted_bounds_nothing(local):
    block = poolproof.deadline(1e-9)  # also one that somebody still has
    with interrupted_when_set("poolproof_deadline"), block:
        pass
    with local.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


def test_the_block_around_an_interrupted_one_goes_on(local):
    with poolproof.deadline(1e-9):
        with interrupted_when_set("poolproof_deadline"), poolproof.deadline(60):
            pass
        with pytest.raises(poolproof.PoolTimeout), local.connect():
            pass


def test_what_outlives_its_block_stays_bound_by_it(local):
    with poolproof.deadline(1e-9):
        task = copy_context()
    with pytest.raises(poolproof.PoolTimeout):
        task.run(local.connect)


def test_a_deadline_whose_end_was_interrupted_bounds_nothing(local):
    def look(frame, event, _argument):
        if event == "call" and frame.f_code is poolproof.deadline.__exit__.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), poolproof.deadline(1e-9):
        sys.setprofile(look)
    with local.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


def test_listeners_hear_of_the_next_fault_after_an_interrupted_one(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))

    def fail():
        with engine.connect() as connection, contextlib.suppress(exc.DBAPIError):
            connection.execute(text("do $$ begin raise sqlstate '57014'; end $$"))

    heard = []
    stop = poolproof.on_fault(heard.append)
    try:
        with interrupted_when_set("poolproof_emitting"):
            fail()
        fail()
    finally:
        stop()
    assert [event.fault for event in heard] == [poolproof.Fault.CANCELLED]
