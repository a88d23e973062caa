"""`create_engine("postgresql+poolproof://...")`: what it gives and what it knows."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import os
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

import poolproof
import poolproof.driver
from poolproof.dialect.sync import PoolproofDialect
from poolproof.driver.errors import of_server


@pytest.fixture
def url(pg_url):
    return pg_url("poolproof")


@pytest.fixture
def engine(url):
    made = sa.create_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def connection(engine):
    with engine.connect() as opened:
        yield opened


def test_url_names_the_dialect_and_the_driver(engine):
    assert type(engine.dialect) is PoolproofDialect
    assert engine.dialect.dbapi is poolproof.driver
    assert engine.name == "postgresql"
    assert engine.driver == "poolproof"


def test_its_pool_is_poolproofs(engine):
    assert type(engine.pool) is poolproof.Pool


@pytest.mark.parametrize("kind", [QueuePool, NullPool, StaticPool])
def test_other_pools_work(url, kind):
    engine = sa.create_engine(url, poolclass=kind, pool_pre_ping=True)
    for _ in range(3):
        with engine.connect() as connection:
            assert connection.scalar(sa.select(1)) == 1
    engine.dispose()


def test_pool_sees_a_lost_connection_before_it_is_used(engine, observer):
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
    observer.terminate(pid)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select pg_backend_pid()")) != pid


def test_pre_ping_replaces_a_lost_connection_in_any_pool(url, observer):
    engine = sa.create_engine(url, poolclass=QueuePool, pool_pre_ping=True)
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
    observer.terminate(pid)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select pg_backend_pid()")) != pid
    engine.dispose()


@pytest.mark.fork
def test_child_with_any_pool_that_pings_gets_a_connection_of_its_own(url):
    engine = sa.create_engine(url, poolclass=QueuePool, pool_pre_ping=True)
    query = sa.text("select pg_backend_pid()")
    with engine.connect() as connection:
        before = connection.scalar(query)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with engine.connect() as connection:
                said = connection.scalar(query)
        except BaseException as error:
            said = repr(error)
        os.write(write, str(said).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as told:  # noqa: PTH123 - a descriptor
        in_child = told.read().decode()
    os.waitpid(pid, 0)
    assert in_child.isdigit(), in_child
    assert int(in_child) != before
    with engine.connect() as connection:
        assert connection.scalar(query) == before
    engine.dispose()


def test_lost_connection_is_a_disconnect(url, observer):
    engine = sa.create_engine(url, poolclass=QueuePool)
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
        observer.terminate(pid)
        with pytest.raises(sa.exc.OperationalError) as raised:
            connection.execute(sa.text("select 1"))
        assert raised.value.connection_invalidated
    engine.dispose()


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        *(("57P01", True), ("57P02", True), ("08006", True)),
        *(("22012", False), ("23505", False), ("40001", False), ("42601", False)),
        ("57014", False),
    ],
)
def test_fault_table_says_which_errors_are_disconnects(sqlstate, expected):
    error = of_server({"C": sqlstate, "M": "said", "S": "ERROR"})
    assert PoolproofDialect().is_disconnect(error, None, None) is expected


def test_read_only_transaction_that_was_chosen_is_no_disconnect(url):
    engine = sa.create_engine(url, poolclass=QueuePool)
    with engine.connect() as connection:
        reading = connection.execution_options(postgresql_readonly=True)
        with pytest.raises(sa.exc.InternalError) as raised:
            reading.execute(sa.text("create table never (n int)"))
        assert not raised.value.connection_invalidated
    engine.dispose()


def test_values_of_each_kind_come_back(connection):
    table = sa.Table(
        "kinds",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("document", pg.JSONB),
        sa.Column("plain", sa.JSON),
        sa.Column("array", pg.ARRAY(sa.Integer)),
        sa.Column("words", pg.ARRAY(sa.String)),
        sa.Column("span", pg.INT8RANGE),
        sa.Column("spans", pg.DATEMULTIRANGE),
        sa.Column("key", sa.Uuid),
        sa.Column("price", sa.Numeric(10, 2)),
        sa.Column("moment", sa.DateTime(timezone=True)),
        sa.Column("length", sa.Interval),
        sa.Column("address", pg.INET),
        sa.Column("raw", sa.LargeBinary),
        prefixes=["temporary"],
    )
    table.create(connection)
    day = dt.date(2024, 2, 29)
    row = {
        "document": {"a": [1, None]},
        "plain": None,
        "array": [1, None, 3],
        "words": ["a,b", 'c"d', ""],
        "span": pg.Range(1, 1 << 40),
        "spans": [pg.Range(day, day + dt.timedelta(1))],
        "key": uuid.uuid4(),
        "price": decimal.Decimal("12.50"),
        "moment": dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone.utc),
        "length": dt.timedelta(days=1, microseconds=5),
        "address": "10.0.0.1",
        "raw": b"\0\xff",
    }
    statement = table.insert().returning(table.c.id, sort_by_parameter_order=True)
    keys = connection.execute(statement, [row] * 250).scalars().all()
    assert keys == list(range(1, 251))
    found = connection.execute(sa.select(table).where(table.c.id == 250)).one()
    expected = {**row, "id": 250}
    assert str(found.address) == expected.pop("address")
    got = dict(found._mapping)
    del got["address"]
    assert got == expected


def test_hstore_comes_as_a_dict_where_the_server_has_it(debian_pg, debian_observer):
    debian_observer.rows("create extension if not exists hstore")
    engine = sa.create_engine(debian_pg.url("poolproof"))
    with engine.connect() as connection:
        value = {"a": "1", "b": None}
        query = sa.select(sa.cast(value, pg.HSTORE))
        assert connection.scalar(query) == value
    engine.dispose()


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ", "AUTOCOMMIT"])
def test_isolation_level_holds_for_its_connection_alone(engine, level):
    before = "READ COMMITTED"
    with engine.connect() as connection:
        set_so = connection.execution_options(isolation_level=level)
        is_autocommit = level == "AUTOCOMMIT"
        assert set_so.get_isolation_level() == (before if is_autocommit else level)
        assert connection.connection.autocommit is is_autocommit
    with engine.connect() as connection:
        assert connection.get_isolation_level() == before
        assert connection.connection.autocommit is False


def test_engines_isolation_level_is_that_of_each_connection(url):
    engine = sa.create_engine(url, isolation_level="SERIALIZABLE")
    with engine.connect() as connection:
        query = sa.text("show transaction isolation level")
        assert connection.scalar(query) == "serializable"
    engine.dispose()


def test_json_functions_of_the_engine_are_used(url):
    engine = sa.create_engine(
        url,
        json_serializer=lambda value: '["wrapped"]',
        json_deserializer=lambda text: f"read {text}",
    )
    with engine.connect() as connection:
        query = sa.select(sa.cast({"a": 1}, pg.JSONB))
        assert connection.scalar(query) == 'read ["wrapped"]'
    engine.dispose()


def test_rows_stream_through_a_cursor_of_the_servers(connection):
    streaming = connection.execution_options(yield_per=10)
    result = streaming.execute(sa.text("select generate_series(1, 100)"))
    assert result.cursor.name
    assert [n for (n,) in result] == list(range(1, 101))


def test_notices_are_logged(connection, caplog):
    caplog.set_level(logging.INFO, "sqlalchemy.dialects.postgresql")
    connection.execute(sa.text("do $$begin raise notice 'look here'; end$$"))
    assert "NOTICE: look here" in caplog.messages


def test_savepoints_and_nested_transactions_work(connection):
    connection.execute(sa.text("create temp table t (n int unique)"))
    with connection.begin_nested():
        connection.execute(sa.text("insert into t values (1)"))
    with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
        connection.execute(sa.text("insert into t values (1)"))
    assert connection.scalar(sa.text("select count(*) from t")) == 1


def test_several_hosts_in_the_url_are_tried(pg):
    url = sa.make_url(
        f"postgresql+poolproof://postgres@/postgres?host={pg.host}:1"
        f"&host={pg.host}:{pg.port}"
    )
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(1)) == 1
    engine.dispose()


def test_percent_signs_are_themselves(connection):
    assert connection.scalar(sa.text("select '100%'")) == "100%"
    found = connection.exec_driver_sql("select 10 %% %s", (3,))
    assert found.scalar() == 1
    plain = connection.execution_options(no_parameters=True)
    assert plain.exec_driver_sql("select 10 % 3").scalar() == 1


def test_a_session_that_was_read_only_from_its_start_is_kept(url):
    only_reads = {"options": "-c default_transaction_read_only=on"}
    engine = sa.create_engine(url, connect_args=only_reads)
    with engine.connect() as connection:
        own = connection.connection.driver_connection
        with pytest.raises(sa.exc.InternalError) as caught:
            connection.execute(sa.text("create table never (n int)"))
        assert not caught.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.connection.driver_connection is own
    engine.dispose()


def test_connection_left_in_a_copy_is_not_lent_again(engine):
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
        raw = connection.connection.dbapi_connection
        raw.cursor().copy("copy (select generate_series(1, 100)) to stdout").__enter__()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select pg_backend_pid()")) != pid


def test_copy_in_a_transaction_of_the_engines(engine):
    with engine.connect() as connection:
        connection.execute(sa.text("create temp table c (n int)"))
        raw = connection.connection.dbapi_connection
        with raw.cursor().copy("copy c from stdin") as copy:
            copy.write_rows((n,) for n in range(10))
        assert connection.scalar(sa.text("select count(*) from c")) == 10
        connection.rollback()
        with pytest.raises(sa.exc.ProgrammingError):
            connection.scalar(sa.text("select count(*) from c"))
