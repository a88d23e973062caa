"""What is repeated, what is not, and what the caller gets to know."""

from __future__ import annotations

import pickle
import threading

import pytest
from sqlalchemy import create_engine, event, exc, text

import poolproof
from poolproof import Fault

QUICK = poolproof.Backoff(first=0.001, most=0.01)
BACKEND = text("select pg_backend_pid()")


class Broken:
    """A unit of work that fails a few times before it succeeds."""

    def __init__(self, fail, times=1) -> None:
        self.fail = fail
        self.times = times
        self.calls = 0
        self.pids = []

    def __call__(self, connection):
        self.calls += 1
        self.pids.append(connection.scalar(BACKEND))
        if self.calls <= self.times:
            self.fail(connection)
        return self.calls


def raising(sqlstate):
    """Have the server raise an error."""
    statement = f"do $$ begin raise sqlstate '{sqlstate}'; end $$"
    return lambda connection: connection.execute(text(statement))


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_what_the_server_rolled_back_is_repeated(engine, sqlstate, attempted):
    unit = Broken(raising(sqlstate), times=2)
    assert poolproof.run_transaction(engine, unit, backoff=QUICK) == 3
    fault = {"40001": Fault.SERIALIZATION, "40P01": Fault.DEADLOCK}[sqlstate]
    assert [one.verdict and one.verdict.fault for one in attempted] == [fault] * 2 + [
        None
    ]
    assert [one.attempt for one in attempted] == [1, 2, 3]
    assert attempted[-1].error is None
    assert attempted[0].sleep is not None
    assert attempted[-1].sleep is None
    assert attempted[0].elapsed <= attempted[-1].elapsed


def test_real_serialization_failure_is_repeated(make_engine, pg_url, table, observer):
    engine = make_engine(pg_url("psycopg2"), pool_size=2)
    observer.rows(f"insert into {table} values (0)")
    read = text(f"select n from {table}")
    write = text(f"update {table} set n = :n")
    seen = []

    def unit(connection):
        seen.append(connection.scalar(read))
        if len(seen) == 1:
            with engine.begin() as other:
                other.execute(write, {"n": 5})
        connection.execute(write, {"n": seen[-1] + 1})

    poolproof.run_transaction(
        engine, unit, isolation_level="REPEATABLE READ", backoff=QUICK
    )
    assert seen == [0, 5]
    assert observer.value(f"select n from {table}") == 6
    with engine.connect() as connection:  # the level was for that transaction
        level = connection.scalar(text("show transaction_isolation"))
    assert level == "read committed"


def test_lost_connection_is_replaced_and_the_unit_repeated(engine, observer):
    unit = Broken(
        lambda connection: observer.terminate(unit.pids[-1]) or ask(connection)
    )

    def ask(connection):
        connection.execute(text("/* tag */ with a as (select 1) select * from a"))

    assert poolproof.run_transaction(engine, unit, backoff=QUICK) == 2
    assert unit.pids[0] != unit.pids[1]


def test_unit_that_goes_on_with_a_broken_connection_is_repeated(engine, observer):
    """It meets a PendingRollbackError, or nothing at all until the commit."""

    def swallow(connection):
        observer.terminate(unit.pids[-1])
        with pytest.raises(exc.DBAPIError):
            connection.execute(text("select 1"))
        if unit.calls == 1:
            connection.execute(text("select 1"))

    unit = Broken(swallow, times=2)
    assert poolproof.run_transaction(engine, unit, backoff=QUICK) == 3


def write_in_a_read_only_transaction(connection):
    connection.execute(text("set transaction read only"))
    connection.execute(text("create table never (n integer)"))


@pytest.mark.parametrize("sqlstate", ["23505", "57014", "55P03", "25006"])
def test_other_errors_of_the_server_are_not_repeated(engine, sqlstate):
    unit = Broken(raising(sqlstate))
    if sqlstate == "25006":  # as the application itself has chosen
        unit.fail = write_in_a_read_only_transaction
    with pytest.raises(exc.DBAPIError) as caught:
        poolproof.run_transaction(engine, unit, backoff=QUICK)
    assert unit.calls == 1
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize(
    ("sqlstate", "also"), [("55P03", Fault.LOCK_TIMEOUT), ("57014", Fault.CANCELLED)]
)
def test_lock_timeout_and_cancellation_are_repeated_when_asked(engine, sqlstate, also):
    unit = Broken(raising(sqlstate))
    assert poolproof.run_transaction(engine, unit, backoff=QUICK, also=also) == 2


