"""What callers are told who did not make the attempt that failed."""

from __future__ import annotations

import pickle
import re
import threading
import time

import pg8000
import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

import poolproof
from plugins.dbapi import OperationalError
from plugins.outages import fail_once, postpone, queued, try_to_connect
from plugins.threads import Task, eventually
from poolproof.pool.connect_failure import ConnectFailure


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
        assert re.search(r"failed \d+\.\d\d s ago", age), age
        assert "failed once in a row" in age
        assert re.search(r"due in (60\.00|[45]\d\.\d\d) s", age), age
        assert str(pickle.loads(pickle.dumps(one))) == str(one)
    assert pool.checkedout() == 0
    assert pool.stats().checkouts_total == 0


def test_failed_attempt_answers_all_who_wait_for_it(make_pool, server):
    pool = make_pool(pool_size=4)
    fail_once(pool)
    postpone(pool, 0)
    server.hold = threading.Event()
    # More than there are slots: some wait for one of these.
    tasks = [Task(try_to_connect, pool) for _ in range(12)]
    eventually(lambda: server.entered == 2 and pool.stats().waiting == 8)
    postpone(pool)
    pool._connecting._began_at = time.monotonic() + 60  # nor when this one has failed
    server.hold.set()
    told = [task.result() for task in tasks]
    assert len(server.attempts) == 2
    assert all(type(one) is OperationalError for one in told)
    assert sum("not asked again" in str(one) for one in told) == 11
    assert pool.checkedout() == 0


def test_failed_attempt_answers_the_others_although_the_next_begins(
    make_pool, server, monkeypatch
):
    """Each attempt may take long: nobody waits for two of them."""
    for length in ("_LONGEST_S", "_LOOK_AGAIN_S"):  # they are told, and need not look
        monkeypatch.setattr(f"poolproof.pool.connector.{length}", 60.0)
    pool = make_pool()
    fail_once(pool)
    postpone(pool, 0)
    first, second = threading.Event(), threading.Event()
    server.hold = first
    tasks = [Task(try_to_connect, pool) for _ in range(4)]
    eventually(lambda: server.entered == 2 and queued(pool) == 3)
    server.hold = second
    pool._connecting._began_at -= 60  # the next is due as soon as this one has failed
    first.set()
    eventually(lambda: server.entered == 3)
    eventually(lambda: sum(task.is_alive() for task in tasks) == 1)
    second.set()
    told = [task.result() for task in tasks]
    assert sum("not asked again" in str(one) for one in told) == 2


def test_error_of_the_applications_own_code_is_its_callers_alone(make_pool, dbapi):
    pool = make_pool()
    dbapi.script["connect"] = LookupError("no token")
    for count in range(1, 4):
        with pytest.raises(LookupError, match=r"^no token$"):
            pool.connect()
        assert dbapi.count("connect") == count


def in_words(words):
    return psycopg2.OperationalError(f"connection failed: FATAL:  {words}")


def in_a_code(sqlstate):
    return pg8000.DatabaseError({"S": "FATAL", "C": sqlstate, "M": "no"})


@pytest.mark.parametrize(
    "error",
    [
        in_words('password authentication failed for user "x"'),
        in_words('role "x" is not permitted to log in'),
        in_words('role "x" does not exist'),
        in_words('database "x" does not exist'),
        in_words("fe_sendauth: no password supplied"),
        in_words('no pg_hba.conf entry for host "127.0.0.1"'),
        in_words('permission denied for database "x"'),
        in_words("no such database: x"),
        in_words("no such user: x"),
        *map(in_a_code, ("28000", "28P01", "3D000", "42501")),
    ],
    ids=str,
)
def test_what_does_not_mend_itself_is_known_by_code_or_words(error):
    assert not ConnectFailure(error, 0.0).may_change


@pytest.mark.parametrize(
    "error",
    [
        in_words("sorry, too many clients already"),
        in_words("the database system is starting up"),
        in_words('too many connections for role "x"'),
        *map(in_a_code, ("53300", "57P03")),
        ConnectionRefusedError(111, "no such user: x"),
    ],
    ids=str,
)
def test_what_may_mend_itself_is_tried_again(error):
    assert ConnectFailure(error, 0.0).may_change


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
    for _ in range(2):  # nor is it told the other's answer, which may not be its own
        with pytest.raises(exc.DBAPIError, match=words) as caught:
            engine.connect()
        engine.pool._connecting._next_at += 60
        assert "not asked again" not in str(caught.value.orig)


def test_who_is_at_the_limit_of_a_role_takes_what_comes_to_rest(
    pg_url, driver, engine_of
):
    admin = engine_of(pg_url("psycopg2"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("drop role if exists limited"))
        connection.execute(sa.text("create role limited login connection limit 1"))
    url = pg_url(driver).set(username="limited")
    engine = engine_of(url)
    held = engine.connect()
    raw = held.connection.dbapi_connection
    with pytest.raises(exc.DBAPIError, match="too many connections for role"):
        engine.connect()
    engine.pool._connecting._retry_for = 20
    postpone(engine.pool)
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


def test_an_old_failure_is_told_to_nobody(make_pool, server):
    """After a quiet time everybody connects side by side, as with QueuePool."""
    pool = make_pool(pool_size=4)
    fail_once(pool)
    connecting = pool._connecting
    connecting._last.at -= 60
    connecting._next_at -= 60
    server.hold = threading.Event()
    server.is_up = True
    tasks = [Task(pool.connect) for _ in range(4)]
    eventually(lambda: server.entered == 5)  # none waits for another
    server.hold.set()
    for task in tasks:
        task.result().close()


def test_what_is_told_of_one_callers_user_is_told_to_nobody_else():
    error = OperationalError('password authentication failed for user "x"')
    assert not ConnectFailure(error, 0.0).is_for_all
    assert ConnectFailure(OperationalError("refused"), 0.0).is_for_all


def test_a_told_error_has_no_notes_of_others():
    error = OperationalError("refused")
    error.__notes__ = ["of the first"]
    failure = ConnectFailure(error, 0.0)
    for name in ("one", "two"):
        told = failure.again(1.0, 1, 0.5)
        told.__notes__ = [*getattr(told, "__notes__", []), name]
        assert told.__notes__ == [name]
