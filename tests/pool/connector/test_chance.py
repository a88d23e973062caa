"""Some attempts fail by chance: no more checkouts do than with QueuePool."""

from __future__ import annotations

import random
import threading
import time

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.outages import fail_once, try_to_connect
from plugins.threads import Task, eventually

BY_CHANCE = 7  # as the pool has it


def test_failures_by_chance_are_their_callers_own(make_pool, server):
    """A network that fails now and then costs no more than with QueuePool."""
    pool = make_pool()
    for _ in range(2):
        for _ in range(BY_CHANCE):
            assert str(try_to_connect(pool)) == "the server is down"
        server.is_up = True
        one = pool.connect()
        server.is_up = False
        one.invalidate()
        one.close()
    assert len(server.attempts) == 2 * (BY_CHANCE + 1)


def test_one_more_in_a_row_is_an_outage(make_pool, server):
    pool = make_pool()
    for _ in range(BY_CHANCE + 1):
        fail_once(pool)
    fail_once(pool)  # after the first of an outage the next is due at once
    assert "not asked again" in str(try_to_connect(pool))
    assert len(server.attempts) == BY_CHANCE + 2


def test_refusals_are_chance_while_others_may_still_succeed(make_pool, server):
    """A refusal comes sooner than a success."""
    pool = make_pool()
    server.is_up, hold = True, threading.Event()
    server.hold = hold
    slow = [Task(pool.connect) for _ in range(4)]
    eventually(lambda: server.entered == 4)
    server.is_up, server.hold = False, None
    for _ in range(BY_CHANCE + 4):
        assert str(try_to_connect(pool)) == "the server is down"
    hold.set()
    for task in slow:
        task.result().close()
    assert pool.stats().connect_failures == 0


def test_who_would_rather_wait_takes_the_first_for_an_outage(make_pool, server):
    """Nobody is told without need there, so that the server may be spared."""
    pool = make_pool(connect_retry_for=0.01)
    assert "the server is down" in str(try_to_connect(pool))
    assert pool._connecting._is_away


# --- a real server that refuses some --------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("driver", ["psycopg2"])
def test_server_that_refuses_some_fails_no_more_than_with_queue_pool(
    refusing, pg_url, driver, engine_of
):
    """As a balancer with a dead server does; most checkouts have to connect here."""
    shares = []
    for kind in (QueuePool, poolproof.Pool):
        engine = engine_of(pg_url(driver), poolclass=kind, pool_size=1, max_overflow=15)
        engine.connect().close()
        refuse_three_of_five(engine, refusing.url(driver))
        fates = []
        tasks = [Task(_ask, engine, fates) for _ in range(12)]
        for task in tasks:
            task.result(60)
        shares.append(sum(isinstance(one, Exception) for one in fates) / len(fates))
    theirs, ours = shares
    assert theirs > 0.1  # or it tells nothing
    assert ours < 1.3 * theirs + 0.05


def refuse_three_of_five(engine, refusing):
    chance = random.Random(3)  # noqa: S311 - the same for both

    def lead(_dialect, _record, _args, parameters):
        if chance.random() < 0.6:
            parameters.update(host=refusing.host, port=refusing.port)

    event.listen(engine, "do_connect", lead)


def _ask(engine, fates):
    for _ in range(20):
        fates.append(_attempt(engine))
        time.sleep(random.expovariate(50))


def _attempt(engine):
    try:
        with engine.connect() as connection:
            return str(connection.scalar(sa.text("select pg_sleep(0.02)")))
    except exc.OperationalError as error:
        return error.orig
