"""The journal: which hypothesis it was, with the evidence, for real connections."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa

import poolproof
from plugins.processes import run_in_fork
from plugins.threads import Task, eventually
from poolproof.drill.stray import ANSWER
from poolproof.faults import journal as rings
from poolproof.pool import evidence

DRIVERS = ("psycopg2", "psycopg", "pg8000")
ROW = "geheim-4711"

pytestmark = pytest.mark.usefixtures("own_journal")


@pytest.fixture(params=DRIVERS)
def engine(request, make_engine, watched):
    return make_engine(
        request.param, watched, poolclass=poolproof.Pool, pool_size=1, max_overflow=0
    )


def ask(engine, number=1):
    with engine.connect() as connection:
        return connection.scalar(sa.text(f"select {number}, '{ROW}'"))


def backend(engine):
    with engine.connect() as connection:
        return connection.scalar(sa.text("select pg_backend_pid()"))


def only(kind):
    (event,) = [event for event in poolproof.journal() if event.kind == kind]
    return event


def test_an_answer_that_nobody_asked_for_is_named_by_its_messages(engine, watched):
    pid = backend(engine)
    ask(engine)
    watched.links[0].inject(ANSWER)
    assert ask(engine, 7) == 7
    event = only("discard")
    assert "nobody had asked for" in event.cause
    facts = event.evidence
    assert facts["reason"] == "desynchronised"
    assert facts["backend_pid"] == pid
    assert facts["processes"] == (os.getpid(),)
    assert [line.split()[0] for line in facts["unread"]] == [
        *("RowDescription", "DataRow", "CommandComplete", "ReadyForQuery")
    ]
    assert facts["age"] >= facts["rested"] >= 0
    assert facts["statements"][-2].split()[0] == "SELECT"
    assert facts["statements"][-1].split()[0] == "SELECT"
    assert facts["statements"][-1] != facts["statements"][-2]
    assert event.pool == engine.pool.name()
    told = str(event)
    assert ROW not in told
    assert "an answer to nobody's question" not in told
    assert f"backend pid: {pid}" in told


def test_a_proxy_that_cut_it_at_rest_is_named(engine, watched):
    ask(engine)
    watched.links[0].cut()
    eventually(lambda: not watched.links)
    ask(engine)
    assert "on the way to it, had ended" in only("discard").cause
    assert only("discard").evidence["unread"] == ()


def test_a_deadline_is_named(engine):
    connection = engine.connect()
    with pytest.raises(sa.exc.DBAPIError), poolproof.deadline(0.1):
        connection.execute(sa.text("select pg_sleep(60)"))
    connection.close()
    event = only("discard")
    assert event.evidence["reason"] == "deadline_timeout"
    assert event.cause == "a deadline passed: deadline"
    assert only("fault").evidence["fault"] == "connection_lost"


def test_a_session_that_was_ended_names_the_fault(engine, pg):
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
        with pytest.raises(sa.exc.DBAPIError):
            connection.execute(sa.text(f"select pg_terminate_backend({pid})"))
    fault, discard = only("fault"), only("discard")
    assert discard.cause == fault.cause
    assert discard.evidence["backend_pid"] == fault.evidence["backend_pid"] == pid


def test_what_costs_nothing_and_what_is_routine_is_left_out(engine):
    with pytest.raises(sa.exc.ProgrammingError), engine.connect() as connection:
        connection.execute(sa.text("select nothing"))
    with engine.connect() as connection:
        connection.invalidate()
    engine.dispose()
    assert poolproof.journal() == ()


def test_text_is_shown_where_it_is_asked_for(engine, watched, monkeypatch):
    monkeypatch.setenv("POOLPROOF_JOURNAL_TEXT", "1")
    with engine.connect() as connection:
        connection.execute(sa.text("select :word"), {"word": "a-parameter"})
    watched.links[0].cut()
    eventually(lambda: not watched.links)
    ask(engine)
    (shown,) = only("discard").evidence["statements"][-1:]
    assert shown.startswith("select ")
    assert "a-parameter" not in str(only("discard"))


def test_the_last_statements_are_kept_and_no_more(engine, watched):
    with engine.connect() as connection:
        for number in range(40):
            connection.execute(sa.text(f"select {number}, {'x' if 0 else 1}"))
        connection.execute(sa.text("/* a comment */ select count(*) from pg_class"))
    watched.links[0].cut()
    eventually(lambda: not watched.links)
    ask(engine)
    statements = only("discard").evidence["statements"]
    assert len(statements) == 16
    assert len(set(statements)) == 2  # literals make no difference
    assert {one.split()[0] for one in statements} == {"SELECT"}


# --- forks ----------------------------------------------------------------------------


@pytest.mark.fork
def test_a_child_begins_with_the_fork_and_names_who_opened_a_connection(
    make_engine, pg
):
    engine = make_engine("psycopg2", poolclass=poolproof.Pool)
    rings.note("lease", "of the parent")
    connection = engine.connect()
    parent = os.getpid()

    def child():
        (fork,) = poolproof.journal()
        assert fork.kind == "fork"
        assert fork.evidence["parent_pid"] == parent
        assert fork.evidence["process_id"] == os.getpid()
        with pytest.raises(poolproof.ConnectionForked):
            connection.execute(sa.text("select 1"))
        event = only("fault")
        assert event.evidence["processes"] == (parent, os.getpid())
        assert event.evidence["fault"] == "forked"

    run_in_fork(child).assert_silent()
    connection.close()
    assert [event.cause for event in poolproof.journal()] == ["of the parent"]


@pytest.mark.fork
def test_the_fork_has_its_own_time_and_not_that_of_the_first_look():
    def child():
        forked = time.time()
        time.sleep(0.05)
        (fork,) = poolproof.journal()
        return forked, fork.when.timestamp()

    forked, told = run_in_fork(child).assert_silent().result
    assert told <= forked + 0.001  # it was rounded


def test_what_ended_in_use_has_not_rested(engine):
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
    connection = engine.connect()
    with pytest.raises(sa.exc.DBAPIError), poolproof.deadline(0.1):
        connection.execute(sa.text("select pg_sleep(60)"))
    connection.close()
    assert "rested" not in only("discard").evidence


# --- waits, retries, the ring ---------------------------------------------------------


def test_waits_in_vain_are_noted_and_not_a_crowd_of_them(make_engine):
    engine = make_engine(
        *("psycopg2",),
        poolclass=poolproof.Pool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.05,
    )
    with engine.connect():
        for _ in range(3):
            with pytest.raises(poolproof.PoolTimeout):
                engine.connect()
    found = [event for event in poolproof.journal() if event.kind == "timeout"]
    assert 1 <= len(found) < 3
    assert found[0].evidence["waited"] >= 0.05
    assert found[0].evidence["thread"] == threading.current_thread().name


def test_a_long_wait_is_noted(make_engine, monkeypatch):
    monkeypatch.setattr(evidence, "SLOW_WAIT_S", 0.05)
    engine = make_engine(
        "psycopg2", poolclass=poolproof.Pool, pool_size=1, max_overflow=0
    )
    connection = engine.connect()
    task = Task(engine.connect)
    eventually(lambda: engine.pool.stats().waiting)
    threading.Event().wait(0.1)
    connection.close()
    task.result().close()
    assert only("slow_wait").evidence["waited"] >= 0.05


def test_a_repeated_unit_is_noted(make_engine):
    engine = make_engine("psycopg2", poolclass=poolproof.Pool)
    fails = [True]

    def unit(connection):
        if fails.pop():
            pid = connection.scalar(sa.text("select pg_backend_pid()"))
            with engine.connect() as other:
                other.execute(
                    sa.text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid}
                )
        return connection.scalar(sa.text("select 1"))

    fails.insert(0, False)
    assert poolproof.run_transaction(engine, unit) == 1
    causes = [event.cause for event in poolproof.journal() if event.kind == "retry"]
    assert len(causes) == 2
    assert "attempt 1 at" in causes[0]
    assert causes[1].endswith("succeeded")


def test_the_last_200_are_kept():
    for number in range(250):
        rings.note("lease", f"number {number}")
    events = poolproof.journal()
    assert len(events) == 200
    assert events[0].cause == "number 50"
    assert events[-1].cause == "number 249"


def test_an_event_is_one_line_and_steers_no_terminal():
    rings.note("lease", "a\nb\x1b]0;title\x07", pool="p\r", thread="\u202eabc")
    told = str(poolproof.journal()[0])
    assert told.isprintable()
    assert "a\\nb\\x1b]0;title\\x07" in told
    assert "\\u202eabc" in told


@pytest.mark.fork
def test_the_first_threads_of_a_child_share_its_journal():
    rings.note("lease", "of the parent")

    def child():
        start = threading.Barrier(8)

        def tell(number):
            start.wait()
            rings.note("lease", f"number {number}")

        for task in [Task(tell, number) for number in range(8)]:
            task.result()
        assert len(poolproof.journal()) == 9
        assert poolproof.journal()[0].kind == "fork"

    run_in_fork(child).assert_silent()


def test_many_faults_are_written_to_the_log_once(caplog):
    caplog.set_level(logging.INFO, "poolproof.journal")
    for number in range(50):
        rings.note("discard", f"number {number}")
    lines = [record.getMessage() for record in caplog.records]
    assert "20 faults in" in lines[0]
    assert len(lines) == 1 + 20
    assert lines[-1].endswith("discard: number 19")


def test_few_faults_in_a_long_time_are_not_written(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "poolproof.journal")
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(rings.time, "monotonic", lambda: float(next(clock)))
    for number in range(40):
        rings.note("discard", f"number {number}")
    assert not caplog.records


def test_a_signal_writes_it_and_goes_on_to_what_was_there_before(caplog):
    caplog.set_level(logging.INFO, "poolproof.journal")
    before = []
    old = signal.signal(signal.SIGUSR2, lambda *args: before.append(args[0]))
    try:
        poolproof.write_journal_at(signal.SIGUSR2)
        rings.note("lease", "a lease was lost")
        os.kill(os.getpid(), signal.SIGUSR2)
        eventually(lambda: before == [signal.SIGUSR2])
    finally:
        signal.signal(signal.SIGUSR2, old)
    assert any("a lease was lost" in record.getMessage() for record in caplog.records)


def test_a_signal_in_the_middle_of_logging_does_not_hang():
    # logging's QueueHandler holds a lock that its own thread cannot take again.
    program = """
