"""What the error says when no connection came in time."""

from __future__ import annotations

import os
import pickle
import re
import threading

import pytest
from sqlalchemy import exc

import poolproof
from plugins.threads import Task, wait_for_waiters


def time_out(pool):
    with pytest.raises(exc.TimeoutError) as caught:
        pool.connect()
    error = caught.value
    error.__traceback__ = None
    return error


def test_error_is_sqlalchemy_s_and_no_error_of_the_driver(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    with pool.connect():
        error = time_out(pool)
    assert isinstance(error, exc.SQLAlchemyError)
    assert not isinstance(error, exc.DBAPIError)
    assert error.code == "3o7r"
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
class TestText:
    """Intended difference: the error says who has the connections."""

    def test_it_says_the_numbers_of_the_pool(self, make_pool):
        pool = make_pool(
            pool_size=2, max_overflow=1, timeout=0.05, logging_name="orders"
        )
        taken = [Task(pool.connect).result() for _ in range(3)]
        error = time_out(pool)
        for one in taken:
            one.close()
        text = str(error)
        assert "orders" in text
        assert "size 2" in text
        assert "overflow 1" in text
        assert "3 in use" in text
        waited = re.search(r"within (\d+\.\d+) s", text)
        assert waited is not None
        assert 0.04 <= float(waited[1]) < 5
        assert type(error) is poolproof.PoolTimeout
        assert (error.pool, error.size, error.max_overflow) == ("orders", 2, 1)
        assert (error.in_use, error.waiting) == (3, 0)
        assert 0.04 <= error.waited < 5

    def test_a_new_thread_is_not_blamed_for_one_that_has_ended(self, make_pool):
        """The system gives the address of an ended thread to the next one."""
        pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
        held = []

        def take():
            held.append(pool.connect())

        culprit = threading.Thread(target=take, name="culprit")
        culprit.start()
        culprit.join()
        errors = []
        for n in range(5):
            innocent = threading.Thread(
                target=lambda: errors.append(time_out(pool)), name=f"innocent-{n}"
            )
            innocent.start()
            innocent.join()
        for error in errors:
            assert "innocent" not in str(error)
            assert "ended thread" in str(error)
        held.pop().close()

    def test_it_says_how_many_others_wait(self, make_pool):
        pool = make_pool(pool_size=1, max_overflow=0)
        held = pool.connect()
        waiters = [Task(lambda: pool.connect().close()) for _ in range(3)]
        wait_for_waiters(pool, 3)
        pool._timeout = 0
        error = time_out(pool)
        assert error.waiting == 3
        assert "3 more waiting" in str(error)
        held.close()
        for waiter in waiters:
            waiter.result()

    def test_it_names_who_has_held_connections_longest(self, make_pool):
        pool = make_pool(pool_size=2, max_overflow=0, timeout=0.02)
        go_on = threading.Event()

        def hold(taken):
            with pool.connect():
                taken.set()
                assert go_on.wait(10)

        tasks = []
        for name in ("billing-worker", "report-worker"):
            taken = threading.Event()
            task = Task(hold, taken)
            task.name = name
            tasks.append(task)
            assert taken.wait(10)
        error = time_out(pool)
        go_on.set()
        for task in tasks:
            task.result()
        text = str(error)
        assert text.index("billing-worker") < text.index("report-worker")
        assert f"process {os.getpid()}" in text
        first, second = error.holders
        assert (first.thread, first.process_id) == ("billing-worker", os.getpid())
        assert first.held_s >= second.held_s > 0

    def test_it_names_no_more_than_a_few_holders(self, make_pool):
        pool = make_pool(pool_size=50, max_overflow=0, timeout=0)
        taken = [pool.connect() for _ in range(50)]
        error = time_out(pool)
        assert 1 <= len(error.holders) <= 10
        assert len(str(error)) < 1500
        for one in taken:
            one.close()

    def test_holder_whose_thread_has_ended_is_named_too(self, make_pool):
        pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
        fairy = Task(pool.connect).result()
        error = time_out(pool)
        assert len(error.holders) == 1
        assert "ended" in str(error)
        fairy.close()

    def test_it_tells_no_address_and_no_password(self, make_engine, dbapi):
        engine = make_engine(
            "postgresql+psycopg2://127.0.0.1/stub:secret@db.internal/app",
            module=dbapi,
            _initialize=False,
            pool_size=1,
            max_overflow=0,
            pool_timeout=0,
        )
        with engine.connect():
            error = time_out(engine)
        assert "secret" not in str(error)

    def test_it_survives_pickling(self, make_pool):
        pool = make_pool(pool_size=1, max_overflow=0, timeout=0, logging_name="orders")
        with pool.connect():
            error = time_out(pool)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))
            assert type(again) is type(error)
            assert str(again) == str(error)
            assert again.holders == error.holders
            assert again.code == error.code
