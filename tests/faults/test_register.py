"""Rows of one's own, and listeners that decide."""

from __future__ import annotations

import dataclasses
import os
import threading

import psycopg2
import pytest
import sqlalchemy as sa

import poolproof
from plugins.harm import driver_connections, first_error
from poolproof import Fault, Verdict, classify
from poolproof._checks import a_kind
from poolproof.faults.error_info import read
from poolproof.faults.events import report
from poolproof.faults.table import appraise, judge, register

SELECT = sa.text("select 42")


@pytest.fixture
def add():
    """Register rows for one test."""
    removers = []

    def adding(*args, **kwargs):
        remove = register(*args, **kwargs)
        removers.append(remove)
        return remove

    yield adding
    for remove in removers:
        remove()


@pytest.fixture
def decide():
    """Subscribe listeners for one test."""
    removers = []
    yield lambda callback: removers.append(poolproof.on_fault(callback))
    for remove in removers:
        remove()


def raising(code, text="mine"):
    return sa.text(
        f"do $$ begin raise exception '{text}' using errcode = '{code}'; end $$"
    )


def error_of(engine, statement):
    with engine.connect() as connection:
        return first_error(lambda: connection.execute(statement))


# --- rows -----------------------------------------------------------------------------


def test_a_row_of_ones_own_decides_before_the_built_in_ones(
    make_engine, driver, add, events
):
    engine = make_engine(driver, pool_size=1, poolclass=poolproof.Pool)
    (before,) = driver_connections(engine, 1)
    remove = add(Fault.CORRUPTION, sqlstate="57014", cause="no cancel is harmless here")
    with engine.connect() as connection:
        connection.execute(sa.text("set local statement_timeout = 20"))
        error = first_error(lambda: connection.execute(sa.text("select pg_sleep(5)")))
    (event,) = events
    assert (event.fault, event.verdict.cost) == (Fault.CORRUPTION, "connection")
    assert event.verdict.cause == classify(error).cause == "no cancel is harmless here"
    assert driver_connections(engine, 1) != [before]
    remove()
    remove()
    assert classify(error).fault is Fault.CANCELLED


@pytest.mark.parametrize(
    ("code", "conditions", "holds"),
    [
        ("P0042", {"sqlstate": "P0042"}, True),
        ("P0042", {"sqlstate": "P0"}, True),
        ("P0042", {"sqlstate": "P0043"}, False),
        ("P0042", {"sqlstate": "P0042", "message": "mine"}, True),
        ("P0042", {"sqlstate": "P0042", "message": "yours"}, False),
        ("P0042", {"message": "mine"}, False),  # the application's own words
        ("P0042", {"exception": "sqlalchemy.exc.DBAPIError"}, False),
        ("P0042", {"sqlstate": "P0", "driver": "psycopg2cffi"}, True),
        ("P0042", {"sqlstate": "P0", "driver": "psycopg"}, False),
        ("P0042", {"exception": psycopg2.Error}, True),
        ("P0042", {"exception": "psycopg2.Error", "message": "mine"}, False),
    ],
)
def test_all_conditions_of_a_row_must_hold(make_engine, add, code, conditions, holds):
    error = error_of(make_engine("psycopg2"), raising(code))
    add(Fault.POOLER, **conditions)
    assert classify(error).fault is (Fault.POOLER if holds else Fault.NONE)


def test_a_message_is_found_in_a_failed_connection_attempt(add):
    add(Fault.POOLER, message='odyssey: "route"  is gone')
    failed = (
        'connection to server at "h", port 1 failed: FATAL:  '
        'odyssey: "route of mine" is gone\n'
    )
    for text in (failed, 'odyssey: "x" is gone'):
        assert classify(psycopg2.OperationalError(text)).fault is Fault.POOLER
    for text in ("odyssey: route is gone", 'x\nodyssey: "y" is gone'):
        assert classify(psycopg2.OperationalError(text)).fault is Fault.NONE


def test_another_databases_words_count_where_its_driver_is_named(add):
    class DatabaseError(Exception):
        pass

    DatabaseError.__module__ = "pymysql.err"
    frame = compile("raise error", "<driver>", "exec")
    error = DatabaseError("Lost connection")
    with pytest.raises(DatabaseError):
        exec(frame, {"__name__": "pymysql.connections", "error": error})  # noqa: S102
    signal = read(error, "pymysql")
    add(Fault.POOLER, message="Lost connection")
    assert judge(signal).fault is Fault.NONE
    add(Fault.CONNECTION_LOST, message="Lost connection", driver="pymysql")
    assert judge(signal).fault is Fault.CONNECTION_LOST


