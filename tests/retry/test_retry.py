"""Functions and blocks that their caller declares repeatable."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from sqlalchemy import create_engine, exc, text

import poolproof
from poolproof import Fault

QUICK = poolproof.Backoff(first=0.001, most=0.01)
FAIL = text("do $$ begin raise sqlstate '40001'; end $$")


def failing(times, error=ConnectionResetError):
    """Make a function that fails so often, and counts."""

    def function(*args, **kwargs):
        """Say how often it was called."""
        function.calls += 1
        if function.calls <= times:
            raise error(f"failure {function.calls}")
        return function.calls, args, kwargs

    function.calls = 0
    return function


def test_function_is_repeated_with_its_arguments():
    function = failing(2)
    decorated = poolproof.retry(on=ConnectionError, backoff=QUICK)(function)
    assert decorated(1, two=2) == (3, (1,), {"two": 2})
    assert decorated.__doc__ == function.__doc__
    assert decorated.__name__ == "function"


def test_each_call_counts_anew():
    function = failing(2)
    decorated = poolproof.retry(on=OSError, attempts=3, backoff=QUICK)(function)
    decorated()
    function.calls = 0
    assert decorated()[0] == 3


def test_threads_do_not_share_attempts():
    decorated = poolproof.retry(on=OSError, attempts=2, backoff=QUICK)
    results = []

    def one():
        results.append(decorated(failing(1))()[0])

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [2] * 8


def test_coroutine_is_repeated_without_blocking():
    function = failing(2)

    @poolproof.retry(on=OSError, backoff=QUICK)
    async def later(n):
        return function(n)

    assert asyncio.run(later(5)) == (3, (5,), {})


def test_faults_are_recognised_in_sqlalchemys_errors(engine):
    calls = []

    @poolproof.retry(on=[Fault.SERIALIZATION, Fault.DEADLOCK], backoff=QUICK)
    def unit():
        calls.append(1)
        with engine.begin() as connection:
            if len(calls) < 3:
                connection.execute(FAIL)
        return len(calls)

    assert unit() == 3


def test_drivers_own_class_is_recognised(make_engine, pg_url):
    import psycopg2.errors

    engine = make_engine(pg_url("psycopg2"))
    calls = []

    @poolproof.retry(on=psycopg2.errors.SerializationFailure, backoff=QUICK)
    def unit():
        calls.append(1)
        with engine.begin() as connection:
            if len(calls) < 2:
                connection.execute(FAIL)

    unit()
    assert len(calls) == 2


def test_other_errors_pass_at_once():
    function = failing(1, LookupError)
    with pytest.raises(LookupError):
        poolproof.retry(on=ConnectionError)(function)()
    assert function.calls == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interruptions_are_never_repeated(error):
    function = failing(1, error)
    with pytest.raises(error):
        poolproof.retry(on=BaseException, idempotent=True)(function)()
    assert function.calls == 1


def test_last_error_tells_of_the_ones_before(attempted):
    function = failing(9)
    with pytest.raises(ConnectionResetError, match="failure 3") as caught:
        poolproof.retry(on=OSError, attempts=3, backoff=QUICK)(function)()
    assert [note.partition(" failed")[0] for note in caught.value.__notes__] == [
        "attempt 1 of 3 at failing.<locals>.function",
        "attempt 2 of 3 at failing.<locals>.function",
    ]
    assert caught.value.__notes__[0].endswith("ConnectionResetError: failure 1")
    assert [one.attempt for one in attempted] == [1, 2, 3]
    assert [one.sleep is None for one in attempted] == [False, False, True]


def test_deadline_ends_the_attempts():
    function = failing(99)
    decorated = poolproof.retry(
        on=OSError, attempts=99, deadline=0.2, backoff=lambda _: 0.05
    )
    with pytest.raises(ConnectionResetError):
        decorated(function)()
    assert 1 < function.calls <= 5


def test_deadline_bounds_a_call_to_the_database(engine):
    @poolproof.retry(on=Fault.CONNECTION_LOST, deadline=0.5)
    def unit():
        with engine.connect() as connection:
            connection.execute(text("select pg_sleep(20)"))

    with pytest.raises(exc.DBAPIError) as caught:
        unit()
    assert isinstance(caught.value.orig.__cause__, poolproof.DeadlineExceeded)


def test_block_is_repeated():
    seen = []
    for attempt in poolproof.attempts(on=OSError, backoff=QUICK, unit="the block"):
        with attempt:
            seen.append(attempt.number)
            if len(seen) < 3:
                raise OSError
    assert seen == [1, 2, 3]


def test_block_that_fails_for_good_raises(attempted):
    with pytest.raises(OSError, match="2") as caught:  # noqa: PT012
        for attempt in poolproof.attempts(
            on=OSError, attempts=2, backoff=QUICK, unit="the block"
        ):
            with attempt:
                raise OSError(str(attempt.number))
    assert "the block" in caught.value.__notes__[0]
    assert {one.unit for one in attempted} == {"the block"}


def test_block_that_is_left_early_is_not_repeated():
    seen = []
    for attempt in poolproof.attempts(on=OSError):
        with attempt:
            seen.append(1)
            break
    assert seen == [1]


@pytest.mark.parametrize("form", ["with", "async with"])
def test_block_of_a_coroutine_is_repeated(form):
    async def story():
        seen = []

        def work():
            seen.append(1)
            if len(seen) < 3:
                raise OSError

        async for attempt in poolproof.attempts(on=OSError, backoff=QUICK):
            if form == "with":
                with attempt:
                    work()
            else:
                async with attempt:
                    work()
        return seen

    assert len(asyncio.run(story())) == 3


def test_log_names_no_outcome_where_the_caller_decides(caplog):
    caplog.set_level("INFO", logger="poolproof.retry")

    def unit(connection=None):
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        poolproof.retry(on=OSError, attempts=2, backoff=QUICK)(unit)()
    engine = create_engine("sqlite://")
    with pytest.raises(ConnectionResetError):
        poolproof.run_transaction(engine, unit)
    engine.dispose()
    chosen, last, judged = (record.getMessage() for record in caplog.records)
    assert re.search(r", on= decides\); repeated in \d", chosen)
    assert last.endswith(", on= decides); not repeated")
    assert judged.endswith(", outcome not_done); not repeated")
    assert ", outcome" not in chosen + last


def test_pauses_have_full_jitter_below_a_bound_that_doubles():
    backoff = poolproof.Backoff(first=1, most=3)
    for failures, bound in ((1, 1), (2, 2), (3, 3), (4000, 3)):
        pauses = [backoff(failures) for _ in range(400)]
        assert 0 <= min(pauses) < 0.2 * bound
        assert 0.8 * bound < max(pauses) <= bound


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, TypeError, "on"),
        ({"on": Exception}, ValueError, "idempotent=True"),
        ({"on": (OSError, BaseException)}, ValueError, "idempotent=True"),
        ({"on": ()}, TypeError, "on names"),
        ({"on": "deadlock"}, TypeError, "on names"),
        ({"on": OSError()}, TypeError, "on names"),
        ({"on": int}, TypeError, "on names"),
        ({"on": OSError, "attempts": 0}, ValueError, "attempts"),
        ({"on": OSError, "attempts": 1.5}, TypeError, "attempts"),
        ({"on": OSError, "deadline": -1}, ValueError, "deadline"),
        ({"on": OSError, "backoff": None}, TypeError, "backoff"),
    ],
)
@pytest.mark.parametrize("form", [poolproof.retry, poolproof.attempts])
def test_bad_input_is_refused_at_once(form, options, kind, words):
    with pytest.raises(kind, match=words):
        form(**options)


@pytest.mark.parametrize(("first", "most"), [(-1, 1), (2, 1), (float("nan"), 1)])
def test_bad_backoff_is_refused(first, most):
    with pytest.raises(ValueError, match="backoff"):
        poolproof.Backoff(first=first, most=most)


def test_generator_is_refused():
    with pytest.raises(TypeError, match="generator"):

        @poolproof.retry(on=OSError)
        def generating():
            yield 1


def test_listener_must_be_a_function():
    with pytest.raises(TypeError, match="on_attempt"):
        poolproof.on_attempt(None)


def test_interruption_is_no_fault_to_repeat():
    with pytest.raises(ValueError, match="INTERRUPTED"):
        poolproof.retry(on=tuple(Fault), idempotent=True)


def test_every_ordinary_error_wants_a_promise():
    with pytest.raises(ValueError, match=r"Fault\.NONE .*idempotent"):
        poolproof.retry(on=Fault.NONE)
    poolproof.retry(on=Fault.NONE, idempotent=True)


def test_attempts_are_for_one_loop():
    attempts = poolproof.attempts(on=ConnectionError)
    for attempt in attempts:
        with attempt:
            pass
    with pytest.raises(RuntimeError, match="used before"):
        next(iter(attempts))


def test_loop_without_its_attempt_is_told():
    """It would go round for ever."""
    turns = iter(poolproof.attempts(on=ConnectionError))
    next(turns)
    with pytest.raises(RuntimeError, match="with attempt"):
        next(turns)


def test_object_with_a_coroutine_is_repeated():
    class Unit:
        calls = 0

        async def __call__(self):
            self.calls += 1
            if self.calls == 1:
                raise ConnectionError
            return self.calls

    retrying = poolproof.retry(on=ConnectionError, backoff=QUICK)
    assert asyncio.run(retrying(Unit())()) == 2
