"""Creators and callers that do not behave."""

from __future__ import annotations

import pytest
from sqlalchemy import exc

from plugins.threads import assert_whole


def test_closing_twice_gives_back_once(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=1)
    fairy = pool.connect()
    fairy.close()
    fairy.close()
    assert (pool.checkedin(), pool.checkedout()) == (1, 0)
    assert_whole(pool, dbapi, 2)


def test_checking_in_twice_warns_and_gives_back_once(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=1)
    fairy = pool.connect()
    record = fairy._connection_record
    fairy.close()
    with pytest.warns(exc.SAWarning, match="Double checkin attempted"):
        record.checkin()
    assert (pool.checkedin(), pool.checkedout()) == (1, 0)
    assert_whole(pool, dbapi, 2)


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_record_that_is_returned_twice_is_one_slot(make_pool, dbapi):
    """QueuePool would hand the same connection to two callers."""
    pool = make_pool(pool_size=2, max_overflow=0, timeout=0)
    fairy = pool.connect()
    record = fairy._connection_record
    fairy.close()
    pool._do_return_conn(record)
    first, second = pool.connect(), pool.connect()
    assert first.dbapi_connection is not second.dbapi_connection
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    first.close()
    second.close()
    assert_whole(pool, dbapi, 2)


def test_closed_connection_is_of_no_use(make_pool):
    fairy = make_pool().connect()
    fairy.close()
    assert not fairy.is_valid
    with pytest.raises((AssertionError, AttributeError)):
        fairy.cursor()


def test_creator_that_returns_one_connection_for_ever_loses_no_slot(make_pool, dbapi):
    only = dbapi.connect()
    pool = make_pool(lambda: only, pool_size=2, max_overflow=1, timeout=0)
    for _ in range(3):
        taken = [pool.connect() for _ in range(3)]
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        assert all(one.dbapi_connection is only for one in taken)
        for one in taken:
            one.close()
        assert pool.checkedout() == 0


def test_creator_may_take_the_record(make_pool):
    told = []
    connections = []

    def creator(connection_record):
        told.append(connection_record)
        connections.append(object_with_a_driver())
        return connections[-1]

    pool = make_pool(creator, reset_on_return=None)
    fairy = pool.connect()
    assert told == [fairy._connection_record]
    assert fairy.dbapi_connection is connections[0]
    fairy.close()


def object_with_a_driver():
    class Connection:
        def close(self):
            pass

    return Connection()


@pytest.mark.parametrize("kind", ["plain", "default", "keyword", "variadic"])
def test_creator_may_take_nothing(make_pool, kind):
    creators = {
        "plain": lambda: object_with_a_driver(),
        "default": lambda value=None: object_with_a_driver(),
        "keyword": lambda *, value=None: object_with_a_driver(),
        "variadic": lambda *_a, **_k: object_with_a_driver(),
    }
    pool = make_pool(creators[kind], reset_on_return=None)
    pool.connect().close()
    assert pool.checkedin() == 1


def test_creator_with_a_wrong_signature_is_an_error_and_loses_no_slot(make_pool, dbapi):
    pool = make_pool(lambda _a, _b: None, pool_size=1, max_overflow=0, timeout=0)
    for _ in range(3):
        with pytest.raises(TypeError):
            pool.connect()
        assert pool.checkedout() == 0
    assert dbapi.calls == []


def test_creator_may_be_replaced(make_pool):
    first, second = object_with_a_driver(), object_with_a_driver()
    pool = make_pool(lambda: first, reset_on_return=None)
    with pool.connect() as fairy:
        assert fairy.dbapi_connection is first
        fairy.invalidate()
    pool._creator = lambda: second
    with pool.connect() as fairy:
        assert fairy.dbapi_connection is second


def test_creator_may_use_another_connection_of_the_same_pool(make_pool, dbapi):
    inside = []

    def creator():
        if not inside:
            inside.append(True)
            pool.connect().close()
        return dbapi.connect()

    pool = make_pool(creator, pool_size=2, max_overflow=0, timeout=0)
    pool.connect().close()
    assert dbapi.connects == 2
    assert_whole(pool, dbapi, 2)


def test_connection_without_anything_but_close_and_rollback_will_do(make_pool):
    closed = []

    class Bare:
        __slots__ = ()

        def rollback(self):
            pass

        def close(self):
            closed.append(self)

    pool = make_pool(Bare)
    pool.connect().close()
    pool.dispose()
    assert len(closed) == 1


def test_fileno_that_raises_does_not_matter(make_pool):
    class Odd:
        def fileno(self):
            message = "no descriptor today"
            raise OSError(message)

        def rollback(self):
            pass

        def close(self):
            pass

    pool = make_pool(Odd, pool_size=1, max_overflow=0, timeout=0)
    pool.connect().close()
    pool.connect().close()
    assert pool.checkedin() == 1


@pytest.mark.parametrize("number", [-1, "7", None, 10**9, 2**40])
def test_fileno_that_is_no_descriptor_does_not_matter(make_pool, number):
    class Odd:
        def fileno(self):
            return number

        def rollback(self):
            pass

        def close(self):
            pass

    pool = make_pool(Odd, pool_size=1, max_overflow=0, timeout=0)
    pool.connect().close()
    pool.connect().close()
    assert pool.checkedin() == 1
