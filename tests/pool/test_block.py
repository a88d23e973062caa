"""`poolproof.deadline`: a bound for everything that a block does."""

from __future__ import annotations

import contextlib
import contextvars
import dis
import math
import sys
import threading
import time

import pytest
from sqlalchemy import exc, text
from sqlalchemy.orm import Session

import poolproof
from plugins.processes import run_in_fork
from plugins.threads import Task
from plugins.wire import SOON, Stopwatch
from poolproof.pool import deadlines

SLEEP = text("select pg_sleep(20)")
ONE = text("select 1")


def test_statement_ends_when_the_block_is_over(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    with (
        engine.connect() as connection,
        Stopwatch() as watch,
        pytest.raises(exc.DBAPIError) as caught,
        poolproof.deadline(0.3),
    ):
        connection.execute(SLEEP)
    assert 0.25 <= watch.seconds < SOON
    assert caught.value.connection_invalidated
    assert isinstance(caught.value.orig.__cause__, poolproof.DeadlineExceeded)
    with engine.connect() as connection:
        assert connection.scalar(ONE) == 1


def test_raw_cursor_of_a_connection_from_inside_is_bounded(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    engine.connect().close()
    with Stopwatch() as watch, poolproof.deadline(1):
        raw = engine.raw_connection()
        with pytest.raises(Exception):  # noqa: B017, PT011 - the driver's own
            raw.cursor().execute("select pg_sleep(20)")
    assert watch.seconds < SOON
    raw.close()
    assert engine.pool.stats().discarded == {"deadline_timeout": 1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_fetching_is_bounded(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    slow = text(
        "select pg_sleep(case when n > 50 then 20 else 0 end) from "
        "generate_series(1, 100) n"
    )
    with (
        engine.connect().execution_options(stream_results=True) as connection,
        Stopwatch() as watch,
        pytest.raises(exc.DBAPIError),
        poolproof.deadline(0.5),
    ):
        connection.execute(slow).fetchall()
    assert watch.seconds < SOON


def test_waiting_for_a_connection_is_bounded(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    held = engine.connect()
    with (
        Stopwatch() as watch,
        pytest.raises(poolproof.PoolTimeout),
        poolproof.deadline(0.3),
    ):
        engine.connect()
    assert 0.3 <= watch.seconds < SOON
    held.close()


@pytest.mark.quick("psycopg2")
def test_connection_is_free_again_behind_the_block(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    with engine.connect() as connection:
        with poolproof.deadline(1):
            assert connection.scalar(ONE) == 1
        connection.execute(text("select pg_sleep(1.2)"))
    assert engine.pool.stats().discarded == {}


@pytest.mark.quick("psycopg2")
def test_connection_that_goes_back_inside_is_free_for_the_next(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver))
    engine.connect().close()
    with poolproof.deadline(1):
        with engine.connect() as connection:
            connection.scalar(ONE)

        def another():
            with engine.connect() as connection:
                connection.execute(text("select pg_sleep(1.2)"))

        Task(another).result()
    assert engine.pool.stats().discarded == {}


@pytest.mark.quick("psycopg2")
def test_connection_that_the_block_does_not_use_is_left_alone(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver), pool_size=2)
    bystander = engine.connect()
    bystander.scalar(ONE)
    with (
        poolproof.deadline(1),
        engine.connect() as connection,
        pytest.raises(exc.DBAPIError),
    ):
        connection.execute(SLEEP)
    assert bystander.scalar(ONE) == 1
    bystander.close()
    assert engine.pool.stats().discarded == {"deadline_timeout": 1}


@pytest.mark.quick("psycopg2")
def test_inner_block_ends_earlier_and_gives_the_connection_back_to_the_outer(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver))
    with engine.connect() as connection, poolproof.deadline(30):
        with poolproof.deadline(1):
            connection.scalar(ONE)
        connection.execute(text("select pg_sleep(1.2)"))
        with poolproof.deadline(0.2), pytest.raises(exc.DBAPIError):
            connection.execute(SLEEP)


def test_outer_block_counts_in_the_inner(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    with (
        engine.connect() as connection,
        Stopwatch() as watch,
        pytest.raises(exc.DBAPIError),
        poolproof.deadline(0.3),
        poolproof.deadline(30),
    ):
        connection.execute(SLEEP)
    assert watch.seconds < SOON


def test_block_that_is_over_lends_nothing_more(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    with poolproof.deadline(0.05) as block:
        time.sleep(0.1)
        assert block.left == 0
        with pytest.raises(poolproof.PoolTimeout) as caught:
            engine.connect()
    assert isinstance(caught.value.__cause__, poolproof.DeadlineExceeded)
    assert engine.pool.checkedout() == 0


def test_session_is_bounded_and_goes_on_after_a_rollback(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    with Session(engine) as session:
        with poolproof.deadline(0.3), pytest.raises(exc.DBAPIError):
            session.execute(SLEEP)
        session.rollback()
        assert session.scalar(ONE) == 1


def test_thread_that_the_block_starts_is_not_bound(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"), pool_size=2)

    def work():
        assert deadlines.current() is None
        with engine.connect() as connection:
            connection.execute(text("select pg_sleep(0.4)"))

    with poolproof.deadline(0.2):
        Task(work).result()
    assert engine.pool.stats().discarded == {}


def test_copied_context_is_bound_while_the_block_is_open(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))

    def work():
        with engine.connect() as connection, pytest.raises(exc.DBAPIError):
            connection.execute(SLEEP)

    with poolproof.deadline(1):
        Task(contextvars.copy_context().run, work).result()


def test_child_is_bound_by_the_block_it_was_forked_in(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    engine.connect().close()

    def child():
        with (
            Stopwatch() as watch,
            engine.connect() as own,
            pytest.raises(exc.DBAPIError),
        ):
            own.execute(SLEEP)
        return watch.seconds < 10

    with poolproof.deadline(1.5):
        report = run_in_fork(child)
    assert report.result is True, report.error
    assert engine.pool.stats().discarded == {}


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_length_that_is_not_above_zero_is_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        poolproof.deadline(wrong)


@pytest.mark.parametrize("wrong", ["1", None, True])
def test_length_that_is_no_number_is_refused(wrong):
    with pytest.raises(TypeError, match="number"):
        poolproof.deadline(wrong)


def test_block_cannot_be_entered_twice():
    block = poolproof.deadline(1)
    with block, pytest.raises(RuntimeError, match="make a new one"):
        block.__enter__()
    assert deadlines.current() is None


def test_endless_block_bounds_nothing(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    with poolproof.deadline(math.inf), engine.connect() as connection:
        assert connection.scalar(ONE) == 1


@pytest.mark.quick("psycopg2")
def test_connection_from_an_inner_block_goes_back_to_the_outer(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver))
    engine.connect().close()
    with Stopwatch() as watch, poolproof.deadline(1.2):
        with poolproof.deadline(1):
            raw = engine.raw_connection()
        with pytest.raises(Exception):  # noqa: B017, PT011 - the driver's own
            raw.cursor().execute("select pg_sleep(20)")
    assert watch.seconds < SOON
    raw.close()


@pytest.mark.quick("psycopg2")
def test_block_that_is_left_in_another_context_leaves_its_connections_alone(
    make_engine, pg_url, driver
):
    """As frameworks do that run both halves of a generator in a pool of threads."""
    engine = make_engine(pg_url(driver))
    block = poolproof.deadline(1)
    with engine.connect() as connection:

        def begin():
            block.__enter__()
            connection.scalar(ONE)

        contextvars.copy_context().run(begin)
        with pytest.raises(ValueError, match="different Context"):
            block.__exit__(None, None, None)
        time.sleep(1.2)
        assert connection.scalar(ONE) == 1
    assert engine.pool.stats().discarded == {}


@pytest.mark.parametrize("detached_by", ["deadline", "hold"])
@pytest.mark.quick("psycopg2")
def test_detached_connection_is_left_alone(make_engine, pg_url, driver, detached_by):
    hold = 1 if detached_by == "hold" else None
    engine = make_engine(pg_url(driver), hold_timeout=hold)
    engine.connect().close()
    with poolproof.deadline(1 if hold is None else 20):
        connection = engine.connect()
        connection.detach()
        time.sleep(1.2)
    assert connection.scalar(ONE) == 1
    connection.close()


@pytest.mark.parametrize("first_use", ["options", "two_phase", "recover"])
@pytest.mark.quick("psycopg2")
def test_first_use_may_be_any_that_sqlalchemy_makes(proxied, link, proxy, first_use):
    engine = proxied()
    connection = engine.connect()
    link().stall()
    rescue = threading.Timer(SOON + 5, proxy.resume)
    rescue.start()
    with (
        Stopwatch() as watch,
        poolproof.deadline(0.4),
        contextlib.suppress(Exception),
    ):
        if first_use == "options":
            connection.execution_options(isolation_level="SERIALIZABLE").scalar(ONE)
        elif first_use == "two_phase":
            connection.begin_twophase()
            connection.scalar(ONE)
        else:
            connection.recover_twophase()
    assert watch.seconds < SOON
    rescue.cancel()
    connection.close()


def test_many_uses_of_one_connection_are_remembered_once(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    with poolproof.deadline(60) as block:
        for _ in range(50):
            engine.connect().close()
        assert len(block._covered) == 1


def test_number_beyond_all_clocks_is_no_bound(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    with poolproof.deadline(10**400), engine.connect() as connection:
        assert connection.scalar(ONE) == 1


def test_a_block_may_end_while_a_thread_with_its_context_begins_to_use_one(
    make_engine, pg_url
):
    """As `asyncio.to_thread` makes them; without the interpreter's lock at any step."""
    engine = make_engine(pg_url("psycopg2"), pool_size=4)
    is_adding, may_add, has_added = (threading.Event() for _ in range(3))

    def at_the_store(frame, what, _value):
        """Stop where the dictionary is in hand and has not been changed."""
        frame.f_trace_opcodes = True
        name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if what == "opcode" and name == "STORE_SUBSCR":
            is_adding.set()
            may_add.wait(60)
        return at_the_store

    def use_late():
        def trace(frame, _what, _value):
            code = poolproof.deadline.cover.__code__
            return at_the_store if frame.f_code is code else None

        sys.settrace(trace)
        try:
            connection = engine.connect()
        finally:
            sys.settrace(None)
            has_added.set()
        entry = connection.connection._connection_record
        assert connection.scalar(ONE) == 1
        connection.close()
        return entry

    def let_it_add(frame, what, _value):
        """In the middle of what the end of the block goes through."""
        if what == "line" and "entry" in frame.f_locals:
            may_add.set()
            has_added.wait(60)
        return let_it_add

    def trace_end(frame, _what, _value):
        code = poolproof.deadline.__exit__.__code__
        return let_it_add if frame.f_code is code else None

    block = poolproof.deadline(60)
    with contextlib.ExitStack() as opened:
        opened.callback(has_added.set)
        opened.callback(may_add.set)
        with block:
            for _ in range(2):
                opened.enter_context(engine.connect())
            late = Task(contextvars.copy_context().run, use_late)
            assert is_adding.wait(60)
            before = sys.gettrace()
            sys.settrace(trace_end)
        sys.settrace(before)
        # It is bound by the block that it began in, and for as long as it is used.
        assert late.result(60).block is None
    with engine.connect() as connection:
        assert connection.scalar(ONE) == 1