import logging, logging.handlers, os, queue, signal
import poolproof
from poolproof.faults import journal

class Interrupted(queue.Queue):
    def _put(self, item):
        if not told:
            told.append(item)
            os.kill(os.getpid(), signal.SIGUSR2)
        super()._put(item)

told = []
lines = Interrupted()
handlers = [logging.handlers.QueueHandler(lines)]
logging.basicConfig(level=logging.INFO, handlers=handlers)
poolproof.write_journal_at(signal.SIGUSR2)
poolproof.write_journal_at(signal.SIGUSR2)
journal.note("lease", "a lease was lost")
logging.info("a line of the application")
assert "application" in lines.get(timeout=60).getMessage()
assert "a lease was lost" in lines.get(timeout=60).getMessage()
assert lines.empty()  # once, though it was asked for twice
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_what_was_ignored_is_written_and_not_ended(caplog):
    caplog.set_level(logging.INFO, "poolproof.journal")
    old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        poolproof.write_journal_at()
        rings.note("lease", "a lease was lost")
        os.kill(os.getpid(), signal.SIGUSR2)
        eventually(lambda: "a lease was lost" in caplog.text)
    finally:
        signal.signal(signal.SIGUSR2, old)


def test_it_is_refused_in_a_thread():
    with pytest.raises(ValueError, match="main thread"):
        Task(poolproof.write_journal_at).result()
