"""Flask and Flask-SQLAlchemy with the real libraries on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, event, exc, select, text
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool, QueuePool

import poolproof
from plugins.flasks import installed
from poolproof.integrations import flask as integration

BACKEND = text("select pg_backend_pid()")


def test_every_bind_has_the_pool_whichever_was_installed_first(app, order):
    db = installed(app, order, pool_size=3, pool_timeout=7)
    with app.app_context():
        assert set(db.engines) == {None, "reports"}
        for engine in db.engines.values():
            assert type(engine.pool) is poolproof.Pool
            assert engine.pool.size() == 3
            assert engine.pool.timeout() == 7
            with engine.connect() as connection:
                assert connection.scalar(text("select 1")) == 1


def test_a_pool_class_that_was_chosen_stays_and_is_guarded(app, order):
    app.config["SQLALCHEMY_BINDS"]["jobs"] = {
        "url": app.config["SQLALCHEMY_DATABASE_URI"],
        "poolclass": QueuePool,
    }
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": NullPool}
    db = installed(app, order)
    seen = []
    with app.app_context():
        assert type(db.engine.pool) is NullPool
        assert type(db.engines["jobs"].pool) is QueuePool
        assert type(db.engines["reports"].pool) is poolproof.Pool
        stop = poolproof.on_fault(seen.append)
        try:
            with (
                db.engines["jobs"].connect() as connection,
                pytest.raises(exc.OperationalError),
            ):
                connection.execute(
                    text("select pg_terminate_backend(pg_backend_pid())")
                )
        finally:
            if callable(stop):
                stop()
    assert seen


def test_the_engines_own_options_and_listeners_are_kept(app, order):
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": 2,
        "max_overflow": 1,
        "pool_timeout": 3,
        "pool_use_lifo": True,
        "pool_recycle": 77,
    }
    db = SQLAlchemy()
    connected = []
    if order.startswith("before"):
        integration.init_app(app, db)
    db.init_app(app)
    with contextlib.ExitStack() as stack:
        if order.startswith("after"):
            # By way of the mapping: no context of the application has been pushed.
            engine = db._app_engines[app][None]
            event.listen(engine, "connect", lambda *_: connected.append(1))
            integration.init_app(app, db)
        stack.enter_context(app.app_context())
        pool = db.engine.pool
        assert type(pool) is poolproof.Pool
        assert (pool.size(), pool.timeout(), pool._recycle) == (2, 3, 77)
        assert (pool._max_overflow, pool._lifo) == (1, True)
        with db.engine.connect() as connection:
            assert connection.dialect.server_version_info
        assert connected == ([1] if order.startswith("after") else [])


def test_a_plain_engine_and_scoped_session_are_taken_too(pg_url, observer):
    app = flask.Flask("plain")
    engine = create_engine(pg_url("psycopg2"), pool_size=2)
    session = scoped_session(sessionmaker(engine))
    other = create_engine(pg_url("psycopg2"))
    integration.init_app(app, [session, other])
    assert type(engine.pool) is poolproof.Pool
    assert engine.pool.size() == 2
    assert type(other.pool) is poolproof.Pool

    @app.get("/")
    def index():
        observer.terminate(session.scalar(BACKEND))
        return "done"

    assert app.test_client().get("/").text == "done"
    assert not session.registry.has()
    assert engine.pool.stats().in_use == 0
    engine.dispose()
    other.dispose()


def test_the_session_is_removed_although_its_rollback_fails(app, order, observer):
    db = installed(app, order)

    @app.get("/")
    def index():
        for engine in (db.engines["reports"], db.engine):
            backend = db.session.scalar(BACKEND, bind_arguments={"bind": engine})
            observer.terminate(backend)
        return "done"

    @app.get("/again")
    def again():
        return str(db.session.scalar(select(1)))

    client = app.test_client()
    assert client.get("/").text == "done"
    assert not db.session.registry.registry
    with app.app_context():
        for engine in db.engines.values():
            assert engine.pool.stats().in_use == 0
    assert client.get("/again").text == "1"


def test_functions_that_use_the_session_at_teardown_keep_their_place(
    app, order, table, observer
):
    db = installed(app, order)

    @app.teardown_appcontext
    def finish(_error):
        db.session.commit()

    with app.app_context():
        db.session.execute(text(f"insert into {table} values (1)"))
    assert observer.value(f"select count(*) from {table}") == 1
    assert not db.session.registry.registry


def test_what_does_not_exist_is_refused(app):
    with pytest.raises(TypeError, match="poolsize"):
        integration.init_app(app, poolsize=5)
    with pytest.raises(TypeError, match="str"):
        integration.init_app(app, "postgresql://")


def test_a_second_call_is_refused(app):
    integration.init_app(app)
    with pytest.raises(RuntimeError, match="already"):
        integration.init_app(app)


def test_without_the_framework_the_error_names_the_extra():
    script = (
        "import sys; sys.modules['flask'] = None\nimport poolproof.integrations.flask"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "ImportError: poolproof.integrations.flask needs Flask" in done.stderr
    assert 'pip install "Flask>=2.3"' in done.stderr


def test_poolproof_imports_no_framework():
    script = (
        "import sys, poolproof, poolproof.plugin, poolproof.auto\n"
        "names = {'flask', 'flask_sqlalchemy', 'gunicorn', 'celery', 'luigi'}\n"
        "sys.exit(str(names & set(sys.modules)) if names & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
