"""A ping leaves no trace: nothing prepared, nothing set, nothing that fills a cache."""

from __future__ import annotations

import re

import psycopg
import pytest
from sqlalchemy import event, text

from plugins.cluster import Cluster
from plugins.debian_server import newest_binaries
from plugins.server import Observer, running
from plugins.wire import backend

PINGS = 12
STATEMENTS = 60
ISOLATION = pytest.mark.parametrize(
    "options", [{}, {"isolation_level": "REPEATABLE READ"}], ids=["default", "level"]
)
THRESHOLDS = pytest.mark.parametrize("threshold", [5, 0], ids=["usual", "at once"])


@pytest.fixture(scope="module")
def watched(cluster_templates):
    """Run a server that counts each text of a statement, and logs them all."""
    cluster = Cluster(
        newest_binaries(),
        settings={
            "shared_preload_libraries": "pg_stat_statements",
            "log_statement": "all",
            "log_line_prefix": "%p %a ",
        },
    )
    yield from running(cluster)


@pytest.fixture
def statistics(watched):
    observer = Observer(watched)
    observer.rows("create extension if not exists pg_stat_statements")
    observer.rows("select pg_stat_statements_reset()")
    yield observer
    observer.close()


@ISOLATION
def test_pings_are_one_statement_and_set_nothing(
    make_engine, watched, statistics, driver, options
):
    engine = make_engine(watched.url(driver), pool_pre_ping="always", **options)
    pid = backend(engine)
    statistics.rows("select pg_stat_statements_reset()")
    began = len(watched.log.read_text())
    for _ in range(PINGS):
        engine.raw_connection().close()
    found = statistics.rows(
        "select query, calls from pg_stat_statements"
        " where query not like '%%pg_stat_statements%%'"
    )
    asked = [calls for query, calls in found if "poolproof_" in query]
    assert asked == [PINGS]  # one entry
    said = {
        re.sub("poolproof_[0-9a-f]{16}", "X", line.partition("statement: ")[2])
        for line in watched.log.read_text()[began:].splitlines()
        if line.startswith(f"{pid} ") and "statement: " in line
    }
    begun = {"BEGIN ISOLATION LEVEL REPEATABLE READ", "ROLLBACK"}
    wraps = driver == "psycopg2" and bool(options)
    assert said == {"select null as X"} | (begun if wraps else set())


@pytest.fixture
def preparing(make_engine, pg_url):
    def make(threshold, url=None, **options):
        url = pg_url("psycopg") if url is None else url
        return make_engine(
            url,
            connect_args={"prepare_threshold": threshold},
            pool_pre_ping="always",
            **options,
        )

    return make


@THRESHOLDS
def test_pings_take_no_place_among_prepared_statements(preparing, threshold):
    """Psycopg keeps a hundred: what the application repeats is prepared."""
    engine = preparing(threshold)
    for _ in range(8):
        for number in range(STATEMENTS):
            with engine.begin() as connection:  # a rollback would end them all
                connection.execute(text(f"select {number} as n{number}"))
    with engine.connect() as connection:
        rows = connection.execute(
            text("select statement from pg_prepared_statements")
        ).scalars()
        found = [one for one in rows if re.match(r"select \d+ as n", one)]
        held = connection.connection.dbapi_connection._prepared
    assert len(found) == STATEMENTS
    assert not any("poolproof_" in str(key) for key in (*held._names, *held._counts))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"], indirect=True)
def test_nothing_is_prepared(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_pre_ping="always")
    for _ in range(PINGS):
        engine.raw_connection().close()
    with engine.connect() as connection:
        found = connection.scalars(
            text("select statement from pg_prepared_statements")
        ).all()
    assert not any("poolproof_" in statement for statement in found)


@ISOLATION
@THRESHOLDS
def test_no_ping_fails_behind_pgbouncer(
    pooler, make_engine, driver, threshold, options
):
    """Sessions of the server change under the client between two transactions."""
    made = pooler(pool_mode="transaction", default_pool_size=3)
    url = made.url.set(drivername=f"postgresql+{driver}")
    if driver == "psycopg":
        options = {**options, "connect_args": {"prepare_threshold": threshold}}
    engine = make_engine(
        url, pool_pre_ping="always", pool_size=4, _initialize=False, **options
    )
    if driver == "psycopg":
        # As the application must have it there, for its own statements.
        event.listen(
            engine,
            "before_cursor_execute",
            lambda connection, *_: setattr(
                connection.connection.dbapi_connection, "prepare_threshold", None
            ),
        )
    rivals = [psycopg.connect(made.url.render_as_string(hide_password=False))]
    try:
        for turn in range(40):
            held = [engine.raw_connection() for _ in range(4)]
            # Each holds a session of the server's for a while, so that they are mixed.
            rivals[0].execute("select 1")
            if turn % 2:
                rivals[0].rollback()
            for one in held:
                one.close()
    finally:
        for rival in rivals:
            rival.close()
    assert engine.pool.stats().discarded == {}