def test_own_errors_roll_back_and_are_not_repeated(engine, table, observer, attempted):
    def unit(connection):
        connection.execute(text(f"insert into {table} values (1)"))
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        poolproof.run_transaction(engine, unit)
    assert observer.value(f"select count(*) from {table}") == 0
    assert engine.pool.checkedout() == 0
    assert attempted[0].verdict.outcome == "not_done"


def test_interruption_ends_it(engine):
    unit = Broken(lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        poolproof.run_transaction(engine, unit)
    assert unit.calls == 1
    assert engine.pool.checkedout() == 0


def test_last_error_tells_of_the_ones_before(engine):
    unit = Broken(raising("40001"), times=9)
    with pytest.raises(exc.DBAPIError) as caught:
        poolproof.run_transaction(engine, unit, attempts=3, backoff=QUICK)
    assert unit.calls == 3
    notes = caught.value.__notes__
    assert [note.split(" failed")[0] for note in notes] == [
        "attempt 1 of 3 at Broken",
        "attempt 2 of 3 at Broken",
    ]
    assert all("40001" in note or "OperationalError" in note for note in notes)
    assert all("\n" not in note for note in notes)


def test_deadline_ends_the_attempts_and_a_call_that_is_under_way(engine):
    unit = Broken(lambda connection: connection.execute(text("select pg_sleep(20)")))
    with pytest.raises(exc.DBAPIError) as caught:
        poolproof.run_transaction(engine, unit, deadline=0.5)
    assert unit.calls == 1
    assert isinstance(caught.value.orig.__cause__, poolproof.DeadlineExceeded)


def test_no_pause_goes_beyond_the_deadline(engine):
    unit = Broken(raising("40001"), times=9)
    with pytest.raises(exc.DBAPIError):
        poolproof.run_transaction(engine, unit, deadline=30, backoff=lambda _: 31.0)
    assert unit.calls == 1


def test_server_that_is_away_is_tried_again(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver).set(port=1))
    with pytest.raises(exc.DBAPIError) as caught:
        poolproof.run_transaction(engine, lambda _: None, attempts=3, backoff=QUICK)
    assert len(caught.value.__notes__) == 2


def test_deferred_constraint_at_the_commit_is_no_unknown_outcome(
    engine, table, observer
):
    observer.rows(f"alter table {table} add unique (n) deferrable initially deferred")
    insert = text(f"insert into {table} values (1), (1)")
    with pytest.raises(exc.DatabaseError, match="duplicate"):
        poolproof.run_transaction(engine, lambda c: c.execute(insert) and None)


def test_listener_that_fails_before_the_commit_is_no_unknown_outcome(engine):
    event.listen(engine, "commit", lambda _: {}["gone"])
    with pytest.raises(KeyError):
        poolproof.run_transaction(engine, lambda c: c.scalar(BACKEND) and None)


def test_unknown_outcome_names_the_way_to_find_out(proxied, link, table):
    engine = proxied()

    def cut(_):
        link().cut()

    event.listen(engine, "commit", cut)
    insert = text(f"insert into {table} values (1)")
    with pytest.raises(poolproof.CommitOutcomeUnknown, match="verify_commit") as caught:
        poolproof.run_transaction(engine, lambda c: c.execute(insert) and None)
    error = caught.value
    assert isinstance(error.__cause__, exc.DBAPIError)
    assert not isinstance(error, exc.OperationalError)
    assert poolproof.classify(error).retry == "never"
    again = pickle.loads(pickle.dumps(error))
    assert (again.unit, again.xid, str(again)) == (error.unit, None, str(error))


def test_read_only_unit_whose_commit_was_lost_is_repeated(proxied, link):
    engine = proxied()
    cut = []

    def once(_):
        if not cut:
            cut.append(link().cut())

    event.listen(engine, "commit", once)
    unit = Broken(lambda _: None)
    assert poolproof.run_transaction(engine, unit, verify_commit=True) == 2


def test_transaction_that_stays_in_progress_is_ended(proxied, link, table, observer):
    """Its session does not see that the client is gone: it waits for a lock."""
    engine = proxied(pool_size=2)
    observer.rows(
        f"create function wait_{table}() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(30); return null; end $$"
    )
    observer.rows(
        f"create constraint trigger slow after insert on {table} deferrable initially "
        f"deferred for each row when (new.n = 1) execute function wait_{table}()"
    )
    calls = []

    def unit(connection):
        calls.append(1)
        # The first one's trigger sleeps within the commit.
        connection.execute(text(f"insert into {table} values ({len(calls)})"))

    def cut_once(_):
        if len(calls) == 1:
            link().stall_answers(b"COMMIT")
            threading.Timer(0.2, link().cut).start()

    event.listen(engine, "commit", cut_once)
    poolproof.run_transaction(engine, unit, verify_commit=True, deadline=20)
    assert observer.rows(f"select n from {table}") == [(2,)]
    observer.rows(f"drop table {table}; drop function wait_{table}()")


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_unit_that_ends_its_transaction_itself_is_refused(engine, table, how):
    insert = text(f"insert into {table} values (1)")

    def unit(connection):
        connection.execute(insert)
        getattr(connection, how)()

    with pytest.raises(exc.InvalidRequestError, match="leave commit and rollback"):
        poolproof.run_transaction(engine, unit)
    assert engine.pool.checkedout() == 0