def test_the_newest_row_decides(add):
    error = psycopg2.OperationalError("odd")
    add(Fault.POOLER, message="odd")
    newest = add(Fault.SUSPECT, message="odd")
    assert classify(error).fault is Fault.SUSPECT
    newest()
    assert classify(error).fault is Fault.POOLER


def test_a_fault_can_be_made_an_ordinary_error(add):
    error = psycopg2.OperationalError("unknown error")
    assert classify(error).fault is Fault.CORRUPTION
    add(Fault.NONE, message="unknown error", driver="psycopg2")
    assert classify(error).fault is Fault.NONE


class JobTimeout(Exception):  # noqa: N818 - as such libraries name it
    """As a library of jobs raises it in a signal's handler."""


@pytest.mark.parametrize("kind", [JobTimeout, f"{__name__}.JobTimeout"])
def test_a_timeout_of_a_library_of_jobs_can_be_an_interruption(
    make_engine, driver, add, events, kind
):
    add(Fault.INTERRUPTED, exception=kind)
    engine = make_engine(driver, pool_size=1, poolclass=poolproof.Pool)
    (before,) = driver_connections(engine, 1)

    @sa.event.listens_for(engine, "do_execute", once=True)
    def end(*_):
        raise JobTimeout

    error = error_of(engine, SELECT)
    assert isinstance(error, JobTimeout)
    assert [one.fault for one in events] == [Fault.INTERRUPTED]
    assert driver_connections(engine, 1) != [before]


