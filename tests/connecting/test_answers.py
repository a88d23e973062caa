"""What callers are told who did not make the attempt that failed."""

from __future__ import annotations

import pickle
import threading

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

import poolproof
from plugins.dbapi import OperationalError
from plugins.outages import fail_once, postpone, try_to_connect
from plugins.threads import Task, eventually


def test_who_comes_in_between_is_told_the_last_answer_at_once(make_pool, server):
    pool = make_pool()
    fail_once(pool)
    postpone(pool)
    told = [try_to_connect(pool) for _ in range(3)]
    assert len(server.attempts) == 1
    assert len({id(one) for one in told}) == 3
    for one in told:
        assert type(one) is OperationalError
        said, age = str(one).splitlines()
        assert said == "the server is down"
        assert "failed 0.0" in age
        assert "failed once in a row" in age
        assert "due in 59." in age or "due in 60.00" in age
        assert str(pickle.loads(pickle.dumps(one))) == str(one)
    assert pool.checkedout() == 0


def test_failed_attempt_answers_all_who_wait_for_it(make_pool, server):
    pool = make_pool(pool_size=4)
    fail_once(pool)
    postpone(pool, 0)
    server.hold = threading.Event()
    # More than there are slots: some wait for one of these.
    tasks = [Task(try_to_connect, pool) for _ in range(12)]
    eventually(lambda: server.entered == 2 and pool.stats().waiting == 8)
    postpone(pool)
    server.hold.set()
    told = [task.result() for task in tasks]
    assert len(server.attempts) == 2
    assert all(type(one) is OperationalError for one in told)
    assert sum("not asked again" in str(one) for one in told) == 11
    assert pool.checkedout() == 0


def test_error_of_the_applications_own_code_is_its_callers_alone(make_pool, dbapi):
    pool = make_pool()
    dbapi.script["connect"] = LookupError("no token")
    for count in range(1, 4):
        with pytest.raises(LookupError, match=r"^no token$"):
            pool.connect()
        assert dbapi.count("connect") == count


@pytest.mark.parametrize(
    ("asked_for", "words"),
    [
        ({"database": "no such"}, "does not exist"),
        ({"username": "nobody here"}, "nobody here"),
    ],
)
def test_nobody_waits_for_what_does_not_mend_itself(
    pg_url, driver, engine_of, asked_for, words
):
    engine = engine_of(pg_url(driver).set(**asked_for), connect_retry_for=60)
    for told in ("", "not asked again"):
        with pytest.raises(exc.DBAPIError, match=words) as caught:
            engine.connect()
        engine.pool._connecting._next_at += 60
        assert told in str(caught.value.orig)


def test_who_is_at_the_limit_of_a_role_takes_what_comes_to_rest(
    pg_url, driver, engine_of
):
    admin = engine_of(pg_url("psycopg2"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("drop role if exists limited"))
        connection.execute(sa.text("create role limited login connection limit 1"))
    url = pg_url(driver).set(username="limited")
    engine = engine_of(url, connect_retry_for=20)
    held = engine.connect()
    raw = held.connection.dbapi_connection
    with poolproof.deadline(0.2), pytest.raises(poolproof.PoolTimeout) as caught:
        engine.connect()
    assert "too many connections for role" in str(caught.value.__cause__)
    waiting = Task(engine.connect)
    eventually(lambda: engine.pool._connecting.bells)
    held.close()
    with waiting.result() as found:
        assert found.connection.dbapi_connection is raw
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(sa.text("drop role limited"))


def test_handler_of_errors_hears_of_every_answer(refusing, engine_of):
    engine = engine_of(refusing.url("psycopg2"))
    heard = []
    event.listen(engine, "handle_error", lambda ctx: heard.append(ctx.is_disconnect))
    for _ in range(2):
        with pytest.raises(exc.OperationalError):
            engine.connect()
        postpone(engine.pool)
    assert len(heard) == 2
