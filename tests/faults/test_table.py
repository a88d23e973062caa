"""The table as Python sees it, and the page that shows it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

import poolproof
from poolproof import Fault, _native, classify

ROOT = Path(__file__).parent.parent.parent


def test_every_fault_of_the_table_has_its_name_in_python():
    listed = [price.fault for price in _native.fault_prices()]
    assert [fault.value for fault in Fault] == listed
    assert {fault for fault, _, _ in _native.fault_rows()} <= set(listed)


def test_a_fault_reads_as_its_name():
    assert str(Fault.CORRUPTION) == f"{Fault.CORRUPTION}" == "corruption"


def test_the_page_is_what_the_table_says():
    spec = importlib.util.spec_from_file_location(
        "faults_page", ROOT / "tools" / "faults_page.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text() == tool.page()
    assert tool.main(["--check"]) == 0


def test_an_exception_of_the_driver_and_sqlalchemys_around_it_say_the_same():
    text = "error with status PGRES_TUPLES_OK and no message from the libpq"
    bare = psycopg2.DatabaseError(text)
    wrapped = sa.exc.DBAPIError("select 1", {}, bare)
    assert classify(bare) == classify(wrapped)
    verdict = classify(bare)
    assert (verdict.fault, verdict.cost) == (Fault.CORRUPTION, "connection")
    assert (verdict.retry, verdict.outcome) == ("never", "unknown")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("lost synchronization with server"),
        RuntimeError("server closed the connection unexpectedly"),
        ConnectionResetError("of another library"),
        TimeoutError(),
        KeyError(b"?"),
        OSError("network error"),
        Exception(),
    ],
    ids=repr,
)
def test_an_exception_of_something_else_is_no_fault(error):
    assert classify(error).fault is Fault.NONE
    assert classify(error).outcome == "unknown"


def test_an_interruption_is_one():
    assert classify(KeyboardInterrupt()).fault is Fault.INTERRUPTED


def test_an_exception_that_refuses_to_speak_is_no_fault():
    class Mute(Exception):  # noqa: N818
        def __str__(self):
            raise RuntimeError

    assert classify(Mute()).fault is Fault.NONE


def test_half_a_character_in_a_message_is_read_all_the_same():
    error = psycopg2.OperationalError("connection \udcff already closed \ud800")
    assert classify(error).fault in set(Fault)
    error = type("Odd", (psycopg2.Error,), {"pgcode": "57\ud800P1"})("x")
    assert classify(error).fault is Fault.NONE


@pytest.mark.parametrize(
    "ask",
    [
        lambda result: result.one(),
        lambda result: [result.close(), result.fetchall()],
        lambda result: result.mappings().first()["no such"],
    ],
    ids=["no row", "no rows at all", "no such column"],
)
def test_an_answer_that_does_not_fit_is_suspect_and_costs_nothing(tmp_path, ask):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x.db")
    statement = "select 1 as n where 1 = 0"
    if ask.__code__.co_consts[-1] == "no such":
        statement = "select 1 as n"
    with engine.connect() as connection:
        result = connection.execute(sa.text(statement))
        with pytest.raises((sa.exc.InvalidRequestError, KeyError)) as raised:
            ask(result)
    engine.dispose()
    verdict = classify(raised.value)
    assert (verdict.fault, verdict.cost) == (Fault.SUSPECT, "nothing")
    assert (verdict.retry, verdict.outcome) == ("never", "unknown")


def test_an_empty_pool_is_a_fault_that_costs_nothing(tmp_path):
    for pool in (sa.QueuePool, poolproof.Pool):
        engine = sa.create_engine(
            f"sqlite:///{tmp_path}/x.db",
            poolclass=pool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=0.01,
        )
        with engine.connect(), pytest.raises(sa.exc.TimeoutError) as raised:
            engine.connect()
        engine.dispose()
        verdict = classify(raised.value)
        assert (verdict.fault, verdict.cost) == (Fault.POOL_TIMEOUT, "nothing")
        assert (verdict.retry, verdict.outcome) == ("reconnect", "not_done")


def test_a_commit_is_told_from_a_statement_by_its_way(make_engine, proxy, driver):
    """The traceback alone tells them apart."""
    engine = make_engine(driver, proxy, pool_size=1)
    verdicts = []
    for commit in (False, True):
        with engine.connect() as connection:
            connection.execute(sa.text("select 1"))
            proxy.cut()
            try:
                connection.commit() if commit else connection.rollback()
            except sa.exc.DBAPIError as error:
                verdicts.append(classify(error))
    assert [v.fault for v in verdicts] == [Fault.CONNECTION_LOST] * 2
    assert [v.outcome for v in verdicts] == ["not_done", "unknown"]