def test_a_child_keeps_the_rows(add):
    add(Fault.POOLER, message="odd")
    child = os.fork()
    if child == 0:
        verdict = classify(psycopg2.OperationalError("odd"))
        os._exit(0 if verdict.fault is Fault.POOLER else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_rows_come_and_go_while_errors_are_judged(add):
    error = psycopg2.OperationalError("odd")
    done = threading.Event()
    seen = set()

    def judge():
        while not done.is_set():
            seen.add(classify(error).fault)

    threads = [threading.Thread(target=judge) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2000):
        add(Fault.POOLER, message="odd")()
    done.set()
    for thread in threads:
        thread.join()
    assert seen <= {Fault.POOLER, Fault.NONE}


@pytest.mark.parametrize(
    ("fault", "conditions", "kind", "sentence"),
    [
        ("pooler", {"message": "x"}, TypeError, "register needs a Fault, not 'pooler'"),
        (Fault.POOLER, {}, ValueError, "needs a sqlstate, a message or an exception"),
        (Fault.POOLER, {"driver": "psycopg"}, ValueError, "needs a sqlstate, a mess"),
        (Fault.POOLER, {"sqlstate": 57014}, TypeError, "sqlstate is a text, not 57014"),
        (Fault.POOLER, {"sqlstate": "57p01"}, ValueError, "or the first two for a cl"),
        (Fault.POOLER, {"sqlstate": "570"}, ValueError, "five digits and capital let"),
        (Fault.POOLER, {"message": "  "}, ValueError, "message is one line that is no"),
        (Fault.POOLER, {"message": "a\nb"}, ValueError, "message is one line that is"),
        (Fault.POOLER, {"message": '"a"'}, ValueError, "needs words outside of double"),
        (Fault.POOLER, {"exception": 3}, TypeError, "class of exceptions or its name"),
        (Fault.POOLER, {"exception": int}, TypeError, "class of exceptions or its na"),
        (Fault.POOLER, {"exception": "Odd"}, ValueError, "a class with its module, s"),
        (Fault.POOLER, {"exception": Exception}, ValueError, "name a narrower class"),
        (
            Fault.POOLER,
            {"message": "x", "driver": ""},
            ValueError,
            "driver is one line",
        ),
        (
            Fault.POOLER,
            {"message": "x", "cause": None},
            TypeError,
            "cause is a text, n",
        ),
        (Fault.POOLER, {"message": "x", "cause": "a\nb"}, ValueError, "cause is one l"),
    ],
)
def test_what_is_no_row_is_refused_with_a_sentence(fault, conditions, kind, sentence):
    with pytest.raises(kind, match=sentence):
        register(fault, **conditions)


# --- verdicts of listeners ------------------------------------------------------------


def cost(value):
    return lambda event: dataclasses.replace(event.verdict, cost=value)


def cancel(engine):
    with engine.connect() as connection:
        connection.execute(sa.text("set local statement_timeout = 20"))
        return first_error(lambda: connection.execute(sa.text("select pg_sleep(5)")))


@pytest.mark.parametrize("pool", [sa.QueuePool, poolproof.Pool], ids=["queue", "ours"])
@pytest.mark.parametrize(
    ("decided", "survivors"), [("connection", 1), ("generation", 0), ("nothing", 2)]
)
def test_a_listeners_verdict_takes_the_place_of_the_tables(
    make_engine, driver, decide, pool, decided, survivors
):
    engine = make_engine(driver, pool_size=2, poolclass=pool)
    poolproof.guard(engine)
    before = driver_connections(engine, 2)
    decide(cost(decided))
    error = cancel(engine)
    assert error.connection_invalidated is (decided != "nothing")
    after = driver_connections(engine, 2)
    assert len({id(one) for one in before} & {id(one) for one in after}) == survivors


def test_the_last_listener_that_answers_decides_and_sees_what_was_said_before(
    make_engine, decide, caplog
):
    engine = make_engine("psycopg2", pool_size=1)
    poolproof.guard(engine)
    seen = []
    decide(cost("generation"))
    decide(lambda event: seen.append(event.verdict.cost))
    decide(cost("connection"))
    decide(lambda event: seen.append(event.verdict.cost))
    with caplog.at_level("INFO", "poolproof.guard"):
        cancel(engine)
    assert seen == ["generation", "connection"]
    (line,) = [r.getMessage() for r in caplog.records if r.name == "poolproof.guard"]
    assert "cost connection" in line
    assert line.endswith("as a listener of on_fault decided")


def test_another_fault_may_be_decided(make_engine, decide, events):
    engine = make_engine("psycopg2", pool_size=1)
    poolproof.guard(engine)
    decide(lambda e: dataclasses.replace(e.verdict, fault=Fault.POOLER, cause="own"))
    heard = []
    decide(lambda event: heard.append((event.fault, event.verdict.cause)))
    cancel(engine)
    assert heard == [(Fault.POOLER, "own")]


def test_a_disconnect_of_sqlalchemys_can_be_overruled(make_engine, decide):
    """A handler of the application takes an error for one that is none."""
    engine = make_engine("psycopg2", pool_size=1)
    sa.event.listen(engine, "handle_error", lambda c: setattr(c, "is_disconnect", True))
    poolproof.guard(engine)
    before = driver_connections(engine, 1)
    decide(cost("nothing"))
    assert not error_of(engine, sa.text("selec")).connection_invalidated
    assert driver_connections(engine, 1) == before


def test_to_spare_a_connection_that_may_be_out_of_step_is_a_warning(
    make_engine, proxy, decide, caplog
):
    engine = make_engine("psycopg", proxy, pool_size=1, poolclass=poolproof.Pool)
    driver_connections(engine, 1)
    decide(cost("nothing"))
    with engine.connect() as connection:
        proxy.inject(b"Z\0\0\0\5I")
        with caplog.at_level("WARNING", "poolproof.guard"):
            error = first_error(lambda: connection.execute(SELECT))
        assert not error.connection_invalidated
        assert connection.connection._connection_record.suspect
    assert "a listener of on_fault kept a connection" in caplog.text
    # The pool finds out by itself, and still hands nothing on that is out of step.
    with engine.connect() as connection:
        assert connection.execute(SELECT).scalar() == 42


@pytest.mark.parametrize("answer", ["nothing", 0, Fault.POOLER])
def test_what_is_no_verdict_is_logged_and_ignored(
    make_engine, decide, caplog, events, answer
):
    engine = make_engine("psycopg2", pool_size=1)
    poolproof.guard(engine)
    before = driver_connections(engine, 1)
    decide(lambda _: answer)
    cancel(engine)
    assert f"returned {a_kind(answer)}, which is neither" in caplog.text
    assert driver_connections(engine, 1) == before


@pytest.mark.parametrize(
    "change",
    [{"cost": "all"}, {"retry": "always"}, {"outcome": ""}, {"fault": "odd"}],
)
def test_a_verdict_has_no_other_values(change):
    verdict = classify(psycopg2.OperationalError("unknown error"))
    (name,) = change
    with pytest.raises(ValueError, match=f"{name} is one of '"):
        dataclasses.replace(verdict, **change)
    with pytest.raises(ValueError, match="cost is one of 'nothing', 'connection', '"):
        Verdict(Fault.NONE, "much", "never", "unknown", "")


def test_a_fault_that_the_pool_saw_by_itself_is_an_event_without_an_exception(events):
    found = appraise(Fault.CORRUPTION, phase="ping", cause="unread bytes")
    assert (found.cost, found.outcome) == ("connection", "not_done")
    assert report(found, driver="psycopg2", backend_pid=4711) is found
    (event,) = events
    assert event.exception is None
    assert (event.verdict.cause, event.backend_pid) == ("unread bytes", 4711)
