"""What the guard says of a connection that a child inherited."""

from __future__ import annotations

import json
import os

import pytest
import sqlalchemy as sa

import poolproof
from plugins.harm import first_error
from poolproof import ConnectionForked

pytestmark = pytest.mark.fork

SELECT = sa.text("select 42")


def in_child(report):
    """Fork; return what *report* returns in the child, by way of JSON."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sending, json.dumps(report()).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


@pytest.mark.parametrize("verb", ["execute", "commit"])
def test_an_inherited_connection_raises_connection_forked_as_one_event(
    make_engine, driver, events, verb, table
):
    engine = make_engine(driver, poolclass=poolproof.Pool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"insert into {table} values (1)"))

        def use_it():
            error = first_error(
                connection.commit
                if verb == "commit"
                else lambda: connection.execute(SELECT)
            )
            with engine.connect() as fresh:
                answer = fresh.execute(SELECT).scalar()
            (event,) = events
            verdict = event.verdict
            return [
                type(error) is ConnectionForked,
                error.connection_invalidated,
                (error.parent_pid, error.child_pid) == (os.getppid(), os.getpid()),
                event.fault,
                event.process_id == os.getpid(),
                [verdict.cost, verdict.retry, verdict.outcome],
                poolproof.classify(error).fault,
                answer,
            ]

        assert in_child(use_it) == [
            True,
            True,
            True,
            "forked",
            True,
            ["connection", "whole_unit", "not_done"],
            "forked",
            42,
        ]
        connection.commit()
    assert events == []
    with engine.connect() as connection:
        count = connection.execute(sa.text(f"select count(*) from {table}"))
        assert count.scalar() == 1


def test_ending_the_use_of_an_inherited_connection_is_no_event(
    make_engine, driver, events
):
    engine = make_engine(driver, poolclass=poolproof.Pool)
    with engine.connect() as connection:
        connection.execute(SELECT)

        def end_it():
            connection.rollback()
            connection.close()
            engine.dispose()
            return len(events)

        assert in_child(end_it) == 0
        assert connection.execute(SELECT).scalar() == 42