def test_unit_that_commits_itself_and_fails_then_is_not_repeated(engine, observer):
    def unit(connection):
        calls.append(connection.scalar(BACKEND))
        connection.commit()
        connection.execute(text("select 1"))
        observer.terminate(calls[-1])
        connection.execute(text("select 1"))

    calls = []
    with pytest.raises(exc.DBAPIError):
        poolproof.run_transaction(engine, unit, backoff=QUICK)
    assert len(calls) == 1


def test_statement_that_commits_is_not_repeated(make_engine, pg_url, observer):
    engine = make_engine(pg_url("psycopg2"))

    def kill(connection):
        observer.terminate(unit.pids[-1])
        connection.execute(text("select 1; commit; select 2"))

    unit = Broken(kill)
    with pytest.raises(exc.DBAPIError):
        poolproof.run_transaction(engine, unit, backoff=QUICK)
    assert unit.calls == 1


def test_units_are_not_nested(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"), pool_size=2)

    def outer(_):
        poolproof.run_transaction(engine, lambda _: None)

    with pytest.raises(exc.InvalidRequestError, match=r"inside .*outer"):
        poolproof.run_transaction(engine, outer)
    poolproof.run_transaction(engine, lambda _: None)


async def coroutine(_):
    """Do nothing, later."""


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"attempts": 0}, ValueError, "between 1 and 1000, not 0"),
        ({"attempts": True}, TypeError, "whole number"),
        ({"deadline": 0}, ValueError, "above 0"),
        ({"deadline": "1"}, TypeError, "seconds"),
        ({"backoff": 3}, TypeError, "backoff"),
        ({"isolation_level": "AUTOCOMMIT"}, ValueError, "AUTOCOMMIT"),
        ({"isolation_level": 3}, TypeError, "isolation_level"),
        ({"also": "deadlock"}, TypeError, "also"),
        ({"also": ValueError}, TypeError, "also is a Fault or several, not <class"),
        ({"also": None}, TypeError, "also is a Fault or several, not None"),
        ({"verify_commit": "yes"}, TypeError, "verify_commit is True or False"),
        ({"idempotent": 1}, TypeError, "idempotent is True or False"),
        ({"fn": coroutine}, TypeError, "run_transaction_async"),
        ({"fn": 5}, TypeError, "function"),
        ({"bind": "postgresql://app:secret@db/app"}, TypeError, "an Engine"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, kind, words):
    bind = options.pop("bind", None) or create_engine("sqlite://")
    fn = options.pop("fn", lambda _: pytest.fail("it ran"))
    with pytest.raises(kind, match=words) as caught:
        poolproof.run_transaction(bind, fn, **options)
    assert "secret" not in str(caught.value)


def test_connection_is_refused_as_a_bind(engine):
    with (
        engine.connect() as connection,
        pytest.raises(TypeError, match="a checkout of its own"),
    ):
        poolproof.run_transaction(connection, lambda _: None)


def test_function_that_returns_a_coroutine_is_refused(engine):
    with pytest.raises(TypeError, match="run_transaction_async"):
        poolproof.run_transaction(engine, lambda connection: coroutine(connection))


def test_failing_listener_is_logged_and_nothing_else(engine, caplog):
    stop = poolproof.on_attempt(lambda _: {}["gone"])
    assert poolproof.run_transaction(engine, lambda _: 3) == 3
    stop()
    assert "a listener of poolproof.on_attempt failed" in caplog.text


def test_log_has_no_text_of_the_drivers(engine, caplog):
    caplog.set_level("INFO", "poolproof.retry")
    unit = Broken(
        lambda c: c.execute(
            text("do $$ begin raise 'secret' using errcode = '40001'; end $$")
        )
    )
    poolproof.run_transaction(engine, unit, backoff=QUICK)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "poolproof.retry"]
    assert line.startswith("poolproof: Attempt 1 of 4 at Broken failed after")
    assert "serialization" in line
    assert "secret" not in line
