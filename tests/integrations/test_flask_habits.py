"""Flask applications that are put together in ways of their own."""

from __future__ import annotations

import threading

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session
from sqlalchemy.orm import sessionmaker as make_sessions
from sqlalchemy.pool import QueuePool

import poolproof
from poolproof.integrations import flask as integration

ONE = text("select 1")


@pytest.fixture
def make_app(pg_url):
    """Make applications; their engines are disposed of."""
    made = []

    def make(**config):
        app = flask.Flask("shop")
        app.config.update(SQLALCHEMY_DATABASE_URI=pg_url("psycopg2"), **config)
        made.append(app)
        return app

    yield make
    for app in made:
        if db := app.extensions.get("sqlalchemy"):
            for engine in db._app_engines[app].values():
                engine.dispose()


@pytest.fixture
def make_engine(pg_url):
    """Make plain engines, and dispose of them."""
    made = []

    def make(**options):
        made.append(create_engine(pg_url("psycopg2"), **options))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.mark.parametrize("first", ["db", "poolproof"])
def test_options_reach_a_pool_of_this_kind_that_was_chosen(make_app, first):
    app = make_app(
        SQLALCHEMY_ENGINE_OPTIONS={
            "poolclass": poolproof.Pool,
            "pool_size": 2,
            "max_idle": 7,
        },
        POOLPROOF_POOL_SIZE=4,
    )
    db = SQLAlchemy()
    if first == "db":
        db.init_app(app)
    integration.init_app(app, db, hold_timeout=30)
    if first == "poolproof":
        db.init_app(app)
    with app.app_context():
        pool = db.engine.pool
        assert type(pool) is poolproof.Pool
        assert pool.size() == 4
        assert (pool.settings.hold_timeout, pool.settings.max_idle) == (30, 7)
        assert db.session.scalar(ONE) == 1


def test_a_pool_of_this_kind_stays_the_same_where_no_option_is_given(make_engine):
    engine = make_engine(poolclass=poolproof.Pool)
    before = engine.pool
    integration.init_app(flask.Flask("plain"), engine)
    assert engine.pool is before


def test_every_engine_of_a_session_with_several_is_taken(make_engine):
    class Base(DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "order"
        number: Mapped[int] = mapped_column(primary_key=True)

    default, orders = make_engine(), make_engine()
    session = scoped_session(make_sessions(default, binds={Order: orders}))
    integration.init_app(flask.Flask("plain"), session)
    assert type(default.pool) is type(orders.pool) is poolproof.Pool


def test_what_is_refused_changes_nothing_and_can_be_tried_again(make_app):
    app = make_app()
    db = SQLAlchemy(app)
    app.get("/")(lambda: str(db.session.scalar(ONE)))
    client = app.test_client()
    assert client.get("/").text == "1"
    with pytest.raises(AssertionError, match="first request"):
        integration.init_app(app, db, answer_503=True)
    assert "poolproof" not in app.extensions
    with app.app_context():
        assert type(db.engine.pool) is QueuePool
    integration.init_app(app, db)
    assert client.get("/").text == "1"
    with app.app_context():
        assert type(db.engine.pool) is poolproof.Pool


def test_one_extension_serves_several_applications(make_app):
    db = SQLAlchemy()
    apps = [make_app(), make_app()]
    for size, app in enumerate(apps, 2):
        db.init_app(app)
        integration.init_app(app, db, pool_size=size)
    with apps[0].app_context():
        db.session.scalar(ONE)
        with apps[1].app_context():
            assert db.engine.pool.size() == 3
            assert db.session.scalar(ONE) == 1
        assert db.session().in_transaction()
        assert db.engine.pool.size() == 2
    assert not db.session.registry.registry


def test_connections_that_are_out_when_the_pool_is_exchanged_stay_good(make_app):
    app = make_app()
    db = SQLAlchemy(app)
    with app.app_context():
        held = db.engine.connect()
        db.session.scalar(ONE)
        integration.init_app(app, db)
        assert held.scalar(ONE) == 1
        held.close()
        db.session.commit()
        assert db.session.scalar(ONE) == 1
        assert db.engine.pool.stats().in_use == 1


def test_first_requests_at_once_find_the_pool_in_place(make_app):
    app = make_app()
    db = SQLAlchemy()
    integration.init_app(app, db)
    db.init_app(app)
    app.get("/")(lambda: type(db.engine.pool).__name__ + str(db.session.scalar(ONE)))
    told, start = [], threading.Barrier(8)

    def ask():
        start.wait()
        told.append(app.test_client().get("/").text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["Pool1"] * 8
