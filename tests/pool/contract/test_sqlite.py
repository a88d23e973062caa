"""A driver without a socket: SQLite in a file."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from plugins.threads import Task


@pytest.fixture
def engine(make_engine, tmp_path):
    made = make_engine(f"sqlite:///{tmp_path / 'file.db'}", pool_size=3, max_overflow=1)
    with made.begin() as connection:
        connection.execute(text("create table t (n integer)"))
    return made


def test_connections_are_used_again(engine):
    for _ in range(3):
        with engine.connect() as connection:
            assert connection.scalar(text("select 1")) == 1
    assert (engine.pool.checkedin(), engine.pool.checkedout()) == (1, 0)


def test_committed_rows_are_seen_by_other_connections(engine):
    with engine.begin() as connection:
        connection.execute(text("insert into t values (1), (2)"))
    with engine.connect() as first, engine.connect() as second:
        assert first.scalar(text("select count(*) from t")) == 2
        assert second.scalar(text("select count(*) from t")) == 2


def test_rows_that_were_not_committed_are_rolled_back_on_return(engine):
    with engine.connect() as connection:
        connection.execute(text("insert into t values (1)"))
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from t")) == 0


def test_many_threads_read(engine):
    def read():
        for _ in range(20):
            with engine.connect() as connection:
                assert connection.scalar(text("select 41 + 1")) == 42

    for task in [Task(read) for _ in range(8)]:
        task.result()
    assert engine.pool.checkedout() == 0
    assert engine.pool.checkedin() <= 3


def test_invalidated_connection_is_replaced(engine):
    with engine.connect() as connection:
        connection.invalidate()
        assert connection.scalar(text("select 1")) == 1
    assert engine.pool.checkedout() == 0


def test_pre_ping_works(make_engine, tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'ping.db'}", pool_pre_ping=True)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.scalar(text("select 1")) == 1


def test_dispose_closes_the_file(engine, tmp_path):
    with engine.connect():
        pass
    engine.dispose()
    (tmp_path / "file.db").unlink()
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
