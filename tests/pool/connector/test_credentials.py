"""Passwords that a function gives at each connect: one that raises, one that hangs."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

from plugins.threads import Task, eventually

ONE = sa.text("select 1")

pytestmark = pytest.mark.quick("psycopg2")


class TokenError(Exception):
    """Of a cloud's library, which the pool does not know."""


class Tokens:
    """A source of passwords, as a cloud's: it may hang, or raise."""

    def __init__(self):
        self.asked = 0
        self.fault = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def give(self, _dialect, _record, _args, keywords):
        self.asked += 1
        self.may_go_on.wait(60)
        if self.fault is not None:
            raise self.fault
        keywords["password"] = "of now"  # noqa: S105


@pytest.fixture
def tokens():
    """Return a source of passwords, which hangs no longer than the test."""
    made = Tokens()
    yield made
    made.may_go_on.set()


@pytest.fixture
def bounded(engine_of, pg_url, driver, tokens):
    """Return an engine of two connections whose password is asked for."""
    engine = engine_of(pg_url(driver), pool_size=2, max_overflow=0, pool_timeout=0.3)
    event.listen(engine, "do_connect", tokens.give)
    return engine


def both_can_be_had(engine):
    with engine.connect() as one, engine.connect() as other:
        return one.scalar(ONE) + other.scalar(ONE) == 2


def test_one_that_raises_is_its_callers_own_error_and_costs_no_slot(bounded, tokens):
    tokens.fault = TokenError("no token today")
    for _ in range(10):  # more than make the pool stop trying for a server's failures
        with pytest.raises(TokenError, match="no token today"):
            bounded.connect()
    assert tokens.asked == 10
    assert bounded.pool.stats().in_use == 0
    tokens.fault = None
    assert both_can_be_had(bounded)


def test_one_that_hangs_holds_its_own_slot_alone_and_the_error_names_who_asks(
    bounded, tokens
):
    with bounded.connect():
        tokens.may_go_on.clear()
        stuck = Task(bounded.connect)
        eventually(lambda: tokens.asked == 2)
        with pytest.raises(exc.TimeoutError) as caught:
            bounded.connect()
        assert f"{stuck.name} (process " in str(caught.value)
    # What came to rest meanwhile serves all others.
    for _ in range(3):
        with bounded.connect() as connection:
            assert connection.scalar(ONE) == 1
    assert tokens.asked == 2
    tokens.may_go_on.set()
    stuck.result().close()
    assert bounded.pool.stats().in_use == 0
    assert both_can_be_had(bounded)
