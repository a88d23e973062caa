"""The lock that a lease is drilled beside works as its teams believe it does."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text

from plugins.threads import eventually
from poolproof.drill.lock_row import TABLE, LockLost, LockRow

NAME = "the lock's own test"
HOUR_S = 3600.0
SHORT_S = 3.0


@pytest.fixture
def engine(target):
    url, arguments = target.for_driver("psycopg2")
    arguments["application_name"] = NAME
    engine = create_engine(url, connect_args=arguments, pool_pre_ping=True)
    with engine.begin() as connection:
        connection.execute(text(TABLE))
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE worker_lock"))
    engine.dispose()


@pytest.fixture
def lock(engine):
    """Make locks; they are given back in the end."""
    made: list[LockRow] = []

    def make(ttl: float, name: str = "lock") -> LockRow:
        made.append(LockRow(engine, name, ttl))
        return made[-1]

    yield make
    for one in made:
        one.release()


def ask(engine, query: str):
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar()


def test_one_at_a_time_has_it(lock):
    first, second, other = lock(HOUR_S), lock(HOUR_S), lock(HOUR_S, "another")
    assert first.acquire()
    assert not second.acquire()
    assert other.acquire()
    first.release()
    assert second.acquire()


def test_it_is_refreshed_by_itself(lock, engine):
    holder, other = lock(SHORT_S), lock(SHORT_S)
    assert holder.acquire()
    since = "SELECT extract(epoch FROM expires_at)::float FROM worker_lock"
    began = ask(engine, since)
    eventually(lambda: ask(engine, since) > began + SHORT_S / 4)
    holder.check()
    assert not other.acquire()


def test_one_that_has_expired_is_taken_over_and_its_holder_told(lock, engine):
    old, new = lock(SHORT_S), lock(HOUR_S)
    assert old.acquire()
    with engine.begin() as connection:
        connection.execute(text("UPDATE worker_lock SET expires_at = '-infinity'"))
        connection.execute(
            text("UPDATE worker_lock SET holder = :holder"), {"holder": new.holder}
        )
    eventually(lambda: old._why)
    with pytest.raises(LockLost, match="somebody else has it"):
        old.check()
    assert new.acquire()
    old.release()
    assert ask(engine, "SELECT holder FROM worker_lock") == new.holder
    new.check()


def test_a_refresh_whose_connection_was_closed_is_lost(lock, engine):
    """Although it is tried again, and the row is there for the asking."""
    holder = lock(SHORT_S)
    assert holder.acquire()
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = :name AND pid <> pg_backend_pid()"
            ),
            {"name": NAME},
        )
    eventually(lambda: holder._why)
    with pytest.raises(LockLost, match="not refreshed in 3 attempts: Operational"):
        holder.guard(None)
    assert ask(engine, "SELECT holder FROM worker_lock") == holder.holder
