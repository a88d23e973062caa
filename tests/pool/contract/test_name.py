"""What a pool is called in messages."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

import poolproof


@pytest.fixture
def name(request):
    """Say what the pool of an engine is called; the database is one of this test's."""

    def ask(url="", module="psycopg2", **parameters):
        url = url or sa.URL.create(
            f"postgresql+{module}", "app", "secret", "db", 5432, request.node.name[:20]
        )
        engine = sa.create_engine(url, poolclass=poolproof.Pool, **parameters)
        made.append(engine)
        return engine.pool.name()

    made = []
    yield ask
    for engine in made:
        engine.dispose()


@pytest.mark.parametrize("module", ["psycopg2", "psycopg", "pg8000"])
def test_it_is_database_at_host(name, module):
    url = f"postgresql+{module}://app:secret@db/{module}_shop"
    assert name(url) == f"{module}_shop@db"


def test_several_are_told_apart_and_each_keeps_its_name():
    url = "postgresql+psycopg2://app@db/told_apart"
    first, second = (sa.create_engine(url, poolclass=poolproof.Pool) for _ in "ab")
    assert first.pool.name() == "told_apart@db"
    assert second.pool.name() == "told_apart@db#2"
    for engine, expected in ((first, "told_apart@db"), (second, "told_apart@db#2")):
        engine.dispose()  # the engine has another pool then
        assert engine.pool.name() == expected


def test_the_names_that_sqlalchemy_knows_win(name):
    assert name(pool_logging_name="orders") == "orders"
    assert name(logging_name="shop") == "shop"
    assert name(logging_name="shop", pool_logging_name="orders") == "orders"
    assert name(logging_name="shop", pool_logging_name="orders") == "orders"


def test_the_engines_name_is_known_after_it_has_connected(pg_url):
    engine = sa.create_engine(
        pg_url("psycopg2"), poolclass=poolproof.Pool, logging_name="shop"
    )
    with engine.connect():
        pass
    assert engine.pool.name() == "shop"
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://app:secret@word@db/unescaped",
        "postgresql+psycopg2://db/stub:secret@db.internal/app",
        "postgresql+psycopg2://app@db",
    ],
)
def test_what_may_hold_a_password_is_left_out(name, url):
    assert name(url).startswith("postgresql")
    assert "word" not in name(url)


def test_a_pool_made_by_hand_has_a_name_too(dbapi):
    pool, other = poolproof.Pool(dbapi.connect), poolproof.Pool(dbapi.connect)
    assert pool.name().startswith("default")
    assert other.name() != pool.name()
    pool.dispose()
    other.dispose()


def test_a_listener_of_any_kind_is_passed_over(name):
    class Listener:
        def __call__(self, connection, record):
            pass

    events = [(Listener(), "connect"), (Listener().__call__, "connect")]
    assert name(logging_name="shop", pool_events=events) == "shop"


def test_errors_have_it(stub_engine):
    engine = stub_engine(
        poolclass=poolproof.Pool, pool_size=1, max_overflow=0, pool_timeout=0
    )
    with (
        engine.connect(),
        pytest.raises(poolproof.PoolTimeout, match="pool 'stub@127"),
    ):
        engine.connect()
