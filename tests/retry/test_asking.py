"""Each step of asking what became of a commit is broken once, and never seen bare."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker

import poolproof
from plugins.steps import Steps
from poolproof.retry import commit_status

QUICK = poolproof.Backoff(first=0.001, most=0.01)
MOST = 80  # more steps than asking takes


@pytest.fixture
def steps(pg):
    with Steps((pg.host, pg.port)) as proxy:
        yield proxy


class Trials:
    """One unit after another, each with its own row; what they came to is compared."""

    def __init__(self, table, observer) -> None:
        self.insert = text(f"insert into {table} values (:n)")
        self.table = table
        self.observer = observer
        self.done = 0

    def check(self, outcomes):
        """See that each row is there once, and that asking was broken at each step."""
        rows = self.observer.rows(f"select n, count(*) from {self.table} group by n")
        assert rows
        assert all(count == 1 for _, count in rows)
        found = {n for n, _ in rows}
        for number, outcome in enumerate(outcomes):
            assert outcome == "done", f"step {number}: {outcome}"
            assert number in found
        assert 5 < len(outcomes) < MOST


@pytest.fixture
def trials(table, observer):
    return Trials(table, observer)


def outcome_of(call):
    """Say what a caller sees; every bare error is a fault."""
    try:
        call()
    except poolproof.CommitOutcomeUnknown:
        return "unknown"
    except Exception as error:
        return f"bare {error!r}"
    return "done"


@pytest.mark.parametrize("how", ["reset", "end"])
def test_each_step_of_asking_may_break(steps, make_engine, pg_url, driver, trials, how):
    engine = make_engine(pg_url(driver).set(port=steps.port))
    engine.connect().close()
    outcomes = []
    event.listen(engine, "commit", lambda _: steps.lose_commit(len(outcomes), how))
    for number in range(MOST):
        outcome = outcome_of(
            lambda number=number: poolproof.run_transaction(
                engine,
                lambda connection: (
                    connection.execute(trials.insert, {"n": number}) and None
                ),
                verify_commit=True,
                backoff=QUICK,
            )
        )
        if not steps.has_broken and outcome == "done":
            break
        outcomes.append(outcome)
    trials.check(outcomes)
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("how", ["reset", "end"])
def test_each_step_of_asking_may_break_async(pg_url, driver, steps, trials, how):
    outcomes = []

    async def story():
        url = pg_url(driver).set(port=steps.port, query={})
        engine = create_async_engine(url, pool_size=1)
        async with engine.connect():
            pass
        event.listen(
            engine.sync_engine,
            "commit",
            lambda _: steps.lose_commit(len(outcomes), how),
        )
        try:
            for number in range(MOST):
                outcome = await outcome_async(engine, number)
                if not steps.has_broken and outcome == "done":
                    break
                outcomes.append(outcome)
        finally:
            await engine.dispose()

    async def outcome_async(engine, number):
        async def unit(connection):
            await connection.execute(trials.insert, {"n": number})

        try:
            await poolproof.run_transaction_async(
                engine, unit, verify_commit=True, backoff=QUICK
            )
        except poolproof.CommitOutcomeUnknown:
            return "unknown"
        except Exception as error:
            return f"bare {error!r}"
        return "done"

    asyncio.run(story())
    trials.check(outcomes)


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("made", ["engine", "sessionmaker"])
def test_each_step_after_the_commit_may_break(
    steps, make_engine, pg_url, driver, trials, how, made
):
    """The connection of the unit itself goes back with its isolation level undone."""
    engine = make_engine(pg_url(driver).set(port=steps.port))
    engine.connect().close()
    bind = engine if made == "engine" else sessionmaker(engine)
    do_commit = None
    outcomes = []

    def committed(connection):
        do_commit(connection)
        steps.break_at(len(outcomes), how)

    engine.connect().close()
    do_commit, engine.dialect.do_commit = engine.dialect.do_commit, committed
    for number in range(MOST):
        outcome = outcome_of(
            lambda number=number: poolproof.run_transaction(
                bind,
                lambda given: given.execute(trials.insert, {"n": number}) and None,
                isolation_level="SERIALIZABLE",
                backoff=QUICK,
            )
        )
        if not steps.has_broken:
            assert outcome == "done"
            break
        outcomes.append(outcome)
    assert set(outcomes) <= {"done"}
    if driver == "pg8000":  # the others undo it without a word to the server
        assert len(outcomes) > 1


@pytest.mark.parametrize("step", [0, 1], ids=["sending", "answer"])
@pytest.mark.parametrize("how", ["reset", "end"])
def test_insert_that_is_cut_is_known_not_to_be_done(
    steps, make_engine, pg_url, driver, trials, how, step, attempted
):
    engine = make_engine(pg_url(driver).set(port=steps.port))
    engine.connect().close()
    numbers = []

    def unit(connection):
        numbers.append(len(numbers))
        connection.execute(text("select 1"))
        if len(numbers) == 1:
            steps.break_at(step, how)
        connection.execute(trials.insert, {"n": numbers[-1]})

    poolproof.run_transaction(engine, unit, backoff=QUICK)
    assert steps.has_broken
    assert numbers == [0, 1]
    assert attempted[0].verdict.outcome == "not_done"
    assert trials.observer.rows(f"select n from {trials.table}") == [(1,)]
    attempted.clear()


def test_limit_of_the_caller_ends_the_asking_as_unknown(
    steps, make_engine, pg_url, driver, trials, monkeypatch
):
    """Whoever repeats after the limit's own class must not repeat what may be done."""

    class Limit(Exception):  # noqa: N818 - as task queues call it
        pass

    def strike(*_):
        raise Limit

    engine = make_engine(pg_url(driver).set(port=steps.port))
    engine.connect().close()
    event.listen(engine, "commit", lambda _: steps.lose_commit(99, "end"))
    monkeypatch.setattr(commit_status, "_status", strike)
    with pytest.raises(poolproof.CommitOutcomeUnknown) as caught:
        poolproof.run_transaction(
            engine,
            lambda connection: connection.execute(trials.insert, {"n": 1}) and None,
            verify_commit=True,
        )
    assert caught.value.__notes__ == ["the asking was ended by Limit"]
    assert caught.value.__cause__ is not None
    assert engine.pool.checkedout() == 0
