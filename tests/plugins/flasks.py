"""Flask applications with Flask-SQLAlchemy on the tests' server."""

from __future__ import annotations

import contextlib

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select

from poolproof.integrations import flask as integration


@pytest.fixture
def app(pg_url):
    """Make an application with a default engine and one bind."""
    app = flask.Flask("shop")
    app.config.update(
        SQLALCHEMY_DATABASE_URI=pg_url("psycopg2"),
        SQLALCHEMY_BINDS={"reports": pg_url("psycopg2")},
        TESTING=True,
    )
    yield app
    db = app.extensions.get("sqlalchemy")
    if db is not None:
        # Without a context, which would run the functions of a test's teardown.
        for engine in db._app_engines[app].values():
            engine.dispose()


@pytest.fixture
def driven(app, pg_url, driver):
    """Let the application use one driver after the other."""
    app.config["SQLALCHEMY_DATABASE_URI"] = pg_url(driver)
    app.config["SQLALCHEMY_BINDS"] = {"reports": pg_url(driver)}
    return app


def installed(app, order="after", **options):
    """Install both extensions in one of the orders; return Flask-SQLAlchemy's."""
    db = SQLAlchemy()
    if order == "before":
        integration.init_app(app, db, **options)
    elif order == "before, unnamed":
        integration.init_app(app, **options)
    db.init_app(app)
    if order == "after":
        integration.init_app(app, db, **options)
    elif order == "after, unnamed":
        integration.init_app(app, **options)
    return db


@pytest.fixture(params=["after", "before", "after, unnamed", "before, unnamed"])
def order(request):
    """Name when our init_app is called, and whether it is given db."""
    return request.param


def hold_all(db):
    """Take all connections of the pool out; the stack gives them back."""
    stack = contextlib.ExitStack()
    for _ in range(db.engine.pool.size()):
        stack.enter_context(db.engine.connect())
    return stack


def with_a_route(app, **options):
    db = installed(app, pool_size=1, max_overflow=0, pool_timeout=0.1, **options)

    @app.get("/")
    def index():
        return str(db.session.scalar(select(1)))

    return db
